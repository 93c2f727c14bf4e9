//! What can't be healed without a person is told, and nothing is made worse: lost volumes, a lost topology, a topology of
//! somebody else. And a cluster without sentinels, whose masters the operator replaces.

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::{
    cluster::Cluster,
    health::Snapshot,
    resp::Reply,
    runner::{Story, Told},
    spec::{SMALL, Shape},
    wait::{secs, wait_for},
};

/// One group of two without sentinels, on volumes.
const SHAPE: Shape = Shape {
    groups: 1,
    sentinels: 0,
    proxies: 1,
    fe: 0,
    ..SMALL.volumes(true)
};
/// The key that must survive, or be known to be lost.
const KEY: &[u8] = b"kept";

pub async fn story(story: &mut Story<'_>) -> Told {
    let namespace = story.namespace().await?;
    let cluster = Cluster::new(&namespace, "c");
    story
        .check("a cluster without sentinels becomes Ready", come_up(&cluster))
        .await?;
    story
        .check(
            "the operator itself replaces its master when that is gone",
            replaced(&cluster),
        )
        .await?;
    story
        .check(
            "a lost topology is not assigned anew over keys",
            topology_lost(&cluster),
        )
        .await?;
    story
        .check("with the topology's volume back it goes on", topology_back(&cluster))
        .await?;
    story
        .check(
            "a group whose volumes are all gone waits for a person, and starts empty then",
            group_lost(&cluster),
        )
        .await?;
    story
        .check(
            "a topology with servers of an earlier cluster is left alone",
            in_use(&cluster),
        )
        .await
}

async fn come_up(cluster: &Cluster) -> Result<()> {
    cluster.apply(&SHAPE.cluster(&cluster.name)).await?;
    cluster.ready(secs(180)).await?;
    set(cluster).await
}

/// Sets the key, as soon as the proxy takes it.
async fn set(cluster: &Cluster) -> Result<()> {
    wait_for("the key to be written", secs(30), async || {
        let reply = cluster.client().await?.call(&[b"SET", KEY, b"1"]).await?;
        ensure!(matches!(reply, Reply::Status(_)), "{reply:?}");
        Ok(())
    })
    .await
}

/// Holds a pod off its node for as long as the master must be missing to be replaced.
async fn replaced(cluster: &Cluster) -> Result<()> {
    cluster.lab().schedulable(false).await?;
    let gone = cluster
        .namespace
        .kubectl(&["delete", "pod", "c-g1-0", "--grace-period=0", "--force"])
        .await;
    let promoted = wait_for("the replica to be master", secs(60), async || {
        let topology = cluster.topology().await?;
        let master = topology
            .groups
            .get(&1)
            .and_then(|group| group.servers.first())
            .context("no group")?;
        let addresses = cluster.service_addresses().await?;
        let address = master.address.trim_end_matches(":6379");
        ensure!(
            addresses.get(address).is_some_and(|name| name == "c-g1-1"),
            "master is {master:?}"
        );
        Ok(())
    })
    .await;
    cluster.lab().schedulable(true).await?;
    gone?;
    promoted?;
    wait_for("the old master to be back as a replica", secs(120), async || {
        Snapshot::healthy(cluster).await.map(drop)
    })
    .await?;
    still_there(cluster).await
}

async fn still_there(cluster: &Cluster) -> Result<()> {
    wait_for("the key to be read", secs(30), async || {
        let reply = cluster.client().await?.call(&[b"GET", KEY]).await?;
        ensure!(reply == Reply::Value(Some(b"1".to_vec())), "{reply:?}");
        Ok(())
    })
    .await
}

async fn in_dashboard(cluster: &Cluster, script: &str) -> Result<()> {
    cluster
        .lab()
        .exec(&cluster.namespace.name, "c-dashboard-0", "dashboard", script)
        .await?;
    cluster
        .namespace
        .kubectl(&["delete", "pod", "c-dashboard-0", "--grace-period=0", "--force"])
        .await?;
    Ok(())
}

async fn topology_lost(cluster: &Cluster) -> Result<()> {
    in_dashboard(cluster, "mv /data/codis /data/away").await?;
    let blocked = cluster.condition("Blocked", "True", "TopologyLost", secs(90)).await?;
    println!("        {}: {}", blocked.reason, blocked.message);
    let topology = cluster.topology().await?;
    ensure!(topology.slots.iter().all(|group| *group == 0), "slots were assigned");
    Ok(())
}

async fn topology_back(cluster: &Cluster) -> Result<()> {
    in_dashboard(cluster, "rm -rf /data/codis && mv /data/away /data/codis").await?;
    wait_for("health", secs(120), async || Snapshot::healthy(cluster).await.map(drop)).await?;
    still_there(cluster).await
}

async fn group_lost(cluster: &Cluster) -> Result<()> {
    let claims = ["delete", "pvc", "data-c-g1-0", "data-c-g1-1", "--wait=false"];
    cluster.namespace.kubectl(&claims).await?;
    let pods = ["delete", "pod", "c-g1-0", "c-g1-1", "--grace-period=0", "--force"];
    cluster.namespace.kubectl(&pods).await?;
    let blocked = cluster.condition("Blocked", "True", "GroupLost", secs(180)).await?;
    println!("        {}: {}", blocked.reason, blocked.message);
    let token = blocked.message.rsplit('=').next().context("no token in the message")?;
    let accept = json!({"metadata": {"annotations": {"codis.k8s.io/accept-data-loss": token}}});
    cluster
        .api()
        .patch(&cluster.name, &PatchParams::default(), &Patch::Merge(accept))
        .await?;
    wait_for("health after the loss was accepted", secs(180), async || {
        Snapshot::healthy(cluster).await.map(drop)
    })
    .await?;
    set(cluster).await
}

/// The volumes of a deleted cluster stay; one of the same name has other addresses.
async fn in_use(cluster: &Cluster) -> Result<()> {
    cluster.delete(secs(120)).await?;
    wait_for("its Services to be collected", secs(90), async || {
        ensure!(cluster.service_addresses().await?.is_empty(), "Services are left");
        Ok(())
    })
    .await?;
    cluster.apply(&SHAPE.cluster(&cluster.name)).await?;
    let blocked = cluster
        .condition("Blocked", "True", "ProductOwnedElsewhere", secs(120))
        .await?;
    println!("        {}: {}", blocked.reason, blocked.message);
    Ok(())
}
