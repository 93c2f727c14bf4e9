//! The API server in process, held against the real one: the same requests to both, and the answers compared.
//!
//! What may differ, and is masked: uids, resource versions and times (by the order in which they first appear), addresses and
//! node ports likewise; the version of a list; the causes of an `Invalid`; the order of several conflicts, which the real one
//! leaves to chance; the order of managers, which is by time; the `.` of maps in the fields of those who update. Not asked: parts
//! of objects that don't exist, custom resources that break their schema, PUTs of pods, claims.

use std::collections::BTreeMap;

use codis_operator::simulation::api::ApiServer;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::{
    objects,
    support::apiserver::{User, server},
    world,
};

const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";

/// One request. `{ns}` is the namespace; in a body, `$uid` and `$rv` are those of the last answer.
#[derive(Clone, Debug)]
struct Ask {
    method: &'static str,
    path: String,
    content: &'static str,
    body: Value,
}

/// One of the two servers.
struct Side {
    client: Client,
    namespace: String,
    last: Value,
    /// What was masked, in the order in which it appeared.
    seen: BTreeMap<(&'static str, String), usize>,
}

impl Side {
    async fn ask(&mut self, ask: &Ask) -> Value {
        let last = |field: &str| self.last["metadata"][field].as_str().unwrap_or_default().to_owned();
        let body = match &ask.body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let body = body
            .replace("{ns}", &self.namespace)
            .replace("$uid", &last("uid"))
            .replace("$rv", &last("resourceVersion"));
        let request = http::Request::builder()
            .method(ask.method)
            .uri(ask.path.replace("{ns}", &self.namespace))
            .header("content-type", ask.content)
            .header("accept", "application/json")
            .body(Body::from(body.into_bytes()))
            .unwrap();
        let answer = self.client.send(request).await.unwrap();
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        if body["metadata"]["uid"].is_string() {
            self.last = body.clone();
        }
        let mut answer = json!({ "code": code, "body": body });
        self.mask(&mut answer);
        answer
    }

    /// The same thing under the same name on both sides.
    fn name(&mut self, what: &'static str, value: &Value) -> Value {
        let count = self.seen.keys().filter(|(of, _)| *of == what).count();
        let number = *self.seen.entry((what, value.to_string())).or_insert(count);
        json!(format!("{what}-{number}"))
    }

