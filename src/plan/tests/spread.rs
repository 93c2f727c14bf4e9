use proptest::prelude::*;

use super::*;
use crate::{domain::NodeView, validate::PromotionRequest};

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
        zone: None,
    };
    assert_eq!(world.decide().step, Some(add));
}

#[test]
fn a_server_with_data_is_the_first_of_its_group_whatever_its_node() {
    let mut world = crowded();
    world.group(2).servers.clear();
    world.observed.servers.insert(server(2, 0), master(7));
    world.observed.servers.insert(server(2, 1), master(0));
    let add = Step::AddServer {
        group: gid(2),
        server: server(2, 0),
        zone: None,
    };
    assert_eq!(world.decide().step, Some(add));
}

#[test]
fn the_master_that_a_person_chose_stays_and_another_one_moves() {
    let mut world = crowded();
    world.cluster.promotion = Some(PromotionRequest {
        text: "1@x".into(),
        wish: Ok((1, None)),
    });
    let step = world.decide().step;
    assert!(
        matches!(&step, Some(Step::Switchover { to, .. }) if *to == server(2, 1)),
        "{step:?}"
    );
}

#[test]
fn masters_stay_for_a_while_after_a_server_was_restarted() {
    for (seconds, settled) in [(299, true), (300, false)] {
        let mut world = crowded();
        if let Some(ServerView::Up { uptime, .. }) = world.observed.servers.get_mut(&server(2, 1)) {
            *uptime = seconds;
        }
        assert_eq!(world.decide().is_settled(), settled, "{seconds}");
    }
}

/// Hands a group over, as a switchover does.
fn hand_over(world: &mut World, group: GroupId, to: &Address) {
    let id = group.get().into();
    let servers = &mut world.group(id).servers;
    servers.sort_by_key(|server| server.address != *to);
    let all: Vec<Address> = servers.iter().map(|server| server.address.clone()).collect();
    for server in all {
        let view = if server == *to { master(5) } else { replica_of(to, true) };
        world.observed.servers.insert(server, view);
    }
    for view in world.observed.sentinels.values_mut().flatten() {
        view.masters.extend([watched(id, to)]);
    }
    world.topology.sentinels.masters.insert(group, to.clone());
}

proptest! {
    /// However the servers lie, one move is enough for two groups, and then all rests.
    #[test]
    fn spreading_always_ends(nodes in prop::collection::vec(0..3usize, 4)) {
        let mut world = crowded();
        world.observed.nodes.insert("node-2".into(), NodeView::default());
        let servers = [server(1, 0), server(1, 1), server(2, 0), server(2, 1)];
        for (server, node) in servers.iter().zip(&nodes) {
            world.observed.server_pods.get_mut(server).unwrap().node = Some(format!("node-{node}"));
        }
        if let Some(Step::Switchover { group, to, .. }) = world.decide().step {
            hand_over(&mut world, group, &to);
        }
        let decision = world.decide();
        prop_assert!(decision.is_settled(), "{nodes:?}: {decision:?}");
    }
}
