//! Servers and sentinels whose Service has another address than Codis knows.

use super::*;

/// A settled world in which a pod has another address now.
fn moved(pod: &str, address: &Address) -> World {
    let mut world = World::settled();
    let old = world.desired().address_of(pod).unwrap_or_else(|| sentinel(0));
    world.former.insert(old.host().to_owned(), pod.to_owned());
    let all = world.addresses.servers.values_mut().flatten();
    for known in all.chain(&mut world.addresses.sentinels).filter(|known| **known == old) {
        *known = address.clone();
    }
    if let Some(view) = world.observed.servers.remove(&old) {
        world.observed.servers.insert(address.clone(), view);
    }
    if let Some(view) = world.observed.sentinels.remove(&old) {
        world.observed.sentinels.insert(address.clone(), view);
    }
    world
}

fn new() -> Address {
    Address::new("10.96.77.7", 6379)
}

fn step(world: &World) -> Option<Step> {
    let decision = world.decide();
    assert_eq!(decision.blocked, []);
    decision.step
}

fn servers(world: &World, group: u64) -> Vec<Address> {
    let servers = world.topology.groups[&gid(group)].servers.iter();
    servers.map(|server| server.address.clone()).collect()
}

#[test]
fn a_replicas_new_address_joins_before_its_old_one_leaves() {
    let mut world = moved("c-g1-1", &new());
    let mut names = Vec::new();
    while let Some(step) = step(&world) {
        names.push(step.name());
        assert!(names.len() < 9, "it never ends: {names:?}");
        world.apply(&step);
    }
    assert_eq!(names[..2], ["AddServer", "RemoveServer"]);
    assert_eq!(servers(&world, 1), [server(1, 0), new()]);
}

fn master_lists(world: &mut World, replicas: &[Address]) {
    let Some(ServerView::Up { replicas: known, .. }) = world.observed.servers.get_mut(&server(1, 0)) else {
        panic!()
    };
    *known = replicas.iter().cloned().collect();
}

#[test]
fn a_replica_announces_its_new_address_before_its_old_record_leaves() {
    let mut world = moved("c-g1-1", &new());
    master_lists(&mut world, &[server(1, 1)]);
    assert_eq!(step(&world).unwrap().name(), "AddServer");
    world.apply(&step(&world).unwrap());
    let announce = Step::Announce {
        group: gid(1),
        server: new(),
    };
    assert_eq!(step(&world), Some(announce));
    master_lists(&mut world, &[new()]);
    assert_eq!(step(&world).unwrap().name(), "RemoveServer");
}

#[test]
fn a_replica_is_left_alone_while_its_master_lists_nobody_unknown_or_it_has_no_link() {
    for (listed, link_up) in [(vec![], true), (vec![server(1, 1)], true), (vec![new()], false)] {
        let mut world = World::settled();
        master_lists(&mut world, &listed);
        let view = replica_of(&server(1, 0), link_up);
        world.observed.servers.insert(server(1, 1), view);
        let announces = matches!(world.decide().step, Some(Step::Announce { .. }));
        assert!(!announces, "{listed:?}, link up: {link_up}");
    }
}

#[test]
fn a_replica_that_is_not_in_step_keeps_its_old_record() {
    let mut world = moved("c-g1-1", &new());
    world.apply(&step(&world).unwrap());
    world.observed.servers.insert(new(), replica_of(&server(1, 0), false));
    assert_eq!(step(&world), None);
}

#[test]
fn a_master_with_a_new_address_is_promoted_under_it_and_keeps_its_data() {
    let mut world = moved("c-g1-0", &new());
    assert_eq!(step(&world).unwrap().name(), "AddServer");
    world.apply(&step(&world).unwrap());
    let promote = Step::Promote {
        group: gid(1),
        server: new(),
    };
    assert_eq!(step(&world), Some(promote));
    let group = world.group(1);
    group.servers.swap(0, 2);
    let remove = Step::RemoveServer {
        group: gid(1),
        server: server(1, 0),
    };
    world.observed.servers.insert(server(1, 1), replica_of(&new(), true));
    for view in world.observed.sentinels.values_mut().flatten() {
        view.masters.extend([watched(1, &new())]);
    }
    world.topology.sentinels.masters.insert(gid(1), new());
    // The old record is the last one now, and nobody answers there.
    assert_eq!(step(&world), Some(remove));
}

