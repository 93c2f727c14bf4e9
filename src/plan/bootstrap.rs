//! From an empty topology to 1024 served slots.

use super::{
    Decision, Step,
    input::{Input, Word},
    readdress, reason,
    restore::is_lost,
    spread,
    step::list,
};
use crate::domain::{Address, Group, GroupId, Replication, ServerView, SlotId, even_layout};

/// Groups and servers that the topology doesn't have yet. Of an empty topology nothing is built before every server
/// was asked whether it holds keys.
pub(super) fn groups_and_servers(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    if is_lost(decision) || input.topology.is_empty() && !all_servers_up(input, decision) {
        return None;
    }
    for (id, servers) in input.wished_groups() {
        let is_wanted = input.desired.cluster.stays(*id) || is_leaving_with_slots(input, *id);
        if !is_wanted {
            continue;
        }
        let Some(group) = input.topology.groups.get(id) else {
            return Some(Step::CreateGroup(*id));
        };
        let order = if group.servers.is_empty() {
            spread::first_master_first(input, servers)
        } else {
            servers.iter().collect()
        };
        // One that is a member under another address isn't missing.
        let missing = order
            .into_iter()
            .filter(|server| !readdress::is_successor(input, group, server))
            .filter(|server| group.servers.iter().all(|known| known.address != **server));
        for server in missing {
            if let Some(step) = add(input, decision, group, server) {
                return Some(step);
            }
        }
    }
    None
}

/// A group that leaves has as many pods as any other, and sentinels promote whoever follows its master: until its slots
/// are gone, all that run are members, so that the dashboard follows them.
fn is_leaving_with_slots(input: &Input<'_>, id: GroupId) -> bool {
    let mut slots = input.topology.slots.iter();
    let stands = input
        .topology
        .groups
        .get(&id)
        .is_some_and(|group| !group.servers.is_empty());
    stands && slots.any(|slot| slot.group == Some(id) || slot.moves_with(id))
}

fn add(input: &Input<'_>, decision: &mut Decision, group: &Group, server: &Address) -> Option<Step> {
    let Some(ServerView::Up { replication, keys, .. }) = input.server(server) else {
        decision.wait(
            reason::SERVERS_NOT_READY,
            format!("server {server} of group {} doesn't answer", group.id),
        );
        return None;
    };
    // A member that joins is made a replica, which wipes it. One that follows a member has nothing of its own, also if
    // it was a replica here before and comes back with an old volume.
    let is_member = |address: &Address| {
        let now = input.present(address);
        group.servers.iter().any(|known| input.present(&known.address) == now)
    };
    let follows = matches!(replication, Replication::Replica { master, .. } if is_member(master));
    // One that the official master follows has what the group has: sentinels promoted it before it was a member again.
    let is_followed = group.master().is_some_and(|official| {
        matches!(input.server(official),
            Some(ServerView::Up { replication: Replication::Replica { master, link_up }, .. })
                if (*link_up || master != server) && input.present(master) == *server)
    });
    let may_join = follows || is_followed || was_member(input, group, server);
    if *keys > 0 && !may_join && group.master().is_some() {
        let what = format!(
            "server {server} holds {keys} keys and isn't in group {}: joining it would wipe them; delete its volume or empty it",
            group.id
        );
        decision.block(reason::SERVER_HAS_DATA, what);
        return None;
    }
    Some(Step::AddServer {
        group: group.id,
        server: server.clone(),
        zone: input.observed.zone_of(server).map(str::to_owned),
    })
}

/// Whether a server was a member when the topology was last known in whole, and nobody takes it for the group's master: what
/// becomes of its keys is decided as for any other member.
fn was_member(input: &Input<'_>, group: &Group, server: &Address) -> bool {
    let Some(Ok(dump)) = &input.observed.dump else {
        return false;
    };
    let names = &input.desired.cluster.names;
    let mut members = dump.groups.get(&group.id).into_iter().flatten();
    let is_it =
        |ordinal: &u16| input.desired.address_of(&names.server_pod(group.id, *ordinal)).as_ref() == Some(server);
    members.any(is_it) && input.word_on(group) == Word::For
}

