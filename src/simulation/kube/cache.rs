//! What the controllers know of the objects: kept up with every change, as informers do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::object::{Name, condition, controller_uid, is_going, list, selects, text, time};
use crate::simulation::api::{ApiServer, Change};

/// A pod, with what is asked most.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub raw: Arc<Value>,
    pub name: Name,
    pub uid: String,
    /// Empty before it is scheduled.
    pub node: String,
    pub ip: String,
    pub phase: String,
    /// The uid of its controller.
    pub owner: String,
    /// The claims that it mounts, by name.
    pub claims: Vec<String>,
    pub is_ready: bool,
    pub ready_since: Option<Timestamp>,
    pub is_going: bool,
}

impl Pod {
    fn read(raw: &Arc<Value>, name: Name) -> Self {
        let ready = list(raw, "/status/conditions")
            .iter()
            .find(|known| known["type"] == "Ready");
        let volumes = list(raw, "/spec/volumes").iter();
        let claims = volumes.map(|volume| text(volume, "/persistentVolumeClaim/claimName"));
        Self {
            name,
            uid: text(raw, "/metadata/uid").to_owned(),
            node: text(raw, "/spec/nodeName").to_owned(),
            ip: text(raw, "/status/podIP").to_owned(),
            phase: text(raw, "/status/phase").to_owned(),
            owner: controller_uid(raw).to_owned(),
            claims: claims.filter(|claim| !claim.is_empty()).map(str::to_owned).collect(),
            is_ready: condition(raw, "Ready") == "True",
            ready_since: ready.and_then(|ready| time(ready, "/lastTransitionTime")),
            is_going: is_going(raw),
            raw: raw.clone(),
        }
    }

    pub(super) fn labels(&self) -> &Value {
        &self.raw["metadata"]["labels"]
    }

    /// Whether it has ended and won't begin again.
    pub(super) fn is_over(&self) -> bool {
        ["Succeeded", "Failed"].contains(&self.phase.as_str())
    }

    /// Whether its readiness is so many seconds old.
    pub(super) fn is_available(&self, seconds: i64, now: Timestamp) -> bool {
        let since = self.ready_since.map(|since| super::object::after(since, seconds));
        self.is_ready && (seconds == 0 || since.is_some_and(|since| since <= now))
    }

    /// Whether what others see of it is the same.
    fn looks_like(&self, other: &Self) -> bool {
        let seen = |pod: &Self| {
            (
                pod.is_ready,
                pod.is_going,
                pod.phase.clone(),
                pod.ip.clone(),
                pod.node.clone(),
            )
        };
        seen(self) == seen(other) && self.labels() == other.labels() && self.owner == other.owner
    }
}

/// All objects of a kind.
pub(super) type Kinds = BTreeMap<Name, Arc<Value>>;

/// What the controllers know, and what of it is new to them.
#[derive(Default)]
pub(super) struct Cache {
    version: u64,
    pub pods: BTreeMap<Name, Pod>,
    kinds: BTreeMap<&'static str, Kinds>,
    pub uids: BTreeSet<String>,
    pub news: News,
}

/// What changed since the controllers last looked.
#[derive(Default)]
pub(super) struct News {
    /// Kinds of which something changed, pods by what others see of them.
    pub kinds: BTreeSet<&'static str>,
    /// Controllers that changed, or whose pods did, by uid.
    pub owners: BTreeSet<String>,
    /// Whether a controller's spec changed.
    pub sizes: bool,
    /// Pods of which anything changed.
    pub pods: BTreeSet<Name>,
    /// Services and budgets whose pods changed, and themselves.
    pub services: BTreeSet<Name>,
    pub budgets: BTreeSet<Name>,
    /// Whether objects went, or are going, of which others may depend.
    pub garbage: bool,
}

static EMPTY: Kinds = Kinds::new();

impl Cache {
    /// The last version that it knows.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// All objects of a kind other than pods.
    pub(super) fn all(&self, kind: &str) -> &Kinds {
        self.kinds.get(kind).unwrap_or(&EMPTY)
    }

    pub(super) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.all(kind).get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The pods of a controller, by name.
    pub(super) fn pods_of<'c>(&'c self, uid: &'c str) -> impl Iterator<Item = &'c Pod> {
        self.pods.values().filter(move |pod| pod.owner == uid)
    }

    /// Takes note of all changes; says whether there were any.
    pub(super) fn refresh(&mut self, api: &ApiServer) -> bool {
        let version = api.version();
        if version == self.version {
            return false;
        }
        let changes = api.changes_since(self.version).unwrap_or_else(|| {
            (self.pods, self.kinds, self.uids) = Default::default();
            api.as_changes()
        });
        self.version = version;
        for change in &changes {
            self.take(change);
        }
        true
    }

    fn take(&mut self, change: &Change) {
        let (kind, name) = (change.kind(), change.name());
        self.garbage(change);
        if kind == "Pod" {
            return self.take_pod(name, change.new.as_ref());
        }
        self.news.kinds.insert(kind);
        match kind {
            "StatefulSet" | "ReplicaSet" | "Deployment" => self.take_owner(change),
            "Service" => drop(self.news.services.insert(name.clone())),
            "PodDisruptionBudget" => drop(self.news.budgets.insert(name.clone())),
            _ => {}
        }
        let all = self.kinds.entry(kind).or_default();
        match &change.new {
            Some(new) => drop(all.insert(name, new.clone())),
            None => drop(all.remove(&name)),
        }
    }

    fn take_owner(&mut self, change: &Change) {
        let generation =
            |object: &Option<Arc<Value>>| object.as_ref().map(|object| object["metadata"]["generation"].clone());
        self.news.sizes |= generation(&change.old) != generation(&change.new);
        let uid = change
            .new
            .as_ref()
            .map(|object| text(object, "/metadata/uid").to_owned());
        self.news.owners.extend(uid);
    }

    fn garbage(&mut self, change: &Change) {
        let uid = |object: &Arc<Value>| text(object, "/metadata/uid").to_owned();
        match (&change.old, &change.new) {
            (_, Some(new)) => {
                self.uids.insert(uid(new));
                let is_new = change.old.is_none() && new["metadata"].get("ownerReferences").is_some();
                self.news.garbage |= is_new || is_going(new);
            }
            (Some(old), None) => {
                self.uids.remove(&uid(old));
                self.news.garbage = true;
            }
            (None, None) => {}
        }
    }

    fn take_pod(&mut self, name: Name, new: Option<&Arc<Value>>) {
        let new = new.map(|new| Pod::read(new, name.clone()));
        let old = match new.clone() {
            Some(new) => self.pods.insert(name.clone(), new),
            None => self.pods.remove(&name),
        };
        self.news.pods.insert(name);
        if let (Some(old), Some(new)) = (&old, &new)
            && old.looks_like(new)
        {
            return;
        }
        self.news.kinds.insert("Pod");
        for pod in [old, new].iter().flatten() {
            self.news.owners.insert(pod.owner.clone());
            let of = |kind: &str, selected: fn(&Value, &Value) -> bool| -> Vec<Name> {
                let near = self
                    .all(kind)
                    .iter()
                    .filter(|((namespace, _), _)| *namespace == pod.name.0);
                let near = near.filter(|(_, object)| selected(&object["spec"]["selector"], pod.labels()));
                near.map(|(name, _)| name.clone()).collect()
            };
            let services = of("Service", super::object::has_all);
            let budgets = of("PodDisruptionBudget", selects);
            self.news.services.extend(services);
            self.news.budgets.extend(budgets);
        }
    }
}
