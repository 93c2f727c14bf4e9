//! What people read about a file, made from what the parsers say. No value of the file gets through.

use std::{collections::BTreeSet, sync::LazyLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use kube::CustomResourceExt;
use serde_json::Value;

use crate::api::{CodisCluster, CodisClusterSpec};

/// Characters of a message; it is kept in a status.
const MAX_LENGTH: usize = 320;
/// `[` and `{` in a file. The parser's time grows with the square of those that are open.
const MAX_BRACKETS: usize = 2_000;

/// One line of a bounded length: a key may have been written to look like something else.
pub(super) fn clean(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut line: String = text.chars().take(MAX_LENGTH).map(visible).collect();
    if text.chars().nth(MAX_LENGTH).is_some() {
        line.push('…');
    }
    line
}

/// A short text in quotes.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    format!("{short:?}")
}

/// Whether the parser reads a text in good time.
pub(super) fn parser_can_take(text: &str) -> Result<(), String> {
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > MAX_BRACKETS {
        return Err(format!(
            "has more than {MAX_BRACKETS} brackets: write lists and mappings on lines of their own"
        ));
    }
    Ok(())
}

/// A field's path, as everywhere: `spec.codisProxy.tolerations[0].key`.
pub(super) fn path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", self::path(parent)),
        Path::Map { parent, key } => match self::path(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => self::path(parent),
    }
}

/// What serde says, in words for people: the missing field, if that is it, and the message.
pub(super) fn plain(message: &str) -> (Option<String>, String) {
    if let Some(missing) = message.strip_prefix("missing field `") {
        return (Some(missing.trim_end_matches('`').to_owned()), "is missing".to_owned());
    }
    let wrong = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = wrong.and_then(|wrong| wrong.rsplit_once(", expected ")) else {
        return (None, message.to_owned());
    };
    // The value follows the kind in quotes; it may be a password in the wrong place.
    let found = match found.split(['`', '"']).next().unwrap_or_default().trim_end() {
        "string" | "character" => "text",
        "floating point" => "a fraction",
        "boolean" => "true or false",
        "unit value" | "Option value" => "empty",
        "map" => "a mapping",
        "sequence" => "a list",
        "integer" => "a whole number",
        _ => "this",
    };
    let text = match expected {
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" if found == "a whole number" => {
            "is out of range".to_owned()
        }
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" => format!("must be a whole number, not {found}"),
        "a string" => format!("must be text, not {found}"),
        "a sequence" => format!("must be a list, not {found}"),
        "a boolean" => format!("must be true or false, not {found}"),
        "a map" => format!("must be a mapping, not {found}"),
        // The name of a type.
        other if other.starts_with("struct ") || other.starts_with(|c: char| c.is_ascii_uppercase()) => {
            format!("must be a mapping, not {found}")
        }
        other => format!("must be {other}; this is {found}"),
    };
    (None, text)
}

/// What is wrong with a field that isn't known.
pub(super) fn unknown(field: &str) -> String {
    if field == "status" {
        return "is written by the operator: remove it".to_owned();
    }
    let (parent, name) = field.rsplit_once('.').unwrap_or(("", field));
    let known = known(parent);
    match nearest(name, &known) {
        Some(known) => format!("is unknown: did you mean `{known}`?"),
        None if parent == "metadata" => format!("may not be written here: only {} may", known.join(", ")),
        None => "is unknown: remove it".to_owned(),
    }
}

static SCHEMA: LazyLock<Option<JSONSchemaProps>> = LazyLock::new(|| {
    let version = CodisCluster::crd().spec.versions.into_iter().next()?;
    version.schema?.open_api_v3_schema
});

/// The fields that a mapping may have.
fn known(parent: &str) -> Vec<&'static str> {
    match parent {
        "" => vec!["apiVersion", "kind", "metadata", "spec"],
        "metadata" => vec!["name", "namespace", "labels", "annotations"],
        _ => {
            let names = of_schema(parent).and_then(|schema| schema.properties.as_ref());
            names.into_iter().flatten().map(|(name, _)| name.as_str()).collect()
        }
    }
}

