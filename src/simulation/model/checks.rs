//! What must be true of a life at every moment, and at its end.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Layout, Story,
    life::{KEYED, group_of, ordinal_of},
    telling::{Telling, members},
};
use crate::domain::{Address, GroupId, SLOT_COUNT, SlotMapping};

/// So many moves may be at the dashboard at once.
const QUEUED: usize = 64;

/// What doesn't depend on which of equals was chosen.
#[derive(Debug, PartialEq)]
pub(super) struct End {
    /// How many servers each group has.
    members: BTreeMap<GroupId, u16>,
    /// Where it is said how many slots each group is to have.
    sizes: Option<Vec<usize>>,
}

impl Telling {
    /// What must be true at every moment.
    pub(super) fn inspect(&mut self) -> Result<(), String> {
        self.owners_are_as_they_were()?;
        let queued = self
            .life
            .topology
            .slots
            .iter()
            .filter(|slot| slot.moving.is_some())
            .count();
        if queued > QUEUED {
            return Err(format!("{queued} moves are queued"));
        }
        let holders = self.holders();
        let written = self.life.written.keys();
        written
            .copied()
            .try_for_each(|slot| self.key_is_kept(slot, &holders[slot / KEYED]))
    }

    fn owners_are_as_they_were(&mut self) -> Result<(), String> {
        let life = &mut self.life;
        let is_whole = life.is_whole();
        let dump = life.dump.as_ref().filter(|dump| dump.restoring);
        // It arrived, and nobody could say so: it is sent once more, before a proxy is told.
        let is_sent_again = |slot: &SlotMapping, at: GroupId| {
            let old = dump.map(|dump| dump.slots[usize::from(slot.id.get())]);
            old.is_some_and(|old| old.group == slot.group && old.moving.is_some_and(|moving| moving.to == at))
        };
        for (slot, truth) in life.topology.slots.iter().zip(&mut life.truth) {
            let Some(owner) = slot.group else { continue };
            match truth {
                None => *truth = Some((owner, None)),
                Some((from, _)) if *from == owner => {}
                Some((at, None)) if is_sent_again(slot, *at) => {}
                // Lost on its way, it was put back where it was going to.
                Some((_, Some(to))) if *to == owner && is_whole => *truth = Some((owner, None)),
                Some((_, Some(to))) if *to == owner => {}
                Some(before) => return Err(format!("slot {} was at {before:?} and is given to {owner}", slot.id)),
            }
        }
        Ok(())
    }

    /// Of every slot that may have a key, who has what was written last.
    fn holders(&self) -> Vec<Vec<(GroupId, &Address)>> {
        let life = &self.life;
        let mut holders = vec![Vec::new(); usize::from(SLOT_COUNT) / KEYED];
        for (address, process) in life.processes.iter().filter(|(_, process)| process.pod) {
            let holder = (group_of(address), address);
            for (slot, count) in &process.keys {
                if life.written.get(slot) == Some(count) {
                    holders[slot / KEYED].push(holder);
                }
            }
        }
        holders
    }

    /// The last thing that was written is where proxies and the dashboard look for it.
    fn key_is_kept(&self, slot: usize, holders: &[(GroupId, &Address)]) -> Result<(), String> {
        let life = &self.life;
        let is_at = |group: Option<GroupId>| holders.iter().any(|(id, _)| Some(*id) == group);
        if holders.is_empty() {
            return Err(format!("nobody has the key of slot {slot}"));
        }
        for proxy in &life.proxies {
            let route = &proxy.table[slot];
            if route.group.is_some() && !is_at(route.group) && !is_at(route.from) {
                return Err(format!(
                    "a proxy takes slot {slot} for {route:?}, and its key is at {holders:?}"
                ));
            }
        }
        // Also where it is known by an earlier address.
        let is_same = |id: GroupId, holder: &Address, known: &Address| {
            id == group_of(known) && ordinal_of(holder) == ordinal_of(known)
        };
        let mapping = life.topology.slots[slot];
        let Some(group) = mapping.group else { return Ok(()) };
        let again = life
            .dump
            .as_ref()
            .filter(|dump| dump.restoring)
            .and_then(|dump| dump.slots[slot].moving);
        let way = mapping
            .moving
            .filter(|moving| !moving.pending)
            .or(again)
            .map(|moving| moving.to);
        let is_official = |id: Option<GroupId>| {
            let known = id.and_then(|id| life.topology.groups.get(&id));
            known.is_some_and(|known| {
                let is_there = |address: &Address| holders.iter().any(|(id, holder)| is_same(*id, holder, address));
                known.servers.iter().any(|server| is_there(&server.address))
            })
        };
        // A group that is being put back has only its master at first.
        if is_official(Some(group)) || is_official(way) || !life.is_whole() && (is_at(Some(group)) || is_at(way)) {
            return Ok(());
        }
        Err(format!("slot {slot} is {mapping:?}, and its key is at {holders:?}"))
    }

    /// The end is the wish.
    pub(super) fn end(&self, story: &Story) -> Result<End, String> {
        let life = &self.life;
        let all = |id| (0..life.cluster.group_size).map(move |ordinal| life.address(id, ordinal));
        let wished = life.cluster.wished_groups().map(|id| (id, all(id).collect()));
        let wished: BTreeMap<GroupId, BTreeSet<Address>> = wished.collect();
        let members = members(life).into_iter();
        let members = members.map(|(id, servers)| (id, servers.into_iter().collect()));
        let members: BTreeMap<GroupId, BTreeSet<Address>> = members.collect();
        let sets: BTreeMap<GroupId, u16> = wished.keys().map(|id| (*id, life.cluster.group_size)).collect();
        if members != wished || life.sets != sets {
            return Err(format!("it ended with {members:?} and {:?}", life.sets));
        }
        let mut sizes: Vec<usize> = wished.keys().map(|id| life.topology.slots_of(*id)).collect();
        sizes.sort_unstable();
        let is_level = !matches!(story.layout, Layout::Any(_)) || life.cluster.groups > story.groups;
        if is_level && sizes[sizes.len() - 1] - sizes[0] > 1 {
            return Err(format!("the slots are not level: {sizes:?}"));
        }
        self.keys_are_in_place()?;
        Ok(End {
            members: sets,
            sizes: is_level.then_some(sizes),
        })
    }

    /// Every member has the keys of its group's slots, and no others.
    fn keys_are_in_place(&self) -> Result<(), String> {
        let life = &self.life;
        for group in life.topology.groups.values() {
            let is_theirs = |(slot, _): &(&usize, &u32)| life.topology.slots[**slot].group == Some(group.id);
            let theirs: BTreeMap<usize, u32> = life.written.iter().filter(is_theirs).map(|(s, n)| (*s, *n)).collect();
            for server in &group.servers {
                let has = &life.processes[&server.address].keys;
                if *has != theirs {
                    return Err(format!("{} has {has:?} instead of {theirs:?}", server.address));
                }
            }
        }
        Ok(())
    }
}
