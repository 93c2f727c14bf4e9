//! Taking over what the predecessor deployed, by replication and never by its volumes: ours join its groups while its dashboard
//! still has the topology, become masters by switchovers ([`shrink`](super::shrink)), and only then its workloads go, part
//! by part. A redis that writes an append-only file ignores another one's dump, so a volume that changed hands would be empty.

use std::collections::{BTreeMap, BTreeSet};

use super::{Decision, Desired, Step, dump, input::Input, reason, step::list};
use crate::{
    domain::{Address, Group, GroupId, Part, ProxyPod, ServerView, Topology},
    validate::ValidCluster,
};

/// Why a cluster of the predecessor can't be taken over, by what its dashboard and the servers of its topology say. `is_its`
/// knows the addresses of its pods. Looked at once, before anything is made.
#[must_use]
pub fn takeover_objection(
    cluster: &ValidCluster,
    topology: &Topology,
    servers: &BTreeMap<Address, ServerView>,
    is_its: impl Fn(&Address) -> bool,
) -> Option<String> {
    if cluster.brakes.hibernate {
        return Some("spec.hibernate: take it over first, and send it to sleep then".to_owned());
    }
    let offline = topology.slots.iter().filter(|slot| slot.group.is_none()).count();
    if offline > 0 {
        return Some(format!("{offline} slots have no group: assign them in its front end"));
    }
    let moving = topology.slots.iter().filter(|slot| slot.moving.is_some()).count();
    if moving > 0 {
        return Some(format!(
            "{moving} slots are on their way: it begins once they have arrived"
        ));
    }
    let known: BTreeSet<GroupId> = topology.groups.keys().copied().collect();
    let wished: BTreeSet<GroupId> = cluster.wished_groups().collect();
    if known != wished {
        let names = |groups: BTreeSet<GroupId>| list(&groups.into_iter().collect::<Vec<_>>());
        return Some(format!(
            "its topology has the groups {} and the spec means {}: set spec.codisServer.replicas to the number of groups times groupReplicas (scale afterwards), and empty and remove groups of other numbers in its front end",
            names(known),
            names(wished)
        ));
    }
    if let (None, [first, ..]) = (&cluster.sentinel, topology.sentinels.servers.as_slice()) {
        return Some(format!(
            "its topology has the sentinel {first} and the spec has none: add spec.sentinel, or take the sentinels out in its front end"
        ));
    }
    topology
        .groups
        .values()
        .find_map(|group| of_group(group, servers, &is_its))
}

fn of_group(
    group: &Group,
    servers: &BTreeMap<Address, ServerView>,
    is_its: impl Fn(&Address) -> bool,
) -> Option<String> {
    let id = group.id;
    if group.promoting.is_some() {
        return Some(format!(
            "a promotion in group {id} isn't finished: repeat it in its front end"
        ));
    }
    let Some(master) = group.master() else {
        return Some(format!("group {id} has no server"));
    };
    // Its pods get another address whenever they are made anew, so records of replicas that nobody answers for are common.
    let is_dead =
        |server: &Address| server != master && matches!(servers.get(server), Some(ServerView::Unreachable(_)));
    let mut members = group.servers.iter().map(|server| &server.address);
    if let Some(stranger) = members.find(|server| !is_its(server) && !is_dead(server)) {
        return Some(format!(
            "{stranger} in group {id} is no pod of its: take it out of the group in its front end, after a promotion if it is the master"
        ));
    }
    match servers.get(master) {
        Some(ServerView::Up { .. }) => None,
        Some(ServerView::Loading) => Some(format!("{master}, the master of group {id}, is loading its data")),
        Some(ServerView::Unreachable(why)) => Some(format!(
            "{master}, the master of group {id}, doesn't answer: {why} (its password must be that of spec.codisDashboard.productAuth)"
        )),
        None => Some(format!("{master}, the master of group {id}, wasn't asked")),
    }
}

/// Its sentinels are forgotten once ours can take over at once.
pub(super) fn forget_sentinels(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    if !input.observed.predecessor.contains(&Part::Dashboard) {
        return None;
    }
    let old = strange_sentinels(input).next()?;
    let answers = |sentinel: &Address| matches!(input.observed.sentinels.get(sentinel), Some(Ok(_)));
    if input.desired.addresses.sentinels.iter().all(answers) && input.groups_stand() {
        return Some(Step::RemoveSentinel(old.clone()));
    }
    let what = format!("the predecessor's sentinel {old} leaves once ours answer and every server of ours is a member");
    decision.wait(reason::TAKING_OVER, what);
    None
}

