//! The pods and claims of a StatefulSet.

use serde_json::{Value, json};

use super::object::{controller_of, list, text};

/// The pod with this ordinal, of a template.
pub(super) fn pod(set: &Value, template: &Value, revision: &str, ordinal: usize) -> Value {
    let name = format!("{}-{ordinal}", text(set, "/metadata/name"));
    let mut pod = from_template(set, template);
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["generateName"] = json!(format!("{}-", text(set, "/metadata/name")));
    for (label, value) in [
        ("controller-revision-hash", revision),
        ("statefulset.kubernetes.io/pod-name", &name),
        ("apps.kubernetes.io/pod-index", &ordinal.to_string()),
    ] {
        pod["metadata"]["labels"][label] = json!(value);
    }
    pod["spec"]["hostname"] = json!(name);
    if let Some(service) = set["spec"].get("serviceName") {
        pod["spec"]["subdomain"] = service.clone();
    }
    let mut volumes: Vec<Value> = claims(set, ordinal)
        .iter()
        .zip(list(set, "/spec/volumeClaimTemplates"))
        .map(|(claim, template)| {
            let claim = text(claim, "/metadata/name");
            json!({"name": template["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim}})
        })
        .collect();
    let own = list(template, "/spec/volumes").iter();
    let own = own.filter(|volume| !volumes.iter().any(|claim| claim["name"] == volume["name"]));
    let own: Vec<Value> = own.cloned().collect();
    volumes.extend(own);
    if !volumes.is_empty() {
        pod["spec"]["volumes"] = json!(volumes);
    }
    pod
}

/// A pod of a template, that its controller owns.
pub(super) fn from_template(owner: &Value, template: &Value) -> Value {
    let mut meta = json!({
        "namespace": owner["metadata"]["namespace"], "ownerReferences": [controller_of(owner)], "labels": {},
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            meta[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
}

/// The claims of the pod with this ordinal.
pub(super) fn claims(set: &Value, ordinal: usize) -> Vec<Value> {
    let templates = list(set, "/spec/volumeClaimTemplates").iter();
    let name = text(set, "/metadata/name");
    let claim = |template: &Value| {
        let mut meta = json!({
            "name": format!("{}-{name}-{ordinal}", text(template, "/metadata/name")),
            "namespace": set["metadata"]["namespace"],
            "labels": set["spec"]["selector"]["matchLabels"],
        });
        if let Some(annotations) = template["metadata"].get("annotations") {
            meta["annotations"] = annotations.clone();
        }
        let own = template["metadata"]["labels"].as_object().into_iter().flatten();
        for (label, value) in own {
            meta["labels"][label] = value.clone();
        }
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": template["spec"]})
    };
    templates.map(claim).collect()
}
