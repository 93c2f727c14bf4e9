//! Nodes: whether they are heard, and what becomes of the pods of those that aren't.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Kubernetes, Node,
    object::{after, list, set_condition, text},
    schedule::covers,
};

/// After so many seconds without a word a node is taken for lost.
const GRACE: i64 = 40;

/// A machine.
#[derive(Clone, Debug)]
pub(super) struct NodeState {
    pub ip: String,
    /// Whether it has no power.
    pub is_down: bool,
    /// Whether its kubelet does nothing.
    pub is_frozen: bool,
    /// Since when it isn't heard.
    silent_since: Option<Timestamp>,
    /// Since when it is taken for lost.
    lost_since: Option<Timestamp>,
    /// When the next of its pods is evicted.
    evicts: Option<Timestamp>,
}

impl NodeState {
    /// Whether its kubelet works.
    pub(super) fn works(&self) -> bool {
        !self.is_down && !self.is_frozen
    }

    /// When something is to be done about it.
    pub(super) fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let lost = self
            .silent_since
            .filter(|_| self.lost_since.is_none())
            .map(|since| after(since, GRACE));
        [lost, self.evicts].into_iter().flatten().filter(|due| *due > now).min()
    }
}

impl Kubernetes {
    pub(super) fn add_node(&mut self, index: usize, node: &Node) {
        let ip = format!("172.18.0.{}", index + 2);
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node.name, "labels": {
                "kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": node.zone,
            }},
            "spec": {"providerID": format!("simulated://{}", node.name)},
        });
        let state = NodeState {
            ip: ip.clone(),
            is_down: false,
            is_frozen: false,
            silent_since: None,
            lost_since: None,
            evicts: None,
        };
        self.nodes.insert(node.name.clone(), state);
        let Some(mut object) = self.api.make("Node", object) else {
            return;
        };
        let room = json!({"cpu": "16", "memory": "64Gi", "pods": "110"});
        let address = |kind: &str, address: &str| json!({"type": kind, "address": address});
        object["status"] = json!({
            "addresses": [address("InternalIP", &ip), address("Hostname", &node.name)],
            "allocatable": room, "capacity": room,
        });
        self.api.replace(object);
        self.tell_node(&node.name, "True", "KubeletReady", "kubelet is posting ready status");
    }

    fn tell_node(&mut self, name: &str, status: &str, reason: &str, message: &str) {
        let Some(node) = self.api.find("Node", "", name) else {
            return;
        };
        let mut node = Value::clone(&node);
        let mut conditions = list(&node, "/status/conditions").to_vec();
        let new = json!({
            "type": "Ready", "status": status, "reason": reason, "message": message, "lastHeartbeatTime": self.stamp,
        });
        set_condition(&mut conditions, new, &self.stamp);
        node["status"]["conditions"] = json!(conditions);
        self.api.replace(node);
    }

    /// The power of a node goes, and comes back: its processes are gone then, its disk isn't.
    pub fn node_down(&mut self, node: &str, down: bool) {
        let Some(state) = self.nodes.get_mut(node) else {
            return;
        };
        if state.is_down != down {
            state.is_down = down;
            self.heard_or_not(node);
            if down {
                self.power_off(node);
            }
        }
    }

    /// A node's kubelet stops to do anything, and goes on. What runs there runs on.
    pub fn kubelet_frozen(&mut self, node: &str, frozen: bool) {
        if let Some(state) = self.nodes.get_mut(node) {
            state.is_frozen = frozen;
            self.heard_or_not(node);
        }
    }

    /// Takes no new pods on a node, or takes them again.
    pub fn cordon(&mut self, node: &str, cordoned: bool) {
        if let Some(found) = self.api.find("Node", "", node) {
            let mut new = Value::clone(&found);
            match cordoned {
                true => new["spec"]["unschedulable"] = json!(true),
                false => drop(new["spec"].as_object_mut().map(|spec| spec.remove("unschedulable"))),
            }
            self.api.replace(new);
        }
    }

    fn heard_or_not(&mut self, node: &str) {
        let now = self.api.now();
        if let Some(state) = self.nodes.get_mut(node) {
            state.silent_since = match state.works() {
                true => None,
                false => state.silent_since.or(Some(now)),
            };
        }
    }

    /// What is due for nodes: they are taken for lost and found again, and their pods are evicted.
    pub(super) fn watch_nodes(&mut self) {
        let now = self.now;
        let names: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, state)| {
                let is_silent = state.silent_since.is_some_and(|since| after(since, GRACE) <= now);
                is_silent != state.lost_since.is_some() || state.evicts.is_some_and(|at| at <= now)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            let Some(state) = self.nodes.get_mut(&name) else {
                continue;
            };
            match (state.silent_since, state.lost_since) {
                (Some(_), None) => {
                    state.lost_since = Some(now);
                    self.lose_node(&name);
                }
                (None, Some(_)) => {
                    (state.lost_since, state.evicts) = (None, None);
                    self.tell_node(&name, "True", "KubeletReady", "kubelet is posting ready status");
                    self.doubt_pods(&name);
                }
                _ => {}
            }
            self.evict_lost(&name);
        }
    }

    fn lose_node(&mut self, name: &str) {
        self.tell_node(
            name,
            "Unknown",
            "NodeStatusUnknown",
            "Kubelet stopped posting node status.",
        );
        let here: Vec<Value> = self
            .cache
            .pods
            .values()
            .filter(|pod| pod.node == name && pod.is_ready)
            .map(|pod| Value::clone(&pod.raw))
            .collect();
        for mut pod in here {
            let mut conditions = list(&pod, "/status/conditions").to_vec();
            let new =
                json!({"type": "Ready", "status": "False", "reason": "NodeNotReady", "message": "Node is not ready"});
            set_condition(&mut conditions, new, &self.stamp);
            pod["status"]["conditions"] = json!(conditions);
            self.api.replace(pod);
        }
    }

    /// Marks the pods of a lost node for deletion that don't tolerate its taint, or not for longer.
    fn evict_lost(&mut self, name: &str) {
        let (now, Some(since)) = (self.now, self.nodes.get(name).and_then(|state| state.lost_since)) else {
            return;
        };
        let taint = unreachable("NoExecute");
        let mut next = None;
        let here = self.cache.pods.values().filter(|pod| pod.node == name && !pod.is_going);
        let mut goes = Vec::new();
        for pod in here {
            let covering = list(&pod.raw, "/spec/tolerations")
                .iter()
                .filter(|known| covers(known, &taint));
            let terms: Vec<Option<i64>> = covering.map(|known| known["tolerationSeconds"].as_i64()).collect();
            let at = match terms.iter().flatten().min() {
                _ if terms.is_empty() => since,
                Some(seconds) => after(since, (*seconds).max(0)),
                None => continue,
            };
            if at <= now {
                goes.push(pod.name.clone());
            } else {
                next = Some(next.map_or(at, |next: Timestamp| next.min(at)));
            }
        }
        goes.iter().for_each(|pod| self.delete_pod(pod));
        if let Some(state) = self.nodes.get_mut(name) {
            state.evicts = next;
        }
    }

    /// The taints of all nodes, as they are cordoned and heard.
    pub(super) fn taint_nodes(&mut self) {
        let nodes: Vec<_> = self.cache.all("Node").values().cloned().collect();
        for node in nodes {
            let own = |taint: &&Value| {
                let key = text(taint, "/key");
                !["unschedulable", "unreachable"]
                    .iter()
                    .any(|known| key == format!("node.kubernetes.io/{known}"))
            };
            let mut taints: Vec<Value> = list(&node, "/spec/taints").iter().filter(own).cloned().collect();
            if node["spec"]["unschedulable"] == true {
                taints.push(json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}));
            }
            let lost = self
                .nodes
                .get(text(&node, "/metadata/name"))
                .and_then(|state| state.lost_since);
            if let Some(since) = lost {
                taints.push(unreachable("NoSchedule"));
                let mut evicting = unreachable("NoExecute");
                evicting["timeAdded"] = json!(super::object::seconds(since));
                taints.push(evicting);
            }
            let mut new = Value::clone(&node);
            match taints.is_empty() {
                true => drop(new["spec"].as_object_mut().map(|spec| spec.remove("taints"))),
                false => new["spec"]["taints"] = json!(taints),
            }
            self.api.replace(new);
        }
    }
}

fn unreachable(effect: &str) -> Value {
    json!({"key": "node.kubernetes.io/unreachable", "effect": effect})
}
