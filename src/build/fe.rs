//! The web front end.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};

use super::{
    Facts,
    meta::{self, Component},
    pod::{self, Data, Pod},
};
use crate::{domain::ports, validate::ValidCluster};

pub(super) fn deployment(cluster: &ValidCluster, facts: &Facts) -> Option<Deployment> {
    let (fe, _) = cluster.fe.as_ref()?;
    let pod = Pod {
        component: Component::Fe,
        spec: fe,
        script: "fe.sh",
        files: &["dashboards.json"],
        env: vec![pod::value("NCPU", fe.cpus.unwrap_or(1).to_string())],
        ports: &[("http", ports::FE)],
        readiness: pod::http("/list", "http"),
        liveness: Some(pod::tcp("http")),
        leaving: None,
        data: Data::None,
    };
    Some(Deployment {
        metadata: meta::object(cluster, cluster.names.fe(), Component::Fe),
        spec: Some(DeploymentSpec {
            replicas: Some(fe.replicas.into()),
            selector: meta::selector(&cluster.names, Component::Fe),
            template: pod.template(cluster, facts),
            ..Default::default()
        }),
        ..Default::default()
    })
}
