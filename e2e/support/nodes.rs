//! Nodes of a kind cluster that stop, hang or are drained, and come back whatever happens.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::{
    lab::{Lab, run, run_within},
    wait::{secs, wait_for},
};

/// How a node goes.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// All its processes are frozen.
    Paused,
    /// It is switched off.
    Stopped,
}

impl Loss {
    /// Makes the node go.
    pub async fn begin(self, node: &str) -> Result<()> {
        match self {
            Self::Paused => docker(&["pause", node]).await,
            Self::Stopped => docker(&["stop", "-t", "1", node]).await,
        }
    }
}

/// Brings a node back, in whatever way it went, and waits until it is ready and takes pods.
pub async fn restore(lab: &Lab, node: &str) -> Result<()> {
    let state = inspect(node).await?;
    match state.trim() {
        "paused" => docker(&["unpause", node]).await?,
        "running" => {}
        _ => docker(&["start", node]).await?,
    }
    wait_for("the node to be ready", secs(150), async || ready(lab, node).await).await?;
    lab.kubectl(&["uncordon", node]).await.map(drop)
}

/// Brings every node of the lab back, after whatever went wrong.
pub async fn restore_all(lab: &Lab, nodes: impl IntoIterator<Item = &String>) -> Result<()> {
    for node in nodes {
        restore(lab, node).await.with_context(|| node.clone())?;
    }
    Ok(())
}

/// Whether a node says that it is ready.
pub async fn ready(lab: &Lab, node: &str) -> Result<()> {
    let nodes = lab.nodes().await?;
    let found = nodes.iter().find(|found| found.metadata.name.as_deref() == Some(node));
    let conditions = found
        .context("no such node")?
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ensure!(is_ready, "not ready");
    Ok(())
}

/// Drains a node as a person does.
pub async fn drain(lab: &Lab, node: &str, limit: Duration) -> Result<()> {
    let timeout = format!("--timeout={}s", limit.as_secs());
    let args = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", &timeout];
    let mut command = Command::new("kubectl");
    command.args(["--context", lab.context()]).args(args);
    run_within(command, limit + secs(15)).await.map(drop)
}

async fn inspect(node: &str) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(["inspect", "--format", "{{.State.Status}}", node]);
    run(command).await
}

async fn docker(args: &[&str]) -> Result<()> {
    let mut command = Command::new("docker");
    command.args(args);
    run(command).await.map(drop)
}
