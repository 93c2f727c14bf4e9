//! The sentinels. They keep no state (design, decision 5).

use k8s_openapi::api::apps::v1::StatefulSet;

use super::{
    meta::Component,
    pod::{self, Data, Pod},
};
use crate::{domain::ports, validate::ValidCluster};

/// A master that doesn't answer for this long, in milliseconds, is dead to a sentinel.
pub const DOWN_AFTER_MS: u32 = 5_000;
/// How long a failover may take, in milliseconds; a failed one is tried again after twice as long.
pub const FAILOVER_TIMEOUT_MS: u32 = 30_000;
/// How many replicas follow a new master at a time.
pub const PARALLEL_SYNCS: u32 = 1;

pub(super) fn stateful_set(cluster: &ValidCluster) -> Option<StatefulSet> {
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
        data: Data::EmptyDir,
    };
    let name = cluster.names.sentinel();
    Some(pod::stateful_set(
        cluster,
        name,
        sentinel.replicas,
        "OnDelete",
        None,
        pod,
    ))
}
