//! Clients in a world: they write through the proxies and remember what was acknowledged.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use codis_double::{
    host::{self, Files, Tasks},
    redis::Connection,
};
use tokio::time::{Instant, sleep, timeout};

use super::{fabric::Fabric, pods::Machine};
use crate::telemetry::Clock;

/// A client waits for a reply at most this long.
const PATIENCE: Duration = Duration::from_secs(3);

/// A write that was acknowledged.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// Its key, which is its value, too.
    pub key: String,
    /// When it was sent, by virtual time.
    pub sent: Instant,
    /// When the reply was there.
    pub at: Instant,
}

/// What the clients know. Cheap to clone: all clones are the same.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    acknowledged: Vec<Acknowledged>,
    failed: BTreeMap<String, u32>,
    is_over: bool,
}

impl Ledger {
    /// All acknowledged writes, in the order of their replies.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.open().acknowledged.clone()
    }

    /// How many were acknowledged.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open().acknowledged.len()
    }

    /// How often which error came instead.
    #[must_use]
    pub fn failed(&self) -> BTreeMap<String, u32> {
        self.open().failed.clone()
    }

    /// Ends all writing.
    pub fn close(&self) {
        self.open().is_over = true;
    }

    fn open(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine without files.
struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
    fn write(&self, _: &str, _: &[u8]) -> std::io::Result<()> {
        Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn remove(&self, _: &str) -> std::io::Result<()> {
        Ok(())
    }
    fn names(&self, _: &str) -> std::io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// How a client finds the proxies.
#[derive(Clone)]
pub struct Way {
    /// The network.
    pub fabric: Fabric,
    /// The world's clock.
    pub clock: Clock,
    /// The proxies' Service and port.
    pub address: String,
    /// The session password.
    pub password: String,
}

impl Way {
    /// A machine of its own for a client.
    #[must_use]
    pub fn machine(&self, ip: Ipv4Addr) -> Arc<Machine> {
        self.fabric.plug(ip);
        Arc::new(Machine {
            name: format!("client/{ip}"),
            ip,
            fabric: self.fabric.clone(),
            clock: self.clock,
            skew: jiff::SignedDuration::ZERO,
            files: Arc::new(NoFiles),
            tasks: Tasks::default(),
        })
    }

    async fn open(&self) -> Result<Connection, String> {
        let opened = timeout(PATIENCE, Connection::open(&self.address, &self.password, PATIENCE)).await;
        match opened {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err("no connection in time".to_owned()),
        }
    }

    /// Writes until the ledger is closed.
    pub fn write(&self, ip: Ipv4Addr, name: String, pace: Duration, ledger: &Ledger) {
        let (way, ledger) = (self.clone(), ledger.clone());
        host::within(self.machine(ip), async move {
            let mut connection = None;
            let mut number = 0;
            while !ledger.open().is_over {
                sleep(pace).await;
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => match way.open().await {
                        Ok(open) => open,
                        Err(error) => {
                            *ledger.open().failed.entry(error).or_default() += 1;
                            continue;
                        }
                    },
                };
                number += 1;
                let key = format!("{name}:{number}");
                let sent = Instant::now();
                match open.command(&["SET", &key, &key]).await {
                    Ok(_) => {
                        let at = Instant::now();
                        ledger.open().acknowledged.push(Acknowledged { key, sent, at });
                        connection = Some(open);
                    }
                    Err(error) => {
                        // An error reply leaves the connection as it is; who can't tell opens another one.
                        *ledger.open().failed.entry(error.to_string()).or_default() += 1;
                    }
                }
            }
        });
    }

    /// Reads keys; those whose value isn't there.
    pub async fn missing(&self, ip: Ipv4Addr, writes: Vec<Acknowledged>) -> Result<Vec<Acknowledged>, String> {
        let way = self.clone();
        let reading = host::within(self.machine(ip), async move {
            let mut open = way.open().await?;
            let mut missing = Vec::new();
            for chunk in writes.chunks(100) {
                let mut words = vec!["MGET".to_owned()];
                words.extend(chunk.iter().map(|write| write.key.clone()));
                let values = open.command(&words).await.map_err(|error| error.to_string())?;
                let pairs = chunk.iter().zip(values.items());
                let lost = pairs.filter(|(write, value)| value.text().as_deref() != Some(write.key.as_str()));
                missing.extend(lost.map(|(write, _)| write.clone()));
            }
            Ok(missing)
        });
        reading.await.map_err(|error| error.to_string())?
    }
}
