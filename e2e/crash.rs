//! The operator ends, or dies, at every phase of a switchover: the group works, is neither fenced nor locked, and nothing
//! is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use codis_operator::domain::slot_of_key;
use kube::{Api, Resource, api::ListParams};

use crate::{
    deeds::{ask_to_promote, dealt_with},
    support::{
        cluster::Cluster,
        health::Snapshot,
        lab::{Lab, OPERATOR, OPERATOR_NAMESPACE},
        load::Load,
        resp::{Connection, Reply},
        runner::{Story, Told},
        spec::{SESSION, SMALL},
        wait::{secs, wait_for},
    },
};

/// Before and after each effect of a switchover. The status is written with the intent before the first lock, and
/// without it at the end; a lock and its end are an effect at each of the two proxies. (`after`: the process dies
/// when it would begin the next effect, whatever that is.)
const PHASES: [&str; 22] = [
    "kubernetes/status:before:1",
    "kubernetes/status:after:1",
    "codis/listen:before:1",
    "codis/listen:after:1",
    "codis/listen:after:2",
    "codis/lock_slots:before:1",
    "codis/lock_slots:after:1",
    "codis/lock_slots:after:2",
    "codis/fence:before:1",
    "codis/fence:after:1",
    "codis/promote:before:1",
    "codis/promote:after:1",
    "codis/demote:before:1",
    "codis/demote:after:1",
    "codis/unlock_slots:before:1",
    "codis/unlock_slots:after:1",
    "codis/resync_group:before:1",
    "codis/sync_server:after:1",
    "codis/resync_sentinels:before:1",
    "codis/resync_sentinels:after:1",
    "kubernetes/status:before:2",
    "kubernetes/status:after:2",
];
/// Effects that a switchover needs only where something is in its way: no crash there is no failure.
const OPTIONAL: [&str; 4] = ["unlock_slots", "sync_server", "resync_sentinels", "resync_group"];
/// How often the operator is told to stop.
const STOPS: u32 = 8;
/// The operator's test hook.
const HOOK: &str = "CODIS_CRASH_AT";

pub async fn story(story: &mut Story<'_>) -> Told {
    let cluster = story.cluster("a small cluster", SMALL).await?;
    let lab = story.lab.clone();
    story
        .check(
            "operators that are told to stop in a switchover lose nothing",
            told_to_stop(&cluster),
        )
        .await?;
    let replicas = story.check("one operator is enough for this", replicas(&lab)).await?;
    story.check("it is alone", scale(&lab, "1")).await?;
    let wanted = std::env::var("CODIS_E2E_PHASES").unwrap_or_default();
    let phases = PHASES
        .iter()
        .filter(|phase| wanted.split(',').any(|part| phase.contains(part)));
    for (number, phase) in phases.enumerate() {
        let crashed = story
            .check(
                &format!("a crash at {phase} leaves a working group"),
                crash(&cluster, phase, number),
            )
            .await;
        // Whatever happened: no operator with the hook stays.
        story
            .check("the operator runs without the hook", hook(&lab, None))
            .await?;
        if crashed.is_err() && cluster.healthy(secs(60)).await.is_err() {
            break;
        }
    }
    story.check("as many operators as before", scale(&lab, &replicas)).await
}

async fn in_its_namespace(lab: &Lab, args: &[&str]) -> Result<String> {
    let namespace = ["-n", OPERATOR_NAMESPACE];
    let args: Vec<&str> = namespace.iter().chain(args).copied().collect();
    lab.kubectl(&args).await
}

pub async fn replicas(lab: &Lab) -> Result<String> {
    let path = "jsonpath={.spec.replicas}";
    in_its_namespace(lab, &["get", "deployment", OPERATOR, "-o", path]).await
}

pub async fn scale(lab: &Lab, replicas: &str) -> Result<()> {
    in_its_namespace(lab, &["scale", "deployment", OPERATOR, "--replicas", replicas]).await?;
    rolled(lab).await
}

async fn rolled(lab: &Lab) -> Result<()> {
    let args = ["rollout", "status", "deployment", OPERATOR, "--timeout=50s"];
    wait_for("the operator", secs(120), async || {
        in_its_namespace(lab, &args).await.map(drop)
    })
    .await
}

/// Sets the hook, or takes it away, and waits for the operator that has it so.
async fn hook(lab: &Lab, phase: Option<&str>) -> Result<()> {
    let value = phase.map_or_else(|| format!("{HOOK}-"), |phase| format!("{HOOK}={phase}"));
    in_its_namespace(lab, &["set", "env", &format!("deployment/{OPERATOR}"), &value]).await?;
    rolled(lab).await
}

