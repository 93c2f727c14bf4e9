use super::*;
use crate::domain::{LostClaim, NodeView, StatelessPod};

fn with_node(name: &str, view: NodeView) -> World {
    let mut world = World::settled().placed();
    world.observed.nodes.insert(name.to_owned(), view);
    world
}

fn cordoned() -> NodeView {
    NodeView {
        leaving: Some("is cordoned".into()),
        ..NodeView::default()
    }
}

fn gone(seconds: u64) -> NodeView {
    NodeView {
        gone_for: Some(seconds),
        ..NodeView::default()
    }
}

fn silent(seconds: u64) -> NodeView {
    NodeView {
        silent_for: Some(seconds),
        ..NodeView::default()
    }
}

#[test]
fn masters_leave_a_cordoned_node_first_and_the_status_says_so() {
    let world = with_node("node-0", cordoned());
    let decision = world.decide();
    assert!(
        matches!(&decision.step, Some(Step::Switchover { to, .. }) if *to == server(1, 1)),
        "{decision:?}"
    );
    assert_eq!(
        decision.nodes,
        ["node node-0 is cordoned: the masters of groups 1, 2 are handed over first"]
    );
}

#[test]
fn replicas_on_a_cordoned_node_are_left_to_the_drain() {
    let decision = with_node("node-1", cordoned()).decide();
    assert!(decision.is_settled());
    assert_eq!(
        decision.nodes,
        ["node node-1 is cordoned: its pods may be evicted, one of a group at a time, the dashboard last"]
    );
}

#[test]
fn a_drain_waits_while_masters_are_moved_only_on_request() {
    let mut world = with_node("node-0", cordoned());
    world.cluster.brakes.supervised = true;
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), decision.waits[0].reason),
        (None, reason::SUPERVISED)
    );
}

#[test]
fn a_server_that_is_alone_in_its_group_says_that_it_cannot_leave() {
    let mut world = with_node("node-0", cordoned());
    for id in 1..=2 {
        world.group(id).servers.pop();
        world.addresses.servers.get_mut(&gid(id)).unwrap().pop();
    }
    let decision = world.decide();
    assert!(
        decision.waits.iter().any(|note| note.reason == reason::DRAINING),
        "{decision:?}"
    );
}

#[test]
fn pods_of_a_node_that_is_provably_gone_are_removed_and_those_of_a_silent_one_are_not() {
    for (view, removed) in [
        (gone(15), true),
        (gone(14), false),
        (silent(10_000), false),
        (
            NodeView {
                out_of_service: true,
                ..silent(60)
            },
            true,
        ),
    ] {
        let world = with_node("node-1", view.clone());
        let step = world.decide().step;
        assert_eq!(
            matches!(step, Some(Step::RemovePod { .. })),
            removed,
            "{view:?}: {step:?}"
        );
    }
}

#[test]
fn a_dashboard_is_removed_from_a_node_that_is_gone_while_it_does_not_answer() {
    let mut world = with_node("node-9", gone(20));
    let pod = MemberPod {
        name: "c-dashboard-0".into(),
        node: Some("node-9".into()),
        ..MemberPod::default()
    };
    world.observed.dashboard_pod = Some(pod);
    world.observed.dashboard = DashboardView::Unavailable("away".into());
    let step = decide(&world.desired(), &world.observed).step;
    assert!(matches!(step, Some(Step::RemovePod { pod, .. }) if pod == "c-dashboard-0"));
}

#[test]
fn what_keeps_nothing_leaves_a_silent_node_after_the_time_that_the_spec_gives() {
    for (seconds, replaced) in [(299, false), (300, true)] {
        let mut world = with_node("node-7", silent(seconds));
        let pod = StatelessPod {
            name: "c-fe".into(),
            node: Some("node-7".into()),
            ..StatelessPod::default()
        };
        world.observed.stateless_pods.push(pod);
        assert_eq!(
            matches!(world.decide().step, Some(Step::Restart { .. })),
            replaced,
            "{seconds}"
        );
    }
}

