//! What happens by itself: replicas catch up, sentinels act, clients write, slots move.

use std::collections::BTreeSet;

use super::life::{GROUPS, KEYED, Life, Process, SECONDS, Stage, gid, group_of, number, percent};
use crate::domain::{Address, GroupId, Route, SLOT_COUNT, SlotMapping, SlotMove};

impl Life {
    /// Some time passes: servers come back, replicas catch up, sentinels act, clients write, slots move.
    pub(super) fn tick(&mut self) {
        self.away = self.away.saturating_sub(1);
        for (_, ago) in self.failed_moves.values_mut() {
            *ago += SECONDS;
        }
        for sentinel in self.sentinels.values_mut() {
            sentinel.out = sentinel.out.saturating_sub(1);
        }
        for process in self.processes.values_mut() {
            process.out = process.out.saturating_sub(1);
            process.silent_for = if !process.answers() {
                process.silent_for + SECONDS
            } else {
                0
            };
        }
        self.gossip();
        self.write();
        self.replicate();
        self.fail_over();
        self.hear_sentinels();
        if self.away == 0 && !self.has_dead_record() {
            self.migrate();
        }
    }

    pub(super) fn replicate(&mut self) {
        for address in self.processes.keys().cloned().collect::<Vec<_>>() {
            let replica = &self.processes[&address];
            let Some(master) = replica.follows.clone() else {
                continue;
            };
            let source = &self.processes[&master];
            let may = replica.answers()
                && replica.broken <= 1
                && source.answers()
                && (source.follows.is_none() || source.link);
            let (keys, offset, was_up) = (source.keys.clone(), source.offset, replica.link);
            let comes_up = may && (was_up || percent(&mut self.chance, 60));
            let replica = self.processes.get_mut(&address).unwrap();
            replica.broken = replica.broken.saturating_sub(1);
            replica.link = comes_up;
            if comes_up {
                (replica.keys, replica.offset, replica.link_down_for) = (keys, offset, Some(0));
            } else if let (Some(seconds), false) = (&mut replica.link_down_for, was_up) {
                *seconds += SECONDS;
            }
        }
    }

    /// A sentinel that was away hears of a newer master from the others (contract §11).
    fn gossip(&mut self) {
        for id in (1..=GROUPS).map(gid) {
            let Some(word) = self.word_of_sentinels(id) else {
                continue;
            };
            let answering = self.sentinels.values_mut().filter(|sentinel| sentinel.out == 0);
            for known in answering.filter_map(|sentinel| sentinel.watches.get_mut(&id)) {
                known.clone_from(&word);
            }
        }
    }

    /// Sentinels promote a replica that was in touch with its master to the end.
    pub(super) fn fail_over(&mut self) {
        for id in (1..=GROUPS).map(gid) {
            let Some(old) = self.word_of_sentinels(id) else {
                continue;
            };
            let silent_for = self.processes[&old].silent_for;
            // One that was started just now becomes a member long before sentinels know it.
            let known = self.topology.groups.get(&id);
            let is_member = |address: &Address| known.is_none_or(|g| g.servers.iter().any(|s| s.address == *address));
            let was_in_touch = |p: &Process| p.link_down_for.is_some_and(|seconds| seconds <= silent_for);
            let fit = |address: &Address, p: &Process| {
                // They reach it where it says that it is.
                let is_reached = p.answers() && p.announced.as_ref() == Some(address);
                is_member(address) && is_reached && p.follows.as_ref() == Some(&old) && was_in_touch(p)
            };
            let fit = self.processes.iter().filter(|(address, p)| fit(address, p));
            let fit: Vec<Address> = fit.map(|(address, _)| address.clone()).collect();
            if silent_for < 3 * SECONDS || fit.is_empty() || !percent(&mut self.chance, 40) {
                continue;
            }
            let new = fit[self.chance.usize(..fit.len())].clone();
            self.processes.get_mut(&new).unwrap().follows = None;
            for process in self
                .processes
                .values_mut()
                .filter(|p| p.answers() && p.follows.as_ref() == Some(&old))
            {
                process.attach(&new);
            }
            for sentinel in self.sentinels.values_mut().filter(|sentinel| sentinel.out == 0) {
                sentinel.watches.insert(id, new.clone());
            }
            for route in self
                .proxies
                .iter_mut()
                .flat_map(|p| &mut p.table)
                .filter(|r| r.group == Some(id))
            {
                route.master = Some(new.clone());
            }
            self.topology
                .proxies
                .iter_mut()
                .for_each(|record| record.switched = true);
            self.replaced.insert(old, new);
        }
        for (old, new) in self.replaced.clone() {
            let is_word = self.word_of_sentinels(group_of(&old)).as_ref() == Some(&new);
            let process = self.processes.get_mut(&old).unwrap();
            if !process.pod || !is_word || process.follows.is_some() {
                self.replaced.remove(&old);
            } else if process.answers() && percent(&mut self.chance, 50) {
                process.attach(&new);
            }
        }
    }

