//! The StatefulSet controller: which pods are made and deleted, in which order; and the status.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Kubernetes,
    cache::Pod,
    object::{after, controller_of, hash_of, is_going, number, selects, text},
    stateful_pods,
};

/// A StatefulSet, as the controller sees it.
struct Set<'s> {
    raw: &'s Value,
    replicas: usize,
    is_ordered: bool,
    /// For how many seconds a pod must be ready to be available.
    settles: i64,
    current: &'s str,
    update: &'s str,
}

impl Set<'_> {
    fn name(&self) -> &str {
        text(self.raw, "/metadata/name")
    }

    fn ordinal(&self, pod: &Pod) -> Option<usize> {
        pod.name.1.strip_prefix(self.name())?.strip_prefix('-')?.parse().ok()
    }

    /// The revision of a pod that is to be made now.
    fn revision_of(&self, ordinal: usize) -> &str {
        let partition = number(self.raw, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
        if (ordinal as i64) < partition {
            self.current
        } else {
            self.update
        }
    }
}

/// The revision of a pod.
fn revision(pod: &Pod) -> &str {
    text(&pod.raw, "/metadata/labels/controller-revision-hash")
}

impl Kubernetes {
    /// Those of these uids, or all.
    pub(super) fn stateful_sets(&mut self, some: Option<&BTreeSet<String>>) {
        let sets: Vec<_> = self.cache.all("StatefulSet").values().cloned().collect();
        for raw in sets {
            if some.is_none_or(|some| some.contains(text(&raw, "/metadata/uid"))) {
                self.stateful_set(&raw);
            }
        }
    }

    fn stateful_set(&mut self, raw: &Value) {
        let uid = text(raw, "/metadata/uid");
        let update = self.update_revision(raw, uid);
        let current = match text(raw, "/status/currentRevision") {
            "" => update.clone(),
            known => known.to_owned(),
        };
        let set = Set {
            raw,
            replicas: number(raw, "/spec/replicas")
                .and_then(|count| count.try_into().ok())
                .unwrap_or(1),
            is_ordered: text(raw, "/spec/podManagementPolicy") != "Parallel",
            settles: number(raw, "/spec/minReadySeconds").unwrap_or(0),
            current: &current,
            update: &update,
        };
        let mut pods: Vec<(usize, Pod)> = self
            .cache
            .pods_of(uid)
            .filter_map(|pod| Some((set.ordinal(pod)?, pod.clone())))
            .collect();
        pods.sort_by_key(|(ordinal, _)| *ordinal);
        self.wake_when_available(&set, &pods);
        if !is_going(raw) {
            self.adopt(&set);
            self.retain_claims(raw, &pods, set.replicas);
            self.manage(&set, &pods);
        }
        self.stateful_set_status(&set, &pods);
    }

    /// Takes pods of its names that nobody controls, as those of a set that was deleted without them.
    fn adopt(&self, set: &Set<'_>) {
        let selector = &set.raw["spec"]["selector"];
        let is_its_own = |pod: &&Pod| {
            let is_free = pod.owner.is_empty() && !pod.is_going;
            is_free && pod.name.0 == text(set.raw, "/metadata/namespace") && set.ordinal(pod).is_some()
        };
        let free = self.cache.pods.values().filter(is_its_own);
        for pod in free.filter(|pod| selects(selector, pod.labels())) {
            let mut new = (*pod.raw).clone();
            new["metadata"]["ownerReferences"] = json!([controller_of(set.raw)]);
            self.api.replace(new);
        }
    }

    /// The revision of the template as it is now, which is remembered.
    fn update_revision(&mut self, raw: &Value, uid: &str) -> String {
        let template = &raw["spec"]["template"];
        // What was hashed once isn't hashed again: this is asked often.
        let known = text(raw, "/status/updateRevision");
        if self.templates.get(&(uid.to_owned(), known.to_owned())) == Some(template) {
            return known.to_owned();
        }
        let revision = format!("{}-{}", text(raw, "/metadata/name"), hash_of(template));
        let key = (uid.to_owned(), revision.clone());
        self.templates.entry(key).or_insert_with(|| template.clone());
        revision
    }

    fn wake_when_available(&mut self, set: &Set<'_>, pods: &[(usize, Pod)]) {
        if set.settles > 0 {
            let since = pods
                .iter()
                .filter(|(_, pod)| pod.is_ready)
                .filter_map(|(_, pod)| pod.ready_since);
            let now = self.now;
            let due = since.map(|since| after(since, set.settles)).filter(|due| *due > now);
            self.due.extend(due);
        }
    }

    /// Makes what is missing, deletes what is too much, and replaces what is old: in order, if that is asked.
    fn manage(&mut self, set: &Set<'_>, pods: &[(usize, Pod)]) {
        let now = self.now;
        let is_up = |pod: &Pod| pod.phase == "Running" && pod.is_available(set.settles, now);
        for ordinal in 0..set.replicas {
            let pod = pods.iter().find(|(known, _)| *known == ordinal).map(|(_, pod)| pod);
            let is_settled = match pod {
                None => {
                    self.make_stateful_pod(set, ordinal);
                    false
                }
                Some(pod) if pod.is_over() && !pod.is_going => {
                    self.delete_pod(&pod.name);
                    false
                }
                Some(pod) => {
                    if pod.phase == "Pending" {
                        self.make_claims(set.raw, ordinal);
                    }
                    !pod.is_going && is_up(pod)
                }
            };
            if !is_settled && set.is_ordered {
                return;
            }
        }
        let condemned: Vec<&Pod> = pods
            .iter()
            .rev()
            .filter(|(known, _)| *known >= set.replicas)
            .map(|(_, pod)| pod)
            .collect();
        for pod in condemned {
            if !pod.is_going {
                self.delete_pod(&pod.name);
            }
            if set.is_ordered {
                return;
            }
        }
        if text(set.raw, "/spec/updateStrategy/type") != "OnDelete" {
            self.roll(set, pods, is_up);
        }
    }

