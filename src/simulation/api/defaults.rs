//! What the server fills in, and what may not change.

use serde_json::{Value, json};

use super::{answer::Refusal, kinds::Kind, objects::text, schema};

/// Sets a field that isn't set.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let Some((parent, field)) = pointer.rsplit_once('/') else {
        return;
    };
    if let Some(Value::Object(map)) = object.pointer_mut(parent) {
        map.entry(field.to_owned()).or_insert(value);
    }
}

/// Fills in what typed kinds have and nobody gave.
pub(super) fn fill(kind: Kind, object: &mut Value) {
    schema::prune(kind, object);
    match kind.kind {
        "Service" => service(object),
        "StatefulSet" => stateful_set(object),
        "Deployment" => deployment(object),
        "Pod" => {
            pod(object, "/spec");
            let containers = object["spec"]["containers"].as_array_mut();
            containers.into_iter().flatten().for_each(requests);
            set(object, "/spec/enableServiceLinks", json!(true));
            let quality = quality(object);
            set(object, "/status", json!({}));
            set(object, "/status/phase", json!("Pending"));
            set(object, "/status/qosClass", json!(quality));
        }
        "PersistentVolumeClaim" => claim(object, ""),
        "PodDisruptionBudget" => set(
            object,
            "/status",
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
        ),
        "HorizontalPodAutoscaler" => {
            set(object, "/spec/minReplicas", json!(1));
            set(object, "/status", json!({"desiredReplicas": 0}));
        }
        "Lease" => set(object, "/spec", json!({})),
        "Secret" => set(object, "/type", json!("Opaque")),
        _ => {}
    }
}

/// What admission plugins add to new objects.
pub(super) fn admit(kind: Kind, object: &mut Value) {
    match kind.kind {
        "PersistentVolumeClaim" => {
            set(object, "/metadata/finalizers", json!([]));
            if let Some(Value::Array(finalizers)) = object.pointer_mut("/metadata/finalizers") {
                finalizers.push(json!("kubernetes.io/pvc-protection"));
            }
        }
        "Pod" => {
            set(object, "/spec/priority", json!(0));
            set(object, "/spec/preemptionPolicy", json!("PreemptLowerPriority"));
            set(object, "/spec/tolerations", json!([]));
            for trouble in ["not-ready", "unreachable"] {
                let key = format!("node.kubernetes.io/{trouble}");
                let Some(Value::Array(all)) = object.pointer_mut("/spec/tolerations") else {
                    continue;
                };
                if !all.iter().any(|known| known["key"] == key) {
                    let seconds =
                        json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
                    all.push(seconds);
                }
            }
        }
        _ => {}
    }
}

/// A pod's quality of service, by what its containers ask for and may have.
fn quality(object: &Value) -> &'static str {
    let containers = object["spec"]["containers"].as_array().into_iter().flatten();
    let of = |container: &Value, what: &str, of: &str| container["resources"][what][of].clone();
    let (mut any, mut all) = (false, true);
    for container in containers {
        for resource in ["cpu", "memory"] {
            let (request, limit) = (of(container, "requests", resource), of(container, "limits", resource));
            any |= !request.is_null() || !limit.is_null();
            all &= !limit.is_null() && request == limit;
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn service(object: &mut Value) {
    for (field, value) in [
        ("/spec/type", json!("ClusterIP")),
        ("/spec/sessionAffinity", json!("None")),
        ("/spec/internalTrafficPolicy", json!("Cluster")),
        ("/status", json!({"loadBalancer": {}})),
    ] {
        set(object, field, value);
    }
    let outside = ["NodePort", "LoadBalancer"].contains(&text(object, "/spec/type"));
    if outside {
        set(object, "/spec/externalTrafficPolicy", json!("Cluster"));
    }
    if text(object, "/spec/type") == "LoadBalancer" {
        set(object, "/spec/allocateLoadBalancerNodePorts", json!(true));
    }
    for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
        set(port, "/protocol", json!("TCP"));
        let number = port["port"].clone();
        set(port, "/targetPort", number);
    }
}

fn stateful_set(object: &mut Value) {
    for (field, value) in [
        ("/spec/replicas", json!(1)),
        ("/spec/podManagementPolicy", json!("OrderedReady")),
        ("/spec/revisionHistoryLimit", json!(10)),
        ("/spec/updateStrategy", json!({"type": "RollingUpdate"})),
        (
            "/spec/persistentVolumeClaimRetentionPolicy",
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
        ),
        ("/status", json!({})),
        ("/status/replicas", json!(0)),
        ("/status/availableReplicas", json!(0)),
    ] {
        set(object, field, value);
    }
    if text(object, "/spec/updateStrategy/type") == "RollingUpdate" {
        set(object, "/spec/updateStrategy/rollingUpdate", json!({"partition": 0}));
    }
    pod(object, "/spec/template/spec");
    for claim in object["spec"]["volumeClaimTemplates"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        claim["apiVersion"] = json!("v1");
        claim["kind"] = json!("PersistentVolumeClaim");
        self::claim(claim, "");
        set(claim, "/status", json!({}));
        set(claim, "/status/phase", json!("Pending"));
    }
}

fn deployment(object: &mut Value) {
    for (field, value) in [
        ("/spec/replicas", json!(1)),
        ("/spec/revisionHistoryLimit", json!(10)),
        ("/spec/progressDeadlineSeconds", json!(600)),
        ("/spec/strategy", json!({})),
        ("/spec/strategy/type", json!("RollingUpdate")),
        ("/status", json!({})),
    ] {
        set(object, field, value);
    }
    if text(object, "/spec/strategy/type") == "RollingUpdate" {
        set(object, "/spec/strategy/rollingUpdate", json!({}));
        set(object, "/spec/strategy/rollingUpdate/maxSurge", json!("25%"));
        set(object, "/spec/strategy/rollingUpdate/maxUnavailable", json!("25%"));
    }
    pod(object, "/spec/template/spec");
}

fn claim(object: &mut Value, prefix: &str) {
    set(object, &format!("{prefix}/spec/volumeMode"), json!("Filesystem"));
    set(object, &format!("{prefix}/status"), json!({"phase": "Pending"}));
}

fn pod(object: &mut Value, spec: &str) {
    let Some(spec) = object.pointer_mut(spec) else { return };
    for (field, value) in [
        ("/restartPolicy", json!("Always")),
        ("/terminationGracePeriodSeconds", json!(30)),
        ("/dnsPolicy", json!("ClusterFirst")),
        ("/schedulerName", json!("default-scheduler")),
        ("/securityContext", json!({})),
    ] {
        set(spec, field, value);
    }
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        set(spec, "/serviceAccount", account);
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        set(volume, "/secret/defaultMode", json!(420));
        set(volume, "/configMap/defaultMode", json!(420));
        set(volume, "/projected/defaultMode", json!(420));
    }
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            self::container(container);
        }
        if spec[list].is_null()
            && let Value::Object(map) = &mut *spec
        {
            map.remove(list);
        }
    }
    if spec["volumes"].is_null()
        && let Value::Object(map) = spec
    {
        map.remove("volumes");
    }
}

