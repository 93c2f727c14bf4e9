use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::domain::SlotMove;

impl World {
    /// The same with another group of two, which has no slots yet.
    fn with_group(mut self, id: u64) -> Self {
        let servers = vec![server(id, 0), server(id, 1)];
        self.cluster.groups = self.cluster.groups.max(u16::try_from(id).unwrap());
        let known = servers.iter().map(|address| Server {
            address: address.clone(),
            action: ActionState::Idle,
            is_read: false,
        });
        let group = Group {
            id: gid(id),
            servers: known.collect(),
            promoting: None,
            out_of_sync: false,
        };
        self.topology.groups.insert(gid(id), group);
        self.observed.servers.insert(server(id, 0), master(0));
        let mut replica = replica_of(&server(id, 0), true);
        if let ServerView::Up { keys, .. } = &mut replica {
            *keys = 0;
        }
        self.observed.servers.insert(server(id, 1), replica);
        for view in self.observed.sentinels.values_mut().flatten() {
            let (name, mut known) = watched(id, &server(id, 0));
            known.replica_silence = BTreeMap::from([(server(id, 1), 500)]);
            view.masters.insert(name, known);
        }
        self.addresses.servers.insert(gid(id), servers);
        self.observed.bootstrapped.insert(gid(id));
        self
    }

    /// So many groups are wished: the others leave.
    fn wish(&mut self, groups: u16) {
        self.cluster.groups = groups;
        let all: BTreeSet<GroupId> = self.addresses.servers.keys().copied().collect();
        self.cluster.leaving_groups = all.into_iter().filter(|id| id.get() > groups).collect();
    }

    fn empty(&mut self, id: u64) {
        self.observed.servers.insert(server(id, 0), master(0));
    }

    fn sizes(&self) -> BTreeMap<GroupId, usize> {
        let groups = self.topology.groups.keys();
        groups.map(|group| (*group, self.topology.slots_of(*group))).collect()
    }

    /// What a pass leaves behind: the status.
    fn remember(&mut self) {
        self.observed.balanced = balanced(&self.desired(), &self.observed());
    }

    /// Does what is decided until nothing is; the steps' names.
    fn run(&mut self) -> Vec<&'static str> {
        let mut done = Vec::new();
        for _ in 0..200 {
            let step = self.decide().step;
            self.remember();
            let Some(step) = step else { return done };
            self.apply(&step);
            assert!(self.topology.slots.iter().all(|slot| slot.group.is_some()), "{step}");
            done.push(step.name());
        }
        panic!("it doesn't end: {done:?}");
    }
}

fn moves(decision: &Decision) -> Vec<(SlotId, GroupId)> {
    match &decision.step {
        Some(Step::MoveSlots(moves)) => moves.clone(),
        _ => Vec::new(),
    }
}

#[test]
fn a_new_group_gets_its_share_a_few_slots_at_a_time() {
    let mut world = World::settled().with_group(3);
    let first = moves(&world.decide());
    assert_eq!(first.len(), 64);
    assert!(first.iter().all(|(_, to)| *to == gid(3)));
    assert_eq!(slots_to_move(&world.desired(), &world.observed()), 341);
    assert_eq!(world.run(), ["MoveSlots"; 6]);
    assert_eq!(world.sizes(), [(gid(1), 342), (gid(2), 341), (gid(3), 341)].into());
    assert_eq!(world.observed.balanced, [gid(1), gid(2), gid(3)].into());
}

#[test]
fn a_new_groups_gate_is_armed_before_its_first_slot_comes() {
    let mut world = World::settled().with_group(3);
    world.observed.bootstrapped.remove(&gid(3));
    assert_eq!(world.decide().step, Some(Step::ArmGate(vec![gid(3)])));
}

#[test]
fn slots_that_somebody_moved_by_hand_stay_where_they_are() {
    let mut world = World::settled();
    for slot in &mut world.topology.slots[..300] {
        slot.group = Some(gid(2));
    }
    assert!(world.decide().is_settled());
}

#[test]
fn no_more_slots_are_queued_than_the_dashboard_is_to_have() {
    let mut world = World::settled().with_group(3);
    for slot in &mut world.topology.slots[..40] {
        let (to, pending) = (gid(3), true);
        slot.moving = Some(SlotMove { to, pending });
    }
    let decision = world.decide();
    assert_eq!(
        (decision.step, reasons(&decision.waits)),
        (None, vec![reason::MOVING_SLOTS])
    );
}

