//! A proxy's counters, in the shape of §4.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{host, identity};

/// Linux counts processor time in hundredths of a second.
const TICK: i64 = 10_000_000;

#[derive(Debug, Default, Clone)]
struct Command {
    calls: i64,
    micros: i64,
    fails: i64,
    errors: i64,
}

/// The commands of this second and of the one before it.
#[derive(Debug, Default)]
struct Rate {
    second: u64,
    now: i64,
    before: i64,
}

impl Rate {
    fn turn(&mut self, second: u64) {
        if second != self.second {
            self.before = if second == self.second + 1 { self.now } else { 0 };
            (self.second, self.now) = (second, 0);
        }
    }

    fn count(&mut self, second: u64) {
        self.turn(second);
        self.now += 1;
    }

    /// The commands of the last whole second.
    fn at(&mut self, second: u64) -> i64 {
        self.turn(second);
        self.before
    }
}

/// Counters of commands and sessions.
#[derive(Debug)]
pub struct Stats {
    started: Instant,
    total: AtomicI64,
    fails: AtomicI64,
    errors: AtomicI64,
    rate: Mutex<Rate>,
    /// Sessions ever.
    pub sessions: AtomicI64,
    /// Sessions now.
    pub alive: AtomicI64,
    commands: Mutex<BTreeMap<String, Command>>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            total: AtomicI64::default(),
            fails: AtomicI64::default(),
            errors: AtomicI64::default(),
            rate: Mutex::default(),
            sessions: AtomicI64::default(),
            alive: AtomicI64::default(),
            commands: Mutex::default(),
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// A reply.
    Fine,
    /// redis answered an error.
    Error,
    /// The proxy could not get an answer.
    Failed,
}

impl Stats {
    /// Counts a command.
    pub fn count(&self, name: &str, took: Duration, outcome: Outcome) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.fails
            .fetch_add(i64::from(outcome == Outcome::Failed), Ordering::Relaxed);
        self.errors
            .fetch_add(i64::from(outcome == Outcome::Error), Ordering::Relaxed);
        self.rate().count(self.second());
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if !commands.contains_key(name) {
            commands.insert(name.to_string(), Command::default());
        }
        if let Some(command) = commands.get_mut(name) {
            command.calls += 1;
            command.micros += i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
            command.fails += i64::from(outcome == Outcome::Failed);
            command.errors += i64::from(outcome == Outcome::Error);
        }
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn second(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Zeroes the counters of commands.
    pub fn reset(&self) {
        for counter in [&self.total, &self.fails, &self.errors, &self.sessions] {
            counter.store(0, Ordering::Relaxed);
        }
        *self.rate() = Rate::default();
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The `ops` part.
    pub fn ops(&self, commands: bool) -> Value {
        let mut ops = json!({
            "total": self.total.load(Ordering::Relaxed),
            "fails": self.fails.load(Ordering::Relaxed),
            "redis": { "errors": self.errors.load(Ordering::Relaxed) },
            "qps": self.rate().at(self.second()),
        });
        let counted = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if commands && !counted.is_empty() {
            ops["cmd"] = counted.iter().map(|(name, command)| told(name, command)).collect();
        }
        ops
    }
}

fn told(name: &str, command: &Command) -> Value {
    json!({
        "opstr": name,
        "calls": command.calls,
        "usecs": command.micros,
        "usecs_percall": command.micros / command.calls.max(1),
        "fails": command.fails,
        "redis_errtype": command.errors,
    })
}

/// The `rusage` part, from `/proc/self/stat`; zeros on a made-up host.
pub fn rusage(up: Duration) -> Value {
    let text = match host::current() {
        None => std::fs::read_to_string("/proc/self/stat").unwrap_or_default(),
        Some(_) => String::new(),
    };
    // Fields are counted after the name, which may hold spaces; the first one here is the third of proc(5).
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let fields: Vec<i64> = after
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let (utime, stime) = (field(14) * TICK, field(15) * TICK);
    let rss = field(24) * 4096;
    json!({
        "now": identity::start_time(),
        "cpu": (utime + stime) as f64 / (up.as_nanos().max(1) as f64),
        "mem": rss,
        "raw": {
            "utime": utime,
            "stime": stime,
            "cutime": field(16) * TICK,
            "cstime": field(17) * TICK,
            "num_threads": field(20),
            "vm_size": field(23),
            "vm_rss": rss,
        },
    })
}

/// The `runtime` part; there is no Go runtime, so the shape is all there is to it.
pub fn runtime() -> Value {
    json!({
        "general": { "alloc": 0, "sys": 0, "lookups": 0, "mallocs": 0, "frees": 0 },
        "heap": { "alloc": 0, "sys": 0, "idle": 0, "inuse": 0, "objects": 0 },
        "gc": { "num": 0, "cpu_fraction": 0.0, "total_pausems": 0 },
        "num_procs": 1,
        "num_goroutines": 0,
        "num_cgo_call": 0,
        "mem_offheap": 0,
    })
}
