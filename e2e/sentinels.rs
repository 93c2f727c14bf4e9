//! Sentinels that were away while a master changed, that restart, and that forget: traps S1 to S3 of the experiment.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{
    deeds::{another_master, destroy, fail_over, pod},
    support::{
        cluster::Cluster,
        health::Snapshot,
        load::Load,
        processes::{connected, signal},
        runner::{Story, Told, times},
        spec::SMALL,
        wait::{secs, stays, wait_for},
    },
};

/// An old master that comes back with a stale sentinel does so within 20 s (experiment, S1).
const TRAP: std::time::Duration = secs(40);
/// Half a resync is noticed and repaired within this.
const REPAIR: std::time::Duration = secs(15);

pub async fn story(story: &mut Story<'_>) -> Told {
    let cluster = story.cluster("a small cluster on volumes", SMALL.volumes(true)).await?;
    let _: Told = story
        .check(
            "a sentinel that was gone while its master changed comes back: the new master stays",
            restarted(&cluster),
        )
        .await;
    let _: Told = story
        .check(
            "a sentinel that was only cut off while its master changed comes back: the new master stays",
            partitioned(&cluster),
        )
        .await;
    let _: Told = story
        .check(
            "a sentinel that forgot a master is told it again within 15 s",
            forgetful(&cluster),
        )
        .await;
    let count = times(10);
    let name = format!("after {count} restarts of sentinels every sentinel sees all others");
    story.check(&name, many_restarts(&cluster, count)).await
}

async fn restarted(cluster: &Cluster) -> Result<()> {
    let before = cluster.healthy(secs(120)).await?;
    let sentinel = before.pods_of("sentinel").pop().context("no sentinel")?;
    let old = before.master_of(1)?;
    let lab = cluster.lab();
    // No node takes a pod: both stay away until the new master is official and clients have written to it.
    lab.schedulable(false).await?;
    let switched = async {
        destroy(cluster, &before, &sentinel).await?;
        destroy(cluster, &before, &old).await?;
        let new = another_master(cluster, 1, &old, secs(60)).await?;
        Ok((new, Load::start(cluster, "sentinel-restarted").await?))
    };
    let switched: Result<_> = switched.await;
    lab.schedulable(true).await?;
    let (new, load) = switched?;
    stays_master(cluster, load, &new).await
}

async fn partitioned(cluster: &Cluster) -> Result<()> {
    let before = cluster.healthy(secs(120)).await?;
    let name = before.pods_of("sentinel").pop().context("no sentinel")?;
    let sentinel = pod(&before, &name)?;
    connected(sentinel, false).await?;
    let switched = async {
        let (_, new) = fail_over(cluster, &before, 1).await?;
        Ok((new, Load::start(cluster, "sentinel-partitioned").await?))
    };
    let switched: Result<_> = switched.await;
    // Long enough for the old master to be back and for the operator to tidy up without this sentinel, or not to.
    let tidied = match &switched {
        Ok((new, _)) => {
            wait_for("the old master to follow", secs(60), async || {
                follows(cluster, new).await
            })
            .await
        }
        Err(_) => Ok(()),
    };
    connected(sentinel, true).await?;
    let now = Snapshot::take(cluster).await?;
    let same = pod(&now, &name)?.container == sentinel.container;
    let (new, load) = switched?;
    let stayed = stays_master(cluster, load, &new).await;
    ensure!(same, "the kubelet started it anew: it wasn't only cut off");
    tidied.and(stayed)
}

/// Whether the first group's other server is a replica of this master.
async fn follows(cluster: &Cluster, master: &str) -> Result<()> {
    let now = Snapshot::take(cluster).await?;
    let servers = &now.topology.groups.get(&1).context("no group 1")?.servers;
    ensure!(now.master_of(1)? == master, "{master} isn't master");
    ensure!(
        servers
            .iter()
            .skip(1)
            .all(|server| server.role == "slave" && server.link_up),
        "{servers:?}"
    );
    Ok(())
}

/// The new master stays one, by the dashboard and by its own word, and the cluster becomes whole; nothing that was
/// acknowledged since the change is lost.
async fn stays_master(cluster: &Cluster, load: Load, new: &str) -> Result<()> {
    let stayed = stays(&format!("{new} is master"), TRAP, async || {
        // The dashboard may be away for a moment; who answers must answer so.
        if let Ok(now) = Snapshot::take(cluster).await {
            ensure!(now.master_of(1)? == new, "{} is", now.master_of(1)?);
        }
        let role = cluster
            .server_cli(new, "ROLE")
            .await
            .unwrap_or_else(|_| "master".to_owned());
        ensure!(role.starts_with("master"), "it says {role}");
        Ok(())
    })
    .await;
    let whole = cluster.healthy(secs(120)).await;
    let verdict = load.check().await?;
    stayed?;
    ensure!(whole?.master_of(1)? == new, "another one is master in the end");
    verdict.nothing_lost()
}

/// One sentinel loses a master, as by a resync that failed half way.
async fn forgetful(cluster: &Cluster) -> Result<()> {
    let before = cluster.healthy(secs(120)).await?;
    let sentinel = before.pods_of("sentinel").pop().context("no sentinel")?;
    let (namespace, lab) = (&cluster.namespace.name, cluster.lab());
    let ask = async |command: &str| {
        lab.exec(
            namespace,
            &sentinel,
            "sentinel",
            &format!("redis-cli -p 26379 {command}"),
        )
        .await
    };
    let masters = ask("SENTINEL MASTERS").await?;
    let name = masters
        .lines()
        .find(|line| line.ends_with("-1"))
        .context("it watches no group 1")?
        .to_owned();
    let began = Instant::now();
    ask(&format!("SENTINEL REMOVE {name}")).await?;
    wait_for("it to watch again", secs(60), async || {
        let address = ask(&format!("SENTINEL GET-MASTER-ADDR-BY-NAME {name}")).await?;
        ensure!(address.contains('.'), "it doesn't");
        Ok(())
    })
    .await?;
    let took = began.elapsed();
    println!("        told again after {:.1} s", took.as_secs_f64());
    let healthy = cluster.healthy(secs(60)).await?;
    ensure!(healthy.master_of(1)? == before.master_of(1)?, "the master changed");
    ensure!(took <= REPAIR, "after {:.1} s only", took.as_secs_f64());
    Ok(())
}

async fn many_restarts(cluster: &Cluster, count: usize) -> Result<()> {
    let mut heals = Vec::new();
    for number in 0..count {
        let before = cluster
            .healthy(secs(120))
            .await
            .with_context(|| format!("before restart {number}"))?;
        let sentinels = before.pods_of("sentinel");
        let name = &sentinels[number % sentinels.len()];
        // In place and as a new pod, by turns.
        let began = if number % 2 == 0 {
            let began = Instant::now();
            signal([pod(&before, name)?], "SIGKILL").await?;
            began
        } else {
            destroy(cluster, &before, name).await?
        };
        let old = &pod(&before, name)?.container;
        wait_for("the sentinel to be another one", secs(90), async || {
            let now = Snapshot::take(cluster).await?;
            ensure!(pod(&now, name)?.container != *old, "it isn't");
            Ok(())
        })
        .await?;
        // Healthy: each watches every group and knows n − 1 others.
        cluster
            .healthy(secs(120))
            .await
            .with_context(|| format!("after restart {number}"))?;
        heals.push(began.elapsed());
    }
    println!("        whole again: {}", crate::deeds::spread(&heals));
    Ok(())
}