#[test]
fn slots_neither_leave_nor_reach_a_group_that_is_not_well() {
    for hurt in [server(3, 1), server(3, 0), server(1, 1)] {
        let mut world = World::settled().with_group(3);
        world.observed.servers.insert(hurt.clone(), down());
        for (slot, to) in moves(&world.decide()) {
            let from = world.topology.slots[usize::from(slot.get())].group;
            assert!(hurt == server(1, 1) && from != Some(gid(1)) && to == gid(3), "{hurt}");
        }
    }
}

/// It writes where the slots were: the dashboard waits only for proxies that it knows.
#[test]
fn no_slot_moves_while_a_proxy_serves_that_the_topology_does_not_know() {
    let mut world = World::settled().with_group(3);
    world.topology.proxies.pop();
    world.observed.proxy_pods[1].running_for = Some(20);
    assert_eq!(moves(&world.decide()), []);
    world.observed.proxy_pods[1].ready = false;
    assert_eq!(moves(&world.decide()).len(), 64, "one that starts serves nobody yet");
    world.observed.proxy_pods[1].ending = true;
    assert_eq!(moves(&world.decide()), [], "one that leaves may have clients");
    world.observed.proxy_pods[1].running_for = None;
    assert_eq!(moves(&world.decide()).len(), 64, "it has ended");
}

#[test]
fn a_hold_of_the_slots_stops_them() {
    let mut world = World::settled().with_group(3);
    world.cluster.brakes.paused = true;
    let decision = world.decide();
    assert_eq!((decision.step, reasons(&decision.waits)), (None, vec![reason::HELD]));
}

#[test]
fn a_group_that_is_not_wished_any_more_gives_its_slots_away_and_leaves_when_it_is_empty() {
    let mut world = World::settled();
    world.wish(1);
    for _ in 0..8 {
        let step = world.decide().step.unwrap();
        assert!(matches!(&step, Step::MoveSlots(moves) if moves.iter().all(|(_, to)| *to == gid(1))));
        world.apply(&step);
    }
    let decision = world.decide();
    assert_eq!(
        (decision.step, reasons(&decision.blocked)),
        (None, vec![reason::GROUP_NOT_EMPTY]),
        "5 keys are left"
    );
    world.empty(2);
    let mut replica = replica_of(&server(2, 0), true);
    if let ServerView::Up { keys, .. } = &mut replica {
        *keys = 0;
    }
    world.observed.servers.insert(server(2, 1), replica);
    assert_eq!(
        world.run(),
        ["RemoveServer", "RemoveServer", "RemoveGroup", "ForgetGroup"]
    );
}

#[test]
fn a_group_does_not_leave_while_a_server_of_it_does_not_say_that_it_is_empty() {
    let mut world = World::settled().with_group(3);
    world.wish(2);
    world.observed.servers.insert(server(3, 1), down());
    let decision = world.decide();
    assert_eq!(decision.step, None);
    assert!(reasons(&decision.waits).contains(&reason::GROUP_LEAVES), "{decision:?}");
}

#[test]
fn a_group_that_is_taken_back_gets_its_share_again() {
    let mut world = World::settled();
    world.wish(1);
    for _ in 0..2 {
        let step = world.decide().step.unwrap();
        world.apply(&step);
        world.remember();
    }
    assert_eq!(world.sizes()[&gid(2)], 384);
    world.wish(2);
    assert_eq!(world.run(), ["MoveSlots", "MoveSlots"]);
    assert_eq!(world.sizes(), [(gid(1), 512), (gid(2), 512)].into());
}

#[test]
fn a_pod_of_a_group_that_leaves_is_a_member_as_long_as_the_group_has_slots() {
    let mut world = World::settled();
    world.wish(1);
    world.group(2).servers.truncate(1);
    let added = Step::AddServer {
        group: gid(2),
        server: server(2, 1),
        zone: None,
    };
    assert_eq!(world.decide().step, Some(added.clone()), "sentinels may promote it");
    for slot in &mut world.topology.slots {
        slot.group = Some(gid(1));
    }
    assert_ne!(world.decide().step, Some(added), "it is on its way out");
}

