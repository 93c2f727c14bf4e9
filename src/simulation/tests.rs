//! The loop in the world.

use std::{io, ops::RangeInclusive, sync::Arc};

use futures::future::BoxFuture;
use k8s_openapi::{api::storage::v1::StorageClass, jiff::Timestamp};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use super::{Operation, Outcome, Scenario, Swept, api::ApiServer, crash_everywhere, on_a_deep_stack, run, sweep};
use crate::seeded::Bug;
use crate::{
    api::CodisCluster,
    cluster::{Cluster, WriteGate},
    codis::{Link, Network, Stream},
    controller::{Context, reconcile},
    domain::Address,
    telemetry::{Clock, Effects, Metrics},
};

pub(super) fn until_one_fails(swept: &Swept, _: &Outcome) -> bool {
    swept.failed.is_empty()
}

/// A network on which nobody is.
struct Nobody;

impl Network for Nobody {
    fn connect(&self, _: &Address) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }
}

async fn world() -> (ApiServer, Arc<Context>) {
    let start: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
    let clock = Clock::starting_at(start);
    let server = ApiServer::new(move || clock.now());
    let class = json!({
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "simulated",
    });
    let class: StorageClass = serde_json::from_value(class).unwrap();
    let classes = Api::<StorageClass>::all(server.client());
    classes.create(&PostParams::default(), &class).await.unwrap();
    let cluster: CodisCluster = serde_json::from_value(json!({
        "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster", "metadata": {"name": "c", "namespace": "default"},
        "spec": {
            "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
            "codisProxy": {"image": "codis", "replicas": 2, "sessionAuth": "session"},
            "codisServer": {"image": "codis", "replicas": 4, "groupReplicas": 2},
            "codisDashboard": {"image": "codis", "productAuth": "product"},
            "sentinel": {"image": "codis", "replicas": 3},
        },
    }))
    .unwrap();
    let clusters = Api::<CodisCluster>::namespaced(server.client(), "default");
    clusters.create(&PostParams::default(), &cluster).await.unwrap();
    let door = Cluster::new(server.client(), WriteGate::open(), Effects::none(), "simulated");
    let link = Link::over(Arc::new(Nobody));
    let context = Context::within(door, Effects::none(), Metrics::default(), true, clock, link);
    (server, context)
}

/// Everything but events, whose times are those of the machine.
fn objects(server: &ApiServer) -> Vec<Value> {
    let all = server.snapshot().into_iter();
    all.filter(|object| object["kind"] != "Event").collect()
}

async fn passes(context: &Context, count: usize) {
    for _ in 0..count {
        reconcile(context, "default", "c").await.unwrap();
    }
}

fn names(objects: &[Value], kind: &str) -> Vec<String> {
    let all = objects.iter().filter(|object| object["kind"] == kind);
    all.map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_made_in_the_simulated_api_server_and_then_nothing_more_is_written() {
    let (server, context) = world().await;
    passes(&context, 4).await;
    let made = objects(&server);
    assert_eq!(
        names(&made, "StatefulSet"),
        ["c-dashboard", "c-g1", "c-g2", "c-sentinel"]
    );
    assert_eq!(names(&made, "Deployment"), ["c-proxy"]);
    assert!(
        names(&made, "Service").contains(&"c-g2-1".to_owned()),
        "{:?}",
        names(&made, "Service")
    );
    assert_eq!(names(&made, "Secret"), ["c-config", "c-connection"]);
    passes(&context, 3).await;
    assert_eq!(objects(&server), made, "somebody wrote");
}

#[tokio::test(start_paused = true)]
async fn the_same_world_twice_is_the_same_to_the_last_byte() {
    let mut told = Vec::new();
    for _ in 0..2 {
        let (server, context) = world().await;
        passes(&context, 5).await;
        told.push(json!(objects(&server)).to_string());
    }
    assert_eq!(told[0], told[1]);
}

/// No seed has violations.
pub(super) fn end_well(swept: &sweep::Swept) {
    let told: Vec<_> = swept
        .failed
        .values()
        .map(|outcome| (&outcome.scenario, &outcome.violations))
        .collect();
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn a_few_seeded_disasters_end_well() {
    let swept = sweep(
        &(1..=6),
        2,
        |seed| run(&Scenario::of(seed, "any"), None),
        until_one_fails,
    )
    .unwrap();
    end_well(&swept);
    assert!(swept.acknowledged > 1_000, "only {} writes", swept.acknowledged);
}

#[test]
fn the_same_seed_twice_is_the_same_trace() {
    let play = || {
        let scenario = Scenario::of(7, "any");
        let outcomes = [(); 2].map(|()| run(&scenario, None).unwrap());
        let [one, other] = outcomes.map(|outcome| (outcome.digest, outcome.trace));
        assert_eq!(one, other);
        Ok(())
    };
    on_a_deep_stack(play).unwrap();
}

#[test]
fn a_switchover_ends_the_same_wherever_the_operator_dies() {
    let crashed = crash_everywhere(Operation::Switchover, false, 2).unwrap();
    assert!(crashed.failed.is_empty(), "{:?}", crashed.failed);
    assert!(crashed.happened > 20, "{crashed:?}");
}

/// The seed by which a mistake is found out, and how; none within so many seeds.
fn found_out(bug: Bug, scenario: &str, seeds: RangeInclusive<u64>) -> Option<(u64, Vec<String>)> {
    let swept = sweep(
        &seeds,
        2,
        |seed| run(&Scenario::of(seed, scenario), Some(bug)),
        until_one_fails,
    )
    .unwrap();
    let (seed, outcome) = swept.failed.into_iter().next()?;
    Some((seed, outcome.violations))
}

/// Each mistake, and a scenario and a seed from which on it is looked for.
const MISTAKES: [(Bug, &str, u64); 9] = [
    (Bug::NoStartGate, "memory", 1),
    (Bug::NoFence, "switchover", 10),
    (Bug::DeadProxiesStay, "faults", 30),
    (Bug::SentinelsReset, "calm", 1),
    (Bug::GroupGoesFirst, "shrink", 1),
    (Bug::RolledAtOnce, "roll", 1),
    (Bug::PruneOnEmpty, "git", 1),
    (Bug::LockBrokenWithoutProof, "coordinator", 10),
    (Bug::StaleLists, "hands", 1),
];

#[test]
fn mistakes_that_are_built_in_are_found_out() {
    let mut missed = Vec::new();
    for (bug, scenario, first) in MISTAKES {
        let Some((seed, violations)) = found_out(bug, scenario, first..=first + 40) else {
            missed.push(format!("{bug:?} isn't found out"));
            continue;
        };
        println!("{bug:?}: found by seed {seed} of {scenario}: {}", violations.join("; "));
        // Without the mistake the same seed is without violations: it is the mistake that was found.
        let without = on_a_deep_stack(|| run(&Scenario::of(seed, scenario), None)).unwrap();
        if !without.violations.is_empty() {
            missed.push(format!("{bug:?}: seed {seed} of {scenario} fails without it, too"));
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

/// By hand: which mistakes are found within how many seeds.
#[test]
#[ignore = "takes many minutes"]
fn how_soon_each_mistake_is_found_out() {
    for (bug, scenario, _) in MISTAKES {
        match found_out(bug, scenario, 1..=200) {
            Some((seed, violations)) => {
                println!("{bug:?}: found by seed {seed} of {scenario}: {}", violations.join("; "))
            }
            None => println!("{bug:?}: not found within 200 seeds of {scenario}"),
        }
    }
}
