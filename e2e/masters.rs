//! A master that is gone: kept away, killed again and again, on a node that stops. How long clients can't write, and what
//! is lost, is counted.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use codis_operator::api::names;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{
    deeds::{REPLICATION_LAG, another_master, ask_to_promote, dealt_with, fail_over, pod},
    support::{
        cluster::Cluster,
        health::Snapshot,
        lab::{OPERATOR_NAMESPACE, run},
        load::Load,
        nodes::{Loss, restore},
        processes::signal,
        runner::{Story, Told},
        spec::SMALL,
        wait::{secs, wait_for},
    },
};

/// The aim, told and not asserted, as the machine may do other things as well: writes again within this, where a pod or a
/// process is gone. The sentinels wait five seconds of it.
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
        ("a master that is kept away is replaced", Gone::KeptAway),
        (
            "a master whose process is killed again and again is replaced",
            Gone::KilledAgain,
        ),
        ("a master whose node hangs is replaced", Gone::Node(Loss::Paused)),
        ("a master whose node stops is replaced", Gone::Node(Loss::Stopped)),
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
    let group = match way {
        Gone::Node(_) => lone_master(cluster).await?,
        _ => 1,
    };
    let before = cluster.healthy(secs(120)).await?;
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
    ensure!(pause >= secs(1), "nobody missed it: the master was elsewhere by then");
    let word = if pause <= limit { "met" } else { "MISSED" };
    let (pause_s, limit_s) = (pause.as_secs_f64(), limit.as_secs());
    println!("        writes again after {pause_s:.1} s: the aim of {limit_s} s is {word}");
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

/// A group whose master is on a worker with neither the dashboard nor another master: one loss is measured, not several.
/// Where there is none, one is made by a switchover.
async fn lone_master(cluster: &Cluster) -> Result<i64> {
    let snapshot = cluster.healthy(secs(120)).await?;
    let workers = cluster.lab().workers().await?;
    let dashboard = &pod(&snapshot, &format!("{}-dashboard-0", cluster.name))?.node;
    let mut masters = Vec::new();
    for group in snapshot.topology.groups.keys() {
        masters.push((*group, snapshot.master_of(*group)?));
    }
    let is_lone = |group: i64, node: &String| {
        let mut others = masters.iter().filter(|(other, _)| *other != group);
        let beside = others.any(|(_, master)| pod(&snapshot, master).is_ok_and(|view| view.node == *node));
        node != dashboard && workers.contains(node) && !beside
    };
    for (group, master) in &masters {
        if is_lone(*group, &pod(&snapshot, master)?.node) {
            return Ok(*group);
        }
    }
    for (group, _) in &masters {
        let members = snapshot
            .pods
            .iter()
            .filter(|(name, _)| name.starts_with(&format!("{}-g{group}-", cluster.name)));
        for (name, view) in members {
            if is_lone(*group, &view.node) {
                let request = ask_to_promote(cluster, *group, Some(name), &format!("lone-{name}")).await?;
                dealt_with(cluster, &request, secs(60)).await?;
                cluster.healthy(secs(60)).await?;
                return Ok(*group);
            }
        }
    }
    bail!("no group has a server on a worker without the dashboard and without another master")
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

/// The operator's own failover isn't what is measured: where a replica of it is on the node, it is moved first. The node is
/// cordoned for that, which isn't to be taken for a drain.
async fn operator_elsewhere(cluster: &Cluster, node: &str) -> Result<()> {
    let until = Timestamp::now() + SignedDuration::from_secs(300);
    let hold = json!({"until": until.to_string(), "reason": "the operator moves"});
    cluster
        .annotate(names::ANNOTATION_HOLD, Some(&hold.to_string()))
        .await?;
    let lab = cluster.lab();
    let system = ["-n", OPERATOR_NAMESPACE];
    lab.kubectl(&["cordon", node]).await?;
    let moved = async {
        let on_it = format!("spec.nodeName={node}");
        let mut command = tokio::process::Command::new("kubectl");
        command.args(["--context", lab.context()]).args(system);
        command.args(["delete", "pods", "--field-selector", &on_it, "--timeout=50s"]);
        run(command).await?;
        wait_for("the operator elsewhere", secs(60), async || {
            let args = ["rollout", "status", "deployment/codis-operator", "--timeout=5s"];
            lab.kubectl(&[&system[..], &args].concat()).await.map(drop)
        })
        .await
    }
    .await;
    lab.kubectl(&["uncordon", node]).await?;
    cluster.annotate(names::ANNOTATION_HOLD, None).await?;
    moved
}
