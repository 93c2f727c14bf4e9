//! What is: pods as Kubernetes has them, Codis as it answers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition},
    jiff::Timestamp,
};
use kube::ResourceExt;

use super::{Context, dump, nodes, switchover, volumes};
use crate::{
    api::{CodisCluster, names},
    build::{Component, Facts, GATE_MESSAGE, OWNED_ELSEWHERE},
    cluster::Live,
    codis::Codis,
    domain::{
        Address, DashboardView, Group, GroupId, LostClaim, MemberPod, NodeView, Observed, Part, ProxyPod, SentinelView,
        ServerView, SlotId, SlotMapping, StatelessPod,
    },
    plan::Desired,
    validate::ValidCluster,
};

/// A volume whose node's object has been missing for so many seconds is lost: nodes are also made anew under their names.
const FORGET_AFTER: u64 = 60;

pub(super) async fn observe(
    context: &Context,
    codis: &Codis,
    desired: &Desired<'_>,
    live: &Live,
    facts: &Facts,
    cluster: &CodisCluster,
) -> Observed {
    let addresses = desired.addresses;
    // The dashboard first: it answers only after a promotion that runs, while servers answer at once. An order that is
    // newer than what the servers said would look like one that everybody forgot.
    let dashboard = codis.dashboard().await;
    let (servers, sentinels) = tokio::join!(
        codis.servers(addresses.members().cloned()),
        codis.sentinels(addresses.sentinels.iter().cloned()),
    );
    let servers = lasting_fences(codis, desired, servers).await;
    let silent = silent(&dashboard, &servers, &sentinels);
    let names = &desired.cluster.names;
    let down_for = context.memory.silent(names.key(), silent, context.clock.instant());
    let now = context.clock.now();
    let (nodes, lost_claims) = node_views(context, desired, live, now).await;
    let inherited = live.predecessor.proxies().map(|pod| ProxyPod {
        inherited: true,
        ..proxy_pod(pod, now)
    });
    let proxy_pods: Vec<ProxyPod> = of_component(live, Component::Proxy.name())
        .map(|pod| proxy_pod(pod, now))
        .chain(inherited)
        .collect();
    let predecessor = live.predecessor.parts();
    // One that somebody deleted is checked like any other one, and written again.
    let dump = context
        .memory
        .dump(names.key(), dump::read(live, &names.uid), &names.uid);
    let evidence = dump::evidence(codis, dump.as_ref(), &dashboard, &servers, &proxy_pods).await;
    Observed {
        servers,
        server_pods: pods_at(
            live,
            &nodes,
            now,
            desired.servers().map(|(pod, (_, address))| (pod, address)),
        ),
        sentinel_pods: pods_at(live, &nodes, now, desired.sentinels()),
        intent: switchover::intent_of(cluster, desired, facts),
        rolling: rolling(live),
        failed_moves: context.memory.failed_moves(&names.key(), context.clock.instant()),
        proxy_pods,
        dump,
        evidence,
        dashboard_pod: of_component(live, Component::Dashboard.name())
            .next()
            .map(|pod| member_pod(pod, live, &nodes, now)),
        stateless_pods: [Component::Proxy, Component::Fe]
            .iter()
            .flat_map(|component| of_component(live, component.name()))
            .map(stateless_pod)
            .collect(),
        lost_claims,
        nodes,
        balanced: balanced(cluster, desired.cluster, &dashboard),
        moving_for: context
            .memory
            .moving(names.key(), begun(&dashboard), context.clock.instant()),
        owned_elsewhere: of_component(live, Component::Dashboard.name()).find_map(owned_elsewhere),
        disagreeing_for: context.memory.disagreeing(
            names.key(),
            disagreeing(desired, &dashboard, &sentinels),
            context.clock.instant(),
        ),
        sentinels,
        claimed: facts.claimed,
        bootstrapped: facts.bootstrapped.clone(),
        down_for: down_for.into_iter().collect(),
        unready: unready(desired, live),
        unused_for: context
            .memory
            .unused(names.key(), unused(&predecessor), context.clock.instant()),
        predecessor,
        dashboard,
    }
}

/// The predecessor's proxies, once their Service leads to ours.
fn unused(predecessor: &BTreeSet<Part>) -> BTreeSet<Part> {
    let is_unused = predecessor.contains(&Part::ProxyPods) && !predecessor.contains(&Part::ProxyService);
    is_unused.then_some(Part::ProxyPods).into_iter().collect()
}

