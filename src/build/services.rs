//! The Services: one per component for users, one per server and sentinel pod as its fixed address.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    Facts, dashboard,
    meta::{self, Component},
};
use crate::{domain::ports, validate::ValidCluster};

/// The label that a StatefulSet's controller puts on each of its pods.
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";

pub(super) fn build(cluster: &ValidCluster, facts: &Facts) -> Vec<Service> {
    let names = &cluster.names;
    let mut all = vec![
        internal(
            cluster,
            names.dashboard(),
            Component::Dashboard,
            &[("http", ports::DASHBOARD)],
        ),
        internal(
            cluster,
            dashboard::lock_service(cluster, facts),
            Component::Dashboard,
            &[("http", ports::DASHBOARD)],
        ),
        public(
            cluster,
            names.proxy(),
            Component::Proxy,
            &cluster.proxy_service,
            ("redis", ports::PROXY),
        ),
    ];
    for group in cluster.group_ids() {
        let component = Component::Server(group);
        all.push(headless(
            cluster,
            names.group(group),
            component,
            ("redis", ports::SERVER),
        ));
        for ordinal in 0..facts.group_size(cluster, group) {
            all.push(per_pod(
                cluster,
                names.server_pod(group, ordinal),
                component,
                ("redis", ports::SERVER),
            ));
        }
    }
    if cluster.sentinel.is_some() {
        all.push(headless(
            cluster,
            names.sentinel(),
            Component::Sentinel,
            ("sentinel", ports::SENTINEL),
        ));
    }
    for ordinal in 0..cluster.sentinel_count() {
        let pod = names.sentinel_pod(ordinal);
        all.push(per_pod(
            cluster,
            pod,
            Component::Sentinel,
            ("sentinel", ports::SENTINEL),
        ));
    }
    if let Some((_, service)) = &cluster.fe {
        all.push(public(cluster, names.fe(), Component::Fe, service, ("http", ports::FE)));
    }
    for service in &mut all {
        ask_for_recorded_address(service, &facts.addresses);
    }
    all
}

fn ask_for_recorded_address(service: &mut Service, recorded: &BTreeMap<String, String>) {
    let address = service.metadata.name.as_ref().and_then(|name| recorded.get(name));
    if let (Some(spec), Some(address)) = (&mut service.spec, address)
        && spec.cluster_ip.is_none()
    {
        spec.cluster_ip = Some(address.clone());
    }
}

/// What users connect to. Node ports are the API server's to give and to keep: never applied.
fn public(
    cluster: &ValidCluster,
    name: String,
    component: Component,
    wish: &crate::validate::Service,
    port: (&str, u16),
) -> Service {
    let mut service = internal(cluster, name, component, &[port]);
    if !wish.annotations.is_empty() {
        service.metadata.annotations = Some(wish.annotations.clone());
    }
    if let Some(spec) = &mut service.spec {
        spec.type_ = Some(wish.kind.clone());
        spec.publish_not_ready_addresses = None;
    }
    service
}

/// Published before its pod is ready: the address must work from the first moment on.
fn internal(cluster: &ValidCluster, name: String, component: Component, ports: &[(&str, u16)]) -> Service {
    Service {
        metadata: meta::object(cluster, name, component),
        spec: Some(ServiceSpec {
            selector: Some(meta::selector_labels(&cluster.names, component)),
            ports: Some(ports.iter().map(|(name, port)| service_port(name, *port)).collect()),
            publish_not_ready_addresses: Some(true),
            type_: Some("ClusterIP".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The governing Service of a StatefulSet.
fn headless(cluster: &ValidCluster, name: String, component: Component, port: (&str, u16)) -> Service {
    let mut service = internal(cluster, name, component, &[port]);
    if let Some(spec) = &mut service.spec {
        spec.cluster_ip = Some("None".to_owned());
    }
    service
}

/// The fixed address of one pod (design, decision 1).
fn per_pod(cluster: &ValidCluster, pod: String, component: Component, port: (&str, u16)) -> Service {
    let mut service = internal(cluster, pod.clone(), component, &[port]);
    if let Some(selector) = service.spec.as_mut().and_then(|spec| spec.selector.as_mut()) {
        selector.insert(POD_NAME_LABEL.to_owned(), pod);
    }
    service
}

fn service_port(name: &str, port: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: port.into(),
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..Default::default()
    }
}
