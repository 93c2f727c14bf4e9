//! A cluster that nobody changes costs no write: counted at the API server, the dashboard, the servers and the
//! sentinels, over a window in which the operator was made to look again.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::support::{
    cluster::Cluster,
    health::Snapshot,
    wait::{secs, wait_for},
};

/// How long nothing may be written: ten resync periods.
const WINDOW: Duration = secs(50);
/// What the operator can write in Kubernetes, Leases aside.
const RESOURCES: [&str; 12] = [
    "codisclusters",
    "statefulsets",
    "deployments",
    "services",
    "secrets",
    "configmaps",
    "pods",
    "persistentvolumeclaims",
    "poddisruptionbudgets",
    "horizontalpodautoscalers",
    "serviceaccounts",
    "networkpolicies",
];
/// Verbs that write, as the API server counts them.
const VERBS: [&str; 6] = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"];
/// Commands that change a server, as `INFO commandstats` names them.
const COMMANDS: [&str; 14] = [
    "config|set",
    "config|rewrite",
    "config|resetstat",
    "slaveof",
    "replicaof",
    "failover",
    "debug",
    "shutdown",
    "flushall",
    "flushdb",
    "set",
    "del",
    "client|kill",
    "exec",
];
/// Lines of a sentinel's log that tell of a change.
const SENTINEL_EVENTS: [&str; 6] = [
    "# +monitor ",
    "# -monitor ",
    "# +set ",
    "+reset-master ",
    "+switch-master ",
    "+new-epoch ",
];

/// Counts of writes by what was written.
type Tally = BTreeMap<String, i64>;

/// Looks on for a while.
pub async fn writes_nothing(cluster: &Cluster) -> Result<()> {
    let snapshot = Snapshot::healthy(cluster).await?;
    let before = wait_for("writes to end", secs(120), async || settled(cluster, &snapshot).await).await?;
    ensure!(
        before
            .iter()
            .any(|(key, count)| key.starts_with("dashboard") && *count > 0),
        "counts no dashboard calls"
    );
    ensure!(
        before.iter().any(|(key, count)| key.contains("+monitor") && *count > 0),
        "counts no sentinel commands"
    );
    // One write of ours, so that a reconcile surely runs within the window.
    let touch = [
        "annotate",
        "codiscluster",
        &cluster.name,
        "codis.k8s.io/e2e-touched=now",
    ];
    cluster.namespace.kubectl(&touch).await?;
    tokio::time::sleep(WINDOW).await;
    let mut delta = difference(&before, &tally(cluster, &snapshot).await?);
    let ours = delta.entry("API server: PATCH codisclusters".to_owned()).or_default();
    ensure!(*ours >= 1, "the API server's counters missed our own write");
    *ours -= 1;
    delta.retain(|_, count| *count != 0);
    println!(
        "        {} counters over {} s, changed: {delta:?}",
        before.len(),
        WINDOW.as_secs()
    );
    ensure!(
        delta.is_empty(),
        "written in {} s without a change: {delta:?}",
        WINDOW.as_secs()
    );
    Ok(())
}

/// A tally that stayed the same for ten seconds.
async fn settled(cluster: &Cluster, snapshot: &Snapshot) -> Result<Tally> {
    let first = tally(cluster, snapshot).await?;
    tokio::time::sleep(secs(10)).await;
    let second = tally(cluster, snapshot).await?;
    let delta = difference(&first, &second);
    ensure!(delta.is_empty(), "still written: {delta:?}");
    Ok(second)
}

async fn tally(cluster: &Cluster, snapshot: &Snapshot) -> Result<Tally> {
    let mut tally = api_server(&cluster.lab().raw("/metrics").await?);
    tally.extend(operator_events(&cluster.lab().raw("/api/v1/events").await?)?);
    let dashboard = format!("{}-dashboard-0", cluster.name);
    let calls = cluster
        .log(&dashboard, "dashboard")
        .await?
        .lines()
        .filter(|line| line.contains("API call"))
        .count();
    tally.insert("dashboard: API calls".to_owned(), i64::try_from(calls)?);
    for pod in snapshot.pods_of("server") {
        let stats = cluster.server_cli(&pod, "INFO commandstats").await?;
        ensure!(
            stats.contains("cmdstat_info"),
            "{pod} has no command statistics: {stats}"
        );
        tally.extend(commands(&pod, &stats));
    }
    for pod in snapshot.pods_of("sentinel") {
        let log = cluster.log(&pod, "sentinel").await?;
        for event in SENTINEL_EVENTS {
            let count = log.lines().filter(|line| line.contains(event)).count();
            tally.insert(
                format!("{pod}: {}", event.trim_matches(['#', ' '])),
                i64::try_from(count)?,
            );
        }
    }
    Ok(tally)
}

/// Requests that write, by verb and resource. Status written by Kubernetes' own controllers isn't ours.
fn api_server(metrics: &str) -> Tally {
    let mut tally = Tally::new();
    for line in metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{"))
    {
        let (labels, value) = line.rsplit_once(' ').unwrap_or((line, "0"));
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let (verb, resource) = (label("verb").unwrap_or(""), label("resource").unwrap_or(""));
        let subresource = label("subresource").unwrap_or("");
        let counts = VERBS.contains(&verb) && RESOURCES.contains(&resource);
        if counts && (subresource.is_empty() || resource == "codisclusters") {
            let name = format!("API server: {verb} {resource} {subresource}");
            let value: f64 = value.parse().unwrap_or(0.0);
            *tally.entry(name.trim_end().to_owned()).or_default() += value as i64;
        }
    }
    tally
}

/// The operator's events, each with its version: a new one, or one more of the same, is a write.
fn operator_events(list: &str) -> Result<Tally> {
    let list: Value = serde_json::from_str(list)?;
    let items = list["items"].as_array().context("no list of events")?;
    let ours = items.iter().filter(|event| {
        let names = [&event["reportingComponent"], &event["source"]["component"]];
        names
            .iter()
            .any(|name| name.as_str().is_some_and(|name| name.contains("codis")))
    });
    let name = |event: &Value| {
        let metadata = &event["metadata"];
        format!(
            "event {} {} {}",
            event["reason"], metadata["name"], metadata["resourceVersion"]
        )
    };
    Ok(ours.map(|event| (name(event), 1)).collect())
}

fn commands(pod: &str, stats: &str) -> Tally {
    let calls = |line: &str| -> Option<(String, i64)> {
        let (name, rest) = line.trim().strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse().ok()?;
        COMMANDS.contains(&name).then(|| (format!("{pod}: {name}"), calls))
    };
    stats.lines().filter_map(calls).collect()
}

fn difference(before: &Tally, after: &Tally) -> Tally {
    let keys = before.keys().chain(after.keys());
    let change = |key: &String| after.get(key).copied().unwrap_or(0) - before.get(key).copied().unwrap_or(0);
    keys.map(|key| (key.clone(), change(key)))
        .filter(|(_, count)| *count != 0)
        .collect()
}
