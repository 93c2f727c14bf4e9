//! A cluster as the predecessor deployed it, with data in it: untouched until it is marked, then taken over under clients.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    scale::{all_there, fill, kill_again_and_again},
    support::{
        cluster::Cluster,
        coordinator::{Coordinator, Kind},
        load::Load,
        predecessor,
        runner::{Story, Told},
        spec::SMALL,
        wait::{secs, wait_for},
    },
};

/// What the predecessor made, but for what scales: its status is written all the time.
const ITS: &str = "statefulsets,deployments,services,pvc,pods";

/// The topology in the dashboard's own files, which go with its pod; data in memory only.
pub async fn on_its_own_files(story: &mut Story<'_>) -> Told {
    let namespace = story.namespace().await?;
    let cluster = Cluster::new(&namespace, "c");
    story
        .check(
            "the predecessor's cluster runs",
            deploy(&cluster, SMALL.cluster("c"), false),
        )
        .await?;
    taken_over(story, &cluster, false).await
}

/// The topology in etcd, data on volumes, and an operator that is killed all the time.
pub async fn on_etcd(story: &mut Story<'_>) -> Told {
    let namespace = story.namespace().await?;
    let coordinator = story
        .check("a real etcd runs", Coordinator::start(&namespace, Kind::Etcd))
        .await?;
    let cluster = Cluster::new(&namespace, "c");
    let mut spec = SMALL.volumes(true).cluster("c");
    spec.spec.coordinator_name = coordinator.kind.name().to_owned();
    spec.spec.coordinator_addr = coordinator.address();
    story
        .check("the predecessor's cluster runs", deploy(&cluster, spec, true))
        .await?;
    taken_over(story, &cluster, true).await
}

/// The custom resource is there first, and nobody acts on it: as if we weren't installed yet.
async fn deploy(cluster: &Cluster, mut spec: codis_operator::api::CodisCluster, volumes: bool) -> Result<()> {
    spec.spec.management = Some("Observe".to_owned());
    cluster.apply(&spec).await?;
    predecessor::deploy(cluster, volumes).await?;
    fill(cluster).await
}

async fn taken_over(story: &mut Story<'_>, cluster: &Cluster, with_volumes: bool) -> Told {
    story
        .check("nothing of it is touched until it is marked", untouched(cluster))
        .await?;
    let name = match with_volumes {
        true => "it is taken over under clients, while the operator is killed and a replica dies: nothing is lost",
        false => "it is taken over under clients: nothing is lost",
    };
    story.check(name, marked(cluster, with_volumes)).await?;
    story.check("every key is there", all_there(cluster)).await?;
    story
        .check(
            "nothing of the predecessor's runs, and its volumes are still there",
            gone(cluster, with_volumes),
        )
        .await?;
    // A cluster like any other now.
    story
        .check(
            "a group more is made, and takes its slots",
            crate::scale::to(cluster, 3, &[342, 341, 341]),
        )
        .await
}

/// Each object of its and how often it was written.
async fn versions(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let all: Value = serde_json::from_str(&cluster.namespace.kubectl(&["get", ITS, "-o", "json"]).await?)?;
    let items = all["items"].as_array().context("no list")?;
    let named = items.iter().map(|item| {
        let meta = &item["metadata"];
        (
            format!("{} {}", item["kind"], meta["name"]),
            meta["resourceVersion"].to_string(),
        )
    });
    Ok(named.collect())
}

async fn untouched(cluster: &Cluster) -> Result<()> {
    let before = versions(cluster).await?;
    cluster.patch(&json!({"spec": {"management": null}})).await?;
    let blocked = cluster
        .condition("Blocked", "True", "AdoptionRequired", secs(60))
        .await?;
    println!("        {}: {}", blocked.reason, blocked.message);
    let after = versions(cluster).await?;
    ensure!(before == after, "before: {before:?}\nafter: {after:?}");
    Ok(())
}

/// How clients find it.
async fn way_in(cluster: &Cluster) -> Result<(Option<String>, std::net::SocketAddr)> {
    let api = Api::<Service>::namespaced(cluster.lab().client.clone(), &cluster.namespace.name);
    let service = api.get(&format!("{}-proxy", cluster.name)).await?;
    Ok((
        service.spec.and_then(|spec| spec.cluster_ip),
        cluster.client_address().await?,
    ))
}

async fn marked(cluster: &Cluster, with_kills: bool) -> Result<()> {
    let slots = cluster.topology().await?.slots;
    let found_at = way_in(cluster).await?;
    let load = Load::on(found_at.1, &slots, "takeover").await?;
    let began = Instant::now();
    let (stop, stopped) = watch::channel(false);
    let killer = with_kills.then(|| tokio::spawn(kill_again_and_again(cluster.lab().clone(), stopped)));
    cluster.annotate("codis.k8s.io/adopt", Some("true")).await?;
    let ready = async {
        if with_kills {
            // A copy that nobody needs: it comes back under another address, as a stranger.
            cluster
                .namespace
                .kubectl(&["delete", "pod", "c-redis-1", "--grace-period=0", "--force"])
                .await?;
        }
        wait_for("its parts to be gone", secs(400), async || ours(cluster).await).await
    }
    .await;
    stop.send_replace(true);
    if let Some(killer) = killer {
        println!("        the operator was killed {} times", killer.await??);
    }
    let settled = cluster.healthy(secs(240)).await;
    println!("        taken over after {:.1} s", began.elapsed().as_secs_f64());
    let verdict = load.check().await?;
    ready?;
    settled?;
    ensure!(cluster.topology().await?.slots == slots, "slots have other groups");
    ensure!(way_in(cluster).await? == found_at, "clients find it elsewhere");
    println!("        client errors: {:?}", verdict.errors);
    verdict.nothing_lost()
}

/// Nothing of it is left but its volumes.
async fn ours(cluster: &Cluster) -> Result<()> {
    let kinds = "replicasets,pods,services";
    let left = cluster
        .namespace
        .kubectl(&["get", kinds, "-l", "clusterName=c", "-o", "name"])
        .await?;
    ensure!(left.trim().is_empty(), "left: {left}");
    for name in ["statefulset/c-redis", "statefulset/c-redis-sentinel", "hpa/c-hpa"] {
        let found = cluster
            .namespace
            .kubectl(&["get", name, "--ignore-not-found", "-o", "name"])
            .await?;
        ensure!(found.trim().is_empty(), "left: {found}");
    }
    Ok(())
}

async fn gone(cluster: &Cluster, with_volumes: bool) -> Result<()> {
    ours(cluster).await?;
    let claims = cluster.namespace.kubectl(&["get", "pvc", "-o", "name"]).await?;
    let its = claims.lines().filter(|claim| claim.contains("c-redis-volume")).count();
    ensure!(its == if with_volumes { 4 } else { 0 }, "its volumes: {claims}");
    Ok(())
}
