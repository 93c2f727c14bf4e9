//! What the predecessor (tangcong/codis-operator) made for a cluster. Its workloads carry no label of their own, are owned by
//! the CodisCluster as ours are, and some have names of ours: only their pods' labels tell them apart (contract §18).

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::PodTemplateSpec,
};

use super::{Cluster, Error};

/// The label by which its pods know their cluster.
const CLUSTER: &str = "clusterName";
/// Its components.
const COMPONENTS: [&str; 5] = [
    "codis-dashboard",
    "codis-proxy",
    "codis-server",
    "codis-fe",
    "redis-sentinel",
];

impl Cluster {
    /// The workloads that the predecessor made for a cluster, like `StatefulSet x`.
    ///
    /// # Errors
    /// When the API server can't be asked for any one: what isn't seen would be taken for ours.
    pub(super) async fn predecessor(&self, namespace: &str, name: &str) -> Result<Vec<String>, Error> {
        let [dashboard, redis, sentinel, proxy, fe] =
            ["dashboard", "redis", "redis-sentinel", "proxy", "fe"].map(|part| format!("{name}-{part}"));
        let (dashboard, redis, sentinel, proxy, fe) = tokio::try_join!(
            self.read::<StatefulSet>(namespace, &dashboard),
            self.read::<StatefulSet>(namespace, &redis),
            self.read::<StatefulSet>(namespace, &sentinel),
            self.read::<Deployment>(namespace, &proxy),
            self.read::<Deployment>(namespace, &fe),
        )?;
        let sets = [dashboard, redis, sentinel].into_iter().flatten().filter_map(|set| {
            let is_its_own = is_its_own(&set.spec?.template, name);
            is_its_own.then(|| format!("StatefulSet {}", set.metadata.name.unwrap_or_default()))
        });
        let deployments = [proxy, fe].into_iter().flatten().filter_map(|deployment| {
            let is_its_own = is_its_own(&deployment.spec?.template, name);
            is_its_own.then(|| format!("Deployment {}", deployment.metadata.name.unwrap_or_default()))
        });
        Ok(sets.chain(deployments).collect())
    }
}

fn is_its_own(template: &PodTemplateSpec, cluster: &str) -> bool {
    let labels: BTreeMap<String, String> = template
        .metadata
        .as_ref()
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let component = labels.get("component").map(String::as_str);
    labels.get(CLUSTER).map(String::as_str) == Some(cluster) && component.is_some_and(|name| COMPONENTS.contains(&name))
}
