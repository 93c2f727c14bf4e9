//! The same with data on volumes, while clusters that can't come up are in the same Kubernetes cluster.

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    serving,
    support::{
        cluster::{Cluster, conditions, tell},
        health::Snapshot,
        namespace::Namespace,
        runner::{Story, Told},
        spec::sample,
        wait::{secs, wait_for},
    },
    teardown,
};

pub async fn story(story: &mut Story<'_>) -> Told {
    let (bad_class, bad_coordinator) = (story.namespace().await?, story.namespace().await?);
    let namespace = story.namespace().await?;
    let cluster = Cluster::new(&namespace, "sample");
    story
        .check("sample-2 and sample-3 are admitted, unchanged", async {
            bad_class.kubectl(&["apply", "-f", &sample(2)]).await?;
            bad_coordinator.kubectl(&["apply", "-f", &sample(3)]).await
        })
        .await?;
    story
        .check(
            "a cluster with volumes is admitted beside them",
            apply_with_volumes(&cluster),
        )
        .await?;
    let _: Told = story
        .check(
            "sample-2 names storageClassName",
            blames(&bad_class, "storageClassName"),
        )
        .await;
    let _: Told = story
        .check(
            "sample-3 names coordinatorAddr",
            blames(&bad_coordinator, "coordinatorAddr"),
        )
        .await;
    let took = story
        .check("the cluster with volumes becomes Ready", cluster.ready(secs(300)))
        .await?;
    println!(
        "        kubectl apply → Ready, with volumes and beside the bad ones: {:.1} s",
        took.as_secs_f64()
    );
    serving::checks(story, &cluster).await?;
    let _: Told = story
        .check("every server has a volume of its own", servers_have_volumes(&cluster))
        .await;
    let _: Told = story
        .check("its coordinator can't be changed", coordinator_is_fixed(&cluster))
        .await;
    let _: Told = story
        .check("it goes on: one proxy less is soon served", fewer_proxies(&cluster))
        .await;
    teardown::checks(story, &cluster).await
}

async fn apply_with_volumes(cluster: &Cluster) -> Result<()> {
    let text = std::fs::read_to_string(sample(1))?;
    let mut sample: Value = serde_yaml::from_str(&text)?;
    sample["spec"]["codisServer"]["requests"] = json!({"storage": "256Mi"});
    let parameters = PatchParams::apply("codis-e2e");
    cluster
        .api()
        .patch(&cluster.name, &parameters, &Patch::Apply(sample))
        .await?;
    Ok(())
}

/// Waits until the cluster of a namespace isn't Ready and a condition says which field is the reason.
async fn blames(namespace: &Namespace, field: &str) -> Result<()> {
    let cluster = Cluster::new(namespace, "sample");
    let told = wait_for(&format!("a condition that names {field}"), secs(90), async || {
        let resource = cluster.get().await?;
        let all = conditions(&resource);
        let not_ready = all
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "False");
        let names_it = all.iter().find(|condition| condition.message.contains(field));
        let found = names_it.filter(|_| not_ready).context(tell(all))?;
        Ok(format!(
            "{}={} ({}: {})",
            found.type_, found.status, found.reason, found.message
        ))
    })
    .await?;
    println!("        {told}");
    Ok(())
}

async fn servers_have_volumes(cluster: &Cluster) -> Result<()> {
    let columns = "custom-columns=:metadata.name,:status.phase";
    let listed = cluster
        .namespace
        .kubectl(&["get", "pvc", "--no-headers", "-o", columns])
        .await?;
    let snapshot = Snapshot::healthy(cluster).await?;
    for pod in snapshot.pods_of("server").iter().chain(&snapshot.pods_of("dashboard")) {
        let mut claims = listed.lines().filter(|line| line.contains(&format!("-{pod} ")));
        ensure!(
            claims.any(|line| line.ends_with("Bound")),
            "{pod} has no bound claim:\n{listed}"
        );
    }
    Ok(())
}

async fn coordinator_is_fixed(cluster: &Cluster) -> Result<()> {
    let patch = json!({"spec": {"coordinatorName": "etcd", "coordinatorAddr": "10.0.0.1:2379"}});
    let parameters = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    match cluster
        .api()
        .patch(&cluster.name, &parameters, &Patch::Merge(patch))
        .await
    {
        Ok(_) => anyhow::bail!("it was accepted"),
        Err(error) => ensure!(error.to_string().contains("can't be changed"), "{error}"),
    }
    Ok(())
}

async fn fewer_proxies(cluster: &Cluster) -> Result<()> {
    // Its autoscaler decides, within these bounds.
    let patch = json!({"spec": {"codisProxy": {"replicas": 2, "hpaSpec": {"maxReplicas": 2}}}});
    cluster
        .api()
        .patch(&cluster.name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    wait_for("two proxies and no stale record", secs(120), async || {
        Snapshot::healthy(cluster).await.map(drop)
    })
    .await
}
