//! Source → admit → apply → prune → status, for a Git repository or a watched folder of cluster specs.
//!
//! May enter: api, validate, cluster, git2, notify. Stays out: the controller. What Git says is only ever applied through
//! the door `cluster`; what comes out of a repository is hostile until it is admitted.

pub mod admit;
pub mod directory;
pub mod document;
pub mod git;
mod locate;
mod message;

use serde::{Deserialize, Serialize};

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