/// The groups that have their share of the slots, by the status; by what they have, where it never said.
fn balanced(cluster: &CodisCluster, valid: &ValidCluster, dashboard: &DashboardView) -> BTreeSet<GroupId> {
    let dealt_with = cluster.status.as_ref().and_then(|status| status.rebalanced.as_ref());
    // A rebalance is asked for: none has its share until all have.
    if valid.rebalance.is_some() && valid.rebalance.as_ref() != dealt_with {
        return BTreeSet::new();
    }
    let told = cluster.status.as_ref().and_then(|status| status.balanced.clone());
    match (told, dashboard) {
        (Some(told), _) => {
            let ids = told.into_iter().filter_map(|id| u64::try_from(id).ok());
            ids.filter_map(|id| GroupId::try_from(id).ok()).collect()
        }
        (None, DashboardView::Online { topology, .. }) => topology.slots.iter().filter_map(|slot| slot.group).collect(),
        (None, DashboardView::Unavailable(_)) => BTreeSet::new(),
    }
}

/// The slots that are on their way and can't be called back.
fn begun(dashboard: &DashboardView) -> Vec<SlotId> {
    let DashboardView::Online { topology, .. } = dashboard else {
        return Vec::new();
    };
    let begun = |slot: &&SlotMapping| slot.moving.is_some_and(|moving| !moving.pending);
    topology.slots.iter().filter(begun).map(|slot| slot.id).collect()
}

/// The groups of which most sentinels name another master than the dashboard, also by an address that it had.
fn disagreeing(
    desired: &Desired<'_>,
    dashboard: &DashboardView,
    sentinels: &BTreeMap<Address, Result<SentinelView, String>>,
) -> BTreeSet<GroupId> {
    let DashboardView::Online { topology, .. } = dashboard else {
        return BTreeSet::new();
    };
    let quorum = usize::from(desired.cluster.sentinel_count()) / 2;
    let is_disputed = |group: &&Group| {
        let Some(master) = group.master() else { return false };
        let name = format!("{}-{}", desired.cluster.product(), group.id);
        let known = sentinels.values().flatten().filter_map(|view| view.masters.get(&name));
        let is_another = |known: &Address| known != master && desired.present(known) != *master;
        known.filter(|known| is_another(&known.address)).count() > quorum
    };
    let groups = topology.groups.values().filter(is_disputed);
    groups.map(|group| group.id).collect()
}

/// With bounded durability every server asks for a replica, always: a fence is what asks for more. INFO doesn't tell
/// for how many it asks.
async fn lasting_fences(
    codis: &Codis,
    desired: &Desired<'_>,
    mut servers: BTreeMap<Address, ServerView>,
) -> BTreeMap<Address, ServerView> {
    const ASKS_FOR: &str = "min-slaves-to-write";
    let good = desired.cluster.good_replicas;
    for (address, view) in servers.iter_mut().filter(|_| good > 0) {
        if let ServerView::Up {
            fenced: fenced @ true, ..
        } = view
        {
            let asks_for = codis.config_of(address, &[ASKS_FOR]).await.ok();
            let asks_for = asks_for.and_then(|all| all.get(ASKS_FOR)?.parse::<u32>().ok());
            *fenced = asks_for.is_none_or(|asks_for| asks_for > good);
        }
    }
    servers
}

/// Servers, sentinels and proxies that don't answer.
fn silent(
    dashboard: &DashboardView,
    servers: &BTreeMap<Address, ServerView>,
    sentinels: &BTreeMap<Address, Result<SentinelView, String>>,
) -> Vec<Address> {
    let servers = servers
        .iter()
        .filter(|(_, view)| matches!(view, ServerView::Unreachable(_)));
    let sentinels = sentinels.iter().filter(|(_, view)| view.is_err());
    let mut silent: Vec<Address> = servers
        .map(|(address, _)| address)
        .chain(sentinels.map(|(address, _)| address))
        .cloned()
        .collect();
    if let DashboardView::Online { topology, .. } = dashboard {
        let proxies = topology.proxies.iter().filter(|proxy| proxy.error.is_some());
        silent.extend(proxies.map(|proxy| proxy.admin.clone()));
    }
    silent
}

