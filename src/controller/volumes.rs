//! Volumes that went with their nodes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;

use super::Context;
use crate::{
    build::DATA_CLAIM,
    cluster::{Error, Live},
    domain::{Address, LostClaim},
    plan::Desired,
};

/// The label by which volumes name their nodes.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Claims of servers that no node takes, because their volumes are on nodes that don't exist any more. Volumes are read
/// only for such servers.
pub(super) async fn lost(
    context: &Context,
    desired: &Desired<'_>,
    live: &Live,
    nodes: &BTreeMap<String, Node>,
) -> Vec<(Address, LostClaim)> {
    let mut lost = Vec::new();
    for (pod, (_, address)) in desired.servers() {
        let waits = live
            .pods
            .iter()
            .any(|known| known.name_any() == pod && is_unscheduled(known));
        if !waits || nodes.is_empty() {
            continue;
        }
        match claim_of(context, &desired.cluster.names.namespace, &pod, nodes).await {
            Ok(claim) => lost.extend(claim.map(|claim| (address, claim))),
            Err(error) => tracing::warn!(pod, %error, "its volume can't be looked at"),
        }
    }
    lost
}

async fn claim_of(
    context: &Context,
    namespace: &str,
    pod: &str,
    nodes: &BTreeMap<String, Node>,
) -> Result<Option<LostClaim>, Error> {
    let name = format!("{DATA_CLAIM}-{pod}");
    let Some(claim) = context.cluster.read::<PersistentVolumeClaim>(namespace, &name).await? else {
        return Ok(None);
    };
    let is_leaving = claim.metadata.deletion_timestamp.is_some();
    let Some(volume) = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_ref())
        .filter(|_| !is_leaving)
    else {
        return Ok(None);
    };
    let Some(volume) = context.cluster.volume(volume).await? else {
        return Ok(None);
    };
    Ok(lost_node(&volume, nodes).map(|node| LostClaim {
        claim: name,
        uid: claim.uid().unwrap_or_default(),
        node,
    }))
}

fn is_unscheduled(pod: &Pod) -> bool {
    pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none())
}

/// The node that a volume can't do without, if no such node exists any more.
fn lost_node(volume: &PersistentVolume, nodes: &BTreeMap<String, Node>) -> Option<String> {
    let hosts = hosts_of(volume);
    let existing: BTreeSet<&str> = nodes
        .values()
        .filter_map(|node| node.labels().get(HOSTNAME))
        .map(String::as_str)
        .collect();
    let all_gone = hosts
        .iter()
        .all(|host| !existing.contains(host.as_str()) && !nodes.contains_key(host));
    hosts.first().filter(|_| all_gone).cloned()
}

/// The hosts that a volume can be used on; none: it isn't bound to hosts.
fn hosts_of(volume: &PersistentVolume) -> Vec<String> {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let terms = affinity
        .and_then(|affinity| affinity.required.as_ref())
        .map(|required| &required.node_selector_terms);
    let expressions = terms
        .into_iter()
        .flatten()
        .filter_map(|term| term.match_expressions.as_ref())
        .flatten();
    let of_hosts = expressions.filter(|expression| expression.key == HOSTNAME && expression.operator == "In");
    of_hosts
        .filter_map(|expression| expression.values.clone())
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(affinity: serde_json::Value) -> PersistentVolume {
        serde_json::from_value(serde_json::json!({ "spec": { "nodeAffinity": affinity } })).unwrap()
    }

    fn on(hosts: &[&str]) -> PersistentVolume {
        volume(
            serde_json::json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [
            { "key": HOSTNAME, "operator": "In", "values": hosts }] }] } }),
        )
    }

    #[test]
    fn a_volume_is_lost_when_none_of_its_hosts_exists() {
        let node = serde_json::from_value(serde_json::json!({ "metadata": { "labels": { HOSTNAME: "w1" } } })).unwrap();
        let nodes = BTreeMap::from([("node-1".to_owned(), node)]);
        assert_eq!(lost_node(&on(&["w2"]), &nodes).as_deref(), Some("w2"));
        assert_eq!(lost_node(&on(&["w2", "w1"]), &nodes), None);
        assert_eq!(
            lost_node(&volume(serde_json::Value::Null), &nodes),
            None,
            "a network volume"
        );
    }
}
