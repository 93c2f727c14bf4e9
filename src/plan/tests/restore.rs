//! A lost topology comes back from its dump, or not at all.

use super::*;
use crate::domain::{Dump, Evidence, Route, SlotMove};

/// What a proxy serves by this topology.
fn table(topology: &Topology) -> Vec<Route> {
    let master = |group: GroupId| topology.groups[&group].master().cloned();
    let route = |slot: &SlotMapping| Route {
        group: slot.owner(),
        master: slot.owner().and_then(master),
        from: slot.moving.and(slot.group),
        locked: false,
    };
    topology.slots.iter().map(route).collect()
}

fn proxy(number: u64) -> Address {
    Address::new(format!("10.244.0.{number}"), 11080)
}

fn kept(world: &World) -> Dump {
    dump(&world.desired(), &world.observed()).unwrap()
}

/// The coordinator of a settled world was emptied and the dashboard restarted; `changed` before that.
fn emptied(changed: impl FnOnce(&mut World)) -> (World, Topology) {
    let mut world = World::settled();
    changed(&mut world);
    let before = world.topology.clone();
    world.observed.dump = Some(Ok(kept(&world)));
    let tables = [1, 2].map(|number| (proxy(number), Ok(table(&before))));
    let slots_of = |group: u64| {
        let theirs = |slot: &&SlotMapping| slot.group == Some(gid(group)) && slot.id.get().is_multiple_of(7);
        before.slots.iter().filter(theirs).map(|slot| slot.id).collect()
    };
    let keys = before
        .groups
        .values()
        .map(|group| (group.servers[0].address.clone(), Ok(slots_of(group.id.get().into()))));
    world.observed.evidence = Evidence {
        tables: tables.into(),
        keys: keys.collect(),
    };
    world.topology = Topology {
        slots: World::fresh().topology.slots,
        ..Topology::default()
    };
    (world, before)
}

fn slot(id: u16) -> SlotId {
    SlotId::try_from(u64::from(id)).unwrap()
}

fn route(world: &mut World, number: u64, slot: usize) -> &mut Route {
    let table = world.observed.evidence.tables.get_mut(&proxy(number)).unwrap();
    &mut table.as_mut().unwrap()[slot]
}

/// What the only block says.
fn blocked(world: &World) -> String {
    let decision = world.decide();
    assert_eq!(
        (decision.step, reasons(&decision.blocked)),
        (None, vec![reason::TOPOLOGY_LOST])
    );
    decision.blocked[0].message.clone()
}

fn waits(world: &World) -> String {
    let decision = world.decide();
    assert_eq!((decision.step, decision.blocked), (None, vec![]));
    let note = decision.waits.iter().find(|note| note.reason == reason::RESTORING);
    note.unwrap().message.clone()
}

fn steps(world: &mut World) -> Vec<&'static str> {
    let mut names = Vec::new();
    while let Some(step) = world.decide().step {
        names.push(step.name());
        assert!(names.len() < 40, "it never ends: {names:?}");
        if let Step::RestoreSlots(slots) = &step {
            let dump = world.observed.dump.as_mut().unwrap().as_mut().unwrap();
            dump.restoring = true;
            for slot in slots {
                dump.slots[usize::from(slot.id.get())] = *slot;
            }
        }
        world.apply(&step);
    }
    names.dedup();
    names
}

#[test]
fn an_emptied_coordinator_gets_the_same_topology_back() {
    let (mut world, before) = emptied(|world| {
        world.failed_over();
        world.group(1).out_of_sync = false;
        world
            .observed
            .servers
            .insert(server(1, 0), replica_of(&server(1, 1), true));
        world.topology.slots[3].group = Some(gid(2));
    });
    let names = steps(&mut world);
    assert_eq!(names[..4], ["CreateGroup", "AddServer", "CreateGroup", "AddServer"]);
    assert!(
        names.contains(&"RestoreSlots") && !names.contains(&"AssignSlots"),
        "{names:?}"
    );
    assert_eq!(world.topology.slots, before.slots);
    assert_eq!(world.topology.groups, before.groups);
    assert_eq!(world.topology.sentinels.servers, before.sentinels.servers);
    assert_eq!(kept(&world).groups[&gid(1)], [1, 0], "the master first");
}

#[test]
fn a_dump_that_the_proxies_contradict_is_not_restored() {
    let (mut world, _) = emptied(|_| {});
    for number in [1, 2] {
        route(&mut world, number, 3).group = Some(gid(2));
    }
    assert!(blocked(&world).contains("what the proxies serve: slots 3"));
    let (mut world, _) = emptied(|_| {});
    *route(&mut world, 2, 700) = Route::default();
    assert!(blocked(&world).contains("slots 700"));
}