    fn mask(&mut self, value: &mut Value) {
        match value {
            Value::Array(list) => list.iter_mut().for_each(|value| self.mask(value)),
            Value::Object(map) => {
                let is_list = !map.contains_key("name");
                if let Some(Value::Array(managers)) = map.get_mut("managedFields") {
                    // The real one's clock may tick between two requests: its order is by time.
                    for managed in managers.iter_mut() {
                        bare(&mut managed["fieldsV1"]);
                    }
                    managers.retain(|managed| managed["fieldsV1"] != json!({}));
                    managers.sort_by_key(|managed| {
                        format!(
                            "{}{}{}",
                            managed["operation"], managed["manager"], managed["subresource"]
                        )
                    });
                }
                if map.get("reason") == Some(&json!("Invalid"))
                    && let Some(Value::Object(details)) = map.get_mut("details")
                {
                    details.remove("causes");
                }
                for (key, value) in map.iter_mut() {
                    let what = match key.as_str() {
                        "uid" => "uid",
                        // That of a list is the whole server's.
                        "resourceVersion" if is_list => {
                            *value = json!("some version");
                            continue;
                        }
                        "resourceVersion" => "version",
                        "nodePort" => "port",
                        "clusterIP" if value != "None" => "address",
                        "creationTimestamp" | "time" | "deletionTimestamp" => {
                            *value = json!("some time");
                            continue;
                        }
                        "clusterIPs" => {
                            *value = Value::Null;
                            continue;
                        }
                        "fieldsV1" => {
                            bare(value);
                            continue;
                        }
                        "causes" => {
                            if let Value::Array(causes) = value {
                                causes.sort_by_key(ToString::to_string);
                            }
                            continue;
                        }
                        "message" => {
                            let mut text = value.as_str().unwrap_or_default().replace(&self.namespace, "{ns}");
                            for ((what, seen), number) in &self.seen {
                                if *what == "uid" {
                                    text = text.replace(seen.trim_matches('"'), &format!("uid-{number}"));
                                }
                            }
                            if text.starts_with("Apply failed with ") {
                                let mut lines: Vec<&str> = text.split(['\n', ':']).map(str::trim).collect();
                                lines.sort_unstable();
                                text = lines.join("\n");
                            }
                            *value = json!(text);
                            continue;
                        }
                        "namespace" | "selfLink" => {
                            *value = json!("{ns}");
                            continue;
                        }
                        _ => {
                            self.mask(value);
                            continue;
                        }
                    };
                    if value.is_string() || value.is_number() {
                        *value = self.name(what, value);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Without the `.` of maps.
fn bare(fields: &mut Value) {
    if let Value::Object(map) = fields {
        map.remove(".");
        map.values_mut().for_each(bare);
        // A map that was emptied leaves its `.` alone.
        let maps = ["f:labels", "f:annotations", "f:data"];
        map.retain(|field, below| *below != json!({}) || !(maps.contains(&field.as_str()) || field == "f:metadata"));
    }
}

/// What a person looks at first.
fn told(answer: &Value) -> String {
    let meta = &answer["body"]["metadata"];
    format!(
        "{} {} labels {} finalizers {} version {} managed {}",
        answer["code"],
        answer["body"]["message"],
        meta["labels"],
        meta["finalizers"],
        meta["resourceVersion"],
        meta["managedFields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|m| format!(
                "\n     {} {} {} {}",
                m["manager"], m["operation"], m["time"], m["fieldsV1"]
            ))
            .collect::<String>()
    )
}

/// The first place where two answers differ.
fn difference(path: &str, ours: &Value, real: &Value) -> Option<String> {
    match (ours, real) {
        (Value::Object(ours), Value::Object(real)) => {
            let keys: std::collections::BTreeSet<&String> = ours.keys().chain(real.keys()).collect();
            keys.into_iter().find_map(|key| {
                let (ours, real) = (
                    ours.get(key).unwrap_or(&Value::Null),
                    real.get(key).unwrap_or(&Value::Null),
                );
                difference(&format!("{path}.{key}"), ours, real)
            })
        }
        (Value::Array(ours), Value::Array(real)) if ours.len() == real.len() => {
            let mut pairs = ours.iter().zip(real).enumerate();
            pairs.find_map(|(index, (ours, real))| difference(&format!("{path}[{index}]"), ours, real))
        }
        (ours, real) => (ours != real).then(|| format!("{path}: ours {ours}, the real one's {real}")),
    }
}

/// A pseudo-random sequence: the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// A kind under test: where it is, an object of it, and merge patches that change something.
struct Subject {
    path: &'static str,
    object: fn(Value) -> Value,
    changes: fn() -> Vec<Value>,
}

fn labels() -> Vec<Value> {
    vec![
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"a": "2", "b": "1"}, "annotations": {"x": "y"}}}),
        json!({"metadata": {"labels": {"a": null}}}),
        json!({"metadata": {"finalizers": ["codis.k8s.io/one"]}}),
        json!({"metadata": {"finalizers": null}}),
    ]
}

fn with(more: &[Value]) -> Vec<Value> {
    labels().into_iter().chain(more.iter().cloned()).collect()
}

fn subjects() -> Vec<Subject> {
    vec![
        Subject {
            path: "/api/v1/namespaces/{ns}/configmaps",
            object: |meta| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"one": "1", "two": "2"}}),
            changes: || {
                with(&[
                    json!({"data": {"one": "changed"}}),
                    json!({"data": {"two": null, "three": "3"}}),
                ])
            },
        },
        Subject {
            path: "/api/v1/namespaces/{ns}/secrets",
            object: objects::secret,
            changes: || {
                with(&[
                    json!({"data": {"redis.conf": "eA=="}}),
                    json!({"data": {"empty": null}}),
                ])
            },
        },
        Subject {
            path: "/api/v1/namespaces/{ns}/services",
            object: objects::service,
            changes: || {
                with(&[
                    json!({"spec": {"selector": {"who": "else"}}}),
                    json!({"spec": {"ports": [{"port": 6379, "name": "redis"}]}}),
                    json!({"spec": {"type": "ClusterIP"}}),
                ])
            },
        },
        Subject {
            path: "/apis/codis.k8s.io/v1alpha1/namespaces/{ns}/codisclusters",
            object: |meta| json!({"apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster", "metadata": meta, "spec": world::spec()}),
            changes: || with(&[json!({"spec": {"paused": false}}), json!({"spec": {"paused": true}})]),
        },
        Subject {
            path: "/apis/apps/v1/namespaces/{ns}/statefulsets",
            object: stateful_set,
            changes: || {
                with(&[
                    json!({"spec": {"replicas": 5}}),
                    json!({"spec": {"template": {"metadata": {"annotations": {"roll": "1"}}}}}),
                    json!({"spec": {"serviceName": "another"}}),
                ])
            },
        },
        Subject {
            path: "/apis/apps/v1/namespaces/{ns}/deployments",
            object: deployment,
            changes: || {
                with(&[
                    json!({"spec": {"replicas": 5}}),
                    json!({"spec": {"replicas": null}}),
                    json!({"spec": {"template": {"metadata": {"annotations": {"roll": "1"}}}}}),
                ])
            },
        },
        Subject {
            path: "/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets",
            object: |meta| {
                json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": {
                "maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": {"matchLabels": {"app": "x"}} }})
            },
            changes: || {
                with(&[
                    json!({"spec": {"maxUnavailable": 0}}),
                    json!({"spec": {"selector": {"matchLabels": {"app": "y"}}}}),
                ])
            },
        },
        Subject {
            path: "/apis/autoscaling/v2/namespaces/{ns}/horizontalpodautoscalers",
            object: |meta| {
                json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": {
                "minReplicas": 1, "maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}] }})
            },
            changes: || with(&[json!({"spec": {"maxReplicas": 5}})]),
        },
        Subject {
            path: "/api/v1/namespaces/{ns}/pods",
            object: |meta| json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template()["spec"].clone() }),
            changes: labels,
        },
        Subject {
            path: "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases",
            object: |meta| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}),
            changes: || {
                with(&[
                    json!({"spec": {"holderIdentity": "b"}}),
                    json!({"spec": {"leaseTransitions": 2}}),
                ])
            },
        },
    ]
}

