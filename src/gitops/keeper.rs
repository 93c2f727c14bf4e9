//! Whose a cluster is: decided by marks on it, and by who applied it.

use kube::ResourceExt;

use crate::api::{CodisCluster, names};

/// Labels and annotations by which other tools mark what they keep.
pub(super) const FOREIGN_MARKS: [(&str, &str); 8] = [
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("objectset.rio.cattle.io/id", "Fleet"),
    ("fleet.cattle.io/bundle-id", "Fleet"),
    ("configsync.gke.io/manager", "Config Sync"),
    ("meta.helm.sh/release-name", "Helm"),
];

/// Whose a cluster's spec is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// The source that asks.
    Us,
    /// Another source.
    Source(String),
    /// Another tool, like `Flux`.
    Tool(&'static str),
    /// A person, as far as can be seen.
    Nobody,
}

/// Whose spec `cluster` has, as seen by `source`. A removed label doesn't take a cluster from its source: the source's
/// field manager still tells.
pub(super) fn keeper(cluster: &CodisCluster, source: &str) -> Keeper {
    if let Some((_, tool)) = FOREIGN_MARKS
        .iter()
        .find(|(mark, _)| cluster.labels().contains_key(*mark) || cluster.annotations().contains_key(*mark))
    {
        return Keeper::Tool(tool);
    }
    match cluster.labels().get(names::LABEL_SOURCE) {
        Some(label) if label == source => Keeper::Us,
        Some(other) => Keeper::Source(other.clone()),
        // One that was handed over has the marks of both: the later one counts.
        None => {
            let of_sources = cluster.managed_fields().iter().filter(|entry| {
                entry.operation.as_deref() == Some("Apply") && source_of(entry.manager.as_deref()).is_some()
            });
            let latest = of_sources.max_by(|one, other| one.time.cmp(&other.time));
            match latest.and_then(|entry| source_of(entry.manager.as_deref())) {
                Some(latest) if latest == source => Keeper::Us,
                Some(other) => Keeper::Source(other.to_owned()),
                None => Keeper::Nobody,
            }
        }
    }
}

/// The source whose field manager this is.
fn source_of(manager: Option<&str>) -> Option<&str> {
    manager?.strip_prefix(names::GITOPS_MANAGER)?.strip_prefix('/')
}

/// Who else keeps a cluster, in words.
pub(super) fn whose(live: &CodisCluster, source: &str) -> Option<String> {
    match keeper(live, source) {
        Keeper::Us => None,
        Keeper::Nobody => Some("exists, and isn't from this source".to_owned()),
        Keeper::Source(other) => Some(format!("belongs to the source {other}")),
        Keeper::Tool(tool) => Some(format!("is kept by {tool}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cluster(meta: Value) -> CodisCluster {
        let whole = json!({
            "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
            "codisProxy": {"image": "i", "replicas": 1}, "codisDashboard": {"image": "i"},
            "codisServer": {"image": "i", "replicas": 2, "groupReplicas": 2}
        });
        let mut metadata = json!({ "name": "a", "namespace": "ns" });
        if let (Some(all), Value::Object(meta)) = (metadata.as_object_mut(), meta) {
            all.extend(meta);
        }
        serde_json::from_value(json!({
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster", "metadata": metadata, "spec": whole
        }))
        .unwrap()
    }

    #[test]
    fn a_cluster_is_its_sources_until_another_mark_says_otherwise() {
        let applied = |manager: &str| json!([{ "manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {} }]);
        for (what, meta, keeper_is) in [
            (
                "our label",
                json!({"labels": {"codis.k8s.io/source": "fleet"}}),
                Keeper::Us,
            ),
            (
                "our manager, the label removed",
                json!({"managedFields": applied("codis-gitops/fleet")}),
                Keeper::Us,
            ),
            (
                "another source's label",
                json!({"labels": {"codis.k8s.io/source": "b"}}),
                Keeper::Source("b".into()),
            ),
            (
                "another source's label over our manager: handed over",
                json!({"labels": {"codis.k8s.io/source": "b"}, "managedFields": applied("codis-gitops/fleet")}),
                Keeper::Source("b".into()),
            ),
            (
                "Flux beside our label",
                json!({"labels": {"codis.k8s.io/source": "fleet", "kustomize.toolkit.fluxcd.io/name": "k"}}),
                Keeper::Tool("Flux"),
            ),
            (
                "Argo CD",
                json!({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}),
                Keeper::Tool("Argo CD"),
            ),
            (
                "our manager, but a later one of another source",
                json!({"managedFields": [
                    {"manager": "codis-gitops/fleet", "operation": "Apply", "time": "2026-01-01T00:00:00Z", "fieldsV1": {}},
                    {"manager": "codis-gitops/b", "operation": "Apply", "time": "2026-01-02T00:00:00Z", "fieldsV1": {}},
                ]}),
                Keeper::Source("b".into()),
            ),
            ("no mark", json!({"managedFields": applied("kubectl")}), Keeper::Nobody),
        ] {
            assert_eq!(keeper(&cluster(meta), "fleet"), keeper_is, "{what}");
        }
    }
}
