//! The topology in a real etcd or zookeeper: made there, found again by a dashboard that was killed or stopped, written again after
//! the coordinator crashed, under clients; proxies are found there, too.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use codis_operator::api::{CodisCluster, JodisSpec};
use serde_json::Value;

use crate::{
    dashboards,
    deeds::pod,
    scale,
    support::{
        cluster::Cluster,
        coordinator::{Coordinator, Kind},
        health::Snapshot,
        load::Load,
        runner::{Story, Told},
        spec::SMALL,
        topology::{Group, Topology},
        wait::{secs, wait_for},
    },
};

pub async fn on_etcd(story: &mut Story<'_>) -> Told {
    on(story, Kind::Etcd).await
}

pub async fn on_zookeeper(story: &mut Story<'_>) -> Told {
    on(story, Kind::Zookeeper).await
}

async fn on(story: &mut Story<'_>, kind: Kind) -> Told {
    let name = kind.name();
    let namespace = story.namespace().await?;
    let coordinator = story
        .check(&format!("a real {name} runs"), Coordinator::start(&namespace, kind))
        .await?;
    let cluster = Cluster::new(&namespace, "c");
    let spec = spec(&coordinator);
    story
        .check(&format!("a small cluster on {name}: Ready"), cluster.come_up(&spec))
        .await?;
    story
        .check("its lock and its topology are there", stored(&cluster, &coordinator))
        .await?;
    let _: Told = story
        .check("its proxies are there for jodis", registered(&cluster, &coordinator))
        .await;
    story
        .check(
            "a dashboard that is killed breaks its own lock, and clients notice nothing",
            dashboard_killed(&cluster, &coordinator),
        )
        .await?;
    story
        .check(
            "a dashboard that is stopped gives its lock up, and the next one takes it",
            dashboard_stopped(&cluster, &coordinator),
        )
        .await?;
    let crashes = format!("{name} crashes and comes back, then a third group takes its slots: nothing is lost");
    story
        .check(&crashes, coordinator_crashes(&cluster, &coordinator))
        .await?;
    story
        .check(
            "when all of the product is removed there and the dashboard dies, it comes back as it was",
            wiped(&cluster, &coordinator),
        )
        .await?;
    story
        .check(
            "a cluster that is deleted leaves no lock and no proxy there",
            deleted(&cluster, &coordinator),
        )
        .await?;
    let again = async {
        cluster.apply(&spec).await?;
        cluster.ready(secs(120)).await
    };
    story
        .check("another one of the same name starts anew", again)
        .await
        .map(drop)
}

fn spec(coordinator: &Coordinator) -> CodisCluster {
    let mut cluster = SMALL.cluster("c");
    let (name, address) = (coordinator.kind.name().to_owned(), coordinator.address());
    cluster.spec.coordinator_name.clone_from(&name);
    cluster.spec.coordinator_addr.clone_from(&address);
    cluster.spec.codis_proxy.jodis = Some(JodisSpec {
        coordinator_name: name,
        coordinator_addr: address,
        compatible: None,
    });
    cluster
}

/// Where the dashboard is that holds the lock; none: nobody has it.
async fn holder(coordinator: &Coordinator) -> Result<Option<String>> {
    let Some(text) = coordinator.text("/codis3/c/topom").await? else {
        return Ok(None);
    };
    let lock: Value = serde_json::from_str(&text)?;
    Ok(lock["admin_addr"].as_str().map(str::to_owned))
}

async fn stored(cluster: &Cluster, coordinator: &Coordinator) -> Result<()> {
    let holder = holder(coordinator).await?.context("there is no lock")?;
    let groups = coordinator.children("/codis3/c/group").await?;
    let slots = coordinator.children("/codis3/c/slots").await?;
    let groups_known = cluster.topology().await?.groups.len();
    println!(
        "        the lock is {holder}'s; {} groups, {} slots",
        groups.len(),
        slots.len()
    );
    ensure!(
        groups.len() == groups_known,
        "the dashboard knows {groups_known} groups"
    );
    ensure!(slots.len() == 1024, "not every slot is there");
    Ok(())
}

async fn registered(cluster: &Cluster, coordinator: &Coordinator) -> Result<()> {
    let proxies = cluster.topology().await?.proxies.into_iter();
    let mut wished: Vec<String> = proxies.map(|proxy| proxy.admin.replace(":11080", ":19000")).collect();
    wished.sort();
    wait_for("a node of jodis for each proxy", secs(30), async || {
        let found = nodes_of_jodis(coordinator).await?;
        ensure!(found == wished, "jodis has {found:?}, the dashboard {wished:?}");
        Ok(())
    })
    .await?;
    println!("        {wished:?}");
    Ok(())
}

