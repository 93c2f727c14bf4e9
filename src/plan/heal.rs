//! Masters and replicas: what died comes back in its place, and nothing acknowledged is overwritten.

use super::{
    Decision, Step, bootstrap,
    input::{Input, Word},
    reason,
};
use crate::domain::{ActionState, Address, Group, Replication, ServerView};

/// Without sentinels a master that doesn't answer for this many seconds is replaced.
const PROMOTE_AFTER: u64 = 10;
/// With sentinels, only one whose copy is gone and that they failed to replace for this many seconds.
const PROMOTE_INSTEAD_AFTER: u64 = 30;
/// A dashboard hears of a failover within some seconds, unless its connections to the sentinels broke without its noticing:
/// then only after 15 minutes (contract §11).
const HEARS_WITHIN: u64 = 30;
/// Between two tries to finish a promotion, in seconds.
const FINISH_PAUSE: u64 = 5;
/// A replica whose link broke at most so many seconds before its master went silent had what the master had.
const LINK_MARGIN: u64 = 60;

/// Finishes a promotion that got stuck (contract §6.2), and replaces dead masters where sentinels don't.
pub(super) fn promote(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for group in input.topology.groups.values() {
        if let Some(server) = group.promoting.and_then(|index| group.servers.get(index)) {
            if let Some(step) = finish(input, decision, group, &server.address) {
                return Some(step);
            }
            continue;
        }
        let server = replacement(input, decision, group).or_else(|| forgotten_master(input, group));
        if let Some(server) = server {
            return Some(Step::Promote {
                group: group.id,
                server,
            });
        }
    }
    None
}

/// A promotion that was begun can only be finished. While the old master serves, with all care: writes went on since.
fn finish(input: &Input<'_>, decision: &mut Decision, group: &Group, to: &Address) -> Option<Step> {
    let promote = Step::Promote {
        group: group.id,
        server: to.clone(),
    };
    let from = group.master().filter(|master| *master != to);
    let Some(from) = from else {
        return Some(promote);
    };
    // It is the master itself, under its new address: nobody else has its data, or can come back with more.
    if input.desired.successor(from).as_ref() == Some(to) && input.is_up_master(to) {
        return Some(promote);
    }
    if !input.is_up_master(from) {
        if is_a_failover(input, from, to) {
            return Some(promote);
        }
        let what = format!(
            "the promotion of {to} in group {} was begun, and {from} may come back with more than it has",
            group.id
        );
        decision.wait(reason::FAILOVER, what);
        return None;
    }
    let is_in_touch = matches!(
        input.server(to),
        Some(ServerView::Up { replication: Replication::Replica { master, link_up: true }, .. }) if master == from
    );
    let failed_lately = input
        .observed
        .failed_moves
        .get(&group.id)
        .is_some_and(|(_, ago)| *ago < FINISH_PAUSE);
    if !is_in_touch || failed_lately {
        let what = format!(
            "the promotion of {to} in group {} was begun and goes on once it is in step",
            group.id
        );
        decision.wait(reason::FAILOVER, what);
        return None;
    }
    Some(Step::Switchover {
        group: group.id,
        from: from.clone(),
        to: to.clone(),
        why: "it was begun".to_owned(),
    })
}

/// Whether a master is gone for long enough, and its replica kept touch with it to its end.
fn is_a_failover(input: &Input<'_>, from: &Address, to: &Address) -> bool {
    let pod = input.observed.server_pods.get(from);
    let is_gone = pod.is_some_and(|pod| pod.stopped_empty);
    let down_for = input.observed.down_for.get(from).copied().unwrap_or(0);
    let is_silent = down_for >= PROMOTE_AFTER && !pod.is_some_and(|pod| pod.ready);
    let silent_for = down_for.max(pod.and_then(|pod| pod.unready_for).unwrap_or(0));
    let was_linked = match input.server(to) {
        Some(ServerView::Up {
            replication: Replication::Replica { master, link_up },
            link_down_for,
            ..
        }) => master == from && (*link_up || link_down_for.is_some_and(|seconds| seconds <= silent_for + LINK_MARGIN)),
        _ => false,
    };
    (is_gone || is_silent) && was_linked
}

