//! What is: pods as Kubernetes has them, Codis as it answers.

use std::{collections::BTreeMap, time::Instant};

use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition},
    jiff::Timestamp,
};
use kube::ResourceExt;

use super::Context;
use crate::{
    api::names,
    build::{Component, Facts, GATE_MESSAGE},
    cluster::Live,
    codis::Codis,
    domain::{Address, MemberPod, Observed, ProxyPod, ServerView},
    plan::Desired,
};

pub(super) async fn observe(
    context: &Context,
    codis: &Codis,
    desired: &Desired<'_>,
    live: &Live,
    facts: &Facts,
) -> Observed {
    let addresses = desired.addresses;
    // The dashboard first: it answers only after a promotion that runs, while servers answer at once. An order that is
    // newer than what the servers said would look like one that everybody forgot.
    let dashboard = codis.dashboard().await;
    let (servers, sentinels) = tokio::join!(
        codis.servers(addresses.servers.values().flatten().cloned()),
        codis.sentinels(addresses.sentinels.iter().cloned()),
    );
    let servers = unfenced(servers, desired.cluster.good_replicas);
    let silent: Vec<Address> = servers
        .iter()
        .filter(|(_, view)| matches!(view, ServerView::Unreachable(_)))
        .map(|(address, _)| address.clone())
        .collect();
    let names = &desired.cluster.names;
    let down_for = context
        .memory
        .silent(&names.namespace, &names.cluster, Instant::now(), &silent);
    let now = Timestamp::now();
    Observed {
        dashboard,
        servers,
        sentinels,
        server_pods: server_pods(desired, live, now),
        sentinel_pods: BTreeMap::new(),
        nodes: BTreeMap::new(),
        intent: None,
        failed_moves: BTreeMap::new(),
        proxy_pods: of_component(live, Component::Proxy.name())
            .map(|pod| proxy_pod(pod, now))
            .collect(),
        bootstrapped: facts.bootstrapped.clone(),
        down_for: down_for.into_iter().collect(),
        unready: unready(desired, live),
    }
}

/// With bounded durability every master asks for a replica: that is no fence.
fn unfenced(mut servers: BTreeMap<Address, ServerView>, good_replicas: u32) -> BTreeMap<Address, ServerView> {
    for view in servers.values_mut().filter(|_| good_replicas > 0) {
        if let ServerView::Up { fenced, .. } = view {
            *fenced = false;
        }
    }
    servers
}

/// The pods of a component; of all groups for servers.
fn of_component<'a>(live: &'a Live, component: &'a str) -> impl Iterator<Item = &'a Pod> {
    live.pods.iter().filter(move |pod| {
        pod.labels()
            .get(names::LABEL_COMPONENT)
            .is_some_and(|value| value == component)
    })
}

fn server_pods(desired: &Desired<'_>, live: &Live, now: Timestamp) -> BTreeMap<Address, MemberPod> {
    let by_name: BTreeMap<String, &Pod> = live.pods.iter().map(|pod| (pod.name_any(), pod)).collect();
    let mut pods = BTreeMap::new();
    for (group, servers) in &desired.addresses.servers {
        for (ordinal, address) in (0..).zip(servers) {
            if let Some(pod) = by_name.get(&desired.cluster.names.server_pod(*group, ordinal)) {
                pods.insert(address.clone(), member_pod(pod, now));
            }
        }
    }
    pods
}

fn member_pod(pod: &Pod, now: Timestamp) -> MemberPod {
    MemberPod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        outdated: false,
        terminating: pod.metadata.deletion_timestamp.is_some(),
        not_running: false,
        ready: is_ready(pod),
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
    let ended = |state: Option<&ContainerState>| state.and_then(|state| state.terminated.clone());
    let last = ended(status.state.as_ref()).or_else(|| ended(status.last_state.as_ref()));
    last.and_then(|ended| ended.message)
        .is_some_and(|message| message.trim() == GATE_MESSAGE)
}

fn proxy_pod(pod: &Pod, now: Timestamp) -> ProxyPod {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    let running = container(pod).and_then(|status| status.state.as_ref()?.running.as_ref()?.started_at.clone());
    ProxyPod {
        name: pod.name_any(),
        ip: pod.status.as_ref().and_then(|status| status.pod_ip.clone()),
        ready: is_ready(pod),
        ending: pod.metadata.deletion_timestamp.is_some() || matches!(phase, "Failed" | "Succeeded"),
        running_for: running.map(|since| u64::try_from(now.duration_since(since.0).as_secs()).unwrap_or(0)),
    }
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

fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|ready| ready.status == "True") && pod.metadata.deletion_timestamp.is_none()
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

/// Components whose wished pods aren't all ready, like `proxy 2/3`.
fn unready(desired: &Desired<'_>, live: &Live) -> Vec<String> {
    let cluster = desired.cluster;
    let servers = cluster.groups * cluster.group_size;
    let mut wished = vec![("dashboard", 1), ("server", servers), ("proxy", cluster.proxy.replicas)];
    wished.push(("sentinel", cluster.sentinel_count()));
    wished.extend(cluster.fe.iter().map(|(fe, _)| ("fe", fe.replicas)));
    let ready = |component: &str| of_component(live, component).filter(|pod| is_ready(pod)).count();
    let missing = wished
        .into_iter()
        .map(|(component, wished)| (component, usize::from(wished), ready(component)));
    missing
        .filter(|(_, wished, ready)| ready < wished)
        .map(|(component, wished, ready)| format!("{component} {ready}/{wished}"))
        .collect()
}
