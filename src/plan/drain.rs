//! Nodes that are being emptied: masters leave them first, by a switchover; evictions of masters wait for that (their
//! PodDisruptionBudget lets none go). What each node waits for is told.

use std::collections::BTreeSet;

use super::{
    Decision, Step,
    input::Input,
    moves::{self, Wanted},
    reason,
};
use crate::domain::{Address, Group};

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

/// A line for each node that is being emptied, or isn't heard, and still has servers of the cluster.
pub(super) fn told(input: &Input<'_>) -> Vec<String> {
    let pods = input
        .observed
        .server_pods
        .values()
        .chain(input.observed.sentinel_pods.values());
    let nodes: BTreeSet<&String> = pods.filter_map(|pod| pod.node.as_ref()).collect();
    nodes.into_iter().filter_map(|node| line(input, node)).collect()
}

fn line(input: &Input<'_>, node: &str) -> Option<String> {
    let view = input.observed.nodes.get(node)?;
    if let Some(seconds) = view.gone_for {
        return Some(format!("node {node} is gone for {} s", in_tens(seconds)));
    }
    if let Some(seconds) = view.silent_for.filter(|_| !view.out_of_service) {
        let limit = input.desired.cluster.node_loss_after.as_secs();
        let what = if seconds < limit {
            format!("is waited for until {limit} s have passed")
        } else {
            "is lost: what keeps data may still run there and isn't replaced until the node is deleted or tainted node.kubernetes.io/out-of-service=nodeshutdown:NoExecute".to_owned()
        };
        return Some(format!("node {node} isn't heard and {what}"));
    }
    let why = view.leaving.as_ref()?;
    let on_it = |address: &Address| {
        input
            .observed
            .server_pods
            .get(address)
            .is_some_and(|pod| pod.node.as_deref() == Some(node))
    };
    let masters: Vec<&Group> = input
        .topology
        .groups
        .values()
        .filter(|group| group.master().is_some_and(on_it))
        .collect();
    let waits = if masters.is_empty() {
        "its pods may be evicted, one of a group at a time".to_owned()
    } else {
        let ids: Vec<String> = masters.iter().map(|group| group.id.to_string()).collect();
        format!("the masters of groups {} are handed over first", ids.join(", "))
    };
    Some(format!("node {node} {why}: {waits}"))
}

/// The status isn't written every second.
fn in_tens(seconds: u64) -> u64 {
    seconds / 10 * 10
}

/// The node of a server and why it is being emptied, if it is.
fn leaving_node(input: &Input<'_>, server: &Address) -> Option<(String, String)> {
    let node = input.observed.server_pods.get(server)?.node.clone()?;
    let why = input.observed.nodes.get(&node)?.leaving.clone()?;
    Some((node, why))
}
