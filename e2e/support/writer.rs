//! A client that writes through the proxies all the time and knows what became of each write.
//!
//! Acknowledged: the reply was OK. Failed: an error reply, or no connection to send it on. Unknown: sent, and then no
//! reply within two seconds or a lost connection; such a write may or may not have happened.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use codis_operator::domain::slot_of_key;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    resp::{Connection, Reply},
    wait::{secs, wait_for},
};

/// Each group has this many connections of its own, so that a group that hangs doesn't silence the others.
const CONNECTIONS_PER_GROUP: usize = 2;
/// Between two writes of a connection: about 300 writes a second in all leave the machine to the cluster.
const PACE: Duration = Duration::from_millis(10);
/// Writes that every group has acknowledged before anything is done to it: what could be lost must be there first.
const BASE: usize = 150;

/// Writes until it is stopped.
pub struct Writer {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<Written>>,
    pulses: Pulses,
}

/// What became of the writes.
#[derive(Debug, Default)]
pub struct Written {
    /// The writes that were acknowledged.
    pub acknowledged: Vec<Acknowledged>,
    /// Error replies and refused connections.
    pub failed: usize,
    /// No reply, after it was sent.
    pub unknown: usize,
    /// The longest time that some group was without an acknowledged write.
    pub longest_gap: Duration,
    /// Error replies, and how often.
    pub errors: BTreeMap<String, usize>,
}

/// A write that was acknowledged.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// Its key, which is its value, too.
    pub key: String,
    /// The group that the key belonged to.
    pub group: i64,
    /// When the reply was there.
    pub at: Instant,
}

/// When each group last acknowledged a write.
type Pulses = Arc<Mutex<BTreeMap<i64, Pulse>>>;

#[derive(Clone, Copy)]
struct Pulse {
    last: Instant,
    longest: Duration,
    count: usize,
}

/// One connection's work.
struct Hand {
    address: SocketAddr,
    password: String,
    group: i64,
    owners: Arc<Vec<i64>>,
    prefix: String,
    counter: u64,
    pulses: Pulses,
    stop: watch::Receiver<bool>,
}

impl Writer {
    /// Begins to write to every group. `owners` has the group of each slot; `run` makes the keys unique.
    pub async fn start(address: SocketAddr, password: &str, owners: &[i64], run: &str) -> Result<Self> {
        let began = Instant::now();
        let start = Pulse {
            last: began,
            longest: Duration::ZERO,
            count: 0,
        };
        let pulses: BTreeMap<i64, Pulse> = owners.iter().map(|group| (*group, start)).collect();
        let (stop, stopped) = watch::channel(false);
        let groups: Vec<i64> = pulses.keys().copied().collect();
        let (pulses, owners) = (Arc::new(Mutex::new(pulses)), Arc::new(owners.to_vec()));
        let hands = groups
            .iter()
            .flat_map(|group| (0..CONNECTIONS_PER_GROUP).map(move |number| (*group, number)));
        let tasks = hands.map(|(group, number)| {
            let hand = Hand {
                address,
                password: password.to_owned(),
                group,
                owners: Arc::clone(&owners),
                prefix: format!("{run}:{group}:{number}"),
                counter: 0,
                pulses: Arc::clone(&pulses),
                stop: stopped.clone(),
            };
            tokio::spawn(hand.write_until_stopped())
        });
        let tasks = tasks.collect();
        let writer = Self { stop, tasks, pulses };
        wait_for("the first writes in every group", secs(30), async || {
            let pulses = lock(&writer.pulses);
            let few: Vec<_> = pulses.iter().filter(|(_, pulse)| pulse.count < BASE).collect();
            ensure!(few.is_empty(), "fewer than {BASE} writes in {} groups", few.len());
            Ok(())
        })
        .await?;
        // What came before the first write is no gap of the cluster's.
        for pulse in lock(&writer.pulses).values_mut() {
            pulse.longest = Duration::ZERO;
        }
        Ok(writer)
    }

    /// Whether every group has acknowledged a write since a moment.
    pub fn all_since(&self, moment: Instant) -> Result<()> {
        let silent: Vec<i64> = lock(&self.pulses)
            .iter()
            .filter(|(_, pulse)| pulse.last <= moment)
            .map(|(group, _)| *group)
            .collect();
        ensure!(silent.is_empty(), "no acknowledged write in groups {silent:?}");
        Ok(())
    }

