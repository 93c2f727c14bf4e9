//! Nodes of a simulated coordinator ([`crate::simulated::coordinator`]), over a made-up host's network. It stands for etcd
//! and for zookeeper, whose own clients open real sockets.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::Outcome;
use crate::host::{self, Stream};
use crate::simulated::coordinator::{Answer, Ask, said};

/// One request (§10).
const PATIENCE: Duration = Duration::from_secs(5);

type Connection = BufReader<Box<dyn Stream>>;

/// A coordinator at a comma-separated list of addresses; the first that answers is asked.
pub struct Outside {
    addresses: Vec<String>,
    /// Kept from request to request.
    connection: Mutex<Option<Connection>>,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Outside({:?})", self.addresses)
    }
}

impl Outside {
    /// Nothing is connected to yet.
    pub fn new(addr: &str) -> Self {
        let addresses = addr.split(',').filter(|addr| !addr.is_empty());
        Self {
            addresses: addresses.map(str::to_owned).collect(),
            connection: Mutex::default(),
        }
    }

    /// Asks once more on a new connection where a kept one turns out to be closed; but not for what can be done only once.
    async fn ask(&self, ask: &Ask) -> Outcome<Answer> {
        let mut place = self.connection.lock().await;
        // Taken out: who gives up in the middle leaves no half-read answer behind.
        let kept = place.take();
        let may_be_closed = kept.is_some() && !matches!(ask, Ask::Create { .. });
        let mut asked = self.exchange(kept, ask).await;
        if may_be_closed && asked.as_ref().is_err_and(|error| error.kind() != ErrorKind::TimedOut) {
            asked = self.exchange(None, ask).await;
        }
        let (connection, answer) = asked?;
        *place = Some(connection);
        Ok(answer)
    }

    async fn exchange(&self, kept: Option<Connection>, ask: &Ask) -> Outcome<(Connection, Answer)> {
        let all = async {
            let mut connection = match kept {
                Some(kept) => kept,
                None => self.connect().await?,
            };
            said(&mut connection, ask).await?;
            let mut line = String::new();
            if connection.read_line(&mut line).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            Ok((connection, serde_json::from_str(&line)?))
        };
        timeout(PATIENCE, all).await?
    }

    async fn connect(&self) -> Outcome<Connection> {
        let mut failed = Error::other("no endpoints");
        for address in &self.addresses {
            match host::connect(address).await {
                Ok(socket) => return Ok(BufReader::new(socket.stream)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn done(&self, ask: Ask) -> Outcome<()> {
        match self.ask(&ask).await? {
            Answer::Exists => Err(ErrorKind::AlreadyExists.into()),
            Answer::Absent => Err(ErrorKind::NotFound.into()),
            Answer::Done | Answer::Texts(_) => Ok(()),
        }
    }

    async fn texts(&self, ask: Ask) -> Outcome<Vec<String>> {
        match self.ask(&ask).await? {
            Answer::Texts(texts) => Ok(texts),
            _ => Ok(Vec::new()),
        }
    }

    /// Creates a node; an error if it exists.
    pub async fn create(&self, path: &str, text: &[u8]) -> Outcome<()> {
        self.make(path, text, None).await
    }

    /// Makes a node that lives for a while; an error if it exists.
    pub async fn lend(&self, path: &str, text: &[u8], lifetime: Duration) -> Outcome<()> {
        self.make(path, text, Some(lifetime)).await
    }

    async fn make(&self, path: &str, text: &[u8], lifetime: Option<Duration>) -> Outcome<()> {
        let (path, text) = (path.to_owned(), utf8(text)?);
        self.done(Ask::Create { path, text, lifetime }).await
    }

    /// Lets a node live on, every half of its lifetime, until that fails.
    pub async fn renew(&self, path: &str, lifetime: Duration) {
        loop {
            sleep(lifetime / 2).await;
            let path = path.to_owned();
            if let Err(error) = self.done(Ask::Renew { path, lifetime }).await {
                tracing::warn!("refresh node failed: {error}");
                return;
            }
        }
    }

    /// Creates or replaces a node.
    pub async fn write(&self, path: &str, text: &[u8]) -> Outcome<()> {
        let (path, text) = (path.to_owned(), utf8(text)?);
        self.done(Ask::Write { path, text }).await
    }

    /// Deletes a node, whether or not it exists.
    pub async fn remove(&self, path: &str) -> Outcome<()> {
        match self.done(Ask::Remove { path: path.to_owned() }).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// A node's text.
    pub async fn read(&self, path: &str) -> Outcome<Option<Vec<u8>>> {
        let texts = self.texts(Ask::Read { path: path.to_owned() }).await?;
        Ok(texts.into_iter().next().map(String::into_bytes))
    }

    /// The texts of a node's children, sorted by name.
    pub async fn read_all(&self, path: &str) -> Outcome<Vec<Vec<u8>>> {
        let texts = self.texts(Ask::ReadAll { path: path.to_owned() }).await?;
        Ok(texts.into_iter().map(String::into_bytes).collect())
    }

    /// The names of a node's children, sorted.
    pub async fn names(&self, path: &str) -> Outcome<Vec<String>> {
        self.texts(Ask::Names { path: path.to_owned() }).await
    }
}

fn utf8(text: &[u8]) -> Outcome<String> {
    std::str::from_utf8(text).map(str::to_owned).map_err(Error::other)
}
