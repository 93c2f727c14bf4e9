//! A proxy's counters, in the shape of §4.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::identity;

/// Linux counts processor time in hundredths of a second.
const TICK: i64 = 10_000_000;

#[derive(Debug, Default, Clone)]
struct Command {
    calls: i64,
    micros: i64,
    fails: i64,
    errors: i64,
}

/// Counters of commands and sessions.
#[derive(Debug, Default)]
pub struct Stats {
    total: AtomicI64,
    fails: AtomicI64,
    errors: AtomicI64,
    qps: AtomicI64,
    /// Sessions ever.
    pub sessions: AtomicI64,
    /// Sessions now.
    pub alive: AtomicI64,
    commands: Mutex<BTreeMap<String, Command>>,
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

    /// Zeroes the counters of commands.
    pub fn reset(&self) {
        for counter in [&self.total, &self.fails, &self.errors, &self.qps, &self.sessions] {
            counter.store(0, Ordering::Relaxed);
        }
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Keeps `qps` the commands of the last second; never ends.
    pub async fn sample(&self) {
        let mut last = self.total.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let total = self.total.load(Ordering::Relaxed);
            self.qps.store((total - last).max(0), Ordering::Relaxed);
            last = total;
        }
    }

    /// The `ops` part.
    pub fn ops(&self, commands: bool) -> Value {
        let mut ops = json!({
            "total": self.total.load(Ordering::Relaxed),
            "fails": self.fails.load(Ordering::Relaxed),
            "redis": { "errors": self.errors.load(Ordering::Relaxed) },
            "qps": self.qps.load(Ordering::Relaxed),
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

/// The `rusage` part, from `/proc/self/stat`.
pub fn rusage(up: Duration) -> Value {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
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
