//! Whose the product is. A coordinator has products of others, too: one is marked as ours before anything is written into
//! it, and the mark is what the dashboard's entry script goes by later (`build/scripts/dashboard.sh`).

use super::{Step, input::Input};
use crate::{domain::ProxyRecord, validate::Coordinator};

/// Why nothing may be written into the product: it has members of somebody else.
pub(super) fn objection(input: &Input<'_>) -> Option<String> {
    let foreign = input.foreign_member().or_else(|| unclaimed_content(input))?;
    Some(format!(
        "the product {} on this coordinator already has {foreign}, which is no member of this cluster: nothing is written; make this cluster anew with another spec.productName or coordinator, or empty the product if it is of no use any more",
        input.desired.cluster.product()
    ))
}

/// The mark, where there is none yet. [`objection`] was asked before. A filesystem is the dashboard's own volume.
pub(super) fn claim(input: &Input<'_>) -> Option<Step> {
    (!is_decided(input)).then_some(Step::ClaimProduct)
}

fn is_decided(input: &Input<'_>) -> bool {
    input.observed.claimed || input.desired.cluster.coordinator == Coordinator::Filesystem
}

/// What of a product without a mark can't be told to be ours: a proxy that is no pod here, or groups and slots while no
/// server shows whose they are.
fn unclaimed_content(input: &Input<'_>) -> Option<String> {
    let topology = input.topology;
    if is_decided(input) {
        return None;
    }
    let is_foreign = |proxy: &&ProxyRecord| input.observed.proxy_pod(proxy).is_none();
    if let Some(proxy) = topology.proxies.iter().find(is_foreign) {
        return Some(format!("the proxy {}", proxy.admin));
    }
    let has_servers = topology.groups.values().any(|group| !group.servers.is_empty());
    let group = topology.groups.keys().next().copied();
    let group = group.or_else(|| topology.slots.iter().find_map(|slot| slot.group));
    group.filter(|_| !has_servers).map(|group| format!("group {group}"))
}
