//! Proxies: records of dead ones go, running ones come online.

use std::collections::BTreeSet;

use super::{Decision, Step, bootstrap, input::Input, reason, restore::is_lost};
use crate::{
    domain::{Address, Group, ProxyPod, ProxyRecord, ServerView, ports},
    seeded::{self, Bug},
};

/// A proxy that runs for this many seconds and isn't registered won't do it by itself any more (contract §8.3).
const REGISTERS_WITHIN: u64 = 40;
/// A proxy that runs for this many seconds, is not ready and doesn't answer the dashboard hangs.
const HANGS_AFTER: u64 = 30;

/// A proxy that was just registered has asked the sentinels who is master after this many seconds.
const ASKS_WITHIN: u64 = 5;

/// A running proxy that doesn't answer for this many seconds is replaced.
const SILENT: u64 = 5;
/// A container that runs for less than this many seconds is starting.
const STARTS_WITHIN: u64 = 15;

/// One dead record blocks every push (contract §15.2).
pub(super) fn remove_dead(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    if seeded::has(Bug::DeadProxiesStay) {
        return None;
    }
    for record in &input.topology.proxies {
        let pod = input.observed.proxy_pod(record);
        if is_dead(input, record, pod) {
            return Some(Step::RemoveProxy {
                token: record.token.clone(),
                admin: record.admin.clone(),
            });
        }
        if pod.is_none() {
            let what = format!(
                "the proxy {} is registered and answers, but is no pod of this cluster",
                record.admin
            );
            decision.alarm(reason::FOREIGN_PROXY, what);
        }
    }
    None
}

/// A proxy whose administrative port doesn't answer is deleted gracefully: it leaves the Service at once, its record goes
/// while it ends, and clients find the others. Nothing waits for it longer than this.
pub(super) fn replace_silent(input: &Input<'_>, _: &mut Decision) -> Option<Step> {
    // Where all are silent it may be the dashboard that is cut off: clients must keep a proxy.
    let wished = input.desired.cluster.proxy.replicas;
    let records = input.topology.proxies.iter();
    let has_another = records.clone().any(|record| input.observed.is_in_service(record));
    // One that leaves may wait for its clients for an hour: another one is in its place long before.
    let standing = input.observed.proxy_pods.iter().filter(|pod| !pod.ending);
    let all_stand = standing.clone().count() >= usize::from(wished) && standing.clone().all(|pod| pod.ready);
    if !(has_another && all_stand || wished == 1) {
        return None;
    }
    let silent = records.filter(|record| is_silent(input, record));
    let mut pods = silent.filter_map(|record| input.observed.proxy_pod(record));
    // One that starts, or ends, isn't silent: the kubelet has it in hand.
    let pod = pods.find(|pod| !pod.ending && pod.running_for.is_some_and(|seconds| seconds > STARTS_WITHIN))?;
    Some(Step::Restart {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        why: format!("its administrative port hasn't answered for {SILENT} s"),
    })
}

fn is_silent(input: &Input<'_>, record: &ProxyRecord) -> bool {
    let down_for = input.observed.down_for.get(&record.admin);
    down_for.is_some_and(|seconds| *seconds >= SILENT)
}

fn is_dead(input: &Input<'_>, record: &ProxyRecord, pod: Option<&ProxyPod>) -> bool {
    let Some(error) = &record.error else { return false };
    match pod {
        // Its address answers for another proxy: this record is of an earlier process (contract §8.4).
        Some(_) if error.contains("invalid xauth") => true,
        // In place restarts take a moment and keep the record: only what doesn't come back by itself is dead.
        Some(pod) if pod.running_for.is_none() => true,
        // One that leaves serves the clients that it has: it must hear of every change until it is gone.
        Some(pod) if pod.ending => is_silent(input, record),
        Some(pod) => !pod.ready && pod.running_for.is_some_and(|seconds| seconds > HANGS_AFTER),
        None => true,
    }
}

/// Proxies that follow an order of their own, by a sentinel's word that was older than a promotion, or listen to no
/// sentinel because nobody undid it: once nobody disputes the official order, they are told.
pub(super) fn align(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let sentinels = &input.topology.sentinels;
    // A topology that lost its sentinels is no reason to be deaf.
    if is_lost(decision) {
        return None;
    }
    let groups = input.topology.groups.values();
    let is_official = |group: &Group| group.is_settled() && input.undisputed_master(group).is_some();
    if sentinels.out_of_sync || !groups.filter(|group| !group.servers.is_empty()).all(is_official) {
        return None;
    }
    if reachable(input).any(|record| record.switched) {
        return Some(Step::ResyncGroups);
    }
    // With one that doesn't answer, `spare` has the word.
    let all_answer = answering(input).len() == sentinels.servers.len();
    (all_answer && knows_sentinels(input))
        .then(|| listen(input, sentinels.servers.clone()))
        .flatten()
}

/// A master is silent and so is a sentinel: they went with a node. A proxy would give that sentinel 5 s before it believes
/// the others who is master now (contract §11), and clients would wait: it is told to listen to the others, as long as
/// those are a majority. [`align`] takes that back.
pub(super) fn spare(input: &Input<'_>, _: &mut Decision) -> Option<Step> {
    let sentinels = &input.topology.sentinels;
    let answering = answering(input);
    let is_partial = answering.len() < sentinels.servers.len() && input.is_majority(answering.len());
    let is_silent = |group: &Group| {
        let master = group.master().and_then(|master| input.server(master));
        matches!(master, Some(ServerView::Unreachable(_)))
    };
    let master_is_silent = input.topology.groups.values().any(is_silent);
    let is_untouched = !sentinels.out_of_sync && input.observed.intent.is_none();
    (is_partial && master_is_silent && is_untouched)
        .then(|| listen(input, answering))
        .flatten()
}

