//! What exists for one CodisCluster.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Pod, Secret, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, ResourceExt, api::ListParams};

use super::{CALL_TIMEOUT, Call, Cluster, Error, Object, Predecessor, apply::controller_of, bounded};
use crate::api::{CodisCluster, names};

/// What exists for one CodisCluster, by name. Only what it controls counts, pods by their label.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Services.
    pub services: BTreeMap<String, Service>,
    /// StatefulSets.
    pub stateful_sets: BTreeMap<String, StatefulSet>,
    /// Deployments.
    pub deployments: BTreeMap<String, Deployment>,
    /// PodDisruptionBudgets.
    pub budgets: BTreeMap<String, PodDisruptionBudget>,
    /// The Secret `<name>-config`.
    pub secret: Option<Secret>,
    /// The Secret `<name>-connection`.
    pub connection: Option<Secret>,
    /// The ConfigMap `<name>-topology`, which outlives its cluster: it has this cluster's label and no controller.
    pub topology: Option<ConfigMap>,
    /// The proxies' HorizontalPodAutoscaler.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// Pods, terminating ones included.
    pub pods: Vec<Pod>,
    /// What the predecessor made for a cluster of this name.
    pub predecessor: Predecessor,
}

impl Cluster {
    /// Reads what exists for `cluster`, all kinds at once.
    ///
    /// # Errors
    /// When the API server can't be asked for any one kind: a part must not look like the whole.
    pub async fn fetch(&self, cluster: &CodisCluster) -> Result<Live, Error> {
        let (namespace, name) = key_of(cluster)?;
        let uid = cluster.metadata.uid.as_deref().ok_or_else(|| Error::Malformed {
            call: Call::new("fetch", "CodisCluster", format!("{namespace}/{name}")),
            detail: "no uid".to_owned(),
        })?;
        let labelled = format!("{}={name}", names::LABEL_CLUSTER);
        let (config, connection) = (format!("{name}-config"), format!("{name}-connection"));
        let (proxies, topology) = (format!("{name}-proxy"), format!("{name}-topology"));
        let found = tokio::try_join!(
            Box::pin(self.list::<Service>(namespace, &labelled)),
            Box::pin(self.list::<StatefulSet>(namespace, &labelled)),
            Box::pin(self.list::<Deployment>(namespace, &labelled)),
            Box::pin(self.list::<PodDisruptionBudget>(namespace, &labelled)),
            Box::pin(self.read::<Secret>(namespace, &config)),
            Box::pin(self.read::<Secret>(namespace, &connection)),
            Box::pin(self.read::<HorizontalPodAutoscaler>(namespace, &proxies)),
            Box::pin(self.list::<Pod>(namespace, &labelled)),
            Box::pin(self.read::<ConfigMap>(namespace, &topology)),
        )?;
        let (services, sets, deployments, budgets, config, connection, autoscaler, pods, topology) = found;
        let stateful_sets = owned(sets, uid);
        // Where ours run, the predecessor's are gone: they have the same names. One that is being taken over goes part by part.
        let is_adopted = cluster
            .annotations()
            .get(names::ANNOTATION_ADOPT)
            .is_some_and(|value| value == "true");
        let is_ours = stateful_sets.contains_key(&format!("{name}-dashboard")) && !is_adopted;
        let predecessor = match is_ours {
            true => Predecessor::default(),
            // On the heap: it is rarely asked, and a pass is deep enough without it.
            false => Box::pin(self.predecessor(namespace, name)).await?,
        };
        let is_its_own = |map: &ConfigMap| {
            map.labels().get(names::LABEL_CLUSTER).map(String::as_str) == Some(name)
                && controller_of(map.meta()).is_none()
        };
        Ok(Live {
            services: owned(services, uid),
            stateful_sets,
            deployments: owned(deployments, uid),
            budgets: owned(budgets, uid),
            secret: config.filter(|secret| controller_of(secret.meta()) == Some(uid)),
            connection: connection.filter(|secret| controller_of(secret.meta()) == Some(uid)),
            topology: topology.filter(is_its_own),
            autoscaler: autoscaler.filter(|scaler| controller_of(scaler.meta()) == Some(uid)),
            pods,
            predecessor,
        })
    }

    pub(super) async fn list<K: Object>(&self, namespace: &str, selector: &str) -> Result<Vec<K>, Error> {
        let call = Call::new("list", K::kind(&()), format!("{namespace} {selector}"));
        let api = self.api::<K>(namespace);
        let found = bounded(CALL_TIMEOUT, call, api.list(&ListParams::default().labels(selector))).await?;
        Ok(found.items)
    }
}

/// Namespace and name of a namespaced object.
pub(super) fn key_of<K: Object>(object: &K) -> Result<(&str, &str), Error> {
    let meta = object.meta();
    match (meta.namespace.as_deref(), meta.name.as_deref()) {
        (Some(namespace), Some(name)) => Ok((namespace, name)),
        (namespace, name) => Err(Error::Malformed {
            call: Call::new("name", K::kind(&()), format!("{namespace:?}/{name:?}")),
            detail: "namespace and name are needed".to_owned(),
        }),
    }
}

fn owned<K: Object>(objects: Vec<K>, uid: &str) -> BTreeMap<String, K> {
    let ours = objects
        .into_iter()
        .filter(|object| controller_of(object.meta()) == Some(uid));
    ours.map(|object| (object.name_any(), object)).collect()
}
