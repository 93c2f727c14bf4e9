//! What a fault did: the input of the invariants.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::support::{
    health::Snapshot,
    writer::{Acknowledged, Written},
};

/// What a fault did to a cluster that healed.
pub struct Outcome {
    /// The cluster before.
    pub before: Snapshot,
    /// The cluster when it was healthy again.
    pub after: Snapshot,
    /// When the fault began.
    pub at: Instant,
    /// When the last process was dead.
    pub dead: Instant,
    /// The pods that were killed.
    pub killed: BTreeSet<String>,
    /// How long the killed servers were away, as far as it was looked at.
    pub away: Duration,
    /// What became of the writes.
    pub written: Written,
    /// Acknowledged writes that can't be read any more.
    pub lost: Vec<Acknowledged>,
    /// Lines `+switch-master` of the sentinels' logs since the fault.
    pub switches: BTreeSet<String>,
    /// Events on the cluster since the fault: reason and message.
    pub events: BTreeSet<String>,
}

impl Outcome {
    /// Groups whose master was killed, with the pod that was it.
    pub fn masters_killed(&self) -> Vec<(i64, String)> {
        let groups = self.before.topology.groups.keys();
        let masters = groups.filter_map(|id| Some((*id, self.before.master_of(*id).ok()?)));
        masters.filter(|(_, master)| self.killed.contains(master)).collect()
    }

    /// Whether a sentinel told of a switch of this group's master.
    pub fn switched(&self, group: i64) -> bool {
        let suffix = format!("-{group}");
        let names = self
            .switches
            .iter()
            .filter_map(|line| line.split("+switch-master ").nth(1)?.split(' ').next());
        names.into_iter().any(|name| name.ends_with(&suffix))
    }
}
