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

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use self::{
    credentials::Credentials,
    error::{Error, ErrorKind},
    remote::Remote,
    worker::worker,
};
use self::{
    http::Polls,
    job::{Done, Job, Task},
    remote::Scheme,
};
pub use super::{Blob, Content};

/// How long [`Git::tip`] may take in total.
const TIP_TIMEOUT: Duration = Duration::from_secs(10);
/// Workers at the same time, besides one for sources that are slow. Each may use 192 MiB (see `process`).
const FAST_WORKERS: usize = 2;

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

/// The door. What it keeps of a source lies in a directory of its own, so that a fetch brings only what is new.
///
/// One call at a time for each `key`, a source's name: its directory belongs to one worker.
pub struct Git {
    program: PathBuf,
    root: PathBuf,
    polls: Polls,
    lanes: Lanes,
}

/// Bounds the workers, and with them the memory. A source whose last call came too late waits with its like, so that
/// slow servers delay each other and nobody else.
struct Lanes {
    fast: Semaphore,
    slow: Semaphore,
    late: Mutex<HashSet<String>>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            fast: Semaphore::new(FAST_WORKERS),
            slow: Semaphore::new(1),
            late: Mutex::default(),
        }
    }
}

impl Lanes {
    fn late(&self) -> MutexGuard<'_, HashSet<String>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. The wait isn't part of any deadline.
    async fn enter(&self, key: &str) -> Result<SemaphorePermit<'_>, Error> {
        let is_late = self.late().contains(key);
        let lane = if is_late { &self.slow } else { &self.fast };
        lane.acquire()
            .await
            .map_err(|_| Error::worker("there is no place for it"))
    }

    fn note(&self, key: &str, is_late: bool) {
        if is_late {
            self.late().insert(key.to_owned());
        } else {
            self.late().remove(key);
        }
    }
}

impl Git {
    /// `program` has the subcommand `git-worker`, which calls [`worker()`]; `root` is a directory that nobody else uses.
    #[must_use]
    pub fn new(program: PathBuf, root: PathBuf) -> Self {
        Self {
            program,
            root,
            polls: Polls::default(),
            lanes: Lanes::default(),
        }
    }

    /// Which commit the branch is at. Over HTTP one request of a few hundred bytes; over SSH a worker lists the refs.
    ///
    /// # Errors
    /// When that isn't known after ten seconds. No error says that the branch is gone: that is [`Tip::Missing`].
    pub async fn tip(&self, key: &str, remote: &Remote) -> Result<Tip, Error> {
        let scheme = remote.check()?;
        let tip = match scheme {
            Scheme::Http => {
                let poll = self.polls.tip(key, remote);
                match tokio::time::timeout(TIP_TIMEOUT, poll).await {
                    Ok(answer) => answer,
                    Err(_) => Err(Error::late(TIP_TIMEOUT)),
                }
            }
            Scheme::Ssh => match self.work(key, remote, Task::Tip, TIP_TIMEOUT).await {
                Ok(Done::Tip(tip)) => Ok(tip),
                Ok(Done::Fetched(_)) => Err(Error::worker("it answered another question")),
                Err(error) => Err(error),
            },
        };
        tip.map_err(|error| remote.credentials.scrub(error))
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
        let task = Task::Fetch {
            tip: fetch.tip.to_owned(),
            since: fetch.since.map(ToOwned::to_owned),
            read: fetch.read.to_owned(),
            path: remote.normal_path()?,
            known: fetch.known.clone(),
        };
        match self.work(key, remote, task, timeout).await {
            Ok(Done::Fetched(fetched)) => Ok(fetched),
            Ok(Done::Tip(_)) => Err(Error::worker("it answered another question")),
            Err(error) => Err(remote.credentials.scrub(error)),
        }
    }

    /// Drops what is kept of a source. Its next fetch starts anew.
    pub fn forget(&self, key: &str) {
        self.polls.forget(key);
        self.lanes.note(key, false);
        // What stays behind costs space, and is replaced if the source comes back.
        if let Err(error) = std::fs::remove_dir_all(self.directory(key))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(key, %error, "what is kept of a Git source can't be removed");
        }
    }

    async fn work(&self, key: &str, remote: &Remote, task: Task, timeout: Duration) -> Result<Done, Error> {
        let job = Job {
            directory: self.directory(key),
            url: remote.url.clone(),
            branch: remote.branch.clone(),
            secret: remote.credentials.secret().clone(),
            task,
        };
        let _place = self.lanes.enter(key).await?;
        let done = process::run(&self.program, &job, timeout).await;
        let is_late = done.as_ref().is_err_and(|error| error.kind == ErrorKind::Timeout);
        self.lanes.note(key, is_late);
        done
    }

    fn directory(&self, key: &str) -> PathBuf {
        self.root.join(short_hash(&[key]))
    }
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
