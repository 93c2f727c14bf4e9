//! What is written for a CodisGitSource: the clusters that its repository specifies, their `status.gitops`, and its own
//! status.
//!
//! A cluster's spec belongs to its source whole: what others add to it is removed, not only what they change. Labels and
//! annotations that the repository doesn't name are anybody's.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::{
    Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use super::{
    ANNOTATION_APPLIED, Applied, Call, Cluster, Error,
    apply::{NO_VERSION, Wish},
    compare::difference,
    live::key_of,
};
use crate::api::{CodisCluster, CodisGitSource, CodisGitSourceStatus, GitopsStatus, names};

/// The field manager of what a source applies.
fn manager(source: &str) -> String {
    format!("{}/{source}", names::GITOPS_MANAGER)
}

/// How a live cluster differs from what its repository says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The first field that differs, like `spec.codisProxy.replicas`.
    pub field: String,
    /// Whether this very wish was applied before: then somebody changed the object since, else the wish is new.
    pub was_applied: bool,
    /// The field manager that changed it last and when, as far as the object tells, like `kubectl-edit at 12:00:00Z`.
    pub by: Option<String>,
}

/// How `live` differs from `wished`, if it does.
///
/// # Errors
/// [`Error::Malformed`] when either has no JSON form.
pub fn drift(live: &CodisCluster, wished: &CodisCluster) -> Result<Option<Drift>, Error> {
    let wish = Wish::new(wished)?;
    let json = json_of(live)?;
    let was_applied = live.annotations().get(ANNOTATION_APPLIED) == Some(&wish.hash);
    let field = unequal("spec", wish.json.get("spec"), json.get("spec")).or_else(|| {
        let metadata = |whole: &Value| json!({ "metadata": whole.get("metadata") });
        difference(&metadata(&wish.json), &metadata(&json))
    });
    let field = match field {
        Some(field) => field,
        None if was_applied => return Ok(None),
        None => format!("metadata.annotations[{ANNOTATION_APPLIED}]"),
    };
    let by = who_changed(live, &field);
    Ok(Some(Drift { field, was_applied, by }))
}

/// Who applies, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The revision that the wish is from.
    pub revision: &'a str,
}

impl Cluster {
    /// Asks the API server whether it would take `wished` in place of `live`. Nothing is changed.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is such a cluster although `live` is none, and what the API server refuses.
    pub async fn rehearse(
        &self,
        origin: Origin<'_>,
        live: Option<&CodisCluster>,
        wished: &CodisCluster,
    ) -> Result<(), Error> {
        self.enforce_as(origin, live, wished, true).await.map(drop)
    }

    /// Brings a cluster to what the repository says. `live` is what was last seen of it.
    ///
    /// # Errors
    /// As [`Cluster::rehearse`].
    pub async fn enforce(
        &self,
        origin: Origin<'_>,
        live: Option<&CodisCluster>,
        wished: &CodisCluster,
    ) -> Result<Applied, Error> {
        self.enforce_as(origin, live, wished, false).await
    }

    async fn enforce_as(
        &self,
        Origin { source, revision }: Origin<'_>,
        live: Option<&CodisCluster>,
        wished: &CodisCluster,
        rehearsal: bool,
    ) -> Result<Applied, Error> {
        let wish = Wish::new(wished)?;
        let body = |condition: &str, value: &str| {
            let mut body = wish.body(condition, value);
            body["metadata"]["annotations"][names::ANNOTATION_REVISION] = Value::from(revision);
            body
        };
        let Some(live) = live else {
            self.patch_spec(source, &wish, body("resourceVersion", NO_VERSION), rehearsal)
                .await?;
            return Ok(Applied::Created);
        };
        if drift(live, wished)?.is_none() {
            return Ok(Applied::Unchanged);
        }
        let uid = live.uid().unwrap_or_default();
        self.patch_spec(source, &wish, body("uid", &uid), rehearsal).await?;
        // What others added: an apply leaves that alone.
        if let Some(mut removal) = surplus(&wish.json, &json_of(live)?) {
            removal["metadata"] = json!({ "uid": uid });
            self.remove_surplus(source, &wish, removal, rehearsal).await?;
        }
        Ok(Applied::Changed)
    }

    async fn patch_spec(&self, source: &str, wish: &Wish<'_>, body: Value, rehearsal: bool) -> Result<(), Error> {
        let params = PatchParams {
            dry_run: rehearsal,
            ..PatchParams::apply(&manager(source)).force()
        };
        self.patch_cluster(wish, Patch::Apply(body), params).await
    }

    async fn remove_surplus(&self, source: &str, wish: &Wish<'_>, body: Value, rehearsal: bool) -> Result<(), Error> {
        let params = PatchParams {
            dry_run: rehearsal,
            field_manager: Some(manager(source)),
            ..PatchParams::default()
        };
        self.patch_cluster(wish, Patch::Merge(body), params).await
    }

