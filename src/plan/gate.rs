//! The start gate and the fence: what keeps an emptied server from being copied, and a restarted master from taking
//! writes that would be lost with it (design, decision 6).

use super::{Decision, Desired, Step, input::Input, reason};
use crate::domain::{Address, Group, GroupId, MemberPod, Observed, Replication, SentinelMaster, ServerView};

/// A group whose every member stopped at the start gate: all copies are gone. Without volumes that is what was asked
/// for, with volumes a person has to accept it.
pub(super) fn start_empty(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for (id, servers) in input.wished_groups() {
        if !input.observed.bootstrapped.contains(id) {
            continue;
        }
        let pod_at_gate = |server| input.observed.server_pods.get(server).filter(|pod| pod.at_gate);
        let pods: Option<Vec<&MemberPod>> = servers.iter().map(pod_at_gate).collect();
        let Some(pods) = pods else { continue };
        let token = loss_token(*id, &pods);
        let is_accepted = input.desired.cluster.accepted_loss.as_deref() == Some(token.as_str());
        if input.desired.persistent.contains(id) && !is_accepted {
            let what = format!(
                "every copy of group {id} is gone: its volumes are empty. Restore one, or accept the loss of the group's keys: kubectl annotate --overwrite codiscluster {} codis.k8s.io/accept-data-loss={token}",
                input.desired.cluster.names.cluster
            );
            decision.block(reason::GROUP_LOST, what);
        } else if pods.iter().all(|pod| pod.stopped_empty) {
            let pods = pods.into_iter().map(|pod| (pod.name.clone(), pod.uid.clone()));
            return Some(Step::StartEmpty {
                group: *id,
                pods: pods.collect(),
            });
        }
    }
    None
}

/// Names one loss, so that accepting it accepts no later one: FNV-1a over the pods' uids.
fn loss_token(group: GroupId, pods: &[&MemberPod]) -> String {
    let bytes = pods.iter().flat_map(|pod| pod.uid.bytes());
    let hash = bytes.fold(0x811c_9dc5u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("g{group}-{hash:08x}")
}

/// A master that was restarted starts fenced: it takes no write without a replica, because sentinels that haven't
/// noticed its return yet may be about to replace it. The fence is lifted once so many of them have heard the new
/// process that the others are too few to fail over. A replica needs no fence: promoted, it would refuse writes.
pub(super) fn unfence(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for group in input.topology.groups.values() {
        for server in group.servers.iter().map(|server| &server.address) {
            let Some(ServerView::Up {
                replication,
                uptime,
                fenced: true,
                ..
            }) = input.server(server)
            else {
                continue;
            };
            let may_lift = match replication {
                Replication::Replica { link_up, .. } => *link_up,
                Replication::Master => may_lift(input, group, server, *uptime),
            };
            if may_lift {
                return Some(Step::Unfence(server.clone()));
            }
            let what = format!(
                "{server} of group {} was restarted: writes need a replica until the sentinels have heard it",
                group.id
            );
            decision.wait(reason::FAILOVER, what);
        }
    }
    None
}

fn may_lift(input: &Input<'_>, group: &Group, server: &Address, uptime: u64) -> bool {
    let is_official = group.master() == Some(server) && group.is_settled();
    let heard = heard(input.observed, &input.master_name(group.id), server, uptime);
    is_official && input.sentinels_agree(group) && is_safe(input.desired, heard)
}

/// The same while the dashboard is away: the sentinels' word is then the only one, and must be a majority's.
pub(super) fn unfence_by_sentinels(desired: &Desired<'_>, observed: &Observed) -> Option<Step> {
    for (group, servers) in &desired.addresses.servers {
        let name = format!("{}-{group}", desired.cluster.product());
        for server in servers {
            let Some(ServerView::Up {
                replication: Replication::Master,
                uptime,
                fenced: true,
                ..
            }) = observed.servers.get(server)
            else {
                continue;
            };
            let heard = heard(observed, &name, server, *uptime);
            if heard * 2 > usize::from(desired.cluster.sentinel_count()) && is_safe(desired, heard) {
                return Some(Step::Unfence(server.clone()));
            }
        }
    }
    None
}

/// How many sentinels take the server for a healthy master and have heard its present process.
fn heard(observed: &Observed, name: &str, server: &Address, uptime: u64) -> usize {
    let has_heard = |known: &&SentinelMaster| {
        known.address == *server && known.flags == "master" && known.silent_ms < uptime * 1000
    };
    observed
        .sentinels
        .values()
        .flatten()
        .filter_map(|view| view.masters.get(name))
        .filter(has_heard)
        .count()
}

/// Whether the sentinels that haven't heard it are fewer than a quorum.
fn is_safe(desired: &Desired<'_>, heard: usize) -> bool {
    heard + usize::from(desired.cluster.quorum()) > usize::from(desired.cluster.sentinel_count())
}
