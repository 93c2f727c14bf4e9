//! What became of each command of a load, and what the cluster must have in the end.
//!
//! Every key has one writer, whose commands follow one another. After a command whose fate is unknown its key is left
//! alone for good: a late effect of it could otherwise be taken for the return of an older value.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use codis_operator::domain::slot_of_key;

pub use super::verdict::Verdict;
use super::verdict::fits;

/// Keys that each writer overwrites all the time.
const COUNTERS: usize = 8;
/// Each so-manieth write of such a key deletes it.
pub const DELETES: u64 = 5;

/// What happened.
#[derive(Default)]
pub struct Ledger {
    run: String,
    owners: Vec<i64>,
    hands: Vec<Hand>,
    pulses: BTreeMap<i64, Pulse>,
    verdict: Verdict,
    latencies: Vec<Duration>,
}

/// One writing connection.
#[derive(Default)]
struct Hand {
    group: i64,
    turn: u64,
    made: u64,
    unique: Vec<String>,
    counters: Vec<Counter>,
    retired: Vec<Counter>,
    tally: Counter,
    unknown_counts: u64,
}

/// A key that is written again and again: its state after a write is told by the write's number.
#[derive(Clone, Default)]
pub struct Counter {
    /// The key.
    pub key: String,
    /// The last write that was acknowledged.
    pub acknowledged: u64,
    /// The last write that was sent.
    pub sent: u64,
}

/// When a group last acknowledged a write.
struct Pulse {
    last: Instant,
    longest: Duration,
    since_asked: Duration,
    count: usize,
}

/// A command under way.
pub struct Op {
    /// The key.
    pub key: String,
    /// What it is set to; none: it is deleted.
    pub value: Option<String>,
    /// It is counted up instead.
    pub counts: bool,
    hand: usize,
    counter: Option<usize>,
    number: u64,
    began: Instant,
}

/// What became of a command.
pub enum Outcome {
    /// It was acknowledged.
    Done,
    /// It was certainly not done.
    Refused(String),
    /// It may have been done.
    Unknown(String),
}

/// What a read must find, by what was acknowledged before.
pub struct Expected {
    /// The key.
    pub key: String,
    hand: usize,
    floor: Option<u64>,
}

impl Ledger {
    /// Nothing happened yet. `owners` has the group of each slot.
    pub fn new(owners: &[i64], writers_per_group: usize, run: &str) -> Self {
        let now = Instant::now();
        let pulse = || Pulse {
            last: now,
            longest: Duration::ZERO,
            since_asked: Duration::ZERO,
            count: 0,
        };
        let mut ledger = Self {
            run: run.to_owned(),
            owners: owners.to_vec(),
            pulses: owners.iter().map(|group| (*group, pulse())).collect(),
            ..Self::default()
        };
        for group in ledger.groups() {
            for _ in 0..writers_per_group {
                let hand = ledger.hands.len();
                ledger.hands.push(Hand {
                    group,
                    ..Hand::default()
                });
                for _ in 0..COUNTERS {
                    let counter = ledger.new_counter(hand, 'c');
                    ledger.hands[hand].counters.push(counter);
                }
                ledger.hands[hand].tally = ledger.new_counter(hand, 'n');
            }
        }
        ledger
    }

    /// The groups that have slots.
    pub fn groups(&self) -> Vec<i64> {
        self.pulses.keys().copied().collect()
    }

    /// A new key of a hand's group.
    fn new_key(&mut self, hand: usize, kind: char) -> String {
        let (run, owners, of) = (&self.run, &self.owners, &mut self.hands[hand]);
        loop {
            of.made += 1;
            let key = format!("{kind}:{run}:{hand}:{}", of.made);
            let slot = usize::from(slot_of_key(key.as_bytes()).get());
            if owners.get(slot) == Some(&of.group) {
                return key;
            }
        }
    }

    fn new_counter(&mut self, hand: usize, kind: char) -> Counter {
        Counter {
            key: self.new_key(hand, kind),
            ..Counter::default()
        }
    }

    /// The next command of a hand, which is to be sent now.
    pub fn begin(&mut self, hand: usize) -> Op {
        self.hands[hand].turn += 1;
        let turn = self.hands[hand].turn;
        let mut op = Op {
            key: String::new(),
            value: None,
            counts: false,
            hand,
            counter: None,
            number: 0,
            began: Instant::now(),
        };
        if turn.is_multiple_of(2) {
            op.key = self.new_key(hand, 'u');
            op.value = Some(op.key.clone());
        } else if turn % 4 == 1 {
            let index = (turn / 4) as usize % COUNTERS;
            let counter = &mut self.hands[hand].counters[index];
            counter.sent += 1;
            op.counter = Some(index);
            op.number = counter.sent;
            op.key = counter.key.clone();
            op.value = (!counter.sent.is_multiple_of(DELETES)).then(|| format!("{}={}", counter.key, counter.sent));
        } else {
            self.hands[hand].tally.sent += 1;
            op.counts = true;
            op.key = self.hands[hand].tally.key.clone();
        }
        op
    }

    /// What became of a command.
    pub fn end_of(&mut self, op: Op, outcome: Outcome) {
        match outcome {
            Outcome::Done => self.done(op),
            Outcome::Refused(error) => {
                self.verdict.refused += 1;
                self.note(&error);
            }
            Outcome::Unknown(error) => {
                self.verdict.unknown += 1;
                self.note(&error);
                self.unknown(&op);
            }
        }
    }

