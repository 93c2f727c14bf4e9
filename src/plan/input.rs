//! What the rules ask, in their words.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    build::Addresses,
    domain::{Address, Group, GroupId, Observed, Replication, ServerView, Topology},
    validate::ValidCluster,
};

/// What is wished, with what is known about it.
#[derive(Clone, Debug)]
pub struct Desired<'a> {
    /// The spec.
    pub cluster: &'a ValidCluster,
    /// The members' addresses.
    pub addresses: &'a Addresses,
    /// Every address that belongs to the cluster, also of members that are no longer wished.
    pub known_hosts: BTreeSet<String>,
    /// Groups whose servers keep their data on volumes.
    pub persistent: BTreeSet<GroupId>,
    /// Whether the stand-in for Codis may be run.
    pub allow_stand_in: bool,
}

pub(super) struct Input<'a> {
    pub desired: &'a Desired<'a>,
    pub observed: &'a Observed,
    pub topology: &'a Topology,
}

impl Input<'_> {
    pub(super) fn server(&self, address: &Address) -> Option<&ServerView> {
        self.observed.servers.get(address)
    }

    /// The wished groups with their members' addresses.
    pub(super) fn wished_groups(&self) -> &BTreeMap<GroupId, Vec<Address>> {
        &self.desired.addresses.servers
    }

    /// Whether the topology has every wished group with every wished server.
    pub(super) fn groups_stand(&self) -> bool {
        self.wished_groups().iter().all(|(id, servers)| {
            let known = self.topology.groups.get(id).map(|group| &group.servers);
            let is_known = |address: &Address| known.is_some_and(|known| known.iter().any(|s| s.address == *address));
            servers.iter().all(is_known)
        })
    }

    pub(super) fn is_up_master(&self, address: &Address) -> bool {
        matches!(
            self.server(address),
            Some(ServerView::Up {
                replication: Replication::Master,
                ..
            })
        )
    }

    /// The official master, if it is one and answers.
    pub(super) fn serving_master<'g>(&self, group: &'g Group) -> Option<&'g Address> {
        group.master().filter(|master| self.is_up_master(master))
    }

    pub(super) fn keys(&self, address: &Address) -> u64 {
        match self.server(address) {
            Some(ServerView::Up { keys, .. }) => *keys,
            _ => 0,
        }
    }

    /// The name under which sentinels watch a group (contract §11).
    pub(super) fn master_name(&self, group: GroupId) -> String {
        format!("{}-{group}", self.desired.cluster.names.cluster)
    }

    /// Whether no sentinel takes another server for the group's master. A sentinel that doesn't answer or doesn't
    /// know the group has no say; what the dashboard heard from the majority has.
    pub(super) fn sentinels_agree(&self, group: &Group) -> bool {
        let Some(master) = group.master() else { return false };
        let name = self.master_name(group.id);
        let views = self.observed.sentinels.values().flatten();
        let told = views
            .filter_map(|view| view.masters.get(&name))
            .map(|known| &known.address);
        told.chain(self.topology.sentinels.masters.get(&group.id))
            .all(|known| known == master)
    }

    /// A server or sentinel of the topology that doesn't belong to this cluster.
    pub(super) fn foreign_member(&self) -> Option<String> {
        let is_foreign = |address: &Address| !self.desired.known_hosts.contains(address.host());
        let servers = self.topology.groups.values().flat_map(|group| {
            group.servers.iter().map(move |server| {
                (
                    format!("server {} in group {}", server.address, group.id),
                    &server.address,
                )
            })
        });
        let sentinels = self
            .topology
            .sentinels
            .servers
            .iter()
            .map(|address| (format!("sentinel {address}"), address));
        servers
            .chain(sentinels)
            .find(|(_, address)| is_foreign(address))
            .map(|(what, _)| what)
    }
}
