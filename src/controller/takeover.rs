//! Taking over what the predecessor deployed: what its dashboard says, and its objects as they are given up (`plan::takeover`
//! decides).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};

use super::{Context, Error, Turn};
use crate::{
    build::{self, Facts, Inherited},
    cluster::{Live, Object, Predecessor, Propagation},
    codis::{self, Codis},
    domain::{Address, DashboardView, Part, Topology, ports},
    plan::{Decision, Desired, reason, takeover_objection},
    validate::ValidCluster,
};

/// Asks the predecessor's dashboard, while there is one, what is to be taken over. Returns why that can't be, or not yet.
pub(super) async fn look(
    context: &Context,
    valid: &ValidCluster,
    live: &Live,
    facts: &mut Facts,
) -> Result<Option<Decision>, Error> {
    let predecessor = &live.predecessor;
    if !predecessor.stateful_sets.contains_key(&Part::Dashboard) {
        return Ok(None);
    }
    let waits = |why: &str| {
        let mut decision = Decision::default();
        let what = format!("the predecessor's dashboard has the topology, and {why}");
        decision.wait(reason::DASHBOARD_NOT_READY, what);
        Ok(Some(decision))
    };
    let Some(ip) = predecessor.dashboards().find_map(ip_of) else {
        return waits("it has no pod that runs");
    };
    let dashboard = Address::new(ip, ports::DASHBOARD);
    let codis = context.codis(valid.product(), facts.auth.product.as_deref(), dashboard.clone())?;
    let topology = match codis.dashboard().await {
        DashboardView::Online { topology, .. } => topology,
        DashboardView::Unavailable(why) => return waits(&format!("doesn't tell it ({dashboard}): {why}")),
    };
    let inherited = inherited(dashboard, &topology, predecessor, facts);
    if live.secret.is_none() {
        let servers = inherited.servers.values().flatten().map(|(_, address)| address.clone());
        let views = codis.servers(servers).await;
        let is_its = |address: &Address| predecessor.servers().filter_map(ip_of).any(|ip| ip == address.host());
        if let Some(objection) = takeover_objection(valid, &topology, &views, is_its) {
            let mut decision = Decision::default();
            let what =
                format!("what the predecessor deployed can't be taken over, and nothing is written: {objection}");
            decision.block(reason::TAKEOVER_BLOCKED, what);
            return Ok(Some(decision));
        }
    }
    facts.inherited = Some(inherited);
    Ok(None)
}

/// Whatever its topology has and isn't ours, and its pods.
fn inherited(dashboard: Address, topology: &Topology, predecessor: &Predecessor, facts: &Facts) -> Inherited {
    let ours: BTreeSet<&String> = facts.addresses.values().chain(facts.former.keys()).collect();
    let pod_at = |host: &str| {
        let mut pods = predecessor.pods.iter();
        pods.find(|pod| ip_of(pod).as_deref() == Some(host))
            .map(ResourceExt::name_any)
    };
    let servers = topology.groups.iter().map(|(group, known)| {
        let addresses = known.servers.iter().map(|server| &server.address);
        let strangers = addresses.filter(|address| !ours.contains(&address.host().to_owned()));
        // One whose pod is gone is told by its address.
        let named = strangers.map(|address| {
            (
                pod_at(address.host()).unwrap_or_else(|| address.to_string()),
                address.clone(),
            )
        });
        (*group, named.collect::<Vec<_>>())
    });
    let servers: BTreeMap<_, _> = servers.filter(|(_, servers)| !servers.is_empty()).collect();
    let members = servers.values().flatten().map(|(_, address)| address);
    let members = members
        .chain(&topology.sentinels.servers)
        .map(|address| address.host().to_owned());
    let hosts = members.filter(|host| !ours.contains(host)).collect();
    Inherited {
        dashboard,
        servers,
        hosts,
    }
}

fn ip_of(pod: &Pod) -> Option<String> {
    let is_there = pod.metadata.deletion_timestamp.is_none();
    pod.status.as_ref()?.pod_ip.clone().filter(|_| is_there)
}

/// Has a server that is about to leave follow nobody: sentinels promote who follows, member or not. One that doesn't answer
/// follows nobody either.
pub(super) async fn detach(codis: &Codis, server: &Address) -> Result<(), codis::Error> {
    match codis.detach(server).await {
        Err(codis::Error::Unreachable { .. } | codis::Error::Timeout { .. }) => Ok(()),
        done => done,
    }
}

/// Gives up one part. What it leaves behind when it breaks off is the same part again.
pub(super) async fn retire(context: &Context, desired: &Desired<'_>, turn: &Turn<'_>, part: Part) -> Result<(), Error> {
    let (cluster, predecessor) = (&context.cluster, &turn.live.predecessor);
    match part {
        Part::Sentinels | Part::Servers | Part::Dashboard => {
            // The StatefulSet last: by it the part is known.
            remove(context, predecessor.services.get(&part)).await?;
            remove(context, predecessor.stateful_sets.get(&part)).await
        }
        Part::Proxies => {
            remove(context, predecessor.autoscaler.as_ref()).await?;
            let Some(proxies) = predecessor.deployments.get(&part) else {
                return Ok(());
            };
            let (name, uid) = (proxies.name_any(), proxies.uid().unwrap_or_default());
            let namespace = &desired.cluster.names.namespace;
            // Its pods serve until ours do.
            cluster
                .delete::<k8s_openapi::api::apps::v1::Deployment>(namespace, &name, &uid, Propagation::Orphan)
                .await?;
            Ok(())
        }
        Part::Fe => remove(context, predecessor.deployments.get(&part)).await,
        Part::ProxyService | Part::FeService => {
            let Some(service) = predecessor.services.get(&part) else {
                return Ok(());
            };
            let wished = build::services(desired.cluster, &turn.facts);
            match wished.iter().find(|wished| wished.meta().name == service.metadata.name) {
                Some(wished) => Ok(cluster.inherit(service, wished).await?),
                None => Ok(cluster.remove(service).await?),
            }
        }
        Part::ProxyPods => {
            for set in &predecessor.replica_sets {
                cluster.remove(set).await?;
            }
            Ok(())
        }
    }
}

async fn remove<K: Object>(context: &Context, object: Option<&K>) -> Result<(), Error> {
    if let Some(object) = object {
        context.cluster.remove(object).await?;
    }
    Ok(())
}
