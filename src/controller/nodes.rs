//! What Kubernetes says of the nodes and of the pods on them, and what that proves.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus, Node, NodeCondition, Pod, Taint, Toleration},
    jiff::Timestamp,
};
use kube::ResourceExt;

use crate::{cluster::Live, domain::NodeView, plan::GONE_AFTER, validate::Placement};

/// Taints by which kubectl, the Cluster Autoscaler, Karpenter and cloud providers say that a node is to be emptied.
const LEAVING: [&str; 6] = [
    "node.kubernetes.io/unschedulable",
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "node.cloudprovider.kubernetes.io/shutdown",
    OUT_OF_SERVICE,
];
/// The word that nothing runs there any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The label that a StatefulSet's controller puts on its pods: the template that they are of.
const REVISION: &str = "controller-revision-hash";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The nodes, as `plan` sees them.
pub(super) fn views(nodes: &BTreeMap<String, Node>, now: Timestamp) -> BTreeMap<String, NodeView> {
    nodes
        .iter()
        .map(|(name, node)| (name.clone(), view(node, now)))
        .collect()
}

/// How many nodes may take pods of this placement, now.
pub(super) fn room_for(placement: &Placement, nodes: &BTreeMap<String, Node>) -> usize {
    let tolerations = placement.tolerations.as_deref().unwrap_or_default();
    let keeps_off = |taint: &Taint| {
        taint.effect != "PreferNoSchedule" && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
    };
    let takes = |node: &&Node| {
        let spec = node.spec.clone().unwrap_or_default();
        let mut selector = placement.node_selector.iter().flatten();
        !spec.unschedulable.unwrap_or(false)
            && !spec.taints.iter().flatten().any(keeps_off)
            && selector.all(|(key, value)| node.labels().get(key) == Some(value))
    };
    nodes.values().filter(takes).count()
}

/// As the scheduler reads tolerations.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_for = |wished: &Option<String>, is: &str| wished.as_deref().is_none_or(|w| w.is_empty() || w == is);
    let has_value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
    };
    is_for(&toleration.effect, &taint.effect) && is_for(&toleration.key, &taint.key) && has_value
}

/// The nodes that pods name and that aren't there, where nodes can be seen at all.
pub(super) fn missing(live: &Live, views: &BTreeMap<String, NodeView>) -> BTreeSet<String> {
    let named = live.pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone());
    named
        .filter(|name| !views.is_empty() && !views.contains_key(name))
        .collect()
}

fn view(node: &Node, now: Timestamp) -> NodeView {
    let spec = node.spec.clone().unwrap_or_default();
    let taints: Vec<Taint> = spec.taints.unwrap_or_default();
    let cordoned = spec.unschedulable.unwrap_or(false).then(|| "is cordoned".to_owned());
    let tainted = taints.iter().find(|taint| LEAVING.contains(&taint.key.as_str()));
    NodeView {
        leaving: cordoned.or_else(|| tainted.map(|taint| format!("has the taint {}", taint.key))),
        silent_for: silent_for(node, now),
        gone_for: None,
        out_of_service: is_out_of_service(node),
        zone: node.labels().get(ZONE).cloned(),
    }
}

/// Somebody's word that nothing runs there any more. As Kubernetes reads it: beside a kubelet that is heard the word is
/// wrong, and what runs there ends in its time.
pub(super) fn is_out_of_service(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    unready(node).is_some() && taints.any(|taint| taint.key == OUT_OF_SERVICE)
}

/// The word that a node isn't ready.
fn unready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    ready.filter(|ready| ready.status != "True")
}

/// For how many seconds its kubelet hasn't said that it is well.
fn silent_for(node: &Node, now: Timestamp) -> Option<u64> {
    let ready = unready(node)?;
    let since = ready.last_transition_time.as_ref()?;
    u64::try_from(now.duration_since(since.0).as_secs()).ok()
}

/// Proof that no process of a pod runs: its kubelet says so, and is heard; or its node is gone for good. A pod that was
/// never given to a node, or never ran there, has none; but another one of its name may have been deleted by force and
/// run on a node that isn't heard.
pub(super) fn is_proven_gone(pod: &Pod, nodes: &BTreeMap<String, NodeView>) -> bool {
    let is_certain = |node: &NodeView| node.gone_for.is_none_or(|seconds| seconds >= GONE_AFTER);
    let is_heard = |node: &NodeView| node.silent_for.is_none() && is_certain(node) || node.out_of_service;
    let all_heard = !nodes.is_empty() && nodes.values().all(is_heard);
    let Some(name) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) else {
        return all_heard;
    };
    match nodes.get(name) {
        None => false,
        Some(node) if node.out_of_service => true,
        Some(NodeView {
            gone_for: Some(seconds),
            ..
        }) => *seconds >= GONE_AFTER,
        Some(node) if node.silent_for.is_some() => false,
        Some(_) => {
            let statuses = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_deref());
            let all_stopped = statuses.is_some_and(|all| !all.is_empty() && all.iter().all(is_stopped));
            let any_ran = statuses.is_some_and(|all| all.iter().any(has_run));
            all_stopped && (any_ran || all_heard)
        }
    }
}

fn is_stopped(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    state.is_some_and(|state| state.running.is_none() && (state.waiting.is_some() || state.terminated.is_some()))
}

fn has_run(status: &ContainerStatus) -> bool {
    let ended = |state: Option<&ContainerState>| state.is_some_and(|state| state.terminated.is_some());
    status.restart_count > 0 || ended(status.state.as_ref()) || ended(status.last_state.as_ref())
}

