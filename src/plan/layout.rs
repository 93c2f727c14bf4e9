//! Which slots have to move, and where to: pure arithmetic over groups.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{GroupId, SlotId, SlotMapping};

/// The moves after which only `staying` groups have slots. Slots of other groups go where there are fewest; with `level`,
/// slots of the largest groups follow until no two groups differ by more than one. Slots that are on their way count
/// where they arrive, and aren't sent on before that. Offline slots aren't anybody's to move.
pub(super) fn moves(slots: &[SlotMapping], staying: &BTreeSet<GroupId>, level: bool) -> Vec<(SlotId, GroupId)> {
    let mut sizes: BTreeMap<GroupId, usize> = staying.iter().map(|group| (*group, 0)).collect();
    for owner in slots.iter().filter_map(SlotMapping::owner) {
        if let Some(size) = sizes.get_mut(&owner) {
            *size += 1;
        }
    }
    let settled = || slots.iter().filter(|slot| slot.moving.is_none());
    let mut moves = Vec::new();
    for slot in settled().filter(|slot| slot.group.is_some_and(|group| !staying.contains(&group))) {
        let Some(to) = smallest(&sizes) else { return moves };
        *sizes.entry(to).or_default() += 1;
        moves.push((slot.id, to));
    }
    let is_level = sizes.values().max() <= sizes.values().min().map(|least| least + 1).as_ref();
    if level && !is_level {
        // The highest slots go first, as in Codis's own rebalance (contract §6.6).
        let mut movable: BTreeMap<GroupId, Vec<SlotId>> = BTreeMap::new();
        for slot in settled() {
            if let Some(group) = slot.group {
                movable.entry(group).or_default().push(slot.id);
            }
        }
        moves.extend(levelling(&mut sizes, &mut movable));
    }
    moves
}

fn levelling(
    sizes: &mut BTreeMap<GroupId, usize>,
    movable: &mut BTreeMap<GroupId, Vec<SlotId>>,
) -> Vec<(SlotId, GroupId)> {
    let mut moves = Vec::new();
    loop {
        let has_movable = |group: &GroupId| movable.get(group).is_some_and(|slots| !slots.is_empty());
        let largest = sizes.iter().filter(|(group, _)| has_movable(group));
        let largest = largest
            .max_by_key(|(group, size)| (**size, **group))
            .map(|(group, _)| *group);
        let (Some(from), Some(to)) = (largest, smallest(sizes)) else {
            return moves;
        };
        if sizes[&from] <= sizes[&to] + 1 {
            return moves;
        }
        let Some(slot) = movable.get_mut(&from).and_then(Vec::pop) else {
            return moves;
        };
        *sizes.entry(from).or_default() -= 1;
        *sizes.entry(to).or_default() += 1;
        moves.push((slot, to));
    }
}

/// Groups are level when they differ by less than one such part of their mean: what servers say changes all the time.
const TOLERANCE: u64 = 20;

/// The same by what the groups hold (keys, bytes) instead of by their slots: a slot weighs what its group's slots weigh on
/// average. That of a slot that is on its way is where it comes from.
pub(super) fn moves_by_load(
    slots: &[SlotMapping],
    staying: &BTreeSet<GroupId>,
    level: bool,
    loads: &BTreeMap<GroupId, u64>,
) -> Vec<(SlotId, GroupId)> {
    let mut scales = Scales::of(slots, staying, loads);
    let leaving: Vec<GroupId> = scales
        .movable
        .keys()
        .filter(|group| !staying.contains(group))
        .copied()
        .collect();
    for from in leaving {
        while let Some(to) = scales.lightest().filter(|_| scales.has_movable(from)) {
            scales.shift(from, to);
        }
    }
    if level {
        scales.level();
    }
    scales.moves
}

/// What is in each group, in 1024ths, so that many light slots count too.
struct Scales {
    /// What a slot of a group weighs: at least 1, so that empty slots are spread as well.
    weights: BTreeMap<GroupId, u64>,
    /// What groups that stay have, once everything has arrived.
    loads: BTreeMap<GroupId, u64>,
    /// The slots that may be sent on.
    movable: BTreeMap<GroupId, Vec<SlotId>>,
    moves: Vec<(SlotId, GroupId)>,
}