#[test]
fn a_dump_that_the_keys_contradict_is_not_restored() {
    let (mut world, _) = emptied(|_| {});
    let keys = world.observed.evidence.keys.get_mut(&server(1, 0)).unwrap();
    keys.as_mut().unwrap().insert(slot(1023));
    assert!(blocked(&world).contains("keys of 10.96.1.0:6379 in group 1: it gives slots 1023"));
}

#[test]
fn without_a_dump_or_with_a_broken_one_nothing_is_assigned() {
    let (mut world, _) = emptied(|_| {});
    world.observed.dump = Some(Err("slots: 7 is missing".into()));
    assert!(blocked(&world).contains("slots: 7 is missing"));
    world.observed.dump = None;
    assert!(blocked(&world).contains("there is no dump"));
}

#[test]
fn whoever_has_not_said_what_it_has_is_waited_for() {
    let (mut world, _) = emptied(|_| {});
    let silent = Err("timed out".to_owned());
    world.observed.evidence.tables.insert(proxy(2), silent);
    assert!(waits(&world).contains("10.244.0.2:11080 doesn't say"));

    let (mut world, _) = emptied(|_| {});
    world.observed.evidence.keys.remove(&server(2, 0));
    assert!(waits(&world).contains("10.96.2.0:6379 wasn't asked"));
}

#[test]
fn a_proxy_that_serves_an_older_order_is_not_told_of_an_empty_one() {
    let (mut world, _) = emptied(|_| {});
    world.observed.dump = None;
    assert_eq!(
        world.decide().step,
        None,
        "OnlineProxy would push 1024 slots without a group"
    );
}

#[test]
fn without_a_proxy_that_serves_the_servers_say_who_is_master() {
    let (mut world, _) = emptied(|_| {});
    world.observed.evidence.tables.clear();
    // A failover that the dump doesn't know.
    world
        .observed
        .servers
        .insert(server(1, 0), replica_of(&server(1, 1), true));
    world.observed.servers.insert(server(1, 1), master(5));
    let held = world.observed.evidence.keys.remove(&server(1, 0)).unwrap();
    world.observed.evidence.keys.insert(server(1, 1), held);
    steps(&mut world);
    assert_eq!(world.topology.groups[&gid(1)].master(), Some(&server(1, 1)));
}

#[test]
fn a_failover_while_a_group_is_put_back_is_taken_over() {
    let (mut world, _) = emptied(|_| {});
    for _ in 0..2 {
        let step = world.decide().step.unwrap();
        world.apply(&step);
    }
    assert_eq!(world.topology.groups[&gid(1)].master(), Some(&server(1, 0)));
    world
        .observed
        .servers
        .insert(server(1, 0), replica_of(&server(1, 1), true));
    world.observed.servers.insert(server(1, 1), master(5));
    for number in [1, 2] {
        for slot in 0..1024 {
            let route = route(&mut world, number, slot);
            route.master = route
                .master
                .clone()
                .filter(|master| *master != server(1, 0))
                .or(Some(server(1, 1)));
        }
    }
    let held = world.observed.evidence.keys.remove(&server(1, 0)).unwrap();
    world.observed.evidence.keys.insert(server(1, 1), held);
    let step = world.decide().step.unwrap();
    assert!(
        matches!(&step, Step::AddServer { server: added, .. } if *added == server(1, 1)),
        "{step:?}"
    );
    world.apply(&step);
    let promote = Step::Promote {
        group: gid(1),
        server: server(1, 1),
    };
    assert_eq!(world.decide().step, Some(promote));
}

#[test]
fn of_two_masters_with_keys_the_proxies_know_the_right_one_and_else_the_sentinels_and_else_a_person() {
    let (mut world, _) = emptied(|_| {});
    world.observed.servers.insert(server(1, 1), master(5));
    let held = world.observed.evidence.keys[&server(1, 0)].clone();
    world.observed.evidence.keys.insert(server(1, 1), held);
    for number in [1, 2] {
        for id in 0..512 {
            route(&mut world, number, id).master = Some(server(1, 1));
        }
    }
    assert_eq!(world.decide().step, Some(Step::CreateGroup(gid(1))));
    world.apply(&Step::CreateGroup(gid(1)));
    let added = Step::AddServer {
        group: gid(1),
        server: server(1, 1),
        zone: None,
    };
    assert_eq!(world.decide().step, Some(added.clone()));
    world.observed.evidence.tables.clear();
    for (name, is_named) in [(server(1, 1), true), (server(1, 0), false)] {
        world.sentinel(0).masters.extend([watched(1, &name)]);
        world.sentinel(1).masters.extend([watched(1, &server(1, 1))]);
        world.sentinel(2).masters.extend([watched(1, &server(1, 1))]);
        assert_eq!(world.decide().step == Some(added.clone()), is_named, "one says {name}");
    }
    assert!(blocked(&world).contains("several servers of group 1 are masters with keys"));
}