/// How often the operator's containers were started again.
async fn restarts(lab: &Lab) -> Result<i32> {
    let api = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(lab.client.clone(), OPERATOR_NAMESPACE);
    let pods = api
        .list(&ListParams::default().labels(&format!("app.kubernetes.io/name={OPERATOR}")))
        .await?;
    let pods = pods.items.iter().filter(|pod| pod.meta().deletion_timestamp.is_none());
    let counts = pods.flat_map(|pod| {
        pod.status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten())
    });
    Ok(counts.map(|status| status.restart_count).sum())
}

/// The leader ends gracefully, at different moments after a switchover was asked for, and the other one takes over at once.
async fn told_to_stop(cluster: &Cluster) -> Result<()> {
    let load = Load::start(cluster, "stop").await?;
    let all = async {
        for number in 0..STOPS {
            let request = ask_to_promote(cluster, 1, None, &format!("stop-{number}")).await?;
            let holder = "jsonpath={.spec.holderIdentity}";
            let leader = in_its_namespace(cluster.lab(), &["get", "lease", OPERATOR, "-o", holder]).await?;
            // A switchover takes some 300 ms: each of its moments is to be met.
            tokio::time::sleep(Duration::from_millis(40) * number).await;
            in_its_namespace(cluster.lab(), &["delete", "pod", &leader, "--wait=false"]).await?;
            dealt_with(cluster, &request, secs(60)).await?;
            rolled(cluster.lab()).await?;
            cluster.healthy(secs(120)).await?;
        }
        Ok(())
    };
    let all: Result<()> = all.await;
    let verdict = load.check().await?;
    all?;
    verdict.nothing_lost()
}

async fn crash(cluster: &Cluster, phase: &str, number: usize) -> Result<()> {
    let lab = cluster.lab();
    let before = cluster.healthy(secs(120)).await?;
    hook(lab, Some(phase)).await?;
    let load = Load::start(cluster, &format!("crash-{number}")).await?;
    let result = crashed_and_back(cluster, phase, number, &before).await;
    let verdict = load.check().await?;
    let pause = verdict.longest_pause().as_secs_f64();
    result?;
    verdict.nothing_lost()?;
    // The lock ends by itself after 5 s at the latest, or with the next operator.
    println!("        clients waited {pause:.1} s at most");
    Ok(())
}

async fn crashed_and_back(cluster: &Cluster, phase: &str, number: usize, before: &Snapshot) -> Result<()> {
    let lab = cluster.lab();
    let group = 1;
    ask_to_promote(cluster, group, None, &format!("crash-{number}")).await?;
    let died = wait_for("the operator to crash", secs(25), async || {
        ensure!(restarts(lab).await? > 0, "it didn't");
        Ok(())
    })
    .await;
    if died.is_err() && OPTIONAL.iter().any(|effect| phase.contains(effect)) {
        println!("        no such effect in a switchover without trouble");
    } else {
        died?;
    }
    hook(lab, None).await?;
    wait_for("the intent to be gone", secs(90), async || {
        let left = cluster.status().await?.switchover;
        ensure!(left.is_none(), "{left:?}");
        Ok(())
    })
    .await?;
    let after = cluster.healthy(secs(120)).await?;
    let (old, new) = (before.master_of(group)?, after.master_of(group)?);
    println!("        master before: {old}, after: {new}");
    unfenced(cluster, &after, group).await?;
    unlocked(cluster, &after, group).await
}

/// Every server of the group takes writes without a replica.
async fn unfenced(cluster: &Cluster, snapshot: &Snapshot, group: i64) -> Result<()> {
    for server in &snapshot.topology.groups[&group].servers {
        let pod = snapshot.pod_at(&server.address)?;
        let answer = cluster.server_cli(&pod, "CONFIG GET min-slaves-to-write").await?;
        ensure!(answer.lines().nth(1) == Some("0"), "{pod}: {answer:?}");
    }
    Ok(())
}

/// Each proxy takes a write to each slot of the group.
async fn unlocked(cluster: &Cluster, snapshot: &Snapshot, group: i64) -> Result<()> {
    let mut of_slot = std::collections::BTreeMap::new();
    for number in 0_u32.. {
        let key = format!("unlocked:{number}");
        let slot = usize::from(slot_of_key(key.as_bytes()).get());
        if snapshot.topology.slots[slot] == group {
            of_slot.entry(slot).or_insert(key);
        }
        if of_slot.len() == snapshot.topology.slots_of(group) {
            break;
        }
    }
    // New connections go to proxies by chance: enough of them reach each.
    for _ in 0..8 {
        let mut connection = Connection::open(cluster.client_address().await?, SESSION, secs(10)).await?;
        let commands: Vec<Vec<&[u8]>> = of_slot
            .values()
            .map(|key| vec![b"SET".as_slice(), key.as_bytes(), b"1"])
            .collect();
        let replies = connection.pipeline(&commands).await.context("a slot is locked")?;
        let wrong = replies.iter().find(|reply| !matches!(reply, Reply::Status(_)));
        ensure!(wrong.is_none(), "{wrong:?}");
    }
    Ok(())
}
