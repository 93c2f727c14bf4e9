//! A CodisCluster's objects as the loop makes them, on a real API server without any controller: autoscaling that comes
//! and goes, generated passwords, volumes that grow around pods that stay, no pods while it hibernates.

use std::sync::Arc;

use codis_operator::{
    api::{CodisCluster, CodisClusterSpec},
    cluster::Object,
    controller::{Context, reconcile},
    telemetry::{Effects, Metrics},
};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{PersistentVolumeClaim, Pod, Secret},
    storage::v1::StorageClass,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::world::World;

struct Loop {
    world: World,
    context: Arc<Context>,
}

impl Loop {
    async fn new(spec: Value) -> Option<Self> {
        let world = World::new().await?;
        let context = Context::new(world.door.clone(), Effects::none(), Metrics::default(), true);
        let spec: CodisClusterSpec = serde_json::from_value(spec).unwrap();
        let cluster = CodisCluster::new("c", spec);
        world.api().create(&PostParams::default(), &cluster).await.unwrap();
        Some(Self { world, context })
    }

    /// Some passes: Services first, workloads once their addresses were read back.
    async fn passes(&self) {
        for _ in 0..3 {
            reconcile(&self.context, &self.world.namespace, "c").await.unwrap();
        }
    }

    async fn change(&self, spec: Value) {
        self.patch::<CodisCluster>("c", json!({ "spec": spec })).await;
        self.passes().await;
    }

    async fn patch<K: Object>(&self, name: &str, change: Value) {
        let (api, patch) = (self.world.api::<K>(), Patch::Merge(change));
        api.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn get<K: Object>(&self, name: &str) -> Option<K> {
        self.world.api::<K>().get_opt(name).await.unwrap()
    }

    async fn proxies(&self) -> Option<i32> {
        self.get::<Deployment>("c-proxy").await.unwrap().spec.unwrap().replicas
    }

    async fn create<K: Object>(&self, object: Value) -> K {
        let object: K = serde_json::from_value(object).unwrap();
        self.world.api().create(&PostParams::default(), &object).await.unwrap()
    }

    async fn status(&self) -> Value {
        serde_json::to_value(self.get::<CodisCluster>("c").await.unwrap().status).unwrap()
    }
}

fn spec(server: Value) -> Value {
    let mut spec = json!({
        // Never asked: what is wished is on volumes of a class that is named.
        "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
        "codisProxy": { "replicas": 3, "image": "codis", "requests": { "cpu": "100m" } },
        "codisServer": { "replicas": 2, "groupReplicas": 2, "image": "codis" },
        "codisDashboard": { "replicas": 1, "image": "codis" },
    });
    let fields = spec["codisServer"].as_object_mut().unwrap();
    fields.extend(server.as_object().unwrap().clone());
    spec
}

/// A class of this name that volumes can or can't grow in.
async fn class(world: &World, name: &str, grows: bool) {
    let class: StorageClass = serde_json::from_value(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": name },
        "provisioner": "example.com/none", "allowVolumeExpansion": grows,
    }))
    .unwrap();
    let api: Api<StorageClass> = Api::all(world.admin.clone());
    let _ = api.create(&PostParams::default(), &class).await;
}

async fn with_class(name: &str, grows: bool) -> Option<Loop> {
    let world = World::new().await?;
    class(&world, name, grows).await;
    Loop::new(spec(
        json!({ "storageClassName": name, "requests": { "storage": "1Gi" } }),
    ))
    .await
}

#[tokio::test]
async fn an_autoscaler_comes_and_goes_and_no_proxy_is_lost() {
    let Some(run) = with_class("scaling", false).await else {
        return;
    };
    run.passes().await;
    assert_eq!(run.proxies().await, Some(3));
    let hpa = json!({ "minReplicas": 2, "maxReplicas": 6, "cpuUsedThreshold": 60 });
    run.change(json!({ "codisProxy": { "hpaSpec": hpa } })).await;
    let scaler: HorizontalPodAutoscaler = run.get("c-proxy").await.unwrap();
    assert_eq!(scaler.spec.unwrap().max_replicas, 6);
    assert_eq!(run.proxies().await, Some(3), "handed over as it was");
    run.patch::<Deployment>("c-proxy", json!({ "spec": { "replicas": 5 } }))
        .await;
    run.passes().await;
    let before = run.world.writes();
    run.passes().await;
    assert_eq!(run.proxies().await, Some(5), "the autoscaler's number stays");
    assert_eq!(run.world.writes(), before, "and costs no write");
    run.change(json!({ "codisProxy": { "hpaSpec": null } })).await;
    assert!(run.get::<HorizontalPodAutoscaler>("c-proxy").await.is_none());
    assert_eq!(run.proxies().await, Some(3));
}

