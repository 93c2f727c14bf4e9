//! The pod templates, byte for byte, of a minimal and of a full spec.
//!
//! **A change of one of these files restarts every pod of every cluster at the next upgrade of the operator.** It is a
//! step of its own, reviewed as such and named in the release notes; nothing is changed here in passing.
//! To write the files anew: `UPDATE_GOLDEN=1 cargo test --lib golden`.

use std::{fs, path::PathBuf};

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::{tests::facts, *};
use crate::{api::CodisCluster, validate::validate};

fn cluster(spec: serde_json::Value) -> ValidCluster {
    let cluster: CodisCluster = serde_json::from_value(serde_json::json!({
        "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster",
        "metadata": {"name": "sample", "namespace": "ns", "uid": "uid-1"}, "spec": spec,
    }))
    .unwrap();
    validate(&cluster).unwrap()
}

fn minimal() -> ValidCluster {
    cluster(serde_json::json!({
        "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
        "codisProxy": {"image": "codis", "replicas": 1},
        "codisServer": {"image": "codis", "replicas": 2, "groupReplicas": 2},
        "codisDashboard": {"image": "codis"},
        "codisFe": {"image": "codis", "replicas": 1},
        "sentinel": {"image": "codis", "replicas": 3}
    }))
}

/// Every field that is part of a pod.
fn full() -> ValidCluster {
    let pod = serde_json::json!({
        "labels": {"team": "cache"},
        "annotations": {"example.com/note": "text"},
        "imagePullSecrets": [{"name": "registry"}],
        "priorityClassName": "important",
        "serviceAccountName": "codis",
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]}},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {
                "topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"app": "noisy"}}}}]}
        },
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}]
    });
    let common = serde_json::json!({
        "image": "registry.example.com/codis:3.2.2", "imagePullPolicy": "Always", "pod": pod,
        "requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": 1, "memory": "1Gi"},
        "nodeSelector": {"pool": "codis"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "codis", "effect": "NoSchedule"}]
    });
    let with = |more: serde_json::Value| {
        let mut component = common.clone();
        component
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        component
    };
    cluster(serde_json::json!({
        "coordinatorName": "etcd", "coordinatorAddr": "etcd.default:2379", "schedulerName": "other",
        "productName": "sample_product",
        "durability": "bounded",
        "codisProxy": with(serde_json::json!({"replicas": 3, "config": {"proxy_max_clients": 1000}, "serviceType": "NodePort"})),
        "codisServer": with(serde_json::json!({"replicas": 4, "groupReplicas": 2, "storageClassName": "fast",
            "config": {"databases": 32, "maxmemory-policy": "allkeys-lru"}})),
        "codisDashboard": with(serde_json::json!({"config": {"migration_timeout": "10s"}})),
        "codisFe": with(serde_json::json!({"replicas": 2})),
        "sentinel": with(serde_json::json!({"replicas": 3, "config": {"down-after-milliseconds": 3000, "loglevel": "warning"}}))
    }))
}

/// The template of each component; of the first group for the servers, since the others differ in their number only.
fn templates(cluster: &ValidCluster) -> Vec<(&'static str, PodTemplateSpec)> {
    let facts = facts(cluster);
    let workloads = workloads(cluster, &facts, &addresses(cluster, &facts).unwrap());
    let sets = workloads.stateful_sets.into_iter().map(|set| {
        let name = set.metadata.name.unwrap();
        (name, set.spec.unwrap().template)
    });
    let deployments = workloads.deployments.into_iter().map(|deployment| {
        let name = deployment.metadata.name.unwrap();
        (name, deployment.spec.unwrap().template)
    });
    let all: BTreeMap<String, PodTemplateSpec> = sets.chain(deployments).collect();
    [
        ("dashboard", "sample-dashboard"),
        ("fe", "sample-fe"),
        ("proxy", "sample-proxy"),
        ("sentinel", "sample-sentinel"),
        ("server", "sample-g1"),
    ]
    .map(|(component, name)| (component, all[name].clone()))
    .into()
}

#[test]
fn pod_templates_are_as_they_were() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/build/golden");
    for (spec, cluster) in [("minimal", minimal()), ("full", full())] {
        for (component, template) in templates(&cluster) {
            let path = folder.join(format!("{component}-{spec}.yaml"));
            let text = serde_yaml::to_string(&template).unwrap();
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&path, &text).unwrap();
            }
            let known = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(
                text,
                known,
                "{} restarts pods: see the top of golden.rs",
                path.display()
            );
        }
    }
}
