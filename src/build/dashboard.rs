//! The dashboard: a StatefulSet of one, so that there is never a second writer of the topology.

use std::fmt::Write;

use k8s_openapi::api::apps::v1::StatefulSet;
use sha2::{Digest, Sha256};

use super::{
    Facts, KEY_PRODUCT_CLAIMED,
    meta::Component,
    pod::{self, Data, Pod},
};
use crate::{
    domain::{Address, ports},
    validate::{Coordinator, ValidCluster, Volume},
};

/// The topology of a thousand groups fits many times.
const STORE_SIZE: &str = "1Gi";

/// The Service whose name the dashboard's lock has: no other CodisCluster has it, in this Kubernetes or another one that
/// uses the same coordinator, while the same cluster, made anew, has it again. ClusterIPs are the same everywhere.
pub(super) fn lock_service(cluster: &ValidCluster, facts: &Facts) -> String {
    let digest = Sha256::digest(&facts.kubernetes_uid);
    let kubernetes = digest.iter().take(4).fold(String::new(), |mut word, byte| {
        let _ = write!(word, "{byte:02x}");
        word
    });
    cluster.names.dashboard_in(&kubernetes)
}

/// The address in the dashboard's lock.
pub(super) fn lock_address(cluster: &ValidCluster, facts: &Facts) -> Address {
    let host = format!("{}.{}.svc", lock_service(cluster, facts), cluster.names.namespace);
    Address::new(host, ports::DASHBOARD)
}

pub(super) fn stateful_set(cluster: &ValidCluster, facts: &Facts) -> StatefulSet {
    let name = cluster.names.dashboard();
    let (coordinator, addresses) = match &cluster.coordinator {
        Coordinator::Filesystem => ("filesystem", String::new()),
        Coordinator::Etcd(addresses) => ("etcd", join(addresses)),
        Coordinator::Zookeeper(addresses) => ("zookeeper", join(addresses)),
    };
    let wished = (cluster.coordinator == Coordinator::Filesystem).then(|| Volume {
        class: cluster.volume.as_ref().and_then(|volume| volume.class.clone()),
        size: STORE_SIZE.to_owned(),
    });
    let claim = facts.volumes.get(&name).cloned().unwrap_or(wished);
    let pod = Pod {
        component: Component::Dashboard,
        spec: &cluster.dashboard,
        script: "dashboard.sh",
        files: &["dashboard.toml", "lock-address", KEY_PRODUCT_CLAIMED],
        env: vec![
            pod::value("PRODUCT_NAME", cluster.product()),
            pod::value("COORDINATOR", coordinator),
            pod::value("COORDINATOR_ADDR", addresses),
            pod::value("NCPU", cluster.dashboard.cpus.unwrap_or(2).to_string()),
        ],
        ports: &[("http", ports::DASHBOARD)],
        // 800 until it holds its lock, which is no success (contract §5.1).
        readiness: pod::http("/topom", "http"),
        liveness: None,
        leaving: None,
        data: if claim.is_some() { Data::Claim } else { Data::EmptyDir },
    };
    pod::stateful_set(cluster, facts, name, 1, "RollingUpdate", claim.as_ref(), pod)
}

fn join(addresses: &[Address]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
