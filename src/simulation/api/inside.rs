//! What the rest of the simulated Kubernetes does to the objects: without requests, and at no cost but that of the change.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    ApiServer,
    kinds::Kind,
    objects::{is_going, meta, text, texts},
    request::{Request, Subresource, Verb},
    store::Key,
};

/// How many changes are remembered: for watches, and for lists that are answered from an older state.
pub(super) const HISTORY: usize = 4096;

/// Who writes what controllers write.
const MANAGER: &str = "kube-controller-manager";

/// One write.
#[derive(Clone, Debug)]
pub(in crate::simulation) struct Change {
    pub version: u64,
    pub(super) key: Key,
    pub old: Option<Arc<Value>>,
    pub new: Option<Arc<Value>>,
}

impl Change {
    /// The kind of what changed.
    pub(in crate::simulation) fn kind(&self) -> &'static str {
        self.key.0.kind
    }

    /// Its namespace, empty for kinds without, and its name.
    pub(in crate::simulation) fn name(&self) -> (String, String) {
        (self.key.1.clone(), self.key.2.clone())
    }
}

fn request(verb: Verb, kind: Kind, namespace: &str, name: &str, body: Value) -> Request {
    Request {
        verb,
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: None,
        query: BTreeMap::from([("fieldManager".to_owned(), MANAGER.to_owned())]),
        body,
    }
}

impl ApiServer {
    /// The version of the last write.
    pub(in crate::simulation) fn version(&self) -> u64 {
        self.store().version
    }

    /// What was written after a version; `None` where that is forgotten.
    pub(in crate::simulation) fn changes_since(&self, version: u64) -> Option<Vec<Change>> {
        let store = self.store();
        let first = store.history.front().map_or(store.version, |change| change.version);
        let recent = store.history.iter().rev().take_while(|change| change.version > version);
        let mut recent: Vec<Change> = recent.cloned().collect();
        recent.reverse();
        (version + 1 >= first).then_some(recent)
    }

    /// Everything, as if it were made just now.
    pub(in crate::simulation) fn as_changes(&self) -> Vec<Change> {
        let store = self.store();
        let all = store.objects.iter();
        let made = |(key, object): (&Key, &Arc<Value>)| Change {
            version: store.version,
            key: key.clone(),
            old: None,
            new: Some(object.clone()),
        };
        all.map(made).collect()
    }

    /// All objects of a kind, by namespace and name.
    pub(in crate::simulation) fn of_kind(&self, kind: &str) -> Vec<Arc<Value>> {
        let store = self.store();
        let all = store.objects.iter().filter(|(key, _)| key.0.kind == kind);
        all.map(|(_, object)| object.clone()).collect()
    }

    /// An object, where it exists.
    pub(in crate::simulation) fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = (Kind::named(kind)?, namespace.to_owned(), name.to_owned());
        self.store().objects.get(&key).cloned()
    }

    /// Makes an object, as a controller does; `None` when the server refuses.
    pub(in crate::simulation) fn make(&self, kind: &str, object: Value) -> Option<Value> {
        let namespace = text(&object, "/metadata/namespace").to_owned();
        let request = request(Verb::Create, Kind::named(kind)?, &namespace, "", object);
        self.answer(&request).ok().map(|answer| answer.body)
    }

    /// Stores a changed object as it is: who manages what stays as it was. Says whether that changed anything.
    pub(in crate::simulation) fn replace(&self, mut object: Value) -> bool {
        let Some(kind) = Kind::named(text(&object, "/kind")) else {
            return false;
        };
        let (namespace, name) = (text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        let key = (kind, namespace.to_owned(), name.to_owned());
        let mut store = self.store();
        let Some(old) = store.objects.get(&key) else {
            return false;
        };
        if **old == object || text(old, "/metadata/uid") != text(&object, "/metadata/uid") {
            return false;
        }
        if kind.counted && kind.kind != "Pod" && old.get("spec") != object.get("spec") {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object["metadata"]["generation"] = json!(generation);
        }
        let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        let is_done = is_going(&object) && texts(&object, "/metadata/finalizers").is_empty() && grace == 0;
        let version = store.next_version();
        meta(&mut object).insert("resourceVersion".to_owned(), json!(version));
        store.write(key, (!is_done).then_some(object));
        true
    }

    /// Asks for an object's end, with these `DeleteOptions`.
    pub(in crate::simulation) fn delete(&self, kind: &str, namespace: &str, name: &str, options: Value) {
        if let Some(kind) = Kind::named(kind) {
            // It may be gone already.
            drop(self.answer(&request(Verb::Delete, kind, namespace, name, options)));
        }
    }
}

impl ApiServer {
    /// Sets an object's replicas, as by its subresource `scale`.
    pub(in crate::simulation) fn set_scale(&self, kind: &str, namespace: &str, name: &str, replicas: i64) {
        if let Some(kind) = Kind::named(kind) {
            let body = json!({"spec": {"replicas": replicas}});
            let mut request = request(Verb::MergePatch, kind, namespace, name, body);
            request.subresource = Some(Subresource::Scale);
            drop(self.answer(&request));
        }
    }
}
