use super::*;

#[test]
fn a_settled_cluster_needs_nothing() {
    let decision = World::settled().decide();
    assert_eq!(decision, Decision::default());
}

#[test]
fn a_new_cluster_is_built_step_by_step_and_then_rests() {
    let mut world = World::fresh();
    let mut names = Vec::new();
    while let Some(step) = world.decide().step {
        world.apply(&step);
        names.push(step.name());
        assert!(names.len() < 40, "it never ends: {names:?}");
    }
    names.dedup();
    let expected = [
        "CreateGroup",
        "AddServer",
        "AttachReplica",
        "CreateGroup",
        "AddServer",
        "AttachReplica",
        "AddSentinel",
        "ResyncSentinels",
        "ArmStartGate",
        "AssignSlots",
        "ResyncGroup",
    ];
    assert_eq!(names, expected);
    assert!(world.decide().is_settled(), "{:?}", world.decide());
}

/// Proxies are told of slots whenever they come. Sentinels come first: nothing is served unwatched.
#[test]
fn slots_wait_for_sentinels_and_not_for_proxies() {
    let at_slots = || {
        let mut world = World::fresh();
        loop {
            let step = world.decide().step.unwrap();
            if matches!(step, Step::AssignSlots(_)) {
                return world;
            }
            world.apply(&step);
        }
    };
    let mut world = at_slots();
    world.topology.proxies.clear();
    world.observed.proxy_pods.iter_mut().for_each(|pod| pod.ready = false);
    world
        .observed
        .proxy_pods
        .iter_mut()
        .for_each(|pod| pod.running_for = None);
    world.observed.unready = vec!["fe 0/1".into()];
    assert!(matches!(world.decide().step, Some(Step::AssignSlots(_))));
    let mut world = at_slots();
    world.observed.sentinels.insert(sentinel(2), Err("silent".into()));
    world.topology.sentinels.servers.pop();
    assert!(!matches!(world.decide().step, Some(Step::AssignSlots(_))));
    let mut world = at_slots();
    world.observed.servers.insert(server(2, 1), down());
    assert_eq!(world.decide().step, None, "a server wasn't asked for keys");
}

#[test]
fn nothing_is_built_before_every_server_was_asked_for_keys() {
    let mut world = World::fresh();
    world.observed.servers.insert(server(2, 1), down());
    let decision = world.decide();
    assert_eq!(decision.step, None);
    assert_eq!(reasons(&decision.waits)[0], reason::SERVERS_NOT_READY);
}

#[test]
fn servers_with_keys_and_no_topology_are_left_alone() {
    let mut world = World::fresh();
    world.observed.servers.insert(server(2, 1), master(1));
    let decision = world.decide();
    assert_eq!(decision.step, None);
    assert_eq!(reasons(&decision.blocked), [reason::TOPOLOGY_LOST]);
}

#[test]
fn lost_slots_are_not_assigned_over_keys() {
    let mut world = World::settled();
    world.topology.slots[7].group = None;
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::TOPOLOGY_LOST])
    );
}

#[test]
fn a_topology_with_members_of_somebody_else_is_not_touched() {
    let mut world = World::settled();
    world.group(1).servers[0].address = Address::new("10.0.0.1", 6379);
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::PRODUCT_OWNED_ELSEWHERE])
    );
}

#[test]
fn the_stand_in_is_refused_unless_allowed() {
    let mut world = World::settled();
    world.version = "codis-double 3.2.2".into();
    assert_eq!(reasons(&world.decide().blocked), [reason::STAND_IN_REFUSED]);
    world.allow_stand_in = true;
    assert!(world.decide().is_settled());
}

#[test]
fn a_member_with_keys_of_its_own_does_not_join_a_group() {
    let mut world = World::settled();
    world.group(1).servers.pop();
    world.observed.servers.insert(server(1, 1), master(9));
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::SERVER_HAS_DATA])
    );
}

/// A topology that was put back has only the master of group 1 yet, and the other member holds keys of its own.
fn put_back() -> World {
    let mut world = World::settled();
    world.observed.dump = Some(Ok(dump(&world.desired(), &world.observed()).unwrap()));
    world.group(1).servers.pop();
    world.observed.servers.insert(server(1, 1), master(9));
    world
}

#[test]
fn a_member_that_was_one_before_the_topology_was_lost_joins_again_unless_it_is_taken_for_the_master() {
    let mut world = put_back();
    assert_eq!(world.decide().step.map(|step| step.name()), Some("AddServer"));
    let view = world.sentinel(1);
    view.masters.extend([watched(1, &server(1, 1))]);
    assert_eq!(reasons(&world.decide().blocked), [reason::SERVER_HAS_DATA]);
}

#[test]
fn a_server_that_was_no_member_before_the_topology_was_lost_does_not_join_with_keys() {
    let mut world = put_back();
    let Some(Ok(dump)) = &mut world.observed.dump else {
        panic!()
    };
    dump.groups.insert(gid(1), vec![0]);
    assert_eq!(reasons(&world.decide().blocked), [reason::SERVER_HAS_DATA]);
}

