//! A master that is gone: kept away, killed again and again, on a node that stops. How long clients can't write, and what
//! is lost, is counted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{
    deeds::{REPLICATION_LAG, another_master, fail_over, pod},
    support::{
        cluster::Cluster,
        health::Snapshot,
        lab::run,
        load::Load,
        nodes::{Loss, restore},
        processes::signal,
        runner::{Story, Told},
        spec::SMALL,
        wait::{secs, wait_for},
    },
};

/// Writes again within this, where a pod or a process is gone; the sentinels wait five seconds of it.
const POD: Duration = secs(8);
/// The same for a node, which takes proxies and sentinels with it.
const NODE: Duration = secs(12);

/// How a master goes.
#[derive(Clone, Copy)]
enum Gone {
    KeptAway,
    KilledAgain,
    Node(Loss),
}

pub async fn story(story: &mut Story<'_>) -> Told {
    let cluster = story.cluster("a small cluster on volumes", SMALL.volumes(true)).await?;
    let ways = [
        ("a master that is kept away is replaced within 8 s", Gone::KeptAway),
        (
            "a master whose process is killed again and again is replaced within 8 s",
            Gone::KilledAgain,
        ),
        (
            "a master whose node hangs is replaced within 12 s",
            Gone::Node(Loss::Paused),
        ),
        (
            "a master whose node stops is replaced within 12 s",
            Gone::Node(Loss::Stopped),
        ),
    ];
    for (name, way) in ways {
        let _: Told = story.check(name, gone(&cluster, way)).await;
        story
            .check("it is whole again", async {
                cluster.healthy(secs(180)).await.map(drop)
            })
            .await?;
    }
    Ok(())
}

async fn gone(cluster: &Cluster, way: Gone) -> Result<()> {
    let before = cluster.healthy(secs(120)).await?;
    let group = match way {
        Gone::Node(_) => group_away_from_clients(cluster, &before).await?,
        _ => 1,
    };
    let load = Load::start(cluster, "gone").await?;
    let switched = match way {
        Gone::KeptAway => fail_over(cluster, &before, group).await.map(|(_, new)| new),
        Gone::KilledAgain => kill_again(cluster, &before, group).await,
        Gone::Node(loss) => lose_node(cluster, &before, group, loss, &load).await,
    };
    let healed = load.goes_on(secs(60)).await;
    let verdict = load.stop().await?.check_at(cluster).await?;
    println!("        {} is master", switched?);
    healed?;
    verdict.lost_at_most(REPLICATION_LAG)?;
    let limit = if matches!(way, Gone::Node(_)) { NODE } else { POD };
    let pause = verdict.longest_pause();
    ensure!(pause <= limit, "no writes for {:.1} s", pause.as_secs_f64());
    Ok(())
}

/// Kills the master's process whenever it runs, until another one is master.
async fn kill_again(cluster: &Cluster, before: &Snapshot, group: i64) -> Result<String> {
    let master = before.master_of(group)?;
    signal([pod(before, &master)?], "SIGKILL").await?;
    let killing = async {
        loop {
            // Fails while no process is there: that is what is wished.
            if let Ok(now) = Snapshot::take(cluster).await
                && let Ok(view) = pod(&now, &master)
            {
                let _: Result<()> = signal([view], "SIGKILL").await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        switched = another_master(cluster, group, &master, secs(60)) => switched,
        () = killing => Err(anyhow::anyhow!("no end")),
    }
}

/// A group whose master isn't on a node that something of the lab itself depends on.
async fn group_away_from_clients(cluster: &Cluster, snapshot: &Snapshot) -> Result<i64> {
    let workers = cluster.lab().workers().await?;
    let dashboard = pod(snapshot, &format!("{}-dashboard-0", cluster.name))?.node.clone();
    let mut groups = Vec::new();
    for group in snapshot.topology.groups.keys() {
        let node = &pod(snapshot, &snapshot.master_of(*group)?)?.node;
        if workers.contains(node) {
            groups.push((*node == dashboard, *group));
        }
    }
    // With the dashboard on the node too, nobody could be asked; it is a loss as good as any other, but the last choice.
    groups.sort_unstable();
    groups.first().map(|(_, group)| *group).context("no master on a worker")
}

async fn lose_node(cluster: &Cluster, before: &Snapshot, group: i64, loss: Loss, load: &Load) -> Result<String> {
    let master = before.master_of(group)?;
    let node = pod(before, &master)?.node.clone();
    operator_elsewhere(cluster, &node).await?;
    let lost = async {
        loss.begin(&node).await?;
        load.goes_on(secs(60)).await?;
        another_master(cluster, group, &master, secs(60)).await
    }
    .await;
    restore(cluster.lab(), &node).await?;
    lost
}

/// The operator's own failover isn't what is measured: where its only replica is on the node, it is moved first.
async fn operator_elsewhere(cluster: &Cluster, node: &str) -> Result<()> {
    let lab = cluster.lab();
    let system = ["-n", crate::support::lab::OPERATOR_NAMESPACE];
    lab.kubectl(&["cordon", node]).await?;
    let mut command = tokio::process::Command::new("kubectl");
    command.args(["--context", lab.context()]).args(system);
    command.args([
        "delete",
        "pods",
        "--field-selector",
        &format!("spec.nodeName={node}"),
        "--timeout=50s",
    ]);
    let moved = run(command).await;
    let rolled = wait_for("the operator elsewhere", secs(60), async || {
        let args = [
            system[0],
            system[1],
            "rollout",
            "status",
            "deployment/codis-operator",
            "--timeout=5s",
        ];
        lab.kubectl(&args).await.map(drop)
    })
    .await;
    lab.kubectl(&["uncordon", node]).await?;
    moved?;
    rolled
}
