//! PodDisruptionBudgets: how many pods may be evicted now.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    Kubernetes,
    cache::Pod,
    object::{Name, after, controller_uid, number, part_of, selects, set_condition, text, time},
};

/// For how many seconds an eviction counts whose pod isn't deleted.
const FORGOTTEN: i64 = 120;

impl Kubernetes {
    /// These budgets, or all.
    pub(super) fn budgets(&mut self, some: Option<&BTreeSet<Name>>) {
        let all = self.cache.all("PodDisruptionBudget").iter();
        let asked = all.filter(|(name, _)| some.is_none_or(|some| some.contains(name)));
        let asked: Vec<_> = asked.map(|(name, raw)| (name.0.clone(), raw.clone())).collect();
        for (namespace, raw) in asked {
            self.budget(&namespace, &raw);
        }
    }

    fn budget(&mut self, namespace: &str, raw: &Value) {
        let selector = &raw["spec"]["selector"];
        let near = self
            .cache
            .pods
            .values()
            .filter(|pod| pod.name.0 == namespace && selects(selector, pod.labels()));
        let pods: Vec<&Pod> = near.collect();
        let (expected, desired) = self.bounds(raw, &pods);
        let evicted = self.still_evicted(raw, &pods);
        let healthy = |pod: &&&Pod| pod.is_ready && !pod.is_going && !evicted.contains_key(&pod.name.1);
        let current = count(pods.iter().filter(healthy).count());
        let allowed = if expected > 0 { (current - desired).max(0) } else { 0 };
        let (is, reason) = match allowed > 0 {
            true => ("True", "SufficientPods"),
            false => ("False", "InsufficientPods"),
        };
        let mut conditions = super::object::list(raw, "/status/conditions").to_vec();
        let generation = raw["metadata"]["generation"].clone();
        let new = json!({
            "type": "DisruptionAllowed", "status": is, "reason": reason, "message": "", "observedGeneration": generation,
        });
        set_condition(&mut conditions, new, &self.stamp);
        let mut status = json!({
            "observedGeneration": generation, "currentHealthy": current, "desiredHealthy": desired,
            "expectedPods": expected, "disruptionsAllowed": allowed, "conditions": conditions,
        });
        if !evicted.is_empty() {
            status["disruptedPods"] = json!(evicted);
        }
        self.set_status(raw, status);
    }

    /// How many pods there should be, and how many must be healthy.
    fn bounds(&self, raw: &Value, pods: &[&Pod]) -> (i64, i64) {
        if let Some(most) = raw["spec"].get("maxUnavailable") {
            let expected = self.scale_of(pods);
            return (expected, (expected - part_of(most, expected, true)).max(0));
        }
        match &raw["spec"]["minAvailable"] {
            Value::String(part) => {
                let expected = self.scale_of(pods);
                (expected, part_of(&json!(part), expected, true))
            }
            least => (count(pods.len()), least.as_i64().unwrap_or(0)),
        }
    }

    /// The sizes of all controllers of these pods together.
    fn scale_of(&self, pods: &[&Pod]) -> i64 {
        let owners: BTreeSet<&str> = pods.iter().map(|pod| pod.owner.as_str()).collect();
        let sizes = owners.into_iter().map(|uid| {
            let by_uid = |kind: &str, uid: &str| {
                let mut all = self.cache.all(kind).values();
                all.find(|object| text(object, "/metadata/uid") == uid).cloned()
            };
            let set = by_uid("ReplicaSet", uid);
            let owner = match &set {
                Some(set) => by_uid("Deployment", controller_uid(set)).or_else(|| set.clone().into()),
                None => by_uid("StatefulSet", uid),
            };
            owner.and_then(|owner| number(&owner, "/spec/replicas")).unwrap_or(0)
        });
        sizes.sum()
    }

    /// The pods whose eviction was granted, and that aren't marked for deletion yet.
    fn still_evicted(&self, raw: &Value, pods: &[&Pod]) -> Map<String, Value> {
        let known = raw["status"]["disruptedPods"].as_object().into_iter().flatten();
        let still = known.filter(|(name, at)| {
            let is_fresh = time(at, "").is_some_and(|at| after(at, FORGOTTEN) > self.now);
            is_fresh && pods.iter().any(|pod| pod.name.1 == **name && !pod.is_going)
        });
        still.map(|(name, at)| (name.clone(), at.clone())).collect()
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
