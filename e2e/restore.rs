//! The topology is never lost: the dashboard's volume is emptied, a stale dump is offered, Services lose their addresses, and
//! the whole cluster is deleted and made anew over its volumes.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    crash::{replicas, scale},
    scale::{all_there, fill},
    support::{
        cluster::Cluster,
        load::Load,
        runner::{Story, Told},
        spec::SMALL,
        wait::{secs, wait_for},
    },
};

const DUMP: &str = "c-topology";

pub async fn story(story: &mut Story<'_>) -> Told {
    let namespace = story.namespace().await?;
    let cluster = Cluster::new(&namespace, "c");
    story
        .check(
            "a small cluster on volumes becomes Ready",
            cluster.come_up(&SMALL.volumes(true).cluster("c")),
        )
        .await?;
    story.check("20,000 keys are in it", fill(&cluster)).await?;
    story
        .check(
            "an emptied dashboard gets its topology back, under clients",
            emptied(&cluster),
        )
        .await?;
    story
        .check(
            "a stale dump is refused, and restored once a person has mended it",
            stale(&cluster),
        )
        .await?;
    for pod in ["c-g1-1", "c-g2-0"] {
        let name = format!("{pod} goes on, under clients, when somebody took its Service's address");
        story.check(&name, readdressed(&cluster, pod)).await?;
    }
    story
        .check(
            "deleted and made anew over its volumes it goes on only once that is asked for",
            made_anew(&cluster),
        )
        .await?;
    story.check("every key is there", all_there(&cluster)).await
}

/// What must be the same afterwards: the groups' pods, the master first, and each slot's group.
async fn shape(cluster: &Cluster) -> Result<(BTreeMap<i64, Vec<String>>, Vec<i64>)> {
    let topology = cluster.topology().await?;
    let names = cluster.service_addresses().await?;
    let pod = |address: &str| names.get(address.trim_end_matches(":6379")).cloned();
    let pods = |group: &crate::support::topology::Group| {
        let all = group.servers.iter();
        all.map(|server| pod(&server.address).with_context(|| format!("whose is {}?", server.address)))
            .collect::<Result<Vec<String>>>()
    };
    let groups = topology.groups.iter().map(|(id, group)| Ok((*id, pods(group)?)));
    Ok((groups.collect::<Result<_>>()?, topology.slots))
}

/// Takes the dashboard's store away and kills it, so that the next one finds nothing.
async fn empty_the_store(cluster: &Cluster) -> Result<()> {
    let namespace = &cluster.namespace;
    let pod = "c-dashboard-0";
    cluster
        .lab()
        .exec(&namespace.name, pod, "dashboard", "rm -rf /data/codis")
        .await?;
    namespace
        .kubectl(&["delete", "pod", pod, "--grace-period=0", "--force"])
        .await
        .map(drop)
}

async fn emptied(cluster: &Cluster) -> Result<()> {
    let before = shape(cluster).await?;
    let load = Load::start(cluster, "emptied").await?;
    let began = Instant::now();
    empty_the_store(cluster).await?;
    wait_for("the topology to be away", secs(60), async || {
        let kept = cluster
            .topology()
            .await
            .is_ok_and(|topology| !topology.groups.is_empty());
        ensure!(!kept, "it is still there");
        Ok(())
    })
    .await?;
    let settled = cluster.healthy(secs(180)).await;
    let verdict = load.check().await?;
    settled?;
    println!("        healthy again after {:.1} s", began.elapsed().as_secs_f64());
    ensure!(shape(cluster).await? == before, "it isn't as it was");
    ensure!(verdict.client_errors() == 0, "clients saw errors: {:?}", verdict.errors);
    verdict.nothing_lost()
}

