//! What the operator asks a worker, and what the worker answers: one JSON document each.

use std::{collections::BTreeSet, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Fetched, Tip, credentials::Secret};

/// One call.
#[derive(Serialize, Deserialize)]
pub(super) struct Job {
    /// The source's own directory; it may not exist yet.
    pub directory: PathBuf,
    pub url: String,
    pub branch: String,
    pub secret: Secret,
    pub task: Task,
}

/// What is asked.
#[derive(Serialize, Deserialize)]
pub(super) enum Task {
    /// Which commit the branch is at.
    Tip,
    /// As in [`Fetch`](super::Fetch); `path` is normal.
    Fetch {
        tip: String,
        since: Option<String>,
        read: String,
        path: String,
        known: BTreeSet<String>,
    },
}

/// What is answered.
#[derive(Serialize, Deserialize)]
pub(super) enum Done {
    Tip(Tip),
    Fetched(Fetched),
}

pub(super) type Answer = Result<Done, Error>;

impl Job {
    /// The worker's `HOME`.
    pub(super) fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    /// Where the worker puts the certificates that are trusted, if the Secret names any.
    pub(super) fn ca_file(&self) -> PathBuf {
        self.home().join("ca.crt")
    }
}