fn container(container: &mut Value) {
    let image = text(container, "/image").to_owned();
    let is_latest = image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or_default().contains(':');
    for (field, value) in [
        ("/terminationMessagePath", json!("/dev/termination-log")),
        ("/terminationMessagePolicy", json!("File")),
        (
            "/imagePullPolicy",
            json!(if is_latest { "Always" } else { "IfNotPresent" }),
        ),
        ("/resources", json!({})),
    ] {
        set(container, field, value);
    }
    for port in container["ports"].as_array_mut().into_iter().flatten() {
        set(port, "/protocol", json!("TCP"));
    }
    for variable in container["env"].as_array_mut().into_iter().flatten() {
        set(variable, "/valueFrom/fieldRef/apiVersion", json!("v1"));
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        for (field, value) in [
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ] {
            set(container, &format!("/{probe}/{field}"), json!(value));
        }
        set(container, &format!("/{probe}/httpGet/scheme"), json!("HTTP"));
        set(container, &format!("/{probe}/httpGet/path"), json!("/"));
    }
    for list in ["ports", "env"] {
        if container[list].is_null()
            && let Value::Object(map) = &mut *container
        {
            map.remove(list);
        }
    }
}

/// Limits are requests where there are none: of pods, not of templates.
fn requests(container: &mut Value) {
    let limits = container
        .pointer("/resources/limits")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    for (resource, limit) in limits {
        set(container, "/resources/requests", json!({}));
        set(
            container,
            &format!("/resources/requests/{}", resource.replace('~', "~0").replace('/', "~1")),
            limit,
        );
    }
}

/// Whether an object has what its kind must have.
pub(super) fn is_complete(kind: Kind, object: &Value) -> Result<(), Refusal> {
    schema::check(kind, object)?;
    let why = match kind.kind {
        "Service" => {
            let has_ports = object["spec"]["ports"].as_array().is_some_and(|ports| !ports.is_empty());
            (!has_ports && text(object, "/spec/clusterIP") != "None").then_some("spec.ports: Required value")
        }
        "HorizontalPodAutoscaler" => object["spec"]["maxReplicas"].as_i64().is_none().then_some(
            "[spec.maxReplicas: Required value: must be set and greater than 0, spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`]",
        ),
        _ => None,
    };
    why.map_or(Ok(()), |why| {
        Err(Refusal::invalid(kind, text(object, "/metadata/name"), why))
    })
}

/// What of a StatefulSet may change.
const MUTABLE: [&str; 8] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "_",
];

/// Whether a change is one that the kind allows.
pub(super) fn may_change(kind: Kind, old: &Value, new: &Value) -> Result<(), Refusal> {
    let name = text(new, "/metadata/name");
    let refused = |why: String| Err(Refusal::invalid(kind, name, &why));
    match kind.kind {
        "StatefulSet" => {
            let fixed = |object: &Value| {
                let mut spec = object["spec"].clone();
                if let Value::Object(map) = &mut spec {
                    MUTABLE.iter().for_each(|field| drop(map.remove(*field)));
                }
                spec
            };
            if fixed(old) != fixed(new) {
                return refused("spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden".to_owned());
            }
            Ok(())
        }
        "Deployment" if old["spec"]["selector"] != new["spec"]["selector"] => refused(format!(
            "spec.selector: Invalid value: {}: field is immutable",
            new["spec"]["selector"]
        )),
        _ => Ok(()),
    }
}
