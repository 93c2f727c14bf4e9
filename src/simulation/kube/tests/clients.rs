//! What clients see: the operator's own objects, evictions, watches and faults.

use std::{io, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::BoxFuture};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};

use super::*;
use crate::{
    api::CodisCluster,
    cluster::{Cluster, WriteGate},
    codis::{Link, Network, Stream},
    controller::{Context, reconcile},
    domain::Address,
    simulation::api::Fault,
    telemetry::{Clock, Effects, Metrics},
};

struct Nobody;

impl Network for Nobody {
    fn connect(&self, _: &Address) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }
}

/// The operator makes its objects, and Kubernetes runs them for so many seconds, with a pass in each second.
async fn run_operator(seed: u64, seconds: i64) -> (World, Duration) {
    let mut world = World::new(seed);
    let clock = Clock::starting_at(world.now());
    let cluster: CodisCluster = serde_json::from_value(json!({
        "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster", "metadata": {"name": "c", "namespace": "default"},
        "spec": {
            "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
            "codisProxy": {"image": "codis", "replicas": 2, "sessionAuth": "session"},
            "codisServer": {"image": "codis", "replicas": 8, "groupReplicas": 2},
            "codisDashboard": {"image": "codis", "productAuth": "product"},
            "sentinel": {"image": "codis", "replicas": 3},
        },
    }))
    .unwrap();
    let clusters = Api::<CodisCluster>::namespaced(world.api.client(), "default");
    clusters.create(&PostParams::default(), &cluster).await.unwrap();
    let door = Cluster::new(world.api.client(), WriteGate::open(), Effects::none(), "simulated");
    let link = Link::over(Arc::new(Nobody));
    let context = Context::within(door, Effects::none(), Metrics::default(), true, clock, link);
    let mut spent = Duration::ZERO;
    for second in 0..seconds {
        if second < 12 {
            reconcile(&context, "default", "c").await.unwrap();
        }
        let began = std::time::Instant::now();
        world.pass(1);
        spent += began.elapsed();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    (world, spent)
}

#[tokio::test(start_paused = true)]
async fn all_objects_of_the_operator_get_pods_that_run_and_it_costs_little() {
    let (world, spent) = run_operator(1, 100).await;
    let names = world.names();
    let about = world.get("CodisCluster", "c")["status"].clone();
    assert_eq!(names.len(), 1 + 8 + 3 + 2, "{names:?} {about:#}");
    assert_eq!(world.ready(), names.len());
    let nodes: BTreeSet<String> = world
        .pods()
        .iter()
        .map(|pod| text(pod, "/spec/nodeName").to_owned())
        .collect();
    assert_eq!(nodes.len(), 4);
    for service in ["c-dashboard", "c-proxy", "c-g1-0", "c-sentinel-2"] {
        assert!(!world.kube.endpoints("default", service).is_empty(), "{service}");
    }
    let launches = world.toy.0.lock().unwrap().launches.clone();
    let server = launches.iter().find(|launch| launch.pod == "c-g1-0").unwrap();
    assert!(
        server.files.contains_key("/etc/codis/redis.conf") && server.volume.is_some(),
        "{server:?}"
    );
    let proxy = launches.iter().find(|launch| launch.container == "proxy").unwrap();
    assert_eq!(
        (proxy.env["POD_IP"].clone(), proxy.env["ZONE"].len()),
        (proxy.ip.to_string(), 2)
    );
    eprintln!("100 virtual seconds cost {spent:?}");
    assert!(spent < Duration::from_secs(2), "{spent:?}");
}

#[tokio::test(start_paused = true)]
async fn the_operators_objects_are_the_same_twice() {
    let told = |world: &World| {
        json!(
            world
                .api
                .snapshot()
                .into_iter()
                .filter(|object| object["kind"] != "Event")
                .collect::<Vec<_>>()
        )
        .to_string()
    };
    let (one, other) = (run_operator(3, 20).await.0, run_operator(3, 20).await.0);
    assert!(told(&one) == told(&other), "two runs of one seed differ");
}

#[tokio::test]
async fn a_budget_refuses_the_eviction_that_is_one_too_many() {
    let mut world = World::new(1);
    world.make(
        "StatefulSet",
        stateful_set(|spec| spec["podManagementPolicy"] = json!("Parallel")),
    );
    world.make(
        "PodDisruptionBudget",
        json!({
            "metadata": {"name": "b"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "a"}}},
        }),
    );
    world.pass(30);
    let pods = Api::<Pod>::namespaced(world.api.client(), "default");
    let budgets = Api::<PodDisruptionBudget>::namespaced(world.api.client(), "default");
    let status = budgets.get("b").await.unwrap().status.unwrap();
    assert_eq!(
        (status.expected_pods, status.desired_healthy, status.disruptions_allowed),
        (3, 2, 1)
    );
    pods.evict("s-0", &EvictParams::default()).await.unwrap();
    for _ in 0..2 {
        let refused = pods.evict("s-1", &EvictParams::default()).await.unwrap_err();
        assert!(
            matches!(&refused, kube::Error::Api(status) if status.code == 429),
            "{refused}"
        );
        world.kube.step(world.now());
    }
    world.pass(30);
    pods.evict("s-1", &EvictParams::default()).await.unwrap();
}