#[test]
fn the_status_tells_how_long_a_node_has_been_away_and_what_that_means() {
    for (view, told) in [
        (gone(0), "is gone for 0 s"),
        (gone(19), "is gone for 10 s"),
        (gone(60), "is gone for 60 s"),
        (silent(299), "isn't heard and is waited for until 300 s have passed"),
        (
            silent(300),
            "isn't heard and is lost: servers and sentinels may still run there",
        ),
        (silent(301), "isn't heard and is lost: servers and sentinels"),
    ] {
        let mut world = with_node("node-1", view);
        world.observed.dashboard_pod = Some(MemberPod {
            name: "c-dashboard-0".into(),
            node: Some("node-0".into()),
            ..MemberPod::default()
        });
        let nodes = world.decide().nodes;
        assert!(nodes[0].starts_with(&format!("node node-1 {told}")), "{nodes:?}");
    }
}

fn lost(server: Address) -> World {
    let mut world = World::settled();
    let claim = LostClaim {
        claim: "data-x".into(),
        uid: "u".into(),
        node: "node-9".into(),
        may_return: false,
    };
    world.observed.servers.insert(server.clone(), down());
    world.observed.lost_claims.insert(server, claim);
    world
}

#[test]
fn a_replica_whose_volume_went_with_its_node_is_made_anew() {
    let step = lost(server(1, 1)).decide().step;
    assert!(matches!(step, Some(Step::ForgetVolume { claim, .. }) if claim == "data-x"));
}

#[test]
fn the_volume_of_a_master_is_never_given_up() {
    let decision = lost(server(1, 0)).decide();
    assert_eq!(reasons(&decision.blocked), [reason::NODE_LOST]);
    assert!(decision.blocked[0].message.contains("data-x"));
}

#[test]
fn a_dashboard_on_a_silent_node_is_not_replaced_and_the_status_says_what_to_do() {
    let mut world = with_node("node-9", silent(400));
    world.observed.dashboard_pod = Some(MemberPod {
        name: "c-dashboard-0".into(),
        node: Some("node-9".into()),
        ..MemberPod::default()
    });
    world.observed.dashboard = DashboardView::Unavailable("away".into());
    let decision = decide(&world.desired(), &world.observed);
    assert_eq!(decision.step, None);
    let [line] = decision.nodes.as_slice() else {
        panic!("{decision:?}")
    };
    assert!(
        line.starts_with("node node-9 isn't heard and is lost: the dashboard")
            && line.contains("kubectl taint nodes node-9 node.kubernetes.io/out-of-service"),
        "{line}"
    );
}

#[test]
fn what_keeps_nothing_is_replaced_although_the_dashboard_went_with_the_same_node() {
    let mut world = with_node("node-9", silent(400));
    world.observed.stateless_pods.push(StatelessPod {
        name: "c-proxy".into(),
        node: Some("node-9".into()),
        ..StatelessPod::default()
    });
    world.observed.dashboard = DashboardView::Unavailable("away".into());
    let step = decide(&world.desired(), &world.observed).step;
    assert!(
        matches!(&step, Some(Step::Restart { pod, .. }) if pod == "c-proxy"),
        "{step:?}"
    );
}

#[test]
fn the_volume_of_a_node_that_may_come_back_is_kept_and_the_status_says_so() {
    let mut world = lost(server(1, 1));
    world
        .observed
        .lost_claims
        .values_mut()
        .for_each(|lost| lost.may_return = true);
    let decision = world.decide();
    assert_eq!(decision.step, None);
    let told = decision.waits.iter().find(|note| note.reason == reason::NODE_LOST);
    assert!(told.is_some_and(|note| note.message.contains("data-x")), "{decision:?}");
}

#[test]
fn a_replicas_volume_is_kept_while_its_master_does_not_serve() {
    let mut world = lost(server(1, 1));
    world.observed.servers.insert(server(1, 0), down());
    let decision = world.decide();
    assert!(
        !matches!(decision.step, Some(Step::ForgetVolume { .. })),
        "{decision:?}"
    );
    assert!(
        decision.blocked.is_empty(),
        "a failover may be on its way: {decision:?}"
    );
}
