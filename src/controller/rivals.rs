//! Two CodisClusters that mean one product on one coordinator: the older one has it.

use kube::ResourceExt;

use super::{Context, Error};
use crate::{
    api::CodisCluster,
    cluster::Live,
    plan::{Decision, reason},
    validate::{SharedProduct, ValidCluster},
};

/// Blocks the younger of two. Before anything of it runs the other ones are looked at as they are now; later only a
/// race of their creation is left to be found.
pub(super) async fn block(
    context: &Context,
    cluster: &CodisCluster,
    valid: &ValidCluster,
    live: &Live,
    decision: &mut Decision,
) -> Result<(), Error> {
    let Some(product) = SharedProduct::of(cluster) else {
        return Ok(());
    };
    let runs = live.stateful_sets.contains_key(&valid.names.dashboard());
    let all = context.cluster.clusters(!runs).await?;
    if let Some(first) = first_of(cluster, &product, &all) {
        let (namespace, name) = (first.namespace().unwrap_or_default(), first.name_any());
        let what = format!(
            "the product {} on this coordinator is that of the CodisCluster {namespace}/{name}, which is older: nothing is made; make this cluster anew with another spec.productName or coordinator, or delete the other one and empty the product",
            valid.product()
        );
        decision.block(reason::PRODUCT_OWNED_ELSEWHERE, what);
    }
    Ok(())
}

/// The oldest of those that mean the same product and are older than this one. One that is being deleted has it until it
/// is gone.
fn first_of<'a>(cluster: &CodisCluster, product: &SharedProduct, all: &'a [CodisCluster]) -> Option<&'a CodisCluster> {
    let age = |cluster: &CodisCluster| {
        let created = cluster.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, cluster.uid())
    };
    let means_the_same = |other: &&CodisCluster| SharedProduct::of(other).is_some_and(|other| other.is_same(product));
    all.iter()
        .filter(|other| other.uid() != cluster.uid() && age(other) < age(cluster))
        .filter(means_the_same)
        .min_by_key(|other| age(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str, created: &str, uid: &str, coordinator: &str) -> CodisCluster {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster",
            "metadata": { "name": name, "namespace": "ns", "uid": uid, "creationTimestamp": created },
            "spec": {
                "coordinatorName": coordinator, "coordinatorAddr": "etcd:2379", "productName": "cache",
                "codisProxy": { "image": "codis", "replicas": 1 },
                "codisServer": { "image": "codis", "replicas": 2, "groupReplicas": 2 },
                "codisDashboard": { "image": "codis" },
            }
        }))
        .unwrap()
    }

    fn first(cluster: &CodisCluster, all: &[CodisCluster]) -> Option<String> {
        let product = SharedProduct::of(cluster)?;
        first_of(cluster, &product, all).map(ResourceExt::name_any)
    }

    #[test]
    fn of_two_with_one_product_the_younger_waits_for_the_other_to_be_gone() {
        let all = [
            cluster("third", "2026-11-23T12:00:02Z", "a", "etcd"),
            cluster("second", "2026-11-23T12:00:01Z", "b", "etcd"),
            cluster("first", "2026-11-23T12:00:00Z", "c", "etcd"),
            cluster("elsewhere", "2026-11-23T11:00:00Z", "d", "zookeeper"),
        ];
        let found = all.each_ref().map(|cluster| first(cluster, &all));
        assert_eq!(found, [Some("first".into()), Some("first".into()), None, None]);
        assert_eq!(first(&all[1], &all[..2]), None, "it is gone");
    }

    #[test]
    fn of_two_that_were_made_in_one_second_the_uid_decides() {
        let made = |name, uid| cluster(name, "2026-11-23T12:00:00Z", uid, "etcd");
        let all = [made("one", "b"), made("other", "a")];
        assert_eq!(first(&all[0], &all).as_deref(), Some("other"));
        assert_eq!(first(&all[1], &all), None);
    }

    #[test]
    fn one_that_is_being_deleted_still_has_its_product() {
        let mut old = cluster("old", "2026-11-23T12:00:00Z", "a", "etcd");
        old.metadata.deletion_timestamp = old.metadata.creation_timestamp.clone();
        let new = cluster("new", "2026-11-23T12:00:01Z", "b", "etcd");
        assert_eq!(first(&new, &[old]).as_deref(), Some("old"));
    }
}
