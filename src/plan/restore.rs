//! A topology that was lost is put back from its dump (design, decision 8): never a stale one. It must agree, slot by slot,
//! with what running proxies serve and with the keys that the servers hold; where it doesn't, a person decides.

use std::collections::{BTreeMap, BTreeSet};

use super::{Decision, Desired, Step, input::Input, reason, slots, step::list};
use crate::domain::{
    Address, DashboardView, Dump, Group, GroupId, Observed, Replication, Route, ServerView, SlotId, SlotMapping,
    SlotMove, Topology,
};

/// So many slots are named where some differ.
const NAMED: usize = 8;

/// Why a dump isn't restored.
enum Trouble {
    /// Not yet: somebody hasn't said what it has.
    Wait(String),
    /// A person has to decide.
    Differs(String),
}

/// Slots without a group while servers hold keys, or while a restore hasn't come to its end.
pub(super) fn restore(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let offline = input.topology.slots.iter().any(|slot| slot.group.is_none());
    if !offline {
        return put_under_way(input, decision);
    }
    // Where nobody has anything, there is nothing to lose: it is built anew, once all were asked.
    if !is_served(input) && input.observed.servers.keys().all(|server| input.keys(server) == 0) {
        return None;
    }
    // What was written to the coordinator after it was emptied is there. A dashboard that finds moves goes on with them, and
    // no proxy is registered that would hear of it: they write on where the slots were.
    if !input.topology.migrations_disabled && input.topology.slots.iter().any(|slot| slot.moving.is_some()) {
        decision.wait(
            reason::RESTORING,
            "the topology was lost, and what is left of it has slots that move".to_owned(),
        );
        return Some(Step::HaltMoves);
    }
    let dump = match &input.observed.dump {
        Some(Ok(dump)) => dump,
        Some(Err(why)) => {
            return lost(
                input,
                decision,
                &format!("the dump of the topology can't be read: {why}"),
            );
        }
        None => return lost(input, decision, "there is no dump of the topology"),
    };
    match next(input, dump) {
        Ok(step) => {
            decision.wait(
                reason::RESTORING,
                "the topology was lost and is put back from its dump".to_owned(),
            );
            Some(step)
        }
        Err(Trouble::Wait(what)) => {
            // As if it were lost for good: nothing else may be built on half a topology.
            decision.wait(reason::RESTORING, format!("the topology was lost: {what}"));
            None
        }
        Err(Trouble::Differs(what)) => lost(input, decision, &what),
    }
}

/// Whether nothing may be built, assigned or brought online, because the topology isn't what it was.
pub(super) fn is_lost(decision: &Decision) -> bool {
    let all = decision.blocked.iter().chain(&decision.waits);
    let mut reasons = all.map(|note| note.reason);
    reasons.any(|reason| [reason::TOPOLOGY_LOST, reason::RESTORING].contains(&reason))
}

fn lost(input: &Input<'_>, decision: &mut Decision, why: &str) -> Option<Step> {
    let offline = input.topology.slots.iter().filter(|slot| slot.group.is_none()).count();
    let with_keys = input.observed.servers.keys().filter(|server| input.keys(server) > 0);
    let with_keys: Vec<&Address> = with_keys.collect();
    let fix = if offline == input.topology.slots.len() {
        "restore the dashboard's volume or the coordinator; or correct the ConfigMap with the dump, which is then checked again; to give the keys up instead and start over, delete the cluster and its data volumes"
    } else {
        "if they were taken offline on purpose, assign them in the front end; else restore the dashboard's volume or the coordinator, or correct the ConfigMap with the dump, which is then checked again"
    };
    let what = format!(
        "{offline} slots have no group while servers hold keys ({}), and {why}. Nothing is assigned, because keys would end up where no client looks for them: {fix}",
        list(&with_keys)
    );
    decision.block(reason::TOPOLOGY_LOST, what);
    None
}

/// Whether a running proxy serves any slot.
fn is_served(input: &Input<'_>) -> bool {
    live_tables(input).next().is_some()
}

