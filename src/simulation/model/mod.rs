//! The rules alone in a model of what they decide about: whole lives of clusters, thousands a minute.
//!
//! A [`World`](super::World) runs everything that the operator is, and takes seconds for a seed. Here `plan` alone is asked, with
//! what it would be told: the model answers for Codis, Kubernetes and the doors, and time goes by looks of 3 s. Wishes change, servers, sentinels,
//! the dashboard and the operator fail, the coordinator is emptied, and slots move in their own time. What Codis refuses is
//! refused (contract §7). Nothing is lost at any moment, it ends at the last wish, and an operator that dies between any
//! two calls comes to the same end.
//!
//! Left out, beside what the doors do: pods and volumes that are lost, drains, changes of pods' templates, passwords.
#![expect(clippy::unwrap_used, reason = "a model that contradicts itself stops")]

mod checks;
mod life;
mod steps;
mod telling;
mod time;
mod view;

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::{run::Outcome, sweep::shortest};
use checks::End;
#[cfg(test)]
pub(crate) use life::a_cluster;
use life::{GROUPS, SECONDS, SERVERS};
use telling::Telling;

/// How the slots are when a life begins.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Nothing is built yet.
    None,
    Level,
    /// Somebody moved slots by hand.
    Any(u64),
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Wish { groups: u16, size: u16 },
    LinkBreaks { server: usize, looks: u32 },
    ServerIsSilent { server: usize, looks: u32 },
    AddressIsTaken { server: usize },
    ProxyDies { place: usize },
    SentinelIsSilent { sentinel: usize, looks: u32 },
    DashboardIsAway { looks: u32 },
    CoordinatorIsEmptied { with_tables: bool },
}

/// A life of a cluster, as its seed has it.
#[derive(Clone, Debug)]
pub struct Story {
    seed: u64,
    groups: u16,
    size: u16,
    layout: Layout,
    with_sentinels: bool,
    persistent: bool,
    /// After so many looks this happens.
    events: Vec<(usize, Event)>,
}

impl Event {
    fn of(chance: &mut fastrand::Rng) -> Self {
        let looks = chance.u32(1..12);
        let server = chance.usize(..usize::from(GROUPS * SERVERS));
        match chance.u8(..13) {
            0..4 => Self::Wish {
                groups: chance.u16(1..=GROUPS),
                size: chance.u16(1..=SERVERS),
            },
            4..6 => Self::LinkBreaks { server, looks },
            6..8 => Self::ServerIsSilent { server, looks },
            8 => Self::SentinelIsSilent {
                sentinel: chance.usize(..3),
                looks,
            },
            9 => Self::DashboardIsAway { looks },
            10 => Self::AddressIsTaken { server },
            11 => Self::ProxyDies {
                place: chance.usize(..2),
            },
            _ => Self::CoordinatorIsEmptied {
                with_tables: chance.bool(),
            },
        }
    }

    /// Its name, for tables.
    fn kind(&self) -> &'static str {
        match self {
            Self::Wish { .. } => "wish",
            Self::LinkBreaks { .. } => "link broken",
            Self::ServerIsSilent { .. } => "server silent",
            Self::AddressIsTaken { .. } => "address taken",
            Self::ProxyDies { .. } => "proxy dead",
            Self::SentinelIsSilent { .. } => "sentinel silent",
            Self::DashboardIsAway { .. } => "dashboard away",
            Self::CoordinatorIsEmptied { .. } => "coordinator emptied",
        }
    }
}

