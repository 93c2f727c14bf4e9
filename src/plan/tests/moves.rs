use super::*;
use crate::domain::{Intent, NodeView};

fn asked(world: &mut World, to: Option<Address>) {
    world.promotion = Some((gid(1), to));
}

fn switchover(decision: &Decision) -> Option<(Address, Address)> {
    match &decision.step {
        Some(Step::Switchover { from, to, .. }) => Some((from.clone(), to.clone())),
        _ => None,
    }
}

fn intent() -> Intent {
    Intent {
        group: gid(1),
        from: server(1, 0),
        to: server(1, 1),
    }
}

#[test]
fn a_person_gets_the_switchover_that_was_asked_for() {
    for to in [None, Some(server(1, 1))] {
        let mut world = World::settled();
        asked(&mut world, to);
        assert_eq!(switchover(&world.decide()), Some((server(1, 0), server(1, 1))));
    }
}

#[test]
fn no_master_is_moved_while_anything_that_it_takes_is_missing() {
    type Hurt = fn(&mut World);
    let cases: [(&str, Hurt); 12] = [
        ("a sentinel", |w| {
            w.observed.sentinels.insert(sentinel(0), Err("silent".into()));
        }),
        ("a replica of another group", |w| {
            w.observed.servers.insert(server(2, 1), down());
        }),
        ("a proxy", |w| w.topology.proxies[0].error = Some("timeout".into())),
        ("a proxy that was registered just now", |w| {
            w.observed.proxy_pods[0].running_for = Some(2)
        }),
        ("a proxy that isn't registered yet", |w| {
            w.topology.proxies.remove(0);
            w.observed.proxy_pods[0].running_for = Some(20);
        }),
        ("the replica's link", |w| {
            w.observed
                .servers
                .insert(server(1, 1), replica_of(&server(1, 0), false));
        }),
        ("the sentinels' configuration", |w| {
            w.topology.sentinels.out_of_sync = true
        }),
        ("sentinels that the dashboard can't be told of yet", |w| {
            w.topology.sentinels.servers.clear();
            w.group(2).servers.pop();
            w.observed.servers.insert(server(2, 1), master(9));
        }),
        ("a slot on its way", |w| {
            w.topology.slots[7].moving = Some(crate::domain::SlotMove {
                to: gid(1),
                pending: false,
            })
        }),
        ("the replica's pod", |w| {
            w.observed.server_pods.get_mut(&server(1, 1)).unwrap().terminating = true
        }),
        ("patience after a failure", |w| {
            w.observed.failed_moves.insert(gid(1), (1, 2));
        }),
        ("the sentinels' word", |w| {
            for view in w.observed.sentinels.values_mut().flatten() {
                view.masters.extend([watched(1, &server(1, 1))]);
            }
        }),
    ];
    for (what, hurt) in cases {
        let mut world = World::settled();
        asked(&mut world, None);
        hurt(&mut world);
        let decision = world.decide();
        assert_eq!(switchover(&decision), None, "{what}");
        assert!(!decision.is_settled(), "{what}: nothing says what is waited for");
    }
}

#[test]
fn a_replica_that_provably_does_not_run_is_not_waited_for() {
    let mut world = World::settled();
    asked(&mut world, None);
    world.observed.servers.insert(server(2, 1), down());
    world.observed.server_pods.get_mut(&server(2, 1)).unwrap().not_running = true;
    assert!(switchover(&world.decide()).is_some());
}

#[test]
fn a_replica_on_a_node_that_is_drained_is_no_successor() {
    let mut world = World::settled().placed();
    asked(&mut world, None);
    let drained = NodeView {
        leaving: Some("is cordoned".into()),
        ..NodeView::default()
    };
    world.observed.nodes = [
        ("node-0".to_owned(), NodeView::default()),
        ("node-1".to_owned(), drained),
    ]
    .into();
    assert_eq!(switchover(&world.decide()), None);
}

#[test]
fn an_intent_that_was_left_is_cleared_away_before_anything_else() {
    let mut world = World::settled();
    world.observed.intent = Some(intent());
    asked(&mut world, None);
    assert_eq!(world.decide().step, Some(Step::Undo(intent())));
}

#[test]
fn without_the_dashboard_the_locks_of_an_intent_go_and_its_fence_stays() {
    let mut world = restarted(100, [0, 0, 0]);
    world.observed.intent = Some(intent());
    world.observed.dashboard = DashboardView::Unavailable("away".into());
    let decision = decide(&world.desired(), &world.observed);
    assert_eq!(decision.step, Some(Step::Undo(intent())));
}

#[test]
fn while_an_intent_cannot_be_cleared_away_the_others_get_their_turn() {
    let mut world = World::settled();
    world.observed.intent = Some(intent());
    world.observed.failed_moves.insert(gid(1), (1, 0));
    world.observed.servers.insert(server(2, 1), master(5));
    let attach = Step::Attach {
        group: gid(2),
        server: server(2, 1),
    };
    assert_eq!(world.decide().step, Some(attach));
}

#[test]
fn a_promotion_that_was_begun_goes_on_with_all_care_while_the_old_master_serves() {
    let mut world = World::settled();
    world.group(1).promoting = Some(1);
    assert!(switchover(&world.decide()).is_some());
    world
        .observed
        .servers
        .insert(server(1, 1), replica_of(&server(1, 0), false));
    assert_eq!(world.decide().step, None, "the replica isn't in step");
    world.observed.servers.insert(server(1, 0), down());
    assert_eq!(world.decide().step, None, "the old master may come back with more");
    let mut replica = replica_of(&server(1, 0), false);
    if let ServerView::Up { link_down_for, .. } = &mut replica {
        *link_down_for = Some(12);
    }
    world.observed.servers.insert(server(1, 1), replica);
    world.observed.down_for.insert(server(1, 0), 12);
    world.observed.server_pods.get_mut(&server(1, 0)).unwrap().ready = false;
    let promote = Step::Promote {
        group: gid(1),
        server: server(1, 1),
    };
    assert_eq!(world.decide().step, Some(promote), "there is nobody to lose writes of");
}

#[test]
fn a_silent_proxy_is_made_anew_and_one_that_starts_is_not() {
    let mut world = World::settled();
    let admin = world.topology.proxies[0].admin.clone();
    world.topology.proxies[0].error = Some("timeout".into());
    world.observed.down_for.insert(admin, 5);
    assert!(matches!(world.decide().step, Some(Step::Restart { pod, .. }) if pod == "token-1"));
    world.observed.proxy_pods[0].running_for = Some(3);
    assert_eq!(world.decide().step, None);
}
