//! The end-to-end suite: what issue 3 must show, on a real Kubernetes cluster.
mod support;

#[tokio::main]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    let runner = support::runner::Runner::new("e2e").await?;
    Ok(runner.finish())
}
