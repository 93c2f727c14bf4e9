//! The proxies.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    meta::{self, Component},
    pod::{self, Data, Pod},
};
use crate::{domain::ports, validate::ValidCluster};

pub(super) fn deployment(cluster: &ValidCluster) -> Deployment {
    let pod = Pod {
        component: Component::Proxy,
        spec: &cluster.proxy,
        script: "proxy.sh",
        files: &["proxy.toml", "proxy-ready.sh", "dashboard-address"],
        env: vec![
            pod::field("POD_IP", "status.podIP"),
            pod::value("NCPU", cluster.proxy_sizing.ncpu.to_string()),
        ],
        ports: &[("redis", ports::PROXY), ("admin", ports::PROXY_ADMIN)],
        readiness: pod::script("proxy-ready.sh"),
        liveness: None,
        data: Data::None,
    };
    let (surge, unavailable) = cluster.proxy_rollout;
    Deployment {
        metadata: meta::object(cluster, cluster.names.proxy(), Component::Proxy),
        spec: Some(DeploymentSpec {
            replicas: Some(cluster.proxy.replicas.into()),
            selector: meta::selector(&cluster.names, Component::Proxy),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge.unwrap_or(1))),
                    max_unavailable: Some(IntOrString::Int(unavailable.unwrap_or(0))),
                }),
            }),
            template: pod.template(cluster),
            ..Default::default()
        }),
        ..Default::default()
    }
}
