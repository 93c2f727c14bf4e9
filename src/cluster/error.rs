//! What can go wrong at the door to Kubernetes, and what that means for whoever asked.

use std::{fmt, time::Duration};

use kube::core::Status;

/// A call to the API server, for people: never with contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    verb: &'static str,
    kind: String,
    object: String,
}

impl Call {
    pub(super) fn new(verb: &'static str, kind: impl Into<String>, object: impl Into<String>) -> Self {
        Self {
            verb,
            kind: kind.into(),
            object: object.into(),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.kind, self.object)
    }
}

/// Why a call at the door failed. Its text never has contents of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The lease isn't held: nothing was sent.
    #[error("not the leader: nothing was sent")]
    NotLeader,
    /// The effects hook refused: nothing was sent.
    #[error("injected: {0}")]
    Injected(String),
    /// An object of this name belongs to somebody else. It is left as it is.
    #[error("{kind} {name} exists and belongs to somebody else: it is left as it is")]
    NameTaken {
        /// Like `Service`.
        kind: String,
        /// Namespace and name.
        name: String,
    },
    /// The object changed, or was made or re-made, since it was read.
    #[error("{call}: changed meanwhile: {detail}")]
    Conflict {
        /// What was tried.
        call: Call,
        /// The server's words.
        detail: String,
    },
    /// The object, or the namespace it should be in, doesn't exist.
    #[error("{call}: not found: {detail}")]
    Gone {
        /// What was tried.
        call: Call,
        /// The server's words.
        detail: String,
    },
    /// The object breaks a rule of the API server.
    #[error("{call}: invalid: {detail}")]
    Invalid {
        /// What was tried.
        call: Call,
        /// The server's words.
        detail: String,
    },
    /// The operator isn't allowed to do this, or a quota or a webhook forbids it.
    #[error("{call}: forbidden: {detail}")]
    Forbidden {
        /// What was tried.
        call: Call,
        /// The server's words.
        detail: String,
    },
    /// The API server can't be reached, or answers with an error of its own. A write may have been done.
    #[error("{call}: API server unavailable: {detail}")]
    Unavailable {
        /// What was tried.
        call: Call,
        /// The server's or the connection's words.
        detail: String,
    },
    /// No answer in time. A write may have been done.
    #[error("{call}: no answer within {after:?}")]
    Timeout {
        /// What was tried.
        call: Call,
        /// How long was waited.
        after: Duration,
    },
    /// What was handed to the door, or what the server answered, can't be used: a mistake in a program.
    #[error("{call}: malformed: {detail}")]
    Malformed {
        /// What was tried.
        call: Call,
        /// What is wrong.
        detail: String,
    },
}

/// What an error means; the fixed words for metrics and for the table of requeues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// Somebody else was faster: read again.
    Conflict,
    /// The API server is away: back off.
    Unavailable,
    /// The API server said no: another spec, more rights or a person are needed.
    Refused,
    /// A name is taken: a person's turn.
    NameTaken,
    /// What it was about is gone.
    Gone,
    /// Another replica leads.
    NotLeader,
    /// A test's doing.
    Injected,
    /// A mistake in a program.
    Bug,
}

impl Category {
    /// The category as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::NameTaken => "name-taken",
            Self::Gone => "gone",
            Self::NotLeader => "not-leader",
            Self::Injected => "injected",
            Self::Bug => "bug",
        }
    }
}

impl Error {
    /// Whether a Service can't have the ClusterIP that it asks for: somebody else has it, or it isn't one any more.
    #[must_use]
    pub fn is_address_refused(&self) -> bool {
        const WORDS: [&str; 2] = [
            "provided IP is already allocated",
            "provided IP is not in the valid range",
        ];
        matches!(self, Self::Invalid { detail, .. } if WORDS.iter().any(|words| detail.contains(words)))
    }

    /// What the error means.
    pub fn category(&self) -> Category {
        match self {
            Self::NotLeader => Category::NotLeader,
            Self::Injected(_) => Category::Injected,
            Self::NameTaken { .. } => Category::NameTaken,
            Self::Conflict { .. } => Category::Conflict,
            Self::Gone { .. } => Category::Gone,
            Self::Invalid { .. } | Self::Forbidden { .. } => Category::Refused,
            Self::Unavailable { .. } | Self::Timeout { .. } => Category::Unavailable,
            Self::Malformed { .. } => Category::Bug,
        }
    }

