//! Slots move when the set of groups changes, and never because somebody moved them by hand: to new groups until all have
//! as many, and away from groups that leave (design, decision 10). The dashboard moves them, with their keys; it is given
//! a few at a time, so that what is taken back in the spec is taken back soon.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Decision, Desired, Step, input::Input, layout, proxies, reason};
use crate::{
    domain::{Address, DashboardView, Group, GroupId, Observed, ServerView, SlotId, SlotMapping, Topology},
    validate::BalanceBy,
};

/// So many moves are queued at the dashboard at most, and new ones are added when half of them are done.
const QUEUED: usize = 64;
/// A slot that has been on its way for so many seconds is told of.
const SLOW: u64 = 60;

/// A dashboard that was cut off moves on as soon as it is back, before it hears that a group has another master: what it
/// moves to the old one is gone when that one becomes a replica. So is what it moves to a master that it can't reach, once
/// that one is there again and about to be replaced. Until a master serves and all agree on it nothing moves.
pub(super) fn halt(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let group = disputed(input)?;
    let what = format!("slots move on once it is clear who is master of group {group}");
    decision.wait(reason::MOVING_SLOTS, what);
    (!input.topology.migrations_disabled).then_some(Step::HaltMoves)
}

/// A group with slots on their way whose master is down, or may be another than the dashboard knows.
pub(super) fn disputed(input: &Input<'_>) -> Option<GroupId> {
    let slots = input.topology.slots.iter();
    let ends = slots.filter_map(|slot| Some([slot.group, Some(slot.moving?.to)]));
    let mut groups: Vec<GroupId> = ends.flatten().flatten().collect();
    groups.sort_unstable();
    groups.dedup();
    let is_disputed = |group: &Group| {
        let is_down = input.serving_master(group).is_none() || input.is_failing_over(group);
        is_down || !input.sentinels_agree(group) || has_rival_with_keys(input, group)
    };
    groups
        .into_iter()
        .find(|id| input.topology.groups.get(id).is_some_and(is_disputed))
}

/// Not one that has just joined, and isn't attached yet.
fn has_rival_with_keys(input: &Input<'_>, group: &Group) -> bool {
    let mut others = group.servers.iter().skip(1).map(|server| &server.address);
    others.any(|server| input.is_up_master(server) && input.keys(server) > 0)
}

/// The next slots that move; or what else has to be done with those that do.
pub(super) fn spread(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let slots = &input.topology.slots;
    if slots.iter().any(|slot| slot.owner().is_none()) {
        return None;
    }
    let stays = |group: GroupId| input.desired.cluster.stays(group);
    let held = held(input.desired);
    let pending = |slot: &&SlotMapping| {
        let is_astray = |group| held.is_some() || !stays(group);
        slot.moving.is_some_and(|moving| moving.pending && is_astray(moving.to))
    };
    let astray: Vec<SlotId> = slots.iter().filter(pending).map(|slot| slot.id).collect();
    if !astray.is_empty() {
        return Some(Step::CancelMoves(astray));
    }
    let moves = to_move(input.desired, input.observed, input.topology);
    let queued = slots.iter().filter(|slot| slot.moving.is_some()).count();
    if moves.is_empty() && queued == 0 {
        return None;
    }
    let told = format!("{} slots are still to move", moves.len() + queued);
    if let Some(held) = held {
        decision.wait(reason::HELD, format!("{told}: {held}"));
        // What has begun can't be called back, but it can stand still: it is served as it is (contract §16.8).
        return (queued > 0 && !input.topology.migrations_disabled).then_some(Step::HaltMoves);
    }
    note_slow(input, decision);
    if let Some(what) = no_room(input) {
        decision.block(reason::NO_ROOM, what);
        return None;
    }
    // A master that is to be handed over goes first: it waits for the moves of its group.
    let must_yield = decision.waits.iter().any(|note| note.reason == reason::SWITCHOVER);
    decision.wait(reason::MOVING_SLOTS, told);
    let interval = input.desired.cluster.slot_moves.interval;
    if input.topology.migration_interval != interval {
        return Some(Step::PaceMoves(interval));
    }
    if input.topology.migrations_disabled {
        return disputed(input).is_none().then_some(Step::ResumeMoves);
    }
    if must_yield || moves.is_empty() || queued * 2 > QUEUED {
        return None;
    }
    // It would go on writing where the slot was: the dashboard waits only for proxies that it knows.
    if let Some(proxy) = proxies::unheard(input) {
        let what = format!(
            "slots move once the proxy {proxy} is registered, or gone: it may serve by what it was told before"
        );
        decision.wait(reason::MOVING_SLOTS, what);
        return None;
    }
    queue(input, decision, moves, QUEUED - queued)
}