    async fn patch_cluster(&self, wish: &Wish<'_>, patch: Patch<Value>, params: PatchParams) -> Result<(), Error> {
        let (effect, verb) = if params.dry_run {
            ("rehearse", "rehearse")
        } else {
            ("enforce", "apply")
        };
        let call = Call::new(
            verb,
            CodisCluster::kind(&()),
            format!("{}/{}", wish.namespace, wish.name),
        );
        let api = self.api::<CodisCluster>(wish.namespace);
        self.write(effect, call, api.patch(wish.name, &params, &patch))
            .await
            .map(drop)
    }

    /// Writes where a cluster's spec comes from into its status.
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn patch_gitops(&self, namespace: &str, name: &str, status: &GitopsStatus) -> Result<(), Error> {
        let body = json!({
            "apiVersion": CodisCluster::api_version(&()),
            "kind": CodisCluster::kind(&()),
            "metadata": { "name": name, "namespace": namespace },
            "status": { "gitops": status },
        });
        let params = PatchParams::apply(names::GITOPS_MANAGER).force();
        let call = Call::new(
            "gitops status of",
            CodisCluster::kind(&()),
            format!("{namespace}/{name}"),
        );
        let (api, patch) = (self.api::<CodisCluster>(namespace), Patch::Apply(body));
        self.write("gitops-status", call, api.patch_status(name, &params, &patch))
            .await
            .map(drop)
    }

    /// Writes a source's status, if it differs from the one `source` was read with. Returns whether it was written.
    ///
    /// # Errors
    /// [`Error::Gone`] when the source was deleted, and what the API server refuses.
    pub async fn patch_source(&self, source: &CodisGitSource, status: &CodisGitSourceStatus) -> Result<bool, Error> {
        if source.status.as_ref() == Some(status) {
            return Ok(false);
        }
        let (namespace, name) = key_of(source)?;
        let body = json!({
            "apiVersion": CodisGitSource::api_version(&()),
            "kind": CodisGitSource::kind(&()),
            "metadata": { "name": name, "namespace": namespace },
            "status": status,
        });
        let params = PatchParams::apply(names::GITOPS_MANAGER).force();
        let call = Call::new("status of", CodisGitSource::kind(&()), format!("{namespace}/{name}"));
        let (api, patch) = (self.api::<CodisGitSource>(namespace), Patch::Apply(body));
        self.write("source-status", call, api.patch_status(name, &params, &patch))
            .await
            .map(|_| true)
    }
}

fn json_of(cluster: &CodisCluster) -> Result<Value, Error> {
    serde_json::to_value(cluster).map_err(|_| Error::Malformed {
        call: Call::new("compare", "CodisCluster", cluster.name_any()),
        detail: "it has no JSON form".to_owned(),
    })
}

/// The first field at which two specs aren't the same. The server keeps a custom resource's spec as it was written, zeros
/// and lists included, so nothing is overlooked here.
fn unequal(at: &str, wished: Option<&Value>, live: Option<&Value>) -> Option<String> {
    match (wished, live) {
        (Some(Value::Object(wished)), Some(Value::Object(live))) => {
            let fields: BTreeSet<&String> = wished.keys().chain(live.keys()).collect();
            fields
                .into_iter()
                .find_map(|field| unequal(&format!("{at}.{field}"), wished.get(field), live.get(field)))
        }
        (wished, live) if wished == live => None,
        _ => Some(at.to_owned()),
    }
}

/// The revision that brought a cluster its spec, as its source wrote it: a hand's writing doesn't count.
#[must_use]
pub fn revision_of<'a>(live: &'a CodisCluster, source: &str) -> Option<&'a str> {
    let ours = manager(source);
    let key = format!("f:{}", names::ANNOTATION_REVISION);
    let is_ours = live.managed_fields().iter().any(|entry| {
        let fields = entry
            .fields_v1
            .as_ref()
            .map(|fields| &fields.0["f:metadata"]["f:annotations"]);
        entry.manager.as_deref() == Some(&ours) && fields.is_some_and(|fields| fields.get(&key).is_some())
    });
    let borne = live.annotations().get(names::ANNOTATION_REVISION).filter(|_| is_ours);
    borne.map(String::as_str)
}

/// The merge patch that removes what the live spec has and the wished one doesn't.
fn surplus(wished: &Value, live: &Value) -> Option<Value> {
    let removal = surplus_of(wished.get("spec")?.as_object()?, live.get("spec")?.as_object()?)?;
    Some(json!({ "spec": removal }))
}

fn surplus_of(wished: &Map<String, Value>, live: &Map<String, Value>) -> Option<Value> {
    let removal: Map<String, Value> = live
        .iter()
        .filter_map(|(field, value)| {
            let removal = match (wished.get(field), value) {
                (None, _) => Some(Value::Null),
                (Some(Value::Object(wished)), Value::Object(live)) => surplus_of(wished, live),
                // Lists are atomic here: the apply replaces them.
                (Some(_), _) => None,
            };
            removal.map(|removal| (field.clone(), removal))
        })
        .collect();
    (!removal.is_empty()).then_some(Value::Object(removal))
}

