use super::*;
use crate::validate::Hold;

fn mark(group: u64, servers: &[Address], reads: bool) -> Option<Step> {
    Some(Step::MarkReplicas {
        group: gid(group),
        servers: servers.to_vec(),
        reads,
    })
}

fn both(group: u64) -> [Address; 2] {
    [server(group, 0), server(group, 1)]
}

/// A settled cluster whose proxies read from replicas.
fn read() -> World {
    let mut world = World::settled();
    world.cluster.replica_reads = true;
    for group in 1..=2 {
        world
            .group(group)
            .servers
            .iter_mut()
            .for_each(|server| server.is_read = true);
    }
    world
}

#[test]
fn replica_reads_are_set_and_cleared_group_by_group_and_then_nothing_is_done() {
    let mut world = World::settled();
    assert_eq!(world.decide().step, None);
    for wished in [true, false] {
        world.cluster.replica_reads = wished;
        for group in 1..=2 {
            let decision = world.decide();
            assert_eq!(decision.step, mark(group, &both(group), wished));
            assert!(decision.is_voluntary);
            world.apply(&decision.step.unwrap());
        }
        assert_eq!(world.decide().step, None);
    }
}

#[test]
fn a_replica_that_is_not_in_step_is_not_read_from() {
    let mut world = read();
    assert_eq!(world.decide().step, None);
    let unlinked = replica_of(&server(1, 0), false);
    for view in [down(), unlinked] {
        world.observed.servers.insert(server(1, 1), view);
        assert_eq!(world.decide().step, mark(1, &[server(1, 1)], false));
    }
    world.group(1).servers[1].is_read = false;
    assert_eq!(world.decide().step, None, "it comes back first");
    world
        .observed
        .servers
        .insert(server(1, 1), replica_of(&server(1, 0), true));
    assert_eq!(world.decide().step, mark(1, &[server(1, 1)], true));
}

#[test]
fn while_a_group_has_no_master_its_marks_are_left_alone() {
    let mut world = read();
    world.observed.servers.insert(server(1, 0), down());
    world
        .observed
        .servers
        .insert(server(1, 1), replica_of(&server(1, 0), false));
    assert_eq!(world.decide().step, None);
}

#[test]
fn a_hold_stops_a_change_of_the_spec_and_not_the_care_for_a_replica_that_is_not_in_step() {
    let hold = Some(Hold {
        until: None,
        reason: "sale".to_owned(),
        scope: ["proxy".to_owned()].into(),
    });
    let mut world = World::settled();
    world.cluster.replica_reads = true;
    world.cluster.brakes.hold.clone_from(&hold);
    let decision = world.decide();
    assert_eq!(
        (decision.step, reasons(&decision.alarms)),
        (None, vec![reason::HELD; 2])
    );
    let mut world = read();
    world.cluster.brakes.hold = hold;
    world.observed.servers.insert(server(1, 1), down());
    assert_eq!(world.decide().step, mark(1, &[server(1, 1)], false));
}

#[test]
fn a_server_is_added_with_the_zone_of_its_node() {
    let mut world = World::settled().placed();
    let node = world.observed.nodes.get_mut("node-1").unwrap();
    node.zone = Some("b".to_owned());
    world.group(1).servers.pop();
    let add = Step::AddServer {
        group: gid(1),
        server: server(1, 1),
        zone: Some("b".to_owned()),
    };
    assert_eq!(world.decide().step, Some(add));
}
