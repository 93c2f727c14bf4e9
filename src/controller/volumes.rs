//! Volumes that went with their nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;

use super::{Context, nodes};
use crate::{
    build::DATA_CLAIM,
    cluster::{Error, Live},
    domain::{Address, LostClaim},
    plan::Desired,
};

/// Claims of servers, and of the dashboard, that no node takes, because their volumes are on nodes that don't exist any more.
/// Volumes are read only for such pods.
pub(super) async fn lost(
    context: &Context,
    desired: &Desired<'_>,
    live: &Live,
    nodes: &BTreeMap<String, Node>,
) -> Vec<(Address, LostClaim)> {
    let mut lost = Vec::new();
    let dashboard = format!("{}-0", desired.cluster.names.dashboard());
    let servers = desired.servers().map(|(pod, (_, address))| (pod, address));
    for (pod, address) in servers.chain([(dashboard, desired.addresses.dashboard.clone())]) {
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
    Ok(lost_node(&volume, nodes).map(|(node, may_return)| LostClaim {
        claim: name,
        uid: claim.uid().unwrap_or_default(),
        node,
        may_return,
    }))
}

fn is_unscheduled(pod: &Pod) -> bool {
    pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none())
}

/// The node that a volume can't do without, if every such node is gone or out of service; and whether one of them may
/// come back, because its object still exists.
fn lost_node(volume: &PersistentVolume, nodes: &BTreeMap<String, Node>) -> Option<(String, bool)> {
    let hosts = hosts_of(volume)?;
    let found = |(key, host): &(String, String)| {
        let is_it = |node: &&Node| node.labels().get(key) == Some(host) || node.name_any() == *host;
        nodes.values().find(is_it)
    };
    let found: Vec<&Node> = hosts.iter().filter_map(found).collect();
    let away = found.iter().all(|node| nodes::is_out_of_service(node));
    let (_, host) = hosts.into_iter().next().filter(|_| away)?;
    Some((found.first().map_or(host, |node| node.name_any()), !found.is_empty()))
}

/// The hosts that a volume can be used on, with the labels by which it names them; none: it can be used elsewhere too.
fn hosts_of(volume: &PersistentVolume) -> Option<Vec<(String, String)>> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required.as_ref()?.node_selector_terms;
    let mut hosts = Vec::new();
    // Any one term is enough for a node: each of them must name hosts.
    for term in terms {
        let mut expressions = term.match_expressions.iter().flatten();
        let of_hosts = expressions.find(|expression| names_hosts(&expression.key) && expression.operator == "In")?;
        let values = of_hosts.values.iter().flatten();
        hosts.extend(values.map(|host| (of_hosts.key.clone(), host.clone())));
    }
    (!hosts.is_empty()).then_some(hosts)
}

/// Whether a label names one node: the kubelet's own, or a CSI driver's for volumes on a node's disks.
fn names_hosts(key: &str) -> bool {
    ["/hostname", "/node", "/nodename"].iter().any(|end| key.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTNAME: &str = "kubernetes.io/hostname";

    fn volume(affinity: serde_json::Value) -> PersistentVolume {
        serde_json::from_value(serde_json::json!({ "spec": { "nodeAffinity": affinity } })).unwrap()
    }

    fn on(key: &str, hosts: &[&str]) -> serde_json::Value {
        serde_json::json!({ "matchExpressions": [{ "key": key, "operator": "In", "values": hosts }] })
    }

    fn bound_to(terms: &[serde_json::Value]) -> PersistentVolume {
        volume(serde_json::json!({ "required": { "nodeSelectorTerms": terms } }))
    }

    fn nodes(more: serde_json::Value) -> BTreeMap<String, Node> {
        let mut node = serde_json::json!({ "metadata": { "name": "node-1", "labels": { HOSTNAME: "w1" } } });
        node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        BTreeMap::from([("node-1".to_owned(), serde_json::from_value(node).unwrap())])
    }

    #[test]
    fn a_volume_is_lost_when_none_of_its_hosts_exists() {
        let nodes = nodes(serde_json::json!({}));
        let zone = || on("topology.kubernetes.io/zone", &["z9"]);
        let gone = |host: &str| Some((host.to_owned(), false));
        let cases = [
            ("its host is gone", vec![on(HOSTNAME, &["w2"])], gone("w2")),
            ("one of its hosts is there", vec![on(HOSTNAME, &["w2", "w1"])], None),
            (
                "a CSI driver's label",
                vec![on("topology.topolvm.io/node", &["node-2"])],
                gone("node-2"),
            ),
            (
                "and one by the node's name",
                vec![on("topology.topolvm.io/node", &["node-1"])],
                None,
            ),
            ("a zone may get nodes again", vec![zone()], None),
            (
                "it can be used elsewhere too",
                vec![on(HOSTNAME, &["w2"]), zone()],
                None,
            ),
        ];
        for (what, terms, expected) in cases {
            assert_eq!(lost_node(&bound_to(&terms), &nodes), expected, "{what}");
        }
        let anywhere = volume(serde_json::Value::Null);
        assert_eq!(lost_node(&anywhere, &nodes), None, "a network volume");
    }

    #[test]
    fn a_volume_on_a_node_out_of_service_may_come_back() {
        let nodes = nodes(serde_json::json!({
            "spec": { "taints": [{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" }] },
            "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] },
        }));
        let lost = lost_node(&bound_to(&[on(HOSTNAME, &["w1"])]), &nodes);
        assert_eq!(lost, Some(("node-1".to_owned(), true)));
    }
}
