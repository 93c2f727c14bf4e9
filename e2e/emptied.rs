//! A master that comes back empty is never copied from: its group's data survive.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{
    deeds::{pod, spread},
    support::{
        cluster::Cluster,
        health::Snapshot,
        load::Load,
        processes::signal,
        runner::{Story, Told, times},
        spec::SMALL,
        wait::{secs, wait_for},
    },
};

/// The volume is emptied under the running master.
const WIPED: &str = "rm -rf /data/* /data/.[!.]*";
/// The master runs without an append-only file and has no dump: its memory is all there is.
const MEMORY_ONLY: &str = "export REDISCLI_AUTH=$(cat /etc/codis/product-auth); \
    redis-cli CONFIG SET appendonly no >/dev/null; redis-cli CONFIG SET save '' >/dev/null; \
    rm -rf /data/appendonly* /data/dump.rdb";

pub async fn story(story: &mut Story<'_>) -> Told {
    for (volumes, how, script) in [
        (true, "whose volume is wiped", WIPED),
        (true, "that restarts in place without an append-only file", MEMORY_ONLY),
        (false, "on emptyDir that is wiped", WIPED),
    ] {
        let cluster = story.cluster("a small cluster", SMALL.volumes(volumes)).await?;
        let count = times(5);
        let name = format!("the data of a master {how} survive, {count} of {count}");
        let _: Told = story.check(&name, again_and_again(&cluster, script, count)).await;
        story
            .check("the cluster can be deleted", cluster.delete(secs(120)))
            .await?;
    }
    Ok(())
}

async fn again_and_again(cluster: &Cluster, script: &str, count: usize) -> Result<()> {
    let mut heals = Vec::new();
    for number in 0..count {
        let healed = once(cluster, script, number).await;
        heals.push(healed.with_context(|| format!("number {number}, after {} that survived", heals.len()))?);
    }
    println!("        {count} of {count} survived; whole again: {}", spread(&heals));
    Ok(())
}

async fn once(cluster: &Cluster, script: &str, number: usize) -> Result<std::time::Duration> {
    let before = cluster.healthy(secs(120)).await?;
    let ended = Load::start(cluster, &format!("emptied-{number}")).await?.stop().await?;
    let master = before.master_of(1)?;
    replicas_have_all(cluster, &before, &master).await?;
    cluster
        .lab()
        .exec(&cluster.namespace.name, &master, "server", script)
        .await?;
    let began = Instant::now();
    signal([pod(&before, &master)?], "SIGKILL").await?;
    wait_for("the server to be another process", secs(120), async || {
        let now = Snapshot::take(cluster).await?;
        ensure!(
            pod(&now, &master)?.container != pod(&before, &master)?.container,
            "it is the old one"
        );
        Ok(())
    })
    .await?;
    let whole = cluster.healthy(secs(180)).await;
    let healed = began.elapsed();
    let verdict = ended.check().await?;
    whole?;
    verdict.nothing_lost()?;
    Ok(healed)
}

/// Replication is asynchronous: what is to survive must be there.
async fn replicas_have_all(cluster: &Cluster, snapshot: &Snapshot, master: &str) -> Result<()> {
    let replicas = snapshot.topology.groups[&1].servers.iter().skip(1);
    let replicas: Vec<String> = replicas
        .map(|server| snapshot.pod_at(&server.address))
        .collect::<Result<_>>()?;
    wait_for("the replicas to have all", secs(30), async || {
        let wished = cluster.server_cli(master, "DBSIZE").await?;
        for replica in &replicas {
            let has = cluster.server_cli(replica, "DBSIZE").await?;
            ensure!(has == wished, "{replica} has {has} of {wished}");
        }
        Ok(())
    })
    .await
}