/// Workloads whose controllers are replacing pods of an old template.
pub(super) fn rolling(live: &Live) -> Vec<String> {
    let sets = live.stateful_sets.iter().filter(|(_, set)| {
        let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        let rolls = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("RollingUpdate");
        let status = set.status.clone().unwrap_or_default();
        // One that no controller has seen is new.
        let is_unseen = status
            .observed_generation
            .is_some_and(|seen| Some(seen) != set.metadata.generation);
        is_unseen || rolls && status.current_revision != status.update_revision
    });
    let deployments = live.deployments.iter().filter(|(_, deployment)| {
        let status = deployment.status.clone().unwrap_or_default();
        let wished = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let (all, updated) = (status.replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0));
        let is_unseen = status
            .observed_generation
            .is_some_and(|seen| Some(seen) != deployment.metadata.generation);
        is_unseen || status.observed_generation.is_some() && (updated < wished || all > updated)
    });
    sets.map(|(name, _)| name)
        .chain(deployments.map(|(name, _)| name))
        .cloned()
        .collect()
}

/// The pods of a component; of all groups for servers.
pub(super) fn of_component<'a>(live: &'a Live, component: &'a str) -> impl Iterator<Item = &'a Pod> {
    live.pods.iter().filter(move |pod| {
        pod.labels()
            .get(names::LABEL_COMPONENT)
            .is_some_and(|value| value == component)
    })
}

/// The nodes, those that are missing included, and the claims that were lost with them.
async fn node_views(
    context: &Context,
    desired: &Desired<'_>,
    live: &Live,
    now: Timestamp,
) -> (BTreeMap<String, NodeView>, BTreeMap<Address, LostClaim>) {
    let names = &desired.cluster.names;
    let nodes = context.cluster.nodes().await;
    let mut views = nodes::views(&nodes, now);
    let lost = volumes::lost(context, desired, live, &nodes).await;
    let mut missing = nodes::missing(live, &views);
    let without_node = lost.iter().filter(|(_, claim)| !claim.may_return);
    missing.extend(without_node.map(|(_, claim)| claim.node.clone()));
    let key = names.key();
    let missing = context.memory.missing(key, missing, context.clock.instant());
    // One that is only away for a moment isn't gone.
    let is_gone = |node: &String| missing.get(node).is_some_and(|seconds| *seconds >= FORGET_AFTER);
    let is_told = |claim: &LostClaim| claim.may_return || is_gone(&claim.node);
    let lost = lost.into_iter().filter(|(_, claim)| is_told(claim)).collect();
    views.extend(missing.into_iter().map(|(node, seconds)| {
        let gone_for = Some(seconds);
        (
            node,
            NodeView {
                gone_for,
                ..NodeView::default()
            },
        )
    }));
    (views, lost)
}

fn stateless_pod(pod: &Pod) -> StatelessPod {
    StatelessPod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        terminating: pod.metadata.deletion_timestamp.is_some(),
    }
}

/// The pods of servers or sentinels, by the members' addresses.
fn pods_at(
    live: &Live,
    nodes: &BTreeMap<String, NodeView>,
    now: Timestamp,
    members: impl Iterator<Item = (String, Address)>,
) -> BTreeMap<Address, MemberPod> {
    let all = live.pods.iter().chain(&live.predecessor.pods);
    let by_name: BTreeMap<String, &Pod> = all.map(|pod| (pod.name_any(), pod)).collect();
    let found = members.filter_map(|(name, address)| Some((address, by_name.get(&name)?)));
    found
        .map(|(address, pod)| (address, member_pod(pod, live, nodes, now)))
        .collect()
}

fn member_pod(pod: &Pod, live: &Live, nodes: &BTreeMap<String, NodeView>, now: Timestamp) -> MemberPod {
    MemberPod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        outdated: nodes::is_outdated(pod, live),
        never_ready: never_ready(pod),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        not_running: nodes::is_proven_gone(pod, nodes),
        ready: is_ready(pod),
        running_for: running_for(pod, now),
        unready_for: unready_for(pod, now),
        at_gate: container(pod).is_some_and(is_at_the_gate) && !is_ready(pod),
        stopped_empty: pod.metadata.deletion_timestamp.is_none()
            && container(pod).is_some_and(|status| !is_running(status) && is_at_the_gate(status)),
    }
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_none_or(|state| state.running.is_some())
}

/// The start gate ended the container when it last ran.
fn is_at_the_gate(status: &ContainerStatus) -> bool {
    last_word(status).is_some_and(|message| message.trim() == GATE_MESSAGE)
}

/// What the container said when it last ended.
fn last_word(status: &ContainerStatus) -> Option<String> {
    let ended = |state: Option<&ContainerState>| state.and_then(|state| state.terminated.clone());
    let last = ended(status.state.as_ref()).or_else(|| ended(status.last_state.as_ref()));
    last?.message
}

