//! Whose a product is: two CodisClusters of one Kubernetes, and two of two.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use codis_operator::{
    api::{CodisCluster, CodisClusterSpec},
    cluster::Object,
    controller::{Context, Requeue, reconcile},
    telemetry::{Effects, Metrics},
};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Pod, Secret, Service},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    dashboard::{DashboardPod, Etcd},
    support::apiserver::{other_server, server},
    world::{World, spec},
};

const PRODUCT: &str = "cache";
/// The same in both: only the Kubernetes tells them apart.
const NAMESPACE: &str = "product";

/// Where the names in their locks lead.
const FIRST: &str = "127.0.0.1:18080";
const SECOND: &str = "127.0.0.2:18080";

/// A CodisCluster `c` with its operator.
struct Side {
    world: World,
    context: Arc<Context>,
}

fn on_etcd(addr: &str) -> CodisClusterSpec {
    let mut spec = spec();
    spec["coordinatorName"] = json!("etcd");
    spec["coordinatorAddr"] = json!(addr);
    spec["productName"] = json!(PRODUCT);
    serde_json::from_value(spec).unwrap()
}

fn operator(world: &World) -> Arc<Context> {
    Context::new(world.door.clone(), Effects::none(), Metrics::default(), true)
}

impl Side {
    async fn new(world: World, etcd: &Etcd) -> Self {
        let cluster = CodisCluster::new("c", on_etcd(&etcd.addr));
        world.api().create(&PostParams::default(), &cluster).await.unwrap();
        let side = Self {
            context: operator(&world),
            world,
        };
        side.passes().await;
        side
    }

    /// Some passes: Services first, workloads once their addresses were read back.
    async fn passes(&self) -> Requeue {
        let mut last = Requeue::Never;
        for _ in 0..3 {
            last = Box::pin(reconcile(&self.context, &self.world.namespace, "c"))
                .await
                .unwrap();
        }
        last
    }

    async fn secret(&self) -> BTreeMap<String, String> {
        let secret: Secret = self.world.api().get("c-config").await.unwrap();
        let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
        let data = secret.data.unwrap().into_iter();
        data.map(|(name, value)| (name, text(value.0))).collect()
    }

    /// The dashboard's pod as the StatefulSet has it, behind its Service where that is on loopback. Here nothing resolves
    /// the names of Services, as codis-dashboard does with its address: `resolved` is where it would lead.
    async fn pod(&self, resolved: &str) -> DashboardPod {
        let set: StatefulSet = self.world.api().get("c-dashboard").await.unwrap();
        let containers = set.spec.unwrap().template.spec.unwrap().containers;
        let environment = containers[0].env.clone().unwrap_or_default().into_iter();
        let environment = environment.filter_map(|variable| Some((variable.name, variable.value?)));
        let secret = self.secret().await;
        let pod = DashboardPod::new(&secret, &environment.collect(), &secret["dashboard-address"]);
        pod.file("lock-address", resolved);
        pod
    }

    /// What the StatefulSet's controller and the kubelet do with a container that ends with these words.
    async fn kubelet_tells(&self, message: &str) {
        let pods: Api<Pod> = self.world.api();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "c-dashboard-0", "labels": {
                "codis.k8s.io/cluster": "c", "codis.k8s.io/component": "dashboard" } },
            "spec": { "containers": [{ "name": "dashboard", "image": "codis" }] },
        }))
        .unwrap();
        if pods.get_opt("c-dashboard-0").await.unwrap().is_none() {
            pods.create(&PostParams::default(), &pod).await.unwrap();
        }
        let ended = json!({ "exitCode": 1, "reason": "Error", "message": message });
        let container = json!({ "name": "dashboard", "image": "codis", "imageID": "", "ready": false, "restartCount": 3,
            "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": { "terminated": ended } });
        let status = json!({ "status": { "phase": "Running", "containerStatuses": [container],
            "conditions": [{ "type": "Ready", "status": "False" }] } });
        let patch = Patch::Merge(status);
        pods.patch_status("c-dashboard-0", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// The product that is marked as this one's, by the status.
    async fn product(&self) -> Option<String> {
        let cluster: CodisCluster = self.world.api().get("c").await.unwrap();
        cluster.status?.product
    }

    async fn is_blocked(&self, words: &str) {
        let blocked = blocked(&self.world, "c").await;
        assert_eq!(blocked["reason"], "ProductOwnedElsewhere", "{blocked}");
        assert!(blocked["message"].as_str().unwrap().contains(words), "{blocked}");
    }
}

/// The condition Blocked of a cluster.
async fn blocked(world: &World, name: &str) -> Value {
    let cluster: CodisCluster = world.api().get(name).await.unwrap();
    let mut conditions = cluster.status.unwrap_or_default().conditions.into_iter();
    let blocked = conditions.find(|condition| condition.type_ == "Blocked");
    serde_json::to_value(blocked).unwrap()
}

