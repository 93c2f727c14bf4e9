//! Many seeds on all cores, and a failing one made short.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::Result;

use super::{
    run::{Outcome, run},
    scenario::Scenario,
    threads::on_threads,
};
use crate::seeded::Bug;

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct Swept {
    /// How many were played.
    pub seeds: u64,
    /// Seeds with violations, by seed.
    pub failed: BTreeMap<u64, Outcome>,
    /// Faults × phases.
    pub covered: BTreeMap<(&'static str, &'static str), usize>,
    /// Writes that were acknowledged in all.
    pub acknowledged: usize,
    /// Effects in all.
    pub effects: usize,
    /// Virtual seconds in all.
    pub seconds: f64,
}

/// Plays seeds on `threads` threads. After each of them `goes_on` is told what all came to, and what this one did; once it
/// says no, no other seed is begun.
///
/// # Errors
/// When a world can't be made.
pub fn sweep(
    seeds: &RangeInclusive<u64>,
    threads: usize,
    play: impl Fn(u64) -> Result<Outcome> + Sync,
    goes_on: impl Fn(&Swept, &Outcome) -> bool + Sync,
) -> Result<Swept> {
    let (next, is_enough) = (AtomicU64::new(*seeds.start()), AtomicBool::new(false));
    let swept = Mutex::new(Swept::default());
    on_threads(threads, || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) || is_enough.load(Ordering::Relaxed) {
                return Ok(());
            }
            let outcome = play(seed)?;
            let mut swept = swept.lock().unwrap_or_else(PoisonError::into_inner);
            swept.add(&outcome);
            if !goes_on(&swept, &outcome) {
                is_enough.store(true, Ordering::Relaxed);
            }
        }
    })?;
    Ok(swept.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Swept {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.acknowledged += outcome.acknowledged;
        self.effects += outcome.effects;
        self.seconds += outcome.seconds;
        for (place, count) in &outcome.covered {
            *self.covered.entry(*place).or_default() += count;
        }
        if !outcome.violations.is_empty() {
            self.failed.insert(outcome.seed, outcome.clone());
        }
    }
}

/// The shortest scenario that can be found that fails, too.
///
/// # Errors
/// When a world can't be made.
pub fn shrink(scenario: &Scenario, bug: Option<Bug>) -> Result<Outcome> {
    shortest(&scenario.events, |events| {
        let events = events.to_vec();
        run(
            &Scenario {
                events,
                ..scenario.clone()
            },
            bug,
        )
    })
}

/// What fails with as few of these events as can be found: they are left out one by one as long as it does.
///
/// # Errors
/// Those of playing.
pub(super) fn shortest<E: Clone>(events: &[E], play: impl Fn(&[E]) -> Result<Outcome>) -> Result<Outcome> {
    let (mut events, mut index) = (events.to_vec(), 0);
    let mut best = play(&events)?;
    while index < events.len() {
        let mut fewer = events.clone();
        fewer.remove(index);
        let outcome = play(&fewer)?;
        if outcome.violations.is_empty() {
            index += 1;
        } else {
            (events, best) = (fewer, outcome);
        }
    }
    Ok(best)
}
