//! Bad input of every rule: refused by the API server, with a message that names the field and the fix.

use anyhow::{Result, bail, ensure};
use codis_operator::api::CodisCluster;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
};
use serde_json::{Value, json};

use crate::support::{
    namespace::Namespace,
    runner::{Story, Told},
    spec::SMALL,
};

/// What is wrong, where in the object, the bad value, and what the refusal says.
const RULES: [(&str, &str, &str, &str); 11] = [
    (
        "a name of 41 characters",
        "/metadata/name",
        r#""a1234567890123456789012345678901234567890""#,
        "at most 40 characters",
    ),
    (
        "a name that begins with a digit",
        "/metadata/name",
        r#""1c""#,
        "DNS label that starts with a letter",
    ),
    (
        "a name with a dot",
        "/metadata/name",
        r#""a.b""#,
        "DNS label that starts with a letter",
    ),
    (
        "servers that make no whole groups",
        "/spec/codisServer/replicas",
        "3",
        "must be a multiple of codisServer.groupReplicas",
    ),
    (
        "two dashboards",
        "/spec/codisDashboard/replicas",
        "2",
        "codisDashboard.replicas must be 1",
    ),
    (
        "an unknown coordinator",
        "/spec/coordinatorName",
        r#""consul""#,
        "must be one of filesystem, etcd, zookeeper",
    ),
    (
        "an HPA whose minimum exceeds its maximum",
        "/spec/codisProxy/hpaSpec",
        r#"{"minReplicas": 3, "maxReplicas": 2, "cpuUsedThreshold": 50}"#,
        "hpaSpec.minReplicas must not be greater",
    ),
    ("no proxy", "/spec/codisProxy/replicas", "0", "spec.codisProxy.replicas"),
    ("no image", "/spec/codisServer/image", r#""""#, "spec.codisServer.image"),
    (
        "a size that is no quantity",
        "/spec/codisServer/requests/storage",
        r#""10Gb""#,
        "spec.codisServer.requests.storage",
    ),
    (
        "a number where a text belongs",
        "/spec/coordinatorAddr",
        "7",
        "spec.coordinatorAddr",
    ),
];

pub async fn story(story: &mut Story<'_>) -> Told {
    let namespace = story.namespace().await?;
    story
        .check("a good one would be accepted", accepted(&namespace, &good()))
        .await?;
    for (what, pointer, value, message) in RULES {
        let _: Told = story.check(what, refused(&namespace, pointer, value, message)).await;
    }
    Ok(())
}

fn good() -> Value {
    let mut object = json!(SMALL.volumes(true).cluster("good"));
    object["spec"]["codisProxy"]["hpaSpec"] = json!({"minReplicas": 1, "maxReplicas": 2, "cpuUsedThreshold": 50});
    object
}

async fn refused(namespace: &Namespace, pointer: &str, value: &str, message: &str) -> Result<()> {
    let mut object = good();
    let Some(place) = object.pointer_mut(pointer) else {
        bail!("the good object has no {pointer}");
    };
    *place = serde_json::from_str(value)?;
    match accepted(namespace, &object).await {
        Ok(()) => bail!("it was accepted"),
        Err(error) => {
            let error = error.to_string();
            ensure!(error.contains(message), "refused, but without {message:?}: {error}");
            Ok(())
        }
    }
}

/// Asks the API server whether it would accept an object.
async fn accepted(namespace: &Namespace, object: &Value) -> Result<()> {
    let resource = ApiResource::erase::<CodisCluster>(&());
    let api = Api::<DynamicObject>::namespaced_with(namespace.lab.client.clone(), &namespace.name, &resource);
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    api.create(&parameters, &object).await?;
    Ok(())
}