fn of_schema(path: &str) -> Option<&'static JSONSchemaProps> {
    let mut schema = SCHEMA.as_ref()?;
    for part in path.split('.') {
        let (name, indexes) = part
            .split_once('[')
            .map_or((part, 0), |(name, rest)| (name, rest.split('[').count()));
        schema = schema.properties.as_ref()?.get(name)?;
        for _ in 0..indexes {
            schema = match schema.items.as_ref()? {
                JSONSchemaPropsOrArray::Schema(items) => items,
                JSONSchemaPropsOrArray::Schemas(items) => items.first()?,
            };
        }
    }
    Some(schema)
}

/// The name that was probably meant.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let close = (name.chars().count() / 3).clamp(1, 3);
    let distances = known
        .iter()
        .map(|known| (distance(&name.to_lowercase(), &known.to_lowercase()), *known));
    distances
        .min()
        .filter(|(distance, _)| *distance <= close)
        .map(|(_, known)| known)
}

/// How many characters must be put in, taken out or changed.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

/// The paths of a spec's fields that are text. Quantities may be numbers.
pub(super) fn texts(path: &str, spec: &CodisClusterSpec) -> BTreeSet<String> {
    fn collect(path: String, value: &Value, texts: &mut BTreeSet<String>) {
        match value {
            Value::String(_) => drop(texts.insert(path)),
            Value::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    collect(format!("{path}[{index}]"), value, texts);
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields
                    .iter()
                    .filter(|(name, _)| !matches!(name.as_str(), "requests" | "limits"))
                {
                    collect(format!("{path}.{name}"), value, texts);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut texts = BTreeSet::new();
    // A spec is always JSON.
    if let Ok(value) = serde_json::to_value(spec) {
        collect(path.to_owned(), &value, &mut texts);
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serde_says_is_told_in_plain_words_and_without_the_value() {
        for (message, plain_words) in [
            (
                "invalid type: string \"hunter2\", expected i32",
                "must be a whole number, not text",
            ),
            (
                "invalid type: string \"a, expected b\", expected i32",
                "must be a whole number, not text",
            ),
            ("invalid value: integer `3000000000`, expected i32", "is out of range"),
            (
                "invalid type: floating point `1.5`, expected i32",
                "must be a whole number, not a fraction",
            ),
            ("invalid type: map, expected a string", "must be text, not a mapping"),
            (
                "invalid type: unit value, expected struct ProxySpec",
                "must be a mapping, not empty",
            ),
            (
                "invalid type: string \"x\", expected Toleration",
                "must be a mapping, not text",
            ),
            (
                "invalid type: string \"x\", expected a sequence",
                "must be a list, not text",
            ),
            ("something else", "something else"),
        ] {
            assert_eq!(plain(message), (None, plain_words.to_owned()));
        }
        assert_eq!(
            plain("missing field `image`"),
            (Some("image".to_owned()), "is missing".to_owned())
        );
    }

    #[test]
    fn a_slip_of_the_pen_is_told_the_name_that_was_meant() {
        for (field, meant) in [
            ("spec.codisServer.replica", "`replicas`"),
            ("spec.codisServer.groupreplicas", "`groupReplicas`"),
            ("spec.codisProxy.tolerations[0].opertor", "`operator`"),
            ("spec.codisProxy.requests.mem", "remove it"),
            ("spec.codisproxy", "`codisProxy`"),
            ("spec.codisProxy.banana", "remove it"),
            ("specs", "`spec`"),
            ("metadata.label", "`labels`"),
            ("metadata.finalizers", "only name, namespace, labels, annotations may"),
            ("status", "written by the operator"),
        ] {
            assert!(unknown(field).contains(meant), "{field}: {}", unknown(field));
        }
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let clean = clean(&format!("a\nb\x1b[31m{}", "x".repeat(1000)));
        assert!(clean.starts_with("a\u{fffd}b\u{fffd}[31m"));
        assert_eq!(clean.chars().count(), MAX_LENGTH + 1);
    }

    #[test]
    fn the_distance_is_how_many_characters_differ() {
        for (from, to, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("kitten", "sitting", 3),
            ("replica", "replicas", 1),
        ] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }
}
