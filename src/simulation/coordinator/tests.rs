//! Clusters whose topology is in etcd, and what becomes of it.

use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::simulation::{Outcome, Plan, Scenario, on_a_deep_stack, run, threads::in_virtual_time, world::CLUSTER};

fn plan() -> Plan {
    Plan {
        seed: 3,
        on_volumes: false,
        groups: 1,
        replicas: 2,
        rivals: false,
        skew: 0,
        outside: true,
        from_git: false,
        bug: None,
    }
}

async fn until(world: &mut World, what: &str, is_so: impl Fn(&World) -> bool) {
    let end = Instant::now() + Duration::from_secs(300);
    while !is_so(world) {
        assert!(Instant::now() < end, "not within 300 s: {what}");
        world.run_until(Instant::now() + Duration::from_secs(1)).await;
    }
}

fn names(world: &World, path: &str) -> Vec<String> {
    world.etcd.as_ref().unwrap().nodes.names(path)
}

/// A scenario of nothing but these faults, which begin 2 s after one another.
fn played(outside: bool, faults: &[Fault]) -> Outcome {
    let event = |(index, fault): (u64, &Fault)| Event {
        at: Duration::from_secs(2 * index),
        act: Act::Fault(*fault),
    };
    let scenario = Scenario {
        seed: 5,
        on_volumes: true,
        groups: 2,
        rivals: false,
        skew: 0,
        outside,
        from_git: false,
        events: (1..).zip(faults).map(event).collect(),
    };
    on_a_deep_stack(|| run(&scenario, None)).unwrap()
}

fn tells(outcome: &Outcome, what: &str) -> bool {
    outcome.trace.iter().any(|line| line.contains(what))
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_cluster_in_etcd_marks_its_product_and_leaves_nothing_of_it_behind() {
    let life = async {
        let mut world = World::new(plan()).await?;
        until(&mut world, "Ready", |world| world.ready().is_ok()).await;
        assert_eq!(names(&world, "/codis3/c/group"), ["group-0001"]);
        assert_eq!(names(&world, "/codis3/c/slots").len(), 1024);
        assert!(names(&world, "/codis3/c").contains(&"topom".to_owned()), "the lock");
        assert_eq!(names(&world, "/jodis/c").len(), 2, "for clients with jodis");
        world.api.delete("CodisCluster", NAMESPACE, CLUSTER, json!({}));
        until(&mut world, "gone", |world| {
            world.cluster().is_none() && world.pods.all().is_empty()
        })
        .await;
        for left in ["/codis3/c/group", "/codis3/c/proxy", "/jodis/c"] {
            assert!(names(&world, left).is_empty(), "{left}");
        }
        assert!(!names(&world, "/codis3/c").contains(&"topom".to_owned()));
        Ok(())
    };
    on_a_deep_stack(|| in_virtual_time(life)).unwrap();
}

#[test]
fn an_emptied_coordinator_has_its_topology_back_from_the_dump() {
    for outside in [true, false] {
        let outcome = played(outside, &[Fault::Coordinator(Harm::Wiped, 5 * SECOND)]);
        assert_eq!(outcome.violations, [""; 0], "outside: {outside}");
        let assigned = outcome.trace.iter().filter(|line| line.contains("codis/assign_slots"));
        assert!(assigned.count() > 1, "{:#?}", outcome.trace);
        assert_eq!(outcome.lost, 0);
    }
}

#[test]
fn a_dashboard_starts_when_its_coordinator_is_there_again() {
    let outcome = played(
        true,
        &[
            Fault::Coordinator(Harm::Silent, 30 * SECOND),
            Fault::KillProcess(Part::Dashboard, 0),
        ],
    );
    assert_eq!(outcome.violations, [""; 0]);
    let has_died = |line: &String| line.contains("c-dashboard-0: ") && line.ends_with(" dead");
    assert!(outcome.trace.iter().any(has_died), "{:#?}", outcome.trace);
}

#[test]
fn the_dashboard_of_a_node_that_is_cut_off_is_not_replaced() {
    let outcome = played(true, &[Fault::CutOff(Part::Dashboard, 0, 150 * SECOND)]);
    assert_eq!(outcome.violations, [""; 0]);
    assert!(tells(&outcome, "the dashboard is not ready"), "{:#?}", outcome.trace);
}
