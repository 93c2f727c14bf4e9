//! Whose the product is. A coordinator has products of others, too: one is marked as ours before anything is written into
//! it, and the mark is what the dashboard's entry script goes by later (`build/scripts/dashboard.sh`).

use super::input::Input;
use crate::{domain::ProxyRecord, validate::Coordinator};

/// What is known of the product.
pub(super) enum Verdict {
    /// It is this cluster's.
    Ours,
    /// It has nothing of others, and is to be marked.
    Unmarked,
    /// It has something that may be ours: what, and what to do if it stays.
    Unclear(String),
    /// It has members of somebody else: which, and what to do.
    Foreign(String),
}

/// Whose the product is. A filesystem is the dashboard's own volume: it needs no mark.
pub(super) fn verdict(input: &Input<'_>) -> Verdict {
    let is_known = input.observed.claimed || input.desired.cluster.coordinator == Coordinator::Filesystem;
    let product = input.desired.cluster.product();
    let foreign = input.foreign_member();
    if let Some(foreign) = foreign.or_else(|| unowned_group(input).filter(|_| !is_known)) {
        return Verdict::Foreign(format!(
            "the product {product} on this coordinator already has {foreign}, which is no member of this cluster: nothing is written; make this cluster anew with another spec.productName or coordinator, or empty the product if it is of no use any more"
        ));
    }
    match unknown_proxy(input) {
        _ if is_known => Verdict::Ours,
        // One of ours that came since the pods were read, most likely: the dashboard found no content when it started.
        Some(proxy) => Verdict::Unclear(format!(
            "the proxy {} is registered in the product {product} and is no pod of this cluster: nothing is written; if it stays, take it out with codis-admin --remove-proxy",
            proxy.admin
        )),
        None => Verdict::Unmarked,
    }
}

/// A group while no server shows whose it is.
fn unowned_group(input: &Input<'_>) -> Option<String> {
    let topology = input.topology;
    if topology.groups.values().any(|group| !group.servers.is_empty()) {
        return None;
    }
    let group = topology.groups.keys().next().copied();
    let group = group.or_else(|| topology.slots.iter().find_map(|slot| slot.group));
    group.map(|group| format!("group {group}"))
}

fn unknown_proxy<'i>(input: &'i Input<'_>) -> Option<&'i ProxyRecord> {
    let proxies = &mut input.topology.proxies.iter();
    proxies.find(|proxy| input.observed.proxy_pod(proxy).is_none())
}