/// The tables of proxies that serve anything. One that was restarted knows nothing until the dashboard tells it.
fn live_tables<'i>(input: &Input<'i>) -> impl Iterator<Item = (&'i Address, &'i Vec<Route>)> {
    let told = input.observed.evidence.tables.iter();
    let told = told.filter_map(|(proxy, table)| Some((proxy, table.as_ref().ok()?)));
    told.filter(|(_, table)| table.iter().any(|route| route.group.is_some()))
}

/// Groups and their masters first; then all slots at once.
fn next(input: &Input<'_>, dump: &Dump) -> Result<Step, Trouble> {
    let slots = agreed(input, dump)?;
    for (id, members) in members(input, dump)? {
        let master = master_of(input, id, &members, &slots)?;
        let Some(group) = input.topology.groups.get(&id) else {
            return Ok(Step::CreateGroup(id));
        };
        if group.master() != Some(&master) {
            return Ok(make_master(input, group, master));
        }
    }
    // Those as well that moved on, or were about to, past proxies that nobody told.
    let target = |slot: &SlotMapping| slot.moving.map(|moving| moving.to);
    let is_lost = |slot: &&SlotMapping| {
        let now = &input.topology.slots[usize::from(slot.id.get())];
        now.group != slot.group || target(now) != target(slot)
    };
    let lost: Vec<SlotMapping> = slots.iter().filter(is_lost).copied().collect();
    if let (Some(slot), false) = (
        lost.iter().find(|slot| slot.moving.is_some()),
        input.topology.proxies.is_empty(),
    ) {
        // Between its assignment and its move such a slot looks as if all its keys were where it comes from.
        let what = format!(
            "slot {} was on its way, and proxies are registered that would miss keys of it: assign it in the front end to where its keys are",
            slot.id
        );
        return Err(Trouble::Differs(what));
    }
    Ok(Step::RestoreSlots(lost))
}

/// Of an empty group its first server; else it became master since the group was put back with another one.
fn make_master(input: &Input<'_>, group: &Group, server: Address) -> Step {
    let (id, is_member) = (group.id, group.servers.iter().any(|known| known.address == server));
    match is_member {
        true => Step::Promote { group: id, server },
        false => Step::AddServer {
            group: id,
            zone: input.observed.zone_of(&server).map(str::to_owned),
            server,
        },
    }
}

/// The members of the dump's groups, by their addresses now.
fn members(input: &Input<'_>, dump: &Dump) -> Result<BTreeMap<GroupId, Vec<Address>>, Trouble> {
    let names = &input.desired.cluster.names;
    let member = |group: GroupId, ordinal: u16| input.desired.address_of(&names.server_pod(group, ordinal));
    let of_group = |(id, ordinals): (&GroupId, &Vec<u16>)| {
        let known: Vec<Address> = ordinals.iter().filter_map(|ordinal| member(*id, *ordinal)).collect();
        if known.is_empty() && !ordinals.is_empty() {
            return Err(Trouble::Differs(format!(
                "group {id} of the dump isn't in the spec: put it back"
            )));
        }
        Ok((*id, known))
    };
    let groups = dump.groups.iter().filter(|(_, ordinals)| !ordinals.is_empty());
    groups.map(of_group).collect()
}

/// Each slot as the dump, all live proxies and the servers' keys have it.
fn agreed(input: &Input<'_>, dump: &Dump) -> Result<Vec<SlotMapping>, Trouble> {
    if let Some((proxy, why)) = silent_proxy(input) {
        return Err(Trouble::Wait(format!(
            "the proxy {proxy} doesn't say what it serves: {why}"
        )));
    }
    let tables: Vec<&Vec<Route>> = live_tables(input).map(|(_, table)| table).collect();
    let mut slots = Vec::with_capacity(dump.slots.len());
    let mut stale = Vec::new();
    for slot in &dump.slots {
        match as_served(*slot, &tables) {
            Some(slot) => slots.push(slot),
            None => stale.push(slot.id),
        }
    }
    if !stale.is_empty() {
        let what = format!(
            "the dump doesn't agree with what the proxies serve: slots {}",
            named(&stale)
        );
        return Err(Trouble::Differs(what));
    }
    check_keys(input, &slots)?;
    Ok(slots)
}

