//! Masters on different nodes: by the choice of the first server when a group is made, later by switchovers.

use std::collections::BTreeMap;

use super::{
    Decision, Step,
    input::Input,
    moves::{self, Wanted},
};
use crate::domain::{Address, GroupId, ServerView};

/// After anything that restarted a server, masters are left where they are for so many seconds: whoever looks at an
/// incident shouldn't see roles move that nobody asked for.
const CALM: u64 = 300;

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

/// The servers of a new group, the one that is to be its master first: one that has data, else one that may stay on the
/// node with the fewest masters.
pub(super) fn first_master_first<'s>(input: &Input<'_>, servers: &'s [Address]) -> Vec<&'s Address> {
    let counts = masters_by_node(input);
    let masters_beside = |server: &Address| {
        node_of(input, server)
            .and_then(|node| counts.get(node))
            .copied()
            .unwrap_or(0)
    };
    let mut order: Vec<&Address> = servers.iter().collect();
    let rank = |server: &Address| {
        let is_empty = input.keys(server) == 0;
        (is_empty, !moves::may_stay(input, server), masters_beside(server))
    };
    if let Some(first) = (0..servers.len()).min_by_key(|ordinal| rank(&servers[*ordinal])) {
        let first = order.remove(first);
        order.insert(0, first);
    }
    order
}

/// Hands a group over where that leaves its node with fewer masters than before and makes no other node's number as
/// high: so it comes to an end.
pub(super) fn balance(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let may_move = decision.waits.is_empty() && decision.blocked.is_empty() && input.observed.rolling.is_empty();
    if !may_move || input.desired.cluster.brakes.supervised || !is_calm(input) {
        return None;
    }
    let counts = masters_by_node(input);
    let count = |node: &str| counts.get(node).copied().unwrap_or(0);
    let groups = input
        .topology
        .groups
        .values()
        .filter(|group| !was_placed(input, group.id));
    for group in groups {
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

/// Whether a person chose this group's master: the request stays on the object.
fn was_placed(input: &Input<'_>, group: GroupId) -> bool {
    let request = input.desired.cluster.promotion.as_ref();
    let placed = request.and_then(|request| request.wish.as_ref().ok());
    placed.is_some_and(|(id, _)| *id == group.get())
}

/// Whether no server was restarted a moment ago.
fn is_calm(input: &Input<'_>) -> bool {
    let has_run = |view: &ServerView| matches!(view, ServerView::Up { uptime, .. } if *uptime >= CALM);
    input.observed.servers.values().all(has_run)
}