/// The replica that has the most, once the master is gone for long enough by the kubelet's word and by our own.
fn replacement(input: &Input<'_>, decision: &mut Decision, group: &Group) -> Option<Address> {
    let master = group.master()?;
    let down_for = *input.observed.down_for.get(master)?;
    let pod = input.observed.server_pods.get(master);
    let is_gone = pod.is_some_and(|pod| pod.stopped_empty);
    let patience = match &input.desired.cluster.sentinel {
        None if pod.is_some_and(|pod| pod.ready) => return None,
        None => PROMOTE_AFTER,
        Some(_) if is_gone => PROMOTE_INSTEAD_AFTER,
        Some(_) => return None,
    };
    // Somebody else may have replaced it already.
    let is_ours_to_do = !input.has_rival(group) && input.sentinels_agree(group);
    if down_for < patience || !is_ours_to_do {
        decision.wait(
            reason::FAILOVER,
            format!("master {master} of group {} is down", group.id),
        );
        return None;
    }
    // Our own memory of the silence begins when we begin: the kubelet's may be longer.
    let silent_for = down_for.max(pod.and_then(|pod| pod.unready_for).unwrap_or(0));
    let best = fittest(input, group, master, silent_for, is_gone);
    if best.is_none() {
        let what = format!(
            "master {master} of group {} is down, and no replica is known to have had its data to the end: promote one in the front end if its data will do",
            group.id
        );
        decision.block(reason::NO_FIT_REPLICA, what);
    }
    best
}

/// Of the replicas that kept touch with their master to its end, the one that has most. Where the master's copy is
/// gone for good, and nobody else may come back with more, any data is better than none.
fn fittest(input: &Input<'_>, group: &Group, master: &Address, silent_for: u64, is_gone: bool) -> Option<Address> {
    let stopped = |server: &Address| {
        input
            .observed
            .server_pods
            .get(server)
            .is_some_and(|pod| pod.stopped_empty)
    };
    let is_known = |server: &Address| matches!(input.server(server), Some(ServerView::Up { .. })) || stopped(server);
    let all_known = group.servers.iter().all(|server| is_known(&server.address));
    let candidates = group
        .servers
        .iter()
        .skip(1)
        .filter_map(|server| match input.server(&server.address) {
            Some(ServerView::Up {
                replication:
                    Replication::Replica {
                        master: followed,
                        link_up,
                    },
                offset,
                keys,
                link_down_for,
                ..
            }) if followed == master => {
                let was_linked = *link_up || link_down_for.is_some_and(|seconds| seconds <= silent_for + LINK_MARGIN);
                (was_linked || *keys > 0 && is_gone && all_known).then_some((*offset, &server.address))
            }
            _ => None,
        });
    candidates
        .max_by_key(|(offset, _)| *offset)
        .map(|(_, address)| address.clone())
}

