//! The schemas of the operator's own kinds: what they don't know is dropped, what breaks them is refused.
//!
//! Left out: rules in CEL, formats other than `int32`, defaults (ours have none), and patterns other than that of quantities.

use std::sync::LazyLock;

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::{
    answer::Refusal,
    kinds::Kind,
    objects::{quantity, text},
};
use crate::api::{CodisCluster, CodisGitSource};

static CLUSTER: LazyLock<Value> = LazyLock::new(|| schema_of(json!(CodisCluster::crd())));
static SOURCE: LazyLock<Value> = LazyLock::new(|| schema_of(json!(CodisGitSource::crd())));

fn schema_of(crd: Value) -> Value {
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn schema(kind: Kind) -> Option<&'static Value> {
    match kind.kind {
        "CodisCluster" => Some(&CLUSTER),
        "CodisGitSource" => Some(&SOURCE),
        _ => None,
    }
}

/// Drops what a custom resource's schema doesn't know.
pub(super) fn prune(kind: Kind, object: &mut Value) {
    let Some(schema) = schema(kind) else { return };
    for field in ["spec", "status"] {
        if let Some(value) = object.get_mut(field) {
            drop_unknown(&schema["properties"][field], value);
        }
    }
}

fn drop_unknown(schema: &Value, value: &mut Value) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    match value {
        Value::Object(map) => {
            if let Some(any) = schema.get("additionalProperties") {
                map.values_mut().for_each(|value| drop_unknown(any, value));
            } else if let Some(known) = schema["properties"].as_object() {
                map.retain(|field, _| known.contains_key(field));
                map.iter_mut()
                    .for_each(|(field, value)| drop_unknown(&known[field], value));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| drop_unknown(&schema["items"], value)),
        _ => {}
    }
}

/// Refuses a custom resource that breaks its schema.
pub(super) fn check(kind: Kind, object: &Value) -> Result<(), Refusal> {
    let Some(schema) = schema(kind) else {
        return Ok(());
    };
    let mut wrong = Vec::new();
    missing(schema, object, "", &mut wrong);
    for field in ["spec", "status"] {
        if let Some(value) = object.get(field).filter(|value| !value.is_null()) {
            walk(&schema["properties"][field], value, field, &mut wrong);
        }
    }
    let name = text(object, "/metadata/name");
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(Refusal::invalid(kind, name, one)),
        all => Err(Refusal::invalid(kind, name, &format!("[{}]", all.join(", ")))),
    }
}

fn missing(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    let required = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    for field in required.filter(|field| value.get(field).is_none()) {
        let dot = if path.is_empty() { "" } else { "." };
        wrong.push(format!("{path}{dot}{field}: Required value"));
    }
}

fn walk(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if !is_of_type(schema, value) {
        let kind = text(schema, "/type");
        wrong.push(format!(
            "{path}: Invalid value: {value}: {path} in body must be of type {kind}: {value}"
        ));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        wrong.push(format!(
            "{path}: Unsupported value: {value}: supported values: {}",
            allowed.join(", ")
        ));
    }
    match value {
        Value::Object(map) => {
            missing(schema, value, path, wrong);
            for (field, value) in map {
                let of = schema
                    .get("additionalProperties")
                    .unwrap_or(&schema["properties"][field]);
                walk(of, value, &format!("{path}.{field}"), wrong);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                walk(&schema["items"], value, &format!("{path}[{index}]"), wrong);
            }
        }
        Value::String(content) => wrong.extend(text_is_wrong(schema, content, path)),
        Value::Number(number) => wrong.extend(number_is_wrong(schema, number.as_f64().unwrap_or(0.0), path)),
        _ => {}
    }
}

fn is_of_type(schema: &Value, value: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        return value.is_string() || value.is_i64();
    }
    match text(schema, "/type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    }
}

