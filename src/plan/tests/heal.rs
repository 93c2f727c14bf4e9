use super::*;

#[test]
fn a_failover_is_made_official_once_everybody_names_the_same_master() {
    let mut world = World::settled();
    world.failed_over();
    assert_eq!(world.decide().step, Some(Step::ResyncGroup(gid(1))));
    let one = world.observed.sentinels.get_mut(&sentinel(0)).unwrap();
    one.as_mut().unwrap().masters.extend([watched(1, &server(1, 0))]);
    assert_eq!(world.decide().step, None, "one sentinel still names the old one");
}

#[test]
fn an_old_master_is_attached_to_the_new_one() {
    let mut world = World::settled();
    world.failed_over();
    world.group(1).out_of_sync = false;
    world.observed.servers.insert(server(1, 0), master(5));
    assert_eq!(
        world.decide().step,
        Some(Step::Attach {
            group: gid(1),
            server: server(1, 0)
        })
    );
}

#[test]
fn nobody_is_attached_while_a_sentinel_fails_over() {
    for (flags, is_attached) in [
        ("master", true),
        ("s_down,master", true),
        ("s_down,o_down,master", false),
        ("s_down,o_down,master,failover_in_progress", false),
    ] {
        let mut world = World::settled();
        world.observed.servers.insert(server(1, 1), master(5));
        let view = world.observed.sentinels.get_mut(&sentinel(1)).unwrap();
        view.as_mut().unwrap().masters.get_mut("c-1").unwrap().flags = flags.into();
        let step = world.decide().step;
        assert_eq!(
            matches!(step, Some(Step::Attach { .. })),
            is_attached,
            "{flags}: {step:?}"
        );
    }
}

#[test]
fn nobody_is_attached_while_the_sentinels_name_another_master() {
    let mut world = World::settled();
    world.failed_over();
    // The dashboard doesn't know yet: its order is the old one, and the old master is back.
    world.group(1).servers.swap(0, 1);
    world.group(1).out_of_sync = false;
    world.observed.servers.insert(server(1, 0), master(5));
    let decision = world.decide();
    assert_eq!((decision.step.clone(), decision.is_settled()), (None, false));
}

#[test]
fn an_emptied_master_is_never_copied_from() {
    let mut world = World::settled();
    world.observed.servers.insert(server(1, 0), master(0));
    world.observed.servers.insert(server(1, 1), master(5));
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::MASTER_EMPTIED])
    );
}

#[test]
fn without_sentinels_the_replica_that_has_most_replaces_a_master_that_is_gone() {
    let mut world = World::without_sentinels();
    world.observed.servers.insert(server(1, 0), down());
    let mut replica = replica_of(&server(1, 0), false);
    if let ServerView::Up { link_down_for, .. } = &mut replica {
        *link_down_for = Some(12);
    }
    world.observed.servers.insert(server(1, 1), replica);
    world.observed.server_pods.get_mut(&server(1, 0)).unwrap().ready = false;
    world.observed.down_for.insert(server(1, 0), 3);
    assert_eq!(world.decide().step, None, "not yet");
    world.observed.down_for.insert(server(1, 0), 12);
    assert_eq!(
        world.decide().step,
        Some(Step::Promote {
            group: gid(1),
            server: server(1, 1)
        })
    );
    world.observed.server_pods.get_mut(&server(1, 0)).unwrap().ready = true;
    assert_eq!(world.decide().step, None, "the kubelet says that it serves");
}

#[test]
fn a_replica_that_is_down_leaves_the_cluster_unsettled() {
    let mut world = World::settled();
    world
        .observed
        .servers
        .insert(server(1, 1), replica_of(&server(1, 0), false));
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.waits)),
        (None, vec![reason::REPLICATION])
    );
}

