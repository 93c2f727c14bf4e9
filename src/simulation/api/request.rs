//! A request: its path, its query and its body.

use std::collections::BTreeMap;

use http::{Method, request::Parts};
use serde_json::Value;

use super::{answer::Refusal, kinds::Kind};

/// What is to be done with what.
#[derive(Debug)]
pub(super) struct Request {
    pub verb: Verb,
    pub kind: Kind,
    /// Empty for kinds without, and for lists over all namespaces.
    pub namespace: String,
    /// Empty for lists and creations.
    pub name: String,
    pub subresource: Option<Subresource>,
    pub query: BTreeMap<String, String>,
    pub body: Value,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Create,
    Update,
    MergePatch,
    Apply,
    Delete,
    Watch,
}

/// A part of an object that has an address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subresource {
    Status,
    Scale,
    Eviction,
}

impl Request {
    pub(super) fn read(head: &Parts, body: &[u8]) -> Result<Self, Refusal> {
        let path: Vec<&str> = head.uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match path.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Refusal::unknown(format!("the path {}", head.uri.path()))),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let [plural, rest @ ..] = rest else {
            return Err(Refusal::unknown(format!("the path {}", head.uri.path())));
        };
        let kind = Kind::find(group, version, plural);
        let kind = kind.ok_or_else(|| Refusal::unknown(format!("{group}/{version} {plural}")))?;
        let (name, subresource) = match rest {
            [] => ("", None),
            [name] => (*name, None),
            [name, "status"] => (*name, Some(Subresource::Status)),
            [name, "scale"] => (*name, Some(Subresource::Scale)),
            [name, "eviction"] => (*name, Some(Subresource::Eviction)),
            _ => return Err(Refusal::unknown(format!("the path {}", head.uri.path()))),
        };
        let query = query(head.uri.query().unwrap_or_default());
        let body = match body {
            [] => Value::Null,
            body => parse(head, body)?,
        };
        Ok(Self {
            verb: verb(head, name, &query)?,
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource,
            query,
            body,
        })
    }

    /// A switch in the query.
    pub(super) fn has(&self, switch: &str) -> bool {
        self.query.get(switch).is_some_and(|value| value == "true")
    }

    pub(super) fn field_manager(&self) -> &str {
        self.query.get("fieldManager").map_or("unknown", String::as_str)
    }

    pub(super) fn is_rehearsal(&self) -> bool {
        self.query.contains_key("dryRun")
    }
}

fn verb(head: &Parts, name: &str, query: &BTreeMap<String, String>) -> Result<Verb, Refusal> {
    let content = head.headers.get(http::header::CONTENT_TYPE);
    let content = content.and_then(|value| value.to_str().ok()).unwrap_or_default();
    if query.get("watch").is_some_and(|value| value == "true") {
        return Ok(Verb::Watch);
    }
    match (&head.method, content) {
        (&Method::GET, _) if name.is_empty() => Ok(Verb::List),
        (&Method::GET, _) => Ok(Verb::Get),
        (&Method::POST, _) => Ok(Verb::Create),
        (&Method::PUT, _) => Ok(Verb::Update),
        (&Method::DELETE, _) if !name.is_empty() => Ok(Verb::Delete),
        (&Method::PATCH, "application/merge-patch+json") => Ok(Verb::MergePatch),
        (&Method::PATCH, "application/apply-patch+yaml") => Ok(Verb::Apply),
        (method, content) => Err(Refusal::unknown(format!("{method} {content}"))),
    }
}

fn parse(head: &Parts, body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the body of {} {} is no JSON: {error}", head.method, head.uri)))
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = reqwest::Url::parse(&format!("http://query/?{text}"));
    let pairs = pairs.map(|url| url.query_pairs().into_owned().collect());
    pairs.unwrap_or_default()
}