#[test]
fn moves_to_a_group_that_leaves_are_cancelled_while_they_wait() {
    let mut world = World::settled().with_group(3);
    for (number, slot) in world.topology.slots[..2].iter_mut().enumerate() {
        let (to, pending) = (gid(3), number == 0);
        slot.moving = Some(SlotMove { to, pending });
    }
    world.wish(2);
    assert_eq!(
        world.decide().step,
        Some(Step::CancelMoves(vec![SlotId::try_from(0).unwrap()]))
    );
}

#[test]
fn a_master_that_is_to_be_handed_over_goes_before_more_slots_do() {
    let mut world = World::settled().with_group(3).placed();
    world.observed.nodes.get_mut("node-0").unwrap().leaving = Some("is cordoned".into());
    let (to, pending) = (gid(3), false);
    for slot in &mut world.topology.slots[..600] {
        if slot.id.get() % 512 == 0 {
            slot.moving = Some(SlotMove { to, pending });
        }
    }
    let decision = world.decide();
    assert_eq!(decision.step, None, "it waits for what is on its way");
    assert!(reasons(&decision.waits).contains(&reason::SWITCHOVER));
}

#[test]
fn slots_that_do_not_arrive_are_told_of() {
    let mut world = World::settled().with_group(3);
    world.topology.slots[7].moving = Some(SlotMove {
        to: gid(3),
        pending: false,
    });
    world.observed.moving_for.insert(SlotId::try_from(7).unwrap(), 90);
    let decision = world.decide();
    assert_eq!(reasons(&decision.alarms), [reason::SLOW_MOVES]);
    assert!(decision.alarms[0].message.contains("7 (group 1 to 3)"), "{decision:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn from_any_layout_and_through_any_wishes_it_ends_at_the_last_one(
        owners in prop::collection::vec(1..5u64, 1024),
        wishes in prop::collection::vec((1..5u16, 0..6usize), 1..4),
    ) {
        let mut world = World::settled().with_group(3).with_group(4);
        for (slot, owner) in world.topology.slots.iter_mut().zip(&owners) {
            slot.group = Some(gid(*owner));
        }
        for id in 1..=4 {
            world.empty(id);
            let mut replica = replica_of(&server(id, 0), true);
            if let ServerView::Up { keys, .. } = &mut replica {
                *keys = 0;
            }
            world.observed.servers.insert(server(id, 1), replica);
        }
        world.observed.balanced.clear();
        for (groups, steps) in &wishes {
            // Groups that left are made anew when they are wished again: that is bootstrap's.
            let there = u16::try_from(world.addresses.servers.len()).unwrap();
            world.wish((*groups).min(there));
            for _ in 0..*steps {
                let step = world.decide().step;
                world.remember();
                if let Some(step) = step { world.apply(&step) }
            }
        }
        world.run();
        let sizes: Vec<usize> = world.sizes().into_values().collect();
        prop_assert_eq!(sizes.len(), usize::from(world.cluster.groups));
        prop_assert_eq!(sizes.iter().sum::<usize>(), 1024);
        prop_assert_eq!(world.topology.groups.len(), sizes.len());
    }
}

#[test]
fn no_slot_leaves_a_group_whose_data_do_not_fit_into_the_others() {
    let mut world = World::settled();
    world.wish(1);
    let mut uses = |id: u64, used: u64| {
        let view = world.observed.servers.get_mut(&server(id, 0)).unwrap();
        if let ServerView::Up { memory, .. } = view {
            *memory = Memory {
                used: used << 20,
                limit: 100 << 20,
            };
        }
    };
    uses(1, 40);
    uses(2, 70);
    let decision = world.decide();
    assert_eq!(
        (decision.step, reasons(&decision.blocked)),
        (None, vec![reason::NO_ROOM])
    );
    assert!(decision.blocked[0].message.contains("70 MiB") && decision.blocked[0].message.contains("60 MiB"));
    world.observed.servers.insert(server(1, 0), master(5));
    assert!(!moves(&world.decide()).is_empty(), "without a limit there is room");
}

#[test]
fn while_slots_are_paused_what_has_not_begun_is_called_back_and_what_has_stands_still() {
    let mut world = World::settled().with_group(3);
    world.cluster.slot_moves.paused = true;
    for (slot, pending) in [(5, true), (6, false)] {
        world.topology.slots[slot].moving = Some(SlotMove { to: gid(3), pending });
    }
    let slot = |id: u64| SlotId::try_from(id).unwrap();
    assert_eq!(world.decide().step, Some(Step::CancelMoves(vec![slot(5)])));
    world.topology.slots[5].moving = None;
    assert_eq!(world.decide().step, Some(Step::HaltMoves));
    world.topology.migrations_disabled = true;
    let decision = world.decide();
    assert_eq!((decision.step, reasons(&decision.waits)), (None, vec![reason::HELD]));
    world.cluster.slot_moves.paused = false;
    assert_eq!(world.decide().step, Some(Step::ResumeMoves));
}

