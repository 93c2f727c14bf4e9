//! The slot table: commands pass a slot's gate, fills close it, swap the backend and open it again (§8.1).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, oneshot};

use super::backend::{Backend, Pool, Settings};
use super::pull::pull;
use crate::SLOTS;
use crate::http::Refusal;
use crate::redis::run_id;
use crate::resp::{Value, slot_of};
use crate::rows::Rows;
use crate::sentinel::watch::Masters;
use crate::wire::Slot;

/// Where a slot's commands go; nowhere when it is offline.
#[derive(Debug, Default)]
pub struct Route {
    backend: Option<Arc<Backend>>,
    /// Where its keys still are while it moves.
    source: Option<Arc<Backend>>,
    /// Where reads may go, nearest first; nowhere while it moves.
    replicas: Vec<Vec<Arc<Backend>>>,
}

impl Route {
    /// The first replica that is fit, in the nearest bucket that has one; a bucket's members take turns (§6.5).
    fn replica(&self, database: u32, turn: usize) -> Option<&Arc<Backend>> {
        self.replicas.iter().find_map(|bucket| {
            let count = bucket.len();
            let mut members = bucket.iter().cycle().skip(turn % count.max(1)).take(count);
            members.find(|member| member.is_fit(database))
        })
    }
}

/// What was last told of a slot.
#[derive(Debug, Clone, Default, PartialEq)]
struct Told {
    slot: Slot,
    /// A sentinel's word, not the dashboard's.
    switched: bool,
}

struct Cell {
    gate: Arc<RwLock<Route>>,
    told: Mutex<Told>,
}

type Closed = BTreeMap<usize, OwnedRwLockWriteGuard<Route>>;

/// All slots of a proxy.
pub struct Router {
    cells: Vec<Cell>,
    /// The closed gates of locked slots; its lock lets one fill or one switch through at a time.
    closed: tokio::sync::Mutex<Closed>,
    pool: Pool,
    /// `backend_primary_only`.
    primary_only: bool,
    turn: AtomicUsize,
    /// How many slots follow a sentinel.
    switched: AtomicUsize,
    told: Mutex<Rows>,
}

/// The text of a command to a slot without a backend (§8.6).
pub const NOT_READY: &str = "ERR handle request, slot is not ready, may be offline";

impl Router {
    /// A table of offline slots.
    pub fn new(settings: Settings, primary_only: bool) -> Self {
        let cell = |id| Cell {
            gate: Arc::default(),
            told: Mutex::new(Told {
                slot: Slot {
                    id: id as i64,
                    ..Default::default()
                },
                switched: false,
            }),
        };
        Self {
            cells: (0..SLOTS).map(cell).collect(),
            closed: Default::default(),
            pool: Pool::new(settings),
            primary_only,
            turn: AtomicUsize::new(0),
            switched: AtomicUsize::new(0),
            told: Mutex::default(),
        }
    }

    fn told(&self, index: usize) -> Told {
        self.cells[index]
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The table.
    pub fn slots(&self) -> Vec<Slot> {
        (0..SLOTS).map(|index| self.told(index).slot).collect()
    }

    /// Whether any slot follows a sentinel instead of the dashboard.
    pub fn switched(&self) -> bool {
        self.switched.load(Ordering::Relaxed) > 0
    }

    /// The table as JSON.
    pub fn text(&self) -> serde_json::Result<Arc<RawValue>> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.text(0, SLOTS, |index| self.told(index).slot)
    }

    /// Replaces slots in order; a bad one ends it, the ones before stay replaced.
    pub async fn fill(&self, slots: Vec<Slot>) -> Result<(), Refusal> {
        for slot in slots {
            let index = usize::try_from(slot.id).ok().filter(|index| *index < SLOTS);
            let index = index.ok_or("use of invalid slot id")?;
            if !(0..=1).contains(&slot.forward_method) {
                return Err("use of invalid forwarder method".into());
            }
            let mut closed = self.closed.lock().await;
            self.replace(&mut closed, index, Told { slot, switched: false }).await;
        }
        Ok(())
    }

