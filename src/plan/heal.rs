//! Masters and replicas: what died comes back in its place, and nothing acknowledged is overwritten.

use super::{Decision, Step, input::Input, reason};
use crate::domain::{ActionState, Address, Group, GroupId, MemberPod, Replication, ServerView};

/// Without sentinels a master that doesn't answer for this many seconds is replaced.
const PROMOTE_AFTER: u64 = 10;

/// A group whose every member stopped at the start gate: all copies are gone. Without volumes that is what was asked
/// for, with volumes a person has to accept it (design, decision 6).
pub(super) fn start_empty(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for (id, servers) in input.wished_groups() {
        if !input.observed.bootstrapped.contains(id) {
            continue;
        }
        let pods: Option<Vec<&MemberPod>> = servers
            .iter()
            .map(|server| input.observed.server_pods.get(server).filter(|pod| pod.stopped_empty))
            .collect();
        let Some(pods) = pods else { continue };
        let token = loss_token(*id, &pods);
        let is_accepted = input.desired.cluster.accepted_loss.as_deref() == Some(token.as_str());
        if !input.desired.persistent.contains(id) || is_accepted {
            let pods = pods
                .into_iter()
                .map(|pod| (pod.name.clone(), pod.uid.clone()))
                .collect();
            return Some(Step::StartEmpty { group: *id, pods });
        }
        let what = format!(
            "every copy of group {id} is gone: its volumes are empty. Restore one, or accept the loss of the group's keys: kubectl annotate --overwrite codiscluster {} codis.k8s.io/accept-data-loss={token}",
            input.desired.cluster.names.cluster
        );
        decision.block(reason::GROUP_LOST, what);
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
                Replication::Master => group.master() == Some(server) && is_heard(input, group, server, *uptime),
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

/// Whether the sentinels that haven't heard this process of the official master are fewer than a quorum.
fn is_heard(input: &Input<'_>, group: &Group, master: &Address, uptime: u64) -> bool {
    if group.out_of_sync || group.promoting.is_some() || !input.sentinels_agree(group) {
        return false;
    }
    let name = input.master_name(group.id);
    let views = input.observed.sentinels.values().flatten();
    let heard = views
        .filter_map(|view| view.masters.get(&name))
        .filter(|known| known.address == *master && known.flags == "master" && known.silent_ms < uptime * 1000)
        .count();
    let cluster = input.desired.cluster;
    heard + usize::from(cluster.quorum()) > usize::from(cluster.sentinel_count())
}

/// Finishes a promotion that got stuck (contract §6.2), and replaces dead masters where there are no sentinels.
pub(super) fn promote(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for group in input.topology.groups.values() {
        if let Some(index) = group.promoting {
            let server = group.servers.get(index)?;
            return Some(Step::Promote {
                group: group.id,
                server: server.address.clone(),
            });
        }
        if input.desired.cluster.sentinel.is_none()
            && let Some(server) = replacement(input, decision, group)
        {
            return Some(Step::Promote {
                group: group.id,
                server,
            });
        }
    }
    None
}

/// The replica that has the most, once the master is gone for long enough by the kubelet's word and by our own.
fn replacement(input: &Input<'_>, decision: &mut Decision, group: &Group) -> Option<Address> {
    let master = group.master()?;
    let down_for = *input.observed.down_for.get(master)?;
    if input.observed.server_pods.get(master).is_some_and(|pod| pod.ready) {
        return None;
    }
    if down_for < PROMOTE_AFTER {
        decision.wait(
            reason::FAILOVER,
            format!("master {master} of group {} is down", group.id),
        );
        return None;
    }
    let candidates = group
        .servers
        .iter()
        .skip(1)
        .filter_map(|server| match input.server(&server.address) {
            Some(ServerView::Up {
                replication: Replication::Replica { master: followed, .. },
                offset,
                ..
            }) if followed == master => Some((*offset, &server.address)),
            _ => None,
        });
    candidates
        .max_by_key(|(offset, _)| *offset)
        .map(|(_, address)| address.clone())
}

/// After a failover the dashboard has the new order and the proxies have it from the sentinels: makes it official
/// (contract §16.6), once everybody names the same master.
pub(super) fn make_official(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for group in input
        .topology
        .groups
        .values()
        .filter(|group| group.out_of_sync && group.promoting.is_none())
    {
        if input.serving_master(group).is_some() && input.sentinels_agree(group) {
            return Some(Step::ResyncGroup(group.id));
        }
        decision.wait(
            reason::FAILOVER,
            format!("the new master of group {} isn't settled", group.id),
        );
    }
    None
}

/// Servers that don't follow the official master are made to: a sync action, which wipes what they have. So only while
/// the official master serves and no sentinel names another.
pub(super) fn attach(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for group in input.topology.groups.values() {
        let Some(master) = group.master() else { continue };
        if input.serving_master(group).is_none() || group.out_of_sync || !input.sentinels_agree(group) {
            decision.wait(
                reason::FAILOVER,
                format!("group {} has no settled master ({master})", group.id),
            );
            continue;
        }
        for server in group.servers.iter().skip(1) {
            if let Some(step) = attach_one(input, decision, group, master, &server.address, server.action) {
                return Some(step);
            }
        }
    }
    None
}

fn attach_one(
    input: &Input<'_>,
    decision: &mut Decision,
    group: &Group,
    master: &Address,
    server: &Address,
    action: ActionState,
) -> Option<Step> {
    let id = group.id;
    let (replication, keys) = match input.server(server) {
        Some(ServerView::Up { replication, keys, .. }) => (replication, *keys),
        _ => {
            decision.wait(
                reason::SERVERS_NOT_READY,
                format!("replica {server} of group {id} doesn't answer"),
            );
            return None;
        }
    };
    match replication {
        Replication::Replica {
            master: followed,
            link_up: true,
        } if followed == master => None,
        Replication::Replica { master: followed, .. } if followed == master => {
            decision.wait(
                reason::REPLICATION,
                format!("replica {server} of group {id} is not in sync yet"),
            );
            None
        }
        _ if action == ActionState::Running => {
            decision.wait(
                reason::REPLICATION,
                format!("replica {server} of group {id} is being attached"),
            );
            None
        }
        Replication::Master if keys > 0 && input.keys(master) == 0 && input.topology.slots_of(id) > 0 => {
            let what = format!(
                "the master {master} of group {id} is empty while {server} holds {keys} keys and follows nobody: nothing is copied; promote {server} in the front end if its data is wanted, or empty it"
            );
            decision.block(reason::MASTER_EMPTIED, what);
            None
        }
        _ => Some(Step::Attach {
            group: id,
            server: server.clone(),
        }),
    }
}