#[test]
fn slots_stand_still_while_a_master_of_theirs_is_down_or_may_be_another_than_the_dashboard_knows() {
    let promoted = |world: &mut World| {
        for view in world.observed.sentinels.values_mut().flatten() {
            view.masters.extend([watched(2, &server(2, 1))]);
        }
    };
    let rival = |world: &mut World| {
        let view = master(5);
        world.observed.servers.insert(server(2, 1), view);
    };
    let silent = |world: &mut World| {
        world.observed.servers.insert(server(2, 0), down());
    };
    let replaced = |world: &mut World| {
        let known = world.sentinel(0).masters.get_mut("c-2").unwrap();
        "s_down,o_down,master".clone_into(&mut known.flags);
    };
    type Happens<'a> = &'a dyn Fn(&mut World);
    let troubles: [(&str, Happens<'_>); 4] = [
        ("promoted", &promoted),
        ("a rival", &rival),
        ("silent", &silent),
        ("about to be replaced", &replaced),
    ];
    for (from, to) in [(1, 2), (2, 1)] {
        for (what, happens) in troubles {
            let mut world = World::settled();
            happens(&mut world);
            assert_ne!(world.decide().step, Some(Step::HaltMoves), "{what}: nothing moves");
            let slot = world
                .topology
                .slots
                .iter_mut()
                .find(|slot| slot.group == Some(gid(from)));
            slot.unwrap().moving = Some(SlotMove {
                to: gid(to),
                pending: false,
            });
            assert_eq!(world.decide().step, Some(Step::HaltMoves), "{what}");
            world.topology.migrations_disabled = true;
            let decision = world.decide();
            assert!(
                !matches!(decision.step, Some(Step::HaltMoves | Step::ResumeMoves)),
                "{what}: {decision:?}"
            );
            assert!(reasons(&decision.waits).contains(&reason::MOVING_SLOTS));
            let settled = World::settled();
            (world.observed.sentinels, world.observed.servers) = (settled.observed.sentinels, settled.observed.servers);
            assert_eq!(world.decide().step, Some(Step::ResumeMoves));
        }
    }
    let mut world = World::settled();
    world.topology.slots[0].moving = Some(SlotMove {
        to: gid(2),
        pending: false,
    });
    world.observed.servers.insert(server(2, 1), master(0));
    assert_ne!(world.decide().step, Some(Step::HaltMoves), "it has just joined");
}

#[test]
fn the_pace_is_set_again_when_a_dashboard_has_forgotten_it_and_only_while_slots_move() {
    let mut world = World::settled();
    world.cluster.slot_moves.interval = 500;
    assert!(world.decide().is_settled());
    let mut world = world.with_group(3);
    assert_eq!(world.decide().step, Some(Step::PaceMoves(500)));
    world.topology.migration_interval = 500;
    assert_eq!(world.decide().step.unwrap().name(), "MoveSlots");
}

#[test]
fn a_rebalance_that_is_asked_for_evens_out_what_somebody_moved_by_hand() {
    let mut world = World::settled();
    for slot in &mut world.topology.slots[..300] {
        slot.group = Some(gid(2));
    }
    // As a pass does while the request isn't dealt with.
    world.observed.balanced.clear();
    assert_eq!(world.run().len(), 5);
    assert_eq!(world.sizes(), [(gid(1), 512), (gid(2), 512)].into());
}

#[test]
fn by_keys_the_group_with_more_of_them_gives_slots_until_it_is_even() {
    let mut world = World::settled();
    world.cluster.slot_moves.balance_by = crate::validate::BalanceBy::Keys;
    world.observed.servers.insert(server(1, 0), master(30_000));
    world.observed.servers.insert(server(2, 0), master(10_000));
    assert!(world.decide().is_settled(), "nobody asked for it");
    world.observed.balanced.clear();
    let first = moves(&world.decide());
    assert!(!first.is_empty() && first.iter().all(|(_, to)| *to == gid(2)));
}