#[tokio::test]
async fn passwords_that_nobody_gave_are_made_up_once_and_told_to_applications() {
    let Some(run) = with_class("passwords", false).await else {
        return;
    };
    run.passes().await;
    let text = |secret: &Secret, key: &str| String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap();
    let config: Secret = run.get("c-config").await.unwrap();
    let session = text(&config, "session-auth");
    assert_eq!((session.len(), text(&config, "product-auth").len()), (32, 32));
    let connection: Secret = run.get("c-connection").await.unwrap();
    let uri = format!("redis://:{session}@c-proxy.{}.svc:19000", run.world.namespace);
    assert_eq!(text(&connection, "uri"), uri);
    // From a Secret that isn't there yet: what runs goes on, and the status names what is missing.
    run.change(json!({ "codisProxy": { "sessionAuthSecretRef": { "name": "mine" } } }))
        .await;
    let config: Secret = run.get("c-config").await.unwrap();
    assert_eq!(text(&config, "session-auth"), session);
    let status = run.status().await;
    assert!(
        status["message"].as_str().unwrap().contains("there is no Secret mine"),
        "{status}"
    );
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "mine" },
        "stringData": { "password": "new" } });
    run.create::<Secret>(secret).await;
    run.passes().await;
    let config: Secret = run.get("c-config").await.unwrap();
    assert_eq!(
        (text(&config, "session-auth"), text(&config, "session-auth-rotations")),
        ("new".into(), "1".into())
    );
    let proxies: Deployment = run.get("c-proxy").await.unwrap();
    let annotations = proxies.spec.unwrap().template.metadata.unwrap().annotations;
    assert!(
        annotations.is_some_and(|all| all.contains_key("codis.k8s.io/config")),
        "new proxies take it"
    );
}

/// The claim and the pod of a server, as the controllers of Kubernetes would have made them.
async fn server(run: &Loop, class: &str, ordinal: u16) -> Pod {
    let labels = json!({ "codis.k8s.io/cluster": "c", "codis.k8s.io/component": "server", "codis.k8s.io/group": "1" });
    let claim = format!("data-c-g1-{ordinal}");
    run.create::<PersistentVolumeClaim>(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": claim, "labels": labels },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": class, "volumeName": format!("pv-{ordinal}"),
            "resources": { "requests": { "storage": "1Gi" } } },
    }))
    .await;
    let bound = json!({ "status": { "phase": "Bound", "capacity": { "storage": "1Gi" } } });
    let claims: Api<PersistentVolumeClaim> = run.world.api();
    claims
        .patch_status(&claim, &PatchParams::default(), &Patch::Merge(bound))
        .await
        .unwrap();
    let set: StatefulSet = run.get("c-g1").await.unwrap();
    run.create::<Pod>(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("c-g1-{ordinal}"), "labels": labels, "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "c-g1", "uid": set.uid(), "controller": true }] },
        "spec": { "containers": [{ "name": "server", "image": "codis" }] },
    }))
    .await
}

async fn size(run: &Loop, claim: &str) -> String {
    let claim: PersistentVolumeClaim = run.get(claim).await.unwrap();
    claim.spec.unwrap().resources.unwrap().requests.unwrap()["storage"]
        .0
        .clone()
}

#[tokio::test]
async fn volumes_grow_and_the_pods_stay() {
    let Some(run) = with_class("growing", true).await else {
        return;
    };
    run.passes().await;
    let pod = server(&run, "growing", 0).await;
    let old: StatefulSet = run.get("c-g1").await.unwrap();
    run.change(json!({ "codisServer": { "requests": { "storage": "2Gi" } } }))
        .await;
    assert_eq!(size(&run, "data-c-g1-0").await, "2Gi");
    // The garbage collector's part: the pods are let go, then the set is.
    if let Some(going) = run.get::<StatefulSet>("c-g1").await {
        assert_eq!(going.finalizers(), ["orphan"]);
        run.patch::<StatefulSet>("c-g1", json!({ "metadata": { "finalizers": null } }))
            .await;
    }
    run.passes().await;
    let new: StatefulSet = run.get("c-g1").await.unwrap();
    assert_ne!(new.uid(), old.uid());
    let template = new.spec.unwrap().volume_claim_templates.unwrap().remove(0);
    assert_eq!(
        template.spec.unwrap().resources.unwrap().requests.unwrap()["storage"].0,
        "2Gi"
    );
    assert_eq!(run.get::<Pod>("c-g1-0").await.unwrap().uid(), pod.uid(), "it stayed");
}