/// Why a dashboard's entry script doesn't start it, where the product is somebody else's.
fn owned_elsewhere(pod: &Pod) -> Option<String> {
    let why = container(pod).filter(|_| !is_ready(pod)).and_then(last_word)?;
    why.trim().strip_prefix(OWNED_ELSEWHERE).map(str::to_owned)
}

fn proxy_pod(pod: &Pod, now: Timestamp) -> ProxyPod {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    ProxyPod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        ip: pod.status.as_ref().and_then(|status| status.pod_ip.clone()),
        ready: is_ready(pod),
        ending: pod.metadata.deletion_timestamp.is_some() || matches!(phase, "Failed" | "Succeeded"),
        running_for: running_for(pod, now),
        inherited: false,
    }
}

fn running_for(pod: &Pod, now: Timestamp) -> Option<u64> {
    let since = container(pod)?.state.as_ref()?.running.as_ref()?.started_at.clone()?;
    Some(u64::try_from(now.duration_since(since.0).as_secs()).unwrap_or(0))
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == "Ready")
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|ready| ready.status == "True") && pod.metadata.deletion_timestamp.is_none()
}

/// Whether it isn't ready and hasn't been since it was started.
fn never_ready(pod: &Pod) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.clone());
    let changed = ready_condition(pod).and_then(|ready| ready.last_transition_time.clone());
    match (started, changed) {
        // The kubelet notes that it isn't ready right when it starts it.
        (Some(started), Some(changed)) => !is_ready(pod) && changed.0.duration_since(started.0).as_secs() <= 2,
        _ => !is_ready(pod),
    }
}

/// For how many seconds the pod hasn't been ready, by the kubelet's clock.
fn unready_for(pod: &Pod, now: Timestamp) -> Option<u64> {
    let unready = ready_condition(pod).filter(|ready| ready.status != "True")?;
    let since = unready
        .last_transition_time
        .as_ref()
        .or(pod.metadata.creation_timestamp.as_ref())?;
    u64::try_from(now.duration_since(since.0).as_secs()).ok()
}

/// The scheduler's word that no node takes it, for now.
fn unscheduled(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
}

/// Whether no node takes the pod, for now.
pub(super) fn is_unschedulable(pod: &Pod) -> bool {
    unscheduled(pod).is_some()
}

/// Why a pod can't run, where Kubernetes or its own last word says it: no node takes it, its image can't be pulled, it ends
/// again and again.
fn trouble(pod: &Pod) -> Option<String> {
    const LONGEST: usize = 300;
    let waiting = container(pod).and_then(|status| status.state.as_ref()?.waiting.clone());
    let reason = waiting
        .and_then(|waiting| waiting.reason)
        .filter(|reason| reason != "ContainerCreating");
    let unscheduled = unscheduled(pod);
    let why = reason.or_else(|| unscheduled.and_then(|condition| condition.message.clone()))?;
    let word = container(pod).and_then(last_word).unwrap_or_default();
    let word: String = word.trim().chars().take(LONGEST).collect();
    let why = if word.is_empty() { why } else { format!("{why}, {word}") };
    Some(format!("{}: {why}", pod.name_any()))
}

/// Components whose wished pods aren't all ready, like `proxy 2/3`.
fn unready(desired: &Desired<'_>, live: &Live) -> Vec<String> {
    let cluster = desired.cluster;
    let groups = u16::try_from(cluster.group_ids().count()).unwrap_or(u16::MAX);
    let servers = groups.saturating_mul(cluster.group_size);
    let mut wished = vec![("dashboard", 1), ("server", servers), ("proxy", cluster.proxy.replicas)];
    wished.push(("sentinel", cluster.sentinel_count()));
    wished.extend(cluster.fe.iter().map(|(fe, _)| ("fe", fe.replicas)));
    // Where the predecessor's stand, ours aren't made yet.
    let inherited = live.predecessor.parts();
    let stands = [
        ("dashboard", Part::Dashboard),
        ("proxy", Part::Proxies),
        ("fe", Part::Fe),
    ];
    wished.retain(|(component, _)| {
        !stands
            .iter()
            .any(|(of, part)| of == component && inherited.contains(part))
    });
    let ready = |component: &str| of_component(live, component).filter(|pod| is_ready(pod)).count();
    let missing = wished
        .into_iter()
        .map(|(component, wished)| (component, usize::from(wished), ready(component)));
    missing
        .filter(|(_, wished, ready)| ready < wished)
        .map(|(component, wished, ready)| {
            let why = of_component(live, component)
                .find_map(trouble)
                .map_or(String::new(), |why| format!(" ({why})"));
            format!("{component} {ready}/{wished}{why}")
        })
        .collect()
}
