//! Whole lives of clusters: wishes change, servers, the dashboard and the operator fail, the coordinator is emptied, and
//! slots move in their own time. Whatever happens, nothing is lost at any moment, and it ends at the last wish.

mod model;

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, test_runner::RngSeed};

use super::*;
use model::{KEYED, Life, group_of};

/// So many moves may be at the dashboard at once.
const QUEUED: usize = 64;
/// After the last disturbance it must have ended within so many looks.
const ENDS_WITHIN: usize = 700;

#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Nothing is built yet.
    None,
    Level,
    /// Somebody moved slots by hand.
    Any(u64),
}

#[derive(Clone, Debug)]
enum Event {
    Wish { groups: u16, size: u16 },
    LinkBreaks { server: usize, looks: u32 },
    ServerIsSilent { server: usize, looks: u32 },
    SentinelIsSilent { sentinel: usize, looks: u32 },
    DashboardIsAway { looks: u32 },
    CoordinatorIsEmptied { with_tables: bool },
}

#[derive(Clone, Debug)]
struct Story {
    groups: u16,
    size: u16,
    layout: Layout,
    with_sentinels: bool,
    persistent: bool,
    /// After so many looks this happens.
    events: Vec<(usize, Event)>,
    seed: u64,
}

/// What doesn't depend on which of equals was chosen.
#[derive(Debug, PartialEq)]
struct End {
    members: BTreeMap<GroupId, BTreeSet<Address>>,
    /// Where it is said how many slots each group is to have.
    sizes: Option<Vec<usize>>,
}

fn event() -> impl Strategy<Value = Event> {
    let looks = 1..12u32;
    prop_oneof![
        4 => (1..=6u16, 1..=3u16).prop_map(|(groups, size)| Event::Wish { groups, size }),
        2 => (0..18usize, looks.clone()).prop_map(|(server, looks)| Event::LinkBreaks { server, looks }),
        2 => (0..18usize, looks.clone()).prop_map(|(server, looks)| Event::ServerIsSilent { server, looks }),
        1 => (0..3usize, looks.clone()).prop_map(|(sentinel, looks)| Event::SentinelIsSilent { sentinel, looks }),
        1 => looks.prop_map(|looks| Event::DashboardIsAway { looks }),
        1 => any::<bool>().prop_map(|with_tables| Event::CoordinatorIsEmptied { with_tables }),
    ]
}

fn story() -> impl Strategy<Value = Story> {
    let layout = prop_oneof![
        Just(Layout::None),
        Just(Layout::Level),
        any::<u64>().prop_map(Layout::Any)
    ];
    let events = prop::collection::vec((0..30usize, event()), 0..9);
    let about = (1..=6u16, 1..=3u16, layout, any::<bool>(), any::<bool>());
    (about, events, any::<u64>()).prop_map(
        |((groups, size, layout, with_sentinels, persistent), events, seed)| Story {
            groups,
            size,
            layout,
            with_sentinels,
            persistent,
            events,
            seed,
        },
    )
}

/// A story while it is told.
struct Telling {
    life: Life,
    /// Whether the operator dies now and then, and its status is lost.
    dies: bool,
    log: Vec<String>,
    last: Decision,
}

impl Telling {
    fn of(story: &Story, dies: bool) -> Self {
        let mut life = Life::fresh(
            story.groups,
            story.size,
            story.with_sentinels,
            story.persistent,
            story.seed,
        );
        let groups = u64::from(story.groups);
        match story.layout {
            Layout::None => {}
            Layout::Level => life.build(|slot| gid(slot as u64 % groups + 1)),
            Layout::Any(seed) => {
                let owner: Vec<u64> = (0..1024)
                    .map({
                        let mut chance = model::Chance(seed);
                        move |_| chance.below(groups) + 1
                    })
                    .collect();
                life.build(|slot| gid(owner[slot]));
            }
        }
        if !matches!(story.layout, Layout::None) {
            life.status.balanced = life.topology.groups.keys().copied().collect();
            life.status.groups = members(&life);
        }
        Self {
            life,
            dies,
            log: Vec::new(),
            last: Decision::default(),
        }
    }