impl Scales {
    fn of(slots: &[SlotMapping], staying: &BTreeSet<GroupId>, loads: &BTreeMap<GroupId, u64>) -> Self {
        let mut counts: BTreeMap<GroupId, u64> = BTreeMap::new();
        let mut movable: BTreeMap<GroupId, Vec<SlotId>> = BTreeMap::new();
        for slot in slots {
            let Some(group) = slot.group else { continue };
            *counts.entry(group).or_default() += 1;
            if slot.moving.is_none() {
                movable.entry(group).or_default().push(slot.id);
            }
        }
        let weight = |(group, count): (&GroupId, &u64)| {
            let load = loads.get(group).copied().unwrap_or(0);
            (*group, (load.saturating_mul(1024) / count).max(1))
        };
        let mut scales = Self {
            weights: counts.iter().map(weight).collect(),
            loads: staying.iter().map(|group| (*group, 0)).collect(),
            movable,
            moves: Vec::new(),
        };
        for slot in slots {
            if let (Some(from), Some(owner)) = (slot.group, slot.owner()) {
                scales.add(owner, scales.weight(from));
            }
        }
        scales
    }

    fn weight(&self, group: GroupId) -> u64 {
        self.weights.get(&group).copied().unwrap_or(1)
    }

    fn has_movable(&self, group: GroupId) -> bool {
        self.movable.get(&group).is_some_and(|slots| !slots.is_empty())
    }

    fn lightest(&self) -> Option<GroupId> {
        let lightest = self.loads.iter().min_by_key(|(group, load)| (**load, **group));
        lightest.map(|(group, _)| *group)
    }

    fn add(&mut self, group: GroupId, weight: u64) {
        if let Some(load) = self.loads.get_mut(&group) {
            *load += weight;
        }
    }

    /// Moves a slot, the highest first.
    fn shift(&mut self, from: GroupId, to: GroupId) {
        let Some(slot) = self.movable.get_mut(&from).and_then(Vec::pop) else {
            return;
        };
        let weight = self.weight(from);
        if let Some(load) = self.loads.get_mut(&from) {
            *load = load.saturating_sub(weight);
        }
        self.add(to, weight);
        self.moves.push((slot, to));
    }

    fn level(&mut self) {
        let groups = u64::try_from(self.loads.len()).unwrap_or(1).max(1);
        let tolerated = self.loads.values().sum::<u64>() / (TOLERANCE * groups);
        loop {
            let movable = self.loads.iter().filter(|(group, _)| self.has_movable(**group));
            let heaviest = movable.max_by_key(|(group, load)| (**load, **group));
            let (Some(from), Some(to)) = (heaviest.map(|(group, _)| *group), self.lightest()) else {
                return;
            };
            // A slot that is heavier than half of the difference would only turn it around.
            let difference = self.loads[&from].saturating_sub(self.loads[&to]);
            if difference <= tolerated.max(2 * self.weight(from)) {
                return;
            }
            self.shift(from, to);
        }
    }
}

