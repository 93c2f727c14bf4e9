//! The custom resource, as the API server sees it.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use codis_operator::api::CodisCluster;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, CustomResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::world::{World, spec};

/// Applies a manifest as a person does, with unknown fields forbidden.
async fn apply(world: &World, manifest: &Value) -> Result<DynamicObject, kube::Error> {
    let resource = ApiResource::erase::<CodisCluster>(&());
    let api = Api::<DynamicObject>::namespaced_with(world.admin.clone(), &world.namespace, &resource);
    let name = manifest["metadata"]["name"].as_str().unwrap();
    api.patch(
        name,
        &PatchParams::apply("person").validation_strict(),
        &Patch::Apply(manifest),
    )
    .await
}

fn manifest(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster", "metadata": { "name": name }, "spec": spec })
}

/// The text of a refusal.
async fn refusal(world: &World, manifest: &Value) -> String {
    match apply(world, manifest).await {
        Ok(_) => format!("admitted: {manifest}"),
        Err(kube::Error::Api(status)) => status.message,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_crd_is_accepted_and_established() {
    let Some(world) = World::new().await else { return };
    let crds = Api::<CustomResourceDefinition>::all(world.admin.clone());
    let crd = crds.get(CodisCluster::crd_name()).await.unwrap();
    let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
    let status = |kind: &str| conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.as_str());
    assert_eq!(status("Established"), Some("True"), "{conditions:?}");
    assert_eq!(status("NamesAccepted"), Some("True"), "{conditions:?}");
    assert_ne!(status("NonStructuralSchema"), Some("True"), "{conditions:?}");
}

#[tokio::test]
async fn the_samples_are_admitted_unchanged() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    if !directory.is_dir() {
        writeln!(io::stderr(), "samples: SKIPPED ({} isn't there)", directory.display()).unwrap();
        return;
    }
    for sample in ["sample-1.yml", "sample-2.yml", "sample-3.yml"] {
        let Some(world) = World::new().await else { return };
        let text = fs::read_to_string(directory.join(sample)).unwrap();
        let manifest: Value = serde_yaml::from_str(&text).unwrap();
        let admitted = apply(&world, &manifest)
            .await
            .unwrap_or_else(|error| panic!("{sample}: {error}"));
        assert_eq!(admitted.data["spec"], manifest["spec"], "{sample}");
        let read = world.door.get(&world.namespace, "sample").await.unwrap().unwrap();
        assert_eq!(
            serde_json::to_value(&read.spec).unwrap(),
            manifest["spec"],
            "{sample}: and read without loss"
        );
    }
}

#[tokio::test]
async fn a_quantity_may_be_an_integer_or_a_text() {
    let Some(world) = World::new().await else { return };
    let mut wanted = spec();
    wanted["codisServer"]["requests"] = json!({ "cpu": 1, "memory": "500Mi", "storage": "1.5Gi" });
    let admitted = apply(&world, &manifest("quantities", wanted.clone())).await.unwrap();
    assert_eq!(admitted.data["spec"], wanted);
    let read = world.door.get(&world.namespace, "quantities").await.unwrap().unwrap();
    let cpu = read.spec.codis_server.requests.and_then(|requests| requests.cpu);
    assert_eq!(cpu.map(|cpu| cpu.milli()), Some(Ok(1000)));
    wanted["codisServer"]["requests"] = json!({ "memory": "10Gb" });
    let refused = refusal(&world, &manifest("no-quantity", wanted)).await;
    assert!(refused.contains("spec.codisServer.requests.memory"), "{refused}");
}

#[tokio::test]
async fn an_unknown_field_is_refused_when_asked_to() {
    let Some(world) = World::new().await else { return };
    let mut wanted = spec();
    wanted["codisProxy"]["replica"] = json!(3);
    let refused = refusal(&world, &manifest("typo", wanted)).await;
    assert!(
        refused.contains("field not declared in schema") || refused.contains("unknown field"),
        "{refused}"
    );
}

#[tokio::test]
async fn every_rule_refuses_with_its_message() {
    let Some(world) = World::new().await else { return };
    let with = |path: &str, value: Value| {
        let mut spec = spec();
        let (parent, field) = path.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[field] = value;
        spec
    };
    let hpa = json!({ "minReplicas": 5, "maxReplicas": 3, "cpuUsedThreshold": 10 });
    let long = "a".repeat(41);
    for (name, spec, message) in [
        (
            "a.b",
            spec(),
            "metadata.name must be a DNS label that starts with a letter, of at most 40 characters",
        ),
        (
            "1a",
            spec(),
            "metadata.name must be a DNS label that starts with a letter, of at most 40 characters",
        ),
        (
            &long,
            spec(),
            "metadata.name must be a DNS label that starts with a letter, of at most 40 characters",
        ),
        (
            "a",
            with("/codisServer/replicas", json!(3)),
            "codisServer.replicas must be a multiple of",
        ),
        (
            "a",
            with("/codisServer/groupReplicas", json!(0)),
            "should be greater than or equal to 1",
        ),
        (
            "a",
            with("/codisDashboard/replicas", json!(2)),
            "codisDashboard.replicas must be 1",
        ),
        (
            "a",
            with("/codisDashboard/image", json!("")),
            "spec.codisDashboard.image",
        ),
        (
            "a",
            with("/productName", json!("a/b")),
            "productName must start with a letter or a digit",
        ),
        ("a", with("/productName", json!("a".repeat(64))), "Too long"),
        (
            "a",
            with("/coordinatorName", json!("consul")),
            "coordinatorName must be one of filesystem, etcd, zookeeper",
        ),
        (
            "a",
            with("/codisProxy/hpaSpec", hpa),
            "hpaSpec.minReplicas must not be greater than hpaSpec.maxReplicas",
        ),
        (
            "a",
            with("/codisProxy/replicas", json!(0)),
            "should be greater than or equal to 1",
        ),
        (
            "a",
            with("/codisProxy/drainSeconds", json!(4)),
            "should be greater than or equal to 5",
        ),
        (
            "a",
            with(
                "/codisProxy/jodis",
                json!({ "coordinatorName": "filesystem", "coordinatorAddr": "x" }),
            ),
            "jodis.coordinatorName must be zookeeper or etcd",
        ),
    ] {
        let refused = refusal(&world, &manifest(name, spec)).await;
        assert!(refused.contains(message), "{name}: wanted {message:?}, got: {refused}");
    }
}

