//! What stories do to a cluster, and what they ask of it more than once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use codis_operator::api::{PromotionStatus, names};

use crate::support::{
    cluster::Cluster,
    health::{PodView, Snapshot},
    processes::signal,
    wait::{secs, wait_for},
};

/// Writes that may be lost with a master that died: replication is asynchronous, and what its replica hadn't got is gone.
pub const REPLICATION_LAG: usize = 20;

/// Asks for a promotion, as `kubectl codis promote` does; gives the request.
pub async fn ask_to_promote(cluster: &Cluster, group: i64, pod: Option<&str>, nonce: &str) -> Result<String> {
    let pod = pod.map_or(String::new(), |pod| format!("/{pod}"));
    let request = format!("{group}{pod}@{nonce}");
    cluster.annotate(names::ANNOTATION_PROMOTE, Some(&request)).await?;
    Ok(request)
}

/// Waits until a request is dealt with, and no switchover is under way any more.
pub async fn dealt_with(cluster: &Cluster, request: &str, limit: Duration) -> Result<PromotionStatus> {
    wait_for(&format!("the promotion {request}"), limit, async || {
        let status = cluster.status().await?;
        ensure!(status.switchover.is_none(), "under way: {:?}", status.switchover);
        let promotion = status.promotion.filter(|promotion| promotion.request == request);
        promotion.with_context(|| format!("nothing is said of it; the message is {:?}", status.message))
    })
    .await
}

/// Waits until another pod than this one is a group's master, by the dashboard; gives it.
pub async fn another_master(cluster: &Cluster, group: i64, old: &str, limit: Duration) -> Result<String> {
    wait_for("another master", limit, async || {
        let master = Snapshot::take(cluster).await?.master_of(group)?;
        ensure!(master != old, "{old} is master still");
        Ok(master)
    })
    .await
}

/// A pod of a snapshot.
pub fn pod<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a PodView> {
    snapshot.pods.get(name).with_context(|| format!("no pod {name}"))
}

/// Deletes a pod without grace; its process is killed first, so that it can't say goodbye.
pub async fn destroy(cluster: &Cluster, snapshot: &Snapshot, name: &str) -> Result<Instant> {
    let at = Instant::now();
    signal([pod(snapshot, name)?], "SIGKILL").await?;
    let args = ["delete", "pod", name, "--grace-period=0", "--force", "--wait=false"];
    cluster.namespace.kubectl(&args).await?;
    Ok(at)
}

/// Keeps a group's master away until another one is master, then lets it come back; gives both.
pub async fn fail_over(cluster: &Cluster, snapshot: &Snapshot, group: i64) -> Result<(String, String)> {
    let old = snapshot.master_of(group)?;
    cluster.lab().schedulable(false).await?;
    let switched = async {
        destroy(cluster, snapshot, &old).await?;
        another_master(cluster, group, &old, secs(60)).await
    }
    .await;
    cluster.lab().schedulable(true).await?;
    Ok((old, switched?))
}

/// A figure in milliseconds, in order: the middle one, and the greatest.
pub fn spread(figures: &[Duration]) -> String {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    let of = |part: usize| sorted.get(((sorted.len() * part).div_ceil(100)).saturating_sub(1));
    let ms = |figure: Option<&Duration>| figure.map_or(0.0, |figure| figure.as_secs_f64() * 1000.0);
    format!(
        "median {:.0} ms, p95 {:.0} ms, longest {:.0} ms, of {}",
        ms(of(50)),
        ms(of(95)),
        ms(sorted.last()),
        sorted.len()
    )
}
