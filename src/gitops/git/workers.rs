//! The way to real repositories: polls over HTTP, and workers for everything else.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Error, ErrorKind, Fetch, Fetched, Remote, TIP_TIMEOUT, Tip,
    http::Polls,
    in_time,
    job::{Done, Job, Task},
    process,
    remote::Scheme,
    short_hash,
};

/// Workers at the same time, besides one for sources that are slow. Each may use 192 MiB (see `process`).
const FAST_WORKERS: usize = 2;

/// What is kept of a source lies in a directory of its own, so that a fetch brings only what is new.
pub(super) struct Workers {
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

impl Workers {
    pub(super) fn new(program: PathBuf, root: PathBuf) -> Self {
        Self {
            program,
            root,
            polls: Polls::default(),
            lanes: Lanes::default(),
        }
    }

    pub(super) async fn tip(&self, key: &str, remote: &Remote, scheme: Scheme) -> Result<Tip, Error> {
        let tip = match scheme {
            Scheme::Http => in_time(TIP_TIMEOUT, self.polls.tip(key, remote)).await,
            Scheme::Ssh => match self.work(key, remote, Task::Tip, TIP_TIMEOUT).await {
                Ok(Done::Tip(tip)) => Ok(tip),
                Ok(Done::Fetched(_)) => Err(Error::worker("it answered another question")),
                Err(error) => Err(error),
            },
        };
        tip.map_err(|error| remote.credentials.scrub(error))
    }

    pub(super) async fn fetch(
        &self,
        key: &str,
        remote: &Remote,
        fetch: &Fetch<'_>,
        timeout: Duration,
    ) -> Result<Fetched, Error> {
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

    pub(super) fn forget(&self, key: &str) {
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