/// A pod template as `build` makes them: quantities in their shortest form, nothing empty.
fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "x"}, "annotations": {"codis.k8s.io/config": "1"}},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 999, "seccompProfile": {"type": "RuntimeDefault"}},
            "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
            "containers": [{
                "name": "server", "image": "codis:3.2", "command": ["sh", "/etc/codis/server.sh"],
                "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "NCPU", "value": "1"},
                ],
                "ports": [{"name": "redis", "containerPort": 6379, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
                "readinessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 5},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/codis", "readOnly": true}],
            }],
            "volumes": [{"name": "config", "secret": {"secretName": "x-config"}}],
        },
    })
}

fn stateful_set(meta: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": {
        "replicas": 2, "serviceName": "x", "podManagementPolicy": "Parallel", "updateStrategy": {"type": "OnDelete"},
        "selector": {"matchLabels": {"app": "x"}}, "template": template(),
        "volumeClaimTemplates": [{
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }],
    }})
}

fn deployment(meta: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "template": template(),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
    }})
}

/// Some requests about one object.
fn sequence(subject: &Subject, chance: &mut Chance) -> Vec<Ask> {
    let meta = || json!({"name": "x", "namespace": "{ns}"});
    let one = format!("{}/x", subject.path);
    let ask = |method, path: String, content, body| Ask {
        method,
        path,
        content,
        body,
    };
    let mut asks: Vec<Ask> = Vec::new();
    for _ in 0..10 {
        let changes = (subject.changes)();
        let change = chance.of(&changes).clone();
        let applied = |manager: &str, force: bool| format!("{one}?fieldManager={manager}&force={force}");
        let mut whole = (subject.object)(meta());
        json_patch(&mut whole, &change);
        tidy(&mut whole);
        let mut part = json!({"apiVersion": whole["apiVersion"], "kind": whole["kind"], "metadata": {"name": "x", "namespace": "{ns}"}});
        json_patch(&mut part, &change);
        tidy(&mut part);
        // What is only a part of an object doesn't make one.
        json_patch(&mut part, &json!({"metadata": {"uid": "$uid"}}));
        let exists = asks
            .last()
            .is_some_and(|ask| ask.method != "DELETE" && !ask.path.ends_with("/eviction"));
        let choice = if exists { chance.below(12) } else { chance.below(4) };
        asks.push(match choice {
            0 | 1 => ask(
                "POST",
                format!("{}?fieldManager=poster", subject.path),
                JSON,
                (subject.object)(meta()),
            ),
            2 | 3 => ask("PATCH", applied("one", true), APPLY, whole),
            4 => ask("PATCH", applied("two", false), APPLY, part),
            5 => ask("PATCH", applied("two", true), APPLY, part),
            6 => ask("PATCH", format!("{one}?fieldManager=hand"), MERGE, change),
            // Nobody replaces pods.
            7 if !subject.path.ends_with("pods") => {
                json_patch(&mut whole, &json!({"metadata": {"resourceVersion": "$rv"}}));
                ask("PUT", format!("{one}?fieldManager=putter"), JSON, whole)
            }
            8 => ask("GET", one.clone(), JSON, Value::Null),
            9 => ask("DELETE", one.clone(), JSON, json!({"preconditions": {"uid": "$uid"}})),
            10 if subject.path.ends_with("codisclusters") => {
                let mut status = json!({"status": {"phase": chance.of(&["Ready", "Blocked"]), "slotsServed": 1024}});
                if chance.below(2) == 0 {
                    ask("PATCH", format!("{one}/status?fieldManager=operator"), MERGE, status)
                } else {
                    let about = json!({"apiVersion": whole["apiVersion"], "kind": whole["kind"], "metadata": {"name": "x", "uid": "$uid"}});
                    json_patch(&mut status, &about);
                    ask("PATCH", format!("{one}/status?fieldManager=operator&force=true"), APPLY, status)
                }
            }
            10 if ["statefulsets", "deployments"].iter().any(|kind| subject.path.ends_with(kind)) => {
                // Another number each time: a scale that changes nothing is a write there, and none here.
                let scale = json!({"spec": {"replicas": chance.of(&[0, 7, 8, 9])}});
                match chance.below(3) {
                    0 => ask("GET", format!("{one}/scale"), JSON, Value::Null),
                    _ => ask("PATCH", format!("{one}/scale?fieldManager=scaler"), MERGE, scale),
                }
            }
            10 if subject.path.ends_with("pods") && chance.below(2) == 0 => {
                let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "x", "namespace": "{ns}"}});
                ask("POST", format!("{one}/eviction"), JSON, eviction)
            }
            10 => ask("GET", format!("{}?labelSelector=a", subject.path), JSON, Value::Null),
            _ => {
                json_patch(&mut whole, &json!({"metadata": {"uid": "$uid"}}));
                ask("PATCH", applied("one", true), APPLY, whole)
            }
        });
    }
    asks
}

