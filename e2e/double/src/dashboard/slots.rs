//! Slots (§5.5): assigning them and queueing their moves; `moves` carries those out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use super::Dashboard;
use super::rebalance;
use super::state::State;
use crate::SLOTS;
use crate::http::Refusal;
use crate::wire::{SlotAction, SlotMapping};

type Done = Result<(), Refusal>;

impl Dashboard {
    /// Writes a slot to the store, then to the cache.
    pub(super) async fn save_slot(&self, state: &mut State, slot: SlotMapping) -> Done {
        self.store.put_slot(&slot).await?;
        state.set_slot(slot);
        Ok(())
    }

    pub(crate) async fn set_interval(&self, micros: i64) -> Done {
        let _state = self.open().await?;
        self.mover.interval.store(micros.clamp(0, 1_000_000), Ordering::Relaxed);
        Ok(())
    }

    pub(crate) async fn set_disabled(&self, disabled: bool) -> Done {
        let _state = self.open().await?;
        self.mover.disabled.store(disabled, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) async fn create_action(&self, sid: i64, gid: i64) -> Done {
        let mut state = self.open().await?;
        state.slot(sid)?;
        state.target(gid)?;
        movable(state.slot(sid)?, gid)?;
        self.queue(&mut state, [(sid, gid)]).await
    }

    pub(crate) async fn create_some(&self, src: i64, dst: i64, num: i64) -> Done {
        let mut state = self.open().await?;
        state.target(dst)?;
        let idle = state
            .slots
            .iter()
            .filter(|slot| slot.action.state.is_empty() && slot.group_id == src && src != dst);
        let some: Vec<_> = idle
            .take(usize::try_from(num).unwrap_or(0))
            .map(|slot| (slot.id, dst))
            .collect();
        self.queue(&mut state, some).await
    }

    pub(crate) async fn create_range(&self, beg: i64, end: i64, gid: i64) -> Done {
        let mut state = self.open().await?;
        if beg < 0 || beg > end || end >= SLOTS as i64 {
            return Err(format!("invalid slot range [{beg},{end}]").into());
        }
        state.target(gid)?;
        for sid in beg..=end {
            movable(state.slot(sid)?, gid)?;
        }
        self.queue(&mut state, (beg..=end).map(|sid| (sid, gid))).await
    }

    async fn queue(&self, state: &mut State, moves: impl IntoIterator<Item = (i64, i64)>) -> Done {
        for (index, (sid, target_id)) in (state.next_slot_index()..).zip(moves) {
            let mut slot = state.slot(sid)?.clone();
            slot.action = SlotAction {
                index,
                state: "pending".into(),
                target_id,
            };
            self.save_slot(state, slot).await?;
        }
        Ok(())
    }

    pub(crate) async fn remove_action(&self, sid: i64) -> Done {
        let mut state = self.open().await?;
        let mut slot = state.slot(sid)?.clone();
        match slot.action.state.as_str() {
            "" => return Err(format!("slot-[{sid}] action doesn't exist").into()),
            "pending" => slot.action = SlotAction::default(),
            _ => return Err(format!("slot-[{sid}] action isn't pending").into()),
        }
        self.save_slot(&mut state, slot).await
    }

    /// Remaps without moving data; the store has changed even when a proxy then fails.
    pub(crate) async fn assign(&self, wanted: Vec<SlotMapping>) -> Done {
        let mut state = self.open().await?;
        for slot in &wanted {
            state.slot(slot.id)?;
            state.target(slot.group_id)?;
            idle(slot)?;
        }
        for gid in wanted.iter().map(|slot| slot.group_id).collect::<BTreeSet<_>>() {
            let mut group = state.group(gid)?.clone();
            group.out_of_sync = true;
            self.save_group(&mut state, group).await?;
        }
        self.remap(&mut state, wanted).await
    }

    pub(crate) async fn assign_offline(&self, wanted: Vec<SlotMapping>) -> Done {
        let mut state = self.open().await?;
        for slot in &wanted {
            state.slot(slot.id)?;
            idle(slot)?;
            if slot.group_id != 0 {
                return Err(format!("group of slot-[{}] should be 0", slot.id).into());
            }
        }
        self.remap(&mut state, wanted).await
    }

    async fn remap(&self, state: &mut State, wanted: Vec<SlotMapping>) -> Done {
        let mut changed = Vec::with_capacity(wanted.len());
        for slot in wanted {
            let slot = SlotMapping {
                action: SlotAction::default(),
                ..slot
            };
            self.save_slot(state, slot.clone()).await?;
            changed.push(slot);
        }
        self.push(state, &changed).await
    }

    pub(crate) async fn rebalance(&self, confirm: bool) -> Result<BTreeMap<String, i64>, Refusal> {
        let mut state = self.open().await?;
        let groups = state
            .groups
            .values()
            .filter(|group| !group.servers.is_empty())
            .map(|group| group.id)
            .collect();
        let plan = rebalance::plan(&groups, &state.slots).ok_or("no valid group could be found")?;
        if confirm {
            self.queue(&mut state, plan.clone()).await?;
        }
        Ok(plan.into_iter().map(|(sid, gid)| (sid.to_string(), gid)).collect())
    }
}

fn idle(slot: &SlotMapping) -> Done {
    if slot.action.state.is_empty() {
        return Ok(());
    }
    Err(format!("invalid slot-[{}] action = {}", slot.id, slot.action.state).into())
}

fn movable(slot: &SlotMapping, gid: i64) -> Done {
    if !slot.action.state.is_empty() {
        return Err(format!("slot-[{}] action already exists", slot.id).into());
    }
    if slot.group_id == gid {
        return Err(format!("slot-[{}] already in group-[{gid}]", slot.id).into());
    }
    Ok(())
}
