//! What can go wrong with a Git server.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The server wants credentials, or refuses those it was given.
    Credentials,
    /// There is no such repository.
    NotFound,
    /// No connection, or the server is in trouble.
    Unreachable,
    /// It took too long.
    Timeout,
    /// More than the caps allow; the message names the cap.
    TooLarge,
    /// The server's certificate or host key isn't trusted.
    Untrusted,
    /// Something that isn't done here: a scheme, SHA-256.
    Unsupported,
    /// The branch moved meanwhile, or the commit isn't to be had.
    Gone,
    /// The server answers, but not as a Git server should.
    Protocol,
    /// The worker failed: the message is for the operator's administrator.
    Worker,
}

/// Why a call failed, and the fix. Holds no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Error {
    /// What kind of thing went wrong.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(super) fn late(after: Duration) -> Self {
        let text = format!(
            "the Git server didn't answer within {} s: check that it's up and that the network lets the operator through",
            after.as_secs_f32()
        );
        Self::new(ErrorKind::Timeout, text)
    }

    pub(super) fn worker(text: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::Worker, format!("the operator's Git worker failed: {text}"))
    }

    pub(super) fn not_found() -> Self {
        let text = "there is no such repository on the server, or the credentials can't see it: check spec url and the \
                    Secret";
        Self::new(ErrorKind::NotFound, text)
    }

    pub(super) fn sha256() -> Self {
        let text = "the repository uses SHA-256 for its object names, which isn't supported: use one with SHA-1";
        Self::new(ErrorKind::Unsupported, text)
    }
}
