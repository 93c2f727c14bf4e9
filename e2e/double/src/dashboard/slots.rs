//! Slots (§5.5, §6.1): assigning, queueing moves, and the moves themselves.
//!
//! Only slots that are offline move; the stand-in's redis has no commands to move keys with, so a slot of a real
//! group stays `pending`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::Dashboard;
use super::rebalance;
use super::state::State;
use crate::SLOTS;
use crate::http::Refusal;
use crate::wire::{SlotAction, SlotMapping};

type Done = Result<(), Refusal>;

/// What is known of moves in memory only.
#[derive(Debug, Default)]
pub(crate) struct Mover {
    interval: AtomicI64,
    disabled: AtomicBool,
    executor: AtomicI64,
    progress: Mutex<String>,
}

impl Mover {
    /// Moves that run at this instant.
    pub(crate) fn executor(&self) -> i64 {
        self.executor.load(Ordering::Acquire)
    }

    fn tell(&self, progress: String) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    /// `slot_action` of the stats.
    pub(crate) fn stats(&self) -> Value {
        json!({
            "interval": self.interval.load(Ordering::Relaxed),
            "disabled": self.disabled.load(Ordering::Relaxed),
            "progress": { "status": *self.progress.lock().unwrap_or_else(PoisonError::into_inner) },
            "executor": self.executor(),
        })
    }
}

impl Dashboard {
    fn save_slot(&self, state: &mut State, slot: SlotMapping) -> Done {
        self.store.put_slot(&slot)?;
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
        self.queue(&mut state, [(sid, gid)])
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
        self.queue(&mut state, some)
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
        self.queue(&mut state, (beg..=end).map(|sid| (sid, gid)))
    }

    fn queue(&self, state: &mut State, moves: impl IntoIterator<Item = (i64, i64)>) -> Done {
        for (sid, target_id) in moves {
            let mut slot = state.slot(sid)?.clone();
            slot.action = SlotAction {
                index: state.next_slot_index(),
                state: "pending".into(),
                target_id,
            };
            if slot.group_id != 0 {
                tracing::warn!("slot-[{sid}] stays pending: the stand-in moves offline slots only");
            }
            self.save_slot(state, slot)?;
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
        self.save_slot(&mut state, slot)
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
            self.save_group(&mut state, group)?;
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
            self.save_slot(state, slot.clone())?;
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
            self.queue(&mut state, plan.clone())?;
        }
        Ok(plan.into_iter().map(|(sid, gid)| (sid.to_string(), gid)).collect())
    }

    /// One round of moves; tells whether there was anything to do.
    pub(crate) async fn move_round(&self) -> Result<bool, Refusal> {
        let picked = self.pick(&*self.open().await?);
        for sid in &picked {
            let moved = self.move_slot(*sid).await;
            if let Err(error) = &moved {
                self.mover.tell(format!("[ERROR] Slot[{sid:04}]: {error}"));
            }
            moved?;
        }
        Ok(!picked.is_empty())
    }

    /// Begun moves first, then pending ones, by index; a group takes part in one move per round (§6.1).
    fn pick(&self, state: &State) -> Vec<i64> {
        if self.mover.disabled.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut queued: Vec<_> = state
            .slots
            .iter()
            .filter(|slot| !slot.action.state.is_empty())
            .collect();
        queued.retain(|slot| slot.group_id == 0);
        queued.sort_by_key(|slot| (slot.action.state == "pending", slot.action.index));
        let mut busy = BTreeSet::new();
        let free = queued.into_iter().filter(|slot| busy.insert(slot.action.target_id));
        free.take(usize::try_from(self.config.migration_parallel_slots).unwrap_or(1))
            .map(|slot| slot.id)
            .collect()
    }

    async fn move_slot(&self, sid: i64) -> Done {
        let mut state = self.open().await?;
        loop {
            let slot = state.slot(sid)?.clone();
            match slot.action.state.as_str() {
                "pending" => self.step(&mut state, slot, "preparing", false).await?,
                "preparing" => self.step(&mut state, slot, "prepared", true).await?,
                "prepared" => self.step(&mut state, slot, "migrating", true).await?,
                "migrating" if self.settled_target(&state, &slot) => {
                    self.mover.executor.fetch_add(1, Ordering::AcqRel);
                    let finished = self.step(&mut state, slot, "finished", false).await;
                    self.mover.executor.fetch_sub(1, Ordering::AcqRel);
                    finished?;
                }
                "finished" => return self.complete(&mut state, slot).await,
                _ => return Ok(()),
            }
        }
    }

    /// A move waits while its target is promoted (§6.1).
    fn settled_target(&self, state: &State, slot: &SlotMapping) -> bool {
        state
            .groups
            .get(&slot.action.target_id)
            .is_none_or(|group| group.promoting.state.is_empty())
    }

    /// Tells the proxies, then the store; a slot that a proxy did not take stays where it was.
    async fn step(&self, state: &mut State, slot: SlotMapping, next: &str, push: bool) -> Done {
        let mut stepped = slot.clone();
        stepped.action.state = next.into();
        if push && let Err(error) = self.push(state, std::slice::from_ref(&stepped)).await {
            // Best effort: proxies that took the lock must not keep their clients waiting.
            let _ = self.push(state, std::slice::from_ref(&slot)).await;
            return Err(error);
        }
        self.save_slot(state, stepped)
    }

    async fn complete(&self, state: &mut State, slot: SlotMapping) -> Done {
        self.push(state, std::slice::from_ref(&slot)).await?;
        let done = SlotMapping {
            id: slot.id,
            group_id: slot.action.target_id,
            action: SlotAction::default(),
        };
        self.save_slot(state, done)
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
