//! Objects to the API server: Services first, workloads once every address is known.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{Context, Error, nodes, observe};
use crate::{
    api::names::LABEL_COMPONENT,
    build::{self, Addresses, Component, Facts},
    cluster::{Applied, Live},
    codis,
    plan::{Decision, reason},
    validate::{Coordinator, ValidCluster},
};

/// Why nothing may be written for this cluster, if so.
pub(super) async fn refusal(context: &Context, valid: &ValidCluster, live: &Live) -> Result<Option<Decision>, Error> {
    let mut decision = Decision::default();
    if let [first, ..] = live.predecessor.as_slice() {
        let what = if valid.adopt {
            format!("{first} of the predecessor exists: taking it over is not in this version, and nothing is written")
        } else {
            format!(
                "{first} of the predecessor exists: nothing is written until the cluster is marked for adoption with the annotation codis.k8s.io/adopt=true, or those objects are gone"
            )
        };
        decision.block(reason::ADOPTION_REQUIRED, what);
    } else if !live.stateful_sets.contains_key(&valid.names.dashboard()) {
        // Only before anything runs: a storage class that goes away later must not stop healing.
        storage(context, valid, &mut decision).await?;
        coordinator(valid, &mut decision).await;
    }
    Ok((!decision.blocked.is_empty()).then_some(decision))
}

async fn storage(context: &Context, valid: &ValidCluster, decision: &mut Decision) -> Result<(), Error> {
    const FIELD: &str = "spec.codisServer.storageClassName";
    let class = valid.volume.as_ref().and_then(|volume| volume.class.as_deref());
    let needs_default = class.is_none() && (valid.volume.is_some() || valid.coordinator == Coordinator::Filesystem);
    if let Some(class) = class
        && !context.cluster.storage_class(class).await?
    {
        let what = format!("{FIELD}: there is no StorageClass {class}: create it or name another");
        decision.block(reason::INVALID_SPEC, what);
    }
    if needs_default && context.cluster.default_storage_class().await?.is_none() {
        let what =
            format!("{FIELD}: there is no default StorageClass: name one, the dashboard keeps the topology on it");
        decision.block(reason::INVALID_SPEC, what);
    }
    Ok(())
}

async fn coordinator(valid: &ValidCluster, decision: &mut Decision) {
    let (Coordinator::Etcd(addresses) | Coordinator::Zookeeper(addresses)) = &valid.coordinator else {
        return;
    };
    if let Err(why) = codis::coordinator_reachable(addresses).await {
        let what = format!("spec.coordinatorAddr: no coordinator answers there: {why}");
        decision.block(reason::INVALID_SPEC, what);
    }
}

/// Applies the Services. The members' addresses, or none when a Service was just made: it is read back first.
pub(super) async fn services(
    context: &Context,
    valid: &ValidCluster,
    live: &Live,
    facts: &Facts,
) -> Result<Option<Addresses>, Error> {
    let mut is_new = false;
    for service in build::services(valid, facts) {
        let found = service.metadata.name.as_ref().and_then(|name| live.services.get(name));
        is_new |= context.cluster.apply(found, &service).await? == Applied::Created;
    }
    // A missing address is one that isn't assigned yet.
    Ok(if is_new {
        None
    } else {
        build::addresses(valid, facts).ok()
    })
}

/// Applies what runs, and before it what it reads.
pub(super) async fn workloads(
    context: &Context,
    valid: &ValidCluster,
    live: &Live,
    facts: &Facts,
    addresses: &Addresses,
) -> Result<(), Error> {
    let build::Workloads {
        config,
        stateful_sets,
        deployments,
    } = build::workloads(valid, facts, addresses);
    context.cluster.apply(live.secret.as_ref(), &config).await?;
    let mut changed = false;
    for set in stateful_sets {
        let found = set.metadata.name.as_ref().and_then(|name| live.stateful_sets.get(name));
        let applied = context.cluster.apply(found, &set).await?;
        changed |= applied == Applied::Changed;
    }
    for deployment in deployments {
        let name = deployment.metadata.name.clone().unwrap_or_default();
        let found = live.deployments.get(&name);
        // Changes go one component after another; what is missing is made at once.
        if found.is_some() && (changed || rolls_later(&name, valid, live)) {
            continue;
        }
        changed |= context.cluster.apply(found, &deployment).await? == Applied::Changed;
    }
    Ok(())
}

/// Whether a Deployment's turn hasn't come: the dashboard is rolled first, then the front end, the sentinels and the
/// proxies; servers are last (`plan`). A new dashboard that doesn't come up so stops everything behind it.
fn rolls_later(name: &str, valid: &ValidCluster, live: &Live) -> bool {
    let rolling = observe::rolling(live);
    let names = &valid.names;
    let is_proxy = *name == names.proxy();
    let is_outdated_sentinel = |pod: &Pod| {
        pod.labels()
            .get(LABEL_COMPONENT)
            .is_some_and(|component| component == Component::Sentinel.name())
            && nodes::is_outdated(pod, live)
    };
    rolling.contains(&names.dashboard())
        || is_proxy && (rolling.contains(&names.fe()) || live.pods.iter().any(is_outdated_sentinel))
}
