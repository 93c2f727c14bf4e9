use super::*;

/// Two groups whose masters are on one node.
fn crowded() -> World {
    World::settled().placed()
}

#[test]
fn a_node_with_two_masters_more_than_another_hands_one_over() {
    let step = crowded().decide().step;
    assert!(
        matches!(&step, Some(Step::Switchover { to, .. }) if *to == server(1, 1)),
        "{step:?}"
    );
}

#[test]
fn masters_that_are_spread_stay_where_they_are() {
    let mut world = crowded();
    for (ordinal, node) in [(0, "node-1"), (1, "node-0")] {
        world.observed.server_pods.get_mut(&server(2, ordinal)).unwrap().node = Some(node.into());
    }
    assert!(world.decide().is_settled());
}

#[test]
fn nobody_spreads_masters_under_supervision_or_while_something_is_waited_for() {
    let mut world = crowded();
    world.cluster.brakes.supervised = true;
    assert!(world.decide().is_settled());
    let mut world = crowded();
    world.observed.unready = vec!["fe 0/1".into()];
    assert_eq!(world.decide().step, None);
}

#[test]
fn the_first_master_of_a_new_group_is_on_the_node_with_the_fewest() {
    let mut world = crowded();
    world.topology.groups.get_mut(&gid(2)).unwrap().servers.clear();
    world
        .topology
        .slots
        .iter_mut()
        .for_each(|slot| slot.group = Some(gid(1)));
    let add = Step::AddServer {
        group: gid(2),
        server: server(2, 1),
    };
    assert_eq!(world.decide().step, Some(add));
}