/// Why no slot may move now.
pub(super) fn held(desired: &Desired<'_>) -> Option<String> {
    if desired.cluster.slot_moves.paused {
        return Some("spec.slotMoves.paused is true".to_owned());
    }
    desired.cluster.brakes.stops("slots", desired.now)
}

/// As many of the moves as there is room for, of those whose groups are well; their gates are armed before.
fn queue(input: &Input<'_>, decision: &mut Decision, moves: Vec<(SlotId, GroupId)>, room: usize) -> Option<Step> {
    let all = input.topology.groups.keys().copied();
    let (well, mut ill): (BTreeSet<GroupId>, _) = (all.filter(|id| is_well(input, *id)).collect(), BTreeSet::new());
    let mut ways: BTreeMap<(GroupId, GroupId), VecDeque<SlotId>> = BTreeMap::new();
    for (slot, to) in moves {
        let known = input.topology.slots.get(usize::from(slot.get()));
        let Some(from) = known.and_then(|known| known.group) else {
            continue;
        };
        ill.extend([from, to].into_iter().filter(|group| !well.contains(group)));
        if !ill.contains(&from) && !ill.contains(&to) {
            ways.entry((from, to)).or_default().push_back(slot);
        }
    }
    for group in &ill {
        decision.wait(
            reason::MOVING_SLOTS,
            format!("slots of group {group} move once it is well"),
        );
    }
    let unarmed: BTreeSet<GroupId> = ways.keys().map(|(_, to)| *to).collect();
    let unarmed: Vec<GroupId> = unarmed.difference(&input.observed.bootstrapped).copied().collect();
    if !unarmed.is_empty() {
        return Some(Step::ArmGate(unarmed));
    }
    // One of each way in turn: the dashboard moves slots of different groups side by side.
    let mut batch = Vec::new();
    while batch.len() < room && ways.values().any(|way| !way.is_empty()) {
        let next = ways
            .iter_mut()
            .filter_map(|((_, to), way)| Some((way.pop_front()?, *to)));
        batch.extend(next);
    }
    batch.truncate(room);
    (!batch.is_empty()).then_some(Step::MoveSlots(batch))
}

/// Whether a group's master serves undisputed, and its replicas follow: no slot comes to a single copy.
fn is_well(input: &Input<'_>, group: GroupId) -> bool {
    let Some(group) = input.topology.groups.get(&group) else {
        return false;
    };
    let all_in_role = group
        .servers
        .iter()
        .all(|server| input.is_in_role(group, &server.address));
    group.is_settled() && input.undisputed_master(group).is_some() && all_in_role
}

/// A move that doesn't come to its end: a full target, a key that is too large, a server that doesn't answer.
fn note_slow(input: &Input<'_>, decision: &mut Decision) {
    let slow = |slot: &&SlotMapping| {
        let seconds = input.observed.moving_for.get(&slot.id);
        seconds.is_some_and(|seconds| *seconds >= SLOW)
    };
    let slots = input.topology.slots.iter().filter(slow);
    let told = slots.filter_map(|slot| {
        let (from, to) = (slot.group?, slot.moving?.to);
        Some(format!("{} (group {from} to {to})", slot.id))
    });
    let told: Vec<String> = told.take(5).collect();
    if !told.is_empty() {
        let what = format!(
            "slots have been on their way for more than {SLOW} s: {}: a server may refuse (memory), or not answer; the dashboard's log says why",
            told.join(", ")
        );
        decision.alarm(reason::SLOW_MOVES, what);
    }
}

/// The moves that the wished groups ask for.
fn to_move(desired: &Desired<'_>, observed: &Observed, topology: &Topology) -> Vec<(SlotId, GroupId)> {
    let wished: BTreeSet<GroupId> = desired.cluster.wished_groups().collect();
    let stands = |group: &GroupId| {
        topology
            .groups
            .get(group)
            .is_some_and(|group| !group.servers.is_empty())
    };
    // Until all stand, nobody knows how much each is to have.
    if !wished.iter().all(stands) {
        return Vec::new();
    }
    let level = !wished.is_subset(&observed.balanced);
    match loads(desired, observed, topology) {
        Some(loads) => layout::moves_by_load(&topology.slots, &wished, level, &loads),
        None => layout::moves(&topology.slots, &wished, level),
    }
}

/// What each group has of what the spec wants balanced, where every master says it; none for slots.
fn loads(desired: &Desired<'_>, observed: &Observed, topology: &Topology) -> Option<BTreeMap<GroupId, u64>> {
    let of = |group: &Group| match (
        desired.cluster.slot_moves.balance_by,
        observed.servers.get(group.master()?)?,
    ) {
        (BalanceBy::Keys, ServerView::Up { keys, .. }) => Some((group.id, *keys)),
        (BalanceBy::Memory, ServerView::Up { memory, .. }) => Some((group.id, memory.used)),
        (BalanceBy::Slots, _) | (_, ServerView::Loading | ServerView::Unreachable(_)) => None,
    };
    topology.groups.values().map(of).collect()
}

