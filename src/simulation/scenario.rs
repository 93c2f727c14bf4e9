//! What a world goes through: wishes and faults, all of them from one seed.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use crate::{api::names::ANNOTATION_PROMOTE, seeded::Bug};

use super::{
    coordinator,
    faults::{Fault, Part},
    from_git::Deed,
    hands::Hand,
    weather::Trouble,
    world::Plan,
};

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Counted from when the cluster was Ready first.
    pub at: Duration,
    /// What.
    pub act: Act,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A person changes the wish.
    Wish(Wish),
    /// Something breaks.
    Fault(Fault),
    /// A person does something past the wish.
    Hand(Hand),
    /// Something is done to the repository, or happens to it.
    Git(Deed),
}

/// A change of the wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// So many groups.
    Groups(u32),
    /// So many proxies.
    Proxies(u32),
    /// A setting that servers read at their start: all are replaced, one after the other.
    Roll(u32),
    /// A setting that servers are told while they run.
    Tune(u32),
    /// Another server of the first group becomes its master: the nth request for that.
    Switchover(u32),
    /// Another password of the proxies' clients: all proxies are replaced.
    Rotate,
    /// No pods, and then all again.
    Hibernate(bool),
    /// The cluster goes.
    Delete,
}

impl Wish {
    /// Its name, for tables.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Groups(_) => "groups",
            Self::Proxies(_) => "proxies",
            Self::Roll(_) => "rolling change",
            Self::Tune(_) => "live setting",
            Self::Switchover(_) => "switchover",
            Self::Rotate => "password rotation",
            Self::Hibernate(_) => "hibernation",
            Self::Delete => "deletion",
        }
    }

    /// The merge patch.
    #[must_use]
    pub fn patch(&self, plan: &Plan) -> Value {
        let spec = match self {
            Self::Groups(groups) => json!({"codisServer": {"replicas": groups * plan.replicas}}),
            Self::Proxies(proxies) => json!({"codisProxy": {"replicas": proxies}}),
            Self::Roll(number) => json!({"codisServer": {"config": {"databases": (16 + number).to_string()}}}),
            Self::Tune(number) => json!({"codisServer": {"config": {"maxclients": (5000 + number).to_string()}}}),
            Self::Switchover(number) => {
                return json!({"metadata": {"annotations": {ANNOTATION_PROMOTE: format!("1@{number}")}}});
            }
            Self::Rotate => json!({"codisProxy": {"sessionAuth": "another"}}),
            Self::Hibernate(asleep) => json!({"hibernate": asleep}),
            Self::Delete => json!({}),
        };
        json!({"spec": spec})
    }
}

/// A world's plan and what happens in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The seed of it all.
    pub seed: u64,
    /// Servers keep their data on volumes.
    pub on_volumes: bool,
    /// Groups at the beginning.
    pub groups: u32,
    /// Two operators compete for the Lease.
    pub rivals: bool,
    /// How far clocks may differ, in seconds.
    pub skew: i64,
    /// The topology is kept in etcd.
    pub outside: bool,
    /// The cluster comes from a Git repository.
    pub from_git: bool,
    /// In the order of their times.
    pub events: Vec<Event>,
}

/// Of so many scenarios that aren't narrowed one has a repository.
const GIT_AMONG: u64 = 16;
/// And one has switchovers.
const HANDED_OVER_AMONG: u64 = 8;

/// Scenarios that can be asked for by name.
pub const NAMES: [&str; 12] = [
    "any",
    "calm",
    "faults",
    "memory",
    "grow",
    "shrink",
    "roll",
    "rivals",
    "hands",
    "coordinator",
    "git",
    "switchover",
];