#[test]
fn of_two_masters_with_data_none_is_wiped_unless_the_sentinels_know_which_one_was_last() {
    let mut world = World::settled();
    world.observed.servers.insert(server(1, 1), master(7));
    for view in world.observed.sentinels.values_mut().flatten() {
        view.masters.remove("c-1");
    }
    world.topology.sentinels.masters.clear();
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::SPLIT_MASTERS])
    );

    world.topology.sentinels.out_of_sync = true;
    let attach = Some(Step::Attach {
        group: gid(1),
        server: server(1, 1),
    });
    assert_eq!(world.decide().step, attach, "the dashboard has just promoted one");

    let mut world = World::settled();
    world.observed.servers.insert(server(1, 1), master(7));
    assert_eq!(world.decide().step, attach, "a majority names the official one");
}

/// A settled world, but that group 1's official master is a replica of the other server, a master.
fn official_master_follows_the_other() -> World {
    let mut world = World::settled();
    world
        .observed
        .servers
        .insert(server(1, 0), replica_of(&server(1, 1), true));
    world.observed.servers.insert(server(1, 1), master(5));
    world
}

#[test]
fn an_official_master_that_follows_another_gives_up_its_place_once_nobody_else_knows() {
    let mut world = official_master_follows_the_other();
    assert_eq!(world.decide().step, None, "the sentinels will tell");
    for view in world.observed.sentinels.values_mut() {
        *view = Ok(SentinelView::default());
    }
    assert_eq!(
        world.decide().step,
        Some(Step::Promote {
            group: gid(1),
            server: server(1, 1)
        })
    );
}

#[test]
fn an_official_master_that_lost_its_memory_and_follows_the_old_one_gives_up_its_place_once_the_sentinels_gave_it_up() {
    let mut world = official_master_follows_the_other();
    world.group(1).out_of_sync = true;
    assert_eq!(world.decide().step, None, "the sentinels may still do something");
    let promoted = Some(Step::Promote {
        group: gid(1),
        server: server(1, 1),
    });
    for (flags, expected) in [
        ("s_down,master,failover_in_progress", None),
        ("s_down,o_down,master", promoted.clone()),
        ("s_down,master", promoted),
    ] {
        for ordinal in 0..3 {
            let view = world.observed.sentinels.get_mut(&sentinel(ordinal)).unwrap();
            view.as_mut().unwrap().masters.get_mut("c-1").unwrap().flags = flags.into();
        }
        assert_eq!(world.decide().step, expected, "{flags}");
    }
    let one = world.observed.sentinels.get_mut(&sentinel(0)).unwrap();
    one.as_mut().unwrap().masters.extend([watched(1, &server(1, 1))]);
    assert_eq!(world.decide().step, None, "one sentinel knows another master");
}

#[test]
fn a_promotion_by_sentinels_that_the_dashboard_can_not_hear_yet_is_told_to_it() {
    let mut world = official_master_follows_the_other();
    for view in world.observed.sentinels.values_mut().flatten() {
        view.masters.extend([watched(1, &server(1, 1))]);
    }
    assert_eq!(world.decide().step, None, "the sentinels tell the dashboard");
    world.topology.sentinels.out_of_sync = true;
    let promoted = Some(Step::Promote {
        group: gid(1),
        server: server(1, 1),
    });
    assert_eq!(world.decide().step, promoted);
    world.topology.sentinels.out_of_sync = false;
    for (seconds, is_told) in [(29, false), (30, true)] {
        world.observed.disagreeing_for.insert(gid(1), seconds);
        assert_eq!(world.decide().step == promoted, is_told, "deaf for {seconds} s");
    }
    let one = world.observed.sentinels.get_mut(&sentinel(0)).unwrap();
    one.as_mut().unwrap().masters.extend([watched(1, &server(1, 0))]);
    assert_eq!(world.decide().step, None, "they don't agree");
}

