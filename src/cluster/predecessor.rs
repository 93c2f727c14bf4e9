//! What the predecessor (tangcong/codis-operator) made for a cluster. Its workloads carry no label of their own, are owned by
//! the CodisCluster as ours are, and some have names of ours: only their pods' labels tell them apart (contract §18).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Pod, Service},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{Call, Cluster, Error, Object, apply::controller_of, live::key_of};
use crate::{api::names, domain::Part};

/// The label by which its pods know their cluster.
const CLUSTER: &str = "clusterName";
/// The label that says which component a pod is.
const COMPONENT: &str = "component";
/// Its dashboard's pods.
const DASHBOARD: &str = "codis-dashboard";
/// Its proxies' pods.
const PROXY: &str = "codis-proxy";
/// Its servers' pods.
const SERVER: &str = "codis-server";
/// Its components.
const COMPONENTS: [&str; 5] = [DASHBOARD, PROXY, SERVER, "codis-fe", "redis-sentinel"];

type Labels = BTreeMap<String, String>;

/// What the predecessor made for a cluster and still exists.
#[derive(Clone, Debug, Default)]
pub struct Predecessor {
    /// Its StatefulSets, Deployments and Services, by what they belong to.
    pub stateful_sets: BTreeMap<Part, StatefulSet>,
    /// Its Deployments.
    pub deployments: BTreeMap<Part, Deployment>,
    /// ReplicaSets of proxies that no Deployment owns any more.
    pub replica_sets: Vec<ReplicaSet>,
    /// Its Services.
    pub services: BTreeMap<Part, Service>,
    /// What scales its proxies.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// Its pods, terminating ones included.
    pub pods: Vec<Pod>,
}

impl Predecessor {
    /// One of its workloads, like `StatefulSet x`, if there is any.
    #[must_use]
    pub fn first(&self) -> Option<String> {
        let sets = self.stateful_sets.values().map(|set| ("StatefulSet", set.name_any()));
        let deployments = self.deployments.values().map(|it| ("Deployment", it.name_any()));
        let mut all = sets.chain(deployments);
        all.next().map(|(kind, name)| format!("{kind} {name}"))
    }

    /// What is left of it.
    #[must_use]
    pub fn parts(&self) -> BTreeSet<Part> {
        let stays = |meta: &ObjectMeta| meta.deletion_timestamp.is_none();
        let sets = self.stateful_sets.iter().filter(|(_, set)| stays(&set.metadata));
        let deployments = self.deployments.iter().filter(|(_, it)| stays(&it.metadata));
        let services = self.services.iter().filter(|(_, it)| stays(&it.metadata));
        let sets = sets.map(|(part, _)| part).chain(deployments.map(|(part, _)| part));
        let all = sets.chain(services.map(|(part, _)| part)).copied();
        let pods = self.replica_sets.iter().any(|set| stays(&set.metadata));
        all.chain(pods.then_some(Part::ProxyPods)).collect()
    }

    /// Whether an object of ours can't be made yet, because one of its has the name.
    #[must_use]
    pub fn has<K: Object>(&self, wished: &K) -> bool {
        let name = wished.name_any();
        let is_it = |meta: &ObjectMeta| meta.name.as_ref() == Some(&name);
        match K::kind(&()).as_ref() {
            "StatefulSet" => self.stateful_sets.values().any(|set| is_it(&set.metadata)),
            "Deployment" => self.deployments.values().any(|it| is_it(&it.metadata)),
            "Service" => self.services.values().any(|it| is_it(&it.metadata)),
            _ => false,
        }
    }

    /// The pods of its dashboard.
    pub fn dashboards(&self) -> impl Iterator<Item = &Pod> {
        self.pods_of(DASHBOARD)
    }

    /// The pods of its proxies.
    pub fn proxies(&self) -> impl Iterator<Item = &Pod> {
        self.pods_of(PROXY)
    }

    /// The pods of its servers.
    pub fn servers(&self) -> impl Iterator<Item = &Pod> {
        self.pods_of(SERVER)
    }

    fn pods_of(&self, component: &str) -> impl Iterator<Item = &Pod> {
        let is_of = move |pod: &&Pod| pod.labels().get(COMPONENT).is_some_and(|label| label == component);
        self.pods.iter().filter(is_of)
    }
}