/// Some of them, and how many there are.
fn named(slots: &[SlotId]) -> String {
    let first = list(&slots[..slots.len().min(NAMED)]);
    match slots.len() {
        ..=NAMED => first,
        all => format!("{first} and {} more", all - NAMED),
    }
}

/// A slot as every live proxy has it, if the dump allows that; as the dump has it, without a live proxy.
fn as_served(slot: SlotMapping, tables: &[&Vec<Route>]) -> Option<SlotMapping> {
    let routes = tables.iter().map(|table| table.get(usize::from(slot.id.get())));
    let routes: Vec<&Route> = routes.collect::<Option<_>>()?;
    if routes.is_empty() {
        return Some(slot);
    }
    let Some(moving) = slot.moving else {
        // One that it is still coming from, there, has nothing of it left: the keys are looked at as well.
        return routes.iter().all(|route| route.group == slot.group).then_some(slot);
    };
    let at = |group: Option<GroupId>| SlotMapping {
        id: slot.id,
        group,
        moving: None,
    };
    let (source, target) = (slot.group, Some(moving.to));
    let is_at = |route: &Route, group| route.group == group && route.from.is_none();
    let is_under_way = |route: &Route| route.group == target && route.from == source;
    // Proxies are told one after another, and the dashboard may have died in between. Locked all of them know of a move
    // before the first key goes, and the last key is there before one hears that it is over (contract §6.1).
    if routes.iter().any(|route| is_at(route, source)) {
        let is_untouched = |route: &&Route| is_at(route, source) || is_under_way(route) && route.locked;
        return routes.iter().all(is_untouched).then(|| at(source));
    }
    if routes.iter().all(|route| is_at(route, target)) {
        return Some(at(target));
    }
    let mut told = routes.iter();
    told.all(|route| is_at(route, target) || is_under_way(route))
        .then_some(slot)
}

/// A running proxy that can't be asked: it may serve what nobody else knows.
fn silent_proxy<'i>(input: &Input<'i>) -> Option<(&'i Address, &'i String)> {
    let tables = input.observed.evidence.tables.iter();
    tables
        .filter_map(|(proxy, table)| Some((proxy, table.as_ref().err()?)))
        .next()
}

/// No master holds a key of a slot that isn't its group's.
fn check_keys(input: &Input<'_>, slots: &[SlotMapping]) -> Result<(), Trouble> {
    for (id, servers) in input.wished_groups() {
        let leaving = input.desired.addresses.leaving.get(id).into_iter().flatten();
        // What one has that was replaced is of no account.
        let written = written_to(input, *id, slots);
        let counts = |server: &&Address| written.is_empty() || written.contains(*server);
        for server in servers.iter().chain(leaving).filter(counts) {
            match input.server(server) {
                Some(ServerView::Up {
                    replication: Replication::Master,
                    keys: 1..,
                    ..
                }) => {}
                Some(ServerView::Up { .. }) => continue,
                // An emptied server at its gate has no say; one that starts may have.
                _ if input.observed.server_pods.get(server).is_some_and(|pod| pod.at_gate) => continue,
                // Where proxies serve, they know the master, and nobody else has later keys.
                _ if is_served(input) || !slots.iter().any(|slot| slot.owner() == Some(*id)) => continue,
                _ => return Err(Trouble::Wait(format!("{server} of group {id} doesn't answer"))),
            }
            let held = match input.observed.evidence.keys.get(server) {
                Some(Ok(held)) => held,
                Some(Err(why)) => return Err(Trouble::Wait(format!("{server} doesn't say what keys it holds: {why}"))),
                None => return Err(Trouble::Wait(format!("{server} wasn't asked what keys it holds"))),
            };
            let is_theirs = |slot: &&SlotId| {
                let slot = slots[usize::from(slot.get())];
                slot.group != Some(*id) && slot.moving.is_none_or(|moving| moving.to != *id)
            };
            let theirs: Vec<SlotId> = held.iter().filter(is_theirs).copied().collect();
            if !theirs.is_empty() {
                return Err(Trouble::Differs(format!(
                    "the dump doesn't agree with the keys of {server} in group {id}: it gives slots {} to other groups",
                    named(&theirs)
                )));
            }
        }
    }
    Ok(())
}

