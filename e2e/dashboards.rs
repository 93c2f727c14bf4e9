//! A dashboard that is killed serves again at once, and there are never two.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;

use crate::{
    deeds::{destroy, pod, spread},
    support::{
        cluster::Cluster,
        health::Snapshot,
        load::Load,
        nodes::{Loss, restore},
        processes::{count, signal},
        runner::{Story, Told, times},
        spec::SMALL,
        wait::{secs, wait_for},
    },
};

/// Serving again, counted from the start of the container: the rest is the kubelet's back-off.
const SERVES_WITHIN: Duration = secs(5);

pub async fn story(story: &mut Story<'_>) -> Told {
    let cluster = story.cluster("a small cluster", SMALL).await?;
    let many = times(6);
    let name = format!("a dashboard that is killed {many} times serves again within 5 s, and there are never two");
    let _: Told = story.check(&name, killed(&cluster, many)).await;
    story
        .check(
            "a dashboard whose node hangs and whose pod is deleted by force is never there twice",
            forced_off_a_hanging_node(&cluster),
        )
        .await
}

async fn killed(cluster: &Cluster, many: usize) -> Result<()> {
    let load = Load::start(cluster, "dashboard").await?;
    let all = async {
        let mut took = Vec::new();
        for number in 0..many {
            took.push(
                once(cluster, number % 2 == 1)
                    .await
                    .with_context(|| format!("kill {number}"))?,
            );
        }
        Ok(took)
    };
    // Looked for all the while, on every node.
    let workers = cluster.lab().workers().await?;
    let all: Result<Vec<Duration>> = tokio::select! {
        all = all => all,
        two = never_two(cluster, &workers) => Err(two),
    };
    let verdict = load.check().await?;
    let mut took = all?;
    println!("        serving again after its start: {}", spread(&took));
    took.sort_unstable();
    let p95 = took[(took.len() * 95).div_ceil(100) - 1];
    ensure!(p95 <= SERVES_WITHIN, "p95 is {p95:?}");
    verdict.nothing_lost()?;
    ensure!(verdict.client_errors() == 0, "clients saw errors: {:?}", verdict.errors);
    Ok(())
}

/// Kills the process, or the pod too, so that the kubelet's back-off begins anew; gives the time from the start of the new
/// container until the dashboard serves.
pub async fn once(cluster: &Cluster, with_pod: bool) -> Result<Duration> {
    let before = cluster.healthy(secs(120)).await?;
    let name = format!("{}-dashboard-0", cluster.name);
    let old = pod(&before, &name)?;
    if with_pod {
        destroy(cluster, &before, &name).await?;
    } else {
        signal([old], "SIGKILL").await?;
    }
    let started = wait_for("a new container", secs(120), async || {
        let now = cluster.pods().await?;
        let found = now
            .iter()
            .find(|pod| pod.metadata.name.as_ref() == Some(&name))
            .context("no pod")?;
        let statuses = found
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        let mut running = statuses.filter(|status| {
            !status
                .container_id
                .as_ref()
                .is_some_and(|id| id.ends_with(&old.container))
        });
        let state = running
            .next()
            .and_then(|status| status.state.clone())
            .and_then(|state| state.running);
        Ok(state.and_then(|state| state.started_at).context("it doesn't run")?.0)
    })
    .await?;
    wait_for("the dashboard to serve", secs(60), async || {
        cluster.topology().await.map(drop)
    })
    .await?;
    // The API server has whole seconds only: up to one more than it was.
    let passed = Timestamp::now().duration_since(started);
    Ok(Duration::try_from(passed).unwrap_or_default())
}

/// Ends when two processes of this cluster's dashboard run at the same time.
async fn never_two(cluster: &Cluster, nodes: &BTreeSet<String>) -> anyhow::Error {
    loop {
        match processes(cluster, nodes).await {
            Ok(count) if count > 1 => return anyhow::anyhow!("{count} dashboards run at the same time"),
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn processes(cluster: &Cluster, nodes: &BTreeSet<String>) -> Result<usize> {
    let addresses = cluster.service_addresses().await?;
    // It locks its product with the address of a Service of its own.
    let own = format!("{}-dashboard-", cluster.name);
    let lock = addresses
        .values()
        .find(|name| name.starts_with(&own))
        .context("no Service")?;
    let part = format!("--host-admin={lock}.");
    let counts = nodes.iter().map(|node| count(node, &part));
    Ok(futures::future::try_join_all(counts).await?.into_iter().sum())
}

async fn forced_off_a_hanging_node(cluster: &Cluster) -> Result<()> {
    let before = cluster.healthy(secs(120)).await?;
    let name = format!("{}-dashboard-0", cluster.name);
    let node = pod(&before, &name)?.node.clone();
    let nodes = cluster.lab().workers().await?;
    ensure!(
        processes(cluster, &nodes).await? == 1,
        "the dashboard's process isn't found"
    );
    let others: BTreeSet<String> = nodes.iter().filter(|other| **other != node).cloned().collect();
    Loss::Paused.begin(&node).await?;
    let began = Instant::now();
    let elsewhere = async {
        let args = ["delete", "pod", &name, "--grace-period=0", "--force", "--wait=false"];
        cluster.namespace.kubectl(&args).await?;
        // The old process isn't gone, it only hangs: one more elsewhere would be a second writer.
        let mut most = 0;
        while began.elapsed() < secs(30) {
            most = most.max(processes(cluster, &others).await?);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(most)
    };
    let elsewhere: Result<usize> = elsewhere.await;
    restore(cluster.lab(), &node).await?;
    let most = elsewhere?;
    ensure!(most == 0, "{most} dashboards ran elsewhere, while the old one hung");
    let whole = async { wait_for("health", secs(180), async || Snapshot::healthy(cluster).await.map(drop)).await };
    tokio::select! {
        whole = whole => whole,
        two = never_two(cluster, &nodes) => Err(two),
    }
}
