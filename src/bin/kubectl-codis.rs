//! The kubectl plugin.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    codis_operator::cli::plugin().await
}
