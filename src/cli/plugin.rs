//! `kubectl codis`: clusters at a glance.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use k8s_openapi::jiff::{self, Timestamp};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    api::{CodisCluster, condition, go_duration, names, to_the_second},
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
    /// Make another server of a group its master, without losing a write. The operator does it, once it is safe.
    Promote {
        /// The cluster.
        name: String,
        /// The group's number.
        group: u16,
        /// The pod that is to be master; the fittest replica without one.
        server: Option<String>,
        /// The namespace; that of the current context without one.
        #[arg(short, long)]
        namespace: Option<String>,
        /// For how many seconds to wait for it; 0: not at all. It goes on when nobody waits any more.
        #[arg(long, default_value_t = 60)]
        wait: u64,
    },
    /// Stop changes for a while. Dead members are still replaced and failed over.
    Hold {
        /// The cluster.
        name: String,
        /// For how long, like 90m or 2h.
        #[arg(long = "for", value_name = "TIME")]
        time: String,
        /// Why, for those who look.
        #[arg(long)]
        reason: String,
        /// What is held: dashboard, fe, sentinel, proxy, server or moves (of masters); everything without one.
        #[arg(long)]
        scope: Vec<String>,
        /// The namespace; that of the current context without one.
        #[arg(short, long)]
        namespace: Option<String>,
    },
    /// End a hold before its time.
    Release {
        /// The cluster.
        name: String,
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
    match Arguments::parse().command {
        Command::Status { name, namespace } => show(&clusters(namespace).await?, name).await,
        Command::Promote {
            name,
            group,
            server,
            namespace,
            wait,
        } => {
            let wish = server.map_or(group.to_string(), |server| format!("{group}/{server}"));
            promote(&clusters(namespace).await?, &name, &wish, Duration::from_secs(wait)).await
        }
        Command::Hold {
            name,
            time,
            reason,
            scope,
            namespace,
        } => hold(&clusters(namespace).await?, &name, &time, &reason, &scope).await,
        Command::Release { name, namespace } => {
            annotate(&clusters(namespace).await?, &name, names::ANNOTATION_HOLD, None).await?;
            println!("nothing is held any more");
            Ok(())
        }
    }
}

async fn clusters(namespace: Option<String>) -> anyhow::Result<Api<CodisCluster>> {
    let client = connect().await?;
    Ok(match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::default_namespaced(client),
    })
}

/// Sets an annotation of a cluster, or removes it.
async fn annotate(api: &Api<CodisCluster>, name: &str, key: &str, value: Option<&str>) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { key: value } } }));
    let patched = api.patch(name, &PatchParams::default(), &patch).await;
    patched.with_context(|| format!("CodisCluster {name}"))?;
    Ok(())
}

/// Asks for a switchover through the object, and shows what becomes of it.
async fn promote(api: &Api<CodisCluster>, name: &str, wish: &str, limit: Duration) -> anyhow::Result<()> {
    let request = format!("{wish}@{}", Timestamp::now());
    annotate(api, name, names::ANNOTATION_PROMOTE, Some(&request)).await?;
    println!("asked for: {request}");
    let began = Instant::now();
    let mut told = String::new();
    while began.elapsed() < limit {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = api.get(name).await?.status.unwrap_or_default();
        let known = status.promotion.filter(|known| known.request == request);
        match known {
            Some(known) if known.outcome == "Done" => {
                println!("done: {}", known.message);
                return Ok(());
            }
            Some(known) if known.outcome == "Refused" => anyhow::bail!("refused: {}", known.message),
            _ => {}
        }
        let now = status.message.unwrap_or_default();
        if now != told && !now.is_empty() {
            println!("  {now}");
            told = now;
        }
    }
    println!("not yet: the operator goes on; see kubectl codis status {name}");
    Ok(())
}

async fn hold(api: &Api<CodisCluster>, name: &str, time: &str, reason: &str, scope: &[String]) -> anyhow::Result<()> {
    let time = go_duration(time).with_context(|| format!("--for {time}: write a duration like 90m or 2h"))?;
    let until = to_the_second(Timestamp::now() + jiff::SignedDuration::try_from(time)?);
    let value = json!({ "until": until.to_string(), "reason": reason, "scope": scope });
    annotate(api, name, names::ANNOTATION_HOLD, Some(&value.to_string())).await?;
    println!("held until {until}");
    Ok(())
}

async fn show(api: &Api<CodisCluster>, name: Option<String>) -> anyhow::Result<()> {
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
pub(super) fn describe(cluster: &CodisCluster) -> String {
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
    lines.extend(status.brakes.iter().map(|brake| format!("  {brake}")));
    lines.extend(status.nodes.iter().map(|node| format!("  {node}")));
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