async fn stale(cluster: &Cluster) -> Result<()> {
    let before = shape(cluster).await?;
    let data = ["get", "configmap", DUMP, "-o", "jsonpath={.data.topology\\.json}"];
    let good = cluster.namespace.kubectl(&data).await?;
    let mut stale: Value = serde_json::from_str(&good)?;
    let slots = stale["slots"].as_array_mut().context("no slots in the dump")?;
    let first = slots.first_mut().context("no range in the dump")?;
    first["group"] = json!(if first["group"] == 1 { 2 } else { 1 });
    empty_the_store(cluster).await?;
    // The dashboard isn't back yet: nobody reads or writes it in between.
    put_dump(cluster, &stale.to_string()).await?;
    let blocked = cluster.condition("Blocked", "True", "TopologyLost", secs(90)).await?;
    println!("        {}: {}", blocked.reason, blocked.message);
    ensure!(
        blocked.message.contains("what the proxies serve: slots 0"),
        "it doesn't name them"
    );
    let topology = cluster.topology().await?;
    ensure!(topology.slots.iter().all(|group| *group == 0), "slots were assigned");
    all_there(cluster).await.context("served meanwhile")?;
    put_dump(cluster, &good).await?;
    cluster.healthy(secs(180)).await?;
    ensure!(shape(cluster).await? == before, "it isn't as it was");
    Ok(())
}

async fn put_dump(cluster: &Cluster, text: &str) -> Result<()> {
    let patch = json!({"data": {"topology.json": text}}).to_string();
    let args = ["patch", "configmap", DUMP, "--type=merge", "-p", &patch];
    cluster.namespace.kubectl(&args).await.map(drop)
}

/// A Service is deleted while nobody looks after it, and another one takes its address.
async fn readdressed(cluster: &Cluster, pod: &str) -> Result<()> {
    let lab = cluster.lab();
    let load = Load::start(cluster, &format!("readdressed-{pod}")).await?;
    let old = address(cluster, pod).await?;
    let as_many = replicas(lab).await?;
    scale(lab, "0").await?;
    let taken = take_address(cluster, pod, &old).await;
    scale(lab, &as_many).await?;
    taken?;
    let settled = wait_for("another address in the topology", secs(180), async || {
        let now = address(cluster, pod).await?;
        ensure!(now != old, "it has {old} still");
        let topology = cluster.topology().await?;
        let servers: Vec<&String> = topology
            .groups
            .values()
            .flat_map(|group| group.servers.iter().map(|server| &server.address))
            .collect();
        ensure!(
            servers.contains(&&format!("{now}:6379")) && !servers.contains(&&format!("{old}:6379")),
            "{old} → {now}: {servers:?}"
        );
        cluster.healthy(secs(5)).await
    })
    .await;
    let verdict = load.check().await?;
    settled?;
    verdict.nothing_lost()
}

async fn address(cluster: &Cluster, service: &str) -> Result<String> {
    let path = ["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"];
    cluster.namespace.kubectl(&path).await
}

async fn take_address(cluster: &Cluster, service: &str, address: &str) -> Result<()> {
    let namespace = &cluster.namespace;
    namespace.kubectl(&["delete", "service", service]).await?;
    let name = format!("squatter-of-{service}");
    let clusterip = format!("--clusterip={address}");
    let create = ["create", "service", "clusterip", &name, "--tcp=80:80", &clusterip];
    namespace.kubectl(&create).await.map(drop)
}

/// Between the two clusters somebody takes the address of a master.
async fn made_anew(cluster: &Cluster) -> Result<()> {
    let before = shape(cluster).await?;
    let master = before.0[&1].first().context("group 1 has no server")?.clone();
    let old = address(cluster, &master).await?;
    cluster.delete(secs(180)).await?;
    wait_for("its Services to be collected", secs(90), async || {
        ensure!(cluster.service_addresses().await?.is_empty(), "Services are left");
        Ok(())
    })
    .await?;
    let clusterip = format!("--clusterip={old}");
    let create = ["create", "service", "clusterip", "squatter", "--tcp=80:80", &clusterip];
    cluster.namespace.kubectl(&create).await?;
    let mut wished = SMALL.volumes(true).cluster("c");
    cluster.apply(&wished).await?;
    let blocked = cluster.condition("Blocked", "True", "OldVolumes", secs(60)).await?;
    println!("        {}: {}", blocked.reason, blocked.message);
    ensure!(cluster.pods().await?.is_empty(), "pods were made");
    wished.spec.codis_server.volume_policy = Some("Adopt".to_owned());
    let began = Instant::now();
    cluster.apply(&wished).await?;
    cluster.healthy(secs(240)).await?;
    println!(
        "        healthy over its volumes after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let after = shape(cluster).await?;
    ensure!(after == before, "before {:?}, after {:?}", before.0, after.0);
    Ok(())
}
