//! Whether what exists already has everything that is wanted. Pure, on JSON, without schemas.
//!
//! The rules follow server-side apply: maps and keyed lists may have more than is wanted (others own that), atomic
//! lists must be equal. Too strict costs a write at every turn, too lax misses a hand edit.

use serde_json::{Map, Value};

use crate::api::Quantity;

/// Lists that the API server merges by key, by field name, with their key fields. Every other list is atomic.
const KEYED_LISTS: [(&str, &[&str]); 14] = [
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("volumes", &["name"]),
    ("env", &["name"]),
    ("imagePullSecrets", &["name"]),
    ("secrets", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("ownerReferences", &["uid"]),
    ("hostAliases", &["ip"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("conditions", &["type"]),
    ("ports", &["containerPort", "port", "protocol"]),
];

/// Fields whose keys people choose. The server drops them when they are empty, but keeps empty values inside.
const MAPS: [&str; 11] = [
    "labels",
    "annotations",
    "matchLabels",
    "nodeSelector",
    "selector",
    "data",
    "binaryData",
    "stringData",
    "limits",
    "requests",
    "parameters",
];

/// Fields below which every string is a quantity.
const QUANTITIES: [&str; 4] = ["requests", "limits", "storage", "sizeLimit"];

/// Fields whose absence doesn't mean `false` or `0`: a hand that removed them is noticed.
const PRESENCE: [&str; 2] = ["securityContext", "automountServiceAccountToken"];

/// Where the comparison is: the nearest named field, and what was learnt on the way.
#[derive(Clone, Copy)]
struct Place<'a> {
    field: &'a str,
    /// The parent is one of [`MAPS`]: the field is a person's key.
    in_map: bool,
    in_quantities: bool,
    in_presence: bool,
}

impl<'a> Place<'a> {
    fn child(self, field: &'a str) -> Self {
        let in_map = !self.in_map && MAPS.contains(&self.field);
        Self {
            field,
            in_map,
            in_quantities: self.in_quantities || (!in_map && QUANTITIES.contains(&field)),
            in_presence: self.in_presence || PRESENCE.contains(&field),
        }
    }
}

/// The first place where `live` doesn't have what `desired` wants, as a path without values; `None` when it has all.
pub fn difference(desired: &Value, live: &Value) -> Option<String> {
    let root = Place {
        field: "",
        in_map: false,
        in_quantities: false,
        in_presence: false,
    };
    compare(root, desired, Some(live)).map(|path| path.trim_start_matches('.').to_owned())
}

fn compare(place: Place<'_>, desired: &Value, live: Option<&Value>) -> Option<String> {
    let differs = |yes: bool| yes.then(String::new);
    match (desired, live.filter(|live| !live.is_null())) {
        (Value::Null, _) => None,
        (desired, None) => differs(!dropped_by_the_server(place, desired)),
        (Value::Object(desired), Some(Value::Object(live))) => maps(place, desired, live),
        (Value::Array(desired), Some(Value::Array(live))) => lists(place, desired, live),
        (desired, Some(live)) => differs(desired != live && !(place.in_quantities && equal_quantities(desired, live))),
    }
}

/// Whether the API server leaves this value out of what it stores.
fn dropped_by_the_server(place: Place<'_>, desired: &Value) -> bool {
    let zero_is_absence = !place.in_map && !place.in_presence;
    match desired {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        // `emptyDir: {}` says something, `nodeSelector: {}` doesn't.
        Value::Object(map) => map.is_empty() && !place.in_map && MAPS.contains(&place.field),
        Value::Bool(value) => !value && zero_is_absence,
        Value::Number(value) => value.as_i64() == Some(0) && zero_is_absence,
        Value::String(value) => value.is_empty() && zero_is_absence,
    }
}

fn maps(place: Place<'_>, desired: &Map<String, Value>, live: &Map<String, Value>) -> Option<String> {
    desired.iter().find_map(|(field, value)| {
        compare(place.child(field), value, live.get(field)).map(|rest| format!(".{field}{rest}"))
    })
}

fn lists(place: Place<'_>, desired: &[Value], live: &[Value]) -> Option<String> {
    if place.field == "finalizers" {
        return desired
            .iter()
            .position(|value| !live.contains(value))
            .map(|i| format!("[{i}]"));
    }
    let keys = KEYED_LISTS
        .iter()
        .find(|(field, _)| *field == place.field)
        .map(|(_, keys)| *keys);
    if keys.is_none() && desired.len() != live.len() {
        return Some("[]".to_owned());
    }
    desired.iter().enumerate().find_map(|(i, value)| {
        let counterpart = match keys {
            Some(keys) => live.iter().find(|live| same_key(keys, value, live)),
            None => live.get(i),
        };
        compare(place, value, counterpart).map(|rest| format!("[{i}]{rest}"))
    })
}

fn same_key(keys: &[&str], one: &Value, other: &Value) -> bool {
    keys.iter().all(|key| key_of(key, one) == key_of(key, other))
}

/// The value of a key field; a port's protocol is TCP when it isn't given.
fn key_of(key: &str, value: &Value) -> Value {
    match value.get(key) {
        Some(value) => value.clone(),
        None if key == "protocol" => Value::from("TCP"),
        None => Value::Null,
    }
}

fn equal_quantities(one: &Value, other: &Value) -> bool {
    let milli = |value: &Value| match value {
        Value::String(text) => Quantity(text.clone()).milli().ok(),
        _ => None,
    };
    milli(one).is_some_and(|one| milli(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_adds_or_rewrites_is_no_difference() {
        for (what, desired, live) in [
            (
                "a default",
                json!({"spec": {"a": 1}}),
                json!({"spec": {"a": 1, "policy": "Always"}}),
            ),
            (
                "a quantity",
                json!({"resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}}}),
                json!({"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}),
            ),
            (
                "a size limit",
                json!({"emptyDir": {"sizeLimit": "1024Mi"}}),
                json!({"emptyDir": {"sizeLimit": "1Gi"}}),
            ),
            (
                "a foreign container",
                json!({"containers": [{"name": "a", "image": "i"}]}),
                json!({"containers": [{"name": "sidecar"}, {"name": "a", "image": "i", "stdin": false}]}),
            ),
            (
                "a port's protocol and node port",
                json!({"ports": [{"port": 53}, {"port": 53, "protocol": "UDP"}]}),
                json!({"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP", "nodePort": 30000}]}),
            ),
            ("an empty list", json!({"tolerations": []}), json!({})),
            ("an empty map", json!({"nodeSelector": {}}), json!({})),
            (
                "a zero",
                json!({"minReadySeconds": 0, "hostNetwork": false, "value": ""}),
                json!({}),
            ),
            (
                "a foreign finalizer",
                json!({"finalizers": ["a"]}),
                json!({"finalizers": ["b", "a"]}),
            ),
            ("nothing wanted", json!({"a": null}), json!({"a": 1})),
        ] {
            assert_eq!(difference(&desired, &live), None, "{what}");
        }
    }

    #[test]
    fn what_is_missing_or_changed_is_told_by_its_path() {
        for (path, desired, live) in [
            ("spec.a", json!({"spec": {"a": 1}}), json!({"spec": {"a": 2}})),
            (
                "spec.a",
                json!({"spec": {"a": "1Gi"}}),
                json!({"spec": {"a": "1024Mi"}}),
            ),
            (
                "requests.cpu",
                json!({"requests": {"cpu": "1"}}),
                json!({"requests": {"cpu": "999m"}}),
            ),
            (
                "labels.limits",
                json!({"labels": {"limits": "1Gi"}}),
                json!({"labels": {"limits": "1024Mi"}}),
            ),
            ("data.x", json!({"data": {"x": "MQ=="}}), json!({"data": {"x": "Mg=="}})),
            ("labels.x", json!({"labels": {"x": ""}}), json!({"labels": {}})),
            ("emptyDir", json!({"emptyDir": {}}), json!({"hostPath": {"path": "/"}})),
            (
                "securityContext.privileged",
                json!({"securityContext": {"privileged": false}}),
                json!({"securityContext": {}}),
            ),
            (
                "containers[0].image",
                json!({"containers": [{"name": "a", "image": "i"}]}),
                json!({"containers": [{"name": "a", "image": "j"}]}),
            ),
            (
                "containers[0]",
                json!({"containers": [{"name": "a"}]}),
                json!({"containers": [{"name": "b"}]}),
            ),
            ("args[]", json!({"args": ["a"]}), json!({"args": ["a", "b"]})),
            ("args[1]", json!({"args": ["a", "b"]}), json!({"args": ["a", "c"]})),
            (
                "tolerations[]",
                json!({"tolerations": [{"key": "a"}]}),
                json!({"tolerations": [{"key": "a"}, {"key": "b"}]}),
            ),
            (
                "finalizers[0]",
                json!({"finalizers": ["a"]}),
                json!({"finalizers": ["b"]}),
            ),
            ("spec", json!({"spec": {}}), json!({"spec": []})),
        ] {
            assert_eq!(
                difference(&desired, &live),
                Some(path.to_owned()),
                "{desired} in {live}"
            );
        }
    }

    /// A scalar that the server would keep.
    fn leaf() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!(true)),
            (1..9i64).prop_map(Value::from),
            "[a-z]{1,4}".prop_map(Value::from)
        ]
    }

    /// JSON whose field names include the special ones; keyed lists have distinct keys.
    fn object() -> impl Strategy<Value = Value> {
        let tree = leaf().prop_recursive(4, 40, 4, |inner| {
            let fields = prop_oneof![
                Just("spec"),
                Just("labels"),
                Just("limits"),
                Just("args"),
                Just("x"),
                Just("y")
            ];
            let named = prop::collection::btree_map("[a-d]", inner.clone(), 1..3).prop_map(|items| {
                let items = items
                    .into_iter()
                    .map(|(name, value)| json!({"name": name, "value": value}));
                json!({ "containers": items.collect::<Vec<_>>() })
            });
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..3).prop_map(Value::from),
                prop::collection::btree_map(fields.prop_map(str::to_owned), inner, 1..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
                named,
            ]
        });
        prop::collection::btree_map("[s-z]", tree, 1..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    /// Does something to every object inside, or to the n-th scalar.
    fn walk(value: &mut Value, object: &mut impl FnMut(&mut Map<String, Value>), scalar: &mut impl FnMut(&mut Value)) {
        match value {
            Value::Object(map) => {
                object(map);
                map.values_mut().for_each(|value| walk(value, object, scalar));
            }
            Value::Array(list) => list.iter_mut().for_each(|value| walk(value, object, scalar)),
            value => scalar(value),
        }
    }

    proptest! {
        #[test]
        fn an_object_has_all_that_it_has(value in object()) {
            prop_assert_eq!(difference(&value, &value), None);
        }

        #[test]
        fn more_keys_are_no_difference(value in object()) {
            let mut live = value.clone();
            walk(&mut live, &mut |map| { map.insert("foreign".into(), json!("value")); }, &mut |_| ());
            prop_assert_eq!(difference(&value, &live), None);
        }

        #[test]
        fn a_changed_leaf_is_a_difference(value in object(), which in any::<prop::sample::Index>()) {
            let mut count = 0;
            walk(&mut value.clone(), &mut |_| (), &mut |_| count += 1);
            let (which, mut seen) = (which.index(count), 0);
            let mut live = value.clone();
            walk(&mut live, &mut |_| (), &mut |leaf| {
                if seen == which {
                    *leaf = json!("changed!");
                }
                seen += 1;
            });
            prop_assert!(difference(&value, &live).is_some());
        }
    }
}