#[tokio::test]
async fn names_at_the_limits_are_admitted() {
    let Some(world) = World::new().await else { return };
    for name in ["a", "a-1", &"a".repeat(40)] {
        apply(&world, &manifest(name, spec())).await.unwrap();
    }
}

#[tokio::test]
async fn the_products_name_cannot_be_changed_given_later_or_taken_away() {
    let Some(world) = World::new().await else { return };
    let named = |name: Option<&str>| {
        let mut spec = spec();
        if let Some(name) = name {
            spec["productName"] = json!(name);
        }
        spec
    };
    for (name, before, after) in [
        ("changed", Some("one"), Some("two")),
        ("later", None, Some("later")),
        ("away", Some("away"), None),
    ] {
        apply(&world, &manifest(name, named(before))).await.unwrap();
        let refused = refusal(&world, &manifest(name, named(after))).await;
        assert!(refused.contains("productName can't be changed"), "{name}: {refused}");
        apply(&world, &manifest(name, named(before))).await.unwrap();
    }
}

#[tokio::test]
async fn the_coordinator_cannot_be_changed() {
    let Some(world) = World::new().await else { return };
    apply(&world, &manifest("fixed", spec())).await.unwrap();
    for field in ["coordinatorName", "coordinatorAddr"] {
        let mut other = spec();
        other[field] = json!("etcd");
        let refused = refusal(&world, &manifest("fixed", other)).await;
        assert!(
            refused.contains("coordinatorName and coordinatorAddr can't be changed"),
            "{field}: {refused}"
        );
    }
    let mut more = spec();
    more["codisProxy"]["replicas"] = json!(3);
    apply(&world, &manifest("fixed", more)).await.unwrap();
}

#[tokio::test]
async fn what_this_version_cannot_scale_in_is_refused_and_scaling_out_is_not() {
    let Some(world) = World::new().await else { return };
    let mut first = spec();
    first["sentinel"] = json!({ "image": "codis", "replicas": 3 });
    apply(&world, &manifest("shape", first.clone())).await.unwrap();
    let servers = |replicas: i32, group_replicas: i32| {
        let mut other = first.clone();
        other["codisServer"]["replicas"] = json!(replicas);
        other["codisServer"]["groupReplicas"] = json!(group_replicas);
        manifest("shape", other)
    };
    let mut fewer = first.clone();
    fewer["sentinel"]["replicas"] = json!(1);
    assert!(
        refusal(&world, &manifest("shape", fewer))
            .await
            .contains("sentinel.replicas can't be lowered")
    );
    let mut none = first.clone();
    none.as_object_mut().unwrap().remove("sentinel");
    assert!(
        refusal(&world, &manifest("shape", none))
            .await
            .contains("sentinel.replicas can't be lowered")
    );
    for (replicas, group_replicas) in [(6, 2), (2, 2), (4, 4)] {
        apply(&world, &servers(replicas, group_replicas)).await.unwrap();
    }
}

/// The policy is applied as it is shipped. It takes the API server a moment to heed it.
#[tokio::test]
async fn a_protected_cluster_cannot_be_deleted_until_a_person_says_so() {
    let Some(world) = World::new().await else { return };
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/admission/deletion-protection.yaml");
    let documents = serde_yaml::Deserializer::from_str(&fs::read_to_string(shipped).unwrap())
        .map(|document| Value::deserialize(document).unwrap())
        .collect::<Vec<_>>();
    for document in &documents {
        let (kind, name) = (
            document["kind"].as_str().unwrap(),
            document["metadata"]["name"].as_str().unwrap(),
        );
        let gvk = kube::core::GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let plural = match kind {
            "ValidatingAdmissionPolicy" => "validatingadmissionpolicies",
            _ => "validatingadmissionpolicybindings",
        };
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api = Api::<DynamicObject>::all_with(world.admin.clone(), &resource);
        api.patch(name, &PatchParams::apply("person").force(), &Patch::Apply(document))
            .await
            .unwrap();
    }
    let mut protected = spec();
    protected["deletionProtection"] = json!(true);
    apply(&world, &manifest("keep", protected.clone())).await.unwrap();
    let api = world.api::<CodisCluster>();
    let dry = kube::api::DeleteParams {
        dry_run: true,
        ..Default::default()
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let refused = loop {
        match api.delete("keep", &dry).await {
            Err(error) => break error.to_string(),
            Ok(_) if tokio::time::Instant::now() > deadline => panic!("it may be deleted"),
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(300)).await,
        }
    };
    assert!(
        refused.contains("deletionProtection is true: set it to false first"),
        "{refused}"
    );
    protected["deletionProtection"] = json!(false);
    apply(&world, &manifest("keep", protected)).await.unwrap();
    api.delete("keep", &Default::default()).await.unwrap();
}