/// Nobody applies empty maps: typed objects leave them out.
fn tidy(object: &mut Value) {
    for parent in ["/metadata", "", "/spec"] {
        let Some(Value::Object(map)) = object.pointer_mut(parent) else {
            continue;
        };
        map.retain(|_, value| !value.is_null() && *value != json!({}));
    }
}

fn json_patch(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            json_patch(
                object
                    .as_object_mut()
                    .unwrap()
                    .entry(key.clone())
                    .or_insert(Value::Null),
                value,
            );
        }
    }
}

#[tokio::test]
async fn the_simulated_api_server_answers_as_the_real_one() {
    let Some(real) = server().await else { return };
    let sequences: u64 = std::env::var("SEQUENCES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(110);
    let only: Option<u64> = std::env::var("SEQUENCE").ok().and_then(|text| text.parse().ok());
    let mut differing = Vec::new();
    for seed in (0..sequences).filter(|seed| only.is_none_or(|only| only == *seed)) {
        let subjects = subjects();
        let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let subject = &subjects[usize::try_from(seed).unwrap() % subjects.len()];
        let simulated = ApiServer::new(Timestamp::now);
        let side = |client, namespace: String| Side {
            client,
            namespace,
            last: Value::Null,
            seen: BTreeMap::new(),
        };
        let mut ours = side(simulated.client(), "default".to_owned());
        let mut theirs = side(real.client(User::Admin), real.namespace().await);
        for (number, ask) in sequence(subject, &mut chance).iter().enumerate() {
            let (ours, real) = (ours.ask(ask).await, theirs.ask(ask).await);
            if only.is_some() {
                println!(
                    "{} {} {}\n  real {}\n  ours {}",
                    ask.method,
                    ask.path,
                    ask.body,
                    told(&real),
                    told(&ours)
                );
            }
            if let Some(difference) = difference("", &ours, &real) {
                differing.push(format!(
                    "SEQUENCE={seed}, request {number} ({} {}): {difference}",
                    ask.method, ask.path
                ));
                break;
            }
        }
    }
    println!("{sequences} sequences");
    assert!(
        differing.is_empty(),
        "{} of {sequences} differ:\n{}",
        differing.len(),
        differing.join("\n")
    );
}
