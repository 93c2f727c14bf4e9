//! The volume of a pod: files, and redis's append-only file as a log of commands that knows what has reached the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::host::Files;

/// How far an everysec file may be behind.
const SECOND: Duration = Duration::from_secs(1);
/// How long redis postpones a write while a sync is under way (`aof.c`, `flushAppendOnlyFile`).
const POSTPONED: Duration = Duration::from_secs(2);

/// When the append-only file is synced: `appendfsync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before each reply.
    Always,
    /// Once a second.
    EverySecond,
    /// When the kernel likes to: here, never.
    Never,
}

/// A volume. Copies are the same volume.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    files: BTreeMap<String, Vec<u8>>,
    log: Option<Log>,
    /// How often a process has opened it: only the last may write.
    opened: u64,
    slow: Option<Duration>,
}

/// The append-only file.
struct Log {
    path: String,
    records: Vec<Record>,
    /// When the last sync began, while one may be under way.
    syncing_since: Option<Instant>,
}

struct Record {
    command: Logged,
    /// When it left the process's memory.
    written: Instant,
    /// When it was safe from a loss of power; none if that is never sure.
    synced: Option<Instant>,
}

/// A write command as it is in the log: its database and its RESP encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The number of the database.
    pub database: u32,
    /// The command, encoded.
    pub bytes: Bytes,
}

impl Disk {
    /// An empty volume.
    pub fn new() -> Self {
        Self::default()
    }

    /// The node lost its power: what wasn't synced is gone. Kill the process first.
    pub fn lose_power(&self) {
        let now = Instant::now();
        self.inner()
            .keep(|record| record.synced.is_some_and(|synced| synced <= now));
    }

    /// From now on each sync takes this long. With everysec a write waits for the sync before it, 2 s at most, and dies
    /// with its process meanwhile.
    pub fn set_slow(&self, sync: Option<Duration>) {
        self.inner().slow = sync;
    }

    /// An empty volume from now on.
    pub fn wipe(&self) {
        let mut inner = self.inner();
        inner.files.clear();
        inner.log = None;
    }

    /// How many commands a restart would find, and how many a loss of power now would leave.
    pub fn logged(&self) -> (usize, usize) {
        let now = Instant::now();
        let inner = self.inner();
        let Some(log) = &inner.log else { return (0, 0) };
        let synced = |record: &&Record| record.synced.is_some_and(|synced| synced <= now);
        (log.records.len(), log.records.iter().filter(synced).count())
    }

    /// A process begins: tells which one it is, from 1. Those before can't write any more.
    pub(crate) fn open(&self) -> u64 {
        let mut inner = self.inner();
        inner.opened += 1;
        inner.forget_unwritten();
        inner.opened
    }

    /// The process died: what it had not written is gone.
    pub(crate) fn close(&self, life: u64) {
        let mut inner = self.inner();
        if inner.opened == life {
            inner.forget_unwritten();
        }
    }

    /// All commands of the append-only file, which exists from now on.
    pub(crate) fn load(&self, path: &str) -> Vec<Logged> {
        let mut inner = self.inner();
        let log = inner.log.get_or_insert_with(|| Log::new(path));
        log.records.iter().map(|record| record.command.clone()).collect()
    }

    /// How many commands the append-only file has.
    pub(crate) fn length(&self) -> usize {
        self.inner().log.as_ref().map_or(0, |log| log.records.len())
    }

    /// How long a sync takes, if it is slow.
    pub(crate) fn slow(&self) -> Option<Duration> {
        self.inner().slow
    }

    /// Appends to the file if there is one.
    pub(crate) fn append(&self, life: u64, command: Logged, sync: Sync) {
        let now = Instant::now();
        let mut inner = self.inner();
        let slow = inner.slow.unwrap_or_default();
        if inner.opened != life {
            return;
        }
        if let Some(log) = &mut inner.log {
            log.append(command, sync, now, slow);
        }
    }

    /// Puts these in place of all commands, synced: the rewrite that ends a full synchronisation.
    pub(crate) fn rewrite(&self, life: u64, commands: Vec<Logged>) {
        let now = Instant::now();
        let mut inner = self.inner();
        if inner.opened != life {
            return;
        }
        if let Some(log) = &mut inner.log {
            let record = |command| Record {
                command,
                written: now,
                synced: Some(now),
            };
            log.records = commands.into_iter().map(record).collect();
        }
    }

    /// An orderly end writes and syncs everything.
    pub(crate) fn sync(&self, life: u64) {
        let now = Instant::now();
        let mut inner = self.inner();
        if inner.opened != life {
            return;
        }
        for record in inner.log.iter_mut().flat_map(|log| &mut log.records) {
            record.written = record.written.min(now);
            record.synced = Some(record.synced.map_or(now, |synced| synced.min(now)));
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn keep(&mut self, safe: impl FnMut(&Record) -> bool) {
        if let Some(log) = &mut self.log {
            log.records.retain(safe);
        }
    }

    fn forget_unwritten(&mut self) {
        let now = Instant::now();
        self.keep(|record| record.written <= now);
    }
}

impl Log {
    fn new(path: &str) -> Self {
        Self {
            path: path.into(),
            records: Vec::new(),
            syncing_since: None,
        }
    }

    fn append(&mut self, command: Logged, sync: Sync, now: Instant, slow: Duration) {
        let written = match sync {
            Sync::EverySecond => self.written(now, slow),
            Sync::Always | Sync::Never => now,
        };
        let synced = match sync {
            Sync::Always => Some(now),
            Sync::EverySecond => Some(written + SECOND + slow),
            Sync::Never => None,
        };
        self.records.push(Record {
            command,
            written,
            synced,
        });
    }

    /// When a write of now leaves the process: at once, or when the sync before it is over or has taken too long.
    fn written(&mut self, now: Instant, slow: Duration) -> Instant {
        let postponed = self.records.last().map(|last| last.written);
        if let Some(postponed) = postponed.filter(|written| *written > now) {
            return postponed;
        }
        match self.syncing_since {
            Some(since) if since + slow > now => (since + slow).min(now + POSTPONED),
            Some(since) if since + SECOND > now => now,
            _ => {
                self.syncing_since = Some(now);
                now
            }
        }
    }
}

/// Paths are absolute. The append-only file shows as a folder `appendonlydir`, whose content is nobody's business.
impl Files for Disk {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let inner = self.inner();
        if inner.log.as_ref().is_some_and(|log| log.path == path) {
            return Ok(Some(Vec::new()));
        }
        Ok(inner.files.get(path).cloned())
    }

    fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        self.inner().files.insert(path.into(), content.into());
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.files.remove(path);
        inner.log.take_if(|log| log.path == path);
        Ok(())
    }

    fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let inner = self.inner();
        let prefix = format!("{}/", folder.trim_end_matches('/'));
        let log = inner.log.as_ref().map(|log| &log.path);
        let within = inner
            .files
            .keys()
            .chain(log)
            .filter_map(|path| path.strip_prefix(&prefix));
        let names: BTreeSet<_> = within.filter_map(|rest| rest.split('/').next()).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }
}
