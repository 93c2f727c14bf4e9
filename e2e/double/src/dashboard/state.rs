//! The dashboard's picture of its product: groups, slots, proxies, sentinels, and what proxies are told of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::viewer::Viewer;
use crate::SLOTS;
use crate::http::Refusal;
use crate::rows::Rows;
use crate::store::Store;
use crate::wire::{Group, Proxy, Sentinel, Slot, SlotMapping};

/// The cache; the store is written first, then this.
#[derive(Debug, Default)]
pub struct State {
    /// False until the store was read, and again after `reload`.
    pub loaded: bool,
    /// When a doubtful store may be read again, if not at once.
    pub next_look: Option<Instant>,
    /// Index = slot; changed by [`State::set_slot`].
    pub slots: Vec<SlotMapping>,
    pub(super) told_slots: Rows,
    /// By id.
    pub groups: BTreeMap<i64, Group>,
    /// By token.
    pub proxies: BTreeMap<String, Proxy>,
    /// Its sentinels.
    pub sentinel: Sentinel,
}

impl State {
    /// Reads everything.
    pub async fn load(store: &Store) -> Result<Self, Refusal> {
        let state = Self {
            loaded: true,
            next_look: None,
            slots: store.slots().await?,
            told_slots: Rows::default(),
            groups: store
                .groups()
                .await?
                .into_iter()
                .map(|group| (group.id, group))
                .collect(),
            proxies: store
                .proxies()
                .await?
                .into_iter()
                .map(|proxy| (proxy.token.clone(), proxy))
                .collect(),
            sentinel: store.sentinel().await?,
        };
        store.trust();
        Ok(state)
    }

    /// A group, to look at.
    pub fn group(&self, gid: i64) -> Result<&Group, Refusal> {
        self.groups
            .get(&gid)
            .ok_or_else(|| format!("group-[{gid}] doesn't exist").into())
    }

    /// A group that is not being promoted, to change.
    pub fn settled(&self, gid: i64) -> Result<Group, Refusal> {
        let group = self.group(gid)?;
        if !group.promoting.state.is_empty() {
            return Err(format!("group-[{gid}] is promoting").into());
        }
        Ok(group.clone())
    }

    /// A group that can take slots.
    pub fn target(&self, gid: i64) -> Result<&Group, Refusal> {
        let group = self.group(gid)?;
        if group.servers.is_empty() {
            return Err(format!("group-[{gid}] is empty").into());
        }
        Ok(group)
    }

    /// The group and index of a server.
    pub fn server(&self, addr: &str) -> Option<(i64, usize)> {
        self.groups
            .values()
            .find_map(|group| index_of(group, addr).map(|index| (group.id, index)))
    }

    /// A slot.
    pub fn slot(&self, sid: i64) -> Result<&SlotMapping, Refusal> {
        let found = usize::try_from(sid).ok().and_then(|index| self.slots.get(index));
        found.ok_or_else(|| format!("slot-[{sid}] doesn't exist").into())
    }

    /// Replaces a slot.
    pub fn set_slot(&mut self, slot: SlotMapping) {
        let index = usize::try_from(slot.id).unwrap_or(usize::MAX);
        if let Some(place) = self.slots.get_mut(index) {
            *place = slot;
            self.told_slots.forget(index);
        }
    }

    /// The slots as JSON, for a place two levels deep.
    pub fn slots_text(&mut self) -> Result<Arc<RawValue>, Refusal> {
        let slots = &self.slots;
        let text = self.told_slots.text(2, slots.len(), |index| &slots[index]);
        text.map_err(|error| Refusal(error.to_string()))
    }

    /// The slots that live in a group or go there.
    pub fn slots_of(&self, gid: i64) -> Vec<SlotMapping> {
        let touches = |slot: &&SlotMapping| slot.group_id == gid || slot.action.target_id == gid;
        self.slots.iter().filter(touches).cloned().collect()
    }

    /// The index of a new slot action.
    pub fn next_slot_index(&self) -> i64 {
        self.slots.iter().map(|slot| slot.action.index).max().unwrap_or(0) + 1
    }

    /// The index of a new sync action.
    pub fn next_sync_index(&self) -> i64 {
        let servers = self.groups.values().flat_map(|group| &group.servers);
        servers.map(|server| server.action.index).max().unwrap_or(0) + 1
    }

    fn master(&self, gid: i64) -> String {
        self.groups
            .get(&gid)
            .map(|group| group.master().to_string())
            .unwrap_or_default()
    }

    fn locked(&self, gid: i64) -> bool {
        self.groups
            .get(&gid)
            .is_some_and(|group| group.promoting.state == "prepared")
    }

    /// What a proxy is told of a slot (§6.1); without a proxy the view of the API.
    pub fn view(&self, slot: &SlotMapping, method: i64, viewer: Option<&Viewer>) -> Slot {
        let (source, target) = (slot.group_id, slot.action.target_id);
        let mut view = Slot {
            id: slot.id,
            forward_method: method,
            ..Default::default()
        };
        match slot.action.state.as_str() {
            "" | "pending" => {
                self.back(&mut view, source);
                view.locked = self.locked(source);
                view.replica_groups = self.replicas(source, viewer);
            }
            "preparing" => {
                self.back(&mut view, source);
                view.locked = self.locked(source);
            }
            "finished" => {
                self.back(&mut view, target);
                view.locked = self.locked(target);
            }
            moving => {
                self.back(&mut view, target);
                view.migrate_from = self.master(source);
                view.migrate_from_group_id = source;
                view.locked = moving == "prepared" || self.locked(source) || self.locked(target);
            }
        }
        view
    }

