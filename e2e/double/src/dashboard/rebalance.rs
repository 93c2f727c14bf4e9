//! The rebalance plan (§6.6): pure, and exactly that of Codis.

use std::collections::{BTreeMap, BTreeSet};

use crate::SLOTS;
use crate::wire::SlotMapping;

/// The slots to move and the groups they go to; `groups` are the ids of groups with servers.
pub fn plan(groups: &BTreeSet<i64>, slots: &[SlotMapping]) -> Option<BTreeMap<i64, i64>> {
    if groups.is_empty() {
        return None;
    }
    let mut draft = Draft::new(groups);
    draft.count(slots);
    draft.place_offline(slots);
    draft.level();
    Some(draft.assign())
}

struct Draft<'a> {
    groups: &'a BTreeSet<i64>,
    lower: i64,
    upper: i64,
    fixed: BTreeMap<i64, i64>,
    movable: BTreeMap<i64, Vec<i64>>,
    out: BTreeMap<i64, i64>,
    pool: Vec<i64>,
}

impl<'a> Draft<'a> {
    fn new(groups: &'a BTreeSet<i64>) -> Self {
        let lower = (SLOTS / groups.len()) as i64;
        let upper = SLOTS.div_ceil(groups.len()) as i64;
        let (fixed, movable, out) = Default::default();
        Self {
            groups,
            lower,
            upper,
            fixed,
            movable,
            out,
            pool: Vec::new(),
        }
    }

    fn movable(&self, gid: i64) -> i64 {
        self.movable.get(&gid).map_or(0, |slots| slots.len() as i64)
    }

    fn out(&self, gid: i64) -> i64 {
        self.out.get(&gid).copied().unwrap_or(0)
    }

    fn size(&self, gid: i64) -> i64 {
        self.fixed.get(&gid).copied().unwrap_or(0) + self.movable(gid) - self.out(gid)
    }

    /// Steps 2 and 3: what stays, and what could move.
    fn count(&mut self, slots: &[SlotMapping]) {
        for slot in slots.iter().filter(|slot| !slot.action.state.is_empty()) {
            *self.fixed.entry(slot.action.target_id).or_default() += 1;
        }
        for slot in slots
            .iter()
            .filter(|slot| slot.action.state.is_empty() && slot.group_id != 0)
        {
            if self.size(slot.group_id) < self.lower {
                *self.fixed.entry(slot.group_id).or_default() += 1;
            } else {
                self.movable.entry(slot.group_id).or_default().push(slot.id);
            }
        }
    }

    /// Step 4: offline slots go where there are fewest.
    fn place_offline(&mut self, slots: &[SlotMapping]) {
        for slot in slots
            .iter()
            .filter(|slot| slot.action.state.is_empty() && slot.group_id == 0)
        {
            let Some(smallest) = self.groups.iter().copied().min_by_key(|gid| (self.size(*gid), *gid)) else {
                return;
            };
            self.pool.push(slot.id);
            *self.out.entry(smallest).or_default() -= 1;
        }
    }

    /// Step 5: from the largest to the smallest until they are level.
    fn level(&mut self) {
        let mut candidates = self.groups.clone();
        while candidates.len() >= 2 {
            let rank = |gid: &i64| (self.size(*gid), *gid);
            let (Some(from), Some(to)) = (
                candidates.iter().copied().max_by_key(rank),
                candidates.iter().copied().min_by_key(rank),
            ) else {
                return;
            };
            if self.out(from) == self.movable(from) {
                candidates.remove(&from);
                continue;
            }
            let level = self.size(from) - self.size(to) <= 1;
            if self.size(from) <= self.lower || self.size(to) >= self.upper || level {
                return;
            }
            *self.out.entry(from).or_default() += 1;
            *self.out.entry(to).or_default() -= 1;
        }
    }

    /// Steps 6 and 7: the highest slots of the large go, in order, to the small.
    fn assign(mut self) -> BTreeMap<i64, i64> {
        for (gid, out) in self.out.iter().filter(|(_, out)| **out > 0) {
            let movable = self.movable.get(gid).map_or(&[][..], Vec::as_slice);
            self.pool.extend(movable.iter().rev().take(*out as usize));
        }
        self.pool.sort_unstable();
        let mut pool = self.pool.into_iter();
        let mut plan = BTreeMap::new();
        for gid in self.groups {
            let wanted = self.out.get(gid).map_or(0, |out| (-out).max(0) as usize);
            plan.extend(pool.by_ref().take(wanted).map(|slot| (slot, *gid)));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(owner: impl Fn(i64) -> i64) -> Vec<SlotMapping> {
        (0..SLOTS as i64)
            .map(|id| SlotMapping {
                id,
                group_id: owner(id),
                ..Default::default()
            })
            .collect()
    }

    fn moves(groups: &[i64], owner: impl Fn(i64) -> i64) -> Vec<(i64, i64, i64)> {
        let plan = plan(&groups.iter().copied().collect(), &slots(owner)).unwrap();
        let mut runs: Vec<(i64, i64, i64)> = Vec::new();
        for (slot, gid) in plan {
            match runs.last_mut() {
                Some((_, last, to)) if *last + 1 == slot && *to == gid => *last = slot,
                _ => runs.push((slot, slot, gid)),
            }
        }
        runs
    }

    #[test]
    fn plans_are_those_the_contract_tells() {
        assert_eq!(moves(&[1, 2], |_| 0), [(0, 511, 1), (512, 1023, 2)]);
        assert_eq!(moves(&[1, 2, 3], |_| 0), [(0, 341, 1), (342, 682, 2), (683, 1023, 3)]);
        assert_eq!(moves(&[1, 2], |_| 1), [(512, 1023, 2)]);
        assert_eq!(
            moves(&[1, 2, 3], |id| if id < 512 { 1 } else { 2 }),
            [(342, 511, 3), (853, 1023, 3)]
        );
        assert_eq!(moves(&[1, 2], |id| if id < 512 { 1 } else { 2 }), []);
        assert!(plan(&BTreeSet::new(), &slots(|_| 0)).is_none());
    }
}
