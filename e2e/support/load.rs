//! Clients that write and read through the proxies all the time, over all slots, and know what became of each write.
//!
//! Each writing connection sets keys of its own once (`u:`), overwrites and deletes a few keys again and again with
//! increasing numbers (`c:`), and counts up a key (`n:`). Readers share the ledger: who reads a state older than one
//! that was acknowledged before the read began has read something stale.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    cluster::Cluster,
    hands::{Reader, Writer},
    health::Snapshot,
    ledger::{Ledger, Verdict},
    resp::Connection,
    spec::SESSION,
    wait::{secs, wait_for},
};

/// Each group has this many writing connections of its own, so that a group that hangs doesn't silence the others.
const WRITERS_PER_GROUP: usize = 2;
/// What could be lost must be there first: so many acknowledged writes of every group.
const BASE: usize = 100;

/// A ledger that many connections share.
pub type Shared = Arc<Mutex<Ledger>>;

/// Clients at work.
pub struct Load {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    ledger: Shared,
}

/// What is left when the clients have stopped: to be held against what the cluster has.
pub struct Ended {
    address: SocketAddr,
    ledger: Ledger,
}

impl Load {
    /// Begins to write and read in every group, and waits until each has acknowledged some writes. The keys begin with
    /// `run` and the time: no other load had them.
    pub async fn start(cluster: &Cluster, run: &str) -> Result<Self> {
        let snapshot = Snapshot::take(cluster).await?;
        Self::on(cluster.client_address().await?, &snapshot.topology.slots, run).await
    }

    /// The same, where the group of each slot is known.
    pub async fn on(address: SocketAddr, owners: &[i64], run: &str) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = format!("{run}:{}", now.as_millis());
        let ledger = Arc::new(Mutex::new(Ledger::new(owners, WRITERS_PER_GROUP, &run)));
        let (stop, stopped) = watch::channel(false);
        let groups = open(&ledger).groups();
        let mut tasks = Vec::new();
        for hand in 0..groups.len() * WRITERS_PER_GROUP {
            let writer = Writer::new(address, Arc::clone(&ledger), hand, stopped.clone());
            tasks.push(tokio::spawn(writer.work()));
        }
        for group in groups {
            let reader = Reader::new(address, Arc::clone(&ledger), group, stopped.clone());
            tasks.push(tokio::spawn(reader.work()));
        }
        let load = Self {
            address,
            stop,
            tasks,
            ledger,
        };
        wait_for("the first writes in every group", secs(30), async || load.has_begun()).await?;
        load.next_pause();
        Ok(load)
    }

    fn has_begun(&self) -> Result<()> {
        let slow = open(&self.ledger).groups_below(BASE);
        ensure!(slow.is_empty(), "fewer than {BASE} acknowledged writes in {slow:?}");
        Ok(())
    }

    /// Whether every group has acknowledged a write since a moment.
    pub fn all_since(&self, moment: Instant) -> Result<()> {
        let silent = open(&self.ledger).silent_since(moment);
        ensure!(silent.is_empty(), "no acknowledged write in groups {silent:?}");
        Ok(())
    }

    /// Waits until every group has acknowledged a write that began from now on.
    pub async fn goes_on(&self, limit: Duration) -> Result<()> {
        let from = Instant::now();
        wait_for("writes in every group", limit, async || self.all_since(from)).await
    }

    /// The longest time without an acknowledged write in some group since this was asked last.
    pub fn next_pause(&self) -> Duration {
        open(&self.ledger).next_pause()
    }

    /// How many writes were acknowledged until now.
    pub fn acknowledged(&self) -> usize {
        open(&self.ledger).acknowledged()
    }

    /// Ends all connections.
    pub async fn stop(self) -> Result<Ended> {
        let told = Instant::now();
        self.stop.send(true).context("nobody writes any more")?;
        for task in self.tasks {
            task.await?;
        }
        open(&self.ledger).end(told);
        let ledger = std::mem::take(&mut *open(&self.ledger));
        Ok(Ended {
            address: self.address,
            ledger,
        })
    }

    /// Ends all connections and holds what the cluster has against the ledger; prints the figures.
    pub async fn check(self) -> Result<Verdict> {
        self.stop().await?.check().await
    }
}

impl Ended {
    /// Every key that has something to prove: `u:` set once, `c:` overwritten, `n:` counted up.
    pub fn keys(&self) -> Vec<String> {
        self.ledger.keys()
    }

    /// Holds what the cluster has against the ledger; prints the figures.
    pub async fn check(&self) -> Result<Verdict> {
        let keys = self.ledger.keys();
        let mut found = Vec::with_capacity(keys.len());
        for some in keys.chunks(500) {
            found.extend(wait_for("the values", secs(60), async || values(self.address, some).await).await?);
        }
        let verdict = self.ledger.judge(&found);
        verdict.print();
        Ok(verdict)
    }

    /// The same, where the proxies have got another address since (or the node that was asked is away).
    pub async fn check_at(mut self, cluster: &Cluster) -> Result<Verdict> {
        self.address = cluster.client_address().await?;
        self.check().await
    }
}

async fn values(address: SocketAddr, keys: &[String]) -> Result<Vec<Option<String>>> {
    let mut connection = Connection::open(address, SESSION, secs(10)).await?;
    let commands: Vec<Vec<&[u8]>> = keys.iter().map(|key| vec![b"GET".as_slice(), key.as_bytes()]).collect();
    let replies = connection.pipeline(&commands).await?.into_iter();
    replies.map(|reply| reply.into_text()).collect()
}

/// A panic elsewhere is no reason to lose the count.
pub fn open(ledger: &Shared) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