    /// One look of the operator at the cluster, and what it does.
    fn look(&mut self) -> Result<(), String> {
        let life = &mut self.life;
        life.tick();
        self.inspect()?;
        let life = &mut self.life;
        let changed = life.apply_wish();
        self.inspect()?;
        let life = &mut self.life;
        let observed = life.observe();
        let (decision, kept, balanced) = {
            let desired = life.desired(changed);
            (
                decide(&desired, &observed),
                dump(&desired, &observed),
                balanced(&desired, &observed),
            )
        };
        if let Some(kept) = kept {
            life.dump = Some(kept);
        }
        let is_killed = self.dies && life.chance.percent(15);
        if let Some(step) = &decision.step {
            let calls = if life.chance.percent(50) { 3 } else { 400 };
            let at = is_killed.then(|| life.chance.index(calls));
            self.allow(step)?;
            if self.dies && self.life.chance.percent(3) {
                // The dashboard goes between what was seen and what is done.
                self.life.away = 2;
            }
            let done = self.life.act(step, at);
            self.log.push(format!("{step}, to call {at:?}: {done:?}"));
            self.inspect().map_err(|why| format!("{why}, after: {step:?}"))?;
        }
        let life = &mut self.life;
        let is_lost = is_killed || self.dies && life.chance.percent(10);
        if !is_lost {
            life.status.balanced = balanced;
            if let DashboardView::Online { topology, .. } = &observed.dashboard {
                life.status.groups = members_of(topology);
            }
        }
        self.last = decision;
        Ok(())
    }

    /// Whether the step may be taken at all.
    fn allow(&self, step: &Step) -> Result<(), String> {
        let Step::MoveSlots(moves) = step else { return Ok(()) };
        // What was on its way when the topology was lost must go on: its keys may be there.
        let goes_on = self.life.dump.as_ref().is_some_and(|dump| dump.restoring);
        match moves.iter().find(|(_, to)| !self.life.cluster.stays(*to)) {
            Some((slot, to)) if !goes_on => Err(format!("slot {slot} is to move to group {to}, which leaves")),
            _ => Ok(()),
        }
    }

    /// What must be true at every moment.
    fn inspect(&mut self) -> Result<(), String> {
        self.owners_are_as_they_were()?;
        let queued = self
            .life
            .topology
            .slots
            .iter()
            .filter(|slot| slot.moving.is_some())
            .count();
        if queued > QUEUED {
            return Err(format!("{queued} moves are queued"));
        }
        (0..1024).step_by(KEYED).try_for_each(|slot| self.key_is_kept(slot))
    }

    fn owners_are_as_they_were(&mut self) -> Result<(), String> {
        let life = &mut self.life;
        let is_whole = life.is_whole();
        let dump = life.dump.as_ref().filter(|dump| dump.restoring);
        // It arrived, and nobody could say so: it is sent once more, before a proxy is told.
        let is_sent_again = |slot: &SlotMapping, at: GroupId| {
            let old = dump.map(|dump| dump.slots[usize::from(slot.id.get())]);
            old.is_some_and(|old| old.group == slot.group && old.moving.is_some_and(|moving| moving.to == at))
        };
        for (slot, truth) in life.topology.slots.iter().zip(&mut life.truth) {
            let Some(owner) = slot.group else { continue };
            match truth {
                None => *truth = Some((owner, None)),
                Some((from, _)) if *from == owner => {}
                Some((at, None)) if is_sent_again(slot, *at) => {}
                // Lost on its way, it was put back where it was going to.
                Some((_, Some(to))) if *to == owner && is_whole => *truth = Some((owner, None)),
                Some((_, Some(to))) if *to == owner => {}
                Some(before) => return Err(format!("slot {} was at {before:?} and is given to {owner}", slot.id)),
            }
        }
        Ok(())
    }