    /// The dashboard follows the sentinels, by and by.
    pub(super) fn hear_sentinels(&mut self) {
        if self.away > 0 || self.topology.sentinels.servers.is_empty() {
            return;
        }
        for id in self.topology.groups.keys().copied().collect::<Vec<_>>() {
            let Some(word) = self.word_of_sentinels(id) else {
                continue;
            };
            if !percent(&mut self.chance, 70) {
                continue;
            }
            self.topology.sentinels.masters.insert(id, word.clone());
            let group = self.topology.groups.get_mut(&id).unwrap();
            let index = group.servers.iter().position(|server| server.address == word);
            if let (Some(index @ 1..), None) = (index, group.promoting) {
                group.servers.swap(0, index);
                group.out_of_sync = true;
            }
        }
    }

    pub(super) fn is_locked(&self, id: GroupId) -> bool {
        self.topology
            .groups
            .get(&id)
            .is_some_and(|group| group.promoting.is_some())
    }

    /// Clients write some keys through a proxy.
    pub(super) fn write(&mut self) {
        for _ in 0..self.chance.u64(..4) {
            let slot = self.chance.usize(..usize::from(SLOT_COUNT) / KEYED) * KEYED;
            let proxy = self.chance.usize(..self.proxies.len());
            let Route {
                group: Some(group),
                master: Some(master),
                from,
                ..
            } = self.proxies[proxy].table[slot].clone()
            else {
                continue;
            };
            if self.is_locked(group) || !self.processes[&master].is_master() {
                continue;
            }
            // A proxy has the source send the key over first.
            let source = from.and_then(|from| self.master_of(from));
            if from.is_some() && source.is_none_or(|source| !self.carry(slot, &source, &master)) {
                continue;
            }
            let count = self.written.get(&slot).copied().unwrap_or(0) + 1;
            self.written.insert(slot, count);
            self.put(&master, slot, Some(count));
        }
    }

    pub(super) fn master_of(&self, id: GroupId) -> Option<Address> {
        self.topology.groups.get(&id)?.master().cloned()
    }

    /// Changes a key at a master and the replicas that are in touch with it.
    pub(super) fn put(&mut self, master: &Address, slot: usize, count: Option<u32>) {
        let process = self.processes.get_mut(master).unwrap();
        process.offset += 1;
        let offset = process.offset;
        let has = |(address, process): &(&Address, &mut Process)| {
            *address == master || process.answers() && process.link && process.follows.as_ref() == Some(master)
        };
        for (_, process) in self.processes.iter_mut().filter(has) {
            process.offset = offset;
            match count {
                Some(count) => process.keys.insert(slot, count),
                None => process.keys.remove(&slot),
            };
        }
    }

    pub(super) fn carry(&mut self, slot: usize, from: &Address, to: &Address) -> bool {
        if !self.processes[from].is_master() || !self.processes[to].is_master() {
            return false;
        }
        if let Some(count) = self.processes[from].keys.get(&slot).copied() {
            self.put(to, slot, Some(count));
            self.put(from, slot, None);
        }
        true
    }

    /// The dashboard's loop, and its executor.
    pub(super) fn migrate(&mut self) {
        let mut all: Vec<SlotMapping> = self
            .topology
            .slots
            .iter()
            .filter(|slot| slot.moving.is_some())
            .copied()
            .collect();
        all.sort_by_key(|slot| slot.moving.is_some_and(|moving| moving.pending));
        let (mut busy, mut budget) = (BTreeSet::new(), self.chance.u64(..60));
        for slot in all {
            let (Some(from), Some(moving)) = (slot.group, slot.moving) else {
                continue;
            };
            let is_free = !busy.contains(&from) && !busy.contains(&moving.to) && !self.topology.migrations_disabled;
            if !is_free || budget == 0 {
                continue;
            }
            budget -= 1;
            // Mostly it comes to its end; now and then something is in its way.
            let steps = if percent(&mut self.chance, 90) {
                4
            } else {
                self.chance.u64(..4)
            };
            for _ in 0..steps {
                if self.topology.slots[number(slot.id)].moving.is_some() {
                    self.advance(number(slot.id), from, moving.to);
                }
            }
            if self.topology.slots[number(slot.id)].moving.is_some() {
                busy.extend([from, moving.to]);
            }
        }
    }

    pub(super) fn advance(&mut self, slot: usize, from: GroupId, to: GroupId) {
        let stage = match self.stages.get(&slot) {
            None => Some(Stage::Preparing),
            Some(Stage::Preparing) => Some(Stage::Migrating),
            Some(Stage::Migrating) => {
                let masters = self.master_of(from).zip(self.master_of(to));
                let is_locked = self.is_locked(from) || self.is_locked(to);
                if is_locked || masters.is_none_or(|(from, to)| !self.carry(slot, &from, &to)) {
                    return;
                }
                Some(Stage::Finished)
            }
            Some(Stage::Finished) => None,
        };
        let mapping = &mut self.topology.slots[slot];
        if let Some(stage) = stage {
            mapping.moving = Some(SlotMove { to, pending: false });
            self.truth[slot] = Some((from, Some(to)));
            self.stages.insert(slot, stage);
        } else {
            (mapping.group, mapping.moving) = (Some(to), None);
            self.truth[slot] = Some((to, None));
            self.stages.remove(&slot);
        }
        self.push(&[slot]);
    }
}