impl Cluster {
    /// What the predecessor made for a cluster.
    ///
    /// # Errors
    /// When the API server can't be asked for any one: what isn't seen would be taken for ours.
    pub(super) async fn predecessor(&self, namespace: &str, name: &str) -> Result<Predecessor, Error> {
        let named = |part: &str| format!("{name}-{part}");
        let [dashboard, redis, sentinel, proxy, fe, hpa] =
            ["dashboard", "redis", "redis-sentinel", "proxy", "fe", "hpa"].map(named);
        let (dashboard_set, redis_set, sentinel_set, proxies, front_end, scaler) = tokio::try_join!(
            Box::pin(self.read::<StatefulSet>(namespace, &dashboard)),
            Box::pin(self.read::<StatefulSet>(namespace, &redis)),
            Box::pin(self.read::<StatefulSet>(namespace, &sentinel)),
            Box::pin(self.read::<Deployment>(namespace, &proxy)),
            Box::pin(self.read::<Deployment>(namespace, &fe)),
            Box::pin(self.read::<HorizontalPodAutoscaler>(namespace, &hpa)),
        )?;
        let selector = format!("{CLUSTER}={name}");
        let of_proxies = format!("{selector},{COMPONENT}={PROXY}");
        let (dashboard, redis, sentinel, proxy, fe, pods, replica_sets) = tokio::try_join!(
            Box::pin(self.read::<Service>(namespace, &dashboard)),
            Box::pin(self.read::<Service>(namespace, &redis)),
            Box::pin(self.read::<Service>(namespace, &sentinel)),
            Box::pin(self.read::<Service>(namespace, &proxy)),
            Box::pin(self.read::<Service>(namespace, &fe)),
            Box::pin(self.list::<Pod>(namespace, &selector)),
            Box::pin(self.list::<ReplicaSet>(namespace, &of_proxies)),
        )?;
        let sets = [
            (Part::Dashboard, dashboard_set),
            (Part::Servers, redis_set),
            (Part::Sentinels, sentinel_set),
        ];
        let deployments = [(Part::Proxies, proxies), (Part::Fe, front_end)];
        let services = [
            (Part::Dashboard, dashboard),
            (Part::Servers, redis),
            (Part::Sentinels, sentinel),
            (Part::ProxyService, proxy),
            (Part::FeService, fe),
        ];
        Ok(Predecessor {
            stateful_sets: of_its(sets, |set| {
                is_its_own(template_labels(set.spec.as_ref()?.template.metadata.as_ref()), name)
            }),
            deployments: of_its(deployments, |it| {
                is_its_own(template_labels(it.spec.as_ref()?.template.metadata.as_ref()), name)
            }),
            services: of_its(services, |it| is_its_own(it.spec.as_ref()?.selector.as_ref(), name)),
            // It has no label of its own, and we have none of this name.
            autoscaler: scaler.filter(|scaler| {
                let target = scaler.spec.as_ref().map(|spec| spec.scale_target_ref.name.as_str());
                target == Some(&named("proxy"))
            }),
            replica_sets: replica_sets
                .into_iter()
                .filter(|set| controller_of(&set.metadata).is_none())
                .collect(),
            pods: pods
                .into_iter()
                .filter(|pod| is_its_own(Some(pod.labels()), name).is_some())
                .collect(),
        })
    }

    /// Has a Service of the predecessor lead to our pods from now on, with its addresses and node ports as they are: clients
    /// find ours where they found its.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it was changed since it was read, and what the API server refuses.
    pub async fn inherit(&self, service: &Service, wished: &Service) -> Result<(), Error> {
        let (namespace, name) = key_of(service)?;
        let call = Call::new("inherit", "Service", format!("{namespace}/{name}"));
        let params = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let (api, patch) = (self.api::<Service>(namespace), Patch::Merge(as_ours(service, wished)));
        self.write("inherit", call, api.patch(name, &params, &patch))
            .await
            .map(drop)
    }
}

/// The merge patch that makes a Service of the predecessor ours.
fn as_ours(service: &Service, wished: &Service) -> Value {
    let spec = service.spec.clone().unwrap_or_default();
    let wish = wished.spec.clone().unwrap_or_default();
    let mut ports = wish.ports.unwrap_or_default();
    for port in &mut ports {
        let mut known = spec.ports.iter().flatten();
        port.node_port = known
            .find(|known| known.port == port.port)
            .and_then(|known| known.node_port);
    }
    json!({
        "metadata": {
            "resourceVersion": service.metadata.resource_version,
            "labels": replaced(service.metadata.labels.as_ref(), wished.metadata.labels.as_ref()),
            "ownerReferences": wished.metadata.owner_references,
        },
        "spec": { "selector": replaced(spec.selector.as_ref(), wish.selector.as_ref()), "ports": ports },
    })
}

/// The new entries, and for each old one that isn't among them null, which removes it.
fn replaced(old: Option<&Labels>, new: Option<&Labels>) -> Value {
    let gone = old.into_iter().flatten().map(|(key, _)| (key.clone(), Value::Null));
    let new = new
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), Value::from(value.clone())));
    Value::Object(gone.chain(new).collect())
}

fn of_its<K>(all: impl IntoIterator<Item = (Part, Option<K>)>, is_its: impl Fn(&K) -> Option<()>) -> BTreeMap<Part, K> {
    let found = all.into_iter().filter_map(|(part, found)| Some((part, found?)));
    found.filter(|(_, found)| is_its(found).is_some()).collect()
}

fn template_labels(meta: Option<&ObjectMeta>) -> Option<&Labels> {
    meta?.labels.as_ref()
}

fn is_its_own(labels: Option<&Labels>, cluster: &str) -> Option<()> {
    let labels = labels?;
    let component = labels.get(COMPONENT)?;
    (labels.get(CLUSTER)? == cluster && COMPONENTS.contains(&component.as_str())).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(value: Value) -> Service {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_service_keeps_its_node_port_and_loses_the_labels_and_the_selector_that_it_had() {
        let old = service(json!({
            "metadata": {"name": "c-proxy", "resourceVersion": "7", "labels": {"component": "codis-proxy"}},
            "spec": {
                "selector": {"component": "codis-proxy", "clusterName": "c"},
                "ports": [{"port": 11080, "nodePort": 31080}, {"port": 19000, "nodePort": 31900}],
            },
        }));
        let wished = service(json!({
            "metadata": {"name": "c-proxy", "labels": {"ours": "1"}},
            "spec": {"selector": {"component": "proxy"}, "ports": [{"name": "redis", "port": 19000, "targetPort": "redis"}]},
        }));
        let patch = as_ours(&old, &wished);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["labels"], json!({"component": null, "ours": "1"}));
        assert_eq!(
            patch["spec"]["selector"],
            json!({"component": "proxy", "clusterName": null})
        );
        assert_eq!(
            patch["spec"]["ports"],
            json!([{"name": "redis", "port": 19000, "nodePort": 31900, "targetPort": "redis"}])
        );
    }
}
