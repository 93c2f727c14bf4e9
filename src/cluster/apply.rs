//! Server-side apply that writes only what differs and seizes nothing, and delete.
//!
//! How the API server (1.36) answers, tried in `tests/apiserver.rs`: an apply with `resourceVersion: "1"` creates, or is
//! refused with 409 when the object exists, because no object has that version (`"0"` means "any": it seizes). An
//! apply with a `uid` is refused when the object was made anew (422) or is gone (409).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ANNOTATION_APPLIED, Call, Cluster, Error, Object, compare::difference, live::key_of};
use crate::api::names;

/// No object ever has this version: an apply with it can only create.
pub(super) const NO_VERSION: &str = "1";

/// Fields that go over to others (an autoscaler) with the value that they have. The API server would put a field that
/// nobody owns any more back to its default: one replica.
const HANDED_OVER: [(&str, &str); 1] = [("/spec/replicas", "/f:spec/f:replicas")];

/// The field manager that keeps the value of a field on its way from us to another.
const HANDOVER_MANAGER: &str = "codis-operator-handover";

/// What an apply did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Everything was as it should be: nothing was sent.
    Unchanged,
    /// The object is new.
    Created,
    /// The object differed, or was applied with other wishes before.
    Changed,
}

/// What happens to the dependents of an object that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They go first.
    Foreground,
    /// They go afterwards.
    Background,
    /// They go afterwards, and the object within 30 s, for however long it would have liked to stay.
    Soon,
    /// The object goes at once, and nobody is asked to end anything: for pods whose process is provably gone.
    Now,
    /// They stay, and lose their owner.
    Orphan,
}

/// What is wanted, in the forms that an apply needs.
pub(super) struct Wish<'a> {
    pub(super) json: Value,
    pub(super) hash: String,
    meta: &'a ObjectMeta,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl<'a> Wish<'a> {
    pub(super) fn new<K: Object>(desired: &'a K) -> Result<Self, Error> {
        let (namespace, name) = key_of(desired)?;
        let json = serde_json::to_value(desired).map_err(|_| Error::Malformed {
            call: Call::new("apply", K::kind(&()), format!("{namespace}/{name}")),
            detail: "it has no JSON form".to_owned(),
        })?;
        Ok(Self {
            hash: hash_of(&json),
            json,
            meta: desired.meta(),
            namespace,
            name,
        })
    }

    /// The body of the apply: the wish, its hash, and one field that says what may be written on.
    pub(super) fn body(&self, condition: &str, value: &str) -> Value {
        let mut body = self.json.clone();
        body["metadata"][condition] = Value::from(value);
        body["metadata"]["annotations"][ANNOTATION_APPLIED] = Value::from(self.hash.clone());
        body
    }
}

impl Cluster {
    /// Brings one object to what is wanted. `live` is what [`Cluster::fetch`] found of it.
    ///
    /// Fields that aren't in `desired` stay as others have them, or disappear if we had applied them before.
    ///
    /// # Errors
    /// [`Error::NameTaken`] when an object of that name isn't ours, and whatever the API server refuses.
    pub async fn apply<K>(&self, live: Option<&K>, desired: &K) -> Result<Applied, Error>
    where
        K: Object + PartialEq + Send + Sync + 'static,
    {
        if live.is_some_and(|live| self.settled.is(live, desired)) {
            return Ok(Applied::Unchanged);
        }
        let wish = Wish::new(desired)?;
        if let Some(live) = live {
            let applied = self.update(live, &wish).await?;
            if applied == Applied::Unchanged {
                self.settled.remember(live, desired);
            }
            return Ok(applied);
        }
        match self
            .patch::<K>("create", &wish, wish.body("resourceVersion", NO_VERSION))
            .await
        {
            Ok(()) => Ok(Applied::Created),
            Err(conflict @ Error::Conflict { .. }) => match self.read::<K>(wish.namespace, wish.name).await? {
                // Ours, but the caller couldn't see it: it lost its label, or was made a moment ago.
                Some(found) => self.update(&found, &wish).await,
                None => Err(conflict),
            },
            Err(error) => Err(error),
        }
    }

    async fn update<K: Object>(&self, live: &K, wish: &Wish<'_>) -> Result<Applied, Error> {
        let (kind, name) = (K::kind(&()).into_owned(), format!("{}/{}", wish.namespace, wish.name));
        let malformed = |detail: &str| Error::Malformed {
            call: Call::new("apply", kind.clone(), name.clone()),
            detail: detail.to_owned(),
        };
        if !is_ours(live.meta(), wish.meta) {
            return Err(Error::NameTaken { kind, name });
        }
        let json = serde_json::to_value(live).map_err(|_| malformed("the live object has no JSON form"))?;
        let same_wish = live.annotations().get(ANNOTATION_APPLIED) == Some(&wish.hash);
        let drift = difference(&wish.json, &json);
        if same_wish && drift.is_none() {
            return Ok(Applied::Unchanged);
        }
        tracing::info!(kind, name, same_wish, drift, "apply");
        let uid = live
            .meta()
            .uid
            .as_deref()
            .ok_or_else(|| malformed("the live object has no uid"))?;
        self.hand_over::<K>(live.meta(), &json, wish, uid).await?;
        self.patch::<K>("apply", wish, wish.body("uid", uid)).await?;
        Ok(Applied::Changed)
    }

