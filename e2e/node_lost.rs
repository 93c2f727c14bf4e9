//! A node is gone for good, with the volumes on it: the cluster is whole again on the others, without a person.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{
    deeds::pod,
    support::{
        cluster::Cluster,
        health::Snapshot,
        load::{Ended, Load},
        nodes::{Loss, restore},
        runner::{Story, Told},
        spec::SMALL,
        wait::{secs, wait_for},
    },
};

/// The dashboard, the front end and the proxies serve elsewhere within this of the node's end.
const SERVES: std::time::Duration = secs(120);

pub async fn story(story: &mut Story<'_>) -> Told {
    let namespace = story.namespace().await?;
    let cluster = Cluster::new(&namespace, "c");
    let spec = SMALL.volumes(true).cluster(&cluster.name);
    let before = story
        .check(
            "a small cluster on volumes of its nodes becomes Ready",
            cluster.come_up(&spec),
        )
        .await?;
    let written = story
        .check("clients have written, and replicas have it", async {
            Load::start(&cluster, "before").await?.stop().await
        })
        .await?;
    let node = story
        .check("a node with a server that isn't master", async {
            victim(&cluster, &before).await
        })
        .await?;
    let lost = story
        .check(
            "it is removed for good: full redundancy on the others, nothing is lost",
            lose(&cluster, &node, &written),
        )
        .await;
    let lab = story.lab.clone();
    story.check("the node joins again", restore(&lab, &node)).await?;
    lost
}

/// The node of the dashboard, or of a replica: the most that is lost with it.
async fn victim(cluster: &Cluster, snapshot: &Snapshot) -> Result<String> {
    let workers = cluster.lab().workers().await?;
    let masters: Vec<String> = snapshot
        .topology
        .groups
        .keys()
        .filter_map(|group| snapshot.master_of(*group).ok())
        .collect();
    let on = |node: &String| {
        snapshot
            .pods
            .iter()
            .filter(|(_, pod)| pod.node == *node)
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    let has_replica = |node: &&String| {
        on(node)
            .iter()
            .any(|name| name.contains("-g") && !masters.contains(name))
    };
    let dashboard = &pod(snapshot, &format!("{}-dashboard-0", cluster.name))?.node;
    let mut candidates: Vec<&String> = workers.iter().filter(has_replica).collect();
    candidates.sort_by_key(|node| *node != dashboard);
    let node = (*candidates.first().context("no worker has a replica")?).clone();
    println!("        {node}: {:?}", on(&node));
    Ok(node)
}

async fn lose(cluster: &Cluster, node: &str, written: &Ended) -> Result<()> {
    let lab = cluster.lab();
    let began = Instant::now();
    Loss::Stopped.begin(node).await?;
    lab.kubectl(&["delete", "node", node, "--timeout=30s"]).await?;
    wait_for("it to serve elsewhere", SERVES, async || {
        let topology = cluster.topology().await?;
        ensure!(topology.proxies.iter().any(|proxy| proxy.online), "no proxy is online");
        let pods = cluster.pods().await?;
        let running = |pod: &&k8s_openapi::api::core::v1::Pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
                && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(node)
        };
        let has = |part: &str| {
            let name = |pod: &&k8s_openapi::api::core::v1::Pod| {
                pod.metadata.name.as_ref().is_some_and(|name| name.contains(part))
            };
            pods.iter().filter(running).any(|pod| name(&pod))
        };
        ensure!(has("-dashboard-") && has("-fe-"), "no dashboard or no front end yet");
        Ok(())
    })
    .await?;
    println!(
        "        dashboard, front end and proxies elsewhere after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let load = Load::start(cluster, "after").await?;
    let whole = cluster.healthy(secs(420)).await;
    println!("        full redundancy after {:.1} s", began.elapsed().as_secs_f64());
    let verdict = load.check().await?;
    let before = written.check().await?;
    let whole = whole?;
    let here = whole.pods.values().filter(|pod| pod.node == node).count();
    ensure!(here == 0, "{here} pods are on the node that is gone");
    before.nothing_lost()?;
    verdict.nothing_lost()
}
