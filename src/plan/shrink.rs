//! Groups that are to have fewer servers: the highest ordinals leave, and before them those of the predecessor, a master not
//! before it is handed over (design, decision 2). The pod ends only after the topology has forgotten its server: see
//! `group_sizes` of the facts.

use super::{
    Decision, Step,
    input::Input,
    moves::{self, Wanted},
    reason, takeover,
};
use crate::domain::{Address, Group};

/// The next server that leaves its group.
pub(super) fn leave(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for group in input.topology.groups.values() {
        let going: Vec<&Address> = input.desired.addresses.going(group.id).collect();
        let Some(next) = next(input, group, &going) else {
            continue;
        };
        let why = match input.desired.addresses.is_inherited(next) {
            true => format!("{next} leaves: it is the predecessor's"),
            false => format!("{next} leaves: groupReplicas was lowered"),
        };
        if let Some(held) = input.desired.cluster.brakes.stops("server", input.desired.now) {
            decision.wait(reason::HELD, format!("group {}: {why}: {held}", group.id));
            continue;
        }
        if group.master() == Some(next) {
            let stays = |server: &Address| !going.contains(&server);
            if let Some(step) = moves::away(input, decision, group, &why, Wanted::ByRule, &stays) {
                return Some(step);
            }
            continue;
        }
        if may_go(input, group, &going, next) {
            return Some(Step::RemoveServer {
                group: group.id,
                server: next.clone(),
            });
        }
        decision.wait(
            reason::REPLICATION,
            format!("group {}: {why} once the others are in step", group.id),
        );
    }
    None
}

/// Of those that go, the one whose turn it is.
fn next<'i>(input: &Input<'_>, group: &Group, going: &[&'i Address]) -> Option<&'i Address> {
    let is_member = |address: &&Address| group.servers.iter().any(|server| server.address == **address);
    let mut members = going.iter().copied().rev().filter(is_member);
    // A dead one can't be in step, and would keep the others waiting.
    let is_dead = |server: &&Address| group.master() != Some(*server) && !input.is_in_role(group, server);
    members.clone().find(is_dead).or_else(|| members.next())
}

/// Whether a replica isn't missed: those that stay are all there, and in step. Sentinels are configured anew afterwards.
fn may_go(input: &Input<'_>, group: &Group, going: &[&Address], next: &Address) -> bool {
    let addresses = input.desired.addresses;
    let mut members = group.servers.iter().map(|server| &server.address);
    let mut wished = addresses.servers.get(&group.id).into_iter().flatten();
    let are_there = wished.all(|server| members.clone().any(|member| member == server));
    let are_well = members.all(|server| going.contains(&server) || input.is_in_role(group, server));
    let is_told = !addresses.is_inherited(next) || takeover::may_leave(input);
    group.is_settled() && input.undisputed_master(group).is_some() && are_there && are_well && is_told
}
