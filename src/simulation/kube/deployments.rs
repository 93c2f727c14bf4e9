//! The Deployment controller.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Kubernetes,
    object::{controller_of, controller_uid, hash_of, is_going, number, part_of, set_condition, text},
};

const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

fn replicas(raw: &Value) -> i64 {
    number(raw, "/spec/replicas").unwrap_or(1)
}

fn counted(raw: &Value, field: &str) -> i64 {
    raw["status"][field].as_i64().unwrap_or(0)
}

fn total(all: &[Arc<Value>], count: impl Fn(&Value) -> i64) -> i64 {
    all.iter().map(|set| count(set)).sum()
}

impl Kubernetes {
    pub(super) fn deployments(&mut self) {
        let all: Vec<_> = self.cache.all("Deployment").values().cloned().collect();
        for raw in all {
            self.deployment(&raw);
        }
    }

    fn deployment(&mut self, raw: &Value) {
        let uid = text(raw, "/metadata/uid");
        let sets = self.cache.all("ReplicaSet").values();
        let sets: Vec<Arc<Value>> = sets.filter(|set| controller_uid(set) == uid).cloned().collect();
        if is_going(raw) {
            return;
        }
        let hash = self.template_hash(raw, uid);
        let is_new = |set: &Arc<Value>| text(set, "/metadata/labels/pod-template-hash") == hash;
        let (new, old): (Vec<_>, Vec<_>) = sets.into_iter().partition(is_new);
        let Some(new) = new.first() else {
            let wished = self.for_new(raw, 0, &old);
            self.make_replica_set(raw, &hash, &old, wished);
            return self.deployment_status(raw, None, &old);
        };
        if text(raw, "/spec/strategy/type") == "Recreate" {
            self.recreate(raw, new, &old);
        } else {
            self.roll_deployment(raw, new, &old);
        }
        self.forget_old(raw, &old);
        self.deployment_status(raw, Some(new), &old);
    }

