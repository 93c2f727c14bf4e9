//! Objects as JSON: what all controllers read and write of them.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub(super) use crate::simulation::api::{is_going, seconds, text, texts};

/// Namespace (empty for kinds without) and name.
pub(super) type Name = (String, String);

/// The number at a pointer.
pub(super) fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The entries of a list.
pub(super) fn list<'o>(object: &'o Value, pointer: &str) -> &'o [Value] {
    let found = object.pointer(pointer).and_then(Value::as_array);
    found.map_or(&[], Vec::as_slice)
}

/// The time at a pointer.
pub(super) fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

/// So many seconds later.
pub(super) fn after(time: Timestamp, seconds: i64) -> Timestamp {
    after_millis(time, seconds.saturating_mul(1000))
}

/// So many milliseconds later.
pub(super) fn after_millis(time: Timestamp, millis: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_millis(millis)).unwrap_or(time)
}

/// The status of a condition; empty where there is none.
pub(super) fn condition<'o>(object: &'o Value, kind: &str) -> &'o str {
    let mut all = list(object, "/status/conditions").iter();
    all.find(|known| known["type"] == kind)
        .map_or("", |known| text(known, "/status"))
}

/// Sets a condition in a list of conditions; the time of its last change stays while it doesn't change.
pub(super) fn set_condition(all: &mut Vec<Value>, mut new: Value, now: &str) {
    let known = all.iter_mut().find(|known| known["type"] == new["type"]);
    let since = match &known {
        Some(known) if known["status"] == new["status"] => known["lastTransitionTime"].clone(),
        _ => json!(now),
    };
    new["lastTransitionTime"] = since;
    match known {
        Some(known) => *known = new,
        None => all.push(new),
    }
}

/// The reference to an object as the controller of others.
pub(super) fn controller_of(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    })
}

/// The uid of an object's controller.
pub(super) fn controller_uid(object: &Value) -> &str {
    let mut owners = list(object, "/metadata/ownerReferences").iter();
    let controller = owners.find(|owner| owner["controller"] == true);
    controller.map_or("", |owner| text(owner, "/uid"))
}

/// Whether a `LabelSelector` selects these labels. None selects nothing, an empty one everything.
pub(in crate::simulation) fn selects(selector: &Value, labels: &Value) -> bool {
    let Value::Object(selector) = selector else {
        return false;
    };
    let pairs = selector.get("matchLabels").is_none_or(|pairs| has_all(pairs, labels));
    let rules = selector.get("matchExpressions").and_then(Value::as_array);
    pairs && rules.into_iter().flatten().all(|rule| meets(rule, labels))
}

/// Whether the labels have all pairs.
pub(super) fn has_all(pairs: &Value, labels: &Value) -> bool {
    let pairs = pairs.as_object().into_iter().flatten();
    pairs.into_iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether the labels meet one requirement.
pub(super) fn meets(rule: &Value, labels: &Value) -> bool {
    let value = labels.get(text(rule, "/key"));
    let values = list(rule, "/values");
    let is_in = || value.is_some_and(|value| values.contains(value));
    let as_number = |value: &Value| value.as_str().and_then(|text| text.parse::<i64>().ok());
    let bound = values.first().and_then(as_number);
    match text(rule, "/operator") {
        "In" => is_in(),
        "NotIn" => !is_in(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(as_number) > bound,
        "Lt" => value.and_then(as_number).is_some_and(|value| Some(value) < bound),
        _ => false,
    }
}

/// A number that may be a part of a whole, like `25%`.
pub(super) fn part_of(value: &Value, whole: i64, is_rounded_up: bool) -> i64 {
    let percent = value
        .as_str()
        .and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok());
    match percent {
        Some(percent) if is_rounded_up => (percent * whole + 99) / 100,
        Some(percent) => percent * whole / 100,
        None => value.as_i64().unwrap_or(0),
    }
}

/// A short name for some content: the same one in every run.
pub(super) fn hash_of(content: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in content.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    let letters = (0..10).map(|_| {
        let letter = LETTERS[(hash % LETTERS.len() as u64) as usize];
        hash /= LETTERS.len() as u64;
        char::from(letter)
    });
    letters.collect()
}
