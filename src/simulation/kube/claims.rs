//! Claims and volumes: provisioned when they are asked for, or when the first pod that mounts them is placed.
//!
//! A class whose provisioner's name has `local` in it makes volumes that are on one node; all others make volumes that every
//! node can mount.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Kubernetes,
    object::{is_going, text, texts},
};

const PROTECTION: &str = "kubernetes.io/pvc-protection";
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

impl Kubernetes {
    pub(super) fn claims(&mut self) {
        let claims: Vec<_> = self.cache.all("PersistentVolumeClaim").values().cloned().collect();
        for claim in &claims {
            if is_going(claim) {
                self.let_go(claim);
            } else if text(claim, "/spec/volumeName").is_empty() {
                self.settle_claim(claim);
            }
        }
        let volumes: Vec<_> = self.cache.all("PersistentVolume").values().cloned().collect();
        volumes.iter().for_each(|volume| self.reclaim(volume));
    }

    /// A claim that is going stays while a pod mounts it.
    fn let_go(&mut self, claim: &Value) {
        let (namespace, name) = (text(claim, "/metadata/namespace"), text(claim, "/metadata/name"));
        let mut pods = self
            .cache
            .pods
            .values()
            .filter(|pod| pod.name.0 == namespace && !pod.is_over());
        let finalizers = texts(claim, "/metadata/finalizers");
        if finalizers.iter().any(|known| known == PROTECTION)
            && !pods.any(|pod| pod.claims.iter().any(|known| known == name))
        {
            let mut new = claim.clone();
            new["metadata"]["finalizers"] = finalizers.into_iter().filter(|known| known != PROTECTION).collect();
            self.api.replace(new);
        }
    }

    /// Gives a claim without a class the default one, and a volume to one whose class doesn't wait.
    fn settle_claim(&mut self, claim: &Value) {
        if claim["spec"].get("storageClassName").is_none() {
            let classes = self.cache.all("StorageClass").values();
            let is_default = |class: &&Arc<Value>| class["metadata"]["annotations"][DEFAULT] == "true";
            if let Some(class) = classes.into_iter().find(is_default) {
                let mut new = claim.clone();
                new["spec"]["storageClassName"] = class["metadata"]["name"].clone();
                self.api.replace(new);
            }
        } else if self.class_of(claim).is_some_and(|class| !waits(&class)) {
            self.provision(claim, None);
        }
    }

    fn class_of(&self, claim: &Value) -> Option<Arc<Value>> {
        self.cache
            .get("StorageClass", "", text(claim, "/spec/storageClassName"))
            .cloned()
    }

    /// Whether a claim gets its volume when its first pod is placed.
    pub(super) fn waits_for_pod(&self, claim: &Value) -> bool {
        self.class_of(claim).is_some_and(|class| waits(&class))
    }

    /// Makes a claim's volume and binds them to each other.
    pub(super) fn provision(&mut self, claim: &Value, node: Option<&str>) {
        let Some(class) = self.class_of(claim) else { return };
        let meta = &claim["metadata"];
        let name = format!("pvc-{}", text(claim, "/metadata/uid"));
        let capacity = json!({"storage": claim["spec"]["resources"]["requests"]["storage"]});
        let mut volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": class["provisioner"]}},
            "spec": {
                "capacity": capacity, "accessModes": claim["spec"]["accessModes"], "volumeMode": "Filesystem",
                "storageClassName": class["metadata"]["name"],
                "persistentVolumeReclaimPolicy": class.get("reclaimPolicy").unwrap_or(&json!("Delete")),
                "claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": meta["name"],
                    "namespace": meta["namespace"], "uid": meta["uid"],
                },
            },
        });
        if let Some(node) = node.filter(|_| text(&class, "/provisioner").contains("local")) {
            let on = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
            volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [on]}]}});
        }
        let Some(mut volume) = self.api.make("PersistentVolume", volume) else {
            return;
        };
        volume["status"] = json!({"phase": "Bound"});
        self.api.replace(volume);
        let mut claim = claim.clone();
        claim["spec"]["volumeName"] = json!(name);
        for mark in ["bind-completed", "bound-by-controller"] {
            claim["metadata"]["annotations"][format!("pv.kubernetes.io/{mark}")] = json!("yes");
        }
        if let Some(node) = node {
            claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = json!(node);
        }
        claim["status"] = json!({"phase": "Bound", "accessModes": claim["spec"]["accessModes"], "capacity": capacity});
        self.api.replace(claim);
    }

    /// A volume whose claim is gone goes too, or is kept for people.
    fn reclaim(&mut self, volume: &Value) {
        let of = &volume["spec"]["claimRef"];
        let (uid, phase) = (text(of, "/uid"), text(volume, "/status/phase"));
        if uid.is_empty() || self.cache.uids.contains(uid) {
            return;
        }
        if text(volume, "/spec/persistentVolumeReclaimPolicy") == "Delete" {
            let name = text(volume, "/metadata/name");
            if !is_going(volume) {
                self.runtime.delete_volume(name);
            }
            self.api.delete("PersistentVolume", "", name, Value::Null);
        } else if phase != "Released" {
            let mut new = volume.clone();
            new["status"]["phase"] = json!("Released");
            self.api.replace(new);
        }
    }
}

fn waits(class: &Value) -> bool {
    text(class, "/volumeBindingMode") == "WaitForFirstConsumer"
}
