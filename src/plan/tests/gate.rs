use super::*;

#[test]
fn a_group_whose_copies_are_all_gone_starts_empty_only_without_volumes() {
    let mut world = World::settled();
    for ordinal in 0..2 {
        world.observed.servers.insert(server(1, ordinal), down());
        world
            .observed
            .server_pods
            .get_mut(&server(1, ordinal))
            .unwrap()
            .stopped_empty = true;
        world.observed.server_pods.get_mut(&server(1, ordinal)).unwrap().at_gate = true;
    }
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::GROUP_LOST])
    );

    let token = decision.blocked[0]
        .message
        .split("accept-data-loss=")
        .nth(1)
        .unwrap()
        .to_owned();
    world.cluster.accepted_loss = Some(token);
    assert!(
        matches!(world.decide().step, Some(Step::StartEmpty { .. })),
        "a person accepted it"
    );

    world.observed.server_pods.get_mut(&server(1, 0)).unwrap().uid = "another loss".into();
    assert_eq!(
        world.decide().step,
        None,
        "what was accepted is one loss, not every later one"
    );

    world.persistent = false;
    assert!(matches!(world.decide().step, Some(Step::StartEmpty { group, .. }) if group == gid(1)));

    world.observed.server_pods.get_mut(&server(1, 1)).unwrap().stopped_empty = false;
    assert_eq!(world.decide().step, None, "one copy may be left");
}

#[test]
fn a_restarted_master_takes_writes_once_too_few_sentinels_are_left_to_replace_it() {
    assert_eq!(
        restarted(3, [500, 500, 500]).decide().step,
        Some(Step::Unfence(server(1, 0)))
    );
    let two_heard = restarted(1, [500, 900, 1_500]);
    assert_eq!(two_heard.decide().step, Some(Step::Unfence(server(1, 0))));
    let one_heard = restarted(1, [500, 1_500, 1_500]).decide();
    assert_eq!(
        (one_heard.step.clone(), reasons(&one_heard.waits)),
        (None, vec![reason::FAILOVER])
    );
}

#[test]
fn a_restarted_master_that_is_being_replaced_stays_fenced() {
    let mut world = restarted(3, [500, 500, 500]);
    for view in world.observed.sentinels.values_mut().flatten() {
        view.masters.get_mut("c-1").unwrap().flags = "s_down,master".into();
    }
    assert!(!matches!(world.decide().step, Some(Step::Unfence(_))));
    let mut world = restarted(3, [500, 500, 500]);
    world.group(1).servers.swap(0, 1);
    assert!(
        !matches!(world.decide().step, Some(Step::Unfence(_))),
        "it is no longer the official master"
    );
}

#[test]
fn an_attached_replica_is_not_left_fenced() {
    let mut world = World::settled();
    let replication = Replication::Replica {
        master: server(1, 0),
        link_up: true,
    };
    let view = ServerView::Up {
        replication,
        offset: 9,
        keys: 5,
        uptime: 60,
        link_down_for: None,
        memory: Memory::default(),
        fenced: true,
    };
    world.observed.servers.insert(server(1, 1), view);
    assert_eq!(world.decide().step, Some(Step::Unfence(server(1, 1))));
}

#[test]
fn a_fence_is_lifted_by_the_sentinels_word_while_the_dashboard_is_away() {
    let away = |world: &World| decide(&world.desired(), &world.observed).step;
    assert_eq!(
        away(&restarted(3, [500, 500, 5_000])),
        Some(Step::Unfence(server(1, 0)))
    );
    assert_eq!(away(&restarted(3, [500, 5_000, 5_000])), None);
}

#[test]
fn a_group_that_started_empty_is_armed_again_at_once() {
    let mut world = World::settled();
    world.observed.bootstrapped.remove(&gid(1));
    world.group(2).servers.pop();
    assert_eq!(world.decide().step, Some(Step::ArmGate(vec![gid(1)])));
}