/// Whether a pod is of another template than the one that its StatefulSet has now.
pub(super) fn is_outdated(pod: &Pod, live: &Live) -> bool {
    let owner = pod
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));
    let Some(set) = owner.and_then(|owner| live.stateful_sets.get(&owner.name)) else {
        return false;
    };
    let status = set.status.clone().unwrap_or_default();
    // Until its controller has seen the change, it doesn't know the new revision.
    let is_seen = status.observed_generation == set.metadata.generation;
    is_seen && status.update_revision.is_some() && pod.labels().get(REVISION) != status.update_revision.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: serde_json::Value) -> NodeView {
        view(
            &serde_json::from_value(value).unwrap(),
            "2026-01-01T00:10:00Z".parse().unwrap(),
        )
    }

    fn pod(node: Option<&str>, state: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "spec": { "nodeName": node, "containers": [] },
            "status": { "containerStatuses": [{ "name": "server", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": { state: {} } }] }
        }))
        .unwrap()
    }

    #[test]
    fn a_node_leaves_when_it_is_cordoned_or_tainted_for_removal() {
        assert_eq!(node(serde_json::json!({ "spec": {} })).leaving, None);
        assert!(
            node(serde_json::json!({ "spec": { "unschedulable": true } }))
                .leaving
                .is_some()
        );
        for key in LEAVING {
            let taints = serde_json::json!([{ "key": key, "effect": "NoSchedule" }]);
            assert!(
                node(serde_json::json!({ "spec": { "taints": taints } }))
                    .leaving
                    .is_some(),
                "{key}"
            );
        }
        let other = serde_json::json!([{ "key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule" }]);
        assert_eq!(node(serde_json::json!({ "spec": { "taints": other } })).leaving, None);
    }

    #[test]
    fn a_node_is_silent_since_its_kubelet_was_last_well() {
        let with = |status: &str| {
            let ready = serde_json::json!([{ "type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:09:00Z" }]);
            node(serde_json::json!({ "status": { "conditions": ready } })).silent_for
        };
        assert_eq!(
            (with("True"), with("Unknown"), with("False")),
            (None, Some(60), Some(60))
        );
    }

    #[test]
    fn only_nodes_that_take_the_servers_count_as_room_for_them() {
        use serde_json::json;
        let placement = |tolerations, selector| Placement {
            tolerations: serde_json::from_value(tolerations).unwrap(),
            node_selector: serde_json::from_value(selector).unwrap(),
            ..Placement::default()
        };
        let room = |placement: &Placement, specs: &[serde_json::Value]| {
            let node = |spec| json!({ "metadata": { "labels": { "disk": "ssd" } }, "spec": spec });
            let nodes = specs.iter().map(|spec| serde_json::from_value(node(spec)).unwrap());
            room_for(placement, &(0..).map(|n: u8| n.to_string()).zip(nodes).collect())
        };
        let tainted = json!({ "taints": [{ "key": "dedicated", "value": "codis", "effect": "NoSchedule" }] });
        let specs = [json!({}), json!({ "unschedulable": true }), tainted];
        let tolerates = |key: &str, value: &str| json!([{ "key": key, "operator": "Equal", "value": value }]);
        let none = || json!(null);
        assert_eq!(room(&placement(none(), none()), &specs), 1);
        assert_eq!(room(&placement(tolerates("dedicated", "codis"), none()), &specs), 2);
        assert_eq!(room(&placement(tolerates("dedicated", "other"), none()), &specs), 1);
        assert_eq!(room(&placement(json!([{ "operator": "Exists" }]), none()), &specs), 2);
        assert_eq!(room(&placement(none(), json!({ "disk": "tape" })), &specs), 0);
    }

    #[test]
    fn the_word_that_a_node_is_out_of_service_counts_only_while_it_is_not_heard() {
        let with = |status: &str| {
            node(serde_json::json!({
                "spec": { "taints": [{ "key": OUT_OF_SERVICE, "effect": "NoExecute" }] },
                "status": { "conditions": [{ "type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:09:00Z" }] },
            }))
        };
        assert!(with("Unknown").out_of_service);
        assert!(!with("True").out_of_service, "two dashboards could run");
    }

    #[test]
    fn only_the_kubelets_word_or_a_node_that_is_gone_proves_that_a_process_is() {
        let heard = NodeView::default();
        let silent = NodeView {
            silent_for: Some(900),
            ..NodeView::default()
        };
        let nodes = BTreeMap::from([("heard".to_owned(), heard), ("silent".to_owned(), silent)]);
        assert!(is_proven_gone(&pod(Some("heard"), "terminated"), &nodes));
        assert!(!is_proven_gone(&pod(Some("heard"), "running"), &nodes));
        assert!(
            !is_proven_gone(&pod(Some("silent"), "terminated"), &nodes),
            "an old word"
        );
        let gone = |seconds| NodeView {
            gone_for: Some(seconds),
            ..NodeView::default()
        };
        let with = |seconds| BTreeMap::from([("gone".to_owned(), gone(seconds))]);
        assert!(is_proven_gone(&pod(Some("gone"), "running"), &with(GONE_AFTER)));
        assert!(
            !is_proven_gone(&pod(Some("gone"), "running"), &with(1)),
            "it may be too new to be seen"
        );
        assert!(
            !is_proven_gone(&pod(Some("gone"), "running"), &BTreeMap::new()),
            "nodes can't be seen"
        );
        assert!(
            !is_proven_gone(&pod(Some("heard"), "waiting"), &nodes),
            "it never ran there: one of its name may run on the silent node"
        );
        assert!(
            !is_proven_gone(&pod(None, "waiting"), &nodes),
            "one of its name may run on the silent node"
        );
    }
}
