//! Answers and refusals, as the real server words them.

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::{kinds::Kind, watch::Body};

/// A body with its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub code: u16,
    pub body: Value,
    /// The body as text, where it was written already.
    pub text: Option<String>,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Self {
        Self {
            code: 200,
            body,
            text: None,
        }
    }

    pub(super) fn created(body: Value) -> Self {
        Self {
            code: 201,
            body,
            text: None,
        }
    }

    /// An answer whose body is written already.
    pub(super) fn written(text: String) -> Self {
        Self {
            code: 200,
            body: Value::Null,
            text: Some(text),
        }
    }
}

/// A refusal: the code, the machine's reason and the person's message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    /// What it is about, for machines.
    pub details: Option<Value>,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: String, details: Option<Value>) -> Self {
        Self {
            code,
            reason,
            message,
            details,
        }
    }

    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        let what = format!("{} \"{name}\" not found", kind.resource());
        Self::new(404, "NotFound", what, Some(details(kind, kind.plural, name)))
    }

    pub(super) fn exists(kind: Kind, name: &str, is_going: bool) -> Self {
        let going = if is_going { "object is being deleted: " } else { "" };
        let what = format!("{going}{} \"{name}\" already exists", kind.resource());
        Self::new(409, "AlreadyExists", what, Some(details(kind, kind.plural, name)))
    }

    pub(super) fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let what = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.resource());
        Self::new(409, "Conflict", what, Some(details(kind, kind.plural, name)))
    }

    pub(super) fn forbidden(kind: Kind, name: &str, why: &str) -> Self {
        let what = format!("{} \"{name}\" is forbidden: {why}", kind.resource());
        Self::new(403, "Forbidden", what, Some(details(kind, kind.plural, name)))
    }

    /// Fields that others apply with other values.
    pub(super) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let (count, plural) = (conflicts.len(), if conflicts.len() == 1 { "" } else { "s" });
        let mut of_managers: Vec<String> = Vec::new();
        for (manager, _) in conflicts {
            if !of_managers.contains(manager) {
                of_managers.push(manager.clone());
            }
        }
        let told = match conflicts {
            [(manager, path)] => format!(" conflict with {manager}: {path}"),
            all => {
                let of = |manager: &String| {
                    let paths = all.iter().filter(|(known, _)| known == manager);
                    paths.fold(String::new(), |told, (_, path)| format!("{told}\n- {path}"))
                };
                let told = of_managers
                    .iter()
                    .map(|manager| format!("conflicts with {manager}:{}", of(manager)));
                format!(" {}", told.collect::<Vec<_>>().join("\n"))
            }
        };
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|(manager, path)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": path}))
            .collect();
        let what = format!("Apply failed with {count} conflict{plural}:{told}");
        Self::new(409, "Conflict", what, Some(json!({"causes": causes})))
    }

    pub(super) fn invalid(kind: Kind, name: &str, why: &str) -> Self {
        let what = format!("{} \"{name}\" is invalid: {why}", kind.qualified());
        Self::new(422, "Invalid", what, Some(details(kind, kind.kind, name)))
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into(), None)
    }

    /// What nobody asked before: a gap of this server, not of the request.
    pub(super) fn unknown(what: impl Into<String>) -> Self {
        let what = format!("the simulated API server can't: {}", what.into());
        Self::new(501, "NotImplemented", what, None)
    }
}

/// As answers name what they are about.
pub(super) fn details(kind: Kind, of: &str, name: &str) -> Value {
    let mut details = json!({"name": name, "kind": of});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    details
}

pub(super) fn response(answer: Result<Answer, Refusal>) -> http::Response<Body> {
    let Answer { code, body, text } = answer.unwrap_or_else(|refusal| {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": refusal.message, "reason": refusal.reason, "code": refusal.code,
        });
        if let Some(details) = refusal.details {
            body["details"] = details;
        }
        let code = refusal.code;
        Answer { code, body, text: None }
    });
    let body = Full::new(Bytes::from(text.unwrap_or_else(|| body.to_string()).into_bytes())).boxed_unsync();
    let mut response = http::Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    json(response)
}

/// Says that an answer is JSON.
pub(super) fn json<B>(mut response: http::Response<B>) -> http::Response<B> {
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}
