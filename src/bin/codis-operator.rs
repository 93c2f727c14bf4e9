//! The operator.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    codis_operator::cli::operator().await
}