    /// Whether the same may work soon without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self.category() {
            Category::Conflict | Category::Unavailable | Category::Injected | Category::Gone => true,
            Category::Refused | Category::NameTaken | Category::NotLeader | Category::Bug => false,
        }
    }

    /// Whether what was asked for, or where it should go, doesn't exist.
    pub fn is_gone(&self) -> bool {
        self.category() == Category::Gone
    }

    /// Whether somebody else was faster.
    pub fn is_conflict(&self) -> bool {
        self.category() == Category::Conflict
    }

    /// Puts kube's error into our words.
    pub(super) fn of(call: Call, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(call, &status),
            // The text of a parse error can quote the value that didn't fit: only its place is told.
            kube::Error::SerdeError(error) => Self::Malformed {
                call,
                detail: format!(
                    "answer, {:?} error, line {} column {}",
                    error.classify(),
                    error.line(),
                    error.column()
                ),
            },
            kube::Error::BuildRequest(error) => Self::Malformed {
                call,
                detail: error.to_string(),
            },
            other => Self::Unavailable {
                call,
                detail: other.to_string(),
            },
        }
    }

    fn of_status(call: Call, status: &Status) -> Self {
        let detail = words(&call, status);
        // A uid that doesn't fit means that the object was made anew since it was read.
        let remade = status
            .details
            .as_ref()
            .is_some_and(|details| details.causes.iter().any(|c| c.field == "metadata.uid"));
        if status.is_conflict() || status.is_already_exists() || remade {
            Self::Conflict { call, detail }
        } else if status.is_not_found() {
            Self::Gone { call, detail }
        } else if status.is_forbidden() || status.code == 401 {
            Self::Forbidden { call, detail }
        } else if status.is_invalid() || (matches!(status.code, 400..=499) && !matches!(status.code, 408 | 429)) {
            Self::Invalid { call, detail }
        } else {
            Self::Unavailable { call, detail }
        }
    }
}

/// The server's message; of a Secret only the reason, because a message may quote the value that it refuses.
fn words(call: &Call, status: &Status) -> String {
    if call.kind == "Secret" {
        format!("{} ({})", status.reason, status.code)
    } else {
        status.message.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, reason: &str) -> Error {
        let status = Status {
            code,
            reason: reason.into(),
            message: "words".into(),
            ..Status::default()
        };
        Error::of(
            Call::new("apply", "Service", "ns/name"),
            kube::Error::Api(Box::new(status)),
        )
    }

    #[test]
    fn a_status_of_the_server_becomes_the_error_that_says_what_to_do() {
        for (code, reason, category, retryable) in [
            (409, "Conflict", Category::Conflict, true),
            (409, "AlreadyExists", Category::Conflict, true),
            (404, "NotFound", Category::Gone, true),
            (403, "Forbidden", Category::Refused, false),
            (401, "Unauthorized", Category::Refused, false),
            (422, "Invalid", Category::Refused, false),
            (400, "BadRequest", Category::Refused, false),
            (429, "TooManyRequests", Category::Unavailable, true),
            (500, "InternalError", Category::Unavailable, true),
            (503, "ServiceUnavailable", Category::Unavailable, true),
        ] {
            let error = of(code, reason);
            assert_eq!(
                (error.category(), error.is_retryable()),
                (category, retryable),
                "{code} {reason}"
            );
        }
    }

    #[test]
    fn an_error_about_a_secret_does_not_repeat_the_servers_message() {
        let status = Status {
            code: 422,
            reason: "Invalid".into(),
            message: "data: Invalid value: hunter2".into(),
            ..Status::default()
        };
        let error = Error::of(
            Call::new("apply", "Secret", "ns/name"),
            kube::Error::Api(Box::new(status)),
        );
        assert_eq!(error.to_string(), "apply Secret ns/name: invalid: Invalid (422)");
    }
}
