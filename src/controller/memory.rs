//! What is kept between two passes. All of it may be forgotten: it then takes longer until somebody acts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::domain::{Address, GroupId};

/// Namespace and name of a cluster.
pub(super) type Key = (String, String);

#[derive(Default)]
struct Known {
    /// Since when servers have been silent.
    silent: HashMap<Address, Instant>,
    /// Since when nodes that pods name have been missing.
    missing_nodes: HashMap<String, Instant>,
    /// Switchovers that failed: how often in a row, and when last.
    failed_moves: HashMap<GroupId, (u32, Instant)>,
}

/// What is remembered of each cluster.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<Key, Known>>);

impl Memory {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which nodes are missing now, and returns for how many seconds in a row each has been.
    pub(super) fn missing(&self, key: Key, missing: BTreeSet<String>, now: Instant) -> BTreeMap<String, u64> {
        let mut all = self.all();
        let since = &mut all.entry(key).or_default().missing_nodes;
        since.retain(|node, _| missing.contains(node));
        let seconds = |node: String| {
            let since = *since.entry(node.clone()).or_insert(now);
            (node, now.duration_since(since).as_secs())
        };
        missing.into_iter().map(seconds).collect()
    }

    /// A group's switchover failed.
    pub(super) fn move_failed(&self, key: Key, group: GroupId, now: Instant) {
        let mut all = self.all();
        let moves = &mut all.entry(key).or_default().failed_moves;
        let (times, last) = moves.entry(group).or_insert((0, now));
        (*times, *last) = (*times + 1, now);
    }

    /// A group's switchover succeeded.
    pub(super) fn moved(&self, key: Key, group: GroupId) {
        self.all().entry(key).or_default().failed_moves.remove(&group);
    }

    /// Groups whose last switchover failed: how often in a row, and how many seconds ago.
    pub(super) fn failed_moves(&self, key: &Key, now: Instant) -> BTreeMap<GroupId, (u32, u64)> {
        let all = self.all();
        let moves = all.get(key).into_iter().flat_map(|known| &known.failed_moves);
        moves
            .map(|(group, (times, last))| (*group, (*times, now.duration_since(*last).as_secs())))
            .collect()
    }

    /// Notes who is silent now, and returns for how many seconds in a row each has been.
    pub(super) fn silent(&self, namespace: &str, name: &str, now: Instant, silent: &[Address]) -> Vec<(Address, u64)> {
        let mut all = self.all();
        let since = &mut all.entry((namespace.to_owned(), name.to_owned())).or_default().silent;
        since.retain(|address, _| silent.contains(address));
        let seconds = |address: &Address, since: &mut HashMap<Address, Instant>| {
            now.duration_since(*since.entry(address.clone()).or_insert(now))
                .as_secs()
        };
        silent
            .iter()
            .map(|address| (address.clone(), seconds(address, since)))
            .collect()
    }

    pub(super) fn forget(&self, namespace: &str, name: &str) {
        self.all().remove(&(namespace.to_owned(), name.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn silence_is_counted_from_its_beginning_and_anew_after_an_answer() {
        let (memory, start) = (Memory::default(), Instant::now());
        let server = Address::new("10.0.0.1", 6379);
        let at = |seconds: u64, silent: &[Address]| {
            memory
                .silent("ns", "c", start + Duration::from_secs(seconds), silent)
                .first()
                .map(|(_, for_)| *for_)
        };
        assert_eq!(at(0, std::slice::from_ref(&server)), Some(0));
        assert_eq!(at(7, std::slice::from_ref(&server)), Some(7));
        assert_eq!(at(8, &[]), None);
        assert_eq!(at(9, &[server]), Some(0));
    }
}
