//! The moves of slots (§6.1): which go on now, and their way from `pending` to idle on the target.
//!
//! As in Codis, begun moves come before pending ones, by index, a group takes part in one at a time, and states are
//! changed under the dashboard's mutex together with the pushes that tell proxies of them. Keys are moved without it
//! (see `haul`), so reads, pushes and promotes of other groups go on.
//!
//! What differs from Codis:
//! * there is no barrier between rounds: a place that becomes free is filled while other slots still move. A move that
//!   takes long or fails therefore holds up its own two groups and no others. Those two it does hold up, also while it
//!   rests after a failure: were others begun, all slots on their way to a dead target would soon be stuck half-way;
//! * a failed move rests on its own; only a failed push makes the whole loop rest;
//! * keys move with `MIGRATE` (see [`crate::migrate`]), so `migration_async_maxbulks`, `_maxbytes` and `_numkeys` mean
//!   nothing, and the keys of one tag do not necessarily move together;
//! * redis 7 keeps no index of slots: each move scans the whole source, so moves get slower the more keys there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Dashboard;
use super::state::State;
use crate::host;
use crate::http::Refusal;
use crate::wire::{SlotAction, SlotMapping};

type Done = Result<(), Refusal>;

/// What is known of moves in memory only.
#[derive(Debug, Default)]
pub(crate) struct Mover {
    /// Microseconds between two steps.
    pub(super) interval: AtomicI64,
    pub(super) disabled: AtomicBool,
    executor: AtomicI64,
    progress: Mutex<String>,
}

impl Mover {
    /// Steps of moves that run at this instant.
    pub(crate) fn executor(&self) -> i64 {
        self.executor.load(Ordering::Acquire)
    }

    /// `slot_action` of the stats.
    pub(crate) fn stats(&self) -> Value {
        json!({
            "interval": self.interval.load(Ordering::Relaxed),
            "disabled": self.is_disabled(),
            "progress": { "status": *self.progress.lock().unwrap_or_else(PoisonError::into_inner) },
            "executor": self.executor(),
        })
    }

    fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Relaxed)
    }

    /// What `progress` tells from now on.
    pub(super) fn tell(&self, status: String) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// The pause between two steps.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_micros(self.interval.load(Ordering::Relaxed).unsigned_abs())
    }
}

/// A step that runs; counted for as long as it lives.
pub(super) struct Step<'a>(&'a Mover);

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.0.executor.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A move of keys between two masters; it is to be given up when it is no longer what the state says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leg {
    pub(super) slot: SlotMapping,
    /// None for an offline slot, which has no keys.
    pub(super) source: Option<String>,
    pub(super) target: String,
}

impl Leg {
    fn of(state: &State, slot: &SlotMapping) -> Self {
        let master = |gid| state.groups.get(&gid).map(|group| group.master().to_string());
        Self {
            slot: slot.clone(),
            source: (slot.group_id != 0).then(|| master(slot.group_id).unwrap_or_default()),
            target: master(slot.action.target_id).unwrap_or_default(),
        }
    }
}

/// A slot that failed.
struct Rest {
    until: Instant,
    failures: u32,
}

/// The moves that the loop has begun to carry out.
#[derive(Default)]
struct Moves {
    tasks: JoinSet<(i64, Done)>,
    active: BTreeSet<i64>,
    resting: BTreeMap<i64, Rest>,
}

impl Moves {
    fn rests(&self, sid: i64) -> bool {
        self.resting.get(&sid).is_some_and(|rest| rest.until > Instant::now())
    }

    /// Tells how many times in a row the slot has failed now.
    fn fail(&mut self, sid: i64, pause: Duration) -> u32 {
        let failures = self.resting.get(&sid).map_or(0, |rest| rest.failures) + 1;
        let until = Instant::now() + pause;
        self.resting.insert(sid, Rest { until, failures });
        failures
    }
}

impl Dashboard {
    /// Carries moves out for as long as the dashboard runs.
    pub(super) async fn move_slots(self: Arc<Self>) {
        let mut moves = Moves::default();
        loop {
            match self.begin_moves(&mut moves).await {
                Ok(true) => tokio::time::sleep(self.timings.slot_round).await,
                Ok(false) => {
                    let pause = tokio::time::sleep(self.timings.loop_pause);
                    tokio::select! {
                        biased;
                        Some(ended) = moves.tasks.join_next() => self.note(&mut moves, ended.ok()),
                        () = pause => {}
                    }
                }
                Err(error) => {
                    tracing::warn!("slots action failed: {error}");
                    tokio::time::sleep(self.timings.slot_backoff).await;
                }
            }
            while let Some(ended) = moves.tasks.try_join_next() {
                self.note(&mut moves, ended.ok());
            }
        }
    }

    fn note(&self, moves: &mut Moves, ended: Option<(i64, Done)>) {
        let Some((sid, outcome)) = ended else { return };
        moves.active.remove(&sid);
        match outcome {
            Ok(()) => {
                moves.resting.remove(&sid);
                self.mover.tell(String::new());
            }
            Err(error) => {
                let failures = moves.fail(sid, self.timings.slot_backoff);
                tracing::warn!("slot-[{sid}] action failed, {failures} times in a row: {error}");
                self.mover.tell(format!("[ERROR] Slot[{sid:04}]: {error}"));
            }
        }
    }