    fn template_hash(&mut self, raw: &Value, uid: &str) -> String {
        let template = &raw["spec"]["template"];
        let latest = (uid.to_owned(), "latest".to_owned());
        let name = (uid.to_owned(), "hash".to_owned());
        if self.templates.get(&latest) != Some(template) {
            self.templates.insert(name.clone(), json!(hash_of(template)));
            self.templates.insert(latest, template.clone());
        }
        self.templates
            .get(&name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }

    /// How many pods there may be more, and how many less, than wished.
    fn slack(raw: &Value) -> (i64, i64) {
        let rolling = &raw["spec"]["strategy"]["rollingUpdate"];
        let surge = part_of(&rolling["maxSurge"], replicas(raw), true);
        match part_of(&rolling["maxUnavailable"], replicas(raw), false) {
            0 if surge == 0 => (0, 1),
            unavailable => (surge, unavailable),
        }
    }

    /// The size of the new ReplicaSet that has `has` pods.
    fn for_new(&self, raw: &Value, has: i64, old: &[Arc<Value>]) -> i64 {
        let wished = replicas(raw);
        let others = total(old, replicas);
        if text(raw, "/spec/strategy/type") == "Recreate" {
            let is_free = old
                .iter()
                .all(|set| self.cache.pods_of(text(set, "/metadata/uid")).next().is_none());
            return if others == 0 && is_free { wished } else { has };
        }
        if has >= wished {
            return wished;
        }
        let room = wished + Self::slack(raw).0 - others - has;
        has + room.clamp(0, wished - has)
    }

    fn make_replica_set(&mut self, raw: &Value, hash: &str, old: &[Arc<Value>], wished: i64) {
        let last = old
            .iter()
            .filter_map(|set| set["metadata"]["annotations"][REVISION].as_str()?.parse::<i64>().ok());
        let revision = (last.max().unwrap_or(0) + 1).to_string();
        let mut template = raw["spec"]["template"].clone();
        template["metadata"]["labels"][HASH] = json!(hash);
        let mut selector = raw["spec"]["selector"].clone();
        selector["matchLabels"][HASH] = json!(hash);
        let mut annotations = raw["metadata"]["annotations"].clone();
        annotations[REVISION] = json!(revision);
        let set = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": format!("{}-{hash}", text(raw, "/metadata/name")), "namespace": raw["metadata"]["namespace"],
                "labels": template["metadata"]["labels"], "annotations": annotations,
                "ownerReferences": [controller_of(raw)],
            },
            "spec": {
                "replicas": wished, "selector": selector, "template": template,
                "minReadySeconds": raw["spec"]["minReadySeconds"].as_i64().unwrap_or(0),
            },
        });
        drop(self.api.make("ReplicaSet", set));
        if raw["metadata"]["annotations"][REVISION] != revision {
            let mut raw = raw.clone();
            raw["metadata"]["annotations"][REVISION] = json!(revision);
            self.api.replace(raw);
        }
    }

    fn resize(&mut self, set: &Value, wished: i64) {
        if replicas(set) != wished {
            let mut set = set.clone();
            set["spec"]["replicas"] = json!(wished);
            self.api.replace(set);
        }
    }

    fn recreate(&mut self, raw: &Value, new: &Value, old: &[Arc<Value>]) {
        old.iter().for_each(|set| self.resize(set, 0));
        let wished = self.for_new(raw, replicas(new), old);
        self.resize(new, wished);
    }

    fn roll_deployment(&mut self, raw: &Value, new: &Value, old: &[Arc<Value>]) {
        let wished = self.for_new(raw, replicas(new), old);
        if wished != replicas(new) {
            return self.resize(new, wished);
        }
        let least = replicas(raw) - Self::slack(raw).1;
        let missing = replicas(new) - counted(new, "availableReplicas");
        let may_go = total(old, replicas) + replicas(new) - least - missing;
        // Those that don't serve go first, and don't count.
        for set in old {
            let broken = replicas(set) - counted(set, "availableReplicas");
            let goes = broken.min(may_go).max(0);
            if goes > 0 {
                self.resize(set, replicas(set) - goes);
                return;
            }
        }
        let available = total(old, |set| counted(set, "availableReplicas")) + counted(new, "availableReplicas");
        let mut goes = may_go.min(available - least);
        for set in old {
            let some = goes.min(replicas(set)).max(0);
            self.resize(set, replicas(set) - some);
            goes -= some;
        }
    }

    /// ReplicaSets without pods are kept as far as the history goes.
    fn forget_old(&mut self, raw: &Value, old: &[Arc<Value>]) {
        let kept = number(raw, "/spec/revisionHistoryLimit")
            .and_then(|limit| limit.try_into().ok())
            .unwrap_or(10);
        let mut empty: Vec<_> = old
            .iter()
            .filter(|set| replicas(set) == 0 && counted(set, "replicas") == 0)
            .collect();
        empty.sort_by_key(|set| {
            set["metadata"]["annotations"][REVISION]
                .as_str()
                .and_then(|text| text.parse::<i64>().ok())
        });
        for set in empty.iter().take(empty.len().saturating_sub(kept)) {
            let (namespace, name) = (text(set, "/metadata/namespace"), text(set, "/metadata/name"));
            self.api.delete("ReplicaSet", namespace, name, Value::Null);
        }
    }

    fn deployment_status(&mut self, raw: &Value, new: Option<&Arc<Value>>, old: &[Arc<Value>]) {
        let all: Vec<Arc<Value>> = old.iter().chain(new).cloned().collect();
        let of = |field: &str| total(&all, |set| counted(set, field));
        let (pods, available) = (of("replicas"), of("availableReplicas"));
        let updated = new.map_or(0, |set| counted(set, "replicas"));
        let mut status = json!({"observedGeneration": raw["metadata"]["generation"]});
        let sizes = [
            ("replicas", pods),
            ("updatedReplicas", updated),
            ("readyReplicas", of("readyReplicas")),
            ("availableReplicas", available),
            ("unavailableReplicas", (total(&all, replicas) - available).max(0)),
        ];
        for (field, count) in sizes.into_iter().filter(|(_, count)| *count > 0) {
            status[field] = json!(count);
        }
        let mut conditions = super::object::list(raw, "/status/conditions").to_vec();
        let is_up = available >= replicas(raw) - Self::slack(raw).1;
        let (is, reason, message) = match is_up {
            true => (
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
            ),
            false => (
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            ),
        };
        let new = json!({"type": "Available", "status": is, "reason": reason, "message": message});
        set_condition(&mut conditions, new, &self.stamp);
        let is_done = [updated, pods, available] == [replicas(raw); 3];
        let reason = if is_done {
            "NewReplicaSetAvailable"
        } else {
            "ReplicaSetUpdated"
        };
        let new = json!({"type": "Progressing", "status": "True", "reason": reason});
        set_condition(&mut conditions, new, &self.stamp);
        status["conditions"] = json!(conditions);
        self.set_status(raw, status);
    }
}
