//! The servers: one StatefulSet per group (design, decision 2).

use k8s_openapi::api::apps::v1::StatefulSet;

use super::{
    Facts, KEY_BOOTSTRAPPED, KEY_PRODUCT_AUTH,
    meta::Component,
    pod::{self, Data, Pod},
};
use crate::{
    domain::{GroupId, ports},
    validate::ValidCluster,
};

pub(super) fn stateful_set(cluster: &ValidCluster, facts: &Facts, group: GroupId) -> StatefulSet {
    let name = cluster.names.group(group);
    let claim = facts
        .volumes
        .get(&name)
        .cloned()
        .unwrap_or_else(|| cluster.volume.clone());
    let pod = Pod {
        component: Component::Server(group),
        spec: &cluster.server,
        script: "server.sh",
        files: &[
            "redis.conf",
            "members",
            "former-addresses",
            KEY_BOOTSTRAPPED,
            KEY_PRODUCT_AUTH,
        ],
        env: vec![pod::pod_name()],
        ports: &[("redis", ports::SERVER)],
        readiness: pod::tcp("redis"),
        // A server that hangs is the sentinels' affair: a restart by the kubelet could lose what a failover keeps.
        liveness: None,
        leaving: None,
        data: if claim.is_some() { Data::Claim } else { Data::EmptyDir },
    };
    let size = facts.group_size(cluster, group);
    pod::stateful_set(cluster, facts, name, size, "OnDelete", claim.as_ref(), pod)
}
