//! [`ValidCluster`] and [`Facts`] → Kubernetes objects and config files. Pure; one file per component.
//!
//! May enter: validate, k8s-openapi. Stays out: clients, clocks. What only the API server knows, or what may never
//! change again, comes in as facts. Services are built first: workloads need every assigned address.

mod budgets;
mod config;
mod connection;
mod dashboard;
mod dump;
mod fe;
mod files;
mod live;
mod meta;
mod placement;
mod pod;
mod proxy;
mod restart;
mod sentinel;
mod server;
mod services;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{PodTemplateSpec, Secret, Service},
    policy::v1::PodDisruptionBudget,
};

pub use budgets::{MASTER, REPLICA};
pub use config::{
    KEY_BOOTSTRAPPED, KEY_FORMER, KEY_LIVE_KEYS, KEY_PRODUCT_AUTH, KEY_PRODUCT_CLAIMED, KEY_SESSION_AUTH,
    KEY_SESSION_ROTATIONS, sentinel_id,
};
pub use dump::{dump_config_map, parse_dump};
pub use live::{has_setting, live_settings};
pub use meta::{Component, DATA_CLAIM};

use crate::{
    domain::{Address, GroupId, ports},
    validate::{Auth, ValidCluster, Volume},
};

/// The kubelet's copy of this text in a container's termination message proves that the start gate found no data.
pub const GATE_MESSAGE: &str = "codis-gate: no data here and no master in the group";

/// So a dashboard's termination message begins where the product is somebody else's; the rest is for people.
pub const OWNED_ELSEWHERE: &str = "ProductOwnedElsewhere: ";

/// What only the API server knows, or what may never change again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The ClusterIPs of Services, by name.
    pub addresses: BTreeMap<String, String>,
    /// The addresses that Services had and haven't any more, each with the Service's name: Codis may still know servers and
    /// sentinels by these.
    pub former: BTreeMap<String, String>,
    /// Groups whose start gate is armed.
    pub bootstrapped: BTreeSet<GroupId>,
    /// The passwords in force: a change in the spec can't be applied to one process at a time.
    pub auth: Auth,
    /// Groups whose servers must be on different nodes: decided when they are made.
    pub strict: BTreeSet<GroupId>,
    /// Whether the dashboard may be evicted: no server is on its node.
    pub dashboard_may_go: bool,
    /// Groups that have all their servers, in step.
    pub whole: BTreeSet<GroupId>,
    /// How many servers a group still has, where that is more than is wished.
    pub group_sizes: BTreeMap<GroupId, u16>,
    /// The claim templates of the StatefulSets that exist, by name: they are immutable.
    pub volumes: BTreeMap<String, Option<Volume>>,
    /// How many proxies their Deployment asks for, where there is one.
    pub proxies: Option<i32>,
    /// Parameters that servers were ever told live.
    pub live_keys: BTreeSet<String>,
    /// How often the password of the proxies' clients was changed.
    pub session_rotations: u32,
    /// Whether the product is marked as this cluster's: only then the dashboard starts on what is in it.
    pub claimed: bool,
    /// Which Kubernetes this is: the uid of its namespace kube-system.
    pub kubernetes_uid: String,
    /// What is taken over from the predecessor, while its dashboard still has the topology.
    pub inherited: Option<Inherited>,
}

/// The predecessor's processes that are members until ours take their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// Where its dashboard answers.
    pub dashboard: Address,
    /// The servers that its topology has: the pod, where it is known, and the address.
    pub servers: BTreeMap<GroupId, Vec<(String, Address)>>,
    /// Every address that is its.
    pub hosts: BTreeSet<String>,
}

/// A Service that has no address yet: workloads can't be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Service {0} has no address yet")]
pub struct MissingAddress(pub String);

/// Everything that runs, and what it reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Workloads {
    /// Config files, scripts and passwords.
    pub config: Secret,
    /// Dashboard, groups and sentinels.
    pub stateful_sets: Vec<StatefulSet>,
    /// Front end and proxies, in the order of their change.
    pub deployments: Vec<Deployment>,
    /// What scales the proxies, where they are scaled by their use.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// What applications read to connect.
    pub connection: Secret,
}

/// The addresses by which Codis, sentinels and replication know the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The dashboard's, HTTP.
    pub dashboard: Address,
    /// The servers of each group, by ordinal.
    pub servers: BTreeMap<GroupId, Vec<Address>>,
    /// Those of higher ordinals that aren't wished any more and are still members.
    pub leaving: BTreeMap<GroupId, Vec<Address>>,
    /// The sentinels, by ordinal.
    pub sentinels: Vec<Address>,
    /// The predecessor's servers that are still members, with their pods.
    pub inherited: BTreeMap<GroupId, Vec<(String, Address)>>,
}