impl Scenario {
    /// The scenario of a seed; `name` narrows it.
    #[must_use]
    pub fn of(seed: u64, name: &str) -> Self {
        if name == "git" || name == "any" && seed.is_multiple_of(GIT_AMONG) {
            return Self::from_git(seed);
        }
        let mut chance = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let groups = if name == "shrink" { 2 } else { chance.u32(1..=2) };
        let mut scenario = Self {
            seed,
            on_volumes: chance.u8(..4) > 0 && name != "memory",
            groups,
            rivals: name == "rivals" || chance.u8(..4) == 0,
            skew: if chance.bool() { chance.i64(-600..600) } else { 0 },
            outside: false,
            from_git: false,
            events: Vec::new(),
        };
        let wish = match name {
            "calm" | "faults" | "memory" | "switchover" => None,
            "grow" => Some(Wish::Groups(groups + 1)),
            "shrink" => Some(Wish::Groups(1)),
            "roll" => Some(Wish::Roll(1)),
            _ => match chance.u8(..6) {
                0 => Some(Wish::Groups(groups + 1)),
                1 if groups > 1 => Some(Wish::Groups(groups - 1)),
                2 => Some(Wish::Roll(1)),
                3 => Some(Wish::Proxies(chance.u32(1..=3))),
                4 => Some(Wish::Tune(1)),
                _ => None,
            },
        };
        let at = |chance: &mut fastrand::Rng| Duration::from_millis(chance.u64(500..25_000));
        if let Some(wish) = wish {
            let act = Act::Wish(wish);
            scenario.events.push(Event {
                at: at(&mut chance),
                act,
            });
        }
        if name != "calm" {
            for _ in 0..chance.u8(1..=3) {
                let act = match (name, chance.u8(..8)) {
                    ("hands", _) | ("any", 0 | 1) => Act::Hand(hand(&mut chance)),
                    ("rivals", 0..4) | (_, 2) => Act::Fault(trouble(&mut chance)),
                    _ => Act::Fault(fault(&mut chance)),
                };
                scenario.events.push(Event {
                    at: at(&mut chance),
                    act,
                });
            }
        }
        let (outside, mishaps) = coordinator::drawn(seed, name);
        scenario.outside = outside;
        scenario.events.extend(mishaps);
        if name == "switchover" || name == "any" && seed % HANDED_OVER_AMONG == 5 {
            scenario.events.extend(handed_over(seed));
        }
        scenario.events.sort_by_key(|event| event.at);
        scenario
    }

    /// What people do to a repository, and little else: most that breaks is the operator.
    fn from_git(seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed ^ 0x917);
        let (groups, on_volumes) = (chance.u32(1..=2), chance.u8(..4) > 0);
        let mut acts: Vec<Act> = (1..=chance.u32(2..=5))
            .map(|number| Act::Git(Deed::by_chance(&mut chance, groups, number)))
            .collect();
        acts.extend((0..chance.u8(..=2)).map(|_| {
            let away = Duration::from_millis(chance.u64(500..20_000));
            Act::Fault(match chance.u8(..6) {
                0..4 => Fault::KillOperator(0, away),
                4 => trouble(&mut chance),
                _ => fault(&mut chance),
            })
        }));
        let mut events: Vec<Event> = acts
            .into_iter()
            .map(|act| Event {
                at: Duration::from_millis(chance.u64(500..60_000)),
                act,
            })
            .collect();
        events.sort_by_key(|event| event.at);
        Self {
            seed,
            on_volumes,
            groups,
            rivals: false,
            skew: 0,
            outside: false,
            from_git: true,
            events,
        }
    }

    /// What the world is made of.
    #[must_use]
    pub fn plan(&self, bug: Option<Bug>) -> Plan {
        Plan {
            seed: self.seed,
            on_volumes: self.on_volumes,
            groups: self.groups,
            replicas: 2,
            rivals: self.rivals,
            skew: self.skew,
            outside: self.outside,
            from_git: self.from_git,
            bug,
        }
    }

    /// Whether somebody wants slots to move.
    #[must_use]
    pub fn moves_slots(&self) -> bool {
        self.has(|act| matches!(act, Act::Wish(Wish::Groups(_))))
    }

    fn has(&self, is_it: impl Fn(&Act) -> bool) -> bool {
        self.events.iter().any(|event| is_it(&event.act))
    }

    /// Whether the topology is lost, and operators change that might have remembered it.
    #[must_use]
    pub fn needs_the_dump(&self) -> bool {
        let forgets = |act: &Act| matches!(act, Act::Fault(Fault::KillOperator(..)));
        let loses = |act: &Act| matches!(act, Act::Fault(fault) if fault.loses_topology());
        self.has(loses) && (self.rivals || self.has(forgets))
    }

    /// Whether servers get other addresses.
    #[must_use]
    pub fn takes_addresses(&self) -> bool {
        self.has(|act| matches!(act, Act::Hand(Hand::TakeAddress(_))))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let storage = if self.on_volumes { "volumes" } else { "emptyDir" };
        let origin = if self.from_git { ", from Git" } else { "" };
        write!(formatter, "{} groups on {storage}{origin}", self.groups)?;
        if self.rivals {
            write!(formatter, ", two operators")?;
        }
        if self.skew != 0 {
            write!(formatter, ", clocks {} s off", self.skew)?;
        }
        if self.outside {
            write!(formatter, ", topology in etcd")?;
        }
        for event in &self.events {
            let act: &dyn fmt::Debug = match &event.act {
                Act::Wish(wish) => wish,
                Act::Fault(fault) => fault,
                Act::Hand(hand) => hand,
                Act::Git(deed) => deed,
            };
            write!(formatter, "; +{:.1} s {act:?}", event.at.as_secs_f64())?;
        }
        Ok(())
    }
}

