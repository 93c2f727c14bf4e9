//! What a load came to: figures for the reader, and whether that is good enough.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};

use super::ledger::{Counter, DELETES};

/// What a load came to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Reads that were answered.
    pub reads: usize,
    /// Writes that were certainly not done, and connections that weren't to be had.
    pub refused: usize,
    /// Writes that may have been done.
    pub unknown: usize,
    /// Errors as clients saw them, and how often; those of reads begin with `read: `.
    pub errors: BTreeMap<String, usize>,
    /// Acknowledged writes that aren't there.
    pub lost: Vec<String>,
    /// Keys that have a value older than one that was acknowledged, or are there again after their deletion.
    pub resurrected: Vec<String>,
    /// Counts that are higher than what was sent.
    pub duplicated: Vec<String>,
    /// Reads that found something older than what had been acknowledged before them.
    pub stale: Vec<String>,
    /// The longest time without an acknowledged write, by group.
    pub pauses: BTreeMap<i64, Duration>,
    /// The latency that 99 of 100 acknowledged writes didn't exceed.
    pub p99: Duration,
}

/// Why a value isn't one of those that a key may have.
#[derive(Debug, PartialEq, Eq)]
pub enum Misfit {
    /// An older one.
    Older,
    /// None at all.
    Missing,
}

/// Whether a counter's value is its state after one of the writes from `floor` to `ceiling`.
pub fn fits(floor: u64, ceiling: u64, value: Option<&str>) -> Result<(), Misfit> {
    let Some(value) = value else {
        let absent = (floor..=ceiling).any(|number| number % DELETES == 0);
        return if absent { Ok(()) } else { Err(Misfit::Missing) };
    };
    let number = value.rsplit('=').next().and_then(|number| number.parse::<u64>().ok());
    if number.is_some_and(|number| (floor..=ceiling).contains(&number)) {
        Ok(())
    } else {
        Err(Misfit::Older)
    }
}

impl Verdict {
    pub(super) fn unique(&mut self, key: &str, found: Option<&str>) {
        if found != Some(key) {
            self.lost.push(key.to_owned());
        }
    }

    pub(super) fn counter(&mut self, counter: &Counter, found: Option<&str>) {
        let Counter {
            key,
            acknowledged,
            sent,
        } = counter;
        match fits(*acknowledged, *sent, found) {
            Ok(()) => {}
            Err(Misfit::Missing) => self.lost.push(format!("{key}={acknowledged}")),
            Err(Misfit::Older) => self
                .resurrected
                .push(format!("{}, acknowledged {acknowledged}", found.unwrap_or_default())),
        }
    }

    pub(super) fn tally(&mut self, counter: &Counter, unknown: u64, found: Option<&str>) {
        let count: u64 = found.and_then(|value| value.parse().ok()).unwrap_or(0);
        let Counter { key, acknowledged, .. } = counter;
        if count < *acknowledged {
            self.lost.push(format!("{key}: {count} of {acknowledged} counts"));
        }
        if count > acknowledged + unknown {
            self.duplicated
                .push(format!("{key}: {count} counts of {}", acknowledged + unknown));
        }
    }

    /// The longest time without an acknowledged write in some group.
    pub fn longest_pause(&self) -> Duration {
        self.pauses.values().max().copied().unwrap_or_default()
    }

    /// Writes and reads that gave a client an error.
    pub fn client_errors(&self) -> usize {
        self.errors.values().sum()
    }

    /// Prints it all.
    pub fn print(&self) {
        println!(
            "        {} writes acknowledged, {} reads: {} lost, {} resurrected, {} duplicated, {} stale",
            self.acknowledged,
            self.reads,
            self.lost.len(),
            self.resurrected.len(),
            self.duplicated.len(),
            self.stale.len()
        );
        let pauses = self.pauses.iter();
        let pauses: Vec<String> = pauses
            .map(|(group, pause)| format!("group {group} {:.0} ms", pause.as_secs_f64() * 1000.0))
            .collect();
        println!(
            "        longest write pause: {}; p99 {:.1} ms; {} refused, {} unknown, {} errors in all",
            pauses.join(", "),
            self.p99.as_secs_f64() * 1000.0,
            self.refused,
            self.unknown,
            self.client_errors()
        );
        for (error, count) in self.errors.iter().take(8) {
            println!("        {count} × {error}");
        }
    }

    /// Nothing that was acknowledged is lost, older than it was, or done twice; and nobody read anything stale.
    pub fn nothing_lost(&self) -> Result<()> {
        self.lost_at_most(0)?;
        ensure!(
            self.stale.is_empty(),
            "{} reads were stale: {:?}…",
            self.stale.len(),
            some(&self.stale)
        );
        Ok(())
    }

    /// The same, but so many writes may be lost with a master that died (what its replica hadn't got yet).
    pub fn lost_at_most(&self, count: usize) -> Result<()> {
        ensure!(
            self.lost.len() + self.resurrected.len() <= count,
            "{} acknowledged writes are lost {:?}…, {} resurrected {:?}…",
            self.lost.len(),
            some(&self.lost),
            self.resurrected.len(),
            some(&self.resurrected)
        );
        ensure!(
            self.duplicated.is_empty(),
            "{} done twice: {:?}…",
            self.duplicated.len(),
            some(&self.duplicated)
        );
        Ok(())
    }
}

fn some(keys: &[String]) -> &[String] {
    &keys[..keys.len().min(3)]
}
