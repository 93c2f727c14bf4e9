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
        replicas: BTreeSet::new(),
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

/// Those that haven't heard it must be fewer than a quorum, and those that have a majority: with four sentinels that is three.
#[test]
fn without_the_dashboard_half_of_the_sentinels_are_not_enough() {
    for (silences, lifted) in [
        ([500, 500, 500, 5_000], true),
        ([500, 500, 5_000, 5_000], false),
        ([500, 500, 500, 3_000], true),
        ([500, 500, 3_000, 3_000], false),
        ([500, 500, 2_999, 3_000], true),
    ] {
        let mut world = restarted(3, [500, 500, 500]);
        world.cluster.sentinel.as_mut().unwrap().replicas = 4;
        let view = world.observed.sentinels[&sentinel(0)].clone();
        world.observed.sentinels.insert(sentinel(3), view);
        for (ordinal, silence) in (0..).zip(silences) {
            let view = world.observed.sentinels.get_mut(&sentinel(ordinal)).unwrap();
            view.as_mut().unwrap().masters.get_mut("c-1").unwrap().silent_ms = silence;
        }
        let step = decide(&world.desired(), &world.observed).step;
        assert_eq!(step.is_some(), lifted, "{silences:?}: {step:?}");
    }
}

#[test]
fn a_restarted_master_stays_fenced_while_its_place_is_in_doubt() {
    let is_lifted = |world: &World| matches!(world.decide().step, Some(Step::Unfence(_)));
    let mut disputed = restarted(3, [500, 500, 500]);
    let one = disputed.observed.sentinels.get_mut(&sentinel(0)).unwrap();
    one.as_mut().unwrap().masters.extend([watched(1, &server(1, 1))]);
    assert!(!is_lifted(&disputed), "a sentinel names another one");
    let mut promoting = restarted(3, [500, 500, 500]);
    promoting.group(1).promoting = Some(1);
    assert!(!is_lifted(&promoting), "another one is being promoted");
}

#[test]
fn another_loss_has_another_token() {
    let token = |uids: [&str; 2]| {
        let mut world = World::settled();
        for (ordinal, uid) in (0..).zip(uids) {
            world.observed.servers.insert(server(1, ordinal), down());
            let pod = world.observed.server_pods.get_mut(&server(1, ordinal)).unwrap();
            (pod.stopped_empty, pod.at_gate, pod.uid) = (true, true, uid.to_owned());
        }
        world.decide().blocked[0].message.clone()
    };
    let tokens: BTreeSet<String> = [["a", "b"], ["a", "c"], ["c", "b"], ["b", "a"], ["A", "b"], ["q", "b"]]
        .map(token)
        .into();
    assert_eq!(tokens.len(), 6, "{tokens:?}");
}

#[test]
fn a_group_that_started_empty_is_armed_again_at_once() {
    let mut world = World::settled();
    world.observed.bootstrapped.remove(&gid(1));
    world.group(2).servers.pop();
    assert_eq!(world.decide().step, Some(Step::ArmGate(vec![gid(1)])));
}