/// Switchovers that a person asks for, while replicas lag: drawn apart, so that whatever else a seed brings stays.
fn handed_over(seed: u64) -> Vec<Event> {
    let mut chance = fastrand::Rng::with_seed(seed ^ 0x50_7e4);
    let (lag, begin) = (chance.u64(20..300), chance.u64(500..10_000));
    let lasts = Duration::from_millis(chance.u64(10_000..40_000));
    let lags = Fault::Congested(Duration::from_millis(lag), lasts);
    let mut acts = vec![(begin, Act::Fault(lags))];
    for number in 1..=chance.u32(1..=3) {
        acts.push((begin + chance.u64(..15_000), Act::Wish(Wish::Switchover(number))));
    }
    acts.into_iter()
        .map(|(at, act)| Event {
            at: Duration::from_millis(at),
            act,
        })
        .collect()
}

fn fault(chance: &mut fastrand::Rng) -> Fault {
    let parts = [
        Part::Server,
        Part::Server,
        Part::Server,
        Part::Sentinel,
        Part::Dashboard,
        Part::Proxy,
    ];
    let part = parts[chance.usize(..parts.len())];
    let nth = chance.usize(..12);
    let time = Duration::from_millis(chance.u64(500..20_000));
    match chance.u8(..10) {
        0 | 1 => Fault::KillProcess(part, nth),
        2 | 3 => Fault::KillPod(part, nth),
        4 => Fault::Freeze(part, nth, time),
        5 => Fault::Isolate(part, nth, time),
        6 => Fault::Mute(part, nth, time),
        7 => Fault::NodeDown(nth, time + Duration::from_secs(20)),
        8 => Fault::Blind(part, nth, time),
        _ => Fault::SlowDisk(nth, time),
    }
}

/// Trouble of the operators.
fn trouble(chance: &mut fastrand::Rng) -> Fault {
    let (nth, time) = (chance.usize(..2), Duration::from_millis(chance.u64(500..30_000)));
    match chance.u8(..10) {
        0 | 1 => Fault::KillOperator(nth, time),
        2 => Fault::FreezeOperator(nth, time),
        3 => Fault::CutOffOperator(nth, time),
        4 | 5 => Fault::Api(Trouble::Refusals, time),
        6 => Fault::Api(Trouble::LostReplies, time),
        7 => Fault::Api(Trouble::Slow, time),
        8 => Fault::Api(Trouble::Away, time),
        _ => Fault::Deaf(time),
    }
}

fn hand(chance: &mut fastrand::Rng) -> Hand {
    let nth = chance.usize(..12);
    match chance.u8(..10) {
        0 => Hand::DeleteService(nth),
        1 => Hand::DeleteSet(nth),
        2 => Hand::DeleteConfig,
        3 => Hand::DeleteDump,
        4 => Hand::ScaleGroup(nth),
        5 => Hand::ScaleProxies(chance.u32(..5)),
        6 => Hand::EditGroup(nth),
        7 => Hand::StrayMaster(nth),
        8 => Hand::TakeAddress(nth),
        _ => Hand::Drain(nth, Duration::from_secs(chance.u64(20..90))),
    }
}
