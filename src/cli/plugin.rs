//! `kubectl codis`: clusters at a glance.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use kube::{Api, ResourceExt, api::ListParams};

use crate::{
    api::{CodisCluster, condition},
    cluster::connect,
};

/// Shows Codis clusters. As `kubectl-codis` on PATH it is called `kubectl codis`.
#[derive(Parser)]
#[command(name = "kubectl-codis", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a cluster: its conditions, groups and what it waits for.
    Status {
        /// The cluster; all of the namespace without one.
        name: Option<String>,
        /// The namespace; that of the current context without one.
        #[arg(short, long)]
        namespace: Option<String>,
    },
}

/// The program `kubectl-codis`.
///
/// # Errors
/// When the API server can't be asked, or there is no such cluster.
pub async fn plugin() -> anyhow::Result<()> {
    let Command::Status { name, namespace } = Arguments::parse().command;
    let client = connect().await?;
    let api: Api<CodisCluster> = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::default_namespaced(client),
    };
    let clusters = match &name {
        Some(name) => vec![api.get(name).await.with_context(|| format!("CodisCluster {name}"))?],
        None => api.list(&ListParams::default()).await?.items,
    };
    if clusters.is_empty() {
        println!("no CodisCluster here");
    }
    for cluster in &clusters {
        print!("{}", describe(cluster));
    }
    Ok(())
}

/// A cluster in a few lines.
fn describe(cluster: &CodisCluster) -> String {
    let status = cluster.status.clone().unwrap_or_default();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let is = |type_: &str| {
        status
            .conditions
            .iter()
            .find(|c| c.type_ == type_)
            .map_or("Unknown", |c| c.status.as_str())
            .to_owned()
    };
    let mut lines = vec![format!(
        "{}: {}  ready={} serving={}  proxies {}  servers {}  sentinels {}  slots {}",
        cluster.name_any(),
        or_dash(status.phase),
        is(condition::READY),
        is(condition::SERVING),
        or_dash(status.proxies),
        or_dash(status.servers),
        or_dash(status.sentinels),
        status
            .slots_served
            .map_or("-".to_owned(), |slots| format!("{slots}/1024")),
    )];
    lines.extend(status.message.map(|message| format!("  {message}")));
    lines.extend(
        status
            .gitops
            .map(|git| format!("  from {} of {} at {}", git.path, git.source, git.revision)),
    );
    for group in &status.groups {
        let servers = group.servers.iter().map(|server| match server.link_up {
            Some(false) => format!("{} {} (link down)", server.name, server.role),
            _ => format!("{} {}", server.name, server.role),
        });
        lines.push(format!(
            "  group {}: {} slots: {}",
            group.id,
            group.slots,
            servers.collect::<Vec<_>>().join(", ")
        ));
    }
    lines.extend(
        status
            .without_effect
            .iter()
            .map(|note| format!("  without effect: {note}")),
    );
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_described_with_its_groups_and_its_message() {
        let cluster: CodisCluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster", "metadata": {"name": "demo"},
            "spec": {
                "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
                "codisProxy": {"image": "i", "replicas": 1}, "codisDashboard": {"image": "i"},
                "codisServer": {"image": "i", "replicas": 2, "groupReplicas": 2}
            },
            "status": {
                "gitops": {"source": "fleet", "path": "a.yaml", "revision": "main@sha1:ab", "appliedAt": "2026-01-01T00:00:00Z"},
                "phase": "Degraded", "message": "replica is not in sync yet", "slotsServed": 1024,
                "groups": [{"id": 1, "slots": 1024, "bootstrapped": true, "servers": [
                    {"name": "demo-g1-0", "role": "master"},
                    {"name": "demo-g1-1", "role": "replica", "linkUp": false}]}]
            }
        }))
        .unwrap();
        let text = describe(&cluster);
        assert!(text.starts_with("demo: Degraded  ready=Unknown"), "{text}");
        assert!(
            text.contains("group 1: 1024 slots: demo-g1-0 master, demo-g1-1 replica (link down)"),
            "{text}"
        );
        assert!(text.contains("replica is not in sync yet"), "{text}");
        assert!(text.contains("from a.yaml of fleet at main@sha1:ab"), "{text}");
    }
}
