//! Rolling changes of what the operator restarts itself: sentinels and servers. Deployments and the dashboard are rolled
//! by their controllers, before (design, decision 2).
//!
//! One pod at a time, and only while the whole cluster is well: whatever is waited for stops the roll, so that a bad
//! image stops at its first pod. Of a group the replicas come first; then its master is handed over, and is a replica.

use super::{
    Decision, Step,
    input::Input,
    moves::{self, Wanted},
    reason,
};
use crate::{
    domain::{Address, Group, GroupId, MemberPod},
    seeded::{self, Bug},
};

/// A pod of a template that isn't wished any more and that never became ready: what replaces it can only be better, and
/// everything else waits for it.
pub(super) fn replace_broken(input: &Input<'_>, _: &mut Decision) -> Option<Step> {
    let sentinels = input.observed.sentinel_pods.values();
    let pods = input.observed.server_pods.values().chain(sentinels);
    let broken = pods
        .filter(|pod| pod.outdated && pod.never_ready && !pod.terminating)
        .min_by_key(|pod| &pod.name)?;
    Some(restart(broken, "its template was changed before it ever became ready"))
}

/// Sentinels of an old template, one after another.
pub(super) fn sentinels(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let pods = input.observed.sentinel_pods.values();
    let outdated: Vec<&MemberPod> = pods.filter(|pod| pod.outdated).collect();
    let next = outdated.iter().min_by_key(|pod| &pod.name)?;
    let told = format!("{} sentinels are of an old template", outdated.len());
    may_go_on(input, decision, "sentinel", &told).then(|| restart(next, "the sentinels' spec changed"))
}

/// Servers of an old template, group after group.
pub(super) fn servers(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let outdated = outdated(input);
    let (group, _) = outdated.first()?;
    if seeded::has(Bug::RolledAtOnce) {
        let pods = outdated
            .iter()
            .filter_map(|(_, address)| input.observed.server_pods.get(address));
        let next = pods.filter(|pod| !pod.terminating).min_by_key(|pod| &pod.name)?;
        return Some(restart(next, "its spec changed"));
    }
    let told = format!("{} servers are of an old template", outdated.len());
    if !may_go_on(input, decision, "server", &told) {
        return None;
    }
    let group = input.topology.groups.get(group)?;
    let of_group: Vec<&Address> = outdated
        .iter()
        .filter(|(id, _)| *id == group.id)
        .map(|(_, address)| address)
        .collect();
    let pod = |address: &Address| input.observed.server_pods.get(address);
    // The highest ordinals first, as in a StatefulSet.
    let replica = of_group.iter().rev().find(|address| group.master() != Some(**address));
    match replica {
        Some(replica) => pod(replica).map(|pod| restart(pod, "its spec changed")),
        None => master(input, decision, group, of_group.first().copied()?),
    }
}

/// The last server of a group is its master: it is handed over, unless it is alone.
fn master(input: &Input<'_>, decision: &mut Decision, group: &Group, address: &Address) -> Option<Step> {
    let why = "its spec changed";
    if group.servers.len() > 1 {
        let is_current = |server: &Address| input.observed.server_pods.get(server).is_some_and(|pod| !pod.outdated);
        return moves::away(input, decision, group, why, Wanted::ByRule, &is_current);
    }
    if !input.desired.persistent.contains(&group.id) {
        let what = format!(
            "group {} is one server without a volume: making it anew for the changed spec would lose its keys. Set groupReplicas to 2, or delete its pod",
            group.id
        );
        decision.block(reason::ROLLING, what);
        return None;
    }
    if let Some((reason, held)) = moves::brake(input, group.id) {
        decision.wait(
            reason,
            format!("{address}, alone in group {}, is to be made anew: {held}", group.id),
        );
        return None;
    }
    let pod = input.observed.server_pods.get(address)?;
    Some(restart(
        pod,
        "its spec changed; its group has no other server and is away meanwhile",
    ))
}

/// Servers of an old template whose number isn't below the partition, in the order of their numbers.
fn outdated(input: &Input<'_>) -> Vec<(GroupId, Address)> {
    let size = u32::from(input.desired.cluster.group_size);
    let groups = (0u32..).zip(input.wished_groups());
    let servers = groups.flat_map(|(rank, (id, servers))| {
        let all = (0u32..).zip(servers);
        all.map(move |(ordinal, address)| (rank * size + ordinal, *id, address))
    });
    let is_outdated = |address: &Address| input.observed.server_pods.get(address).is_some_and(|pod| pod.outdated);
    servers
        .filter(|(number, _, address)| *number >= u32::from(input.desired.cluster.partition) && is_outdated(address))
        .map(|(_, id, address)| (id, address.clone()))
        .collect()
}

/// Whether the next one may be restarted; if not, notes why.
fn may_go_on(input: &Input<'_>, decision: &mut Decision, component: &str, told: &str) -> bool {
    let held = input.desired.cluster.brakes.stops(component, input.desired.now);
    let unrolled = input
        .observed
        .rolling
        .first()
        .map(|what| format!("{what} is being rolled first"));
    if let Some(held) = held {
        decision.alarm(reason::HELD, format!("{told}: {held}"));
        return false;
    }
    if !decision.waits.is_empty() || !decision.blocked.is_empty() || unrolled.is_some() {
        // Whatever is waited for is told already.
        decision.wait(
            reason::ROLLING,
            unrolled.map_or(told.to_owned(), |first| format!("{told}: {first}")),
        );
        return false;
    }
    true
}

fn restart(pod: &MemberPod, why: &str) -> Step {
    Step::Restart {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        why: why.to_owned(),
    }
}
