//! What a server holds: strings by key in databases, some with an end.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::hash;

/// What redis takes for itself; a figure of the order of a real one.
const OWN_MEMORY: u64 = 1 << 20;
/// What redis takes for a key besides its bytes.
const PER_KEY: u64 = 90;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: Bytes,
    /// When it expires, in milliseconds since 1970.
    pub(super) until: Option<i64>,
}

/// One database. Keys are sorted by their hash, so that a cursor is a place that stays where it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Database(BTreeMap<(u64, Bytes), Entry>);

/// All databases.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    databases: BTreeMap<u32, Database>,
    ends: BTreeSet<(i64, u32, Bytes)>,
    bytes: u64,
    count: u64,
}

fn place(key: &[u8]) -> u64 {
    // Cursors are positive and 0 is the end.
    (hash(key) >> 1) | 1
}

fn at(key: &[u8]) -> (u64, Bytes) {
    (place(key), Bytes::copy_from_slice(key))
}

impl Database {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many keys have an end.
    pub(super) fn ending(&self) -> usize {
        self.0.values().filter(|entry| entry.until.is_some()).count()
    }

    /// At least `count` keys from a cursor on, if there are as many, and the next cursor.
    pub(super) fn scan(&self, cursor: u64, count: usize) -> (u64, Vec<(&Bytes, &Entry)>) {
        let mut found = Vec::new();
        let mut last = 0;
        for ((place, key), entry) in self.0.range((cursor, Bytes::new())..) {
            if found.len() >= count && *place != last {
                return (*place, found);
            }
            last = *place;
            found.push((key, entry));
        }
        (0, found)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Entry)> {
        self.0.iter().map(|((_, key), entry)| (key, entry))
    }
}

impl Keys {
    /// The databases that hold keys.
    pub(super) fn databases(&self) -> impl Iterator<Item = (u32, &Database)> {
        let held = self.databases.iter().filter(|(_, database)| database.len() > 0);
        held.map(|(number, database)| (*number, database))
    }

    pub(super) fn database(&self, number: u32) -> Option<&Database> {
        self.databases.get(&number)
    }

    /// All keys there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Bytes that all of it takes, as a real one would reckon roughly.
    pub(super) fn memory(&self) -> u64 {
        OWN_MEMORY + self.bytes + self.count * PER_KEY
    }

    /// A value, whether or not its time is over.
    pub(super) fn get(&self, database: u32, key: &[u8]) -> Option<&Entry> {
        self.databases.get(&database)?.0.get(&at(key))
    }

    pub(super) fn put(&mut self, database: u32, key: &[u8], value: Bytes, until: Option<i64>) {
        self.remove(database, key);
        let spot = at(key);
        if let Some(until) = until {
            self.ends.insert((until, database, spot.1.clone()));
        }
        self.count += 1;
        self.bytes += (key.len() + value.len()) as u64;
        let entry = Entry { value, until };
        self.databases.entry(database).or_default().0.insert(spot, entry);
    }

    pub(super) fn remove(&mut self, database: u32, key: &[u8]) -> Option<Entry> {
        let removed = self.databases.get_mut(&database)?.0.remove(&at(key))?;
        if let Some(until) = removed.until {
            self.ends.remove(&(until, database, Bytes::copy_from_slice(key)));
        }
        self.count -= 1;
        self.bytes -= (key.len() + removed.value.len()) as u64;
        Some(removed)
    }

    /// A key whose time is over.
    pub(super) fn over(&self, now: i64) -> Option<(u32, Bytes)> {
        let (until, database, key) = self.ends.first()?;
        (*until <= now).then(|| (*database, key.clone()))
    }

    /// Empties one database.
    pub(super) fn clear(&mut self, database: u32) {
        let keys: Vec<Bytes> = self
            .databases
            .get(&database)
            .into_iter()
            .flat_map(Database::iter)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.remove(database, &key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_tells_every_key_that_is_there_all_the_time() {
        let mut keys = Keys::default();
        for number in 0..1000 {
            keys.put(0, format!("k{number}").as_bytes(), Bytes::new(), None);
        }
        let (mut cursor, mut seen) = (0, BTreeSet::new());
        loop {
            let (next, page) = keys.database(0).unwrap().scan(cursor, 7);
            let page: Vec<Bytes> = page.into_iter().map(|(key, _)| key.clone()).collect();
            for key in page {
                keys.remove(0, &key);
                seen.insert(key);
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen.len(), 1000);
        assert_eq!((keys.count(), keys.memory()), (0, OWN_MEMORY));
    }
}