    /// Closes the gate (which waits for commands under way), swaps, and opens it unless the slot is locked.
    async fn replace(&self, closed: &mut Closed, index: usize, told: Told) {
        let cell = &self.cells[index];
        let same = *cell.told.lock().unwrap_or_else(PoisonError::into_inner) == told;
        if same {
            // Nothing to swap, but commands under way are waited for nevertheless.
            if !closed.contains_key(&index) {
                drop(cell.gate.write().await);
            }
            return;
        }
        let mut route = match closed.remove(&index) {
            Some(held) => held,
            None => cell.gate.clone().write_owned().await,
        };
        let backend = |addr: &str| (!addr.is_empty()).then(|| self.pool.get(addr));
        route.backend = backend(&told.slot.backend_addr);
        route.source = backend(&told.slot.migrate_from);
        route.replicas = self.replicas(&told.slot);
        if told.slot.locked {
            closed.insert(index, route);
        }
        self.switched.fetch_add(usize::from(told.switched), Ordering::Relaxed);
        let older = std::mem::replace(&mut *cell.told.lock().unwrap_or_else(PoisonError::into_inner), told);
        self.switched.fetch_sub(usize::from(older.switched), Ordering::Relaxed);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).forget(index);
    }

    fn replicas(&self, slot: &Slot) -> Vec<Vec<Arc<Backend>>> {
        if self.primary_only || !slot.migrate_from.is_empty() {
            return Vec::new();
        }
        let bucket = |addrs: &Vec<String>| addrs.iter().map(|addr| self.pool.get(addr)).collect();
        slot.replica_groups.iter().map(bucket).collect()
    }

    /// Sends a command to its slot's backend, or a read to a replica if there is a fit one; waits while the slot is locked. Of a slot that moves, the command's keys
    /// are brought first, behind the same gate: a fill waits for that as it waits for the command.
    pub async fn send(
        &self,
        slot: usize,
        database: u32,
        bytes: Bytes,
        read: bool,
        keys: impl FnOnce() -> Vec<Bytes>,
    ) -> Result<oneshot::Receiver<Value>, Refusal> {
        let route = self.cells[slot].gate.clone().read_owned().await;
        let Some(backend) = route.backend.clone() else {
            return Err(NOT_READY.into());
        };
        if let Some(source) = &route.source {
            let mut keys = keys();
            keys.retain(|key| slot_of(key) == slot);
            pull(source, &backend, database, &keys).await?;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let replica = read.then(|| route.replica(database, turn).cloned()).flatten();
        let backend = replica.unwrap_or(backend);
        Ok(backend.send(database, bytes, Some(route)).await)
    }

    /// Sends a command to a backend by its address.
    pub async fn send_to(&self, addr: &str, database: u32, bytes: Bytes) -> Result<oneshot::Receiver<Value>, Refusal> {
        let known = self.pool.known(addr);
        let backend = known.ok_or_else(|| Refusal(format!("ERR backend server '{addr}' not found")))?;
        Ok(backend.send(database, bytes, None).await)
    }

    /// Follows the sentinels (§11): an address that differs and is not the same server is switched to, be it where a
    /// slot's commands go or where its keys come from. A locked slot stays locked. No fill comes in between: it would
    /// be overwritten by what was told before it.
    pub async fn switch(&self, masters: &Masters, auth: &str, timeout: Duration) {
        let mut differ = Differ {
            auth,
            timeout,
            known: BTreeMap::new(),
        };
        let mut closed = self.closed.lock().await;
        for index in 0..SLOTS {
            let Told { mut slot, .. } = self.told(index);
            let mut switched = false;
            for (gid, addr) in [
                (slot.backend_addr_group_id, &mut slot.backend_addr),
                (slot.migrate_from_group_id, &mut slot.migrate_from),
            ] {
                if let Some(master) = masters.get(&gid)
                    && differ.differ(gid, addr, master).await
                {
                    addr.clone_from(master);
                    switched = true;
                }
            }
            if switched {
                self.replace(&mut closed, index, Told { slot, switched }).await;
            }
        }
    }
}

/// Tells servers apart by their run ids; asks once per pair.
struct Differ<'a> {
    auth: &'a str,
    timeout: Duration,
    known: BTreeMap<(String, String), bool>,
}

impl Differ<'_> {
    async fn differ(&mut self, gid: i64, addr: &str, master: &str) -> bool {
        if addr == master {
            return false;
        }
        let pair = (addr.to_string(), master.to_string());
        if let Some(differ) = self.known.get(&pair) {
            return *differ;
        }
        let ids = (
            run_id(addr, self.auth, self.timeout).await,
            run_id(master, self.auth, self.timeout).await,
        );
        // An unreachable address counts as another server.
        let keep = matches!(&ids, (Some(one), Some(other)) if one == other);
        tracing::warn!("group-[{gid}] {addr} -> {master}, keep = {keep}");
        self.known.insert(pair, !keep);
        !keep
    }
}
