//! Groups come and go, slots move with their keys, under clients and while the operator is killed again and again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Api;
use serde_json::json;
use tokio::sync::watch;

use crate::support::{
    cluster::Cluster,
    lab::{Lab, OPERATOR, OPERATOR_NAMESPACE},
    load::Load,
    resp::{Connection, Reply},
    runner::{Story, Told},
    spec::{SESSION, SMALL},
    wait::{secs, wait_for},
};

/// Keys that are there before anything moves.
const KEYS: usize = 20_000;
/// The leader is killed this often.
const KILLS: Duration = secs(10);

pub async fn story(story: &mut Story<'_>) -> Told {
    let cluster = story.cluster("a small cluster on volumes", SMALL.volumes(true)).await?;
    story.check("20,000 keys are in it", fill(&cluster)).await?;
    story
        .check(
            "two groups become four, four three, with a removal taken back half way: nothing is lost, while the operator is killed",
            under_clients(&cluster),
        )
        .await?;
    story.check("every key is there", all_there(&cluster)).await?;
    story
        .check("nothing of the group that left runs", gone(&cluster, 4))
        .await
}

async fn under_clients(cluster: &Cluster) -> Result<()> {
    let load = Load::start(cluster, "scale").await?;
    let (stop, stopped) = watch::channel(false);
    let killer = tokio::spawn(kill_again_and_again(cluster.lab().clone(), stopped));
    let scaled = there_and_back(cluster, &load).await;
    stop.send_replace(true);
    let kills = killer.await??;
    println!("        the operator was killed {kills} times");
    let settled = cluster.healthy(secs(180)).await;
    let verdict = load.check().await?;
    scaled?;
    settled?;
    verdict.nothing_lost()
}

async fn there_and_back(cluster: &Cluster, load: &Load) -> Result<()> {
    to(cluster, 4, &[256; 4]).await.context("two to four")?;
    load.goes_on(secs(10)).await?;
    groups(cluster, 3).await?;
    wait_for("the fourth group to give slots away", secs(120), async || {
        let left = cluster.topology().await?.slots_of(4);
        ensure!(left < 200, "it has {left}");
        Ok(())
    })
    .await?;
    to(cluster, 4, &[256; 4]).await.context("taken back")?;
    to(cluster, 3, &[342, 341, 341]).await.context("four to three")?;
    load.goes_on(secs(10)).await
}

async fn groups(cluster: &Cluster, count: i32) -> Result<()> {
    cluster
        .patch(&json!({"spec": {"codisServer": {"replicas": 2 * count}}}))
        .await
        .map(drop)
}

/// Asks for so many groups, and waits until each has as many slots.
pub async fn to(cluster: &Cluster, count: i32, shares: &[usize]) -> Result<()> {
    let before = cluster.topology().await?;
    let began = Instant::now();
    groups(cluster, count).await?;
    let after = wait_for("each group to have its share", secs(400), async || {
        let topology = cluster.topology().await?;
        let mut has: Vec<usize> = topology.groups.keys().map(|group| topology.slots_of(*group)).collect();
        has.sort_unstable_by(|one, other| other.cmp(one));
        ensure!(has == shares, "they have {has:?}");
        Ok(topology)
    })
    .await?;
    let moved = before
        .slots
        .iter()
        .zip(&after.slots)
        .filter(|(old, new)| old != new)
        .count();
    let took = began.elapsed().as_secs_f64();
    println!(
        "        {count} groups after {took:.1} s: {moved} slots, {:.1} a second",
        moved as f64 / took
    );
    Ok(())
}

/// Kills the leader without grace until it is told to stop; how often.
pub async fn kill_again_and_again(lab: Lab, mut stopped: watch::Receiver<bool>) -> Result<usize> {
    let mut kills = 0;
    while tokio::time::timeout(KILLS, stopped.wait_for(|stop| *stop))
        .await
        .is_err()
    {
        let holder = "jsonpath={.spec.holderIdentity}";
        let leader = lab
            .kubectl(&["-n", OPERATOR_NAMESPACE, "get", "lease", OPERATOR, "-o", holder])
            .await?;
        let delete = ["delete", "pod", &leader, "--grace-period=0", "--force", "--wait=false"];
        let deleted = lab.kubectl(&[&["-n", OPERATOR_NAMESPACE], &delete[..]].concat()).await;
        // Between two leaders the one that the Lease names may be gone.
        kills += usize::from(deleted.is_ok());
    }
    Ok(kills)
}

fn key(number: usize) -> String {
    format!("bulk:{number}")
}

pub async fn fill(cluster: &Cluster) -> Result<()> {
    let mut connection = Connection::open(cluster.client_address().await?, SESSION, secs(20)).await?;
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    for some in keys.chunks(500) {
        let commands: Vec<Vec<&[u8]>> = some
            .iter()
            .map(|key| vec![b"SET".as_slice(), key.as_bytes(), key.as_bytes()])
            .collect();
        let replies = connection.pipeline(&commands).await?;
        ensure!(
            replies.iter().all(|reply| matches!(reply, Reply::Status(_))),
            "{:?}",
            replies.first()
        );
    }
    Ok(())
}

pub async fn all_there(cluster: &Cluster) -> Result<()> {
    let mut connection = Connection::open(cluster.client_address().await?, SESSION, secs(20)).await?;
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    for some in keys.chunks(500) {
        let commands: Vec<Vec<&[u8]>> = some.iter().map(|key| vec![b"GET".as_slice(), key.as_bytes()]).collect();
        for (key, reply) in some.iter().zip(connection.pipeline(&commands).await?) {
            let value = reply.into_text()?;
            ensure!(value.as_ref() == Some(key), "{key} is {value:?}");
        }
    }
    Ok(())
}

/// The group's StatefulSet and Services are gone, its claims aren't.
async fn gone(cluster: &Cluster, group: i64) -> Result<()> {
    let set = format!("{}-g{group}", cluster.name);
    let api = Api::<StatefulSet>::namespaced(cluster.lab().client.clone(), &cluster.namespace.name);
    wait_for("the group to be gone", secs(60), async || {
        ensure!(api.get_opt(&set).await?.is_none(), "there is a StatefulSet {set}");
        let services = cluster.service_addresses().await?;
        let left: Vec<&String> = services.values().filter(|name| name.starts_with(&set)).collect();
        ensure!(left.is_empty(), "Services are left: {left:?}");
        Ok(())
    })
    .await?;
    let claims = cluster.namespace.kubectl(&["get", "pvc", "-o", "name"]).await?;
    ensure!(claims.contains(&format!("data-{set}-0")), "its volumes stay: {claims}");
    cluster.healthy(secs(60)).await.map(drop)
}