    fn done(&mut self, op: Op) {
        let hand = &mut self.hands[op.hand];
        if let Some(pulse) = self.pulses.get_mut(&hand.group) {
            pulse.beat();
        }
        self.latencies.push(op.began.elapsed());
        self.verdict.acknowledged += 1;
        match op.counter {
            _ if op.counts => hand.tally.acknowledged += 1,
            Some(index) => hand.counters[index].acknowledged = op.number,
            None => hand.unique.push(op.key),
        }
    }

    fn unknown(&mut self, op: &Op) {
        if op.counts {
            self.hands[op.hand].unknown_counts += 1;
        } else if let Some(index) = op.counter {
            let fresh = self.new_counter(op.hand, 'c');
            let hand = &mut self.hands[op.hand];
            let old = std::mem::replace(&mut hand.counters[index], fresh);
            hand.retired.push(old);
        }
    }

    /// A writer found no connection.
    pub fn refused(&mut self, error: &str) {
        self.verdict.refused += 1;
        self.note(error);
    }

    /// A read got no answer.
    pub fn unread(&mut self, error: &str) {
        self.note(&format!("read: {error}"));
    }

    fn note(&mut self, error: &str) {
        *self.verdict.errors.entry(error.chars().take(90).collect()).or_default() += 1;
    }

    /// Something to be read in a group, and what it must be at least as new as.
    pub fn expect(&self, group: i64, turn: usize) -> Option<Expected> {
        let hands: Vec<usize> = (0..self.hands.len())
            .filter(|hand| self.hands[*hand].group == group)
            .collect();
        let number = *hands.get(turn % hands.len().max(1))?;
        let hand = &self.hands[number];
        if turn.is_multiple_of(3) {
            let counter = &hand.counters[turn % COUNTERS];
            return Some(Expected {
                key: counter.key.clone(),
                hand: number,
                floor: Some(counter.acknowledged),
            });
        }
        // The newest key, or one of before.
        let back = if turn % 3 == 1 {
            1
        } else {
            1 + turn % hand.unique.len().max(1)
        };
        let key = hand.unique.get(hand.unique.len().checked_sub(back)?)?.clone();
        Some(Expected {
            key,
            hand: number,
            floor: None,
        })
    }

    /// What a read found.
    pub fn has_read(&mut self, expected: &Expected, value: Option<&str>) {
        self.verdict.reads += 1;
        let right = match expected.floor {
            None => value == Some(expected.key.as_str()),
            Some(floor) => {
                let hand = &self.hands[expected.hand];
                let mut all = hand.counters.iter().chain(&hand.retired);
                let counter = all.find(|counter| counter.key == expected.key);
                counter.is_none_or(|counter| fits(floor, counter.sent, value).is_ok())
            }
        };
        if !right {
            let floor = expected.floor.map_or(String::new(), |floor| format!(" after {floor}"));
            self.verdict.stale.push(format!("{}: {value:?}{floor}", expected.key));
        }
    }

    /// Groups with fewer acknowledged writes.
    pub fn groups_below(&self, count: usize) -> Vec<i64> {
        let slow = self.pulses.iter().filter(|(_, pulse)| pulse.count < count);
        slow.map(|(group, _)| *group).collect()
    }

    /// Groups without an acknowledged write since a moment.
    pub fn silent_since(&self, moment: Instant) -> Vec<i64> {
        let silent = self.pulses.iter().filter(|(_, pulse)| pulse.last <= moment);
        silent.map(|(group, _)| *group).collect()
    }

    /// The longest pause of a group since this was asked last. What came before the first question doesn't count.
    pub fn next_pause(&mut self) -> Duration {
        let pulses = self.pulses.values_mut();
        let longest = pulses.map(|pulse| {
            let longest = pulse.since_asked.max(pulse.last.elapsed());
            pulse.since_asked = Duration::ZERO;
            longest
        });
        longest.max().unwrap_or_default()
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.verdict.acknowledged
    }

    /// Nothing more happens: the clients were told to stop at this moment.
    pub fn end(&mut self, told: Instant) {
        for (group, pulse) in &self.pulses {
            let longest = pulse.longest.max(told.saturating_duration_since(pulse.last));
            self.verdict.pauses.insert(*group, longest);
        }
        self.latencies.sort_unstable();
        let p99 = self.latencies.get(self.latencies.len() * 99 / 100);
        self.verdict.p99 = p99.copied().unwrap_or_default();
    }

    /// Every key that has something to prove.
    pub fn keys(&self) -> Vec<String> {
        let counters = |hand: &Hand| hand.counters.clone().into_iter().chain(hand.retired.clone());
        let of_hand = |hand: &Hand| {
            let unique = hand.unique.iter().cloned();
            let all = unique.chain(counters(hand).map(|counter| counter.key));
            all.chain([hand.tally.key.clone()]).collect::<Vec<_>>()
        };
        self.hands.iter().flat_map(of_hand).collect()
    }

    /// Holds the values of [`Self::keys`] against what was acknowledged.
    pub fn judge(&self, found: &[Option<String>]) -> Verdict {
        let mut verdict = self.verdict.clone();
        let mut found = found.iter().map(Option::as_deref);
        for hand in &self.hands {
            for key in &hand.unique {
                verdict.unique(key, found.next().flatten());
            }
            for counter in hand.counters.iter().chain(&hand.retired) {
                verdict.counter(counter, found.next().flatten());
            }
            verdict.tally(&hand.tally, hand.unknown_counts, found.next().flatten());
        }
        verdict
    }
}

impl Pulse {
    fn beat(&mut self) {
        let gap = self.last.elapsed();
        // The first write of all ends no gap.
        if self.count > 0 {
            self.longest = self.longest.max(gap);
            self.since_asked = self.since_asked.max(gap);
        }
        self.last = Instant::now();
        self.count += 1;
    }
}