#[test]
fn a_slot_that_was_on_its_way_goes_on_before_a_proxy_hears_of_it() {
    let way = SlotMove {
        to: gid(2),
        pending: false,
    };
    let (mut world, _) = emptied(|world| world.topology.slots[7].moving = Some(way));
    let mut last = None;
    while !matches!(last, Some(Step::RestoreSlots(_))) {
        last = world.decide().step;
        world.apply(last.as_ref().unwrap());
    }
    let dump = world.observed.dump.as_mut().unwrap().as_mut().unwrap();
    dump.restoring = true;
    // The operator was killed here, and a proxy waits to be registered.
    let decision = world.decide();
    assert_eq!(decision.step, Some(Step::MoveSlots(vec![(slot(7), gid(2))])));
    assert_eq!(dump_of(&world), None, "it isn't kept without the move");
    world.topology.slots[7].moving = Some(SlotMove { pending: true, ..way });
    let decision = world.decide();
    assert!(
        !matches!(decision.step, Some(Step::OnlineProxy(_))),
        "{:?}",
        decision.step
    );
    assert_eq!(dump_of(&world), None);
    world.topology.slots[7].moving = Some(way);
    let names = steps(&mut world);
    assert!(names.contains(&"AddServer"), "{names:?}");
    assert!(!dump_of(&world).unwrap().restoring);
}

/// Of slot 3 a move to group 2 was queued, and the coordinator emptied before it began; then this was written to it.
fn left_over(left: SlotMapping) -> World {
    let (mut world, _) = emptied(|_| {});
    let dump = world.observed.dump.as_mut().unwrap().as_mut().unwrap();
    dump.slots[3].moving = Some(SlotMove {
        to: gid(2),
        pending: false,
    });
    world.topology.slots[3] = left;
    world
}

#[test]
fn what_moves_in_a_topology_that_was_lost_is_halted_first() {
    let moving = |pending| SlotMapping {
        id: slot(3),
        group: Some(gid(1)),
        moving: Some(SlotMove { to: gid(2), pending }),
    };
    for pending in [true, false] {
        let mut world = left_over(moving(pending));
        let names = steps(&mut world);
        assert_eq!(names[..2], ["HaltMoves", "CreateGroup"], "pending: {pending}");
        let now = world.topology.slots[3];
        assert_eq!((now.group, now.moving), (Some(gid(1)), None), "as the proxies have it");
    }
}

#[test]
fn a_slot_that_moved_on_past_the_proxies_goes_back_to_where_they_write() {
    let mut world = left_over(SlotMapping {
        id: slot(3),
        group: Some(gid(2)),
        moving: None,
    });
    steps(&mut world);
    assert_eq!(world.topology.slots[3].group, Some(gid(1)));
}

#[test]
fn halted_moves_of_a_topology_that_is_back_are_resumed_unless_somebody_holds_them() {
    let mut world = World::settled();
    let mut dump = kept(&world);
    (dump.slots[3].moving, dump.restoring) = (
        Some(SlotMove {
            to: gid(2),
            pending: false,
        }),
        true,
    );
    world.observed.dump = Some(Ok(dump));
    world.topology.slots[3].moving = Some(SlotMove {
        to: gid(2),
        pending: true,
    });
    world.topology.migrations_disabled = true;
    assert_eq!(world.decide().step, Some(Step::ResumeMoves));
    world.cluster.slot_moves.paused = true;
    assert_ne!(world.decide().step, Some(Step::ResumeMoves));
}

fn dump_of(world: &World) -> Option<Dump> {
    dump(&world.desired(), &world.observed())
}

