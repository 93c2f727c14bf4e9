//! The role label of the servers' pods, by which evictions are told apart.

use kube::ResourceExt;

use super::{Context, Error, Turn};
use crate::{
    api::names::LABEL_ROLE,
    build::{MASTER, REPLICA},
    domain::{Address, DashboardView, Replication, ServerView, Topology},
    plan::Desired,
};

/// Labels pods by what their servers are. A server that may be master counts as one: better a drain that waits.
pub(super) async fn label(context: &Context, desired: &Desired<'_>, turn: &Turn<'_>) -> Result<(), Error> {
    let DashboardView::Online { topology, .. } = &turn.observed.dashboard else {
        return Ok(());
    };
    for (name, (_, address)) in desired.servers() {
        let Some(pod) = turn.live.pods.iter().find(|pod| pod.name_any() == name) else {
            continue;
        };
        let role = if may_be_master(topology, turn, &address) {
            MASTER
        } else {
            REPLICA
        };
        let known = pod.labels().get(LABEL_ROLE).map(String::as_str);
        if known != Some(role) && pod.metadata.deletion_timestamp.is_none() {
            context.cluster.label(pod, LABEL_ROLE, role).await?;
        }
    }
    Ok(())
}

fn may_be_master(topology: &Topology, turn: &Turn<'_>, address: &Address) -> bool {
    let is_official = topology.groups.values().any(|group| group.master() == Some(address));
    let is_one = matches!(
        turn.observed.servers.get(address),
        Some(ServerView::Up {
            replication: Replication::Master,
            ..
        })
    );
    // In a group that isn't made yet every server is one.
    let is_member = topology
        .groups
        .values()
        .any(|group| group.servers.iter().any(|server| server.address == *address));
    is_official || is_one && is_member
}