#[test]
fn a_replica_that_never_had_the_masters_data_does_not_replace_it() {
    let mut world = World::without_sentinels();
    world.observed.servers.insert(server(1, 0), down());
    world.observed.server_pods.get_mut(&server(1, 0)).unwrap().ready = false;
    world.observed.down_for.insert(server(1, 0), 12);
    for (link_down_for, promotes) in [(None, false), (Some(10), true), (Some(3_600), false)] {
        let mut view = replica_of(&server(1, 0), false);
        if let ServerView::Up {
            link_down_for: seconds, ..
        } = &mut view
        {
            *seconds = link_down_for;
        }
        world.observed.servers.insert(server(1, 1), view);
        assert_eq!(world.decide().step.is_some(), promotes, "{link_down_for:?}");
    }
}

#[test]
fn an_emptied_master_is_replaced_by_the_operator_when_the_sentinels_fail_to() {
    let mut world = World::settled();
    world.observed.servers.insert(server(1, 0), down());
    world
        .observed
        .servers
        .insert(server(1, 1), replica_of(&server(1, 0), false));
    let pod = world.observed.server_pods.get_mut(&server(1, 0)).unwrap();
    (pod.ready, pod.at_gate, pod.stopped_empty) = (false, true, true);
    world.observed.down_for.insert(server(1, 0), 12);
    assert_eq!(world.decide().step, None, "the sentinels' turn");
    world.observed.down_for.insert(server(1, 0), 40);
    assert_eq!(
        world.decide().step,
        Some(Step::Promote {
            group: gid(1),
            server: server(1, 1)
        })
    );
}

#[test]
fn an_emptied_master_is_not_replaced_while_a_member_that_may_have_more_is_away() {
    let mut world = World::settled();
    let third = server(1, 2);
    world.addresses.servers.get_mut(&gid(1)).unwrap().push(third.clone());
    world.group(1).servers.push(Server {
        address: third.clone(),
        action: ActionState::Idle,
        is_read: false,
    });
    world.observed.servers.insert(server(1, 0), down());
    world
        .observed
        .servers
        .insert(server(1, 1), replica_of(&server(1, 0), false));
    world.observed.servers.insert(third.clone(), down());
    let pod = world.observed.server_pods.get_mut(&server(1, 0)).unwrap();
    (pod.ready, pod.at_gate, pod.stopped_empty) = (false, true, true);
    world.observed.down_for.insert(server(1, 0), 40);
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::NO_FIT_REPLICA])
    );
    world.observed.servers.insert(third.clone(), master(9));
    assert_eq!(world.decide().step, None, "the sentinels promoted it already");
}

#[test]
fn a_master_that_was_gone_before_the_operator_came_is_replaced_too() {
    let mut world = World::without_sentinels();
    world.observed.servers.insert(server(1, 0), down());
    let pod = world.observed.server_pods.get_mut(&server(1, 0)).unwrap();
    (pod.ready, pod.unready_for) = (false, Some(300));
    let mut view = replica_of(&server(1, 0), false);
    if let ServerView::Up { link_down_for, .. } = &mut view {
        *link_down_for = Some(320);
    }
    world.observed.servers.insert(server(1, 1), view);
    world.observed.down_for.insert(server(1, 0), 11);
    assert_eq!(
        world.decide().step,
        Some(Step::Promote {
            group: gid(1),
            server: server(1, 1)
        })
    );
}

#[test]
fn the_only_server_of_a_group_that_is_taken_back_stops_following_one_that_was_taken_out() {
    let mut world = World::settled();
    for slot in &mut world.topology.slots {
        slot.group = Some(gid(1));
    }
    world.group(2).servers.truncate(1);
    world.addresses.servers.insert(gid(2), vec![server(2, 0)]);
    let mut follower = replica_of(&server(2, 1), true);
    if let ServerView::Up { keys, .. } = &mut follower {
        *keys = 0;
    }
    world.observed.servers.insert(server(2, 0), follower);
    let attached = Step::Attach {
        group: gid(2),
        server: server(2, 0),
    };
    assert_eq!(world.decide().step, Some(attached.clone()), "as a master");
    world.topology.slots[7].group = Some(gid(2));
    assert_ne!(world.decide().step, Some(attached), "whoever is followed may have more");
}
