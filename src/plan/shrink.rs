//! Groups that are to have fewer servers: the highest ordinals leave, a master not before it is handed over (design,
//! decision 2). The pod ends only after the topology has forgotten its server: see `group_sizes` of the facts.

use super::{
    Decision, Step,
    input::Input,
    moves::{self, Wanted},
    reason,
};
use crate::domain::Address;

/// The next server that leaves its group.
pub(super) fn leave(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for group in input.topology.groups.values() {
        let Some(leaving) = input.desired.addresses.leaving.get(&group.id) else {
            continue;
        };
        let is_member = |address: &&Address| group.servers.iter().any(|server| server.address == **address);
        let Some(next) = leaving.iter().rev().find(is_member) else {
            continue;
        };
        let why = format!("{next} leaves: groupReplicas was lowered");
        if let Some(held) = input.desired.cluster.brakes.stops("server", input.desired.now) {
            decision.wait(reason::HELD, format!("group {}: {why}: {held}", group.id));
            continue;
        }
        if group.master() == Some(next) {
            let stays = |server: &Address| !leaving.contains(server);
            if let Some(step) = moves::away(input, decision, group, &why, Wanted::ByRule, &stays) {
                return Some(step);
            }
            continue;
        }
        // Sentinels are configured anew afterwards, and it is no copy that is missed: the others are in step.
        let others = group
            .servers
            .iter()
            .map(|server| &server.address)
            .filter(|server| *server != next);
        let others_are_well = others.clone().all(|server| input.is_in_role(group, server));
        if group.is_settled() && input.undisputed_master(group).is_some() && others_are_well {
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
