//! A volume: files, and redis's append-only file as a list of commands.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::host::Files;

/// With `appendfsync everysec` redis postpones a write for this long at most while the disk is busy.
const POSTPONED: Duration = Duration::from_secs(2);
/// What power loss takes with `appendfsync everysec`.
const UNSYNCED: Duration = Duration::from_secs(1);
/// Commands that are kept one by one before they are folded into the data.
const COMMANDS: usize = 4096;

/// The keys of all databases.
pub type Data = BTreeMap<u32, BTreeMap<Bytes, Bytes>>;

/// A change of a key: its database, its name, its value or none.
pub type Change = (u32, Bytes, Option<Bytes>);

/// The volume at `/data`. Cheap to clone: all clones are the same one.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    files: BTreeMap<String, Vec<u8>>,
    log: Option<Log>,
    slow: Option<Duration>,
}

/// An append-only file.
#[derive(Default)]
struct Log {
    base: Data,
    /// When it is with the kernel, when it is on the disk, and what.
    tail: Vec<(Instant, Instant, Change)>,
}

/// Applies a change.
pub fn apply(data: &mut Data, (database, key, value): Change) {
    let keys = data.entry(database).or_default();
    match value {
        Some(value) => keys.insert(key, value),
        None => keys.remove(&key),
    };
}

impl Disk {
    /// Writes to this volume take so long.
    pub fn set_slow(&self, slow: Option<Duration>) {
        self.inner().slow = slow;
    }

    /// The node lost power: what wasn't synced is gone.
    pub fn lose_power(&self) {
        let now = Instant::now();
        if let Some(log) = &mut self.inner().log {
            log.tail.retain(|(_, synced, _)| *synced <= now);
        }
    }

    /// All is gone.
    pub fn wipe(&self) {
        let mut inner = self.inner();
        (inner.files, inner.log) = (BTreeMap::new(), None);
    }

    /// What an append-only file holds, if there is one.
    pub fn load(&self) -> Option<Data> {
        let mut inner = self.inner();
        let log = inner.log.as_mut()?;
        log.fold();
        Some(log.base.clone())
    }

    /// A key's value in database 0, as a server that starts now would have it.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        let inner = self.inner();
        let log = inner.log.as_ref()?;
        let last = log
            .tail
            .iter()
            .rev()
            .find(|(_, _, change)| change.0 == 0 && change.1 == key);
        match last {
            Some((_, _, (_, _, value))) => value.clone(),
            None => log.base.get(&0)?.get(key).cloned(),
        }
    }

    /// Replaces the append-only file.
    pub(super) fn rewrite(&self, base: Data) {
        self.inner().log = Some(Log { base, tail: Vec::new() });
    }

    /// Appends to it.
    pub(super) fn append(&self, change: Change) {
        let mut inner = self.inner();
        let now = Instant::now();
        let written = now + inner.slow.map_or(Duration::ZERO, |slow| slow.min(POSTPONED));
        if let Some(log) = &mut inner.log {
            log.tail.push((written, written + UNSYNCED, change));
            if log.tail.len() > COMMANDS {
                log.settle(now);
            }
        }
    }

    /// The process died: what it hadn't written is gone.
    pub(super) fn abandon(&self) {
        let now = Instant::now();
        if let Some(log) = &mut self.inner().log {
            log.tail.retain(|(written, _, _)| *written <= now);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn fold(&mut self) {
        for (_, _, change) in self.tail.drain(..) {
            apply(&mut self.base, change);
        }
    }

    /// Folds what can't be lost any more.
    fn settle(&mut self, now: Instant) {
        let safe = self.tail.iter().take_while(|(_, synced, _)| *synced <= now).count();
        for (_, _, change) in self.tail.drain(..safe) {
            apply(&mut self.base, change);
        }
    }
}

impl Files for Disk {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let inner = self.inner();
        // The start script looks for it by its name.
        if path.ends_with("/appendonlydir") {
            return Ok(inner.log.as_ref().map(|_| Vec::new()));
        }
        Ok(inner.files.get(path).cloned())
    }

    fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        self.inner().files.insert(path.to_owned(), content.to_vec());
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.inner().files.remove(path);
        Ok(())
    }

    fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let folder = format!("{}/", folder.trim_end_matches('/'));
        let inner = self.inner();
        let inside = inner.files.keys().filter_map(|path| path.strip_prefix(&folder));
        let mut names: Vec<String> = inside
            .filter_map(|rest| rest.split('/').next())
            .map(str::to_owned)
            .collect();
        names.dedup();
        Ok(names)
    }
}
