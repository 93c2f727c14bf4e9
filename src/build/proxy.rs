//! The proxies.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        autoscaling::v2::{
            CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
            MetricTarget, ResourceMetricSource,
        },
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    Facts,
    meta::{self, Component},
    pod::{self, Data, Leaving, Pod},
};
use crate::{domain::ports, validate::ValidCluster};

/// Longer than kube-proxy on every node takes to hear that a proxy leaves, in seconds.
const LINGERS: u16 = 5;
/// What a proxy has to stop, in seconds, once its clients are gone: it takes one.
const STOPS_WITHIN: u16 = 10;

pub(super) fn deployment(cluster: &ValidCluster, facts: &Facts) -> Deployment {
    let pod = Pod {
        component: Component::Proxy,
        spec: &cluster.proxy,
        script: "proxy.sh",
        files: &["proxy.toml", "proxy-ready.sh", "proxy-drain.sh", "dashboard-address"],
        env: vec![
            pod::field("POD_IP", "status.podIP"),
            // Kubernetes 1.35 and later copy it from the node when the pod is given to it; earlier ones leave it empty.
            pod::field("ZONE", "metadata.labels['topology.kubernetes.io/zone']"),
            pod::value("NCPU", cluster.proxy_sizing.ncpu.to_string()),
        ],
        ports: &[("redis", ports::PROXY), ("admin", ports::PROXY_ADMIN)],
        readiness: pod::script("proxy-ready.sh"),
        liveness: None,
        leaving: Some(Leaving {
            script: "proxy-drain.sh",
            arguments: [LINGERS, cluster.proxy_drain].map(|seconds| seconds.to_string()).into(),
            within: LINGERS + cluster.proxy_drain + STOPS_WITHIN,
        }),
        data: Data::Memory,
    };
    // An autoscaler's number isn't ours to apply, once there is one. From none it never scales: it is woken by us.
    let is_scaled = cluster.proxy_scaling.is_some() && facts.proxies.is_some_and(|proxies| proxies > 0);
    let (surge, unavailable) = cluster.proxy_rollout;
    Deployment {
        metadata: meta::object(cluster, cluster.names.proxy(), Component::Proxy),
        spec: Some(DeploymentSpec {
            replicas: (!is_scaled).then_some(cluster.proxy.replicas.into()),
            selector: meta::selector(&cluster.names, Component::Proxy),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge.unwrap_or(1))),
                    max_unavailable: Some(IntOrString::Int(unavailable.unwrap_or(0))),
                }),
            }),
            template: pod.template(cluster, facts),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Follows the CPU use of the proxies.
pub(super) fn autoscaler(cluster: &ValidCluster) -> Option<HorizontalPodAutoscaler> {
    let scaling = cluster.proxy_scaling?;
    let name = cluster.names.proxy();
    Some(HorizontalPodAutoscaler {
        metadata: meta::object(cluster, name.clone(), Component::Proxy),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name,
            },
            min_replicas: Some(scaling.min),
            max_replicas: scaling.max,
            metrics: Some(vec![MetricSpec {
                type_: "Resource".to_owned(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".to_owned(),
                    target: MetricTarget {
                        type_: "Utilization".to_owned(),
                        average_utilization: Some(scaling.cpu_percent),
                        ..Default::default()
                    },
                }),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        ..Default::default()
    })
}