/// The sentinels that the dashboard knows and that answer.
fn answering(input: &Input<'_>) -> Vec<Address> {
    let answers = |sentinel: &&Address| matches!(input.observed.sentinels.get(*sentinel), Some(Ok(_)));
    let known = input.topology.sentinels.servers.iter();
    known.filter(answers).cloned().collect()
}

/// The proxies that are online and answer.
fn reachable<'i>(input: &Input<'i>) -> impl Iterator<Item = &'i ProxyRecord> {
    let heard = |record: &&ProxyRecord| record.online && record.error.is_none();
    input.topology.proxies.iter().filter(heard)
}

/// Has the proxies that listen to others listen to these.
fn listen(input: &Input<'_>, sentinels: Vec<Address>) -> Option<Step> {
    let wished: BTreeSet<String> = sentinels.iter().map(Address::to_string).collect();
    let deaf = reachable(input).filter(|record| record.sentinels.iter().cloned().collect::<BTreeSet<_>>() != wished);
    let proxies: Vec<_> = deaf
        .map(|record| (record.admin.clone(), record.token.clone()))
        .collect();
    (!proxies.is_empty()).then_some(Step::Listen { proxies, sentinels })
}

/// The records of proxies at a pod's address.
fn records_of<'i>(input: &Input<'i>, pod: &ProxyPod) -> impl Iterator<Item = &'i ProxyRecord> {
    let records = input.topology.proxies.iter();
    records.filter(|record| pod.ip.as_deref() == Some(record.admin.host()))
}

/// The name of a proxy that is starting: it may not be registered yet, and asks the sentinels right after that.
pub(super) fn starting<'i>(input: &Input<'i>) -> Option<&'i str> {
    let limit = |pod: &ProxyPod| {
        if records_of(input, pod).next().is_some() {
            ASKS_WITHIN
        } else {
            REGISTERS_WITHIN
        }
    };
    let mut pods = input.observed.proxy_pods.iter().filter(|pod| !pod.ending);
    let pod = pods.find(|pod| pod.running_for.is_some_and(|seconds| seconds < limit(pod)))?;
    Some(&pod.name)
}

/// The name of a proxy that serves clients and that this topology doesn't know, as after one that was lost: it hears of no
/// change. One that starts doesn't serve before it is registered.
pub(super) fn unheard<'i>(input: &Input<'i>) -> Option<&'i str> {
    let is_known = |pod: &ProxyPod| records_of(input, pod).any(|record| record.online);
    let mut serving = input.observed.proxy_pods.iter().filter(|pod| pod.running_for.is_some());
    let pod = serving.find(|pod| (pod.ready || pod.ending) && !is_known(pod))?;
    Some(&pod.name)
}

/// Proxies register themselves at their start; this is for those that gave up, or whose record was removed.
pub(super) fn online(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let wished = usize::from(input.desired.cluster.proxy.replicas);
    let online = input
        .topology
        .proxies
        .iter()
        .filter(|proxy| input.observed.is_in_service(proxy))
        .count();
    if online < wished {
        decision.wait(
            reason::PROXIES_NOT_READY,
            format!("{online} of {wished} proxies are online"),
        );
    }
    // What it serves is older than what was lost, and better than nothing.
    if is_lost(decision) || bootstrap::is_secret(input) {
        return None;
    }
    for pod in &input.observed.proxy_pods {
        let Some(ip) = pod.ip.as_deref().filter(|_| !pod.ending) else {
            continue;
        };
        let is_registered = records_of(input, pod).next().is_some();
        // One that serves was registered once, and doesn't do it again by itself.
        let may_register = !pod.ready && pod.running_for.is_none_or(|seconds| seconds <= REGISTERS_WITHIN);
        if is_registered || may_register {
            continue;
        }
        if pod.ready && !is_up_to_date(input) {
            let what = format!(
                "the proxy {} serves by what it was told before, and is registered once the sentinels are known and agree with the topology",
                pod.name
            );
            decision.wait(reason::PROXIES_NOT_READY, what);
            continue;
        }
        return Some(Step::OnlineProxy(Address::new(ip, ports::PROXY_ADMIN)));
    }
    None
}

/// Whether a proxy that listens to sentinels by itself hears nothing older from the dashboard: in a topology that was lost,
/// the sentinels may be missing, and they may have promoted somebody since.
fn is_up_to_date(input: &Input<'_>) -> bool {
    let groups = input.topology.groups.values();
    let mut groups = groups.filter(|group| !group.servers.is_empty());
    knows_sentinels(input) && groups.all(|group| input.sentinels_agree(group))
}

/// Whether the topology has most of the sentinels that are wished. Proxies that listen to fewer would miss promotions.
fn knows_sentinels(input: &Input<'_>) -> bool {
    let known = &input.topology.sentinels.servers;
    let wished = &input.desired.addresses.sentinels;
    let known = wished.iter().filter(|sentinel| known.contains(sentinel)).count();
    wished.is_empty() || input.is_majority(known)
}
