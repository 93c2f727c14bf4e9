//! Nodes that don't come back. What keeps no data is replaced once a node is silent for long enough; what keeps data, or
//! must not run twice, only with proof that its process is gone: the node object is gone, or it is tainted
//! `out-of-service` (design, decision 7). A volume that went with its node is given up only while another copy serves.

use super::{Decision, Desired, Step, input::Input, reason};
use crate::{
    domain::{Group, LostClaim, MemberPod, NodeView, Observed, StatelessPod},
    seeded::{self, Bug},
};

/// A node whose object has been missing for so many seconds is gone: one that was just made may not be seen yet.
pub const GONE_AFTER: u64 = 15;

/// Pods of proxies and front ends on nodes that are lost: others take their place at once.
pub(super) fn replace_stateless(input: &Input<'_>, _: &mut Decision) -> Option<Step> {
    replace(input.desired, input.observed)
}

/// The same while the dashboard is away: it may be on such a node too, and stays there until somebody has proof.
pub(super) fn replace(desired: &Desired<'_>, observed: &Observed) -> Option<Step> {
    let limit = desired.cluster.node_loss_after.as_secs();
    let is_lost = |node: &NodeView| is_proof(node) || node.silent_for.is_some_and(|seconds| seconds >= limit);
    let is_on_lost = |pod: &&StatelessPod| observed.node(pod.node.as_ref()).is_some_and(is_lost);
    let mut pods = observed.stateless_pods.iter().filter(|pod| !pod.terminating);
    pods.find(is_on_lost).map(|pod| Step::Restart {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        why: "its node is lost".to_owned(),
    })
}

/// Pods of a StatefulSet on nodes that are provably gone: nobody will ever confirm their end, so they are removed
/// without waiting for it.
pub(super) fn remove_dead(input: &Input<'_>, _: &mut Decision) -> Option<Step> {
    remove(input.observed)
}

/// The same while the dashboard is away: it may be one of them.
pub(super) fn remove(observed: &Observed) -> Option<Step> {
    let is_proven = |pod: &&MemberPod| observed.node(pod.node.as_ref()).is_some_and(is_proof);
    // The mistake: a silent node proves nothing.
    if seeded::has(Bug::LockBrokenWithoutProof)
        && let Some(pod) = &observed.dashboard_pod
        && observed
            .node(pod.node.as_ref())
            .is_some_and(|node| node.silent_for.is_some())
    {
        return Some(Step::RemovePod {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            why: "its node is silent".to_owned(),
        });
    }
    let pods = observed
        .server_pods
        .values()
        .chain(observed.sentinel_pods.values())
        .chain(&observed.dashboard_pod);
    let pod = { pods }.find(is_proven)?;
    Some(Step::RemovePod {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        why: format!("its node {} is gone", pod.node.as_deref().unwrap_or_default()),
    })
}

fn is_proof(node: &NodeView) -> bool {
    node.out_of_service || node.gone_for.is_some_and(|seconds| seconds >= GONE_AFTER)
}

/// Claims whose volume went with its node. The server is made anew elsewhere, as a replica: only if another one is
/// master and serves.
pub(super) fn forget_volumes(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for (server, lost) in &input.observed.lost_claims {
        let LostClaim { claim, node, .. } = lost;
        if lost.may_return {
            let what = format!(
                "the volume of claim {claim} is on node {node}, which is out of service: it is kept until the node is back; to give it up, delete the node"
            );
            decision.wait(reason::NODE_LOST, what);
            continue;
        }
        let mut groups = input.topology.groups.values();
        let group = groups.find(|group| group.servers.iter().any(|s| s.address == *server));
        let serves =
            |group: &Group| group.is_settled() && input.undisputed_master(group).is_some_and(|master| master != server);
        if group.is_some_and(serves) {
            return Some(Step::ForgetVolume {
                claim: claim.clone(),
                uid: lost.uid.clone(),
                node: node.clone(),
            });
        }
        let what = format!(
            "the volume of claim {claim} was on node {node}, which is gone, and no other server of its group serves"
        );
        // A failover may still be on its way to a replica; to a master nobody but a person can help.
        if group.and_then(Group::master).is_some_and(|master| master != server) {
            decision.wait(reason::NODE_LOST, what);
        } else {
            let what = format!("{what}: bring the node back, or promote another server if its data will do");
            decision.block(reason::NODE_LOST, what);
        }
    }
    None
}

/// The dashboard's own volume went with its node: the topology is put back from its dump, where there is one.
pub(super) fn forget_dashboard(desired: &Desired<'_>, observed: &Observed, decision: &mut Decision) -> Option<Step> {
    let lost = observed.lost_claims.get(&desired.addresses.dashboard)?;
    let LostClaim { claim, uid, node, .. } = lost;
    let what = format!("the volume of claim {claim}, with the topology, is on node {node}");
    if lost.may_return {
        let what = format!(
            "{what}, which is out of service: it is kept until the node is back; to give it up, delete the node"
        );
        decision.wait(reason::NODE_LOST, what);
        return None;
    }
    if !matches!(observed.dump, Some(Ok(_))) {
        let what = format!("{what}, which is gone, and there is no dump of the topology: bring the node back");
        decision.block(reason::NODE_LOST, what);
        return None;
    }
    Some(Step::ForgetVolume {
        claim: claim.clone(),
        uid: uid.clone(),
        node: node.clone(),
    })
}
