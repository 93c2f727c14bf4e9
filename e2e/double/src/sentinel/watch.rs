//! Learning of switches (§11): a subscription to all sentinels, and a majority's word on who is master.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::{Client, group_of};
use crate::host;
use crate::redis::{Connection, RedisError};
use crate::stop::Stop;
use crate::timings::Timings;

/// Group → master, as a majority of the sentinels has it.
pub type Masters = BTreeMap<i64, String>;

/// Queries of the masters after each event (§11: two good ones, ten tries).
const GOOD_QUERIES: u32 = 2;
const QUERIES: u32 = 10;

/// What to watch.
#[derive(Debug, Clone)]
pub struct Watch {
    /// All sentinels.
    pub servers: Vec<String>,
    /// Whose masters.
    pub product: String,
    /// How long everything takes.
    pub timings: Timings,
}

/// Runs one watch at a time; the newest replaces the one before.
#[derive(Debug)]
pub struct Watcher {
    current: Mutex<Option<Stop>>,
    reports: mpsc::UnboundedSender<mpsc::Receiver<Masters>>,
}

/// What the newest watch of a [`Watcher`] learns.
#[derive(Debug)]
pub struct Learnt {
    watches: mpsc::UnboundedReceiver<mpsc::Receiver<Masters>>,
    newest: Option<mpsc::Receiver<Masters>>,
}

impl Watcher {
    /// A watcher, and where its reports arrive.
    pub fn new() -> (Self, Learnt) {
        let (reports, watches) = mpsc::unbounded_channel();
        (
            Self {
                current: Mutex::default(),
                reports,
            },
            Learnt { watches, newest: None },
        )
    }

    /// Drops the watch before and what it has learnt, and begins this one; it ends with `owner` at the latest.
    pub fn restart(&self, watch: Watch, owner: &Stop) {
        let (stop, owner) = (Stop::default(), owner.clone());
        let older = self
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(stop.clone());
        if let Some(older) = older {
            older.raise();
        }
        let (report, learnt) = mpsc::channel(1);
        host::spawn(async move { owner.unless(watch.run(stop, report)).await });
        // Without a receiver the owner is ending.
        let _ = self.reports.send(learnt);
    }
}

impl Learnt {
    /// The next masters the newest watch reports; `None` when the watcher is gone.
    pub async fn next(&mut self) -> Option<Masters> {
        loop {
            let reported = async {
                match &mut self.newest {
                    Some(newest) => newest.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                newer = self.watches.recv() => self.newest = Some(newer?),
                masters = reported => match masters {
                    Some(masters) => return Some(masters),
                    None => self.newest = None,
                },
            }
        }
    }
}

enum Event {
    Subscribed,
    Switched,
}

impl Watch {
    /// Reports masters until stopped.
    pub async fn run(self, stop: Stop, report: mpsc::Sender<Masters>) {
        if self.servers.is_empty() {
            return;
        }
        let wake = Notify::new();
        let both = async { tokio::join!(self.subscribe(&wake), self.query(&wake, &report)) };
        stop.unless(both).await;
    }

    fn majority(&self) -> usize {
        self.servers.len() / 2 + 1
    }

    async fn subscribe(&self, wake: &Notify) {
        loop {
            let round = tokio::time::timeout(self.timings.watch_round, self.round(wake)).await;
            if round.is_ok() {
                tracing::warn!("sentinel subscription lost, retry");
                tokio::time::sleep(self.timings.watch_retry).await;
            }
        }
    }

    /// One subscription; ends when no majority can be subscribed any more.
    async fn round(&self, wake: &Notify) {
        let (events, mut heard) = mpsc::channel(16);
        let mut subscribers = JoinSet::new();
        for addr in &self.servers {
            let (addr, product, events) = (addr.clone(), self.product.clone(), events.clone());
            let timeout = self.timings.masters_timeout;
            let subscriber = async move {
                let ended = listen(&addr, &product, timeout, events).await;
                tracing::warn!(
                    "sentinel-[{addr}] subscribe ended: {}",
                    ended.err().unwrap_or(RedisError("EOF".into()))
                );
            };
            host::join_in(&mut subscribers, subscriber);
        }
        let mut subscribed = 0;
        loop {
            tokio::select! {
                biased;
                Some(event) = heard.recv() => {
                    subscribed += usize::from(matches!(event, Event::Subscribed));
                    let first = matches!(event, Event::Subscribed) && subscribed == self.majority();
                    if first || matches!(event, Event::Switched) {
                        wake.notify_one();
                    }
                }
                Some(_) = subscribers.join_next() => {
                    if subscribers.len() < self.majority() {
                        return;
                    }
                }
                else => return,
            }
        }
    }

    async fn query(&self, wake: &Notify, report: &mpsc::Sender<Masters>) {
        loop {
            wake.notified().await;
            let mut good = 0;
            for _ in 0..QUERIES {
                if let Some(masters) = self.masters().await {
                    good += 1;
                    if report.send(masters).await.is_err() {
                        return;
                    }
                }
                if good == GOOD_QUERIES {
                    break;
                }
                tokio::time::sleep(self.timings.masters_pause).await;
            }
        }
    }

    /// Per group the address with the highest epoch, when a majority answers.
    async fn masters(&self) -> Option<Masters> {
        let asked = self
            .servers
            .iter()
            .map(|addr| ask(addr, &self.product, self.timings.masters_timeout));
        let answers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        if answers.len() < self.majority() {
            tracing::warn!(
                "sentinels: {} of {} answered, no majority",
                answers.len(),
                self.servers.len()
            );
            return None;
        }
        let mut best: BTreeMap<i64, (i64, String)> = BTreeMap::new();
        for (gid, epoch, addr) in answers.into_iter().flatten() {
            if best.get(&gid).is_none_or(|(known, _)| epoch > *known) {
                best.insert(gid, (epoch, addr));
            }
        }
        Some(best.into_iter().map(|(gid, (_, addr))| (gid, addr)).collect())
    }
}

async fn ask(addr: &str, product: &str, timeout: Duration) -> Option<Vec<(i64, i64, String)>> {
    let query = async { Client::open(addr, product, timeout).await?.masters().await };
    let rows = tokio::time::timeout(timeout, query).await.ok()?.ok()?;
    let known = rows.values().filter_map(|row| {
        let epoch = row.get("config-epoch")?.parse().ok()?;
        Some((
            group_of(product, row.get("name")?)?,
            epoch,
            format!("{}:{}", row.get("ip")?, row.get("port")?),
        ))
    });
    Some(known.collect())
}

async fn listen(addr: &str, product: &str, timeout: Duration, events: mpsc::Sender<Event>) -> Result<(), RedisError> {
    let mut connection = Connection::open(addr, "", timeout).await?;
    connection.command(&["SUBSCRIBE", "+switch-master"]).await?;
    // The receiver goes with the round, and the round ends this task.
    let _ = events.send(Event::Subscribed).await;
    loop {
        let message = connection.next().await?;
        let text = message
            .items()
            .get(2)
            .and_then(|payload| payload.text())
            .unwrap_or_default();
        let name = text.split(' ').next().unwrap_or_default();
        if group_of(product, name).is_some() {
            tracing::warn!("sentinel-[{addr}] +switch-master {text}");
            let _ = events.send(Event::Switched).await;
        }
    }
}
