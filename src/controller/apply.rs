//! Objects to the API server: Services first, workloads once every address is known.

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Secret, Service},
    },
    jiff::Timestamp,
};
use kube::ResourceExt;

use super::{Context, Error, adoption, nodes, observe, rivals, teardown::ORDER};
use crate::{
    api::{CodisCluster, names},
    build::{self, Addresses, Component, Facts},
    cluster::{Applied, Live, difference},
    codis,
    domain::Part,
    plan::{Decision, reason},
    validate::{Coordinator, ValidCluster},
};

/// Why nothing may be written for this cluster, if so.
pub(super) async fn refusal(
    context: &Context,
    cluster: &CodisCluster,
    valid: &ValidCluster,
    live: &Live,
) -> Result<Option<Decision>, Error> {
    let mut decision = Decision::default();
    rivals::block(context, cluster, valid, live, &mut decision).await?;
    let inherited = live.predecessor.first();
    // A takeover that was begun goes on.
    let is_new =
        !live.stateful_sets.contains_key(&valid.names.dashboard()) && (inherited.is_none() || live.secret.is_none());
    if let (Some(first), false) = (&inherited, valid.adopt) {
        let what = format!(
            "{first} of the predecessor exists: nothing is written until the cluster is marked for adoption with the annotation codis.k8s.io/adopt=true, or those objects are gone"
        );
        decision.block(reason::ADOPTION_REQUIRED, what);
    } else if is_new {
        // Only before anything runs: a storage class that goes away later must not stop healing.
        storage(context, valid, &mut decision).await?;
        coordinator(context, valid, &mut decision).await;
        if decision.blocked.is_empty() && !valid.brakes.observe {
            adoption::volumes(context, cluster, valid, live, &mut decision).await?;
        }
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

async fn coordinator(context: &Context, valid: &ValidCluster, decision: &mut Decision) {
    let (Coordinator::Etcd(addresses) | Coordinator::Zookeeper(addresses)) = &valid.coordinator else {
        return;
    };
    if let Err(why) = codis::coordinator_reachable(&context.link, addresses).await {
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
    let (mut is_new, now) = (false, context.clock.now());
    for service in build::services(valid, facts) {
        let found = service.metadata.name.as_ref().and_then(|name| live.services.get(name));
        if found.is_some() && is_held(valid, &service, now) || live.predecessor.has(&service) {
            continue;
        }
        let applied = match context.cluster.apply(found, &service).await {
            // Somebody took its address while it didn't exist: Codis is told of the new one (`plan::readdress`).
            Err(error) if found.is_none() && error.is_address_refused() => {
                tracing::warn!(%error, "a Service gets another address than it had");
                context.cluster.apply(found, &without_address(service)).await?
            }
            done => done?,
        };
        is_new |= applied == Applied::Created;
    }
    // A missing address is one that isn't assigned yet.
    Ok(if is_new {
        None
    } else {
        build::addresses(valid, facts).ok()
    })
}

fn without_address(mut service: Service) -> Service {
    if let Some(spec) = &mut service.spec {
        spec.cluster_ip = None;
    }
    service
}

/// Applies what runs, and before it what it reads. What a person holds isn't changed, but made where it is missing.
pub(super) async fn workloads(
    context: &Context,
    valid: &ValidCluster,
    live: &Live,
    workloads: build::Workloads,
) -> Result<bool, Error> {
    let cluster = &context.cluster;
    let now = context.clock.now();
    let holds = |component: &str| valid.brakes.stops(component, now).is_some();
    let config = with_held_files(&workloads.config, live.secret.as_ref(), holds);
    cluster.apply(live.secret.as_ref(), &config).await?;
    if !holds("proxy") || live.connection.is_none() {
        cluster.apply(live.connection.as_ref(), &workloads.connection).await?;
    }
    let mut changed = false;
    for set in &workloads.stateful_sets {
        let found = set.metadata.name.as_ref().and_then(|name| live.stateful_sets.get(name));
        // One that is going is on its way to be made anew.
        let is_going = found.is_some_and(|found| found.metadata.deletion_timestamp.is_some());
        let is_kept = is_going || found.is_some() && is_held(valid, set, now);
        if !is_kept && !live.predecessor.has(set) {
            changed |= cluster.apply(found, set).await? == Applied::Changed;
        }
    }
    // Before the number of proxies is ours again.
    if let (None, Some(old), false) = (&workloads.autoscaler, &live.autoscaler, holds("proxy")) {
        cluster.remove(old).await?;
    }
    for deployment in &workloads.deployments {
        let name = deployment.metadata.name.clone().unwrap_or_default();
        let found = live.deployments.get(&name);
        // Changes of what runs go one component after another; what is missing is made at once, and numbers don't wait.
        let is_later = (changed || rolls_later(&name, valid, live)) && !valid.brakes.hibernate;
        let next = match found {
            Some(_) if is_held(valid, deployment, now) => continue,
            _ if live.predecessor.has(deployment) => continue,
            Some(found) if is_later && restarts(found, deployment) => with_template_of(found, deployment),
            _ => deployment.clone(),
        };
        changed |= cluster.apply(found, &next).await? == Applied::Changed;
    }
    // After the number of proxies was handed over.
    let is_inherited = live.predecessor.deployments.contains_key(&Part::Proxies);
    if let Some(scaler) = workloads
        .autoscaler
        .as_ref()
        .filter(|_| !holds("proxy") && !is_inherited)
    {
        cluster.apply(live.autoscaler.as_ref(), scaler).await?;
    }
    if valid.fe.is_none() && !holds("fe") {
        without_fe(context, valid, live).await?;
    }
    Ok(changed)
}

/// The files that each component reads when it starts.
const FILES: [(&str, &[&str]); 4] = [
    ("dashboard", &["dashboard.toml"]),
    ("sentinel", &["sentinel.conf"]),
    (
        "proxy",
        &["proxy.toml", build::KEY_SESSION_AUTH, build::KEY_SESSION_ROTATIONS],
    ),
    ("server", &["redis.conf"]),
];

/// The configuration with the files of held components as they are: pods that are made anew by themselves read them.
fn with_held_files(config: &Secret, live: Option<&Secret>, holds: impl Fn(&str) -> bool) -> Secret {
    let mut config = config.clone();
    let known = live.and_then(|live| live.data.as_ref());
    for (_, files) in FILES.iter().filter(|(component, _)| holds(component)) {
        for file in *files {
            if let (Some(data), Some(value)) = (&mut config.data, known.and_then(|known| known.get(*file))) {
                data.insert((*file).to_owned(), value.clone());
            }
        }
    }
    config
}

/// Why nothing may be sent to sleep.
pub(super) fn anything_held(valid: &ValidCluster, now: Timestamp) -> Option<String> {
    let mut all = ORDER.concat().into_iter();
    let held = all.find_map(|component| valid.brakes.stops(component, now))?;
    Some(format!("spec.hibernate: waits, because changes are stopped: {held}"))
}

/// A Deployment as it is wished, but for its pods.
fn with_template_of(live: &Deployment, wished: &Deployment) -> Deployment {
    let mut later = wished.clone();
    if let (Some(later), Some(live)) = (&mut later.spec, &live.spec) {
        later.template = live.template.clone();
    }
    later
}

/// Applies which pods may be evicted, and removes what is no longer wished.
pub(super) async fn budgets(context: &Context, valid: &ValidCluster, live: &Live, facts: &Facts) -> Result<(), Error> {
    let wished = build::budgets(valid, facts);
    for budget in &wished {
        let found = budget.metadata.name.as_ref().and_then(|name| live.budgets.get(name));
        context.cluster.apply(found, budget).await?;
    }
    for (name, budget) in &live.budgets {
        if !wished.iter().any(|wished| wished.metadata.name.as_ref() == Some(name)) {
            context.cluster.remove(budget).await?;
        }
    }
    Ok(())
}

/// The front end keeps nothing: where the spec has none any more, it goes.
async fn without_fe(context: &Context, valid: &ValidCluster, live: &Live) -> Result<(), Error> {
    let name = valid.names.fe();
    if let Some(deployment) = live.deployments.get(&name) {
        context.cluster.remove(deployment).await?;
    }
    if let Some(service) = live.services.get(&name) {
        context.cluster.remove(service).await?;
    }
    Ok(())
}

/// Whether a Deployment's pods would be made anew.
fn restarts(live: &Deployment, wished: &Deployment) -> bool {
    let template = |deployment: &Deployment| {
        let spec = deployment.spec.as_ref();
        serde_json::to_value(spec.map(|spec| &spec.template)).unwrap_or_default()
    };
    difference(&template(wished), &template(live)).is_some()
}

/// Whether a Deployment's turn hasn't come: the dashboard is rolled first, then the front end, the sentinels and the
/// proxies; servers are last (`plan`). A new dashboard that doesn't come up so stops everything behind it.
fn rolls_later(name: &str, valid: &ValidCluster, live: &Live) -> bool {
    let rolling = observe::rolling(live);
    let names = &valid.names;
    let is_proxy = *name == names.proxy();
    let mut sentinels = observe::of_component(live, Component::Sentinel.name());
    rolling.contains(&names.dashboard())
        || is_proxy && (rolling.contains(&names.fe()) || sentinels.any(|pod| nodes::is_outdated(pod, live)))
}

/// Whether a person holds the component of an object.
fn is_held<K: ResourceExt>(valid: &ValidCluster, object: &K, now: Timestamp) -> bool {
    let component = object.labels().get(names::LABEL_COMPONENT);
    component.is_some_and(|component| valid.brakes.stops(component, now).is_some())
}