#[tokio::test]
async fn a_scale_is_read_and_changed() {
    let mut world = World::new(1);
    world.make("Deployment", deployment());
    world.pass(30);
    let deployments = Api::<k8s_openapi::api::apps::v1::Deployment>::namespaced(world.api.client(), "default");
    assert_eq!(deployments.get_scale("d").await.unwrap().status.unwrap().replicas, 3);
    let five = json!({"spec": {"replicas": 5}});
    deployments
        .patch_scale("d", &PatchParams::default(), &Patch::Merge(&five))
        .await
        .unwrap();
    world.pass(30);
    assert_eq!(world.ready(), 5);
}

fn map(name: &str, label: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"l": label}}})).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_of_what_comes_changes_and_goes() {
    let world = World::new(1);
    let maps = Api::<ConfigMap>::namespaced(world.api.client(), "default");
    maps.create(&PostParams::default(), &map("before", "a")).await.unwrap();
    let version = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let params = WatchParams::default().labels("l=a").timeout(20);
    let watch = maps.watch(&params, &version).await.unwrap();
    maps.create(&PostParams::default(), &map("one", "a")).await.unwrap();
    maps.create(&PostParams::default(), &map("other", "b")).await.unwrap();
    let patch = |label: &str| Patch::Merge(json!({"metadata": {"labels": {"l": label}}, "data": {"k": label}}));
    maps.patch("other", &PatchParams::default(), &patch("a")).await.unwrap();
    maps.patch("one", &PatchParams::default(), &patch("b")).await.unwrap();
    maps.delete("other", &DeleteParams::default()).await.unwrap();
    let events: Vec<String> = watch
        .map(|event| match event.unwrap() {
            WatchEvent::Added(map) => format!("+{}", map.metadata.name.unwrap()),
            WatchEvent::Modified(map) => format!("~{}", map.metadata.name.unwrap()),
            WatchEvent::Deleted(map) => format!("-{}", map.metadata.name.unwrap()),
            WatchEvent::Bookmark(_) => "bookmark".to_owned(),
            WatchEvent::Error(error) => error.message,
        })
        .collect()
        .await;
    assert_eq!(events, ["+one", "+other", "-one", "-other", "bookmark"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_forgotten_version_has_expired() {
    let world = World::new(1);
    let maps = Api::<ConfigMap>::namespaced(world.api.client(), "default");
    maps.create(&PostParams::default(), &map("m", "a")).await.unwrap();
    for count in 0..5000 {
        let patch = Patch::Merge(json!({"data": {"k": count.to_string()}}));
        maps.patch("m", &PatchParams::default(), &patch).await.unwrap();
    }
    let mut watch = maps.watch(&WatchParams::default(), "3").await.unwrap().boxed();
    let event = watch.next().await.unwrap().unwrap();
    assert!(
        matches!(&event, WatchEvent::Error(error) if error.code == 410),
        "{event:?}"
    );
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn faults_refuse_lose_replies_show_the_past_and_delay() {
    let world = World::new(1);
    let maps = Api::<ConfigMap>::namespaced(world.api.client(), "default");
    maps.create(&PostParams::default(), &map("m", "a")).await.unwrap();
    let on = |verb: &'static str, fault: Fault| {
        world
            .api
            .set_faults(move |asked| (asked.verb == verb && asked.kind == "ConfigMap").then_some(fault));
    };
    on("get", Fault::Refuse(504));
    let refused = maps.get("m").await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 504),
        "{refused}"
    );
    on("create", Fault::LoseReply);
    maps.create(&PostParams::default(), &map("n", "a")).await.unwrap_err();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 2);
    on("list", Fault::StaleList(1));
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    on("get", Fault::Delay(Duration::from_secs(3)));
    let began = tokio::time::Instant::now();
    maps.get("n").await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    world.api.heal();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_goes_on_after_its_watch_broke_and_a_reply_was_lost() {
    let world = World::new(1);
    let maps = Api::<ConfigMap>::namespaced(world.api.client(), "default");
    maps.create(&PostParams::default(), &map("first", "a")).await.unwrap();
    let watcher = kube::runtime::watcher(maps.clone(), kube::runtime::watcher::Config::default());
    let mut applied = kube::runtime::WatchStreamExt::applied_objects(watcher).boxed();
    let mut names = Vec::new();
    let mut failures = 0;
    for name in ["second", "third", "fourth"] {
        loop {
            match applied.next().await.unwrap() {
                Ok(map) => break names.push(map.metadata.name.unwrap()),
                Err(_) => failures += 1,
            }
        }
        world.api.break_watches();
        let mut is_lost = false;
        world.api.set_faults(move |asked| {
            let is_first = asked.verb == "watch" && !std::mem::replace(&mut is_lost, true);
            is_first.then_some(Fault::LoseReply)
        });
        maps.create(&PostParams::default(), &map(name, "a")).await.unwrap();
    }
    assert_eq!(names, ["first", "second", "third"]);
    assert!(failures > 0);
}

#[tokio::test]
async fn a_custom_resource_that_breaks_its_schema_is_refused() {
    let world = World::new(1);
    let clusters = Api::<kube::api::DynamicObject>::namespaced_with(
        world.api.client(),
        "default",
        &kube::api::ApiResource::erase::<CodisCluster>(&()),
    );
    let broken = json!({
        "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster", "metadata": {"name": "c"},
        "spec": {"coordinatorName": "filesystem"},
    });
    let broken = serde_json::from_value(broken).unwrap();
    let refused = clusters.create(&PostParams::default(), &broken).await.unwrap_err();
    let kube::Error::Api(status) = refused else {
        panic!("{refused}")
    };
    assert_eq!(
        (status.code, status.message.contains("spec.codisProxy: Required value")),
        (422, true),
        "{}",
        status.message
    );
}
