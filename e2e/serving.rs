//! That a cluster which says Ready really serves: asked at the dashboard, the servers, the sentinels and by a client.

use anyhow::{Context, Result, ensure};
use codis_operator::domain::slot_of_key;

use crate::support::{
    cluster::Cluster,
    health::Snapshot,
    resp::Reply,
    runner::{Story, Told},
    wait::{secs, wait_for},
};

/// How many keys of each group are written and read.
const KEYS: usize = 40;

/// Every check of a serving cluster.
pub async fn checks(story: &mut Story<'_>, cluster: &Cluster) -> Told {
    let snapshot = story
        .check("every pod, group, proxy and sentinel is as the spec wishes", async {
            wait_for("a healthy cluster", secs(60), async || Snapshot::healthy(cluster).await).await
        })
        .await?;
    let _: Told = story
        .check("kubectl get codisclusters tells it at a glance", at_a_glance(cluster))
        .await;
    let _: Told = story
        .check("all 1024 slots are served, as many by each group", async {
            slots_are_shared_evenly(&snapshot)
        })
        .await;
    let _: Told = story
        .check(
            "keys of every group can be set and got",
            every_group_serves(cluster, &snapshot),
        )
        .await;
    let _: Told = story
        .check(
            "each replica follows its master by the Service's address",
            replicas_follow(cluster, &snapshot),
        )
        .await;
    let _: Told = story.check("the front end knows it", front_end_knows_it(cluster)).await;
    let _: Told = story
        .check("its pods run restricted", pods_are_restricted(cluster))
        .await;
    Ok(())
}

async fn at_a_glance(cluster: &Cluster) -> Result<()> {
    let shown = cluster.namespace.kubectl(&["get", "codisclusters"]).await?;
    shown.lines().for_each(|line| println!("        {line}"));
    let row = shown.lines().nth(1).context("no row")?;
    let words: Vec<&str> = row.split_whitespace().collect();
    let spec = cluster.get().await?.spec;
    let all = |count: i32| format!("{count}/{count}");
    let sentinels = spec.sentinel.map_or(0, |sentinel| sentinel.replicas);
    let wished = [
        cluster.name.clone(),
        "True".to_owned(),
        "True".to_owned(),
        "Ready".to_owned(),
        all(spec.codis_proxy.replicas),
        all(spec.codis_server.replicas),
        all(sentinels),
        "1024".to_owned(),
    ];
    ensure!(
        words.len() > wished.len() && words[..wished.len()] == wished,
        "{words:?}, not {wished:?}"
    );
    Ok(())
}

fn slots_are_shared_evenly(snapshot: &Snapshot) -> Result<()> {
    let topology = &snapshot.topology;
    let share = 1024 / topology.groups.len();
    for id in topology.groups.keys() {
        ensure!(
            topology.slots_of(*id) == share,
            "group {id} has {} slots",
            topology.slots_of(*id)
        );
    }
    Ok(())
}

/// Sets and gets keys of every group through the proxies, and finds each group's on its own master.
pub async fn every_group_serves(cluster: &Cluster, snapshot: &Snapshot) -> Result<()> {
    let mut client = cluster.client().await?;
    for id in snapshot.topology.groups.keys() {
        let of_group = |key: &String| snapshot.topology.slots[usize::from(slot_of_key(key.as_bytes()).get())] == *id;
        let keys: Vec<String> = (0..).map(|n| format!("e2e:{n}")).filter(of_group).take(KEYS).collect();
        for key in &keys {
            let set = client.call(&[b"SET", key.as_bytes(), key.as_bytes()]).await?;
            ensure!(set == Reply::Status("OK".to_owned()), "SET {key}: {set:?}");
        }
        for key in &keys {
            let got = client.call(&[b"GET", key.as_bytes()]).await?;
            ensure!(
                got == Reply::Value(Some(key.clone().into_bytes())),
                "GET {key}: {got:?}"
            );
        }
        let master = snapshot.master_of(*id)?;
        let found = cluster
            .server_cli(&master, &format!("EXISTS {}", keys.join(" ")))
            .await?;
        ensure!(
            found.trim() == KEYS.to_string(),
            "{master} has {} of {KEYS} keys of group {id}",
            found.trim()
        );
    }
    Ok(())
}

/// Asks every replica itself whom it follows.
async fn replicas_follow(cluster: &Cluster, snapshot: &Snapshot) -> Result<()> {
    for group in snapshot.topology.groups.values() {
        let (master, replicas) = group.servers.split_first().context("an empty group")?;
        for replica in replicas {
            let pod = snapshot.pod_at(&replica.address)?;
            let info = cluster.server_cli(&pod, "INFO replication").await?;
            let says = |key: &str| {
                info.lines()
                    .find_map(|line| line.trim().strip_prefix(&format!("{key}:")))
            };
            let master_is = format!(
                "{}:{}",
                says("master_host").unwrap_or("?"),
                says("master_port").unwrap_or("?")
            );
            ensure!(says("role") == Some("slave"), "{pod} is {:?}", says("role"));
            ensure!(
                master_is == master.address,
                "{pod} follows {master_is}, not {}",
                master.address
            );
            ensure!(
                says("master_link_status") == Some("up"),
                "{pod}: its link is {:?}",
                says("master_link_status")
            );
        }
    }
    Ok(())
}

async fn front_end_knows_it(cluster: &Cluster) -> Result<()> {
    let service = format!("{}-fe", cluster.name);
    let list = cluster.http(&service, 9090, "/list").await?;
    ensure!(list.contains(&format!("\"{}\"", cluster.name)), "/list: {list}");
    Ok(())
}

async fn pods_are_restricted(cluster: &Cluster) -> Result<()> {
    for pod in cluster.pods().await? {
        let name = pod.metadata.name.unwrap_or_default();
        let spec = pod.spec.context("a pod without spec")?;
        ensure!(
            spec.automount_service_account_token == Some(false),
            "{name} mounts a token"
        );
        ensure!(spec.enable_service_links == Some(false), "{name} has Service variables");
    }
    // The namespace admits nothing else than restricted pods; the rest is proven by their being there.
    Ok(())
}
