//! Objects that bear our names but not our mark, and the predecessor's: found, told about, left alone.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Service};
use kube::Api;
use serde_json::json;

use crate::support::{
    cluster::{Cluster, conditions},
    namespace::Namespace,
    runner::{Story, Told},
    spec::{SMALL, Shape},
    wait::{secs, wait_for},
};

/// What would be made; it never gets that far.
const SHAPE: Shape = Shape {
    groups: 1,
    sentinels: 0,
    proxies: 1,
    fe: 0,
    ..SMALL
};

pub async fn story(story: &mut Story<'_>) -> Told {
    let namespace = story.namespace().await?;
    let _: Told = story
        .check("a Service that has a name of ours isn't seized", name_taken(&namespace))
        .await;
    let namespace = story.namespace().await?;
    story
        .check(
            "the predecessor's objects stop us until adoption is asked for",
            adoption_required(&namespace),
        )
        .await
}

async fn name_taken(namespace: &Namespace) -> Result<()> {
    let services = Api::<Service>::namespaced(namespace.lab.client.clone(), &namespace.name);
    let foreign: Service = serde_json::from_value(json!({
        "metadata": {"name": "c-proxy", "labels": {"owner": "somebody-else"}},
        "spec": {"selector": {"app": "somebody-else"}, "ports": [{"port": 80}]},
    }))?;
    let made = services.create(&Default::default(), &foreign).await?;
    let cluster = Cluster::new(namespace, "c");
    cluster.apply(&SHAPE.cluster("c")).await?;
    let blocked = cluster.condition("Blocked", "True", "NameTaken", secs(60)).await?;
    ensure!(
        blocked.message.contains("c-proxy"),
        "it doesn't name the object: {}",
        blocked.message
    );
    println!("        {}: {}", blocked.reason, blocked.message);
    let now = services.get("c-proxy").await?;
    ensure!(
        now.metadata.resource_version == made.metadata.resource_version,
        "the Service was written to"
    );
    // The fix is a person's; then it goes on by itself.
    services.delete("c-proxy", &Default::default()).await?;
    wait_for("Blocked to end once the Service is gone", secs(90), async || {
        let resource = cluster.get().await?;
        let blocked = conditions(&resource)
            .iter()
            .find(|condition| condition.type_ == "Blocked");
        ensure!(
            blocked.is_none_or(|condition| condition.status != "True"),
            "{blocked:?}"
        );
        Ok(())
    })
    .await
}

async fn adoption_required(namespace: &Namespace) -> Result<()> {
    let sets = Api::<StatefulSet>::namespaced(namespace.lab.client.clone(), &namespace.name);
    let labels = BTreeMap::from([("component", "codis-dashboard"), ("clusterName", "c")]);
    let predecessor: StatefulSet = serde_json::from_value(json!({
        "metadata": {"name": "c-dashboard"},
        "spec": {
            "replicas": 0,
            "serviceName": "c-dashboard",
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "dashboard", "image": "codis-double:dev"}]},
            },
        },
    }))?;
    let made = sets.create(&Default::default(), &predecessor).await?;
    let cluster = Cluster::new(namespace, "c");
    cluster.apply(&SHAPE.cluster("c")).await?;
    let blocked = cluster
        .condition("Blocked", "True", "AdoptionRequired", secs(60))
        .await?;
    println!("        {}: {}", blocked.reason, blocked.message);
    let now = sets.get("c-dashboard").await?;
    let spec_of = |set: &StatefulSet| {
        (
            set.metadata.generation,
            set.metadata.labels.clone(),
            set.metadata.uid.clone(),
        )
    };
    ensure!(
        spec_of(&now) == spec_of(&made),
        "the predecessor's StatefulSet was changed"
    );
    ensure!(
        now.metadata.owner_references.is_none(),
        "the predecessor's StatefulSet was given an owner"
    );
    let kinds = "statefulsets,deployments,services,secrets,configmaps,pods,pvc,poddisruptionbudgets";
    let ours = namespace
        .kubectl(&["get", kinds, "-l", &cluster.selector(), "-o", "name"])
        .await?;
    ensure!(ours.trim().is_empty(), "written: {ours}");
    let secret = namespace
        .kubectl(&["get", "secrets", "-o", "name"])
        .await
        .context("the Secrets")?;
    ensure!(!secret.contains("c-config"), "written: {secret}");
    Ok(())
}
