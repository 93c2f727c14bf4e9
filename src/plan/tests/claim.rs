//! Whose the product is.

use super::*;
use crate::validate::Coordinator;

/// Its topology is on a coordinator that others use, too, and nothing says that it is ours.
fn unmarked(mut world: World) -> World {
    world.cluster.coordinator = Coordinator::Etcd(vec![Address::new("etcd", 2379)]);
    world
}

#[test]
fn a_product_is_marked_before_anything_is_written_into_it() {
    let mut world = unmarked(World::fresh());
    for what in ["with its own proxies", "empty"] {
        assert_eq!(world.decide().step, Some(Step::ClaimProduct), "{what}");
        world.topology.proxies.clear();
    }
    let mut world = unmarked(World::fresh());
    world.apply(&Step::ClaimProduct);
    assert_eq!(world.decide().step, Some(Step::CreateGroup(gid(1))));
}

#[test]
fn a_topology_of_our_own_members_is_marked_where_the_mark_was_lost() {
    let mut world = unmarked(World::settled());
    assert_eq!(world.decide().step, Some(Step::ClaimProduct));
    world.apply(&Step::ClaimProduct);
    assert_eq!(world.decide(), Decision::default(), "and nothing is left to do");
}

#[test]
fn content_that_may_be_somebody_elses_is_neither_marked_nor_written() {
    type Change = fn(&mut World);
    let table: [(&str, Change); 4] = [
        ("server 10.0.0.1:6379", |world| {
            *world = unmarked(World::settled());
            world.group(1).servers[0].address = Address::new("10.0.0.1", 6379);
        }),
        ("sentinel 10.0.0.1:26379", |world| {
            world.topology.sentinels.servers.push(Address::new("10.0.0.1", 26379));
        }),
        ("group 7", |world| {
            let group = Group {
                id: gid(7),
                servers: Vec::new(),
                promoting: None,
                out_of_sync: false,
            };
            world.topology.groups.insert(gid(7), group);
        }),
        ("group 3", |world| world.topology.slots[9].group = Some(gid(3))),
    ];
    for (what, change) in table {
        let mut world = unmarked(World::fresh());
        change(&mut world);
        let decision = world.decide();
        let told = &decision.blocked[0];
        assert_eq!(
            (&decision.step, told.reason),
            (&None, reason::PRODUCT_OWNED_ELSEWHERE),
            "{what}"
        );
        assert!(
            told.message.contains(what) && told.message.contains("spec.productName"),
            "{}",
            told.message
        );
    }
}

#[test]
fn a_proxy_that_is_no_pod_here_keeps_a_product_from_being_marked() {
    let mut world = unmarked(World::fresh());
    world.topology.proxies[0].admin = Address::new("10.0.0.1", 11080);
    let decision = world.decide();
    assert_eq!((&decision.step, decision.blocked.len()), (&None, 0));
    let told = decision.waits.last().unwrap();
    assert!(told.message.contains("the proxy 10.0.0.1:11080"), "{}", told.message);
    world.apply(&Step::ClaimProduct);
    assert!(
        world.decide().step.is_some(),
        "once it is marked a strange proxy is an alarm"
    );
}

#[test]
fn only_a_product_that_is_ours_is_swept() {
    let owns = |world: &World| owns_product(&world.desired(), &world.observed());
    let mut world = World::settled();
    assert!(owns(&world), "a filesystem");
    world = unmarked(world);
    assert!(!owns(&world), "not yet");
    world.apply(&Step::ClaimProduct);
    assert!(owns(&world));
    world.group(1).servers[0].address = Address::new("10.0.0.1", 6379);
    assert!(!owns(&world), "somebody else is in it");
    assert!(
        !owns_product(&world.desired(), &world.observed),
        "the dashboard is away"
    );
}

#[test]
fn a_volume_of_ones_own_needs_no_mark() {
    assert_eq!(World::fresh().decide().step, Some(Step::CreateGroup(gid(1))));
}

#[test]
fn while_somebody_else_has_the_product_nothing_is_done() {
    let world = unmarked(restarted(9, [0; 3]));
    let mut observed = world.observed.clone();
    observed.dashboard = DashboardView::Unavailable("connection refused".into());
    assert!(
        decide(&world.desired(), &observed).step.is_some(),
        "there would be something to do"
    );
    observed.intent = Some(crate::domain::Intent {
        group: gid(1),
        from: server(1, 0),
        to: server(1, 1),
    });
    observed.owned_elsewhere = Some("the product c is held by the dashboard x:18080".into());
    let decision = decide(&world.desired(), &observed);
    assert_eq!((decision.step, decision.nodes), (None, vec![]));
    assert_eq!(reasons(&decision.blocked), [reason::PRODUCT_OWNED_ELSEWHERE]);
    assert!(decision.blocked[0].message.contains("held by the dashboard x:18080"));
}
