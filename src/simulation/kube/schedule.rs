//! The scheduler: on which node a pod runs.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Kubernetes,
    cache::Pod,
    object::{list, meets, selects, set_condition, text},
};

/// A pod that is to be placed, and what it asks of nodes.
pub(super) struct Placement<'p> {
    pub pod: &'p Pod,
    /// All pods that are somewhere.
    pub placed: &'p [Pod],
    pub nodes: &'p [Arc<Value>],
}

impl Kubernetes {
    pub(super) fn schedule(&mut self) {
        let waiting = self
            .cache
            .pods
            .values()
            .filter(|pod| pod.node.is_empty() && !pod.is_going && !pod.is_over());
        let mut waiting: Vec<Pod> = waiting.cloned().collect();
        if waiting.is_empty() {
            return;
        }
        waiting.sort_by_cached_key(|pod| text(&pod.raw, "/metadata/creationTimestamp").to_owned());
        let nodes: Vec<Arc<Value>> = self.cache.all("Node").values().cloned().collect();
        let mut placed: Vec<Pod> = self
            .cache
            .pods
            .values()
            .filter(|pod| !pod.node.is_empty())
            .cloned()
            .collect();
        for mut pod in waiting {
            match self.place(&pod, &placed, &nodes) {
                Ok(node) => {
                    self.bind(&pod, &node);
                    text(&node, "/metadata/name").clone_into(&mut pod.node);
                    placed.push(pod);
                }
                Err(why) => self.cannot_place(&pod, &why),
            }
        }
    }

    fn place(&mut self, pod: &Pod, placed: &[Pod], nodes: &[Arc<Value>]) -> Result<Arc<Value>, String> {
        let volumes = self.volumes_of(pod)?;
        let placement = Placement { pod, placed, nodes };
        let fits = |node: &&Arc<Value>| {
            let may = |volume: &Arc<Value>| in_terms(&volume["spec"]["nodeAffinity"]["required"], node);
            placement.allows(node) && volumes.iter().all(may)
        };
        let fitting: Vec<&Arc<Value>> = nodes.iter().filter(fits).collect();
        let scores: Vec<i64> = fitting.iter().map(|node| placement.score(node)).collect();
        let best: Vec<&Arc<Value>> = fitting
            .iter()
            .zip(&scores)
            .filter(|(_, score)| Some(*score) == scores.iter().max())
            .map(|(node, _)| *node)
            .collect();
        if best.is_empty() {
            return Err(format!("0/{} nodes are available.", nodes.len()));
        }
        // Equals are taken by chance, as the real one does.
        let chosen = self.chance(0, best.len() as i64) as usize;
        Ok(best[chosen].clone())
    }

    /// The volumes that a pod's claims have already.
    fn volumes_of(&self, pod: &Pod) -> Result<Vec<Arc<Value>>, String> {
        let mut volumes = Vec::new();
        for name in &pod.claims {
            let claim = self.api.find("PersistentVolumeClaim", &pod.name.0, name);
            let claim = claim.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
            if claim["metadata"].get("deletionTimestamp").is_some() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            match text(&claim, "/spec/volumeName") {
                "" if self.waits_for_pod(&claim) => {}
                "" => return Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
                volume => volumes.extend(self.api.find("PersistentVolume", "", volume)),
            }
        }
        Ok(volumes)
    }

    fn bind(&mut self, pod: &Pod, node: &Value) {
        let name = text(node, "/metadata/name");
        for claim in &pod.claims {
            let claim = self.api.find("PersistentVolumeClaim", &pod.name.0, claim);
            if let Some(claim) = claim.filter(|claim| text(claim, "/spec/volumeName").is_empty()) {
                self.provision(&claim, Some(name));
            }
        }
        let mut new = Value::clone(&pod.raw);
        new["spec"]["nodeName"] = json!(name);
        // As Kubernetes 1.35 does.
        for label in ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"] {
            if let Some(value) = node["metadata"]["labels"].get(label) {
                new["metadata"]["labels"][label] = value.clone();
            }
        }
        self.set_scheduled(new, json!({"type": "PodScheduled", "status": "True"}));
    }

    fn cannot_place(&mut self, pod: &Pod, why: &str) {
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why});
        self.set_scheduled(Value::clone(&pod.raw), condition);
    }

    fn set_scheduled(&mut self, mut pod: Value, condition: Value) {
        let mut conditions = list(&pod, "/status/conditions").to_vec();
        set_condition(&mut conditions, condition, &self.stamp);
        pod["status"]["conditions"] = json!(conditions);
        self.api.replace(pod);
    }
}

impl Placement<'_> {
    fn spec(&self) -> &Value {
        &self.pod.raw["spec"]
    }

    /// Whether nothing that the pod requires speaks against a node.
    fn allows(&self, node: &Value) -> bool {
        let spec = self.spec();
        let tolerates = |taint: &Value| {
            list(spec, "/tolerations")
                .iter()
                .any(|toleration| covers(toleration, taint))
        };
        let keeps_out = |taint: &&Value| ["NoSchedule", "NoExecute"].contains(&text(taint, "/effect"));
        let taints = list(node, "/spec/taints").iter().filter(keeps_out);
        let is_marked = super::object::has_all(&spec["nodeSelector"], &node["metadata"]["labels"]);
        let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        { taints }.all(tolerates)
            && is_marked
            && in_terms(required, node)
            && self.may_be_near(node)
            && self.spreads(node)
    }

    /// How good a node is: what is preferred, and few pods.
    fn score(&self, node: &Value) -> i64 {
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        let wishes = list(&self.spec()["affinity"]["nodeAffinity"], &format!("/{preferred}")).iter();
        let met = wishes.filter(|wish| in_term(&wish["preference"], node));
        let of_node: i64 = met.filter_map(|wish| wish["weight"].as_i64()).sum();
        let name = text(node, "/metadata/name");
        let here = self.placed.iter().filter(|pod| pod.node == name).count();
        let here = i64::try_from(here).unwrap_or(i64::MAX);
        (of_node + self.near_wished(node)) * 100 - self.crowd(node) * 20 - here
    }
}

/// Whether a toleration covers a taint.
pub(super) fn covers(toleration: &Value, taint: &Value) -> bool {
    let is_any = |field: &str| text(toleration, field).is_empty();
    let key = is_any("/key") || toleration["key"] == taint["key"];
    let effect = is_any("/effect") || toleration["effect"] == taint["effect"];
    let value = text(toleration, "/operator") == "Exists" || text(toleration, "/value") == text(taint, "/value");
    key && effect && value
}

/// Whether a node is in one of the terms of a node selector; without one, every node is.
fn in_terms(selector: &Value, node: &Value) -> bool {
    let terms = list(selector, "/nodeSelectorTerms");
    selector.is_null() || terms.iter().any(|term| in_term(term, node))
}

fn in_term(term: &Value, node: &Value) -> bool {
    let labels = list(term, "/matchExpressions")
        .iter()
        .all(|rule| meets(rule, &node["metadata"]["labels"]));
    labels
        && list(term, "/matchFields")
            .iter()
            .all(|rule| meets(rule, &json!({"metadata.name": node["metadata"]["name"]})))
}

/// Whether a term of pod affinity is about a pod.
pub(super) fn is_about(term: &Value, namespace: &str, pod: &Pod) -> bool {
    let namespaces = list(term, "/namespaces");
    let is_near = match namespaces {
        [] => pod.name.0 == namespace,
        some => some.iter().any(|known| *known == pod.name.0),
    };
    is_near && selects(&term["labelSelector"], pod.labels())
}
