//! The one door to Git: which commit a branch is at, and the spec files of a commit.
//!
//! Stays out: decisions, YAML, Kubernetes. Two ways lead out of here. A poll ([`Git::tip`]) over HTTP is one small
//! request of protocol v2, whatever the number of refs. Everything else is libgit2's, and libgit2 never runs in this
//! process: it has no total deadline, leaks descriptors and takes trust from process-wide settings (research/gitops.md
//! §4). A worker, this program started anew, makes one call under limits on memory and files, and is killed at its
//! deadline.

mod credentials;
mod error;
mod http;
mod job;
mod pkt;
mod process;
mod remote;
mod worker;
mod workers;

use std::{collections::BTreeSet, fmt::Write, path::PathBuf, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::workers::Workers;
pub use self::{
    credentials::Credentials,
    error::{Error, ErrorKind},
    remote::Remote,
    worker::worker,
};
pub use super::{Blob, Content};

/// How long [`Git::tip`] may take in total.
const TIP_TIMEOUT: Duration = Duration::from_secs(10);

/// Which commit a branch is at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tip {
    /// At this one: 40 hexadecimal digits.
    Commit(String),
    /// There is no such branch.
    Missing {
        /// There is no branch at all. A server in trouble may say so too.
        repository_is_empty: bool,
    },
}

/// What to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Fetch<'a> {
    /// The commit that the branch is at, as [`Git::tip`] said.
    pub tip: &'a str,
    /// The commit that is in force: is it an ancestor of `tip`?
    pub since: Option<&'a str>,
    /// Whose files are read: `tip` or `since`.
    pub read: &'a str,
    /// Ids of blobs whose content isn't wanted again.
    pub known: &'a BTreeSet<String>,
}

/// How `tip` follows `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// There is no `since`.
    None,
    /// They are the same commit.
    Same,
    /// `since` is an ancestor.
    Descends,
    /// `since` is no ancestor, or if the history is larger than a fetch may be: it isn't found in as much of it as can
    /// be fetched, the last [`DEPTH`] commits at best.
    Rewound,
}

/// What a fetch brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// How `tip` follows `since`.
    pub relation: Relation,
    /// The spec files of the commit that was to be read.
    pub tree: Tree,
}

/// The spec files of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tree {
    /// The path isn't a directory of the commit.
    NoPath,
    /// The files under it in the order of their paths. There may be none.
    Files(Vec<Blob>),
}

/// How many commits of a branch are fetched to find one that is in force among them; after that its whole history.
pub const DEPTH: i32 = 64;

/// Another way to repositories than workers and the network: how a world has its own.
pub trait Repositories: Send + Sync {
    /// As [`Git::tip`].
    fn tip(&self, remote: &Remote) -> BoxFuture<'static, Result<Tip, Error>>;

    /// As [`Git::fetch`].
    fn fetch(&self, remote: &Remote, fetch: &Fetch<'_>) -> BoxFuture<'static, Result<Fetched, Error>>;
}

/// The door.
///
/// One call at a time for each `key`, a source's name: what is kept of it belongs to one worker.
pub struct Git(Way);

enum Way {
    Workers(Box<Workers>),
    Other(Arc<dyn Repositories>),
}

impl Git {
    /// `program` has the subcommand `git-worker`, which calls [`worker()`]; `root` is a directory that nobody else uses.
    #[must_use]
    pub fn new(program: PathBuf, root: PathBuf) -> Self {
        Self(Way::Workers(Box::new(Workers::new(program, root))))
    }

    /// A door to these repositories: without processes, files and threads.
    #[must_use]
    pub fn over(repositories: Arc<dyn Repositories>) -> Self {
        Self(Way::Other(repositories))
    }

    /// Which commit the branch is at. Over HTTP one request of a few hundred bytes; over SSH a worker lists the refs.
    ///
    /// # Errors
    /// When that isn't known after ten seconds. No error says that the branch is gone: that is [`Tip::Missing`].
    pub async fn tip(&self, key: &str, remote: &Remote) -> Result<Tip, Error> {
        let scheme = remote.check()?;
        match &self.0 {
            Way::Workers(workers) => workers.tip(key, remote, scheme).await,
            Way::Other(repositories) => in_time(TIP_TIMEOUT, repositories.tip(remote)).await,
        }
    }

    /// The files of a commit, and how the branch's tip follows the commit in force. A worker does it, and is killed
    /// when `timeout` is over. Caps: 64 MiB received, 256 KiB a file, 2,000 files and 16 MiB of them.
    ///
    /// # Errors
    /// When `read` can't be read. [`ErrorKind::Gone`]: the branch moved meanwhile, ask for its tip again; or `read` is
    /// a `since` that isn't to be had any more.
    pub async fn fetch(
        &self,
        key: &str,
        remote: &Remote,
        fetch: &Fetch<'_>,
        timeout: Duration,
    ) -> Result<Fetched, Error> {
        remote.check()?;
        match &self.0 {
            Way::Workers(workers) => workers.fetch(key, remote, fetch, timeout).await,
            Way::Other(repositories) => in_time(timeout, repositories.fetch(remote, fetch)).await,
        }
    }

    /// Drops what is kept of a source. Its next fetch starts anew.
    pub fn forget(&self, key: &str) {
        match &self.0 {
            Way::Workers(workers) => workers.forget(key),
            // Whoever has a way of their own keeps what they like.
            Way::Other(_) => (),
        }
    }

    /// Does what may take a while where nobody waits for the thread: on another one, which a world doesn't have.
    pub(super) async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match &self.0 {
            Way::Workers(_) => tokio::task::spawn_blocking(work)
                .await
                .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
            Way::Other(_) => work(),
        }
    }
}

async fn in_time<T>(limit: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let answer = tokio::time::timeout(limit, answer).await;
    answer.unwrap_or_else(|_| Err(Error::late(limit)))
}

/// A name for a directory, different for different texts.
fn short_hash(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().iter().take(16).fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
