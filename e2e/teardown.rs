//! Deleting a cluster removes what it made, and keeps its volumes.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::support::{
    cluster::Cluster,
    runner::{Story, Told},
    wait::{secs, wait_for},
};

const KINDS: &str = "statefulsets,deployments,replicasets,services,secrets,configmaps,pods,poddisruptionbudgets,\
                     horizontalpodautoscalers,serviceaccounts";

/// Deletes the cluster and looks at what stays.
pub async fn checks(story: &mut Story<'_>, cluster: &Cluster) -> Told {
    story
        .check(
            "deleting it removes all that it made, and keeps its volumes",
            delete(cluster),
        )
        .await
}

async fn delete(cluster: &Cluster) -> Result<()> {
    let made = objects(cluster).await?;
    ensure!(made.len() >= 10, "there was nearly nothing to remove: {made:?}");
    let volumes = volumes(cluster).await?;
    ensure!(!volumes.is_empty(), "there was no volume to keep");
    cluster.delete(secs(180)).await?;
    wait_for("its objects to be gone", secs(120), async || {
        let left = objects(cluster).await?;
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    })
    .await?;
    let kept = self::volumes(cluster).await?;
    ensure!(kept == volumes, "volumes before {volumes:?}, after {kept:?}");
    println!("        removed {} objects, kept {} volumes", made.len(), kept.len());
    Ok(())
}

/// What the cluster made, as kind/name. The dump of the topology outlives it with the volumes.
async fn objects(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let listed = cluster
        .namespace
        .kubectl(&["get", KINDS, "-l", &cluster.selector(), "-o", "name"])
        .await?;
    let dump = format!("/{}-topology", cluster.name);
    Ok(listed
        .lines()
        .filter(|name| !name.ends_with(&dump))
        .map(str::to_owned)
        .collect())
}

/// Every claim of the namespace, with its identity and volume.
async fn volumes(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let columns = "custom-columns=:metadata.name,:metadata.uid,:spec.volumeName,:metadata.deletionTimestamp";
    let listed = cluster
        .namespace
        .kubectl(&["get", "pvc", "--no-headers", "-o", columns])
        .await?;
    Ok(listed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect())
}
