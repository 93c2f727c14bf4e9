//! Every node is drained in turn, as a person does it, under clients.

use anyhow::{Context, Result, ensure};

use crate::support::{
    cluster::Cluster,
    load::Load,
    nodes::{drain, restore_all},
    runner::{Story, Told},
    spec::SMALL,
    wait::{secs, wait_for},
};

pub async fn story(story: &mut Story<'_>) -> Told {
    for volumes in [true, false] {
        let kind = if volumes { "volumes of its nodes" } else { "emptyDir" };
        let what = format!("a small cluster on {kind}");
        let cluster = story.cluster(&what, SMALL.volumes(volumes)).await?;
        let name = format!("on {kind}, every node is drained in turn, and nothing is lost");
        let drained = story.check(&name, every_node(&cluster, volumes)).await;
        let workers = story.lab.workers().await.unwrap_or_default();
        let lab = story.lab.clone();
        story
            .check("every node takes pods again", restore_all(&lab, &workers))
            .await?;
        drained?;
        story
            .check("the cluster can be deleted", cluster.delete(secs(120)))
            .await?;
    }
    Ok(())
}

async fn every_node(cluster: &Cluster, volumes: bool) -> Result<()> {
    let load = Load::start(cluster, "drain").await?;
    let all = async {
        for node in cluster.lab().workers().await? {
            load.next_pause();
            one(cluster, &node, volumes).await.with_context(|| node.clone())?;
            load.goes_on(secs(10)).await?;
            println!(
                "        {node}: longest pause {:.0} ms",
                load.next_pause().as_secs_f64() * 1000.0
            );
        }
        Ok(())
    };
    let all: Result<()> = all.await;
    let verdict = load.check().await?;
    all?;
    verdict.nothing_lost()
}

async fn one(cluster: &Cluster, node: &str, volumes: bool) -> Result<()> {
    let lab = cluster.lab();
    let began = std::time::Instant::now();
    drain(lab, node, secs(180)).await?;
    let took = began.elapsed();
    let left = cluster.pods().await?.into_iter().filter(|pod| {
        let spec = pod.spec.as_ref();
        spec.and_then(|spec| spec.node_name.as_deref()) == Some(node)
    });
    let left: Vec<_> = left.filter_map(|pod| pod.metadata.name).collect();
    ensure!(left.is_empty(), "left on it: {left:?}");
    if !volumes {
        // What isn't bound to the node is whole again without it.
        wait_for("every server elsewhere", secs(120), async || {
            let status = cluster.status().await?;
            let servers = cluster.get().await?.spec.codis_server.replicas;
            ensure!(
                status.servers == Some(format!("{servers}/{servers}")),
                "{:?}, {:?}",
                status.servers,
                status.nodes
            );
            Ok(())
        })
        .await?;
    }
    println!("        {node}: drained in {:.1} s", took.as_secs_f64());
    lab.kubectl(&["uncordon", node]).await?;
    cluster.healthy(secs(180)).await.map(drop)
}
