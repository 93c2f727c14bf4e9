//! Many seeds on all cores, and a failing one made short.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
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

/// Plays seeds on `threads` threads; stops after `most` failures.
///
/// # Errors
/// When a world can't be made.
pub fn sweep(
    seeds: &RangeInclusive<u64>,
    scenario: &str,
    bug: Option<Bug>,
    threads: usize,
    most: usize,
) -> Result<Swept> {
    let next = AtomicU64::new(*seeds.start());
    let swept = Mutex::new(Swept::default());
    on_threads(threads, || work(&next, seeds, scenario, bug, most, &swept))?;
    Ok(swept.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn work(
    next: &AtomicU64,
    seeds: &RangeInclusive<u64>,
    scenario: &str,
    bug: Option<Bug>,
    most: usize,
    swept: &Mutex<Swept>,
) -> Result<()> {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        let is_enough = swept.lock().unwrap_or_else(PoisonError::into_inner).failed.len() >= most;
        if !seeds.contains(&seed) || is_enough {
            return Ok(());
        }
        let mut outcome = run(&Scenario::of(seed, scenario), bug)?;
        let mut swept = swept.lock().unwrap_or_else(PoisonError::into_inner);
        swept.seeds += 1;
        swept.acknowledged += outcome.acknowledged;
        swept.effects += outcome.effects;
        swept.seconds += outcome.seconds;
        for (place, count) in std::mem::take(&mut outcome.covered) {
            *swept.covered.entry(place).or_default() += count;
        }
        if !outcome.violations.is_empty() {
            swept.failed.insert(seed, outcome);
        }
    }
}

/// The shortest scenario that can be found that fails, too: events are left out as long as it does.
///
/// # Errors
/// When a world can't be made.
pub fn shrink(scenario: &Scenario, bug: Option<Bug>) -> Result<Outcome> {
    let mut best = run(scenario, bug)?;
    let mut index = 0;
    while index < best.scenario.events.len() {
        let mut shorter = best.scenario.clone();
        shorter.events.remove(index);
        let outcome = run(&shorter, bug)?;
        if outcome.violations.is_empty() {
            index += 1;
        } else {
            best = outcome;
        }
    }
    Ok(best)
}