fn smallest(sizes: &BTreeMap<GroupId, usize>) -> Option<GroupId> {
    sizes
        .iter()
        .min_by_key(|(group, size)| (**size, **group))
        .map(|(group, _)| *group)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::SlotMove;

    fn gid(id: u64) -> GroupId {
        GroupId::try_from(id).unwrap()
    }

    fn slots(owner: impl Fn(u16) -> Option<u64>) -> Vec<SlotMapping> {
        let slot = |id: SlotId| SlotMapping {
            id,
            group: owner(id.get()).map(gid),
            moving: None,
        };
        SlotId::all().map(slot).collect()
    }

    fn sizes(slots: &[SlotMapping], moves: &[(SlotId, GroupId)]) -> BTreeMap<GroupId, usize> {
        let moved: BTreeMap<SlotId, GroupId> = moves.iter().copied().collect();
        let mut sizes = BTreeMap::new();
        for slot in slots {
            let owner = moved.get(&slot.id).copied().or(slot.owner());
            *sizes.entry(owner.unwrap()).or_default() += 1;
        }
        sizes
    }

    #[test]
    fn a_new_group_takes_its_share_from_the_others_and_no_slot_moves_between_those() {
        let slots = slots(|id| Some(if id < 512 { 1 } else { 2 }));
        let moves = moves(&slots, &[gid(1), gid(2), gid(3)].into(), true);
        assert!(moves.iter().all(|(_, to)| *to == gid(3)));
        assert_eq!(
            sizes(&slots, &moves),
            [(gid(1), 342), (gid(2), 341), (gid(3), 341)].into()
        );
    }

    #[test]
    fn a_group_that_leaves_gives_all_its_slots_and_the_others_keep_theirs() {
        let slots = slots(|id| Some(u64::from(id) % 3 + 1));
        let moves = moves(&slots, &[gid(1), gid(2)].into(), false);
        assert_eq!(moves.len(), 341);
        assert_eq!(sizes(&slots, &moves), [(gid(1), 512), (gid(2), 512)].into());
    }

    #[test]
    fn without_anybody_who_stays_or_anything_to_do_nothing_moves() {
        let slots = slots(|id| Some(u64::from(id) % 2 + 1));
        assert_eq!(moves(&slots, &BTreeSet::new(), true), []);
        assert_eq!(moves(&slots, &[gid(1), gid(2)].into(), true), []);
        let nobodys = self::slots(|_| None);
        assert_eq!(moves(&nobodys, &[gid(1)].into(), true), []);
    }

    #[test]
    fn by_load_a_group_with_heavy_slots_gives_more_of_them() {
        let slots = slots(|id| Some(if id < 512 { 1 } else { 2 }));
        let loads = [(gid(1), 30_720), (gid(2), 10_240)].into();
        let moves = moves_by_load(&slots, &[gid(1), gid(2), gid(3)].into(), true, &loads);
        let from_first = moves.iter().filter(|(slot, _)| slot.get() < 512).count();
        let after = sizes(&slots, &moves);
        // 60 a slot of group 1, 20 of group 2: about 13,653 for each.
        assert!((265..=296).contains(&from_first), "{from_first}");
        assert!(
            after[&gid(2)] >= 500 && moves.iter().all(|(slot, to)| *to == gid(3) || slot.get() < 512),
            "{after:?}"
        );
    }

    #[test]
    fn by_load_what_is_even_enough_stays_and_empty_groups_share_slots() {
        let slots = slots(|id| Some(if id < 512 { 1 } else { 2 }));
        let near = [(gid(1), 10_300), (gid(2), 10_000)].into();
        assert_eq!(moves_by_load(&slots, &[gid(1), gid(2)].into(), true, &near), []);
        let nothing = [(gid(1), 0), (gid(2), 0)].into();
        let moves = moves_by_load(&slots, &[gid(1), gid(2), gid(3)].into(), true, &nothing);
        let least = *sizes(&slots, &moves).values().min().unwrap();
        assert!(least >= 300, "{least}");
    }

    proptest! {
        #[test]
        fn by_load_each_slot_moves_at_most_once_and_to_who_stays(
            owners in prop::collection::vec(1..5u64, 1024),
            loads in prop::collection::vec(0..5_000_000u64, 4),
            staying in prop::collection::btree_set(1..5u64, 1..5),
        ) {
            let slots = slots(|id| Some(owners[usize::from(id)]));
            let staying: BTreeSet<GroupId> = staying.into_iter().map(gid).collect();
            let loads = (1..).map(gid).zip(loads).collect();
            let moves = moves_by_load(&slots, &staying, true, &loads);
            let distinct: BTreeSet<SlotId> = moves.iter().map(|(slot, _)| *slot).collect();
            prop_assert_eq!(distinct.len(), moves.len());
            prop_assert!(moves.iter().all(|(slot, to)| staying.contains(to) && slots[usize::from(slot.get())].group != Some(*to)));
            prop_assert!(sizes(&slots, &moves).keys().all(|group| staying.contains(group)));
        }

        #[test]
        fn from_any_layout_each_slot_moves_at_most_once_and_the_rest_is_even(
            owners in prop::collection::vec(1..7u64, 1024),
            under_way in prop::collection::btree_map(0..1024usize, 1..7u64, 0..40),
            staying in prop::collection::btree_set(1..7u64, 1..6),
            level in any::<bool>(),
        ) {
            let mut slots = slots(|id| Some(owners[usize::from(id)]));
            for (slot, to) in under_way.iter().filter(|(slot, to)| owners[**slot] != **to) {
                slots[*slot].moving = Some(SlotMove { to: gid(*to), pending: false });
            }
            let staying: BTreeSet<GroupId> = staying.into_iter().map(gid).collect();
            let moves = moves(&slots, &staying, level);
            let distinct: BTreeSet<SlotId> = moves.iter().map(|(slot, _)| *slot).collect();
            prop_assert_eq!(distinct.len(), moves.len());
            for (slot, to) in &moves {
                let known = &slots[usize::from(slot.get())];
                prop_assert!(known.moving.is_none() && known.group != Some(*to) && staying.contains(to));
            }
            let sizes = sizes(&slots, &moves);
            let still_there: usize = sizes.iter().filter(|(group, _)| !staying.contains(group)).map(|(_, size)| size).sum();
            let on_their_way = slots.iter().filter(|slot| slot.moving.is_some_and(|moving| !staying.contains(&moving.to))).count();
            prop_assert_eq!(still_there, on_their_way, "what doesn't stay is given away once it has arrived");
            if level && under_way.is_empty() {
                let sizes: Vec<usize> = staying.iter().map(|group| sizes.get(group).copied().unwrap_or(0)).collect();
                prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
            }
        }
    }
}