/// Whether a server of its may leave its group: sentinels that haven't heard that it leaves would have it follow again, and
/// could promote it.
pub(super) fn may_leave(input: &Input<'_>) -> bool {
    strange_sentinels(input).next().is_none()
}

fn strange_sentinels<'i>(input: &'i Input<'_>) -> impl Iterator<Item = &'i Address> {
    let known = input.topology.sentinels.servers.iter();
    known.filter(|sentinel| !input.desired.addresses.sentinels.contains(sentinel))
}

/// Its next part that isn't needed any more goes.
pub(super) fn replace(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let left = &input.observed.predecessor;
    let is_well = decision.waits.is_empty() && decision.blocked.is_empty();
    let obstacles = left.iter().map(|part| (*part, obstacle(input, *part, is_well)));
    let obstacles: Vec<(Part, Option<String>)> = obstacles.collect();
    if let Some((part, _)) = obstacles.iter().find(|(_, obstacle)| obstacle.is_none()) {
        return Some(Step::Retire(*part));
    }
    if let Some((part, Some(obstacle))) = obstacles.first() {
        let what = format!("the predecessor's {part} stay until {obstacle}");
        decision.wait(reason::TAKING_OVER, what);
    }
    None
}

/// What a part still waits for.
fn obstacle(input: &Input<'_>, part: Part, is_well: bool) -> Option<String> {
    let left = &input.observed.predecessor;
    let after = |other: Part| left.contains(&other).then(|| format!("its {other} are gone"));
    let held = |component: &str| {
        let held = input.desired.cluster.brakes.stops(component, input.desired.now)?;
        Some(format!("changes are allowed again: {held}"))
    };
    let unwell = || (!is_well).then(|| "all is well".to_owned());
    match part {
        Part::Sentinels => held("sentinel").or_else(|| {
            let is_watched = strange_sentinels(input).next().is_none() && !input.topology.sentinels.out_of_sync;
            (!is_watched).then(|| "ours watch every group".to_owned())
        }),
        Part::Servers => held("server").or_else(|| members(input)).or_else(unwell),
        Part::Dashboard => after(Part::Sentinels)
            .or_else(|| after(Part::Servers))
            .or_else(|| held("dashboard"))
            .or_else(|| members(input))
            .or_else(|| unkept(input.desired, input))
            .or_else(unwell),
        Part::Proxies => after(Part::Dashboard).or_else(|| held("proxy")).or_else(unwell),
        Part::Fe => after(Part::Dashboard).or_else(|| held("fe")),
        Part::FeService => after(Part::Dashboard).or_else(|| after(Part::Fe)),
        Part::ProxyService => after(Part::Dashboard)
            .or_else(|| after(Part::Proxies))
            .or_else(|| held("proxy"))
            .or_else(|| serving(input)),
        // Clients that are still connected to its proxies have as long as those of any proxy that leaves.
        Part::ProxyPods => after(Part::ProxyService)
            .or_else(|| held("proxy"))
            .or_else(|| serving(input))
            .or_else(|| draining(input)),
    }
}

fn members(input: &Input<'_>) -> Option<String> {
    let servers = input.topology.groups.values().flat_map(|group| &group.servers);
    let mut old = servers.filter(|server| input.desired.addresses.is_inherited(&server.address));
    old.next()
        .map(|server| format!("{} has left its group", server.address))
}

/// The topology may go with its dashboard, where that keeps it in its own files: ours gets it from the dump.
fn unkept(desired: &Desired<'_>, input: &Input<'_>) -> Option<String> {
    let now = dump(desired, input.observed);
    let is_kept = now.is_some() && now.as_ref() == input.observed.dump.as_ref().and_then(|kept| kept.as_ref().ok());
    (!is_kept).then(|| "the topology is kept".to_owned())
}

/// Whether as many of our proxies as are wished serve.
fn serving(input: &Input<'_>) -> Option<String> {
    let wished = usize::from(input.desired.cluster.proxy.replicas);
    let serves = |pod: &ProxyPod| !pod.inherited && pod.ready;
    let records = input.topology.proxies.iter();
    let records = records.filter(|record| input.observed.is_in_service(record));
    let serving = records.filter(|record| input.observed.proxy_pod(record).is_some_and(serves));
    (serving.count() < wished).then(|| format!("{wished} of ours serve"))
}

fn draining(input: &Input<'_>) -> Option<String> {
    let limit = u64::from(input.desired.cluster.proxy_drain);
    let unused_for = input.observed.unused_for.get(&Part::ProxyPods).copied().unwrap_or(0);
    (unused_for < limit).then(|| format!("their clients had {limit} s (spec.codisProxy.drainSeconds)"))
}
