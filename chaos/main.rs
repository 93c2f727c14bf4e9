//! The chaos suite.
#[path = "../e2e/support/mod.rs"]
mod support;

#[tokio::main]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    let runner = support::runner::Runner::new("chaos").await?;
    Ok(runner.finish())
}
