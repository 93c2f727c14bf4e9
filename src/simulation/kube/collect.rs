//! The garbage collector: what has no owner any more goes, and what is deleted in the foreground goes after what it owns.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{
    Kubernetes,
    object::{is_going, list, text, texts},
};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

impl Kubernetes {
    pub(super) fn collect(&mut self) {
        let all: Vec<Arc<Value>> = self
            .api
            .as_changes()
            .into_iter()
            .filter_map(|change| change.new)
            .collect();
        let waiting: Vec<&Arc<Value>> = all.iter().filter(|object| is_going(object)).collect();
        let with = |finalizer: &str| -> BTreeSet<&str> {
            let those = waiting.iter().filter(|object| {
                texts(object, "/metadata/finalizers")
                    .iter()
                    .any(|known| known == finalizer)
            });
            those.map(|object| text(object, "/metadata/uid")).collect()
        };
        let (orphaning, foreground) = (with(ORPHAN), with(FOREGROUND));
        for object in &all {
            let owners = list(object, "/metadata/ownerReferences");
            if !owners.is_empty() {
                self.judge(object, owners, &orphaning, &foreground);
            }
        }
        for object in waiting {
            let uid = text(object, "/metadata/uid");
            let blocks = |other: &Arc<Value>| {
                let mut owners = list(other, "/metadata/ownerReferences").iter();
                owners.any(|owner| text(owner, "/uid") == uid && owner["blockOwnerDeletion"] == true)
            };
            if orphaning.contains(uid) {
                self.without_finalizer(object, ORPHAN);
            } else if foreground.contains(uid) && !all.iter().any(blocks) {
                self.without_finalizer(object, FOREGROUND);
            }
        }
    }

    fn judge(&mut self, object: &Value, owners: &[Value], orphaning: &BTreeSet<&str>, foreground: &BTreeSet<&str>) {
        let uid = |owner: &Value| text(owner, "/uid").to_owned();
        let there = |owner: &&Value| {
            let uid = uid(owner);
            self.cache.uids.contains(&uid) && !orphaning.contains(uid.as_str())
        };
        let is_solid = |owner: &&Value| !foreground.contains(uid(owner).as_str());
        let left: Vec<Value> = owners.iter().filter(there).cloned().collect();
        let is_orphaned = owners.iter().any(|owner| orphaning.contains(uid(owner).as_str()));
        let solid = left.iter().filter(is_solid).count();
        if solid > 0 || is_orphaned {
            if left.len() < owners.len() {
                let mut new = object.clone();
                match left.is_empty() {
                    true => drop(
                        new["metadata"]
                            .as_object_mut()
                            .map(|meta| meta.remove("ownerReferences")),
                    ),
                    false => new["metadata"]["ownerReferences"] = json!(left),
                }
                self.api.replace(new);
            }
        } else if !is_going(object) {
            let policy = if left.is_empty() { "Background" } else { "Foreground" };
            let (kind, namespace) = (text(object, "/kind"), text(object, "/metadata/namespace"));
            let options = json!({"propagationPolicy": policy, "preconditions": {"uid": object["metadata"]["uid"]}});
            self.api
                .delete(kind, namespace, text(object, "/metadata/name"), options);
        }
    }

    fn without_finalizer(&mut self, object: &Value, finalizer: &str) {
        let mut new = object.clone();
        let left = texts(object, "/metadata/finalizers")
            .into_iter()
            .filter(|known| known != finalizer);
        new["metadata"]["finalizers"] = left.collect();
        self.api.replace(new);
    }
}