#[test]
fn a_slot_that_arrived_meanwhile_or_did_not_begin_is_where_the_proxies_have_it() {
    let way = Some(SlotMove {
        to: gid(2),
        pending: false,
    });
    let (mut world, before) = emptied(|world| {
        world.topology.slots[7].moving = way;
        world.topology.slots[8].moving = way;
    });
    for number in [1, 2] {
        route(&mut world, number, 7).from = None;
        *route(&mut world, number, 8) = table(&before)[9].clone();
    }
    // What is there already left its old group.
    let keys = world.observed.evidence.keys.get_mut(&server(1, 0)).unwrap();
    keys.as_mut().unwrap().remove(&slot(7));
    steps(&mut world);
    let now = |id: usize| (world.topology.slots[id].group, world.topology.slots[id].moving);
    assert_eq!((now(7), now(8)), ((Some(gid(2)), None), (Some(gid(1)), None)));
}

/// The dashboard died after it had told one of two proxies.
#[test]
fn where_proxies_were_told_different_stages_of_a_move_the_slot_is_where_all_its_keys_are() {
    let way = Some(SlotMove {
        to: gid(2),
        pending: false,
    });
    type Told = fn(&mut Route);
    let source: Told = |route| {
        *route = Route {
            group: Some(gid(1)),
            master: Some(server(1, 0)),
            ..Route::default()
        };
    };
    let (locked, under_way): (Told, Told) = (|route| route.locked = true, |_| ());
    let target: Told = |route| route.from = None;
    for (told, expected) in [
        ([source, locked], Some((gid(1), None))),
        ([locked, under_way], Some((gid(1), way))),
        ([under_way, target], Some((gid(1), way))),
        // It would write where keys were fetched from.
        ([source, under_way], None),
        ([source, target], None),
    ] {
        let (mut world, _) = emptied(|world| world.topology.slots[7].moving = way);
        for (number, change) in [1, 2].into_iter().zip(told) {
            change(route(&mut world, number, 7));
        }
        let Some((group, moving)) = expected else {
            assert!(blocked(&world).contains("what the proxies serve: slots 7"));
            continue;
        };
        let mut last = None;
        while !matches!(last, Some(Step::RestoreSlots(_))) {
            last = world.decide().step;
            world.apply(last.as_ref().unwrap());
        }
        let Some(Step::RestoreSlots(slots)) = last else {
            unreachable!()
        };
        assert_eq!((slots[7].group, slots[7].moving), (Some(group), moving));
    }
}

#[test]
fn with_registered_proxies_a_slot_that_was_on_its_way_is_left_to_a_person() {
    let way = Some(SlotMove {
        to: gid(2),
        pending: false,
    });
    let (mut world, before) = emptied(|world| world.topology.slots[7].moving = way);
    for _ in 0..4 {
        world.apply(&world.decide().step.unwrap());
    }
    world.topology.proxies = before.proxies;
    assert!(blocked(&world).contains("slot 7 was on its way"));
}

#[test]
fn a_switchover_that_was_under_way_is_cleared_away_once_its_group_is_back() {
    let (mut world, _) = emptied(|_| {});
    let intent = crate::domain::Intent {
        group: gid(1),
        from: server(1, 0),
        to: server(1, 1),
    };
    world.observed.intent = Some(intent.clone());
    for expected in ["CreateGroup", "AddServer"] {
        let step = world.decide().step.unwrap();
        assert_eq!(step.name(), expected, "the dashboard knows nothing of the group");
        world.apply(&step);
    }
    assert_eq!(world.decide().step, Some(Step::Undo(intent)));
}

#[test]
fn members_that_miss_while_a_group_is_put_back_stay_in_its_dump_as_long_as_they_are_wished() {
    let mut world = World::settled();
    world.observed.dump = Some(Ok(kept(&world)));
    world.group(1).servers.pop();
    assert_eq!(kept(&world).groups[&gid(1)], [0, 1]);
    let leaving = world.addresses.servers.get_mut(&gid(1)).unwrap().split_off(1);
    world.addresses.leaving.insert(gid(1), leaving);
    assert_eq!(kept(&world).groups[&gid(1)], [0]);
}

#[test]
fn proxies_that_write_to_a_masters_old_address_name_its_new_one() {
    let (mut world, _) = emptied(|_| {});
    let now = Address::new("10.96.77.7", 6379);
    world.former.insert(server(1, 0).host().to_owned(), "c-g1-0".to_owned());
    world.addresses.servers.get_mut(&gid(1)).unwrap()[0] = now.clone();
    let view = world.observed.servers.remove(&server(1, 0)).unwrap();
    world.observed.servers.insert(now.clone(), view);
    let keys = world.observed.evidence.keys.remove(&server(1, 0)).unwrap();
    world.observed.evidence.keys.insert(now.clone(), keys);
    world.apply(&Step::CreateGroup(gid(1)));
    let added = world.decide().step;
    assert!(
        matches!(&added, Some(Step::AddServer { server, .. }) if *server == now),
        "{added:?}"
    );
}