    /// Gives the fields that we are about to let go to a second manager, so that they keep their values.
    async fn hand_over<K: Object>(
        &self,
        meta: &ObjectMeta,
        live: &Value,
        wish: &Wish<'_>,
        uid: &str,
    ) -> Result<(), Error> {
        for (field, managed) in HANDED_OVER {
            let Some(value) = live.pointer(field).filter(|_| wish.json.pointer(field).is_none()) else {
                continue;
            };
            if !owns(meta, managed) {
                continue;
            }
            let kept = field
                .rsplit('/')
                .filter(|part| !part.is_empty())
                .fold(value.clone(), |v, part| json!({ part: v }));
            let mut body = json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {
                "name": wish.name, "namespace": wish.namespace, "uid": uid } });
            merge(&mut body, kept);
            let call = Call::new("hand over", K::kind(&()), format!("{}/{}", wish.namespace, wish.name));
            let params = PatchParams::apply(HANDOVER_MANAGER).force();
            let (api, patch) = (self.api::<K>(wish.namespace), Patch::Apply(body));
            self.write("hand-over", call, api.patch(wish.name, &params, &patch))
                .await?;
        }
        Ok(())
    }

    async fn patch<K: Object>(&self, effect: &'static str, wish: &Wish<'_>, body: Value) -> Result<(), Error> {
        let call = Call::new(effect, K::kind(&()), format!("{}/{}", wish.namespace, wish.name));
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        let (api, patch) = (self.api::<K>(wish.namespace), Patch::Apply(body));
        self.write(effect, call, api.patch(wish.name, &params, &patch))
            .await
            .map(|_| ())
    }

    /// Sets one label of the object that was read; one that was made anew since stays as it is.
    ///
    /// # Errors
    /// What the API server refuses. That it is gone, or another one now, is fine.
    pub async fn label<K: Object>(&self, object: &K, key: &str, value: &str) -> Result<(), Error> {
        let (namespace, name) = key_of(object)?;
        let call = Call::new("label", K::kind(&()), format!("{namespace}/{name}"));
        let body = json!({ "metadata": { "uid": object.meta().uid, "labels": { key: value } } });
        let params = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let (api, patch) = (self.api::<K>(namespace), Patch::Merge(body));
        match self.write("label", call, api.patch(name, &params, &patch)).await {
            Ok(_) | Err(Error::Gone { .. } | Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes this very object in the background, unless it is going already.
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn remove<K: Object>(&self, object: &K) -> Result<(), Error> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        if let Some(uid) = object.uid().filter(|_| object.meta().deletion_timestamp.is_none()) {
            self.delete::<K>(&namespace, &name, &uid, Propagation::Background)
                .await?;
        }
        Ok(())
    }

    /// Deletes the object with this uid; one of the same name with another uid stays. Returns whether there was one.
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn delete<K: Object>(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        propagation: Propagation,
    ) -> Result<bool, Error> {
        let params = match propagation {
            Propagation::Foreground => DeleteParams::foreground(),
            Propagation::Background => DeleteParams::background(),
            Propagation::Soon => DeleteParams::background().grace_period(30),
            Propagation::Now => DeleteParams::background().grace_period(0),
            Propagation::Orphan => DeleteParams::orphan(),
        };
        let params = params.preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        });
        let call = Call::new("delete", K::kind(&()), format!("{namespace}/{name}"));
        match self
            .write("delete", call, self.api::<K>(namespace).delete(name, &params))
            .await
        {
            Ok(_) => Ok(true),
            Err(Error::Gone { .. }) => Ok(false),
            Err(conflict @ Error::Conflict { .. }) => match self.read::<K>(namespace, name).await? {
                Some(found) if found.meta().uid.as_deref() == Some(uid) => Err(conflict),
                Some(_) | None => Ok(false),
            },
            Err(error) => Err(error),
        }
    }
}

/// The uid of the object's controller.
pub(super) fn controller_of(meta: &ObjectMeta) -> Option<&str> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners
        .iter()
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.uid.as_str())
}

/// Whether a live object may be written by who wants `desired`: it has the same controller; or, for objects that
/// outlive their cluster, no controller and the same cluster's label.
fn is_ours(live: &ObjectMeta, desired: &ObjectMeta) -> bool {
    let label = |meta: &ObjectMeta| meta.labels.as_ref().and_then(|l| l.get(names::LABEL_CLUSTER)).cloned();
    match controller_of(desired) {
        Some(uid) => controller_of(live) == Some(uid),
        None => controller_of(live).is_none() && label(desired).is_some() && label(live) == label(desired),
    }
}

/// Whether our field manager owns a field, given as a path into `fieldsV1`.
fn owns(meta: &ObjectMeta, field: &str) -> bool {
    let entries = meta.managed_fields.as_deref().unwrap_or_default();
    entries.iter().any(|entry| {
        entry.manager.as_deref() == Some(names::FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| fields.0.pointer(field).is_some())
    })
}

/// Adds the fields of `more` to an object that has none of them.
fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

fn hash_of(json: &Value) -> String {
    Sha256::digest(json.to_string())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
