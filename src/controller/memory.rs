//! What is kept between two passes. All of it may be forgotten: it then takes longer until somebody acts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::{Address, Dump, GroupId, Part, SlotId};

/// A cluster that stops serving within this time after a step that could have waited fell by it.
const BLAMED_FOR: Duration = Duration::from_secs(60);
/// For so long nobody takes such a step after several clusters fell.
const STOPPED_FOR: Duration = Duration::from_secs(600);
/// So many clusters are several.
const TOO_MANY: usize = 2;

/// Namespace and name of a cluster.
pub(super) type Key = (String, String);

#[derive(Default)]
struct Known {
    /// Since when servers have been silent.
    silent: HashMap<Address, Instant>,
    /// When a step that could have waited was last taken.
    voluntary: Option<Instant>,
    /// When it stopped serving soon after one.
    fell: Option<Instant>,
    /// Since when nodes that pods name have been missing.
    missing_nodes: HashMap<String, Instant>,
    /// Since when sentinels have named other masters than the dashboard.
    disagreeing: HashMap<GroupId, Instant>,
    /// Since when slots have been on their way.
    moving: HashMap<SlotId, Instant>,
    /// Since when parts of the predecessor have led nobody to them.
    unused: HashMap<Part, Instant>,
    /// Switchovers that failed: how often in a row, and when last.
    failed_moves: HashMap<GroupId, (u32, Instant)>,
    /// When a switchover last failed, or who remembers began to.
    unswept: Option<Instant>,
    /// The dump of its topology, as it was last read.
    dump: Option<Dump>,
}

/// For how many seconds in a row each has been there, of those that are there now.
fn seconds<T: Clone + Ord + Hash>(
    since: &mut HashMap<T, Instant>,
    there: impl IntoIterator<Item = T>,
    now: Instant,
) -> BTreeMap<T, u64> {
    let there: BTreeSet<T> = there.into_iter().collect();
    since.retain(|known, _| there.contains(known));
    let counted = there.into_iter().map(|one| {
        let began = *since.entry(one.clone()).or_insert(now);
        (one, now.duration_since(began).as_secs())
    });
    counted.collect()
}

/// What is remembered of each cluster.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<Key, Known>>);

impl Memory {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a cluster fares: whether a step that could have waited is taken now, and whether it serves.
    pub(super) fn fares(&self, key: Key, steps: bool, serves: bool, now: Instant) {
        let mut all = self.all();
        let known = all.entry(key).or_default();
        if steps {
            known.voluntary = Some(now);
        }
        let is_after_a_step = known.voluntary.is_some_and(|at| now.duration_since(at) < BLAMED_FOR);
        if !serves && is_after_a_step {
            known.fell = Some(now);
        }
    }

    /// Why no cluster takes a step that could wait: several stopped serving soon after theirs.
    pub(super) fn stopped(&self, now: Instant) -> Option<String> {
        let all = self.all();
        let fell = all
            .iter()
            .filter(|(_, known)| known.fell.is_some_and(|at| now.duration_since(at) < STOPPED_FOR));
        let mut fell: Vec<String> = fell
            .map(|((namespace, name), _)| format!("{namespace}/{name}"))
            .collect();
        fell.sort();
        (fell.len() >= TOO_MANY).then(|| {
            let minutes = STOPPED_FOR.as_secs() / 60;
            format!(
                "changes that can wait are stopped for {minutes} min: {} stopped serving after theirs",
                fell.join(", ")
            )
        })
    }

    /// Notes which nodes are missing now, and returns for how many seconds in a row each has been.
    pub(super) fn missing(&self, key: Key, missing: BTreeSet<String>, now: Instant) -> BTreeMap<String, u64> {
        let mut all = self.all();
        seconds(&mut all.entry(key).or_default().missing_nodes, missing, now)
    }

    /// Notes which slots are on their way, and returns for how many seconds each has been.
    pub(super) fn moving(&self, key: Key, slots: Vec<SlotId>, now: Instant) -> BTreeMap<SlotId, u64> {
        let mut all = self.all();
        seconds(&mut all.entry(key).or_default().moving, slots, now)
    }

    /// Notes of which groups sentinels name another master than the dashboard, and returns for how many seconds they have.
    pub(super) fn disagreeing(&self, key: Key, groups: BTreeSet<GroupId>, now: Instant) -> BTreeMap<GroupId, u64> {
        let mut all = self.all();
        seconds(&mut all.entry(key).or_default().disagreeing, groups, now)
    }

    /// Notes which parts of the predecessor nobody is led to any more, and returns for how many seconds that has been so.
    pub(super) fn unused(&self, key: Key, parts: BTreeSet<Part>, now: Instant) -> BTreeMap<Part, u64> {
        let mut all = self.all();
        seconds(&mut all.entry(key).or_default().unused, parts, now)
    }

