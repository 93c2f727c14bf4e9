//! A deleted cluster: its pods end in order, then its objects are collected. Data volumes stay, unless the spec says
//! that they go too.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{Context, Error, Requeue, status, storage, vacate};
use crate::{
    api::{CodisCluster, names},
    cluster::Live,
};

/// Clients first, then who watches, then the data, then the dashboard: no sentinel fails over what is being stopped,
/// and the dashboard gives its lock back as the last.
pub(super) const ORDER: [&[&str]; 3] = [&["proxy", "fe", "sentinel"], &["server"], &["dashboard"]];

/// The finalizer by which the API server remembers that dependents are to be left alone.
const ORPHAN: &str = "orphan";

pub(super) async fn tear_down(context: &Context, cluster: &CodisCluster) -> Result<Requeue, Error> {
    if !cluster
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == names::FINALIZER)
    {
        return Ok(Requeue::Never);
    }
    if cluster.finalizers().iter().any(|finalizer| finalizer == ORPHAN) {
        // `--cascade=orphan`: what runs is to stay.
        context.cluster.remove_finalizer(cluster).await?;
        return Ok(Requeue::Never);
    }
    let live = context.cluster.fetch(cluster).await?;
    for stage in ORDER {
        if stage == ["dashboard"] && !vacate::vacate(context, cluster, &live).await? {
            return Ok(Requeue::SOON);
        }
        delete_workloads(context, &live, stage).await?;
        let left = left(&live, cluster, stage);
        if !left.is_empty() {
            let what = format!("waits for pods to end: {}", left.join(", "));
            context
                .cluster
                .patch_status(cluster, &status::of_deleting(cluster, what, context.clock.now()))
                .await?;
            return Ok(Requeue::SOON);
        }
    }
    if cluster.spec.codis_server.volume_retention.as_deref() == Some("Delete") {
        storage::delete(context, cluster).await?;
    }
    // Without volumes it says nothing of any data.
    if let Some(dump) = &live.topology
        && !storage::outlives(context, cluster).await?
    {
        context.cluster.remove(dump).await?;
    }
    let namespace = cluster.namespace().unwrap_or_default();
    context.verified.forget(&format!("{namespace}/{}", cluster.name_any()));
    context.memory.forget(&namespace, &cluster.name_any());
    context.cluster.remove_finalizer(cluster).await?;
    Ok(Requeue::Never)
}

/// The pods of a stage that haven't ended.
pub(super) fn left(live: &Live, cluster: &CodisCluster, stage: &[&str]) -> Vec<String> {
    let pods = live.pods.iter();
    let left = pods.filter(|pod| is_ours(pod, cluster) && is_of(*pod, stage));
    left.map(ResourceExt::name_any).collect()
}

/// Pods are found by label; those of an older cluster's or somebody's StatefulSet that isn't ours aren't waited for.
fn is_ours(pod: &Pod, cluster: &CodisCluster) -> bool {
    let prefix = format!("{}-", cluster.name_any());
    // Pods of a set that was being made anew have none, for a moment.
    let is_orphan = pod
        .owner_references()
        .iter()
        .all(|owner| owner.controller != Some(true));
    is_orphan
        || pod
            .owner_references()
            .iter()
            .any(|owner| owner.controller == Some(true) && owner.name.starts_with(&prefix))
}

/// Whether an object is of one of these components.
pub(super) fn is_of<K: ResourceExt>(object: &K, stage: &[&str]) -> bool {
    object
        .labels()
        .get(names::LABEL_COMPONENT)
        .is_some_and(|component| stage.contains(&component.as_str()))
}

async fn delete_workloads(context: &Context, live: &Live, stage: &[&str]) -> Result<(), Error> {
    for set in live.stateful_sets.values().filter(|set| is_of(*set, stage)) {
        context.cluster.remove(set).await?;
    }
    for deployment in live.deployments.values().filter(|found| is_of(*found, stage)) {
        context.cluster.remove(deployment).await?;
    }
    Ok(())
}