fn all_servers_up(input: &Input<'_>, decision: &mut Decision) -> bool {
    let wished = input.wished_groups().values().flatten();
    let down: Vec<&Address> = wished
        .filter(|server| !matches!(input.server(server), Some(ServerView::Up { .. })))
        .collect();
    if !down.is_empty() {
        decision.wait(
            reason::SERVERS_NOT_READY,
            format!("servers don't answer yet: {}", list(&down)),
        );
    }
    down.is_empty()
}

/// Slots are assigned in bulk only while no server holds a key, once everything else stands; the gates are armed
/// before, as no write can have been acknowledged until then.
pub(super) fn slots(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    if is_lost(decision) {
        return None;
    }
    let is_new = input.topology.slots.iter().any(|slot| slot.group.is_none());
    if is_new && (!all_servers_up(input, decision) || !decision.waits.iter().all(|note| may_pass(note.reason))) {
        return None;
    }
    if !is_new {
        return None;
    }
    let unarmed = unarmed(input, |_| true);
    if !unarmed.is_empty() {
        return Some(Step::ArmGate(unarmed));
    }
    Some(assignment(input))
}

/// A dashboard that died while it assigned slots left some without a group: the rest follows before proxies are told
/// of the half, as long as no server holds a key.
pub(super) fn finish_assignment(input: &Input<'_>, _: &mut Decision) -> Option<Step> {
    let is_empty = |server: &Address| matches!(input.server(server), Some(ServerView::Up { keys: 0, .. }));
    let all_empty = input.wished_groups().values().flatten().all(is_empty);
    if !(is_half(input) && all_empty && input.groups_stand()) {
        return None;
    }
    // Groups that are wished since. One that leaves gets no slot, and may have no server any more to be armed for.
    let unarmed = unarmed(input, |group| input.desired.cluster.stays(group));
    if !unarmed.is_empty() {
        return Some(Step::ArmGate(unarmed));
    }
    let mut groups = input.staying_groups();
    groups
        .all(|(id, _)| input.observed.bootstrapped.contains(id))
        .then(|| assignment(input))
}

fn is_half(input: &Input<'_>) -> bool {
    let offline = input.topology.slots.iter().filter(|slot| slot.group.is_none()).count();
    offline > 0 && offline < input.topology.slots.len()
}

/// Whether the first assignment broke off and nobody has written anything yet: a proxy that heard of the half would let
/// clients write, and then nobody could tell any more where the rest belongs.
pub(super) fn is_secret(input: &Input<'_>) -> bool {
    is_half(input) && input.observed.servers.keys().all(|server| input.keys(server) == 0)
}

/// The even layout, for the slots that have no group.
fn assignment(input: &Input<'_>) -> Step {
    let groups: Vec<GroupId> = input.staying_groups().map(|(id, _)| *id).collect();
    let is_offline = |slot: SlotId| {
        input
            .topology
            .slots
            .iter()
            .any(|known| known.id == slot && known.group.is_none())
    };
    Step::AssignSlots(
        even_layout(&groups)
            .into_iter()
            .filter(|(slot, _)| is_offline(*slot))
            .collect(),
    )
}

/// What slots needn't wait for: proxies are told of them whenever they come, and pods of the front end don't matter.
fn may_pass(waits_for: &str) -> bool {
    [reason::PROXIES_NOT_READY, reason::PODS_NOT_READY].contains(&waits_for)
}

/// Groups that serve again after they started empty: their gate is armed before anything else.
pub(super) fn arm(input: &Input<'_>, _: &mut Decision) -> Option<Step> {
    let unarmed = unarmed(input, |group| input.topology.slots_of(group) > 0);
    (!unarmed.is_empty()).then_some(Step::ArmGate(unarmed))
}

/// Those of some groups that have a master and no armed gate.
fn unarmed(input: &Input<'_>, of: impl Fn(GroupId) -> bool) -> Vec<GroupId> {
    let groups = input
        .topology
        .groups
        .values()
        .filter(|group| input.serving_master(group).is_some());
    groups
        .map(|group| group.id)
        .filter(|id| of(*id) && !input.observed.bootstrapped.contains(id))
        .collect()
}