    /// The dump of a cluster's topology: what was read, or where nothing is there any more what was there last.
    pub(super) fn dump(&self, key: Key, read: Option<Result<Dump, String>>, uid: &str) -> Option<Result<Dump, String>> {
        let mut all = self.all();
        let known = &mut all.entry(key).or_default().dump;
        match read {
            Some(Ok(dump)) => {
                *known = Some(dump.clone());
                Some(Ok(dump))
            }
            Some(Err(why)) => Some(Err(why)),
            None => known.clone().filter(|dump| dump.cluster_uid == uid).map(Ok),
        }
    }

    /// A group's switchover failed.
    pub(super) fn move_failed(&self, key: Key, group: GroupId, now: Instant) {
        let mut all = self.all();
        let known = all.entry(key).or_default();
        known.unswept = Some(now);
        let (times, last) = known.failed_moves.entry(group).or_insert((0, now));
        (*times, *last) = (*times + 1, now);
    }

    /// A group's switchover succeeded.
    pub(super) fn moved(&self, key: Key, group: GroupId) {
        self.all().entry(key).or_default().failed_moves.remove(&group);
    }

    /// Whether a switchover failed within `limit`; or may have, before this process remembered anything.
    pub(super) fn may_be_unswept(&self, key: Key, limit: Duration, now: Instant) -> bool {
        let mut all = self.all();
        let since = *all.entry(key).or_default().unswept.get_or_insert(now);
        now.duration_since(since) < limit
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
    pub(super) fn silent(&self, key: Key, silent: Vec<Address>, now: Instant) -> BTreeMap<Address, u64> {
        let mut all = self.all();
        seconds(&mut all.entry(key).or_default().silent, silent, now)
    }

    pub(super) fn forget(&self, namespace: &str, name: &str) {
        self.all().remove(&(namespace.to_owned(), name.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_two_clusters_stop_serving_after_their_steps_all_steps_that_can_wait_stop_for_a_while() {
        let (memory, start) = (Memory::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let key = |name: &str| ("ns".to_owned(), name.to_owned());
        for name in ["a", "b", "c"] {
            memory.fares(key(name), name != "c", true, at(0));
        }
        memory.fares(key("a"), false, false, at(10));
        memory.fares(key("c"), false, false, at(10));
        assert_eq!(memory.stopped(at(11)), None, "one fell by a step, the other by itself");
        memory.fares(key("b"), false, false, at(20));
        assert!(memory.stopped(at(21)).is_some_and(|why| why.contains("ns/a, ns/b")));
        assert_eq!(memory.stopped(at(700)), None);
    }

    #[test]
    fn locks_are_looked_for_after_a_failure_even_if_the_next_try_succeeds_and_after_every_start() {
        let (memory, start, limit) = (Memory::default(), Instant::now(), Duration::from_secs(40));
        let key = || ("ns".to_owned(), "c".to_owned());
        let unswept = |seconds| memory.may_be_unswept(key(), limit, start + Duration::from_secs(seconds));
        assert!(unswept(0) && unswept(39) && !unswept(40));
        let group = GroupId::try_from(1).unwrap();
        memory.move_failed(key(), group, start + Duration::from_secs(100));
        memory.moved(key(), group);
        assert!(unswept(139) && !unswept(140));
    }

    #[test]
    fn a_dump_that_was_deleted_is_remembered_for_the_cluster_that_it_was_of() {
        let (memory, key) = (Memory::default(), || ("ns".to_owned(), "c".to_owned()));
        let dump = |restoring| Dump {
            cluster_uid: "a".to_owned(),
            restoring,
            ..Dump::default()
        };
        assert_eq!(memory.dump(key(), None, "a"), None);
        for restoring in [false, true] {
            let read = Some(Ok(dump(restoring)));
            assert_eq!(memory.dump(key(), read.clone(), "a"), read);
        }
        let unreadable = Some(Err("it is no JSON".to_owned()));
        assert_eq!(
            memory.dump(key(), unreadable.clone(), "a"),
            unreadable,
            "a person is about to correct it"
        );
        assert_eq!(memory.dump(key(), None, "a"), Some(Ok(dump(true))));
        assert_eq!(memory.dump(key(), None, "b"), None);
    }

    #[test]
    fn silence_is_counted_from_its_beginning_and_anew_after_an_answer() {
        let (memory, start) = (Memory::default(), Instant::now());
        let server = Address::new("10.0.0.1", 6379);
        let at = |seconds: u64, silent: &[Address]| {
            let (key, now) = (("ns".to_owned(), "c".to_owned()), start + Duration::from_secs(seconds));
            memory.silent(key, silent.to_vec(), now).values().next().copied()
        };
        assert_eq!(at(0, std::slice::from_ref(&server)), Some(0));
        assert_eq!(at(7, std::slice::from_ref(&server)), Some(7));
        assert_eq!(at(8, &[]), None);
        assert_eq!(at(9, &[server]), Some(0));
    }
}