/// The addresses that clients find, in order.
async fn nodes_of_jodis(coordinator: &Coordinator) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in coordinator.children("/jodis/c").await? {
        // It may go between the two looks.
        if let Some(text) = coordinator.text(&format!("/jodis/c/{name}")).await? {
            let node: Value = serde_json::from_str(&text)?;
            ensure!(node["state"] == "online", "{name} is {text}");
            found.push(node["addr"].as_str().unwrap_or_default().to_owned());
        }
    }
    found.sort();
    Ok(found)
}

async fn dashboard_killed(cluster: &Cluster, coordinator: &Coordinator) -> Result<()> {
    let before = holder(coordinator).await?;
    let load = Load::start(cluster, "killed").await?;
    let took = dashboards::once(cluster, false).await;
    let settled = cluster.healthy(secs(120)).await;
    let verdict = load.check().await?;
    println!("        serving again {:.1} s after its start", took?.as_secs_f64());
    settled?;
    let after = holder(coordinator).await?;
    ensure!(
        after.is_some() && after == before,
        "the lock was {before:?}'s, now {after:?}'s"
    );
    verdict.nothing_lost()?;
    ensure!(verdict.client_errors() == 0, "clients saw errors: {:?}", verdict.errors);
    Ok(())
}

/// The product stays in the coordinator's list then, without a holder: that is nobody else's.
async fn dashboard_stopped(cluster: &Cluster, coordinator: &Coordinator) -> Result<()> {
    let before = cluster.healthy(secs(60)).await?;
    let name = format!("{}-dashboard-0", cluster.name);
    let old = pod(&before, &name)?.uid.clone();
    let began = Instant::now();
    cluster
        .namespace
        .kubectl(&["delete", "pod", &name, "--wait=false"])
        .await?;
    let after = wait_for("another dashboard", secs(120), async || {
        let now = Snapshot::take(cluster).await?;
        let dashboard = pod(&now, &name)?;
        ensure!(dashboard.uid != old && dashboard.ready, "it isn't ready");
        Ok(now)
    })
    .await?;
    println!("        ready again after {:.1} s", began.elapsed().as_secs_f64());
    ensure!(after.topology.slots == before.topology.slots, "slots have other groups");
    ensure!(holder(coordinator).await?.is_some(), "nobody has the lock");
    cluster.healthy(secs(60)).await.map(drop)
}

async fn coordinator_crashes(cluster: &Cluster, coordinator: &Coordinator) -> Result<()> {
    let load = Load::start(cluster, "crashes").await?;
    let scaled = async {
        coordinator.crash().await.context("the coordinator")?;
        load.goes_on(secs(10)).await?;
        cluster.topology().await.context("the dashboard's reads")?;
        scale::to(cluster, 3, &[342, 341, 341]).await.context("two to three")
    };
    let scaled = scaled.await;
    let settled = cluster.healthy(secs(120)).await;
    let verdict = load.check().await?;
    scaled?;
    settled?;
    let groups = coordinator.children("/codis3/c/group").await?;
    ensure!(groups.len() == 3, "{groups:?} are stored");
    verdict.nothing_lost()?;
    ensure!(verdict.client_errors() == 0, "clients saw errors: {:?}", verdict.errors);
    Ok(())
}

async fn wiped(cluster: &Cluster, coordinator: &Coordinator) -> Result<()> {
    let before = cluster.healthy(secs(60)).await?.topology;
    let load = Load::start(cluster, "wiped").await?;
    let began = Instant::now();
    coordinator.wipe("/codis3/c").await?;
    let killed = dashboards::once(cluster, false).await;
    let settled = cluster.healthy(secs(180)).await;
    let verdict = load.check().await?;
    killed?;
    let after = settled?.topology;
    println!("        healthy again after {:.1} s", began.elapsed().as_secs_f64());
    ensure!(after.slots == before.slots, "slots have other groups");
    let orders = |topology: &Topology| {
        let order = |group: &Group| {
            group
                .servers
                .iter()
                .map(|server| server.address.clone())
                .collect::<Vec<_>>()
        };
        topology
            .groups
            .iter()
            .map(|(id, group)| (*id, order(group)))
            .collect::<Vec<_>>()
    };
    ensure!(orders(&after) == orders(&before), "groups have other servers");
    let slots = coordinator.children("/codis3/c/slots").await?;
    ensure!(slots.len() == 1024, "{} slots are stored", slots.len());
    verdict.nothing_lost()?;
    ensure!(verdict.client_errors() == 0, "clients saw errors: {:?}", verdict.errors);
    Ok(())
}

async fn deleted(cluster: &Cluster, coordinator: &Coordinator) -> Result<()> {
    cluster.delete(secs(120)).await?;
    wait_for("the lock and the proxies to be gone", secs(90), async || {
        let holder = holder(coordinator).await?;
        ensure!(holder.is_none(), "the lock is still {holder:?}'s");
        let nodes = nodes_of_jodis(coordinator).await?;
        ensure!(nodes.is_empty(), "jodis still has {nodes:?}");
        Ok(())
    })
    .await
}