    /// Ends all connections and adds up.
    pub async fn stop(self) -> Result<Written> {
        self.stop.send(true).context("nobody writes any more")?;
        let mut sum = Written::default();
        for task in self.tasks {
            let part = task.await?;
            sum.acknowledged.extend(part.acknowledged);
            sum.failed += part.failed;
            sum.unknown += part.unknown;
            for (error, count) in part.errors {
                *sum.errors.entry(error).or_default() += count;
            }
        }
        let gaps = lock(&self.pulses)
            .values()
            .map(|pulse| pulse.longest.max(pulse.last.elapsed()))
            .max();
        sum.longest_gap = gaps.unwrap_or_default();
        Ok(sum)
    }
}

impl Written {
    /// Reads every acknowledged key back; gives those that are lost.
    pub async fn read_back(&self, address: SocketAddr, password: &str) -> Result<Vec<Acknowledged>> {
        let mut lost = Vec::new();
        for writes in self.acknowledged.chunks(500) {
            let values = wait_for("the values", secs(30), async || {
                values_of(address, password, writes).await
            })
            .await?;
            let pairs = writes.iter().zip(values);
            let missing = pairs.filter(|(write, value)| value.as_deref() != Some(write.key.as_bytes()));
            lost.extend(missing.map(|(write, _)| write.clone()));
        }
        Ok(lost)
    }
}

impl Hand {
    async fn write_until_stopped(mut self) -> Written {
        let mut written = Written::default();
        let mut connection = None;
        while !*self.stop.borrow() {
            tokio::time::sleep(PACE).await;
            let Some(open) = &mut connection else {
                match Connection::open(self.address, &self.password, secs(2)).await {
                    Ok(opened) => connection = Some(opened),
                    Err(error) => {
                        note_failure(&mut written, &format!("no connection: {}", error.root_cause()));
                        tokio::time::sleep(5 * PACE).await;
                    }
                }
                continue;
            };
            let key = self.next_key();
            match open.call(&[b"SET", key.as_bytes(), key.as_bytes()]).await {
                Ok(Reply::Status(_)) => {
                    written.acknowledged.push(Acknowledged {
                        key,
                        group: self.group,
                        at: Instant::now(),
                    });
                    self.beat();
                }
                Ok(other) => {
                    note_failure(&mut written, &format!("{other:?}"));
                    tokio::time::sleep(5 * PACE).await;
                }
                Err(_) => {
                    written.unknown += 1;
                    connection = None;
                }
            }
        }
        written
    }

    /// The next key that belongs to this hand's group.
    fn next_key(&mut self) -> String {
        loop {
            self.counter += 1;
            let key = format!("{}:{}", self.prefix, self.counter);
            let slot = usize::from(slot_of_key(key.as_bytes()).get());
            if self.owners.get(slot) == Some(&self.group) {
                return key;
            }
        }
    }

    fn beat(&self) {
        if let Some(pulse) = lock(&self.pulses).get_mut(&self.group) {
            pulse.longest = pulse.longest.max(pulse.last.elapsed());
            pulse.last = Instant::now();
            pulse.count += 1;
        }
    }
}

async fn values_of(address: SocketAddr, password: &str, writes: &[Acknowledged]) -> Result<Vec<Option<Vec<u8>>>> {
    let mut connection = Connection::open(address, password, secs(10)).await?;
    let commands: Vec<Vec<&[u8]>> = writes
        .iter()
        .map(|write| vec![b"GET".as_slice(), write.key.as_bytes()])
        .collect();
    let replies = connection.pipeline(&commands).await?.into_iter();
    let value = |reply| match reply {
        Reply::Value(value) => Ok(value),
        other => Err(anyhow::anyhow!("GET: {other:?}")),
    };
    replies.map(value).collect()
}

fn note_failure(written: &mut Written, error: &str) {
    written.failed += 1;
    *written.errors.entry(error.chars().take(80).collect()).or_default() += 1;
}

/// A panic elsewhere is no reason to lose the count.
fn lock(pulses: &Pulses) -> MutexGuard<'_, BTreeMap<i64, Pulse>> {
    pulses.lock().unwrap_or_else(PoisonError::into_inner)
}
