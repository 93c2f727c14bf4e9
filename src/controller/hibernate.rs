//! `hibernate: true`: the pods end in the order of a teardown, and nothing but them goes. Waking needs no code: what is
//! applied is the wished number again, the dashboard and the servers first, and healing does the rest.

use super::teardown::{self, ORDER, is_of};
use crate::{
    api::CodisCluster,
    build::{Facts, Workloads},
    cluster::Live,
    validate::ValidCluster,
};

/// Why a cluster can't hibernate.
pub(super) fn objection(valid: &ValidCluster, facts: &Facts) -> Option<String> {
    let persistent = super::facts::persistent(valid, facts);
    let lost: Vec<String> = valid
        .group_ids()
        .filter(|group| !persistent.contains(group))
        .map(|group| group.to_string())
        .collect();
    (!lost.is_empty()).then(|| {
        format!(
            "spec.hibernate: groups {} keep their data on emptyDir, which ends with the pods: set it to false; only a cluster with spec.codisServer.requests.storage can hibernate",
            lost.join(", ")
        )
    })
}

/// Asks for no pods, stage by stage: a stage begins when the pods of the one before have ended. What is waited for.
pub(super) fn send_to_sleep(workloads: &mut Workloads, live: &Live, cluster: &CodisCluster) -> Option<String> {
    for stage in ORDER {
        for set in &mut workloads.stateful_sets {
            if is_of(set, stage)
                && let Some(spec) = &mut set.spec
            {
                spec.replicas = Some(0);
            }
        }
        for deployment in &mut workloads.deployments {
            if is_of(deployment, stage)
                && let Some(spec) = &mut deployment.spec
            {
                spec.replicas = Some(0);
            }
        }
        let left = teardown::left(live, cluster, stage);
        if !left.is_empty() {
            return Some(format!("waits for pods to end: {}", left.join(", ")));
        }
    }
    None
}