/// Whom the proxies take for a group's master, where they write to it.
fn written_to(input: &Input<'_>, id: GroupId, slots: &[SlotMapping]) -> BTreeSet<Address> {
    live_tables(input)
        .flat_map(|(_, table)| table.iter().zip(slots))
        .filter(|(route, slot)| slot.owner() == Some(id) && route.group == Some(id))
        .filter_map(|(route, _)| route.master.as_ref())
        .map(|master| input.present(master))
        .collect()
}

/// The server that is the group's master now: the one that the proxies write to; else the only one that is a master.
fn master_of(input: &Input<'_>, id: GroupId, members: &[Address], slots: &[SlotMapping]) -> Result<Address, Trouble> {
    let written = written_to(input, id, slots);
    let masters: Vec<&Address> = members.iter().filter(|member| input.is_up_master(member)).collect();
    let with_keys: Vec<&Address> = masters
        .iter()
        .copied()
        .filter(|master| input.keys(master) > 0)
        .collect();
    let master = match (
        written.iter().collect::<Vec<_>>().as_slice(),
        masters.as_slice(),
        with_keys.as_slice(),
    ) {
        ([one], ..) => *one,
        ([_, _, ..], ..) => {
            let what = format!("proxies take different servers for the master of group {id}: {}", {
                list(&written.iter().collect::<Vec<_>>())
            });
            return Err(Trouble::Wait(what));
        }
        ([], [one], _) | ([], _, [one]) => *one,
        ([], [], _) => return Err(Trouble::Wait(format!("no server of group {id} is a master"))),
        // All are empty: it doesn't matter which.
        ([], [first, ..], []) => *first,
        ([], _, several) => last_promoted(input, id, several)?,
    };
    if !members.contains(master) {
        return Err(Trouble::Differs(format!(
            "proxies write to {master} for group {id}, which is no member of it"
        )));
    }
    if !input.is_up_master(master) {
        return Err(Trouble::Wait(format!(
            "{master}, the master of group {id}, doesn't serve"
        )));
    }
    Ok(master.clone())
}

