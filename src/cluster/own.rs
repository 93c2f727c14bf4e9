//! What is written about a CodisCluster itself: status, finalizer, events; and the storage classes it can name.

use k8s_openapi::{api::storage::v1::StorageClass, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::json;

use super::{CALL_TIMEOUT, Call, Cluster, Error, Object, bounded, live::key_of};
use crate::api::{CodisCluster, CodisClusterStatus, names};

/// The API server's limit for an event's note, in bytes.
const NOTE_LIMIT: usize = 1024;

/// How often a status is tried while others change the object.
const STATUS_ATTEMPTS: usize = 4;

/// Marks the storage class of claims that name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Nothing to worry about.
    Normal,
    /// Worth a look.
    Warning,
}

impl Cluster {
    /// Writes the status, if it differs from the one `cluster` was read with. Returns whether it was written.
    ///
    /// # Errors
    /// [`Error::Gone`] or [`Error::Conflict`] when the cluster was deleted or made anew, and what the server refuses.
    pub async fn patch_status(&self, cluster: &CodisCluster, status: &CodisClusterStatus) -> Result<bool, Error> {
        // Where the spec comes from is the Git sources' part of the status: it is neither compared nor sent.
        let own = |status: &CodisClusterStatus| CodisClusterStatus {
            gitops: None,
            ..status.clone()
        };
        let status = &own(status);
        if cluster.status.as_ref().map(own).as_ref() == Some(status) {
            return Ok(false);
        }
        let (namespace, name) = key_of(cluster)?;
        let mut version = cluster.resource_version();
        for _ in 1..STATUS_ATTEMPTS {
            match self.patch_status_at(cluster, status, version).await {
                // The spec or a finalizer changed since, or another cluster has the name now.
                Err(conflict @ Error::Conflict { .. }) => {
                    let found = self
                        .get(namespace, name)
                        .await?
                        .filter(|found| found.uid() == cluster.uid());
                    version = found.ok_or(conflict)?.resource_version();
                }
                other => return other.map(|()| true),
            }
        }
        self.patch_status_at(cluster, status, version).await.map(|()| true)
    }

    /// The API server ignores a uid here, so the version keeps the status of a deleted cluster off one of the same name
    /// that was made since.
    async fn patch_status_at(
        &self,
        cluster: &CodisCluster,
        status: &CodisClusterStatus,
        version: Option<String>,
    ) -> Result<(), Error> {
        let (namespace, name) = key_of(cluster)?;
        let body = json!({
            "apiVersion": CodisCluster::api_version(&()),
            "kind": CodisCluster::kind(&()),
            "metadata": { "name": name, "namespace": namespace, "resourceVersion": version },
            "status": status,
        });
        let (api, patch) = (self.api::<CodisCluster>(namespace), Patch::Apply(body));
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        self.write(
            "status",
            call("status of", cluster),
            api.patch_status(name, &params, &patch),
        )
        .await
        .map(|_| ())
    }

    /// Makes sure that the cluster isn't removed before its teardown. Returns whether anything was written.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the cluster changed since it was read, and what the server refuses.
    pub async fn add_finalizer(&self, cluster: &CodisCluster) -> Result<bool, Error> {
        let mut finalizers = cluster.finalizers().to_vec();
        if finalizers.iter().any(|f| f == names::FINALIZER) {
            return Ok(false);
        }
        finalizers.push(names::FINALIZER.to_owned());
        self.patch_finalizers(cluster, finalizers).await
    }

    /// Lets the cluster go. Returns whether anything was written; that it is already gone is fine.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the cluster changed since it was read, and what the server refuses.
    pub async fn remove_finalizer(&self, cluster: &CodisCluster) -> Result<bool, Error> {
        let mut finalizers = cluster.finalizers().to_vec();
        finalizers.retain(|f| f != names::FINALIZER);
        if finalizers.len() == cluster.finalizers().len() {
            return Ok(false);
        }
        match self.patch_finalizers(cluster, finalizers).await {
            Err(Error::Gone { .. }) => Ok(false),
            other => other,
        }
    }

    /// A merge patch replaces the whole list, so it must be the list that was read: hence the resource version.
    async fn patch_finalizers(&self, cluster: &CodisCluster, finalizers: Vec<String>) -> Result<bool, Error> {
        let (namespace, name) = key_of(cluster)?;
        let meta = ObjectMeta {
            finalizers: Some(finalizers),
            resource_version: cluster.metadata.resource_version.clone(),
            uid: cluster.metadata.uid.clone(),
            ..ObjectMeta::default()
        };
        let (api, patch) = (
            self.api::<CodisCluster>(namespace),
            Patch::Merge(json!({ "metadata": meta })),
        );
        let params = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.write(
            "finalizer",
            call("finalizer of", cluster),
            api.patch(name, &params, &patch),
        )
        .await?;
        Ok(true)
    }

    /// Publishes an event about an object. Equal ones (reason and action, not note) within minutes become a series.
    /// Its times, and those minutes, are by the machine's clock, whatever [`Clock`](crate::telemetry::Clock) the pass has:
    /// kube's recorder takes no other. Nothing reads them back.
    ///
    /// # Errors
    /// What the API server refuses. An event is an aid: its loss needn't stop anything.
    pub async fn event<K: Object>(
        &self,
        object: &K,
        kind: EventKind,
        reason: &str,
        action: &str,
        note: &str,
    ) -> Result<(), Error> {
        let event = Event {
            type_: match kind {
                EventKind::Normal => EventType::Normal,
                EventKind::Warning => EventType::Warning,
            },
            reason: reason.to_owned(),
            action: action.to_owned(),
            note: Some(note[..note.floor_char_boundary(NOTE_LIMIT)].to_owned()),
            secondary: None,
        };
        let about = object.object_ref(&());
        self.write(
            "event",
            call("event about", object),
            self.recorder.publish(&event, &about),
        )
        .await
    }

    /// Whether there is a storage class of this name.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub async fn storage_class(&self, name: &str) -> Result<bool, Error> {
        let api = Api::<StorageClass>::all(self.client.clone());
        let found = bounded(CALL_TIMEOUT, Call::new("get", "StorageClass", name), api.get_opt(name)).await?;
        Ok(found.is_some())
    }

    /// The class of claims that name none: of several, the API server takes the newest.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub async fn default_storage_class(&self) -> Result<Option<String>, Error> {
        let api = Api::<StorageClass>::all(self.client.clone());
        let call = Call::new("list", "StorageClass", "");
        let found = bounded(CALL_TIMEOUT, call, api.list(&ListParams::default())).await?;
        let marked = |class: &&StorageClass| class.annotations().get(DEFAULT_CLASS).is_some_and(|v| v == "true");
        let newest = found.items.iter().filter(marked).max_by(|a, b| {
            let age = |class: &StorageClass| class.creation_timestamp();
            age(a).cmp(&age(b)).then_with(|| b.name_any().cmp(&a.name_any()))
        });
        Ok(newest.map(ResourceExt::name_any))
    }
}

fn call<K: Object>(verb: &'static str, object: &K) -> Call {
    let namespace = object.namespace().unwrap_or_default();
    Call::new(verb, K::kind(&()), format!("{namespace}/{}", object.name_any()))
}
