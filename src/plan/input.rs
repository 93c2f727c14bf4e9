//! What the rules ask, in their words.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use crate::{
    build::Addresses,
    domain::{Address, Group, GroupId, Observed, Replication, SentinelView, ServerView, Topology},
    validate::ValidCluster,
};

/// What is wished, with what is known about it.
#[derive(Clone, Debug)]
pub struct Desired<'a> {
    /// The spec.
    pub cluster: &'a ValidCluster,
    /// The members' addresses.
    pub addresses: &'a Addresses,
    /// The hosts that servers and sentinels had earlier, each with its pod.
    pub former: BTreeMap<String, String>,
    /// Every address that belongs to the cluster, also of members that are no longer wished.
    pub known_hosts: BTreeSet<String>,
    /// Groups whose servers keep their data on volumes.
    pub persistent: BTreeSet<GroupId>,
    /// Whether servers ask for a password.
    pub has_password: bool,
    /// What time it is: for holds that end.
    pub now: Timestamp,
    /// Why no step is taken that could wait: other clusters fared badly after theirs.
    pub stopped: Option<String>,
    /// The switchover that a person asks for, while it isn't dealt with.
    pub promotion: Option<(GroupId, Option<Address>)>,
    /// Whether the stand-in for Codis may be run.
    pub allow_stand_in: bool,
}

impl Desired<'_> {
    /// The pod of a server, by its address.
    #[must_use]
    pub fn pod_at(&self, address: &Address) -> Option<String> {
        let mut ours = self.members();
        let ours = ours.find(|(_, _, known)| *known == address);
        let ours = ours.map(|(group, ordinal, _)| self.cluster.names.server_pod(group, ordinal));
        let inherited = || {
            let mut all = self.addresses.inherited.values().flatten();
            all.find(|(_, known)| known == address).map(|(pod, _)| pod.clone())
        };
        ours.or_else(inherited)
    }

    /// The address of a server, by its pod.
    #[must_use]
    pub fn address_of(&self, pod: &str) -> Option<Address> {
        let (_, (_, address)) = self.servers().find(|(known, _)| known == pod)?;
        Some(address)
    }

    /// The pod that had an address which is nobody's now.
    #[must_use]
    pub fn former_pod(&self, old: &Address) -> Option<&String> {
        self.former.get(old.host())
    }

    /// The address that a former one's server has now.
    #[must_use]
    pub fn successor(&self, old: &Address) -> Option<Address> {
        self.address_of(self.former_pod(old)?).filter(|now| now != old)
    }

    /// Where a server is now that somebody knows by an address, also by one that it had.
    #[must_use]
    pub fn present(&self, known: &Address) -> Address {
        self.successor(known).unwrap_or_else(|| known.clone())
    }

    /// Every wished sentinel: its pod and its address.
    pub fn sentinels(&self) -> impl Iterator<Item = (String, Address)> {
        let all = (0..).zip(&self.addresses.sentinels);
        all.map(|(ordinal, address)| (self.cluster.names.sentinel_pod(ordinal), address.clone()))
    }

    /// Every wished server: its pod, its group and its address.
    pub fn servers(&self) -> impl Iterator<Item = (String, (GroupId, Address))> {
        let ours = self.members().map(|(group, ordinal, address)| {
            let pod = self.cluster.names.server_pod(group, ordinal);
            (pod, (group, address.clone()))
        });
        let inherited = self.addresses.inherited.iter().flat_map(|(group, servers)| {
            let all = servers.iter();
            all.map(|(pod, address)| (pod.clone(), (*group, address.clone())))
        });
        ours.chain(inherited)
    }

    /// The servers of our own StatefulSets, by group and ordinal.
    fn members(&self) -> impl Iterator<Item = (GroupId, u16, &Address)> {
        self.addresses.servers.iter().flat_map(|(group, servers)| {
            let leaving = self.addresses.leaving.get(group).into_iter().flatten();
            let all = (0..).zip(servers.iter().chain(leaving));
            all.map(|(ordinal, address)| (*group, ordinal, address))
        })
    }
}

