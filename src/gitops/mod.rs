//! Source → admit → apply → prune → status, for a Git repository or a watched folder of cluster specs.
//!
//! May enter: api, validate, cluster, telemetry, git2, notify. Stays out: the controller. What Git says is only ever
//! applied through the door `cluster`; what comes out of a repository is hostile until it is admitted.
//!
//! One task per source (`source`): it looks at its origin (`look`, `git`, `directory`), takes a revision as a whole or not
//! at all (`library`, `document`, `admit`, `apply`, `work`), keeps what left it (`prune`), puts hand edits back (`drift`) and
//! reports (`status`).

mod admit;
mod apply;
mod directory;
mod document;
mod drift;
pub mod git;
mod keeper;
mod library;
mod locate;
mod look;
mod message;
mod prune;
mod run;
mod source;
mod status;
mod work;

use serde::{Deserialize, Serialize};

pub use run::{Settings, run, serve};

/// The largest spec file, bytes. These three hold for every origin.
const FILE_CAP: usize = 256 << 10;
/// The most spec files.
const FILES_CAP: usize = 2_000;
/// The most bytes of spec files.
const TOTAL_CAP: usize = 16 << 20;

/// A spec file of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// From the repository's or folder's root, with `/`.
    pub path: String,
    /// What names its content: equal ids have equal content. Of Git 40 hexadecimal digits.
    pub id: String,
    /// What is in it.
    pub content: Content,
}

/// What is in a spec file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// The caller knows the id: it isn't read again.
    Known,
    /// This.
    Text(String),
    /// Something that isn't read: what it is, and the fix.
    Refused(String),
}

/// Why something isn't done. What is in force stays.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    /// One word for a condition.
    reason: &'static str,
    /// A sentence with the fix.
    message: String,
    /// Whether it is a person's turn.
    is_stalled: bool,
}
