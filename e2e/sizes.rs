//! Groups that get one more server and lose it again, and a cluster that sleeps and wakes: nothing is lost.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::support::{
    cluster::Cluster,
    load::Load,
    runner::{Story, Told},
    spec::SMALL,
    wait::{secs, wait_for},
};

pub async fn group_size(story: &mut Story<'_>) -> Told {
    let cluster = story.cluster("a small cluster", SMALL.volumes(true)).await?;
    story
        .check(
            "groups grow to three servers and shrink to two, nothing is lost",
            grow_and_shrink(&cluster),
        )
        .await
}

async fn grow_and_shrink(cluster: &Cluster) -> Result<()> {
    let load = Load::start(cluster, "size").await?;
    let all = async {
        for size in [3, 2] {
            let patch = json!({"spec": {"codisServer": {"replicas": 2 * size, "groupReplicas": size}}});
            cluster.patch(&patch).await?;
            let took = cluster.ready(secs(240)).await?;
            cluster.healthy(secs(60)).await?;
            load.goes_on(secs(10)).await?;
            println!("        {size} servers in each group after {:.1} s", took.as_secs_f64());
        }
        Ok(())
    };
    let all: Result<()> = all.await;
    let verdict = load.check().await?;
    all?;
    verdict.nothing_lost()
}

pub async fn hibernate(story: &mut Story<'_>) -> Told {
    let cluster = story.cluster("a small cluster on volumes", SMALL.volumes(true)).await?;
    story
        .check(
            "it hibernates without a pod and wakes with all that was written",
            sleep_and_wake(&cluster),
        )
        .await
}

async fn sleep_and_wake(cluster: &Cluster) -> Result<()> {
    let before = cluster.healthy(secs(60)).await?.topology;
    let ended = Load::start(cluster, "hibernate").await?.stop().await?;
    cluster.patch(&json!({"spec": {"hibernate": true}})).await?;
    wait_for("no pod to be left", secs(180), async || {
        let pods = cluster.pods().await?;
        ensure!(pods.is_empty(), "{} pods are left", pods.len());
        Ok(())
    })
    .await?;
    let brakes = cluster.status().await?.brakes;
    ensure!(
        brakes.iter().any(|line| line.contains("hibernate")),
        "brakes: {brakes:?}"
    );
    cluster.patch(&json!({"spec": {"hibernate": false}})).await?;
    let took = cluster.ready(secs(300)).await?;
    println!("        awake after {:.1} s", took.as_secs_f64());
    let after = cluster.healthy(secs(60)).await?.topology;
    ensure!(before.slots == after.slots, "slots have other groups");
    ended.check().await?.nothing_lost()
}
