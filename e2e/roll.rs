//! Images: everything is rolled to another one under clients, a bad one stops at the first pod, and going back works.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::support::{
    cluster::{Cluster, conditions, tell},
    load::Load,
    runner::{Story, Told},
    spec::{IMAGE, NEXT_IMAGE, SMALL},
    wait::{secs, stays, wait_for},
};

/// No node has it, and nobody is asked for it.
const BAD_IMAGE: &str = "codis-double:absent";

pub async fn story(story: &mut Story<'_>) -> Told {
    let cluster = story.cluster("a small cluster", SMALL.volumes(true)).await?;
    story
        .check(
            "another image of everything is rolled out, nothing is lost",
            everything(&cluster, NEXT_IMAGE),
        )
        .await?;
    story
        .check(
            "an image that nobody has stops at the first server, and is told",
            bad_image(&cluster),
        )
        .await?;
    story
        .check(
            "going back to the old image of everything works, nothing is lost",
            everything(&cluster, IMAGE),
        )
        .await
}

fn images(image: &str) -> Value {
    let of = json!({"image": image});
    json!({"spec": {"codisProxy": of, "codisServer": of, "codisDashboard": of, "codisFe": of, "sentinel": of}})
}

async fn everything(cluster: &Cluster, image: &str) -> Result<()> {
    let load = Load::start(cluster, &format!("roll:{image}")).await?;
    let rolled = async {
        cluster.patch(&images(image)).await?;
        let took = cluster.ready(secs(400)).await?;
        println!("        everything runs {image} after {:.1} s", took.as_secs_f64());
        wait_for("every pod to run it", secs(30), async || {
            let other: BTreeMap<_, _> = images_of(cluster, "")
                .await?
                .into_iter()
                .filter(|(_, has)| has != image)
                .collect();
            ensure!(other.is_empty(), "others: {other:?}");
            Ok(())
        })
        .await?;
        all_updated(cluster).await?;
        cluster.healthy(secs(60)).await
    };
    let rolled = rolled.await;
    let verdict = load.check().await?;
    rolled?;
    verdict.nothing_lost()
}

async fn all_updated(cluster: &Cluster) -> Result<()> {
    let servers = cluster.get().await?.spec.codis_server.replicas;
    let updated = cluster.status().await?.updated;
    ensure!(updated == Some(format!("{servers}/{servers}")), "updated: {updated:?}");
    Ok(())
}

/// The image of each pod of a component; of all of them, without one.
async fn images_of(cluster: &Cluster, component: &str) -> Result<BTreeMap<String, String>> {
    let pods = cluster.pods().await?.into_iter();
    let of = pods.filter(|pod| {
        let label = pod.labels().get("codis.k8s.io/component");
        component.is_empty() || label.is_some_and(|label| label == component)
    });
    let image = |pod: k8s_openapi::api::core::v1::Pod| {
        let name = pod.name_any();
        let image = pod.spec.and_then(|spec| spec.containers.into_iter().next()?.image);
        Ok((name, image.context("a pod without image")?))
    };
    of.map(image).collect()
}

async fn bad_image(cluster: &Cluster) -> Result<()> {
    let load = Load::start(cluster, "bad-image").await?;
    let result = stopped_and_back(cluster).await;
    let verdict = load.check().await?;
    result?;
    verdict.nothing_lost()
}

async fn stopped_and_back(cluster: &Cluster) -> Result<()> {
    let bad = json!({"spec": {"codisServer": {"image": BAD_IMAGE, "imagePullPolicy": "Never"}}});
    cluster.patch(&bad).await?;
    let with_it = async || {
        let all = images_of(cluster, "server").await?;
        Ok::<_, anyhow::Error>(all.values().filter(|image| *image == BAD_IMAGE).count())
    };
    wait_for("a first server with the bad image", secs(90), async || {
        ensure!(with_it().await? > 0, "none yet");
        Ok(())
    })
    .await?;
    // The status names the pod that doesn't come up.
    let told = wait_for("the status to tell", secs(60), async || {
        let resource = cluster.get().await?;
        let all = conditions(&resource);
        let found = all
            .iter()
            .find(|condition| condition.message.contains("c-g") && condition.message.contains("mage"));
        let found = found.with_context(|| tell(all))?;
        Ok(format!(
            "{}={} ({}: {})",
            found.type_, found.status, found.reason, found.message
        ))
    })
    .await?;
    println!("        {told}");
    stays("only the first server has the bad image", secs(15), async || {
        let count = with_it().await?;
        ensure!(count == 1, "{count} servers have it");
        Ok(())
    })
    .await?;
    let back = json!({"spec": {"codisServer": {"image": NEXT_IMAGE, "imagePullPolicy": null}}});
    cluster.patch(&back).await?;
    let took = cluster.ready(secs(180)).await?;
    println!("        the old image put back → Ready: {:.1} s", took.as_secs_f64());
    cluster.healthy(secs(60)).await.map(drop)
}
