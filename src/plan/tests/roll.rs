use super::*;

fn outdated(servers: &[(u64, u64)]) -> World {
    let mut world = World::settled();
    for (group, ordinal) in servers {
        world
            .observed
            .server_pods
            .get_mut(&server(*group, *ordinal))
            .unwrap()
            .outdated = true;
    }
    world
}

const ALL: [(u64, u64); 4] = [(1, 0), (1, 1), (2, 0), (2, 1)];

fn restarted_pod(decision: &Decision) -> Option<String> {
    match &decision.step {
        Some(Step::Restart { pod, .. }) => Some(pod.clone()),
        _ => None,
    }
}

#[test]
fn replicas_come_first_then_the_master_is_handed_over_then_it_is_made_anew() {
    let mut world = outdated(&ALL);
    assert_eq!(restarted_pod(&world.decide()).as_deref(), Some("c-g1-1"));
    world.observed.server_pods.get_mut(&server(1, 1)).unwrap().outdated = false;
    let to_the_new_one = matches!(world.decide().step, Some(Step::Switchover { to, .. }) if to == server(1, 1));
    assert!(to_the_new_one);
    world.failed_over();
    world.group(1).out_of_sync = false;
    world
        .observed
        .servers
        .insert(server(1, 0), replica_of(&server(1, 1), true));
    assert_eq!(restarted_pod(&world.decide()).as_deref(), Some("c-g1-0"));
    world.observed.server_pods.get_mut(&server(1, 0)).unwrap().outdated = false;
    assert_eq!(
        restarted_pod(&world.decide()).as_deref(),
        Some("c-g2-1"),
        "one group after another"
    );
}

#[test]
fn whatever_is_waited_for_stops_the_roll() {
    let mut world = outdated(&ALL);
    world.observed.unready = vec!["server 3/4 (c-g1-1: ImagePullBackOff)".into()];
    let decision = world.decide();
    assert_eq!(decision.step, None);
    assert_eq!(
        decision.waits[0].reason,
        reason::PODS_NOT_READY,
        "the reason comes first"
    );
}

#[test]
fn servers_wait_for_what_is_rolled_before_them() {
    let mut world = outdated(&ALL);
    world.observed.rolling = vec!["c-proxy".into()];
    assert_eq!(world.decide().step, None);
}

#[test]
fn a_pod_of_a_bad_template_is_replaced_at_once_when_the_template_is_put_back() {
    let mut world = outdated(&[(1, 1)]);
    world.observed.servers.insert(server(1, 1), down());
    world.observed.server_pods.get_mut(&server(1, 1)).unwrap().never_ready = true;
    world.observed.unready = vec!["server 3/4".into()];
    assert_eq!(restarted_pod(&world.decide()).as_deref(), Some("c-g1-1"));
}

#[test]
fn servers_below_the_partition_are_left() {
    let mut world = outdated(&ALL);
    world.cluster.partition = 3;
    assert_eq!(restarted_pod(&world.decide()).as_deref(), Some("c-g2-1"));
    world.cluster.partition = 4;
    assert!(world.decide().is_settled());
}

#[test]
fn paused_and_held_clusters_are_not_rolled_and_supervised_ones_keep_their_masters() {
    let mut world = outdated(&ALL);
    world.cluster.brakes.paused = true;
    assert_eq!(world.decide().step, None);
    let mut world = outdated(&[(1, 0)]);
    world.cluster.brakes.supervised = true;
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.waits)),
        (None, vec![reason::SUPERVISED])
    );
}

#[test]
fn a_server_that_leaves_is_handed_over_first_and_then_taken_out() {
    let mut world = World::settled();
    for id in 1..=2 {
        let leaving = world.addresses.servers.get_mut(&gid(id)).unwrap().pop().unwrap();
        world.addresses.leaving.insert(gid(id), vec![leaving]);
    }
    world.cluster.group_size = 1;
    let gone = Step::RemoveServer {
        group: gid(1),
        server: server(1, 1),
    };
    assert_eq!(world.decide().step, Some(gone));
    world.failed_over();
    world.group(1).out_of_sync = false;
    world
        .observed
        .servers
        .insert(server(1, 0), replica_of(&server(1, 1), true));
    assert!(matches!(world.decide().step, Some(Step::Switchover { to, .. }) if to == server(1, 0)));
}

#[test]
fn sentinels_of_an_old_template_come_one_after_another_and_before_servers() {
    let mut world = outdated(&ALL);
    for ordinal in 0..3 {
        let pod = MemberPod {
            name: format!("c-sentinel-{ordinal}"),
            ready: true,
            outdated: ordinal > 0,
            ..MemberPod::default()
        };
        world.observed.sentinel_pods.insert(sentinel(ordinal), pod);
    }
    assert_eq!(restarted_pod(&world.decide()).as_deref(), Some("c-sentinel-1"));
    world.observed.unready = vec!["sentinel 2/3".into()];
    assert_eq!(world.decide().step, None);
    world.observed.unready.clear();
    let pods = world.observed.sentinel_pods.values_mut();
    pods.for_each(|pod| pod.outdated = false);
    assert_eq!(restarted_pod(&world.decide()).as_deref(), Some("c-g1-1"));
}

#[test]
fn a_server_that_is_alone_in_its_group_is_made_anew_only_with_its_data() {
    let mut world = World::without_sentinels();
    for id in 1..=2 {
        world.group(id).servers.pop();
        world.addresses.servers.get_mut(&gid(id)).unwrap().pop();
        world.observed.servers.remove(&server(id, 1));
        world.observed.server_pods.remove(&server(id, 1));
    }
    world.cluster.group_size = 1;
    world.observed.server_pods.get_mut(&server(1, 0)).unwrap().outdated = true;
    assert_eq!(restarted_pod(&world.decide()).as_deref(), Some("c-g1-0"));
    world.persistent = false;
    let decision = world.decide();
    assert_eq!(
        (decision.step, reasons(&decision.blocked)),
        (None, vec![reason::ROLLING])
    );
}

/// Two of three servers of each group leave.
fn shrinking() -> World {
    let mut world = World::settled();
    for id in 1..=2 {
        let third = server(id, 2);
        let added = Server {
            address: third.clone(),
            action: ActionState::Idle,
            is_read: false,
        };
        world.group(id).servers.push(added);
        world
            .observed
            .servers
            .insert(third.clone(), replica_of(&server(id, 0), true));
        let second = world.addresses.servers.get_mut(&gid(id)).unwrap().pop().unwrap();
        world.addresses.leaving.insert(gid(id), vec![second, third]);
        for view in world.observed.sentinels.values_mut().flatten() {
            let known = view.masters.get_mut(&format!("c-{id}")).unwrap();
            known.replicas = 2;
            known.replica_silence = [(server(id, 1), 500), (server(id, 2), 500)].into();
        }
    }
    world.cluster.group_size = 1;
    world
}

#[test]
fn of_those_that_leave_a_dead_one_goes_first_and_the_others_while_all_that_stay_are_well() {
    let removed = |world: &World| match world.decide().step {
        Some(Step::RemoveServer { server, .. }) => Some(server),
        _ => None,
    };
    assert_eq!(removed(&shrinking()), Some(server(1, 2)), "the highest number");
    let mut world = shrinking();
    world.observed.servers.insert(server(1, 1), down());
    world.observed.server_pods.get_mut(&server(1, 1)).unwrap().ready = false;
    assert_eq!(removed(&world), Some(server(1, 1)), "it keeps nobody waiting");
    let mut world = shrinking();
    world.group(1).promoting = Some(0);
    assert_ne!(removed(&world), Some(server(1, 2)), "an order that is being changed");
}