/// The groups among which slots are spread as the spec asks for: another one that is wished gets its share. A group that
/// is taken back has lost its share.
#[must_use]
pub fn balanced(desired: &Desired<'_>, observed: &Observed) -> BTreeSet<GroupId> {
    let wished: BTreeSet<GroupId> = desired.cluster.wished_groups().collect();
    let known = || wished.intersection(&observed.balanced).copied().collect();
    let DashboardView::Online { topology, .. } = &observed.dashboard else {
        return known();
    };
    let all_have_slots = wished.iter().all(|group| topology.slots_of(*group) > 0);
    let none_moves = topology
        .slots
        .iter()
        .all(|slot| slot.moving.is_none() && slot.group.is_some());
    if all_have_slots && none_moves && to_move(desired, observed, topology).is_empty() {
        return wished;
    }
    known()
}

/// How many slots are still to arrive.
#[must_use]
pub fn slots_to_move(desired: &Desired<'_>, observed: &Observed) -> usize {
    let DashboardView::Online { topology, .. } = &observed.dashboard else {
        return 0;
    };
    let on_their_way = topology.slots.iter().filter(|slot| slot.moving.is_some()).count();
    to_move(desired, observed, topology).len() + on_their_way
}

/// Why the groups that stay can't take what those that leave have: it is asked before the first slot moves, and for what is
/// left with every batch. A server without a limit takes anything.
fn no_room(input: &Input<'_>) -> Option<String> {
    let memory = |group: &Group| match input.server(group.master()?) {
        Some(ServerView::Up { memory, .. }) => Some(*memory),
        _ => None,
    };
    let of = |staying: bool| {
        let groups = input.topology.groups.values();
        let groups = groups.filter(move |group| input.desired.cluster.stays(group.id) == staying);
        groups
            .filter(move |group| staying || input.topology.slots_of(group.id) > 0)
            .filter_map(memory)
    };
    let needed: u64 = of(false).map(|memory| memory.used).sum();
    if needed == 0 || of(true).any(|memory| memory.limit == 0) {
        return None;
    }
    let room: u64 = of(true).map(|memory| memory.limit.saturating_sub(memory.used)).sum();
    let (needed, room) = (needed >> 20, room >> 20);
    (needed > room).then(|| {
        format!(
            "the groups that are to leave use {needed} MiB, and the others have {room} MiB left (maxmemory): give spec.codisServer.limits.memory more, or keep the groups"
        )
    })
}

/// A group that isn't wished any more leaves once the dashboard has no slot for it and its servers have no key: replicas,
/// master, group, and then what ran it.
pub(super) fn leave(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for id in &input.desired.cluster.leaving_groups {
        let Some(group) = input.topology.groups.get(id) else {
            return Some(Step::ForgetGroup(*id));
        };
        let is_concerned = |slot: &SlotMapping| slot.group == Some(*id) || slot.moves_with(*id);
        if input.topology.slots.iter().any(is_concerned) {
            continue;
        }
        if let Some(held) = input.desired.cluster.brakes.stops("server", input.desired.now) {
            decision.wait(reason::HELD, format!("group {id} leaves: {held}"));
            continue;
        }
        match last_first(input, decision, group) {
            Ok(step) => return Some(step),
            Err(why) => decision.wait(reason::GROUP_LEAVES, format!("group {id} leaves: {why}")),
        }
    }
    None
}

/// The last server of the group, or the group when it has none.
fn last_first(input: &Input<'_>, decision: &mut Decision, group: &Group) -> Result<Step, String> {
    let Some(last) = group.servers.last() else {
        return Ok(Step::RemoveGroup(group.id));
    };
    if !group.is_settled() {
        return Err("its order is being changed".to_owned());
    }
    for server in &group.servers {
        match input.server(&server.address) {
            Some(ServerView::Up { keys: 0, .. }) => {}
            Some(ServerView::Up { keys, .. }) => {
                note_keys(decision, group.id, &server.address, *keys);
                return Err("it isn't empty".to_owned());
            }
            _ => return Err(format!("waits for {} to say that it is empty", server.address)),
        }
    }
    Ok(Step::RemoveServer {
        group: group.id,
        server: last.address.clone(),
    })
}

/// Keys without a slot: nobody reads them any more, and nobody but a person may give them up.
fn note_keys(decision: &mut Decision, group: GroupId, server: &Address, keys: u64) {
    let what = format!(
        "group {group} has no slots any more, and {server} holds {keys} keys: look at them with redis-cli, and delete them, or put the group back in the spec"
    );
    decision.block(reason::GROUP_NOT_EMPTY, what);
}
