//! A deleted cluster whose data goes with it leaves nothing in a coordinator that outlives it: groups that name servers which
//! are no more would be in the way of the next cluster of this name.

use std::time::Duration;

use kube::ResourceExt;

use super::{Context, Error, event, observe, passwords, storage};
use crate::{
    api::CodisCluster,
    build::Component,
    cluster::{EventKind, Live},
    codis::{self, Codis},
    domain::{Address, DashboardView, Topology, ports},
};

/// A deletion isn't held up for longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes the product's content out of the coordinator, while the dashboard is there to do it. False: try again.
pub(super) async fn vacate(context: &Context, cluster: &CodisCluster, live: &Live) -> Result<bool, Error> {
    let is_inside = ["filesystem", "fs"].contains(&cluster.spec.coordinator_name.as_str());
    let goes = cluster.spec.codis_server.volume_retention.as_deref() == Some("Delete");
    // Without a ready dashboard it isn't our product, or nobody can say.
    let mut dashboards = observe::of_component(live, Component::Dashboard.name());
    if is_inside || !dashboards.any(observe::is_ready) || !goes && storage::outlives(context, cluster).await? {
        return Ok(true);
    }
    let Some(codis) = door(context, cluster, live)? else {
        return Ok(true);
    };
    let done = match codis.dashboard().await {
        DashboardView::Online { topology, .. } => empty(&codis, &topology).await.map_err(|error| error.to_string()),
        DashboardView::Unavailable(why) => Err(why),
    };
    let Err(why) = done else { return Ok(true) };
    let since = cluster.metadata.deletion_timestamp.as_ref().map(|at| at.0);
    let waited = since.map(|since| context.clock.now().duration_since(since));
    if waited.is_none_or(|waited| waited.unsigned_abs() < PATIENCE) {
        tracing::warn!(
            cluster = cluster.name_any(),
            why,
            "the product isn't out of the coordinator yet"
        );
        return Ok(false);
    }
    let what =
        format!("the product stays in the coordinator, and will be in the way of another cluster of this name: {why}");
    event(context, cluster, EventKind::Warning, "ProductLeft", "Delete", &what).await;
    Ok(true)
}

fn door(context: &Context, cluster: &CodisCluster, live: &Live) -> Result<Option<Codis>, Error> {
    let service = live.services.get(&format!("{}-dashboard", cluster.name_any()));
    let ip = service.and_then(|service| service.spec.as_ref()?.cluster_ip.clone());
    let (Some(ip), Some(secret)) = (ip, &live.secret) else {
        return Ok(None);
    };
    let auth = passwords::in_force(secret);
    let name = cluster.name_any();
    let codis = context.codis(
        cluster.spec.product_name.as_deref().unwrap_or(&name),
        auth.product.as_deref(),
        Address::new(ip, ports::DASHBOARD),
    )?;
    Ok(Some(codis))
}

/// Proxies and servers have ended: their records go, dead as they are.
async fn empty(codis: &Codis, topology: &Topology) -> Result<(), codis::Error> {
    for proxy in &topology.proxies {
        codis.remove_proxy(&proxy.token).await?;
    }
    let assigned = topology.slots.iter().filter(|slot| slot.group.is_some());
    codis.take_offline(assigned.map(|slot| slot.id)).await?;
    for sentinel in &topology.sentinels.servers {
        codis.remove_sentinel(sentinel, true).await?;
    }
    for group in topology.groups.values() {
        // The master leaves as the last one.
        for server in group.servers.iter().rev() {
            codis.remove_server(group.id, &server.address).await?;
        }
        codis.remove_group(group.id).await?;
    }
    Ok(())
}