impl Story {
    /// The story of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed ^ 0x11fe);
        let layout = match chance.u8(..3) {
            0 => Layout::None,
            1 => Layout::Level,
            _ => Layout::Any(chance.u64(..)),
        };
        let count = chance.usize(..9);
        Self {
            seed,
            groups: chance.u16(1..=GROUPS),
            size: chance.u16(1..=SERVERS),
            layout,
            with_sentinels: chance.bool(),
            persistent: chance.bool(),
            events: (0..count)
                .map(|_| (chance.usize(..20), Event::of(&mut chance)))
                .collect(),
        }
    }

    /// Plays it twice: undisturbed, and with an operator that dies now and then.
    #[must_use]
    pub fn play(&self) -> Outcome {
        let mut outcome = Outcome {
            seed: self.seed,
            scenario: self.to_string(),
            ..Outcome::default()
        };
        let ends = [false, true].map(|dies| self.told(dies, &mut outcome));
        if let [Some(undisturbed), Some(crashed)] = ends
            && undisturbed != crashed
        {
            let what = format!("an operator that dies comes to another end: {crashed:?} instead of {undisturbed:?}");
            outcome.violations.push(what);
        }
        outcome.digest = format!("{:x}", Sha256::digest(outcome.trace.join("\n")));
        outcome
    }

    fn told(&self, dies: bool, outcome: &mut Outcome) -> Option<End> {
        let mut telling = Telling::of(self, dies);
        let end = telling.tell(self);
        outcome.seconds += (telling.looks as u64 * SECONDS) as f64;
        outcome.acknowledged += telling
            .life
            .written
            .values()
            .map(|count| *count as usize)
            .sum::<usize>();
        outcome.effects += telling.steps;
        for (place, count) in telling.covered {
            *outcome.covered.entry(place).or_default() += count;
        }
        outcome.trace.append(&mut telling.log);
        end.map_err(|why| {
            let who = if dies { "an operator that dies" } else { "undisturbed" };
            outcome.violations.push(format!("{who}: {why}"));
        })
        .ok()
    }

    /// The same with as few events as still fail.
    ///
    /// # Errors
    /// Never: it is the worlds that can't be made.
    pub fn shrink(&self) -> anyhow::Result<Outcome> {
        shortest(&self.events, |events| {
            let events = events.to_vec();
            Ok(Self { events, ..self.clone() }.play())
        })
    }
}

impl fmt::Display for Story {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            groups, size, layout, ..
        } = self;
        let storage = if self.persistent { "volumes" } else { "emptyDir" };
        let sentinels = if self.with_sentinels { "" } else { ", without sentinels" };
        write!(
            formatter,
            "{groups} groups of {size} on {storage}{sentinels}, {layout:?}"
        )?;
        for (looks, event) in &self.events {
            write!(formatter, "; {looks} looks, {event:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::seeded::{self, Bug};

    /// Few: `make simulate` plays ten thousand.
    #[test]
    fn from_any_topology_and_through_any_wishes_nothing_is_lost_and_it_ends_at_the_wish() {
        let failed: BTreeMap<u64, Vec<String>> = (1..=24)
            .map(|seed| (seed, Story::of(seed).play().violations))
            .filter(|(_, violations)| !violations.is_empty())
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn a_mistake_that_is_built_into_a_rule_is_found_out() {
        seeded::plant(Some(Bug::DeadProxiesStay));
        let found = (1..=60)
            .map(Story::of)
            .find(|story| !story.play().violations.is_empty());
        seeded::plant(None);
        let found = found.expect("records of dead proxies stay, and nobody minds");
        assert_eq!(found.play().violations, [""; 0], "it is the mistake that was found");
    }

    #[test]
    fn a_story_that_fails_is_told_with_fewer_events() {
        seeded::plant(Some(Bug::DeadProxiesStay));
        let failing = (1..=60)
            .map(Story::of)
            .find(|story| story.events.len() > 2 && !story.play().violations.is_empty());
        let failing = failing.expect("records of dead proxies stay, and nobody minds");
        let short = failing.shrink().unwrap();
        seeded::plant(None);
        assert!(short.scenario.len() < failing.to_string().len(), "{}", short.scenario);
        assert!(short.scenario.contains("ProxyDies"), "{}", short.scenario);
    }

    #[test]
    fn the_same_seed_twice_is_the_same_life() {
        assert_eq!(Story::of(3).play().digest, Story::of(3).play().digest);
    }
}