#[test]
fn a_dump_is_kept_with_the_moves_that_are_about_to_be_queued() {
    let world = World::settled();
    let moves = [(slot(5), gid(2))];
    let dump = dump_with(&world.desired(), &world.observed(), &moves).unwrap();
    let way = SlotMove {
        to: gid(2),
        pending: false,
    };
    assert_eq!(dump.slots[5].moving, Some(way));
    assert_eq!(dump.slots[6].moving, None);
}

#[test]
fn of_half_a_topology_no_dump_is_kept() {
    let mut world = World::settled();
    world.topology.slots[1000].group = None;
    assert_eq!(dump_of(&world), None);
    let mut world = World::settled();
    world.group(1).servers[0].address = Address::new("10.9.9.9", 6379);
    assert_eq!(dump_of(&world), None, "a member of somebody else");
}

#[test]
fn a_dashboard_whose_volume_went_with_its_node_starts_anew_only_with_a_dump() {
    let mut world = World::settled();
    let lost = |may_return: bool| crate::domain::LostClaim {
        claim: "data-c-dashboard-0".into(),
        uid: "uid".into(),
        node: "node-1".into(),
        may_return,
    };
    let dashboard = world.addresses.dashboard.clone();
    world.observed.lost_claims.insert(dashboard.clone(), lost(false));
    let decide = |world: &World| {
        let observed = Observed {
            dashboard: DashboardView::Unavailable("connection refused".into()),
            ..world.observed()
        };
        super::super::decide(&world.desired(), &observed)
    };
    assert_eq!(reasons(&decide(&world).blocked), [reason::NODE_LOST]);
    world.observed.dump = Some(Ok(kept(&world)));
    let forgotten = decide(&world).step.unwrap();
    assert!(matches!(forgotten, Step::ForgetVolume { claim, .. } if claim == "data-c-dashboard-0"));
    world.observed.lost_claims.insert(dashboard, lost(true));
    assert_eq!(decide(&world).step, None);
}

#[test]
fn a_proxy_that_missed_that_a_slot_arrived_is_no_contradiction_while_nothing_is_left_of_it() {
    let (mut world, before) = emptied(|_| {});
    route(&mut world, 1, 7).from = Some(gid(2));
    assert_eq!(world.decide().step, Some(Step::CreateGroup(gid(1))));
    keys_of(&mut world, 2).insert(slot(7));
    assert!(blocked(&world).contains("it gives slots 7"));
    keys_of(&mut world, 2).remove(&slot(7));
    steps(&mut world);
    assert_eq!(world.topology.slots, before.slots);
}

fn keys_of(world: &mut World, group: u64) -> &mut BTreeSet<SlotId> {
    let keys = world.observed.evidence.keys.get_mut(&server(group, 0)).unwrap();
    keys.as_mut().unwrap()
}

/// Where no proxy serves, nobody but the servers knows what there is: all of them are heard first.
#[test]
fn without_a_serving_proxy_every_server_of_a_group_with_slots_has_its_say() {
    let away = |change: fn(&mut World)| {
        let (mut world, _) = emptied(|_| {});
        world.observed.servers.insert(server(1, 1), down());
        change(&mut world);
        world
    };
    let silent = away(|world| world.observed.evidence.tables.clear());
    assert!(waits(&silent).contains("10.96.1.1:6379 of group 1 doesn't answer"));
    let at_gate = away(|world| {
        world.observed.evidence.tables.clear();
        world.observed.server_pods.get_mut(&server(1, 1)).unwrap().at_gate = true;
    });
    assert_eq!(at_gate.decide().step.unwrap().name(), "CreateGroup", "it is empty");
    let served = away(|_| ());
    assert_eq!(
        served.decide().step.unwrap().name(),
        "CreateGroup",
        "the proxies know the master"
    );
}

#[test]
fn slots_that_proxies_serve_are_put_back_where_they_were_although_nothing_was_written_yet() {
    let (mut world, before) = emptied(|world| world.topology.slots[3].group = Some(gid(2)));
    for id in 1..=2 {
        world.observed.servers.insert(server(id, 0), master(0));
        let mut replica = replica_of(&server(id, 0), true);
        if let ServerView::Up { keys, .. } = &mut replica {
            *keys = 0;
        }
        world.observed.servers.insert(server(id, 1), replica);
    }
    let names = steps(&mut world);
    assert!(names.contains(&"RestoreSlots"), "{names:?}");
    assert_eq!(world.topology.slots, before.slots);
}