    /// The last thing that was written is where proxies and the dashboard look for it.
    fn key_is_kept(&self, slot: usize) -> Result<(), String> {
        let life = &self.life;
        let Some(count) = life.written.get(&slot) else {
            return Ok(());
        };
        let holders = life
            .processes
            .iter()
            .filter(|(_, process)| process.pod && process.keys.get(&slot) == Some(count));
        let holders: Vec<&Address> = holders.map(|(address, _)| address).collect();
        let is_at = |group: Option<GroupId>| holders.iter().any(|holder| Some(group_of(holder)) == group);
        if holders.is_empty() {
            return Err(format!("nobody has the key of slot {slot}"));
        }
        for proxy in &life.proxies {
            let route = &proxy.table[slot];
            if route.group.is_some() && !is_at(route.group) && !is_at(route.from) {
                return Err(format!(
                    "a proxy takes slot {slot} for {route:?}, and its key is at {holders:?}"
                ));
            }
        }
        let mapping = life.topology.slots[slot];
        let Some(group) = mapping.group else { return Ok(()) };
        let again = life
            .dump
            .as_ref()
            .filter(|dump| dump.restoring)
            .and_then(|dump| dump.slots[slot].moving);
        let way = mapping
            .moving
            .filter(|moving| !moving.pending)
            .or(again)
            .map(|moving| moving.to);
        let is_official = |id: Option<GroupId>| {
            let known = id.and_then(|id| life.topology.groups.get(&id));
            known.is_some_and(|known| known.servers.iter().any(|server| holders.contains(&&server.address)))
        };
        // A group that is being put back has only its master at first.
        if is_official(Some(group)) || is_official(way) || !life.is_whole() && (is_at(Some(group)) || is_at(way)) {
            return Ok(());
        }
        Err(format!("slot {slot} is {mapping:?}, and its key is at {holders:?}"))
    }

    fn happens(&mut self, event: &Event) {
        let life = &mut self.life;
        self.log.push(format!("{event:?}"));
        match event {
            Event::Wish { groups, size } => (life.cluster.groups, life.cluster.group_size) = (*groups, *size),
            Event::LinkBreaks { server, looks } => {
                let process = life.processes.values_mut().nth(*server).unwrap();
                process.broken = *looks;
            }
            Event::ServerIsSilent { server, looks } => self.silence(*server, *looks),
            Event::SentinelIsSilent { sentinel, looks } => {
                if let Some(sentinel) = life.sentinels.values_mut().nth(*sentinel) {
                    sentinel.out = *looks;
                }
            }
            Event::DashboardIsAway { looks } => life.away = *looks,
            // Between the first assignment and the first dump there is nothing to go by: a person decides.
            Event::CoordinatorIsEmptied { .. }
                if life.dump.is_none() && life.topology.slots.iter().any(|slot| slot.group.is_some()) => {}
            // As when it is emptied anew just after one of two proxies was told of what was put back: they disagree.
            Event::CoordinatorIsEmptied { .. } if life.topology.proxies.len() == 1 => {}
            // Of two masters with keys only the proxies know which is the right one.
            Event::CoordinatorIsEmptied { with_tables } => life.lose(*with_tables || !life.has_clear_masters()),
        }
    }

    /// A master whose replicas broke off a while before, and just before the silence, loses writes in Codis itself, too:
    /// one trouble of a group at a time.
    fn silence(&mut self, server: usize, looks: u32) {
        let processes = &mut self.life.processes;
        let address = processes.keys().nth(server).unwrap().clone();
        let id = group_of(&address);
        let others = processes
            .iter()
            .filter(|(other, process)| group_of(other) == id && **other != address && process.pod);
        let are_well = others
            .clone()
            .all(|(_, process)| process.answers() && (process.link || process.follows.is_none()));
        let process = processes.get_mut(&address).unwrap();
        if process.pod && are_well {
            process.out = looks;
        }
    }

    fn has_ended(&self) -> bool {
        self.last.is_settled() && self.life.topology.slots.iter().all(|slot| slot.moving.is_none())
    }