    fn back(&self, view: &mut Slot, gid: i64) {
        view.backend_addr = self.master(gid);
        view.backend_addr_group_id = gid;
    }

    /// Replica addresses in buckets of falling nearness (§6.5).
    fn replicas(&self, gid: i64, viewer: Option<&Viewer>) -> Vec<Vec<String>> {
        let Some(group) = self.groups.get(&gid).filter(|group| group.promoting.state.is_empty()) else {
            return Vec::new();
        };
        if group.servers.len() <= 1 {
            return Vec::new();
        }
        let mut buckets = vec![Vec::new(), Vec::new(), Vec::new()];
        for server in group.servers.iter().filter(|server| server.replica_group) {
            let near = viewer.filter(|viewer| viewer.datacenter == server.datacenter);
            let bucket = match near.map(|viewer| viewer.beside.contains(&server.addr)) {
                Some(true) => 0,
                Some(false) => 1,
                None => 2,
            };
            buckets[bucket].push(server.addr.clone());
        }
        buckets.retain(|bucket| !bucket.is_empty());
        buckets
    }
}

/// All slots of a product that has none assigned.
pub fn offline() -> Vec<SlotMapping> {
    (0..SLOTS as i64)
        .map(|id| SlotMapping {
            id,
            ..Default::default()
        })
        .collect()
}

/// The index of a server in its group.
pub fn index_of(group: &Group, addr: &str) -> Option<usize> {
    group.servers.iter().position(|server| server.addr == addr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{GroupServer, SlotAction};

    fn state() -> State {
        let server = |addr: &str| GroupServer {
            addr: addr.into(),
            ..Default::default()
        };
        let group = |id: i64| Group {
            id,
            servers: vec![server(&format!("10.0.0.{id}:1")), server(&format!("10.0.1.{id}:1"))],
            ..Default::default()
        };
        State {
            slots: offline(),
            groups: [(1, group(1)), (2, group(2))].into(),
            ..Default::default()
        }
    }

    fn view(state: &State, from: i64, action: &str) -> Slot {
        let target_id = if action.is_empty() { 0 } else { 2 };
        let action = SlotAction {
            index: 0,
            state: action.into(),
            target_id,
        };
        state.view(
            &SlotMapping {
                id: 7,
                group_id: from,
                action,
            },
            1,
            None,
        )
    }

    #[test]
    fn proxies_are_told_what_the_state_of_a_move_asks_for() {
        let state = state();
        for (action, backend, from, locked) in [
            ("", "10.0.0.1:1", "", false),
            ("pending", "10.0.0.1:1", "", false),
            ("preparing", "10.0.0.1:1", "", false),
            ("prepared", "10.0.0.2:1", "10.0.0.1:1", true),
            ("migrating", "10.0.0.2:1", "10.0.0.1:1", false),
            ("finished", "10.0.0.2:1", "", false),
        ] {
            let told = view(&state, 1, action);
            assert_eq!(
                (told.backend_addr.as_str(), told.migrate_from.as_str(), told.locked),
                (backend, from, locked)
            );
        }
    }

    #[test]
    fn a_prepared_promotion_locks_every_slot_that_touches_its_group() {
        let mut state = state();
        state.groups.get_mut(&2).unwrap().promoting.state = "prepared".into();
        for (action, locked) in [
            ("", false),
            ("preparing", false),
            ("migrating", true),
            ("finished", true),
        ] {
            assert_eq!(view(&state, 1, action).locked, locked, "{action}");
        }
    }

    #[test]
    fn replicas_come_in_buckets_nearest_first() {
        let mut state = state();
        let group = state.groups.get_mut(&1).unwrap();
        group.servers.iter_mut().for_each(|server| server.replica_group = true);
        group.servers[1].datacenter = "b".into();
        let beside = GroupServer {
            addr: "10.0.2.1:1".into(),
            replica_group: true,
            ..group.servers[1].clone()
        };
        group.servers.push(beside);
        let viewer = Viewer {
            datacenter: "b".into(),
            beside: ["10.0.2.1:1".into()].into(),
        };
        let slot = SlotMapping {
            group_id: 1,
            ..Default::default()
        };
        let told = |state: &State, viewer| state.view(&slot, 1, viewer).replica_groups;
        assert_eq!(
            told(&state, Some(&viewer)),
            [["10.0.2.1:1"], ["10.0.1.1:1"], ["10.0.0.1:1"]]
        );
        assert_eq!(
            told(&state, None),
            [["10.0.0.1:1", "10.0.1.1:1", "10.0.2.1:1"]],
            "nobody is near to no proxy"
        );
        state.groups.get_mut(&1).unwrap().promoting.state = "preparing".into();
        assert!(told(&state, Some(&viewer)).is_empty(), "a group that is promoted");
    }

    #[test]
    fn a_slot_that_moves_is_read_from_masters() {
        let mut state = state();
        let groups = state.groups.values_mut().flat_map(|group| &mut group.servers);
        groups.for_each(|server| server.replica_group = true);
        for (action, read) in [
            ("", true),
            ("pending", true),
            ("preparing", false),
            ("migrating", false),
            ("finished", false),
        ] {
            assert_eq!(!view(&state, 1, action).replica_groups.is_empty(), read, "{action}");
        }
        state.groups.get_mut(&1).unwrap().servers.pop();
        assert!(view(&state, 1, "").replica_groups.is_empty(), "a master alone");
    }

    #[test]
    fn an_offline_slot_has_no_backend() {
        let told = serde_json::to_string(&state().view(
            &SlotMapping {
                id: 5,
                ..Default::default()
            },
            1,
            None,
        ))
        .unwrap();
        assert_eq!(told, r#"{"id":5,"forward_method":1}"#);
    }
}
