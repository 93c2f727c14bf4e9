//! Servers that have another address: their Service was deleted, and somebody else took its address before it was made anew
//! (contract §16.4). Codis knows servers by address, so the old one's record is replaced by the new one's.

use super::{Decision, Step, input::Input, reason};
use crate::domain::{Address, Group, Replication, ServerView};

/// The next record that is replaced: the new address joins first, the old one leaves last.
pub(super) fn readdress(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let sentinels = input.topology.sentinels.servers.iter();
    let is_current = |address: &Address| input.desired.addresses.sentinels.contains(address);
    let mut moved = sentinels.filter(|address| !is_current(address) && input.desired.former_pod(address).is_some());
    if let Some(old) = moved.next() {
        return Some(Step::RemoveSentinel(old.clone()));
    }
    for group in input.topology.groups.values().filter(|group| group.promoting.is_none()) {
        if let Some(replica) = under_another_address(input, group) {
            return Some(Step::Announce {
                group: group.id,
                server: replica.clone(),
            });
        }
        for (index, server) in group.servers.iter().enumerate() {
            let Some(now) = input.desired.successor(&server.address) else {
                continue;
            };
            match replace(input, group, index, &server.address, &now) {
                Ok(step) => return Some(step),
                Err(why) => {
                    let what = format!(
                        "{} of group {} has the address {now} now: {why}",
                        server.address, group.id
                    );
                    decision.wait(reason::ADDRESS_CHANGED, what);
                }
            }
        }
    }
    None
}

/// A replica that its master knows by an address that isn't anybody's any more: it announced that one when it connected.
/// Sentinels take replicas' addresses from the master: they would take this one for dead.
fn under_another_address<'g>(input: &Input<'_>, group: &'g Group) -> Option<&'g Address> {
    let Some(ServerView::Up { replicas: known, .. }) = input.server(input.serving_master(group)?) else {
        return None;
    };
    let is_nobodys = |address: &Address| input.desired.pod_at(address).is_none();
    if !known.iter().any(is_nobodys) {
        return None;
    }
    let members = group.servers.iter().map(|server| &server.address);
    members
        .filter(|member| !known.contains(*member) && group.master() != Some(*member) && !is_nobodys(member))
        .find(|member| input.is_in_role(group, member))
}

/// Whether a member of the group is this server under a former address.
pub(super) fn is_successor(input: &Input<'_>, group: &Group, server: &Address) -> bool {
    let former = group
        .servers
        .iter()
        .filter_map(|known| input.desired.successor(&known.address));
    former.into_iter().any(|now| now == *server)
}

fn replace(input: &Input<'_>, group: &Group, index: usize, old: &Address, now: &Address) -> Result<Step, String> {
    let Some(ServerView::Up { replication, .. }) = input.server(now) else {
        return Err("it doesn't answer yet".to_owned());
    };
    let add = || Step::AddServer {
        group: group.id,
        server: now.clone(),
        zone: input.observed.zone_of(now).map(str::to_owned),
    };
    let is_member = group.servers.iter().any(|server| server.address == *now);
    if index > 0 {
        return match is_member {
            false => Ok(add()),
            true if input.is_in_role(group, now) => Ok(Step::RemoveServer {
                group: group.id,
                server: old.clone(),
            }),
            true => Err("it isn't in step yet".to_owned()),
        };
    }
    // It is the master still, with all of its data, unless the sentinels have chosen another: then that one becomes
    // official first. One without a key has just joined, and isn't attached yet.
    let is_another = |server: &Address| server != now && input.is_up_master(server) && input.keys(server) > 0;
    let another = group.servers.iter().find(|server| is_another(&server.address));
    if let Some(another) = another {
        return Err(format!("{} was promoted meanwhile", another.address));
    }
    if *replication != Replication::Master || !names_nobody_else(input, group, old, now) {
        return Err("a failover is under way".to_owned());
    }
    Ok(if is_member {
        Step::Promote {
            group: group.id,
            server: now.clone(),
        }
    } else {
        add()
    })
}

/// Whether every sentinel that knows the group's master knows it by one of these addresses.
fn names_nobody_else(input: &Input<'_>, group: &Group, old: &Address, now: &Address) -> bool {
    let name = input.master_name(group.id);
    let views = input.observed.sentinels.values().flatten();
    let mut known = views.filter_map(|view| view.masters.get(&name));
    known.all(|known| known.address == *old || known.address == *now)
}
