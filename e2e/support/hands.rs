//! The connections of a load: one writes keys of its own, another one reads what was written.

use std::{net::SocketAddr, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::{
    ledger::{Op, Outcome},
    load::{Shared, open},
    resp::{Connection, Reply},
    spec::SESSION,
    wait::secs,
};

/// Between two commands of a connection: some 100 a second each leave the machine to the cluster.
const PACE: Duration = Duration::from_millis(10);
/// After a failure, so that a broken cluster isn't drowned in connections.
const RETRY: Duration = Duration::from_millis(50);
/// A reply that takes longer won't come.
const PATIENCE: Duration = secs(3);
/// Errors by which a server or a proxy says that it did nothing.
const REFUSALS: [&str; 5] = ["NOREPLICAS", "READONLY", "LOADING", "MASTERDOWN", "not ready"];

/// A connection that is opened anew whenever it broke.
struct Line {
    address: SocketAddr,
    open: Option<Connection>,
}

/// Writes keys of one group.
pub struct Writer {
    line: Line,
    ledger: Shared,
    hand: usize,
    stop: watch::Receiver<bool>,
}

/// Reads keys of one group.
pub struct Reader {
    line: Line,
    ledger: Shared,
    group: i64,
    stop: watch::Receiver<bool>,
}

impl Line {
    async fn ready(&mut self) -> Result<&mut Connection, String> {
        if self.open.is_none() {
            let opened = Connection::open(self.address, SESSION, PATIENCE).await;
            self.open = Some(opened.map_err(|error| format!("no connection: {}", error.root_cause()))?);
        }
        self.open.as_mut().ok_or_else(|| "no connection".to_owned())
    }

    /// Sends a command; after an error nobody knows what became of it.
    async fn call(&mut self, command: &[&[u8]]) -> Result<Reply, String> {
        let Some(connection) = self.open.as_mut() else {
            return Err("no connection".to_owned());
        };
        let reply = connection.call(command).await;
        reply.map_err(|error| {
            self.open = None;
            format!("no reply: {}", error.root_cause())
        })
    }
}

impl Writer {
    pub fn new(address: SocketAddr, ledger: Shared, hand: usize, stop: watch::Receiver<bool>) -> Self {
        let line = Line { address, open: None };
        Self {
            line,
            ledger,
            hand,
            stop,
        }
    }

    /// Writes until it is told to stop.
    pub async fn work(mut self) {
        while !*self.stop.borrow() {
            sleep(PACE).await;
            if let Err(error) = self.line.ready().await {
                open(&self.ledger).refused(&error);
                sleep(RETRY).await;
                continue;
            }
            let op = open(&self.ledger).begin(self.hand);
            let outcome = outcome(self.line.call(&words(&op)).await);
            let failed = !matches!(outcome, Outcome::Done);
            open(&self.ledger).end_of(op, outcome);
            if failed {
                sleep(RETRY).await;
            }
        }
    }
}

fn words(op: &Op) -> Vec<&[u8]> {
    match &op.value {
        _ if op.counts => vec![b"INCR", op.key.as_bytes()],
        Some(value) => vec![b"SET", op.key.as_bytes(), value.as_bytes()],
        None => vec![b"DEL", op.key.as_bytes()],
    }
}

fn outcome(reply: Result<Reply, String>) -> Outcome {
    match reply {
        Ok(Reply::Error(error)) if REFUSALS.iter().any(|refusal| error.contains(refusal)) => Outcome::Refused(error),
        Ok(Reply::Error(error)) | Err(error) => Outcome::Unknown(error),
        Ok(_) => Outcome::Done,
    }
}

impl Reader {
    pub fn new(address: SocketAddr, ledger: Shared, group: i64, stop: watch::Receiver<bool>) -> Self {
        let line = Line { address, open: None };
        Self {
            line,
            ledger,
            group,
            stop,
        }
    }

    /// Reads until it is told to stop.
    pub async fn work(mut self) {
        let mut turn = 0;
        while !*self.stop.borrow() {
            sleep(PACE).await;
            if let Err(error) = self.line.ready().await {
                open(&self.ledger).unread(&error);
                sleep(RETRY).await;
                continue;
            }
            turn += 1;
            let Some(expected) = open(&self.ledger).expect(self.group, turn) else {
                continue;
            };
            let reply = self.line.call(&[b"GET", expected.key.as_bytes()]).await;
            let read = reply.and_then(|reply| reply.into_text().map_err(|error| error.to_string()));
            let failed = read.is_err();
            match read {
                Ok(value) => open(&self.ledger).has_read(&expected, value.as_deref()),
                Err(error) => open(&self.ledger).unread(&error),
            }
            if failed {
                sleep(RETRY).await;
            }
        }
    }
}