async fn names<K: Object>(world: &World) -> Vec<String> {
    let found = world.api::<K>().list(&ListParams::default()).await.unwrap();
    found.items.iter().map(ResourceExt::name_any).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_kubernetes_with_one_product_the_second_writes_nothing_and_says_why() {
    let (Some(one), Some(other), Some(etcd)) = (server().await, other_server().await, Etcd::start().await) else {
        return;
    };
    for server in [one, other] {
        server.create_namespace(NAMESPACE).await;
    }
    let first = Side::new(World::of(other, NAMESPACE.to_owned()), &etcd).await;
    let second = Side::new(World::of(one, NAMESPACE.to_owned()), &etcd).await;
    let locks = [&first, &second].map(async |side| side.secret().await["lock-address"].clone());
    let [one, other] = futures::future::join_all(locks).await.try_into().unwrap();
    assert_ne!(one, other, "each Kubernetes has a lock of its own");
    for (side, lock) in [(&first, &one), (&second, &other)] {
        let service = lock.strip_suffix(".product.svc:18080").unwrap().to_owned();
        assert!(names::<Service>(&side.world).await.contains(&service), "{lock}");
    }

    // The first finds it empty and marks it; killed, its dashboard goes on.
    let dashboard = first.pod(FIRST).await.start().await;
    assert_eq!(
        (first.secret().await["product-claimed"].as_str(), first.product().await),
        ("", None)
    );
    first.passes().await;
    assert_eq!(first.secret().await["product-claimed"], "cache\n");
    assert_eq!(first.product().await.as_deref(), Some(PRODUCT));
    dashboard.create_group(PRODUCT, 1).await;
    dashboard.kill();
    let dashboard = first.pod(FIRST).await.start().await;

    // The lock.
    let held = etcd.dump().await;
    let pod = second.pod(SECOND).await;
    second.kubelet_tells(&pod.refused()).await;
    second.passes().await;
    second.is_blocked("is held by the dashboard 127.0.0.1:18080").await;
    assert_eq!(etcd.dump().await, held);

    assert_eq!(second.product().await, None);

    // The content: the first one's dashboard is down for a while.
    dashboard.stop();
    let left = etcd.dump().await;
    second.kubelet_tells(&pod.refused()).await;
    second.passes().await;
    second
        .is_blocked("has groups, and isn't marked as this cluster's")
        .await;
    assert_eq!(second.secret().await["product-claimed"], "");
    assert_eq!(etcd.dump().await, left);

    // What isn't about whose it is is told all the same.
    second.kubelet_tells("the etcd can't be read").await;
    second.passes().await;
    let cluster: CodisCluster = second.world.api().get("c").await.unwrap();
    let message = cluster.status.unwrap().message.unwrap();
    assert!(
        message.contains("c-dashboard-0: CrashLoopBackOff, the etcd can't be read"),
        "{message}"
    );
    assert_eq!(blocked(&second.world, "c").await["status"], "False");

    // Going, it leaves everything as it is.
    let (clusters, pods) = (second.world.api::<CodisCluster>(), second.world.api::<Pod>());
    clusters.delete("c", &DeleteParams::default()).await.unwrap();
    second.passes().await;
    pods.delete("c-dashboard-0", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert_eq!(second.passes().await, Requeue::Never);
    assert!(clusters.get_opt("c").await.unwrap().is_none());
    assert_eq!(etcd.dump().await, left);
}

#[tokio::test]
async fn of_two_clusters_with_one_product_the_younger_makes_nothing_until_the_older_is_gone() {
    let (Some(old), Some(new)) = (World::new().await, World::new().await) else {
        return;
    };
    let create = async |world: &World, name: &str, addr: &str| {
        let cluster = CodisCluster::new(name, on_etcd(addr));
        world.api().create(&PostParams::default(), &cluster).await.unwrap()
    };
    let first = create(&old, "first", "127.0.0.1:1,etcd.example:2379").await;
    let mut second = create(&new, "second", "http://ETCD.example:2379").await;
    // Made in one second, the uid would decide.
    while second.creation_timestamp() == first.creation_timestamp() {
        new.api::<CodisCluster>()
            .delete("second", &DeleteParams::default())
            .await
            .unwrap();
        second = create(&new, "second", "http://ETCD.example:2379").await;
    }
    let context = operator(&new);
    let pass = || Box::pin(reconcile(&context, &new.namespace, "second"));
    assert_eq!(pass().await.unwrap(), Requeue::After(Duration::from_secs(10)));
    let told = blocked(&new, "second").await;
    assert_eq!(told["reason"], "ProductOwnedElsewhere");
    assert!(
        told["message"]
            .as_str()
            .unwrap()
            .contains(&format!("{}/first", old.namespace)),
        "{told}"
    );
    let made = [
        names::<Service>(&new).await,
        names::<StatefulSet>(&new).await,
        names::<Secret>(&new).await,
    ];
    assert_eq!(made.concat(), Vec::<String>::new());

    old.api::<CodisCluster>()
        .delete("first", &DeleteParams::default())
        .await
        .unwrap();
    pass().await.unwrap();
    let told = blocked(&new, "second").await;
    assert_eq!(
        told["reason"], "InvalidSpec",
        "only its coordinator isn't there: {told}"
    );
}
