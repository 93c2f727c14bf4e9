//! How well the cluster serves, counted.

use super::Desired;
use crate::domain::{Address, DashboardView, Observed, Replication, SLOT_COUNT, ServerView, Topology};

/// Counts for the status and the conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Slots that map to a reachable master.
    pub slots_served: u16,
    /// Proxies that are online and that clients find.
    pub proxies_online: usize,
    /// Servers that serve as master or follow their master with the link up.
    pub servers_in_role: usize,
    /// Sentinels that watch every group.
    pub sentinels_watching: usize,
}

impl Health {
    /// An online proxy exists and all 1024 slots map to reachable masters.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.slots_served == SLOT_COUNT && self.proxies_online > 0
    }
}

/// Counts what serves. Without a dashboard the last word on slots is missing, so nothing counts as served.
#[must_use]
pub fn health(desired: &Desired<'_>, observed: &Observed) -> Health {
    let DashboardView::Online { topology, .. } = &observed.dashboard else {
        return Health::default();
    };
    let is_master = |address: &Address| {
        matches!(
            observed.servers.get(address),
            Some(ServerView::Up {
                replication: Replication::Master,
                ..
            })
        )
    };
    let serves = |group| {
        topology
            .groups
            .get(&group)
            .and_then(|group| group.master())
            .is_some_and(is_master)
    };
    let slots_served = topology
        .slots
        .iter()
        .filter(|slot| slot.group.is_some_and(serves))
        .count();
    Health {
        slots_served: u16::try_from(slots_served).unwrap_or(SLOT_COUNT),
        proxies_online: topology
            .proxies
            .iter()
            .filter(|proxy| observed.is_in_service(proxy))
            .count(),
        servers_in_role: servers_in_role(topology, observed),
        sentinels_watching: sentinels_watching(desired, topology, observed),
    }
}

fn servers_in_role(topology: &Topology, observed: &Observed) -> usize {
    let in_role = |master: &Address, address: &Address| match observed.servers.get(address) {
        Some(ServerView::Up {
            replication: Replication::Master,
            ..
        }) => address == master,
        Some(ServerView::Up {
            replication: Replication::Replica {
                master: followed,
                link_up,
            },
            ..
        }) => *link_up && followed == master,
        _ => false,
    };
    let groups = topology.groups.values();
    groups
        .filter_map(|group| Some((group.master()?, group)))
        .map(|(master, group)| {
            group
                .servers
                .iter()
                .filter(|server| in_role(master, &server.address))
                .count()
        })
        .sum()
}

fn sentinels_watching(desired: &Desired<'_>, topology: &Topology, observed: &Observed) -> usize {
    let product = desired.cluster.product();
    let groups = topology.groups.values().filter(|group| !group.servers.is_empty());
    let names: Vec<String> = groups.map(|group| format!("{product}-{}", group.id)).collect();
    let views = observed.sentinels.values().flatten();
    views
        .filter(|view| !names.is_empty() && names.iter().all(|name| view.masters.contains_key(name)))
        .count()
}
