//! Source → admit → apply → prune → status, for a Git repository or a watched folder of cluster specs.
//!
//! May enter: api, validate, cluster, git2, notify. Stays out: the controller. What Git says is only ever applied through
//! the door `cluster`; what comes out of a repository is hostile until it is admitted.

pub mod admit;
pub mod directory;
pub mod document;
mod locate;
mod message;

/// A file of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its path below the source's path, with `/`.
    pub path: String,
    /// What names its content: equal ids have equal content.
    pub id: String,
    /// What is in it.
    pub content: Content,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The caller knows this id already: not read again.
    Known,
    /// Its text.
    Text(String),
    /// Why it isn't read.
    Refused(String),
}