/// The official master follows another member, and nobody remembers why, or the sentinels that promoted it have given it
/// up since and can't put another one in its place: whoever it follows is the master. The second happens when a promoted
/// server loses its memory right after: it starts as a replica of the only master there is, which is the one of old.
fn forgotten_master(input: &Input<'_>, group: &Group) -> Option<Address> {
    let official = group.master()?;
    let Some(ServerView::Up {
        replication: Replication::Replica { master, link_up },
        ..
    }) = input.server(official)
    else {
        return None;
    };
    // One whose address was taken is followed in vain.
    let now = input.present(master);
    if !link_up && now == *master {
        return None;
    }
    let is_member = group.servers.iter().any(|server| server.address == now);
    // Sentinels that know the group, and think well of it, tell the dashboard by themselves: but it doesn't hear them
    // before it has configured them, which waits for a settled master, nor while its connections to them are dead.
    let disagrees_for = input.observed.disagreeing_for.get(&group.id);
    let is_deaf = input.topology.sentinels.out_of_sync || disagrees_for.is_some_and(|seconds| *seconds >= HEARS_WITHIN);
    let is_unheard = is_deaf && input.is_named_by_sentinels(group.id, master);
    let is_left_to_us = !input.is_known_to_sentinels(group) || input.have_given_up(group) || is_unheard;
    (is_member && input.is_up_master(&now) && is_left_to_us).then_some(now)
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
        if bootstrap::is_secret(input) {
            decision.wait(
                reason::SERVERS_NOT_READY,
                "the first assignment of slots broke off, and goes on once every server answers".to_owned(),
            );
            return None;
        }
        if input.undisputed_master(group).is_some() {
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
        if let Some(step) = stand_alone(input, group, master) {
            return Some(step);
        }
        if input.undisputed_master(group).is_none() || group.out_of_sync || input.is_failing_over(group) {
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

/// A group that left and is taken back may begin with a server that still follows one that was taken out: Codis doesn't
/// stop what it removes. The sync action of a first server makes it a master (contract §6.3). Where the group has slots or
/// the server has keys, whoever is followed may have more: that isn't for this rule.
fn stand_alone(input: &Input<'_>, group: &Group, official: &Address) -> Option<Step> {
    let Some(ServerView::Up {
        replication: Replication::Replica { master, .. },
        keys: 0,
        ..
    }) = input.server(official)
    else {
        return None;
    };
    let is_member = group.servers.iter().any(|server| server.address == *master);
    let slots = &input.topology.slots;
    let has_slots = slots
        .iter()
        .any(|slot| slot.group == Some(group.id) || slot.moves_with(group.id));
    (group.is_settled() && !is_member && !has_slots).then(|| Step::Attach {
        group: group.id,
        server: official.clone(),
    })
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
    let Some(ServerView::Up { replication, keys, .. }) = input.server(server) else {
        decision.wait(
            reason::SERVERS_NOT_READY,
            format!("replica {server} of group {id} doesn't answer"),
        );
        return None;
    };
    match replication {
        Replication::Replica {
            master: followed,
            link_up,
        } if followed == master => {
            if !link_up {
                decision.wait(
                    reason::REPLICATION,
                    format!("replica {server} of group {id} is not in sync yet"),
                );
            }
            return None;
        }
        _ if action == ActionState::Running => {
            decision.wait(
                reason::REPLICATION,
                format!("replica {server} of group {id} is being attached"),
            );
            return None;
        }
        Replication::Master if *keys > 0 && input.observed.bootstrapped.contains(&id) => {
            return attach_with_data(input, decision, group, master, server);
        }
        Replication::Master | Replication::Replica { .. } => (),
    }
    Some(Step::Attach {
        group: id,
        server: server.clone(),
    })
}

/// A master beside the official one, with data: an old master after a failover, or the rightful one whose promotion
/// everybody forgot. Only the sentinels' majority can tell.
fn attach_with_data(
    input: &Input<'_>,
    decision: &mut Decision,
    group: &Group,
    master: &Address,
    server: &Address,
) -> Option<Step> {
    let id = group.id;
    if input.keys(master) == 0 && input.topology.slots_of(id) > 0 {
        let what = format!(
            "the master {master} of group {id} is empty while {server} holds keys and follows nobody: nothing is copied; promote {server} in the front end if its data is wanted, or empty it"
        );
        decision.block(reason::MASTER_EMPTIED, what);
        return None;
    }
    if input.word_on(group) == Word::For {
        return Some(Step::Attach {
            group: id,
            server: server.clone(),
        });
    }
    let what = format!(
        "{master} and {server} of group {id} are both masters with data, and too few sentinels remember which one was last: nothing is copied. Make the one that is to be given up follow the other, with SLAVEOF and CONFIG REWRITE in its redis-cli"
    );
    decision.block(reason::SPLIT_MASTERS, what);
    None
}
