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
