//! PodDisruptionBudgets and role labels: what evictions go by.

use std::collections::BTreeMap;

use codis_operator::{
    api::{CodisCluster, CodisClusterSpec, names::LABEL_ROLE},
    controller::{Context, reconcile},
    telemetry::{Effects, Metrics},
};
use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::world::{World, spec};

/// The selectors' roles, by the budgets' names; without the dashboard's, which comes and goes with the masters' nodes.
async fn budgets(world: &World) -> BTreeMap<String, Option<String>> {
    let api = world.api::<PodDisruptionBudget>();
    let all = api.list(&ListParams::default()).await.unwrap().items;
    let role = |budget: &PodDisruptionBudget| {
        let selector = budget.spec.as_ref()?.selector.as_ref()?;
        selector.match_labels.as_ref()?.get(LABEL_ROLE).cloned()
    };
    let named = all.iter().map(|budget| (budget.name_any(), role(budget)));
    named.filter(|(name, _)| name != "c-dashboard").collect()
}

fn writes_to_budgets(world: &World) -> usize {
    let writes = world.writes();
    writes.iter().filter(|w| w.resource == "poddisruptionbudgets").count()
}

#[tokio::test]
async fn budgets_come_with_a_cluster_cost_nothing_at_rest_and_leave_those_of_others() {
    let Some(world) = World::new().await else { return };
    // Nobody answers there as Codis, but a coordinator must be reachable before anything is written.
    let coordinator = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut wished = spec();
    wished["coordinatorName"] = json!("etcd");
    wished["coordinatorAddr"] = json!(coordinator.local_addr().unwrap().to_string());
    wished["sentinel"] = json!({ "image": "codis", "replicas": 3 });
    let wished: CodisClusterSpec = serde_json::from_value(wished).unwrap();
    let cluster = CodisCluster::new("c", wished);
    let clusters = world.api::<CodisCluster>();
    let cluster = clusters.create(&PostParams::default(), &cluster).await.unwrap();
    let api = world.api::<PodDisruptionBudget>();

    let context = Context::new(world.door.clone(), Effects::none(), Metrics::default(), true);
    let pass = || reconcile(&context, &world.namespace, "c");
    for _ in 0..2 {
        pass().await.unwrap();
    }
    let role = |role: &str| Some(role.to_owned());
    let expected = [
        ("c-g1-master", role("master")),
        ("c-g1-replicas", role("replica")),
        ("c-g2-master", role("master")),
        ("c-g2-replicas", role("replica")),
        ("c-proxy", None),
        ("c-sentinel", None),
    ];
    let mut expected: BTreeMap<String, _> = expected.map(|(name, role)| (name.to_owned(), role)).into();
    assert_eq!(budgets(&world).await, expected);

    let before = writes_to_budgets(&world);
    pass().await.unwrap();
    assert_eq!(writes_to_budgets(&world), before, "nothing changed");

    // One that an earlier spec wished for, and one that somebody else made for these pods.
    let mut unwished = json!({ "metadata": world.meta(&cluster, "c-g9-replicas"),
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "codis.k8s.io/group": "9" } } } });
    api.create(
        &PostParams::default(),
        &serde_json::from_value(unwished.clone()).unwrap(),
    )
    .await
    .unwrap();
    unwished["metadata"] = json!({ "name": "theirs", "labels": { "codis.k8s.io/cluster": "c" } });
    api.create(&PostParams::default(), &serde_json::from_value(unwished).unwrap())
        .await
        .unwrap();
    pass().await.unwrap();
    expected.insert("theirs".to_owned(), None);
    assert_eq!(budgets(&world).await, expected);
}

#[tokio::test]
async fn a_label_is_set_on_the_pod_that_was_read_and_on_no_other_of_its_name() {
    let Some(world) = World::new().await else { return };
    let pods = world.api::<Pod>();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "c-g1-0", "labels": { LABEL_ROLE: "replica", "mine": "stays" } },
        "spec": { "containers": [{ "name": "server", "image": "codis" }] },
    }))
    .unwrap();
    let first = pods.create(&PostParams::default(), &pod).await.unwrap();
    world.door.label(&first, LABEL_ROLE, "master").await.unwrap();
    let read = pods.get("c-g1-0").await.unwrap();
    assert_eq!(
        (read.labels()[LABEL_ROLE].as_str(), read.labels()["mine"].as_str()),
        ("master", "stays")
    );

    let now = DeleteParams::default().grace_period(0);
    pods.delete("c-g1-0", &now).await.unwrap();
    assert_eq!(
        world.door.label(&first, LABEL_ROLE, "master").await,
        Ok(()),
        "gone is fine"
    );
    pods.create(&PostParams::default(), &pod).await.unwrap();
    assert_eq!(world.door.label(&first, LABEL_ROLE, "master").await, Ok(()));
    let anew = pods.get("c-g1-0").await.unwrap();
    assert_eq!(anew.labels()[LABEL_ROLE], "replica", "another pod has the name now");
}