/// What the sentinels say of a group's official master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A majority names it; or there are none to ask.
    For,
    /// Somebody names another.
    Against,
    /// Too few know.
    Silent,
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

    /// The wished groups with their members' addresses, without those that leave.
    pub(super) fn staying_groups(&self) -> impl Iterator<Item = (&GroupId, &Vec<Address>)> {
        let all = self.desired.addresses.servers.iter();
        all.filter(|(group, _)| self.desired.cluster.stays(**group))
    }

    /// All groups with their members' addresses, those that leave included.
    pub(super) fn wished_groups(&self) -> &BTreeMap<GroupId, Vec<Address>> {
        &self.desired.addresses.servers
    }

    /// Whether the topology has every wished group with every wished server.
    pub(super) fn groups_stand(&self) -> bool {
        self.staying_groups().all(|(id, servers)| {
            let known = self.topology.groups.get(id).map(|group| &group.servers);
            let is_known = |address: &Address| known.is_some_and(|known| known.iter().any(|s| s.address == *address));
            servers.iter().all(is_known)
        })
    }

    /// Whether no process of a server runs, by the proofs of design, decision 7.
    pub(super) fn is_provably_gone(&self, server: &Address) -> bool {
        self.observed.server_pods.get(server).is_some_and(|pod| pod.not_running)
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

    /// Whether a member is its group's serving master, or follows it with the link up.
    pub(super) fn is_in_role(&self, group: &Group, address: &Address) -> bool {
        match self.server(address) {
            Some(ServerView::Up {
                replication: Replication::Master,
                ..
            }) => group.master() == Some(address),
            Some(ServerView::Up {
                replication: Replication::Replica { master, link_up },
                ..
            }) => *link_up && group.master() == Some(master),
            _ => false,
        }
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
        format!("{}-{group}", self.desired.cluster.product())
    }

    /// What the sentinels that answer have for a group's master.
    fn known_masters(&self, group: GroupId) -> Vec<&Address> {
        let name = self.master_name(group);
        let views = self.observed.sentinels.values().flatten();
        views
            .filter_map(|view| view.masters.get(&name))
            .map(|known| &known.address)
            .collect()
    }

    /// As [`Desired::present`].
    pub(super) fn present(&self, known: &Address) -> Address {
        self.desired.present(known)
    }

    /// Whether more than half of the wished sentinels are these.
    pub(super) fn is_majority(&self, count: usize) -> bool {
        count * 2 > usize::from(self.desired.cluster.sentinel_count())
    }

    /// Whether most sentinels name a server as the group's master, also by an address that it had, and none of them another one.
    pub(super) fn is_named_by_sentinels(&self, group: GroupId, server: &Address) -> bool {
        let (known, server) = (self.known_masters(group), self.present(server));
        self.is_majority(known.len()) && known.into_iter().all(|master| self.present(master) == server)
    }

    pub(super) fn is_known_to_sentinels(&self, group: &Group) -> bool {
        !self.known_masters(group.id).is_empty()
    }

    /// Whether all sentinels that answer, and most of them do, watch the group's official master and have taken it for down
    /// for a while: one that follows another server is down for them after 25 s.
    pub(super) fn have_given_up(&self, group: &Group) -> bool {
        let name = self.master_name(group.id);
        let views: Vec<_> = self.observed.sentinels.values().flatten().collect();
        let given_up = |view: &&SentinelView| {
            view.masters.get(&name).is_some_and(|known| {
                Some(&known.address) == group.master()
                    && known.flags.contains("s_down")
                    && !known.flags.contains("failover_in_progress")
            })
        };
        self.is_majority(views.len()) && views.iter().all(given_up)
    }

    /// Whether a sentinel is about to replace the group's master: a master that appears beside it may be the one that it promotes.
    pub(super) fn is_failing_over(&self, group: &Group) -> bool {
        let name = self.master_name(group.id);
        let known = self.observed.sentinels.values().flatten();
        let mut known = known.filter_map(|view| view.masters.get(&name));
        known.any(|master| {
            ["o_down", "failover_in_progress"]
                .iter()
                .any(|flag| master.flags.contains(flag))
        })
    }

    /// Whether no sentinel takes another server for the group's master. A sentinel that doesn't answer or doesn't
    /// know the group has no say. Where too few answer, what the dashboard heard from them earlier counts too: it isn't
    /// told of promotions by itself for up to 15 minutes (contract §11).
    pub(super) fn sentinels_agree(&self, group: &Group) -> bool {
        let Some(master) = group.master() else { return false };
        let answering = self.observed.sentinels.values().flatten().count();
        let heard_earlier = self
            .topology
            .sentinels
            .masters
            .get(&group.id)
            .filter(|_| !self.is_majority(answering));
        let mut named = self.known_masters(group.id).into_iter().chain(heard_earlier);
        let master = self.present(master);
        // Also by an address that it had.
        named.all(|known| self.present(known) == master)
    }

    /// Whether the sentinels stand behind the official master of a group.
    pub(super) fn word_on(&self, group: &Group) -> Word {
        let known = self.known_masters(group.id);
        let answering = self.observed.sentinels.values().flatten().count();
        match group.master() {
            _ if self.desired.cluster.sentinel.is_none() => Word::For,
            Some(master) if known.iter().any(|known| self.present(known) != self.present(master)) => Word::Against,
            Some(_) if self.is_majority(known.len()) => Word::For,
            // A promotion by the dashboard takes the group from the sentinels and leaves this mark (contract §6.2). So
            // do other changes: but who was just promoted was running, and so isn't fenced.
            Some(master)
                if self.is_majority(answering) && self.topology.sentinels.out_of_sync && !self.is_fenced(master) =>
            {
                Word::For
            }
            Some(_) | None => Word::Silent,
        }
    }

    fn is_fenced(&self, address: &Address) -> bool {
        matches!(self.server(address), Some(ServerView::Up { fenced: true, .. }))
    }

    /// The official master, if it serves and no sentinel names another.
    pub(super) fn undisputed_master<'g>(&self, group: &'g Group) -> Option<&'g Address> {
        self.serving_master(group).filter(|_| self.sentinels_agree(group))
    }

    /// Whether another member of the group is a master too.
    pub(super) fn has_rival(&self, group: &Group) -> bool {
        group
            .servers
            .iter()
            .skip(1)
            .any(|server| self.is_up_master(&server.address))
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
