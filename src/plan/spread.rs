//! Masters on different nodes: by the choice of the first server when a group is made, later by switchovers.

use std::collections::BTreeMap;

use super::{
    Decision, Step,
    input::Input,
    moves::{self, Wanted},
};
use crate::domain::Address;

/// How many official masters each node has.
fn masters_by_node<'i>(input: &'i Input<'_>) -> BTreeMap<&'i str, usize> {
    let mut counts = BTreeMap::new();
    for master in input.topology.groups.values().filter_map(|group| group.master()) {
        if let Some(node) = node_of(input, master) {
            *counts.entry(node).or_default() += 1;
        }
    }
    counts
}

fn node_of<'i>(input: &'i Input<'_>, server: &Address) -> Option<&'i str> {
    input.observed.server_pods.get(server)?.node.as_deref()
}

/// The servers of a new group, the one that is to be its master first: on the node with the fewest masters.
pub(super) fn first_master_first<'s>(input: &Input<'_>, servers: &'s [Address]) -> Vec<&'s Address> {
    let counts = masters_by_node(input);
    let masters_beside = |server: &Address| {
        node_of(input, server)
            .and_then(|node| counts.get(node))
            .copied()
            .unwrap_or(0)
    };
    let mut order: Vec<&Address> = servers.iter().collect();
    if let Some(first) = (0..servers.len()).min_by_key(|ordinal| masters_beside(&servers[*ordinal])) {
        let first = order.remove(first);
        order.insert(0, first);
    }
    order
}

/// Hands a group over where that leaves its node with fewer masters than before and makes no other node's number as
/// high: so it comes to an end.
pub(super) fn balance(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let may_move = decision.waits.is_empty() && decision.blocked.is_empty() && input.observed.rolling.is_empty();
    if !may_move || input.desired.cluster.brakes.supervised {
        return None;
    }
    let counts = masters_by_node(input);
    let count = |node: &str| counts.get(node).copied().unwrap_or(0);
    for group in input.topology.groups.values() {
        let Some(crowded) = group.master().and_then(|master| node_of(input, master)) else {
            continue;
        };
        let is_roomier =
            |server: &Address| node_of(input, server).is_some_and(|node| count(node) + 2 <= count(crowded));
        let mut replicas = group.servers.iter().skip(1).map(|server| &server.address);
        if replicas.any(|replica| is_roomier(replica) && moves::may_stay(input, replica)) {
            let why = format!("node {crowded} has {} masters", count(crowded));
            let mut unnoted = Decision::default();
            // What it waits for isn't worth telling: nobody asked for it.
            let step = moves::away(input, &mut unnoted, group, &why, Wanted::ByRule, &is_roomier);
            if step.is_some() {
                return step;
            }
        }
    }
    None
}
