//! The ReplicaSet controller.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Kubernetes,
    cache::Pod,
    object::{after, is_going, number, text},
    stateful_pods::from_template,
};

impl Kubernetes {
    /// Those of these uids, or all.
    pub(super) fn replica_sets(&mut self, some: Option<&BTreeSet<String>>) {
        let sets: Vec<_> = self.cache.all("ReplicaSet").values().cloned().collect();
        let is_asked = |uid: &str| some.is_none_or(|some| some.contains(uid));
        for cached in sets.iter().filter(|set| is_asked(text(set, "/metadata/uid"))) {
            // A Deployment may have scaled it just now.
            let name = text(cached, "/metadata/name");
            if let Some(raw) = self.api.find("ReplicaSet", text(cached, "/metadata/namespace"), name) {
                self.replica_set(&raw);
            }
        }
    }

    fn replica_set(&mut self, raw: &Value) {
        let uid = text(raw, "/metadata/uid");
        let settles = number(raw, "/spec/minReadySeconds").unwrap_or(0);
        let all: Vec<Pod> = self.cache.pods_of(uid).cloned().collect();
        let (now, ready) = (self.now, all.iter().filter(|pod| pod.is_ready));
        let since = ready
            .filter_map(|pod| pod.ready_since)
            .map(|since| after(since, settles));
        self.due.extend(since.filter(|due| settles > 0 && *due > now));
        let mut active: Vec<&Pod> = all.iter().filter(|pod| !pod.is_going && !pod.is_over()).collect();
        if !is_going(raw) {
            let wished = number(raw, "/spec/replicas")
                .and_then(|count| count.try_into().ok())
                .unwrap_or(1);
            for _ in active.len()..wished {
                let mut pod = from_template(raw, &raw["spec"]["template"]);
                pod["metadata"]["generateName"] = json!(format!("{}-", text(raw, "/metadata/name")));
                drop(self.api.make("Pod", pod));
            }
            // Those that do least go first, then the youngest.
            let rank = |pod: &Pod| {
                let is_pending = pod.phase != "Running";
                (!pod.node.is_empty(), !is_pending, pod.is_ready)
            };
            let made = |pod: &Pod| text(&pod.raw, "/metadata/creationTimestamp").to_owned();
            active
                .sort_by(|one, other| (rank(one), made(other), &one.name).cmp(&(rank(other), made(one), &other.name)));
            for pod in active.iter().take(active.len().saturating_sub(wished)) {
                self.delete_pod(&pod.name);
            }
        }
        self.replica_set_status(raw, &active, settles);
    }

    fn replica_set_status(&mut self, raw: &Value, active: &[&Pod], settles: i64) {
        let mut status = json!({
            "observedGeneration": raw["metadata"]["generation"], "replicas": active.len(),
        });
        let now = self.now;
        let counted = [
            ("fullyLabeledReplicas", active.len()),
            ("readyReplicas", active.iter().filter(|pod| pod.is_ready).count()),
            (
                "availableReplicas",
                active.iter().filter(|pod| pod.is_available(settles, now)).count(),
            ),
        ];
        for (field, count) in counted.into_iter().filter(|(_, count)| *count > 0) {
            status[field] = json!(count);
        }
        self.set_status(raw, status);
    }
}