fn text_is_wrong(schema: &Value, content: &str, path: &str) -> Option<String> {
    let length = content.chars().count() as u64;
    if schema["minLength"].as_u64().is_some_and(|least| length < least) {
        let least = &schema["minLength"];
        return Some(format!(
            "{path}: Invalid value: {content:?}: {path} in body should be at least {least} chars long"
        ));
    }
    if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
        return Some(format!(
            "{path}: Too long: may not be more than {} bytes",
            schema["maxLength"]
        ));
    }
    let is_quantity = schema["x-kubernetes-int-or-string"] == true && schema.get("pattern").is_some();
    if is_quantity && quantity(content.trim_start_matches(['+', '-'])).is_none() {
        let pattern = text(schema, "/pattern");
        return Some(format!(
            "{path}: Invalid value: {content:?}: {path} in body should match '{pattern}'"
        ));
    }
    None
}

fn number_is_wrong(schema: &Value, number: f64, path: &str) -> Option<String> {
    let is_int32 = schema["format"] == "int32" && !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
    let why = if schema["minimum"].as_f64().is_some_and(|least| number < least) {
        format!(
            "should be greater than or equal to {}",
            schema["minimum"].as_f64().unwrap_or(0.0)
        )
    } else if schema["maximum"].as_f64().is_some_and(|most| number > most) {
        format!(
            "should be less than or equal to {}",
            schema["maximum"].as_f64().unwrap_or(0.0)
        )
    } else if is_int32 {
        "must be of type int32".to_owned()
    } else {
        return None;
    };
    Some(format!("{path}: Invalid value: {number}: {path} in body {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(change: impl FnOnce(&mut Value)) -> (Value, Result<(), String>) {
        let mut object = json!({
            "metadata": {"name": "c"},
            "spec": {
                "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
                "codisProxy": {"image": "codis", "replicas": 2},
                "codisServer": {"image": "codis", "replicas": 4, "groupReplicas": 2},
                "codisDashboard": {"image": "codis"},
            },
        });
        change(&mut object);
        let kind = Kind::named("CodisCluster").unwrap();
        prune(kind, &mut object);
        let checked = check(kind, &object).map_err(|refusal| refusal.message);
        (object, checked)
    }

    #[test]
    fn what_breaks_the_schema_is_refused_with_its_place() {
        assert_eq!(cluster(|_| ()).1, Ok(()));
        let cases: [(&str, Value, &str); 4] = [
            ("replicas", json!("two"), "must be of type integer"),
            ("replicas", json!(-1), "should be greater than or equal to 1"),
            ("image", json!(""), "should be at least 1 chars long"),
            ("replicas", json!(3_000_000_000_i64), "spec.codisProxy.replicas"),
        ];
        for (field, value, says) in cases {
            let refusal = cluster(|object| object["spec"]["codisProxy"][field] = value.clone())
                .1
                .unwrap_err();
            assert!(
                refusal.contains(says) && refusal.contains("spec.codisProxy."),
                "{field} {value}: {refusal}"
            );
        }
        let refusal = cluster(|object| drop(object["spec"].as_object_mut().unwrap().remove("codisProxy"))).1;
        assert!(refusal.unwrap_err().contains("spec.codisProxy: Required value"));
    }

    #[test]
    fn what_the_schema_does_not_know_is_dropped() {
        let (object, checked) = cluster(|object| object["spec"]["codisProxy"]["nonsense"] = json!(1));
        assert_eq!((object["spec"]["codisProxy"].get("nonsense"), checked), (None, Ok(())));
    }

    /// What this file leaves out, the schemas don't have.
    #[test]
    fn the_schemas_have_no_defaults_and_no_pattern_but_that_of_quantities() {
        fn each(schema: &Value, seen: &mut impl FnMut(&Value)) {
            if let Value::Object(map) = schema {
                seen(schema);
                let fields = map.get("properties").and_then(Value::as_object).into_iter().flatten();
                fields.for_each(|(_, schema)| each(schema, seen));
                ["items", "additionalProperties"]
                    .iter()
                    .for_each(|of| each(&schema[*of], seen));
            }
        }
        for schema in [&*CLUSTER, &*SOURCE] {
            each(schema, &mut |schema| {
                assert!(schema.get("default").is_none(), "{schema}");
                let is_quantity = schema["x-kubernetes-int-or-string"] == true;
                assert!(schema.get("pattern").is_none() || is_quantity, "{schema}");
                assert!(
                    ["oneOf", "anyOf", "allOf", "not"]
                        .iter()
                        .all(|of| schema.get(*of).is_none()),
                    "{schema}"
                );
            });
        }
    }
}