impl Addresses {
    /// Every server, leaving ones included.
    pub fn members(&self) -> impl Iterator<Item = &Address> {
        let ours = self.servers.values().chain(self.leaving.values()).flatten();
        ours.chain(self.inherited.values().flatten().map(|(_, address)| address))
    }

    /// Those of a group that aren't to stay, the predecessor's before those of higher ordinals.
    pub fn going(&self, group: GroupId) -> impl DoubleEndedIterator<Item = &Address> {
        let leaving = self.leaving.get(&group).into_iter().flatten();
        let inherited = self.inherited.get(&group).into_iter().flatten();
        inherited.map(|(_, address)| address).chain(leaving)
    }

    /// Whether a server is the predecessor's.
    #[must_use]
    pub fn is_inherited(&self, server: &Address) -> bool {
        self.inherited.values().flatten().any(|(_, address)| address == server)
    }
}

/// Whether a group's pods must be on different nodes, by its template: decided when it was made.
#[must_use]
pub fn is_strict(template: &PodTemplateSpec) -> bool {
    pod::is_strict(template)
}

/// Which pods may be evicted.
#[must_use]
pub fn budgets(cluster: &ValidCluster, facts: &Facts) -> Vec<PodDisruptionBudget> {
    budgets::build(cluster, facts)
}

/// The Services of a cluster. Recorded addresses are asked for again, so that a Service that is made anew is the
/// same one to Codis.
#[must_use]
pub fn services(cluster: &ValidCluster, facts: &Facts) -> Vec<Service> {
    services::build(cluster, facts)
}

impl Facts {
    /// Every address that the cluster's members have or had.
    #[must_use]
    pub fn known_hosts(&self) -> BTreeSet<String> {
        let inherited = self.inherited.iter().flat_map(|inherited| &inherited.hosts);
        let ours = self.addresses.values().chain(self.former.keys());
        ours.chain(inherited).cloned().collect()
    }

    /// How many servers a group has, leaving ones included.
    pub(crate) fn group_size(&self, cluster: &ValidCluster, group: GroupId) -> u16 {
        self.group_sizes
            .get(&group)
            .copied()
            .unwrap_or(0)
            .max(cluster.group_size)
    }
}

/// The addresses of all members.
///
/// # Errors
/// When a Service has none yet.
pub fn addresses(cluster: &ValidCluster, facts: &Facts) -> Result<Addresses, MissingAddress> {
    let names = &cluster.names;
    let address = |service: String, port: u16| match facts.addresses.get(&service) {
        Some(ip) => Ok(Address::new(ip.clone(), port)),
        None => Err(MissingAddress(service)),
    };
    let servers_of = |group: GroupId, ordinals: Range<u16>| {
        let pods = ordinals.map(|ordinal| names.server_pod(group, ordinal));
        pods.map(|pod| address(pod, ports::SERVER))
            .collect::<Result<Vec<_>, _>>()
    };
    let inherited = facts.inherited.as_ref();
    Ok(Addresses {
        dashboard: match inherited {
            Some(inherited) => inherited.dashboard.clone(),
            None => address(names.dashboard(), ports::DASHBOARD)?,
        },
        inherited: inherited.map(|inherited| inherited.servers.clone()).unwrap_or_default(),
        servers: cluster
            .group_ids()
            .map(|group| Ok((group, servers_of(group, 0..cluster.group_size)?)))
            .collect::<Result<_, _>>()?,
        leaving: facts
            .group_sizes
            .iter()
            .map(|(group, size)| Ok((*group, servers_of(*group, cluster.group_size..*size)?)))
            .collect::<Result<_, _>>()?,
        sentinels: (0..cluster.sentinel_count())
            .map(|ordinal| address(names.sentinel_pod(ordinal), ports::SENTINEL))
            .collect::<Result<_, _>>()?,
    })
}

/// Everything that runs, and what it reads.
#[must_use]
pub fn workloads(cluster: &ValidCluster, facts: &Facts, addresses: &Addresses) -> Workloads {
    let mut stateful_sets = vec![dashboard::stateful_set(cluster, facts)];
    stateful_sets.extend(
        cluster
            .group_ids()
            .map(|group| server::stateful_set(cluster, facts, group)),
    );
    stateful_sets.extend(sentinel::stateful_set(cluster, facts));
    stateful_sets.iter_mut().for_each(placement::stay_while_silent);
    let mut deployments: Vec<Deployment> = fe::deployment(cluster, facts).into_iter().collect();
    deployments.push(proxy::deployment(cluster, facts));
    Workloads {
        config: config::secret(cluster, facts, addresses),
        stateful_sets,
        deployments,
        autoscaler: proxy::autoscaler(cluster),
        connection: connection::secret(cluster, facts),
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
