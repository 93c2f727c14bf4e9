//! Objects as JSON, and what all of them have.

use serde_json::{Map, Value, json};

use super::kinds::Kind;

/// The text at a pointer; empty where there is none.
pub(in crate::simulation) fn text<'o>(object: &'o Value, pointer: &str) -> &'o str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The metadata, made where there is none.
pub(super) fn meta(object: &mut Value) -> &mut Map<String, Value> {
    if !object.get("metadata").is_some_and(Value::is_object) {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        Value::Object(meta) => meta,
        _ => unreachable!("it was just made"),
    }
}

/// The entries of a list of texts.
pub(in crate::simulation) fn texts(object: &Value, pointer: &str) -> Vec<String> {
    let list = object.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|entry| entry.as_str().map(str::to_owned)).collect()
}

/// Whether it is being deleted.
pub(in crate::simulation) fn is_going(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|time| !time.is_null())
}

/// Without nulls, and without what typed objects leave out when it is empty: the server's own form.
pub(super) fn normalize(kind: Kind, mut object: Value) -> Value {
    prune_nulls(&mut object);
    if !kind.is_custom() {
        typed(&mut object);
    }
    let meta = meta(&mut object);
    for field in [
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "managedFields",
    ] {
        let is_empty = match meta.get(field) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => false,
        };
        if is_empty {
            meta.remove(field);
        }
    }
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    object
}

pub(super) fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

/// Fields whose keys people choose, and whose values stay as they are.
const MAPS: [&str; 10] = [
    "labels",
    "annotations",
    "matchLabels",
    "nodeSelector",
    "data",
    "binaryData",
    "stringData",
    "limits",
    "requests",
    "parameters",
];

/// Fields in which `false` and 0 say something: pointers in the real server's types, or fields that are always there.
const POINTERS: [&str; 35] = [
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "blockOwnerDeletion",
    "controller",
    "defaultMode",
    "enableServiceLinks",
    "fsGroup",
    "immutable",
    "leaseDurationSeconds",
    "leaseTransitions",
    "maxSurge",
    "maxUnavailable",
    "minAvailable",
    "minReplicas",
    "mode",
    "optional",
    "partition",
    "privileged",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "disruptionsAllowed",
    "currentHealthy",
    "desiredHealthy",
    "desiredReplicas",
    "expectedPods",
    "restartCount",
    "ready",
    "targetPort",
];

/// An object of a typed kind as the real server's types have it: without what they leave out, quantities in their shortest form.
fn typed(value: &mut Value) {
    tidy(value, false);
}

fn tidy(value: &mut Value, in_quantities: bool) {
    match value {
        Value::Object(map) => {
            for (field, value) in map.iter_mut() {
                let is_quantity = ["requests", "limits", "capacity"].contains(&field.as_str());
                match value {
                    Value::String(text) if in_quantities || field == "sizeLimit" || field == "divisor" => {
                        if let Some(short) = quantity(text) {
                            *text = short;
                        }
                    }
                    _ if MAPS.contains(&field.as_str()) && !is_quantity => {}
                    value => tidy(value, is_quantity),
                }
            }
            map.retain(|field, value| !is_left_out(field, value));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| tidy(value, false)),
        _ => {}
    }
}

fn is_left_out(field: &str, value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() && MAPS.contains(&field),
        Value::String(text) => text.is_empty(),
        Value::Bool(is) => !is && !POINTERS.contains(&field),
        Value::Number(number) => number.as_i64() == Some(0) && !POINTERS.contains(&field),
        Value::Null => true,
    }
}

/// A quantity in its shortest form: `1024Mi` is `1Gi`, `0.5` is `500m`.
pub(super) fn quantity(text: &str) -> Option<String> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [(&str, u32); 10] = [
        ("E", 27),
        ("P", 24),
        ("T", 21),
        ("G", 18),
        ("M", 15),
        ("k", 12),
        ("", 9),
        ("m", 6),
        ("u", 3),
        ("n", 0),
    ];
    let end = text
        .find(|letter: char| letter.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    // In billionths.
    let part = format!("{part:0<9}");
    let nano = whole.parse::<i128>().ok()? * 1_000_000_000 + part.get(..9)?.parse::<i128>().ok()?;
    if let Some(power) = BINARY.iter().position(|known| *known == suffix) {
        let mut bytes = nano.checked_mul(1_i128 << (10 * (power + 1)))? / 1_000_000_000;
        let mut unit = "";
        for larger in BINARY {
            if bytes == 0 || bytes % 1024 != 0 {
                break;
            }
            (bytes, unit) = (bytes / 1024, larger);
        }
        return Some(format!("{bytes}{unit}"));
    }
    let power = DECIMAL.iter().find(|(known, _)| *known == suffix)?.1;
    // In billionths of what the text says, at first.
    let value = nano.checked_mul(10_i128.pow(power))? / 1_000_000_000;
    let (unit, power) = DECIMAL.iter().find(|(_, power)| value % 10_i128.pow(*power) == 0)?;
    Some(format!("{}{unit}", value / 10_i128.pow(*power)))
}

/// Merges a JSON merge patch (RFC 7396).
pub(in crate::simulation) fn merge_patch(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    let Value::Object(map) = object else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge_patch(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Whether two objects differ in anything but what the server itself counts.
pub(super) fn differ(old: &Value, new: &Value) -> bool {
    let plain = |object: &Value| {
        let mut object = object.clone();
        let meta = meta(&mut object);
        meta.remove("resourceVersion");
        if let Some(Value::Array(entries)) = meta.get_mut("managedFields") {
            for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
                entry.remove("time");
            }
        }
        object
    };
    plain(old) != plain(new)
}
