//! What is remembered of a topology outside of its coordinator, and what speaks for or against it (design, decision 8).

use std::collections::{BTreeMap, BTreeSet};

use super::{Address, GroupId, SlotId, SlotMapping};

/// A topology as it was when every slot had a group. Servers are known by their group and ordinal: addresses may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// The uid of the CodisCluster that it was taken of.
    pub cluster_uid: String,
    /// Its product.
    pub product: String,
    /// The ordinals of each group's servers, the master first.
    pub groups: BTreeMap<GroupId, Vec<u16>>,
    /// All 1024 slots, in order, each with a group. One that was on its way, or about to be, is with either.
    pub slots: Vec<SlotMapping>,
    /// The ordinals of the sentinels.
    pub sentinels: Vec<u16>,
    /// The addresses that Services had, by name: a hint for those that are made anew.
    pub addresses: BTreeMap<String, String>,
    /// The addresses that Services had and haven't any more, each with its name.
    pub former: BTreeMap<String, String>,
    /// Whether it is being restored: slots that were on their way may not be again yet.
    pub restoring: bool,
}

/// What was found when a dump had to be checked: the proxies' tables and the servers' keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What running proxies serve, by their administrative address, or why they don't say.
    pub tables: BTreeMap<Address, Result<Vec<Route>, String>>,
    /// The slots of which servers hold keys, or why they don't say.
    pub keys: BTreeMap<Address, Result<BTreeSet<SlotId>, String>>,
}

/// Where a proxy sends a slot's commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The group; none when the slot is offline.
    pub group: Option<GroupId>,
    /// The server that it takes for the group's master.
    pub master: Option<Address>,
    /// The group that the slot comes from, while it moves.
    pub from: Option<GroupId>,
    /// Whether it keeps the slot's commands back.
    pub locked: bool,
}
