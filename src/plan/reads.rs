//! Replica reads: which servers the proxies send read-only commands to, beside the masters (contract §6.5).

use super::{Decision, Step, input::Input, reason};
use crate::domain::{Address, Group, Server};

/// Marks a group's servers as the spec wishes. One that isn't in step with its master is never read from: emptied, it
/// would answer that there is nothing, until it has everything again.
pub(super) fn align(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let wished = input.desired.cluster.replica_reads;
    let held = input.desired.cluster.brakes.stops("proxy", input.desired.now);
    let groups = input.topology.groups.values();
    for group in groups.filter(|group| group.is_settled() && input.undisputed_master(group).is_some()) {
        let in_step = |server: &Server| input.is_in_role(group, &server.address);
        let stale = marked(group, |server| server.is_read && !in_step(server));
        let changed = marked(group, |server| server.is_read != wished && in_step(server));
        let (servers, reads) = if stale.is_empty() {
            (changed, wished)
        } else {
            (stale, false)
        };
        if servers.is_empty() {
            continue;
        }
        let is_change = reads == wished;
        let step = Step::MarkReplicas {
            group: group.id,
            servers,
            reads,
        };
        match &held {
            Some(held) if is_change => decision.alarm(reason::HELD, format!("{step}: {held}")),
            _ => return Some(step),
        }
    }
    None
}

fn marked(group: &Group, of: impl Fn(&Server) -> bool) -> Vec<Address> {
    let servers = group.servers.iter().filter(|server| of(server));
    servers.map(|server| server.address.clone()).collect()
}
