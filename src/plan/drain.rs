//! Nodes that are being emptied: masters leave them first, by a switchover; evictions of masters wait for that (their
//! PodDisruptionBudget lets none go). What each node waits for is told.

use std::collections::BTreeSet;

use super::{
    Decision, Desired, Step,
    input::Input,
    moves::{self, Wanted},
    reason,
    step::list,
};
use crate::domain::{Address, GroupId, NodeView, Observed, Topology};

/// The taint by which a person says that nothing runs on a node any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Hands over the groups whose masters are on nodes that are being emptied.
pub(super) fn evacuate(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for group in input.topology.groups.values() {
        let Some((node, why)) = group.master().and_then(|master| leaving_node(input, master)) else {
            continue;
        };
        if group.servers.len() < 2 {
            let what = format!(
                "node {node} {why}: group {} has one server, which can't leave without an outage: set groupReplicas to 2, or delete its pod",
                group.id
            );
            decision.wait(reason::DRAINING, what);
            continue;
        }
        let why = format!("node {node} {why}");
        if let Some(step) = moves::away(input, decision, group, &why, Wanted::ByRule, &|_| true) {
            return Some(step);
        }
    }
    None
}

/// A line for each node that is being emptied, or isn't heard, and still has pods of the cluster that keep something.
/// Without the dashboard nobody knows who is master.
pub(super) fn told(desired: &Desired<'_>, observed: &Observed, topology: Option<&Topology>) -> Vec<String> {
    let members = observed.server_pods.values().chain(observed.sentinel_pods.values());
    let pods = members.chain(&observed.dashboard_pod);
    let nodes: BTreeSet<&String> = pods.filter_map(|pod| pod.node.as_ref()).collect();
    let what = |node: &String| {
        let view = observed.nodes.get(node)?;
        away(desired, observed, node, view).or_else(|| leaving(observed, topology, node, view))
    };
    let lines = nodes.into_iter().filter_map(|node| Some((node, what(node)?)));
    lines.map(|(node, what)| format!("node {node} {what}")).collect()
}

/// What is waited for on a node that isn't heard, or isn't there.
fn away(desired: &Desired<'_>, observed: &Observed, node: &str, view: &NodeView) -> Option<String> {
    if let Some(seconds) = view.gone_for {
        return Some(format!("is gone for {} s", in_tens(seconds)));
    }
    if view.out_of_service {
        let what = "is out of service: its pods are made anew; a volume that can't leave it waits until the node is back, or deleted";
        return Some(what.to_owned());
    }
    let (seconds, limit) = (view.silent_for?, desired.cluster.node_loss_after.as_secs());
    if seconds < limit {
        return Some(format!("isn't heard and is waited for until {limit} s have passed"));
    }
    let what = match &observed.dashboard_pod {
        Some(pod) if pod.node.as_deref() == Some(node) => "the dashboard, servers and sentinels",
        _ => "servers and sentinels",
    };
    Some(format!(
        "isn't heard and is lost: {what} may still run there and aren't replaced until the node is deleted or tainted: kubectl taint nodes {node} {OUT_OF_SERVICE}=nodeshutdown:NoExecute"
    ))
}

/// What the drain of a node waits for.
fn leaving(observed: &Observed, topology: Option<&Topology>, node: &str, view: &NodeView) -> Option<String> {
    let why = view.leaving.as_ref()?;
    let Some(topology) = topology else {
        return Some(format!(
            "{why}: masters can't be handed over while the dashboard is away"
        ));
    };
    let is_on_it = |address: &Address| {
        let pod = observed.server_pods.get(address);
        pod.is_some_and(|pod| pod.node.as_deref() == Some(node))
    };
    let masters = topology
        .groups
        .values()
        .filter(|group| group.master().is_some_and(is_on_it));
    let masters: Vec<GroupId> = masters.map(|group| group.id).collect();
    Some(if masters.is_empty() {
        format!("{why}: its pods may be evicted, one of a group at a time, the dashboard last")
    } else {
        format!("{why}: the masters of groups {} are handed over first", list(&masters))
    })
}

/// The status isn't written every second.
fn in_tens(seconds: u64) -> u64 {
    seconds / 10 * 10
}

/// The node of a server and why it is being emptied, if it is.
fn leaving_node(input: &Input<'_>, server: &Address) -> Option<(String, String)> {
    let node = input.observed.server_pods.get(server)?.node.as_ref();
    let why = input.observed.node(node)?.leaving.clone()?;
    Some((node?.clone(), why))
}
