//! A topology that was lost: what it was, and whether it comes back as it was.

use std::collections::{BTreeMap, BTreeSet};

use codis_double::dashboard::View;

use super::scenario::Scenario;

/// The servers of each group.
type Members = BTreeMap<i64, BTreeSet<String>>;

/// What a coordinator had when it was emptied.
#[derive(Default)]
pub struct Lost {
    /// Dashboards up to this container may still remember it; 0 before it was ever lost.
    last: u64,
    /// The group of each slot.
    slots: Option<Vec<i64>>,
    members: Option<Members>,
    is_back: bool,
}

impl Lost {
    /// What a dashboard knows is lost now; containers up to `last` may still remember it. Where slots move or servers get
    /// other addresses meanwhile, nobody can say what it is to be.
    pub fn begins(&mut self, last: u64, view: Option<&View>, scenario: &Scenario) {
        // Lost again before it came back: what it is to be was told before.
        if !self.is_away() {
            let view = view.filter(|_| !scenario.moves_slots());
            self.slots = view.and_then(View::slot_owners);
            self.members = view.filter(|_| !scenario.takes_addresses()).and_then(members);
        }
        (self.is_back, self.last) = (false, last);
    }

    /// Whether it is away.
    pub fn is_away(&self) -> bool {
        self.last > 0 && !self.is_back
    }

    /// Looks at the slots of a dashboard. What must not be, if so.
    pub fn look(&mut self, number: u64, owners: &[i64]) -> Result<(), String> {
        if !self.is_away() || number <= self.last {
            return Ok(());
        }
        self.is_back = owners.iter().all(|owner| *owner > 0);
        let Some(before) = &self.slots else { return Ok(()) };
        let differ = |(before, now): &(&i64, &i64)| **now > 0 && before != now;
        match before.iter().zip(owners).filter(differ).count() {
            0 => Ok(()),
            count => Err(format!("{count} slots came back with another group than they had")),
        }
    }

    /// Whether all is back in the end.
    pub fn end(&self, view: &View) -> Result<(), String> {
        let now = members(view);
        match (&self.members, &now) {
            _ if self.last == 0 => Ok(()),
            _ if !self.is_back => Err("the topology was lost and never came back".to_owned()),
            (Some(before), Some(now)) if before != now => {
                Err(format!("the groups were {before:?} and came back as {now:?}"))
            }
            _ => Ok(()),
        }
    }
}

fn members(view: &View) -> Option<Members> {
    let groups = view.groups()?.into_iter();
    let servers = |group: codis_double::wire::Group| group.servers.into_iter().map(|server| server.addr).collect();
    Some(groups.map(|group| (group.id, servers(group))).collect())
}
