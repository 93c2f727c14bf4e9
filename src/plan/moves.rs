//! Planned moves of masters: one way for all who want one (a person, a drain, a rolling change), with one set of
//! conditions, and the clearing away of moves that were begun.

use super::{
    Decision, Desired, Step,
    input::{Input, Word},
    proxies, reason, sentinels,
};
use crate::{
    domain::{Address, Group, GroupId, MemberPod, Replication, ServerView, Topology},
    validate::PromotionRequest,
};

/// After a failed switchover the next one waits so many seconds, doubled with each failure in a row.
const PATIENCE: u64 = 5;
/// Between two tries to clear one away.
const UNDO_PAUSE: u64 = 2;
/// But never longer than this.
const MOST_PATIENCE: u64 = 60;
/// A replica that is further behind than this, in bytes, wouldn't catch up while clients wait.
const NEAR: u64 = 4 << 20;

/// Who wants a master moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A person asked for this one: neither supervised maintenance nor a hold is in its way.
    ByPerson,
    /// The operator's own wish.
    ByRule,
}

/// A switchover that was begun and of which nobody knows how far it came: an operator died, or it failed half way. It
/// leaves no lock, no fence and no intent behind.
pub(super) fn undo(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let intent = input.observed.intent.as_ref()?;
    // One dead record would keep the dashboard from telling the proxies.
    if let Some(step) = proxies::remove_dead(input, decision) {
        return Some(step);
    }
    // Of a group that was lost with its topology the dashboard can't say how far it came: first it is put back.
    let has_master = input
        .topology
        .groups
        .get(&intent.group)
        .and_then(Group::master)
        .is_some();
    if !has_master && input.topology.slots.iter().any(|slot| slot.group.is_none()) {
        let what = format!(
            "a switchover of group {} is cleared away once the group is back",
            intent.group
        );
        decision.wait(reason::SWITCHOVER, what);
        return None;
    }
    // While it fails, everything else gets its turn: no other rule lifts the fence of a server that isn't official.
    let failed_lately = input
        .observed
        .failed_moves
        .get(&intent.group)
        .is_some_and(|(_, ago)| *ago < UNDO_PAUSE);
    if failed_lately {
        let what = format!("a switchover of group {} is still to be cleared away", intent.group);
        decision.wait(reason::SWITCHOVER, what);
        return None;
    }
    Some(Step::Undo(intent.clone()))
}

/// The switchover that a person asks for.
pub(super) fn requested(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let (group, target) = input.open_request()?;
    let fit = |server: &Address| target.is_none_or(|target| target == server);
    away(input, decision, group, "it was asked for", Wanted::ByPerson, &fit)
}

/// The step that hands a group over to another of its servers, one that is `fit`; or none, with a note of what that
/// waits for. A promotion has the dashboard configure sentinels anew, so it has the conditions of that, too
/// (design, decisions 4 and 5).
pub(super) fn away(
    input: &Input<'_>,
    decision: &mut Decision,
    group: &Group,
    why: &str,
    wanted: Wanted,
    fit: &dyn Fn(&Address) -> bool,
) -> Option<Step> {
    match obstacle(input, group, wanted).and_then(|()| successor(input, group, fit)) {
        Ok((from, to)) => Some(Step::Switchover {
            group: group.id,
            from: from.clone(),
            to: to.clone(),
            why: why.to_owned(),
        }),
        Err((reason, obstacle)) => {
            decision.wait(
                reason,
                format!("group {} is to get another master ({why}): {obstacle}", group.id),
            );
            None
        }
    }
}

