//! `codis-operator simulate`: many seeded disasters in worlds of their own.

use std::{
    ops::RangeInclusive,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, builder::PossibleValuesParser};

use crate::simulation::{
    OPERATIONS, Operation, Outcome, SCENARIOS, Scenario, Story, Swept, crash_everywhere, on_a_deep_stack, run, shrink,
    sweep,
};

/// What `--scenario` calls the model.
const MODEL: &str = "model";

/// What is simulated.
#[derive(Args, Debug)]
pub(super) struct Simulate {
    /// The seeds: one, or a range like `1..1000` with both ends.
    #[arg(long, default_value = "1..100", value_parser = seeds)]
    seeds: RangeInclusive<u64>,
    /// What happens in the worlds; `model`: no worlds but the operator's rules alone, in a model of Codis, thousands a minute.
    #[arg(long, default_value = "any", value_parser = scenarios())]
    scenario: String,
    /// Print all that happened in the world of the first seed, and its digest; play no other.
    #[arg(long)]
    trace: bool,
    /// Worlds that are simulated at the same time; as many as there are cores by default.
    #[arg(long)]
    threads: Option<usize>,
    /// Stop after so many failing seeds.
    #[arg(long, default_value_t = 5)]
    failures: usize,
    /// Begin no other seed after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Instead of seeds: kill the operator at the effects of an operation, or of all, before each, after it and while it is
    /// under way, and see whether it ends the same.
    #[arg(long, value_name = "OPERATION", num_args = 0..=1, default_missing_value = "all")]
    crashes: Option<String>,
    /// At every single effect, also where hundreds of moves of slots stand in a row.
    #[arg(long, requires = "crashes")]
    every: bool,
    /// Don't make the failing scenarios shorter.
    #[arg(long)]
    no_shrink: bool,
}

fn scenarios() -> PossibleValuesParser {
    SCENARIOS.into_iter().chain([MODEL]).into()
}

/// `A`, or `A..B` with both ends.
fn seeds(text: &str) -> Result<RangeInclusive<u64>> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let number = |word: &str| {
        let word = word.trim_start_matches('=');
        word.parse::<u64>()
            .with_context(|| format!("{word:?} in {text:?} is no seed: give A or A..B"))
    };
    let (first, last) = (number(first)?, number(last)?);
    ensure!(
        first <= last,
        "{text:?} has no seeds: the first is greater than the last"
    );
    Ok(first..=last)
}

impl Simulate {
    /// Plays the seeds. Failure when something that must hold didn't.
    pub(super) fn run(&self) -> Result<ExitCode> {
        if self.trace {
            return self.one();
        }
        if let Some(operation) = &self.crashes {
            return self.crash(operation);
        }
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let began = Instant::now();
        let threads = self.threads.unwrap_or(cores);
        let minutes_told = AtomicU64::new(0);
        let swept = sweep(
            &self.seeds,
            threads,
            |seed| self.play(seed),
            |swept, outcome| {
                if !outcome.violations.is_empty() {
                    self.tell(outcome);
                }
                let minutes = began.elapsed().as_secs() / 60;
                if minutes_told.swap(minutes, Ordering::Relaxed) < minutes {
                    let (seeds, failed) = (swept.seeds, swept.failed.len());
                    eprintln!("minute {minutes}: {seeds} seeds, {failed} with violations");
                }
                swept.failed.len() < self.failures && self.minutes.is_none_or(|limit| minutes < limit)
            },
        )?;
        table(&swept);
        println!(
            "{} seeds in {:.1} s on {threads} threads ({:.0} ms of a thread each): {:.1} h of virtual time, {} acknowledged writes, \
             {} effects, {} seeds with violations",
            swept.seeds,
            began.elapsed().as_secs_f64(),
            began.elapsed().as_secs_f64() * 1000.0 * threads as f64 / swept.seeds.max(1) as f64,
            swept.seconds / 3600.0,
            swept.acknowledged,
            swept.effects,
            swept.failed.len()
        );
        if !self.no_shrink {
            swept.failed.keys().try_for_each(|seed| self.shorten(*seed))?;
        }
        Ok(if swept.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn play(&self, seed: u64) -> Result<Outcome> {
        match self.scenario.as_str() {
            MODEL => Ok(Story::of(seed).play()),
            name => run(&Scenario::of(seed, name), None),
        }
    }

    /// Prints the shortest scenario that fails like this one.
    fn shorten(&self, seed: u64) -> Result<()> {
        let short = on_a_deep_stack(|| match self.scenario.as_str() {
            MODEL => Story::of(seed).shrink(),
            name => shrink(&Scenario::of(seed, name), None),
        })?;
        println!("\nseed {seed}, the shortest that fails: {}", short.scenario);
        short.violations.iter().for_each(|what| println!("  VIOLATION {what}"));
        Ok(())
    }

    fn crash(&self, wanted: &str) -> Result<ExitCode> {
        let all = OPERATIONS.map(|operation| operation.to_string());
        ensure!(
            wanted == "all" || all.iter().any(|name| name == wanted),
            "--crashes {wanted}: is none of {}",
            all.join(", ")
        );
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (mut points, mut failed) = (0, 0);
        let chosen = |operation: &Operation| wanted == "all" || operation.to_string() == wanted;
        for operation in OPERATIONS.into_iter().filter(chosen) {
            let began = Instant::now();
            let crashed = crash_everywhere(operation, self.every, self.threads.unwrap_or(cores))?;
            let good = crashed.points - crashed.failed.len();
            println!(
                "{:<18} {:>4} effects, {good:>4} of {:>4} crashes end as without one ({} happened), {:.0} s",
                operation.to_string(),
                crashed.effects,
                crashed.points,
                crashed.happened,
                began.elapsed().as_secs_f64()
            );
            for (place, what) in crashed.failed.iter().take(self.failures) {
                println!("    {place}: {what}");
            }
            points += crashed.points;
            failed += crashed.failed.len();
        }
        println!("{} of {points} crashes end as without one", points - failed);
        Ok(if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn one(&self) -> Result<ExitCode> {
        let outcome = on_a_deep_stack(|| self.play(*self.seeds.start()))?;
        println!("seed {}: {}", outcome.seed, outcome.scenario);
        outcome.trace.iter().for_each(|line| println!("{line}"));
        outcome.violations.iter().for_each(|what| println!("VIOLATION {what}"));
        println!("trace {} of {:.0} virtual seconds", outcome.digest, outcome.seconds);
        Ok(if outcome.violations.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn tell(&self, outcome: &Outcome) {
        let seed = outcome.seed;
        println!("seed {seed}: {}", outcome.scenario);
        outcome
            .violations
            .iter()
            .for_each(|what| println!("  VIOLATION {what}"));
        println!(
            "  replay: codis-operator simulate --seeds {seed} --scenario {} --trace",
            self.scenario
        );
    }
}

/// Which faults hit which phases, and how often.
fn table(swept: &Swept) {
    let phases: std::collections::BTreeSet<_> = swept.covered.keys().map(|(_, phase)| *phase).collect();
    let faults: std::collections::BTreeSet<_> = swept.covered.keys().map(|(fault, _)| *fault).collect();
    if faults.is_empty() {
        return;
    }
    let head: Vec<String> = phases.iter().map(|phase| format!("{phase:>16}")).collect();
    println!("{:<18}{}", "", head.concat());
    for fault in faults {
        let row: Vec<String> = phases
            .iter()
            .map(|phase| format!("{:>16}", swept.covered.get(&(fault, *phase)).copied().unwrap_or(0)))
            .collect();
        println!("{fault:<18}{}", row.concat());
    }
}