    /// Begins what may begin; tells whether that was anything.
    async fn begin_moves(self: &Arc<Self>, moves: &mut Moves) -> Result<bool, Refusal> {
        let picked = self.pick(&*self.open().await?, moves);
        for sid in &picked {
            self.prepare(*sid).await?;
            let (dashboard, sid) = (self.clone(), *sid);
            moves.active.insert(sid);
            host::join_in(&mut moves.tasks, async move { (sid, dashboard.carry(sid).await) });
        }
        Ok(!picked.is_empty())
    }

    /// Begun moves first, then pending ones, by index; a group takes part in one move (§6.1).
    fn pick(&self, state: &State, moves: &Moves) -> Vec<i64> {
        let pending = |slot: &SlotMapping| slot.action.state == "pending";
        let mut queued: Vec<_> = state
            .slots
            .iter()
            .filter(|slot| !slot.action.state.is_empty())
            .collect();
        queued.retain(|slot| !(self.mover.is_disabled() && pending(slot)));
        queued.sort_by_key(|slot| (!moves.active.contains(&slot.id), pending(slot), slot.action.index));
        let limit = usize::try_from(self.config.migration_parallel_slots).unwrap_or(1);
        let mut places = limit.saturating_sub(moves.active.len());
        let (mut busy, mut picked) = (BTreeSet::from([0]), Vec::new());
        for slot in queued {
            let groups = [slot.group_id, slot.action.target_id];
            if groups.iter().any(|gid| *gid != 0 && busy.contains(gid)) {
                continue;
            }
            busy.extend(groups);
            let waits = slot.action.state == "migrating" && self.waits(state, slot);
            if places > 0 && !waits && !moves.active.contains(&slot.id) && !moves.rests(slot.id) {
                places -= 1;
                picked.push(slot.id);
            }
        }
        picked
    }

    /// No key moves while moves are disabled or either group is promoted (§6.1).
    fn waits(&self, state: &State, slot: &SlotMapping) -> bool {
        let groups = [slot.group_id, slot.action.target_id];
        let promoting = |gid| {
            let group = state.groups.get(gid);
            group.is_some_and(|group| !group.promoting.state.is_empty())
        };
        self.mover.is_disabled() || groups.iter().any(promoting)
    }

    /// Takes a slot as far as `migrating`.
    async fn prepare(&self, sid: i64) -> Done {
        let mut state = self.open().await?;
        loop {
            let slot = state.slot(sid)?.clone();
            match slot.action.state.as_str() {
                // Disabled since it was picked.
                "pending" if self.mover.is_disabled() => return Ok(()),
                "pending" => self.step(&mut state, slot, "preparing", false).await?,
                "preparing" => self.step(&mut state, slot, "prepared", true).await?,
                "prepared" => self.step(&mut state, slot, "migrating", true).await?,
                "finished" => return self.complete(&mut state, slot).await,
                _ => return Ok(()),
            }
        }
    }

    /// Takes a slot from `migrating` to its end, unless it has to wait.
    async fn carry(&self, sid: i64) -> Done {
        while let Some(leg) = self.leg(sid).await? {
            let emptied = self.empty(&leg).await?;
            if emptied && self.finish(&leg).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn leg(&self, sid: i64) -> Result<Option<Leg>, Refusal> {
        let state = self.open().await?;
        let slot = state.slot(sid)?;
        let goes_on = slot.action.state == "migrating" && !self.waits(&state, slot);
        Ok(goes_on.then(|| Leg::of(&state, slot)))
    }

    fn holds(&self, state: &State, leg: &Leg) -> bool {
        let same = |slot: &SlotMapping| Leg::of(state, slot) == *leg && !self.waits(state, slot);
        state.slot(leg.slot.id).is_ok_and(same)
    }

    /// Begins a step if the leg still holds. A promote that was admitted before is seen here, and one that comes later
    /// sees the step.
    pub(super) async fn begin_step(&self, leg: &Leg) -> Result<Option<Step<'_>>, Refusal> {
        let state = self.open().await?;
        if !self.holds(&state, leg) {
            return Ok(None);
        }
        self.mover.executor.fetch_add(1, Ordering::AcqRel);
        Ok(Some(Step(&self.mover)))
    }

    /// Ends a move, if the master that was found empty is still the source's.
    async fn finish(&self, leg: &Leg) -> Result<bool, Refusal> {
        let mut state = self.open().await?;
        if !self.holds(&state, leg) {
            return Ok(false);
        }
        self.step(&mut state, leg.slot.clone(), "finished", false).await?;
        let finished = state.slot(leg.slot.id)?.clone();
        self.complete(&mut state, finished).await?;
        Ok(true)
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
        self.save_slot(state, stepped).await
    }

    async fn complete(&self, state: &mut State, slot: SlotMapping) -> Done {
        self.push(state, std::slice::from_ref(&slot)).await?;
        let done = SlotMapping {
            id: slot.id,
            group_id: slot.action.target_id,
            action: SlotAction::default(),
        };
        self.save_slot(state, done).await
    }
}