/// A reason, and what is in the way.
pub(super) type Obstacle = (&'static str, String);

/// Why the operator may not move a group's master by itself.
pub(super) fn brake(input: &Input<'_>, group: GroupId) -> Option<Obstacle> {
    let brakes = &input.desired.cluster.brakes;
    if let Some(held) = brakes.stops("moves", input.desired.now) {
        return Some((reason::HELD, held));
    }
    brakes.supervised.then(|| {
        let name = &input.desired.cluster.names.cluster;
        let what = format!("spec.maintenance is supervised: kubectl codis promote {name} {group}");
        (reason::SUPERVISED, what)
    })
}

/// Why no master of a group may be moved now.
fn obstacle(input: &Input<'_>, group: &Group, wanted: Wanted) -> Result<(), Obstacle> {
    if wanted == Wanted::ByRule
        && let Some(held) = brake(input, group.id)
    {
        return Err(held);
    }
    if input.observed.intent.is_some() {
        return Err((reason::SWITCHOVER, "another one is to be cleared away first".to_owned()));
    }
    if let Some((times, ago)) = input.observed.failed_moves.get(&group.id) {
        let patience = (PATIENCE << times.saturating_sub(1).min(8)).min(MOST_PATIENCE);
        if *ago < patience {
            let what = format!("the last try failed, the next one is after {patience} s");
            return Err((reason::SWITCHOVER, what));
        }
    }
    let moving = input
        .topology
        .slots
        .iter()
        .filter(|slot| slot.moves_with(group.id))
        .count();
    if moving > 0 {
        return Err((reason::SWITCHOVER, format!("{moving} of its slots are on their way")));
    }
    let missing = sentinels::missing(input);
    if !missing.is_empty() {
        return Err((reason::SWITCHOVER, format!("it must wait for {}", missing.join(", "))));
    }
    if let Some(proxy) = proxies::starting(input) {
        return Err((reason::SWITCHOVER, format!("proxy {proxy} is starting")));
    }
    // One that the dashboard doesn't know isn't told of the new master, and would name the old one for ever.
    let known = &input.topology.sentinels.servers;
    let unknown = input
        .desired
        .addresses
        .sentinels
        .iter()
        .find(|sentinel| !known.contains(sentinel));
    if let Some(sentinel) = unknown {
        let what = format!("sentinel {sentinel} isn't known to the dashboard yet");
        return Err((reason::SWITCHOVER, what));
    }
    if input.desired.cluster.sentinel.is_some() && input.topology.sentinels.out_of_sync {
        return Err((reason::SWITCHOVER, "sentinels are to be configured first".to_owned()));
    }
    if input.word_on(group) != Word::For {
        return Err((
            reason::SWITCHOVER,
            "too few sentinels stand behind its master".to_owned(),
        ));
    }
    Ok(())
}

/// The master and the replica that is to follow it: in touch, near, staying, and of the fit ones the furthest.
fn successor<'i>(
    input: &'i Input<'_>,
    group: &'i Group,
    fit: &dyn Fn(&Address) -> bool,
) -> Result<(&'i Address, &'i Address), Obstacle> {
    let err = |what: &str| (reason::SWITCHOVER, what.to_owned());
    let master = input
        .serving_master(group)
        .ok_or_else(|| err("its master doesn't serve"))?;
    let Some(ServerView::Up { offset: head, .. }) = input.server(master) else {
        return Err(err("its master doesn't serve"));
    };
    let replicas = group.servers.iter().skip(1).map(|server| &server.address);
    let candidates = replicas
        .filter(|server| fit(server) && may_stay(input, server))
        .filter_map(|server| {
            let behind = match input.server(server) {
                Some(ServerView::Up {
                    replication:
                        Replication::Replica {
                            master: followed,
                            link_up: true,
                        },
                    offset,
                    ..
                }) if followed == master => head.saturating_sub(*offset),
                _ => return None,
            };
            (behind <= NEAR).then_some((behind, server))
        });
    let best = candidates.min_by_key(|(behind, _)| *behind);
    let best = best.ok_or_else(|| err("no replica that may stay where it is is in step with the master"))?;
    Ok((master, best.1))
}

/// Whether a server's pod is well and its node keeps it.
pub(super) fn may_stay(input: &Input<'_>, server: &Address) -> bool {
    let pod = input.observed.server_pods.get(server);
    pod.is_some_and(|pod| pod.ready && !pod.terminating && !is_leaving(input, pod))
}

/// Whether the pod's node is being drained, lost or gone.
pub(super) fn is_leaving(input: &Input<'_>, pod: &MemberPod) -> bool {
    input.observed.node(pod.node.as_ref()).is_some_and(|view| {
        view.leaving.is_some() || view.out_of_service || view.silent_for.is_some() || view.gone_for.is_some()
    })
}

impl Input<'_> {
    /// The group, and the server if one is named, of a request for a switchover that hasn't been dealt with. Requests
    /// that can't be met are the controller's to refuse.
    pub(super) fn open_request(&self) -> Option<(&Group, Option<&Address>)> {
        let (group, server) = self.desired.promotion.as_ref()?;
        let group = self.topology.groups.get(group)?;
        Some((group, server.as_ref()))
    }
}

/// A request for a switchover, held against what is: what is left of it to do, or none when it is met; an error says why
/// it can't ever be. `target` is the pod that was settled on when it was begun.
///
/// # Errors
/// What is wrong with the request.
pub fn verdict(
    desired: &Desired<'_>,
    topology: &Topology,
    request: &PromotionRequest,
    target: Option<&str>,
) -> Result<Option<(GroupId, Option<Address>)>, String> {
    let (number, pod) = request.wish.clone()?;
    let group = GroupId::try_from(u64::from(number))
        .ok()
        .and_then(|id| topology.groups.get(&id));
    let group = group.ok_or_else(|| format!("there is no group {number}"))?;
    let Some(pod) = pod.as_deref().or(target) else {
        return Ok(Some((group.id, None)));
    };
    let server = desired.address_of(pod);
    let server = server.filter(|server| group.servers.iter().any(|member| member.address == *server));
    let server = server.ok_or_else(|| format!("{pod} is no server of group {number}"))?;
    if group.servers.len() < 2 {
        return Err(format!("group {number} has no other server"));
    }
    Ok((group.master() != Some(&server)).then_some((group.id, Some(server))))
}