#[tokio::test]
async fn a_set_that_somebody_deleted_is_made_anew_on_its_volumes_whatever_the_spec_says_by_now() {
    let Some(run) = with_class("kept", false).await else {
        return;
    };
    run.passes().await;
    server(&run, "kept", 0).await;
    let armed = json!({ "stringData": { "bootstrapped": "1\n" } });
    run.patch::<Secret>("c-config", armed).await;
    run.change(json!({ "codisServer": { "requests": null, "storageClassName": null } }))
        .await;
    let params = kube::api::DeleteParams::background();
    run.world.api::<StatefulSet>().delete("c-g1", &params).await.unwrap();
    run.passes().await;
    let set: StatefulSet = run.get("c-g1").await.unwrap();
    let templates = set.spec.unwrap().volume_claim_templates.unwrap_or_default();
    let spec = templates.first().and_then(|template| template.spec.clone()).unwrap();
    assert_eq!(spec.storage_class_name.as_deref(), Some("kept"));
}

#[tokio::test]
async fn what_volumes_can_not_do_is_told_and_changes_nothing() {
    let Some(run) = with_class("fixed", false).await else {
        return;
    };
    run.passes().await;
    server(&run, "fixed", 0).await;
    for (wish, field, why) in [
        (
            json!({ "requests": { "storage": "2Gi" } }),
            "requests.storage",
            "allowVolumeExpansion",
        ),
        (
            json!({ "requests": { "storage": "1Mi" } }),
            "requests.storage",
            "shrink",
        ),
        (
            json!({ "requests": { "storage": "1Gi" }, "storageClassName": "other" }),
            "storageClassName",
            "isn't moved",
        ),
    ] {
        let old: StatefulSet = run.get("c-g1").await.unwrap();
        run.change(json!({ "codisServer": wish })).await;
        let status = run.status().await;
        let told = status["withoutEffect"][0].as_str().unwrap_or_default().to_owned();
        assert!(told.contains(field) && told.contains(why), "{status}");
        assert_eq!(run.get::<StatefulSet>("c-g1").await.unwrap().uid(), old.uid());
        assert_eq!(size(&run, "data-c-g1-0").await, "1Gi");
    }
}

#[tokio::test]
async fn a_cluster_that_hibernates_has_no_pods_and_keeps_the_rest() {
    let Some(run) = with_class("sleeping", false).await else {
        return;
    };
    run.passes().await;
    let pod = server(&run, "sleeping", 0).await;
    run.change(json!({ "hibernate": true })).await;
    let replicas = async |name: &str| run.get::<StatefulSet>(name).await.unwrap().spec.unwrap().replicas;
    assert_eq!((run.proxies().await, replicas("c-g1").await), (Some(0), Some(0)));
    assert_eq!(
        replicas("c-dashboard").await,
        Some(1),
        "last, when the servers have ended"
    );
    let now = kube::api::DeleteParams::default().grace_period(0);
    run.world.api::<Pod>().delete(&pod.name_any(), &now).await.unwrap();
    run.passes().await;
    assert_eq!(replicas("c-dashboard").await, Some(0));
    let status = run.status().await;
    assert_eq!(status["phase"], "Hibernating", "{status}");
    assert!(
        status["addresses"].as_object().is_some_and(|all| !all.is_empty()),
        "{status}"
    );
    run.change(json!({ "hibernate": false })).await;
    assert_eq!((run.proxies().await, replicas("c-g1").await), (Some(3), Some(2)));
    assert_eq!(replicas("c-dashboard").await, Some(1));
}

#[tokio::test]
async fn who_only_observes_writes_the_status_and_nothing_else() {
    let Some(world) = World::new().await else { return };
    class(&world, "observed", false).await;
    let mut spec = spec(json!({ "storageClassName": "observed", "requests": { "storage": "1Gi" } }));
    spec["management"] = "Observe".into();
    let Some(run) = Loop::new(spec).await else { return };
    run.passes().await;
    assert!(run.get::<CodisCluster>("c").await.unwrap().finalizers().is_empty());
    assert!(run.get::<Secret>("c-config").await.is_none() && run.get::<StatefulSet>("c-g1").await.is_none());
    let status = run.status().await;
    assert_eq!(status["brakes"][0], Value::Null, "nothing exists yet");
    assert!(
        run.world.writes().iter().all(|write| write.verb == "patch"),
        "{:?}",
        run.world.writes()
    );
}

#[tokio::test]
async fn what_is_paused_is_not_changed_but_made_where_it_is_missing() {
    let Some(run) = with_class("paused", false).await else {
        return;
    };
    run.passes().await;
    run.change(json!({ "paused": true, "codisProxy": { "replicas": 5 } }))
        .await;
    assert_eq!(run.proxies().await, Some(3));
    let now = kube::api::DeleteParams::default();
    run.world.api::<Deployment>().delete("c-proxy", &now).await.unwrap();
    run.passes().await;
    assert_eq!(run.proxies().await, Some(5), "made anew as it is wished now");
    run.change(json!({ "paused": false })).await;
    assert_eq!(run.proxies().await, Some(5));
}
