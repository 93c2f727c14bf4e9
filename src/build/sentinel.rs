//! The sentinels. They keep no state (design, decision 5).

use k8s_openapi::api::apps::v1::StatefulSet;

use super::{
    Facts,
    meta::Component,
    pod::{self, Data, Pod},
};
use crate::{domain::ports, validate::ValidCluster};

pub(super) fn stateful_set(cluster: &ValidCluster, facts: &Facts) -> Option<StatefulSet> {
    let sentinel = cluster.sentinel.as_ref()?;
    let pod = Pod {
        component: Component::Sentinel,
        spec: sentinel,
        script: "sentinel.sh",
        files: &["sentinel.conf", "sentinels"],
        env: vec![pod::pod_name()],
        ports: &[("sentinel", ports::SENTINEL)],
        readiness: pod::tcp("sentinel"),
        liveness: Some(pod::tcp("sentinel")),
        leaving: None,
        data: Data::EmptyDir,
    };
    let name = cluster.names.sentinel();
    Some(pod::stateful_set(
        cluster,
        facts,
        name,
        sentinel.replicas,
        "OnDelete",
        None,
        pod,
    ))
}