#[test]
fn a_replica_of_a_members_old_address_joins_again() {
    let mut world = moved("c-g1-0", &new());
    world.group(1).servers.retain(|known| known.address != server(1, 1));
    world.group(1).servers[0].address = new();
    for view in world.observed.sentinels.values_mut().flatten() {
        view.masters.extend([watched(1, &new())]);
    }
    world
        .observed
        .servers
        .insert(server(1, 1), replica_of(&server(1, 0), false));
    assert_eq!(step(&world).map(|step| step.name()), Some("AddServer"));
}

#[test]
fn sentinels_that_name_a_master_by_an_address_that_it_had_agree_with_its_new_one() {
    let mut world = moved("c-g1-0", &new());
    world.group(1).servers[0].address = new();
    world.group(1).out_of_sync = true;
    // They are told of it before anything else.
    assert_eq!(step(&world).map(|step| step.name()), Some("RedirectSentinels"));
    world.former.clear();
    let waits_for = reasons(&world.decide().waits);
    assert!(
        waits_for.contains(&reason::FAILOVER),
        "nobody knows whose it is: {waits_for:?}"
    );
}

/// Group 1 was put back with a master that sentinels had replaced, and the new one's address was taken.
fn put_back_with_a_replaced_master() -> World {
    let mut world = moved("c-g1-1", &new());
    world.group(1).servers.pop();
    for view in world.observed.sentinels.values_mut().flatten() {
        view.masters.extend([watched(1, &server(1, 1))]);
    }
    world.observed.servers.insert(new(), master(9));
    let replaced = replica_of(&server(1, 1), false);
    world.observed.servers.insert(server(1, 0), replaced);
    world.topology.sentinels.out_of_sync = true;
    world
}

#[test]
fn a_master_that_the_official_one_follows_in_vain_joins_and_becomes_official() {
    let mut world = put_back_with_a_replaced_master();
    assert_eq!(step(&world).map(|step| step.name()), Some("AddServer"));
    world.apply(&step(&world).unwrap());
    let promote = Step::Promote {
        group: gid(1),
        server: new(),
    };
    assert_eq!(step(&world), Some(promote));
}

#[test]
fn a_master_that_sentinels_do_not_name_is_not_made_official_by_its_old_address() {
    let mut world = put_back_with_a_replaced_master();
    world.apply(&step(&world).unwrap());
    world.sentinel(2).masters.extend([watched(1, &server(1, 0))]);
    assert_eq!(step(&world), None);
}

#[test]
fn a_dump_has_a_member_also_under_an_address_that_it_had() {
    let before = World::settled();
    let kept = dump(&before.desired(), &before.observed());
    let world = moved("c-g1-1", &new());
    let moved = dump(&world.desired(), &world.observed()).unwrap();
    assert_eq!(moved.groups, kept.unwrap().groups);
    assert_eq!(moved.addresses["c-g1-1"], new().host());
}

#[test]
fn a_promotion_of_a_masters_new_address_that_got_stuck_is_finished() {
    let mut world = moved("c-g1-0", &new());
    world.apply(&step(&world).unwrap());
    let promote = step(&world);
    assert_eq!(promote.as_ref().unwrap().name(), "Promote");
    world.group(1).promoting = Some(2);
    assert_eq!(step(&world), promote);
    world.observed.servers.insert(new(), down());
    assert_eq!(step(&world), None, "nobody has its data");
}

#[test]
fn a_master_whose_replica_was_promoted_meanwhile_is_not_promoted_again() {
    let mut world = moved("c-g1-0", &new());
    world.observed.servers.insert(server(1, 1), master(5));
    assert_eq!(step(&world), None);
    world.observed.servers.insert(server(1, 1), master(0));
    assert_eq!(step(&world).unwrap().name(), "AddServer", "it has just joined");
    let mut world = moved("c-g1-0", &new());
    let view = world.sentinel(1);
    view.masters.extend([watched(1, &server(1, 1))]);
    assert_eq!(step(&world), None);
}

#[test]
fn a_sentinels_old_address_is_forgotten_before_its_new_one_is_added() {
    let now = Address::new("10.96.77.8", 26379);
    let mut world = moved("c-sentinel-0", &now);
    assert_eq!(step(&world), Some(Step::RemoveSentinel(sentinel(0))));
    world.topology.sentinels.servers.retain(|known| *known != sentinel(0));
    assert_eq!(step(&world), Some(Step::AddSentinel(now)));
}

#[test]
fn an_address_that_nobody_remembers_is_foreign() {
    let mut world = moved("c-g1-1", &new());
    world.former.clear();
    assert_eq!(reasons(&world.decide().blocked), [reason::PRODUCT_OWNED_ELSEWHERE]);
}
