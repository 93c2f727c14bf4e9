//! What a client asks before it asks for objects: groups, kinds, the version, schemas.

use std::collections::BTreeSet;

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::{
    api::{CodisCluster, CodisGitSource},
    simulation::api::{ApiServer, Served},
};

/// The group of our own kinds.
const OWN: &str = "codis.k8s.io";

/// The answer at a path that isn't about objects.
pub(super) fn answer(api: &ApiServer, path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let kinds = api.kinds();
    match parts.as_slice() {
        ["version"] => Some(json!({
            "major": "1", "minor": "35", "gitVersion": "v1.35.0+simulated", "platform": "simulated",
        })),
        ["api"] => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        })),
        ["apis"] => Some(groups(&kinds)),
        ["api", "v1"] => Some(resources(&kinds, "", "v1")),
        ["apis", group, version] => Some(resources(&kinds, group, version)),
        ["openapi", "v3"] => Some(schemas(&kinds)),
        ["openapi", "v3", "api", "v1"] => Some(schema(&kinds, "", "v1")),
        ["openapi", "v3", "apis", group, version] => Some(schema(&kinds, group, version)),
        _ => None,
    }
}

fn groups(kinds: &[Served]) -> Value {
    let all: BTreeSet<(&str, &str)> = kinds.iter().map(|kind| (kind.group, kind.version)).collect();
    let groups = all.into_iter().filter(|(group, _)| !group.is_empty());
    let groups: Vec<Value> = groups
        .map(|(group, version)| {
            let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
            json!({"name": group, "versions": [version], "preferredVersion": version})
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(kinds: &[Served], group: &str, version: &str) -> Value {
    let of_group = kinds
        .iter()
        .filter(|kind| kind.group == group && kind.version == version);
    let mut all = Vec::new();
    for kind in of_group {
        let singular = kind.kind.to_lowercase();
        let mut resource = json!({
            "name": kind.plural, "singularName": singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        });
        if let Some(short) = short_name(kind.kind) {
            resource["shortNames"] = json!([short]);
        }
        all.push(resource);
    }
    let group_version = group_version(group, version);
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": all})
}

fn short_name(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "CodisGitSource" => "cgs",
        "Pod" => "po",
        "Service" => "svc",
        "Node" => "no",
        "Namespace" => "ns",
        "ConfigMap" => "cm",
        "PersistentVolumeClaim" => "pvc",
        "PersistentVolume" => "pv",
        "StatefulSet" => "sts",
        "Deployment" => "deploy",
        "ReplicaSet" => "rs",
        "PodDisruptionBudget" => "pdb",
        "HorizontalPodAutoscaler" => "hpa",
        "Event" => "ev",
        _ => return None,
    })
}

fn group_version(group: &str, version: &str) -> String {
    match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    }
}

fn prefix(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

fn schemas(kinds: &[Served]) -> Value {
    let all: BTreeSet<String> = kinds.iter().map(|kind| prefix(kind.group, kind.version)).collect();
    let entry = |path: &String| {
        (
            path.clone(),
            json!({"serverRelativeURL": format!("/openapi/v3/{path}")}),
        )
    };
    json!({"paths": all.iter().map(entry).collect::<serde_json::Map<_, _>>()})
}

/// As much as kubectl needs to leave the checks to the server (each kind's PATCH takes `fieldValidation`), and the schemas of
/// our own kinds for `kubectl explain`.
fn schema(kinds: &[Served], group: &str, version: &str) -> Value {
    let of_group = kinds
        .iter()
        .filter(|kind| kind.group == group && kind.version == version);
    let paths = of_group.map(|kind| {
        let named = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
        let path = format!("/{}/{named}{}/{{name}}", prefix(group, version), kind.plural);
        let patch = json!({
            "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
            "responses": {},
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind.kind},
        });
        (path, json!({"patch": patch}))
    });
    json!({
        "openapi": "3.0.0", "info": {"title": "simulated", "version": "v1.35.0"},
        "paths": paths.collect::<serde_json::Map<_, _>>(),
        "components": {"schemas": if group == OWN { own_schemas() } else { json!({}) }},
    })
}

fn own_schemas() -> Value {
    let mut all = serde_json::Map::new();
    for crd in [json!(CodisCluster::crd()), json!(CodisGitSource::crd())] {
        let kind = &crd["spec"]["names"]["kind"];
        let version = &crd["spec"]["versions"][0];
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        schema["x-kubernetes-group-version-kind"] = json!([{"group": OWN, "version": version["name"], "kind": kind}]);
        all.insert(kind.as_str().unwrap_or_default().to_owned(), schema);
    }
    Value::Object(all)
}
