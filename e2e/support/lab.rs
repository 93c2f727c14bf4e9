//! The Kubernetes cluster under test: a typed client, and kubectl where that is simpler.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::process::Command;

use super::wait::secs;

/// Where the operator runs.
pub const OPERATOR_NAMESPACE: &str = "codis-system";
/// The operator's Deployment.
pub const OPERATOR: &str = "codis-operator";

/// The Kubernetes cluster under test.
#[derive(Clone)]
pub struct Lab {
    /// A client of its API server.
    pub client: Client,
    context: String,
}

impl Lab {
    /// Connects to the cluster of `KUBE_CONTEXT`, by default the kind cluster "codis".
    pub async fn connect() -> Result<Self> {
        let context = std::env::var("KUBE_CONTEXT").unwrap_or_else(|_| "kind-codis".to_owned());
        let options = KubeConfigOptions {
            context: Some(context.clone()),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(Kubeconfig::read()?, &options)
            .await
            .with_context(|| format!("no usable context {context} in the kubeconfig; `make kind-up` makes one"))?;
        Ok(Self {
            client: Client::try_from(config)?,
            context,
        })
    }

    /// The context of the kubeconfig.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// Runs kubectl and gives what it printed.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("kubectl");
        command.args(["--context", &self.context]).args(args);
        run(command).await
    }

    /// GETs a path of the API server.
    pub async fn raw(&self, path: &str) -> Result<String> {
        self.kubectl(&["get", "--raw", path]).await
    }

    /// Runs a shell command in a container.
    pub async fn exec(&self, namespace: &str, pod: &str, container: &str, script: &str) -> Result<String> {
        self.kubectl(&["-n", namespace, "exec", pod, "-c", container, "--", "sh", "-c", script])
            .await
    }

    /// The log of a container since it started.
    pub async fn log(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        self.kubectl(&["-n", namespace, "logs", pod, "-c", container]).await
    }

    /// Every node.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        Ok(Api::<Node>::all(self.client.clone())
            .list(&Default::default())
            .await?
            .items)
    }

    /// Nodes that may take pods, by name.
    pub async fn workers(&self) -> Result<BTreeSet<String>> {
        let control_plane = "node-role.kubernetes.io/control-plane";
        let nodes = self.nodes().await?.into_iter();
        Ok(nodes
            .filter(|node| {
                !node
                    .metadata
                    .labels
                    .iter()
                    .flatten()
                    .any(|(key, _)| key == control_plane)
            })
            .filter_map(|node| node.metadata.name)
            .collect())
    }

    /// An address at which NodePorts answer from this machine.
    pub async fn node_address(&self) -> Result<String> {
        let nodes = self.nodes().await?;
        let mut addresses = nodes
            .iter()
            .filter_map(|node| node.status.as_ref())
            .flat_map(|status| status.addresses.iter().flatten());
        let internal = addresses.find(|address| address.type_ == "InternalIP" && !address.address.contains(':'));
        Ok(internal.context("no node has an InternalIP")?.address.clone())
    }

    /// Lets all workers take new pods, or none of them.
    pub async fn schedulable(&self, schedulable: bool) -> Result<()> {
        let verb = if schedulable { "uncordon" } else { "cordon" };
        let workers = self.workers().await?;
        let args: Vec<&str> = std::iter::once(verb)
            .chain(workers.iter().map(String::as_str))
            .collect();
        self.kubectl(&args).await.map(drop)
    }
}

/// Runs a program to its end, at most a minute.
pub async fn run(command: Command) -> Result<String> {
    run_within(command, secs(60)).await
}

/// Runs a program to its end.
pub async fn run_within(mut command: Command, limit: Duration) -> Result<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let output = tokio::time::timeout(limit, command.output())
        .await
        .with_context(|| format!("{shown}: no end after {} s", limit.as_secs()))?
        .with_context(|| shown.clone())?;
    if !output.status.success() {
        bail!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