/// Of several masters with keys the one that sentinels remember: they promoted it.
fn last_promoted<'a>(input: &Input<'_>, id: GroupId, masters: &[&'a Address]) -> Result<&'a Address, Trouble> {
    let named = masters.iter().find(|master| input.is_named_by_sentinels(id, master));
    named.copied().ok_or_else(|| {
        Trouble::Differs(format!(
            "several servers of group {id} are masters with keys: {}: make all but the one with the last writes follow it (redis-cli SLAVEOF)",
            list(masters)
        ))
    })
}

/// The slots that were on their way when the topology was lost go on, before any proxy is told of them.
fn put_under_way(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let Some(Ok(dump)) = &input.observed.dump else {
        return None;
    };
    let (left, begins) = unresolved(dump, input.topology);
    if !left.is_empty() || begins {
        decision.wait(
            reason::RESTORING,
            "slots that were on their way when the topology was lost move again".to_owned(),
        );
    }
    if !left.is_empty() {
        return Some(Step::MoveSlots(left));
    }
    // They were halted while it was put back.
    let may_move = slots::held(input.desired).is_none() && slots::disputed(input).is_none();
    (begins && input.topology.migrations_disabled && may_move).then_some(Step::ResumeMoves)
}

/// The restored slots whose moves aren't queued again; and whether any is queued and hasn't begun.
fn unresolved(dump: &Dump, topology: &Topology) -> (Vec<(SlotId, GroupId)>, bool) {
    let pairs = dump.slots.iter().zip(&topology.slots).filter(|_| dump.restoring);
    let moving: Vec<(SlotMapping, SlotMove)> = pairs
        .clone()
        .filter(|(old, now)| old.group == now.group)
        .filter_map(|(old, now)| Some((*now, old.moving?)))
        .collect();
    let left = moving.iter().filter(|(now, _)| now.moving.is_none());
    let begins = moving
        .iter()
        .any(|(now, _)| now.moving.is_some_and(|moving| moving.pending));
    (left.map(|(now, moving)| (now.id, moving.to)).collect(), begins)
}

/// The dump as it is to be kept now, if anything may be said: never of half a topology.
#[must_use]
pub fn dump(desired: &Desired<'_>, observed: &Observed) -> Option<Dump> {
    let DashboardView::Online { topology, .. } = &observed.dashboard else {
        return None;
    };
    let kept = observed.dump.as_ref().and_then(|kept| kept.as_ref().ok());
    if let Some(kept) = kept {
        let (left, begins) = unresolved(kept, topology);
        if !left.is_empty() || begins {
            return None;
        }
    }
    of_topology(desired, kept, topology)
}

/// The dump with these moves, as it is to be kept before they are queued.
#[must_use]
pub fn dump_with(desired: &Desired<'_>, observed: &Observed, moves: &[(SlotId, GroupId)]) -> Option<Dump> {
    let mut dump = dump(desired, observed)?;
    for (slot, to) in moves {
        dump.slots[usize::from(slot.get())].moving = Some(SlotMove {
            to: *to,
            pending: false,
        });
    }
    Some(dump)
}

/// None when a slot has no group, or a member isn't known.
fn of_topology(desired: &Desired<'_>, kept: Option<&Dump>, topology: &Topology) -> Option<Dump> {
    let slot = |slot: &SlotMapping| {
        let moving = slot.moving.map(|moving| SlotMove {
            pending: false,
            ..moving
        });
        slot.group.is_some().then_some(SlotMapping { moving, ..*slot })
    };
    let sentinel = |address: &Address| {
        let mut all = desired.sentinels();
        let present = all.find(|(_, known)| known == address).map(|(pod, _)| pod);
        ordinal(&present.or_else(|| desired.former_pod(address).cloned())?)
    };
    // A server of the predecessor has no place in it: its pod's number says nothing.
    let ours = desired.servers().map(|(pod, (_, address))| (pod, address));
    let ours = ours.filter(|(_, address)| !desired.addresses.is_inherited(address));
    let groups = topology.groups.values();
    let groups = groups.map(|group| Some((group.id, ordinals(desired, kept, group)?)));
    Some(Dump {
        cluster_uid: desired.cluster.names.uid.clone(),
        product: desired.cluster.product().to_owned(),
        groups: groups.collect::<Option<_>>()?,
        slots: topology.slots.iter().map(slot).collect::<Option<_>>()?,
        sentinels: topology.sentinels.servers.iter().map(sentinel).collect::<Option<_>>()?,
        addresses: ours
            .chain(desired.sentinels())
            .map(|(pod, address)| (pod, address.host().to_owned()))
            .collect(),
        former: desired.former.clone(),
        restoring: false,
    })
}

/// The ordinals of a group's members, the master first; none when one isn't known.
fn ordinals(desired: &Desired<'_>, kept: Option<&Dump>, group: &Group) -> Option<Vec<u16>> {
    let mut members: Vec<u16> = Vec::new();
    for server in &group.servers {
        // One that is there under a former address is the server that it was.
        let now = desired.present(&server.address);
        let pod = desired.pod_at(&now).filter(|_| !desired.addresses.is_inherited(&now))?;
        let ordinal = ordinal(&pod)?;
        if !members.contains(&ordinal) {
            members.push(ordinal);
        }
    }
    // A topology that was put back has one server of each group at first: the others were its members all the same.
    let wished = desired
        .addresses
        .servers
        .get(&group.id)
        .filter(|_| desired.cluster.stays(group.id));
    let wished = wished.map_or(0, Vec::len);
    let before = kept.and_then(|kept| kept.groups.get(&group.id)).into_iter().flatten();
    for ordinal in before.filter(|ordinal| usize::from(**ordinal) < wished) {
        if !members.contains(ordinal) {
            members.push(*ordinal);
        }
    }
    Some(members)
}

fn ordinal(pod: &str) -> Option<u16> {
    pod.rsplit_once('-')?.1.parse().ok()
}