#[test]
fn a_server_that_the_official_master_follows_is_a_member_again_whatever_it_holds() {
    let mut world = World::settled();
    world.group(1).servers.pop();
    world.observed.servers.insert(server(1, 1), master(9));
    world
        .observed
        .servers
        .insert(server(1, 0), replica_of(&server(1, 1), false));
    assert_eq!(reasons(&world.decide().blocked), [reason::SERVER_HAS_DATA]);
    world
        .observed
        .servers
        .insert(server(1, 0), replica_of(&server(1, 1), true));
    let step = world.decide().step;
    assert!(
        matches!(&step, Some(Step::AddServer { server: added, .. }) if *added == server(1, 1)),
        "{step:?}"
    );
}

#[test]
fn slots_count_as_served_while_their_master_answers() {
    let world = World::settled();
    let (desired, mut observed) = (world.desired(), world.observed());
    let whole = health(&desired, &observed);
    assert_eq!(
        (whole.slots_served, whole.servers_in_role, whole.sentinels_watching),
        (1024, 4, 3)
    );
    assert!(whole.is_serving());
    observed.servers.insert(server(1, 0), down());
    let half = health(&desired, &observed);
    assert_eq!(
        (half.slots_served, half.servers_in_role, half.is_serving()),
        (512, 3, false)
    );
}

/// The first assignment broke off at slot 700.
fn half_assigned() -> World {
    let mut world = World::settled();
    for slot in &mut world.topology.slots[700..] {
        slot.group = None;
    }
    world.group(1).out_of_sync = true;
    world
}

#[test]
fn an_assignment_that_broke_off_is_finished_before_the_proxies_hear_of_its_half() {
    let mut world = half_assigned();
    for (group, ordinal) in [(1, 1), (2, 1)] {
        let replication = Replication::Replica {
            master: server(group, 0),
            link_up: true,
        };
        let view = ServerView::Up {
            replication,
            offset: 1,
            keys: 0,
            uptime: 9,
            link_down_for: None,
            replicas: BTreeSet::new(),
            memory: Memory::default(),
            fenced: false,
        };
        world.observed.servers.insert(server(group, ordinal), view);
        world.observed.servers.insert(server(group, 0), master(0));
    }
    let Some(Step::AssignSlots(rest)) = world.decide().step else {
        panic!("{:?}", world.decide())
    };
    assert_eq!((rest.len(), rest[0].0.get(), rest[0].1), (324, 700, gid(2)));
}

#[test]
fn groups_that_are_wished_after_an_assignment_broke_off_are_armed_before_it_is_finished() {
    let mut world = half_assigned();
    for view in world.observed.servers.values_mut() {
        if let ServerView::Up { keys, .. } = view {
            *keys = 0;
        }
    }
    world.observed.bootstrapped.remove(&gid(2));
    let arm = Step::ArmGate(vec![gid(2)]);
    assert_eq!(world.decide().step, Some(arm.clone()));
    world.apply(&arm);
    assert!(matches!(world.decide().step, Some(Step::AssignSlots(_))));
}

#[test]
fn an_assignment_that_broke_off_is_finished_beside_a_group_that_leaves_and_has_no_server() {
    let mut world = World::fresh();
    for id in 1..=2 {
        world.apply(&Step::CreateGroup(gid(id)));
    }
    for ordinal in 0..2 {
        let added = Step::AddServer {
            group: gid(1),
            server: server(1, ordinal),
            zone: None,
        };
        world.apply(&added);
    }
    let empty = ServerView::Up {
        replication: Replication::Replica {
            master: server(1, 0),
            link_up: true,
        },
        offset: 1,
        keys: 0,
        uptime: 9,
        link_down_for: None,
        replicas: BTreeSet::new(),
        memory: Memory::default(),
        fenced: false,
    };
    world.observed.servers.insert(server(1, 1), empty);
    world.cluster.groups = 1;
    world.cluster.leaving_groups = [gid(2)].into();
    world.observed.bootstrapped = [gid(1)].into();
    for slot in &mut world.topology.slots[..166] {
        slot.group = Some(gid(1));
    }
    world.group(1).out_of_sync = true;
    let step = world.decide().step;
    assert!(
        matches!(&step, Some(Step::AssignSlots(slots)) if slots.len() == 858),
        "{step:?}"
    );
}

#[test]
fn while_a_server_is_silent_no_proxy_hears_of_an_assignment_that_broke_off() {
    let mut world = World::settled();
    for slot in &mut world.topology.slots[59..] {
        slot.group = None;
    }
    world.group(1).out_of_sync = true;
    let empty_replica = |group: u64| {
        let mut replica = replica_of(&server(group, 0), true);
        if let ServerView::Up { keys, .. } = &mut replica {
            *keys = 0;
        }
        replica
    };
    for group in 1..=2 {
        world.observed.servers.insert(server(group, 0), master(0));
        world.observed.servers.insert(server(group, 1), empty_replica(group));
    }
    world.observed.servers.insert(server(2, 1), down());
    world.topology.proxies.pop();
    let decision = world.decide();
    assert_eq!((decision.step, decision.blocked), (None, vec![]));
    world.observed.servers.insert(server(2, 1), empty_replica(2));
    assert!(matches!(world.decide().step, Some(Step::AssignSlots(rest)) if rest.len() == 1024 - 59));
}