/// Who wrote a field of the spec last. One that was removed has no owner: then the last writer is named, with a doubt.
fn who_changed(live: &CodisCluster, field: &str) -> Option<String> {
    let path: Vec<&str> = field
        .split('.')
        .map(|part| part.split('[').next().unwrap_or(part))
        .collect();
    let others: Vec<_> = live
        .managed_fields()
        .iter()
        .filter(|entry| entry.subresource.is_none())
        .filter(|entry| {
            !entry
                .manager
                .as_deref()
                .is_some_and(|name| name.starts_with(names::GITOPS_MANAGER))
        })
        // Ours too: finalizers.
        .filter(|entry| entry.manager.as_deref() != Some(names::FIELD_MANAGER))
        .collect();
    let owns = |fields: &Value| {
        let mut keys = path.iter().map(|part| format!("f:{part}"));
        keys.try_fold(fields, |at, key| at.get(key)).is_some()
    };
    let owner = others
        .iter()
        .find(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)));
    let told = |entry: &ManagedFieldsEntry| {
        let name = entry.manager.clone()?;
        Some(match &entry.time {
            Some(time) => format!("{name} at {}", time.0),
            None => name,
        })
    };
    if let Some(owner) = owner {
        return told(owner);
    }
    let is_there = json_of(live).is_ok_and(|live| path.iter().try_fold(&live, |at, part| at.get(part)).is_some());
    let latest = others.iter().max_by(|one, other| one.time.cmp(&other.time));
    latest
        .filter(|_| !is_there)
        .and_then(|entry| told(entry))
        .map(|told| format!("perhaps {told}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(meta: Value, spec: Value) -> CodisCluster {
        let mut whole = json!({
            "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
            "codisProxy": {"image": "i", "replicas": 1}, "codisDashboard": {"image": "i"},
            "codisServer": {"image": "i", "replicas": 2, "groupReplicas": 2}
        });
        if let (Some(whole), Value::Object(spec)) = (whole.as_object_mut(), spec) {
            whole.extend(spec);
        }
        let mut metadata = json!({ "name": "a", "namespace": "ns" });
        if let (Some(all), Value::Object(meta)) = (metadata.as_object_mut(), meta) {
            all.extend(meta);
        }
        serde_json::from_value(json!({
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster", "metadata": metadata, "spec": whole
        }))
        .unwrap()
    }

    #[test]
    fn what_others_add_to_a_spec_is_drift_too_and_removed() {
        let wished = json_of(&cluster(json!({}), json!({}))).unwrap();
        let live = json_of(&cluster(
            json!({}),
            json!({"codisProxy": {"image": "i", "replicas": 1, "maxSurge": 2}, "schedulerName": "mine"}),
        ))
        .unwrap();
        let field = unequal("spec", wished.get("spec"), live.get("spec"));
        assert_eq!(field.as_deref(), Some("spec.codisProxy.maxSurge"));
        let removal = surplus(&wished, &live).unwrap();
        assert_eq!(
            removal,
            json!({"spec": {"codisProxy": {"maxSurge": null}, "schedulerName": null}})
        );
        assert_eq!(surplus(&live, &wished), None);
    }

    #[test]
    fn a_change_inside_a_list_and_a_zero_that_is_gone_are_drift() {
        let spec = |tolerations: Value, surge: Value| {
            let proxy = json!({"image": "i", "replicas": 1, "tolerations": tolerations, "maxSurge": surge});
            cluster(json!({}), json!({ "codisProxy": proxy }))
        };
        let one = json!([{"key": "a", "operator": "Exists"}]);
        let more = json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]);
        let wished = spec(one.clone(), json!(0));
        for (what, live, field) in [
            (
                "an element has more",
                spec(more, json!(0)),
                "spec.codisProxy.tolerations",
            ),
            ("a zero is gone", spec(one, Value::Null), "spec.codisProxy.maxSurge"),
        ] {
            assert_eq!(drift(&live, &wished).unwrap().unwrap().field, field, "{what}");
        }
    }

    #[test]
    fn drift_names_the_field_and_who_changed_it() {
        let wished = cluster(json!({}), json!({}));
        let hash = Wish::new(&wished).unwrap().hash;
        let fields = json!({"f:spec": {"f:codisProxy": {"f:replicas": {}}}});
        let live = cluster(
            json!({
                "annotations": {"codis.k8s.io/applied": hash},
                "managedFields": [
                    {"manager": "codis-gitops/fleet", "operation": "Apply", "fieldsV1": fields},
                    {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-02T03:04:05Z", "fieldsV1": fields},
                    {"manager": "later", "operation": "Update", "time": "2026-02-02T03:04:05Z", "fieldsV1": {}},
                ]
            }),
            json!({"codisProxy": {"image": "i", "replicas": 7}}),
        );
        let found = drift(&live, &wished).unwrap().unwrap();
        assert_eq!(
            found,
            Drift {
                field: "spec.codisProxy.replicas".into(),
                was_applied: true,
                by: Some("kubectl-edit at 2026-01-02T03:04:05Z".into()),
            }
        );
        let mut same = cluster(json!({"annotations": {"codis.k8s.io/applied": hash}}), json!({}));
        assert_eq!(drift(&same, &wished).unwrap(), None);
        same.metadata.annotations = None;
        assert!(
            !drift(&same, &wished).unwrap().unwrap().was_applied,
            "never applied by us"
        );
    }
}
