//! What the dashboard says: groups, slots, sentinels and proxies (contract §4).

use std::collections::BTreeMap;

use super::{Address, GroupId, SlotId};

/// The whole of a product's topology.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Groups by id.
    pub groups: BTreeMap<GroupId, Group>,
    /// All 1024 slots, in order.
    pub slots: Vec<SlotMapping>,
    /// The sentinels that the dashboard knows.
    pub sentinels: Sentinels,
    /// The registered proxies.
    pub proxies: Vec<ProxyRecord>,
    /// Whether migrations are paused: none starts, and the one that runs makes no step. A restarted dashboard has
    /// forgotten it (contract §5.5).
    pub migrations_disabled: bool,
    /// The pause between two steps of a migration, in microseconds. A restarted dashboard has forgotten it.
    pub migration_interval: u32,
    /// Whether a migration moved keys at that instant. Between two steps it isn't seen (contract §4): only while
    /// migrations are paused does "no" last.
    pub migration_running: bool,
}

/// A replication group. `servers[0]` is its master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its members, the master first.
    pub servers: Vec<Server>,
    /// Whether a promotion has begun and not ended (contract §6.2); the index that is being promoted.
    pub promoting: Option<usize>,
    /// Whether proxies may hold another view of it (contract §6.4).
    pub out_of_sync: bool,
}

/// A codis-server as the dashboard has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its address, compared as text.
    pub address: Address,
    /// Its sync action (contract §6.3).
    pub action: ActionState,
    /// Whether proxies send read-only commands to it, too: its `replica_group` (contract §6.5).
    pub is_read: bool,
}

/// The state of a server's sync action or of a slot's migration, as far as anyone needs to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActionState {
    /// None, or ended.
    #[default]
    Idle,
    /// Waiting or running.
    Running,
    /// Ended with an error.
    Failed,
}

/// A slot and the group that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotMapping {
    /// The slot.
    pub id: SlotId,
    /// Its group; none when offline.
    pub group: Option<GroupId>,
    /// Where it is on its way to, if it is.
    pub moving: Option<SlotMove>,
}

/// A slot's way to another group (contract §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotMove {
    /// The group that is to have it.
    pub to: GroupId,
    /// Whether it hasn't begun: only then it can be cancelled.
    pub pending: bool,
}

impl SlotMapping {
    /// The group that has it once all that was queued is done; none when offline.
    #[must_use]
    pub fn owner(&self) -> Option<GroupId> {
        self.moving.map(|moving| moving.to).or(self.group)
    }

    /// Whether it is on its way from or to a group.
    #[must_use]
    pub fn moves_with(&self, group: GroupId) -> bool {
        self.moving
            .is_some_and(|moving| moving.to == group || self.group == Some(group))
    }
}

/// The sentinels that the dashboard knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentinels {
    /// Their addresses.
    pub servers: Vec<Address>,
    /// Whether their masters may not match the groups: an alarm (design, decision 5).
    pub out_of_sync: bool,
    /// What the sentinels' majority takes for each group's master.
    pub masters: BTreeMap<GroupId, Address>,
}

/// A proxy as the dashboard has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyRecord {
    /// Its identity, 32 hexadecimal digits.
    pub token: String,
    /// Where it is administered.
    pub admin: Address,
    /// Whether it answered the dashboard as online.
    pub online: bool,
    /// Whether it serves an order of its own after a switch (contract §11).
    pub switched: bool,
    /// The sentinels that it listens to, as it says.
    pub sentinels: Vec<String>,
    /// Why the dashboard can't reach it.
    pub error: Option<String>,
}

impl Topology {
    /// Whether nobody has written anything into it: no group, no sentinel, no assigned slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
            && self.sentinels.servers.is_empty()
            && self.slots.iter().all(|slot| slot.group.is_none())
    }

    /// How many slots a group has.
    #[must_use]
    pub fn slots_of(&self, group: GroupId) -> usize {
        self.slots.iter().filter(|slot| slot.group == Some(group)).count()
    }
}

impl Group {
    /// Whether its order is official and nothing is changing it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.out_of_sync && self.promoting.is_none()
    }

    /// The official master.
    #[must_use]
    pub fn master(&self) -> Option<&Address> {
        self.servers.first().map(|server| &server.address)
    }
}
