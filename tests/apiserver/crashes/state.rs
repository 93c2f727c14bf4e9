//! What exists in a namespace, without what no two namespaces have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use codis_operator::api::{CodisCluster, CodisGitSource};
use futures::future::join_all;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service},
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use crate::world::World;

/// So many hexadecimal digits in a row are a hash, or made of a uid.
const A_HASH: usize = 12;

/// Objects by kind and name, with whatever is by chance masked: addresses by the names of their Services, hashes, uids,
/// versions, times. Events are left out: one may be lost.
pub type State = BTreeMap<String, Value>;

/// All that an operator makes, and what it is asked for.
fn kinds() -> [ApiResource; 10] {
    [
        ApiResource::erase::<CodisCluster>(&()),
        ApiResource::erase::<CodisGitSource>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<Secret>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<StatefulSet>(&()),
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        ApiResource::erase::<PersistentVolumeClaim>(&()),
    ]
}

fn api(world: &World, kind: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(world.admin.clone(), &world.namespace, kind)
}

async fn everything(world: &World) -> Vec<Value> {
    let of_kind = async |kind: ApiResource| {
        // A kind that is just being served for the first time isn't for a moment.
        let mut found = api(world, &kind).list(&ListParams::default()).await;
        while matches!(&found, Err(kube::Error::Api(status)) if status.code == 429) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            found = api(world, &kind).list(&ListParams::default()).await;
        }
        let mut objects = serde_json::to_value(found.unwrap().items).unwrap();
        let objects: Vec<Value> = objects.as_array_mut().map(std::mem::take).unwrap_or_default();
        // Those of a list don't say what they are.
        let named = objects.into_iter().map(move |mut object| {
            object["kind"] = json!(kind.kind);
            object
        });
        named.collect::<Vec<_>>()
    };
    join_all(kinds().map(of_kind)).await.concat()
}

/// The state of a namespace.
pub async fn state(world: &World) -> State {
    let objects = everything(world).await;
    let mask = Mask::of(world, &objects);
    let masked = objects.into_iter().map(|mut object| {
        let key = format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
        let generation = object["metadata"]["generation"].clone();
        mask.object(&mut object, &generation);
        (key, object)
    });
    masked.collect()
}

/// What Kubernetes' garbage collector does once their owner is gone, to all that is left.
pub async fn collect(world: &World) {
    for kind in kinds() {
        let api = api(world, &kind);
        let (now, all) = (DeleteParams::background(), ListParams::default());
        api.delete_collection(&now, &all).await.unwrap();
        for left in api.list(&all).await.unwrap() {
            let name = left.metadata.name.unwrap_or_default();
            let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
            api.patch(&name, &PatchParams::default(), &free).await.unwrap();
        }
    }
}

/// Where two states differ: the first few places.
pub fn difference(expected: &State, found: &State) -> Option<String> {
    let keys: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let none = Value::Null;
    let places = keys.into_iter().filter_map(|key| {
        let (expected, found) = (expected.get(key).unwrap_or(&none), found.get(key).unwrap_or(&none));
        place(key, expected, found)
    });
    let told: Vec<String> = places.take(3).collect();
    (!told.is_empty()).then(|| told.join("\n  "))
}

fn place(at: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            let none = Value::Null;
            let of = |map: &'_ Map<String, Value>, key: &str| map.get(key).unwrap_or(&none).clone();
            keys.into_iter()
                .find_map(|key| place(&format!("{at}.{key}"), &of(one, key), &of(other, key)))
        }
        (expected, found) if expected == found => None,
        (expected, found) => Some(format!("{at}: {found} instead of {expected}")),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What is by chance in a namespace, and what is written instead of it: the longest first, which may contain others.
struct Mask(Vec<(String, String)>);

impl Mask {
    fn of(world: &World, objects: &[Value]) -> Self {
        let mut masks = vec![(world.namespace.clone(), "{namespace}".to_owned())];
        for object in objects {
            let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
            masks.push((
                text(&object["metadata"]["uid"]).to_owned(),
                format!("{{uid of {kind} {name}}}"),
            ));
            let ip = text(&object["spec"]["clusterIP"]);
            if ip.contains('.') {
                masks.push((ip.to_owned(), format!("{{address of {name}}}")));
            }
            // What is remembered of Services that aren't there any more.
            for (service, ip) in object["status"]["addresses"].as_object().into_iter().flatten() {
                masks.push((text(ip).to_owned(), format!("{{address of {service}}}")));
            }
            for key in ["product-auth", "session-auth"] {
                let password = decoded(&object["data"][key]).unwrap_or_default();
                // One that was made up, not given.
                if password.len() == 32 {
                    masks.push((password, format!("{{{key}}}")));
                }
            }
        }
        masks.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        Self(masks)
    }

    fn object(&self, value: &mut Value, generation: &Value) {
        match value {
            Value::Array(list) => {
                list.iter_mut().for_each(|value| self.object(value, generation));
            }
            Value::Object(map) => {
                for by_chance in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
                    map.remove(by_chance);
                }
                for (key, value) in map.iter_mut() {
                    match key.as_str() {
                        "managedFields" => *value = self.managers(value),
                        "nodePort" => *value = json!("{port}"),
                        "observedGeneration" if value == generation => *value = json!("the present one"),
                        _ => self.object(value, generation),
                    }
                }
            }
            Value::String(string) => {
                let decoded = decoded(&json!(string)).filter(|text| text.chars().all(|c| !c.is_control() || c == '\n'));
                *string = match decoded {
                    Some(text) if !string.is_empty() => self.text(&text),
                    _ => self.text(string),
                };
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => (),
        }
    }

    /// Who owns which fields: not since when, and not in which order they came.
    fn managers(&self, managers: &Value) -> Value {
        let told = managers.as_array().into_iter().flatten().map(|entry| {
            let (manager, operation) = (text(&entry["manager"]), text(&entry["operation"]));
            let whole = format!("{manager} {operation} {} {}", entry["subresource"], entry["fieldsV1"]);
            self.text(&without_uids(&whole))
        });
        let sorted: BTreeSet<String> = told.collect();
        json!(sorted)
    }

    fn text(&self, string: &str) -> String {
        if string.parse::<Timestamp>().is_ok() {
            return "{time}".to_owned();
        }
        let masked = self.0.iter().filter(|(word, _)| !word.is_empty());
        let masked = masked.fold(string.to_owned(), |text, (word, name)| text.replace(word, name));
        without_hashes(&masked)
    }
}

/// The text that is in a Secret.
fn decoded(value: &Value) -> Option<String> {
    String::from_utf8(BASE64_STANDARD.decode(value.as_str()?).ok()?).ok()
}

fn without_hashes(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let (mut out, mut rest) = (String::new(), text);
    while !rest.is_empty() {
        let end = rest.find(|c| !is_hex(c)).unwrap_or(rest.len());
        out.push_str(if end >= A_HASH { "{hash}" } else { &rest[..end] });
        let next = rest[end..].chars().next();
        out.extend(next);
        rest = &rest[end + next.map_or(0, char::len_utf8)..];
    }
    out
}

/// Owners' keys in `fieldsV1` have uids, also of those that are gone.
fn without_uids(fields: &str) -> String {
    const KEY: &str = "uid\\\":\\\"";
    const LENGTH: usize = 36;
    let mut parts = fields.split(KEY);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |told, part| told + KEY + part.get(LENGTH..).unwrap_or_default())
}