    /// Deletes the last pod of an older revision, when all after it are up.
    fn roll(&mut self, set: &Set<'_>, pods: &[(usize, Pod)], is_up: impl Fn(&Pod) -> bool) {
        for ordinal in (0..set.replicas).rev() {
            let partition = number(set.raw, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
            let pod = pods.iter().find(|(known, _)| *known == ordinal).map(|(_, pod)| pod);
            let Some(pod) = pod.filter(|_| ordinal as i64 >= partition) else {
                return;
            };
            if !pod.is_going && revision(pod) != set.update {
                return self.delete_pod(&pod.name);
            }
            if pod.is_going || !is_up(pod) {
                return;
            }
        }
    }

    fn make_stateful_pod(&mut self, set: &Set<'_>, ordinal: usize) {
        self.make_claims(set.raw, ordinal);
        let revision = set.revision_of(ordinal);
        let key = (text(set.raw, "/metadata/uid").to_owned(), revision.to_owned());
        let template = self.templates.get(&key).unwrap_or(&set.raw["spec"]["template"]);
        let pod = stateful_pods::pod(set.raw, template, revision, ordinal);
        // Somebody else's pod of that name is in the way until it goes.
        drop(self.api.make("Pod", pod));
    }

    fn make_claims(&mut self, raw: &Value, ordinal: usize) {
        for claim in stateful_pods::claims(raw, ordinal) {
            let (namespace, name) = (text(&claim, "/metadata/namespace"), text(&claim, "/metadata/name"));
            if self.api.find("PersistentVolumeClaim", namespace, name).is_none() {
                drop(self.api.make("PersistentVolumeClaim", claim));
            }
        }
    }

    /// A controller deletes a pod, with its own time to end.
    pub(super) fn delete_pod(&mut self, (namespace, name): &super::Name) {
        self.api.delete("Pod", namespace, name, Value::Null);
    }

    fn stateful_set_status(&mut self, set: &Set<'_>, pods: &[(usize, Pod)]) {
        let count = |counts: &dyn Fn(&Pod) -> bool| pods.iter().filter(|(_, pod)| counts(pod)).count();
        let is_of = |wished: &str, pod: &Pod| !pod.is_going && revision(pod) == wished;
        let is_up = |pod: &Pod| pod.phase == "Running" && pod.is_ready;
        let (ready, updated) = (count(&is_up), count(&|pod| is_of(set.update, pod)));
        let is_rolled = text(set.raw, "/spec/updateStrategy/type") == "RollingUpdate"
            && [pods.len(), ready, updated] == [set.replicas; 3];
        let current = if is_rolled { set.update } else { set.current };
        let mut status = json!({
            "observedGeneration": set.raw["metadata"]["generation"],
            "replicas": pods.len(), "currentRevision": current, "updateRevision": set.update, "collisionCount": 0,
            "availableReplicas": count(&|pod| is_up(pod) && pod.is_available(set.settles, self.now)),
        });
        let counted = [
            ("readyReplicas", ready),
            ("currentReplicas", count(&|pod| is_of(current, pod))),
            ("updatedReplicas", updated),
        ];
        for (field, count) in counted.into_iter().filter(|(_, count)| *count > 0) {
            status[field] = json!(count);
        }
        self.set_status(set.raw, status);
    }

    /// Writes the status of an object, if it is another one.
    pub(super) fn set_status(&mut self, raw: &Value, status: Value) {
        if raw["status"] != status {
            let (kind, namespace) = (text(raw, "/kind"), text(raw, "/metadata/namespace"));
            let latest = self.api.find(kind, namespace, text(raw, "/metadata/name"));
            if let Some(latest) = latest {
                let mut new = Value::clone(&latest);
                new["status"] = status;
                self.api.replace(new);
            }
        }
    }

    /// When a claim goes with its StatefulSet or with its pod, that owns it.
    fn retain_claims(&mut self, raw: &Value, pods: &[(usize, Pod)], replicas: usize) {
        let goes = |when: &str| raw["spec"]["persistentVolumeClaimRetentionPolicy"][when] == "Delete";
        let (deleted, scaled) = (goes("whenDeleted"), goes("whenScaled"));
        if !deleted && !scaled {
            return;
        }
        for (ordinal, pod) in pods {
            let mut owners = Vec::new();
            if scaled && *ordinal >= replicas {
                let meta = &pod.raw["metadata"];
                owners.push(json!({"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}));
            } else if deleted {
                owners.push(super::object::controller_of(raw));
            }
            for claim in stateful_pods::claims(raw, *ordinal) {
                let (namespace, name) = (text(&claim, "/metadata/namespace"), text(&claim, "/metadata/name"));
                let Some(found) = self.api.find("PersistentVolumeClaim", namespace, name) else {
                    continue;
                };
                let mut new = Value::clone(&found);
                match owners.is_empty() {
                    true => drop(
                        new["metadata"]
                            .as_object_mut()
                            .map(|meta| meta.remove("ownerReferences")),
                    ),
                    false => new["metadata"]["ownerReferences"] = json!(owners),
                }
                self.api.replace(new);
            }
        }
    }
}
