//! What a person asks for, and what Kubernetes does meanwhile.

use codis_operator::{
    api::{CodisCluster, CodisClusterSpec},
    cluster::Object,
};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{PersistentVolumeClaim, Secret, Service},
    policy::v1::PodDisruptionBudget,
    storage::v1::StorageClass,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::world::World;

/// The class of the data volumes.
const CLASS: &str = "crashing";

/// Something that takes many effects.
pub struct Operation {
    /// In one word or two.
    pub name: &'static str,
    /// What is there before it.
    pub before: Vec<Vec<Step>>,
    /// What is asked for: some things at once, the next ones when the operator is quiet again.
    pub steps: Vec<Vec<Step>>,
    /// Whether everything is as before in the end. Else everything is removed, and made anew for the next death.
    pub is_round: bool,
    /// How many of the ways to die are tried at each effect, in turn.
    pub ways: usize,
}

/// One thing that somebody does.
pub enum Step {
    /// Creates the cluster.
    Create(Value),
    /// Changes its spec.
    Wish(Value),
    /// Deletes it.
    Delete,
    /// Changes an object by hand.
    Edit(&'static str, Value),
    /// Deletes a Service by hand.
    WithoutService(&'static str),
    /// Deletes a Secret by hand.
    WithoutSecret(&'static str),
    /// Deletes the proxies' Deployment, a group's StatefulSet and a budget by hand.
    WithoutWorkloads,
    /// Creates a Secret with a password.
    Password(&'static str),
    /// Makes the claims of group 1, as its StatefulSet's controller and the provisioner do.
    Claims,
    /// Lets StatefulSets go whose pods are to stay, as the garbage collector does.
    Released,
}

/// A small cluster on volumes, and what is different about it.
pub fn spec(change: Value) -> Value {
    let mut spec = json!({
        "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
        "codisProxy": { "replicas": 2, "image": "codis", "sessionAuth": "session", "requests": { "cpu": "100m" } },
        "codisServer": { "replicas": 2, "groupReplicas": 2, "image": "codis", "storageClassName": CLASS,
            "requests": { "storage": "1Gi" } },
        "codisDashboard": { "replicas": 1, "image": "codis", "productAuth": "product" },
    });
    merge(&mut spec, change);
    spec
}

/// A JSON merge patch.
fn merge(value: &mut Value, change: Value) {
    let Value::Object(change) = change else {
        *value = change;
        return;
    };
    for (key, change) in change {
        match change {
            Value::Null => drop(value.as_object_mut().map(|map| map.remove(&key))),
            change => merge(&mut value[key], change),
        }
    }
}

/// Everything that there can be, on volumes, with passwords that are made up.
fn whole() -> Value {
    spec(json!({
        "codisProxy": { "sessionAuth": null }, "codisDashboard": { "productAuth": null },
        "codisServer": { "replicas": 4, "volumeRetention": "Delete" },
        "codisFe": { "image": "codis", "replicas": 1 }, "sentinel": { "image": "codis", "replicas": 3 },
    }))
}

/// A cluster on volumes comes.
pub fn creation() -> Operation {
    Operation {
        name: "create, on volumes",
        before: vec![],
        steps: vec![vec![Step::Create(whole())]],
        is_round: false,
        ways: 2,
    }
}

/// It goes, and its volumes with it.
pub fn deletion() -> Operation {
    Operation {
        name: "delete, with volumes",
        before: vec![vec![Step::Create(whole())], vec![Step::Claims]],
        steps: vec![vec![Step::Delete]],
        is_round: false,
        ways: 3,
    }
}

/// A cluster comes on an etcd, in memory, whose proxies are scaled and register.
pub fn creation_in_memory() -> Operation {
    let jodis = json!({ "coordinatorName": "zookeeper", "coordinatorAddr": "zk:2181" });
    let whole = spec(json!({
        "coordinatorName": "etcd", "coordinatorAddr": "etcd:2379", "productName": "cache",
        "codisProxy": { "jodis": jodis, "hpaSpec": { "minReplicas": 2, "maxReplicas": 6, "cpuUsedThreshold": 60 },
            "maxSurge": 1, "serviceAnnotations": { "example.com/a": "b" }, "config": { "proxy_max_clients": 100 } },
        "codisServer": { "storageClassName": null, "requests": null, "config": { "maxmemory-policy": "allkeys-lru" } },
    }));
    Operation {
        name: "create, in memory",
        steps: vec![vec![Step::Create(whole)]],
        ways: 1,
        ..creation()
    }
}

fn on(name: &'static str, steps: Vec<Vec<Step>>) -> Operation {
    Operation {
        name,
        before: vec![vec![Step::Create(spec(json!({})))]],
        steps,
        is_round: true,
        ways: 2,
    }
}

/// Groups and sentinels come.
pub fn growth() -> Operation {
    let more = json!({ "codisServer": { "replicas": 4 }, "sentinel": { "image": "codis", "replicas": 3 } });
    Operation {
        // Groups that leave have to be empty, and sentinels stay.
        is_round: false,
        ..on("scale out groups", vec![vec![Step::Wish(more)]])
    }
}

/// Proxies and the front end come and go.
pub fn scaling() -> Operation {
    let out = json!({ "codisProxy": { "replicas": 4 }, "codisFe": { "image": "codis", "replicas": 1 } });
    let back = json!({ "codisProxy": { "replicas": 2 }, "codisFe": null });
    on("scale out and in", vec![vec![Step::Wish(out)], vec![Step::Wish(back)]])
}

/// An autoscaler comes, scales, and goes.
pub fn autoscaling() -> Operation {
    let scaled = json!({ "codisProxy": { "hpaSpec": { "minReplicas": 2, "maxReplicas": 6, "cpuUsedThreshold": 60 } } });
    let unscaled = json!({ "codisProxy": { "hpaSpec": null } });
    let more = Step::Edit("Deployment c-proxy", json!({ "spec": { "replicas": 5 } }));
    on(
        "an autoscaler comes and goes",
        vec![vec![Step::Wish(scaled)], vec![more], vec![Step::Wish(unscaled)]],
    )
}

/// Another image and other settings, and the old ones again.
pub fn change() -> Operation {
    let with = |image: &str, policy: Value, limits: Value| {
        json!({
            "codisProxy": { "image": image, "limits": limits },
            "codisServer": { "image": image, "config": policy },
            "codisDashboard": { "image": image },
        })
    };
    let new = with(
        "codis:2",
        json!({ "maxmemory-policy": "allkeys-lru" }),
        json!({ "memory": "64Mi" }),
    );
    on(
        "another image and configuration",
        vec![
            vec![Step::Wish(new)],
            vec![Step::Wish(with("codis", Value::Null, Value::Null))],
        ],
    )
}

/// Another password of the clients, and one from a Secret.
pub fn rotation() -> Operation {
    let from_secret = json!({ "codisProxy": { "sessionAuth": null, "sessionAuthSecretRef": { "name": "mine" } } });
    let steps = vec![
        vec![Step::Wish(json!({ "codisProxy": { "sessionAuth": "second" } }))],
        vec![Step::Password("mine"), Step::Wish(from_secret)],
    ];
    Operation {
        // They are counted.
        is_round: false,
        ..on("password rotation", steps)
    }
}

/// No pods, and pods again.
pub fn hibernation() -> Operation {
    let sleeps = |sleeps: bool| vec![Step::Wish(json!({ "hibernate": sleeps }))];
    on("hibernate and wake", vec![sleeps(true), sleeps(false)])
}

/// Somebody deletes and edits what the operator made.
pub fn hands() -> Operation {
    let selector = json!({ "spec": { "selector": { "codis.k8s.io/component": "nobody" } } });
    let unlabelled = json!({ "metadata": { "labels": { "codis.k8s.io/cluster": null } } });
    let steps = vec![
        vec![Step::WithoutService("c-g1-0"), Step::WithoutService("c-proxy")],
        vec![Step::WithoutSecret("c-config"), Step::WithoutSecret("c-connection")],
        vec![Step::WithoutWorkloads],
        vec![
            Step::Edit("Service c-dashboard", selector),
            Step::Edit("Service c-g1-1", unlabelled),
            Step::Edit("StatefulSet c-g1", json!({ "spec": { "replicas": 7 } })),
        ],
    ];
    on("deleted and edited by hand", steps)
}

/// Volumes are wished larger.
pub fn larger_volumes() -> Operation {
    let larger = json!({ "codisServer": { "requests": { "storage": "2Gi" } } });
    let mut operation = on("larger volumes", vec![vec![Step::Wish(larger)], vec![Step::Released]]);
    operation.before.push(vec![Step::Claims]);
    Operation {
        // They never shrink.
        is_round: false,
        ..operation
    }
}

impl Step {
    /// Does it.
    pub async fn take(&self, world: &World) {
        match self {
            Self::Create(spec) => {
                class(world).await;
                let spec: CodisClusterSpec = serde_json::from_value(spec.clone()).unwrap();
                create(world, &CodisCluster::new("c", spec)).await;
            }
            Self::Wish(change) => edit::<CodisCluster>(world, "c", json!({ "spec": change })).await,
            Self::Delete => delete::<CodisCluster>(world, "c").await,
            Self::Edit(what, change) => match what.split_once(' ') {
                Some(("Service", name)) => edit::<Service>(world, name, change.clone()).await,
                Some(("StatefulSet", name)) => edit::<StatefulSet>(world, name, change.clone()).await,
                Some(("Deployment", name)) => edit::<Deployment>(world, name, change.clone()).await,
                _ => panic!("{what}"),
            },
            Self::WithoutService(name) => delete::<Service>(world, name).await,
            Self::WithoutSecret(name) => delete::<Secret>(world, name).await,
            Self::WithoutWorkloads => {
                delete::<Deployment>(world, "c-proxy").await;
                delete::<StatefulSet>(world, "c-g1").await;
                delete::<PodDisruptionBudget>(world, "c-proxy").await;
            }
            Self::Password(name) => {
                let secret = json!({ "metadata": { "name": name }, "stringData": { "password": "third" } });
                create::<Secret>(world, &serde_json::from_value(secret).unwrap()).await;
            }
            Self::Claims => claims(world).await,
            Self::Released => released(world).await,
        }
    }
}

async fn create<K: Object>(world: &World, object: &K) {
    world.api().create(&PostParams::default(), object).await.unwrap();
}

async fn edit<K: Object>(world: &World, name: &str, change: Value) {
    let api = world.api::<K>();
    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
}

async fn delete<K: Object>(world: &World, name: &str) {
    let api = world.api::<K>();
    api.delete(name, &DeleteParams::background()).await.unwrap();
}

/// A class whose volumes can grow, for all namespaces.
async fn class(world: &World) {
    let class: StorageClass = serde_json::from_value(json!({
        "metadata": { "name": CLASS }, "provisioner": "example.com/none", "allowVolumeExpansion": true,
    }))
    .unwrap();
    // It may be there already.
    let api: Api<StorageClass> = Api::all(world.admin.clone());
    let _ = api.create(&PostParams::default(), &class).await;
}

async fn claims(world: &World) {
    for ordinal in 0..2 {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": { "name": format!("data-c-g1-{ordinal}"), "labels": {
                "codis.k8s.io/cluster": "c", "codis.k8s.io/component": "server", "codis.k8s.io/group": "1" } },
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": CLASS, "volumeName": format!("pv-{ordinal}"),
                "resources": { "requests": { "storage": "1Gi" } } },
        }))
        .unwrap();
        let bound = json!({ "status": { "phase": "Bound", "capacity": { "storage": "1Gi" } } });
        create(world, &claim).await;
        let api = world.api::<PersistentVolumeClaim>();
        api.patch_status(&claim.name_any(), &PatchParams::default(), &Patch::Merge(bound))
            .await
            .unwrap();
    }
}

async fn released(world: &World) {
    let sets = world.api::<StatefulSet>().list(&ListParams::default()).await.unwrap();
    for set in sets {
        if !set.finalizers().is_empty() {
            edit::<StatefulSet>(world, &set.name_any(), json!({ "metadata": { "finalizers": null } })).await;
        }
    }
}