    fn tell(&mut self, story: &Story) -> Result<End, String> {
        for (looks, event) in &story.events {
            for _ in 0..*looks {
                self.look()?;
            }
            self.happens(event);
        }
        self.dies = false;
        // Pods follow what the status said: a look or two later.
        let mut calm = 0;
        for _ in 0..ENDS_WITHIN {
            self.look()?;
            calm = if self.has_ended() { calm + 1 } else { 0 };
            if calm == 3 {
                return self.end(story);
            }
        }
        Err(format!("it doesn't end: {:?}", self.last))
    }

    /// The end is the wish.
    fn end(&self, story: &Story) -> Result<End, String> {
        let life = &self.life;
        let wished: BTreeMap<GroupId, BTreeSet<Address>> = life
            .cluster
            .wished_groups()
            .map(|id| {
                (
                    id,
                    (0..life.cluster.group_size)
                        .map(|o| server(id.get().into(), o.into()))
                        .collect(),
                )
            })
            .collect();
        let members: BTreeMap<GroupId, BTreeSet<Address>> = members(life)
            .into_iter()
            .map(|(id, servers)| (id, servers.into_iter().collect()))
            .collect();
        let sets: BTreeMap<GroupId, u16> = wished.keys().map(|id| (*id, life.cluster.group_size)).collect();
        if members != wished || life.sets != sets {
            return Err(format!("it ended with {members:?} and {:?}", life.sets));
        }
        let mut sizes: Vec<usize> = wished.keys().map(|id| life.topology.slots_of(*id)).collect();
        sizes.sort_unstable();
        let is_level = !matches!(story.layout, Layout::Any(_)) || life.cluster.groups > story.groups;
        if is_level && sizes[sizes.len() - 1] - sizes[0] > 1 {
            return Err(format!("the slots are not level: {sizes:?}"));
        }
        self.keys_are_in_place()?;
        Ok(End {
            members,
            sizes: is_level.then_some(sizes),
        })
    }

    /// Every member has the keys of its group's slots, and no others.
    fn keys_are_in_place(&self) -> Result<(), String> {
        let life = &self.life;
        for group in life.topology.groups.values() {
            let is_theirs = |(slot, _): &(&usize, &u32)| life.topology.slots[**slot].group == Some(group.id);
            let theirs: BTreeMap<usize, u32> = life.written.iter().filter(is_theirs).map(|(s, n)| (*s, *n)).collect();
            for server in &group.servers {
                let has = &life.processes[&server.address].keys;
                if *has != theirs {
                    return Err(format!("{} has {has:?} instead of {theirs:?}", server.address));
                }
            }
        }
        Ok(())
    }
}

fn members(life: &Life) -> BTreeMap<GroupId, Vec<Address>> {
    members_of(&life.topology)
}

fn members_of(topology: &Topology) -> BTreeMap<GroupId, Vec<Address>> {
    let of = |group: &Group| group.servers.iter().map(|server| server.address.clone()).collect();
    topology.groups.iter().map(|(id, group)| (*id, of(group))).collect()
}

/// The end of a story; else what went wrong, after what.
fn told(story: &Story, dies: bool) -> Result<End, TestCaseError> {
    let mut telling = Telling::of(story, dies);
    telling.tell(story).map_err(|why| {
        let last = telling.log.len().saturating_sub(40);
        TestCaseError::fail(format!("{why}\n{}", telling.log[last..].join("\n")))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 60, rng_seed: seed(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn from_any_topology_and_through_any_wishes_nothing_is_lost_and_it_ends_at_the_wish(story in story()) {
        let undisturbed = told(&story, false)?;
        let crashed = told(&story, true)?;
        prop_assert_eq!(undisturbed, crashed, "an operator that dies comes to the same end");
    }
}

/// Few by default: each is two whole lives.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    asked.unwrap_or(64)
}

/// The same stories each time, unless somebody asks for more of them by hand.
fn seed() -> RngSeed {
    match std::env::var("PROPTEST_CASES") {
        Ok(_) => RngSeed::Random,
        Err(_) => RngSeed::Fixed(6),
    }
}
