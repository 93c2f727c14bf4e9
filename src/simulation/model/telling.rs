//! A life as it goes: the operator looks again and again, and what the story says happens.

use std::collections::BTreeMap;

use super::{
    Event, Layout, Story,
    checks::End,
    life::{Life, gid, group_of, percent},
};
use crate::{
    domain::{Address, DashboardView, Group, GroupId, SLOT_COUNT, Topology},
    plan::{Decision, Step, balanced, decide, dump, reason},
};

/// After the last disturbance it must have ended within so many looks.
const ENDS_WITHIN: usize = 700;

/// A story while it is told.
pub(super) struct Telling {
    pub life: Life,
    /// Whether the operator dies now and then, and its status is lost.
    dies: bool,
    pub log: Vec<String>,
    last: Decision,
    /// Which kind of event hit which phase.
    pub covered: BTreeMap<(&'static str, &'static str), usize>,
    /// How often the operator looked, and how often it did something.
    pub looks: usize,
    pub steps: usize,
}

impl Telling {
    pub(super) fn of(story: &Story, dies: bool) -> Self {
        let mut life = Life::fresh(story);
        match story.layout {
            Layout::None => {}
            Layout::Level => life.build(|slot| gid(slot % story.groups + 1)),
            Layout::Any(seed) => {
                let mut chance = fastrand::Rng::with_seed(seed);
                let owner: Vec<GroupId> = (0..SLOT_COUNT).map(|_| gid(chance.u16(1..=story.groups))).collect();
                life.build(|slot| owner[usize::from(slot)]);
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
            covered: BTreeMap::new(),
            looks: 0,
            steps: 0,
        }
    }

    /// One look of the operator at the cluster, and what it does.
    fn look(&mut self) -> Result<(), String> {
        self.looks += 1;
        let life = &mut self.life;
        life.tick();
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
        let is_killed = self.dies && percent(&mut life.chance, 15);
        if let Some(step) = &decision.step {
            let calls = if percent(&mut life.chance, 50) { 3 } else { 400 };
            let at = is_killed.then(|| life.chance.usize(..calls));
            self.steps += 1;
            self.allow(step)?;
            if self.dies && percent(&mut self.life.chance, 3) {
                // The dashboard goes between what was seen and what is done.
                self.life.away = 2;
            }
            let done = self.life.act(step, at);
            self.log.push(format!("{step}, to call {at:?}: {done:?}"));
            self.inspect().map_err(|why| format!("{why}, after: {step:?}"))?;
        }
        let life = &mut self.life;
        let is_lost = is_killed || self.dies && percent(&mut life.chance, 10);
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

    /// What was under way when the operator looked last.
    fn phase(&self) -> &'static str {
        let waits_for = |reason: &str| self.last.waits.iter().any(|note| note.reason == reason);
        let phases = [
            (reason::RESTORING, "restoring"),
            (reason::FAILOVER, "failover"),
            (reason::MOVING_SLOTS, "slots move"),
        ];
        let phase = phases.iter().find(|(reason, _)| waits_for(reason));
        match phase {
            Some((_, phase)) => phase,
            None if self.has_ended() => "steady",
            None => "building",
        }
    }

    fn happens(&mut self, event: &Event) {
        *self.covered.entry((event.kind(), self.phase())).or_default() += 1;
        let life = &mut self.life;
        self.log.push(format!("{event:?}"));
        match event {
            Event::Wish { groups, size } => (life.cluster.groups, life.cluster.group_size) = (*groups, *size),
            Event::LinkBreaks { server, looks } => {
                let address = life.nth(*server);
                life.processes.get_mut(&address).unwrap().broken = *looks;
            }
            Event::ServerIsSilent { server, looks } => {
                let address = life.nth(*server);
                if self.may_fail(&address) {
                    self.life.processes.get_mut(&address).unwrap().out = *looks;
                }
            }
            Event::AddressIsTaken { server } => {
                let address = life.nth(*server);
                if self.may_fail(&address) {
                    self.life.take_address(&address);
                }
            }
            Event::ProxyDies { place } => life.kill_proxy(*place),
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
    fn may_fail(&self, address: &Address) -> bool {
        let id = group_of(address);
        let mut others = self
            .life
            .processes
            .iter()
            .filter(|(other, process)| group_of(other) == id && *other != address && process.pod);
        let are_well = others.all(|(_, process)| process.answers() && (process.link || process.follows.is_none()));
        self.life.processes[address].pod && are_well
    }

    fn has_ended(&self) -> bool {
        self.last.is_settled() && self.life.topology.slots.iter().all(|slot| slot.moving.is_none())
    }

    pub(super) fn tell(&mut self, story: &Story) -> Result<End, String> {
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
}

pub(super) fn members(life: &Life) -> BTreeMap<GroupId, Vec<Address>> {
    members_of(&life.topology)
}

fn members_of(topology: &Topology) -> BTreeMap<GroupId, Vec<Address>> {
    let of = |group: &Group| group.servers.iter().map(|server| server.address.clone()).collect();
    topology.groups.iter().map(|(id, group)| (*id, of(group))).collect()
}
