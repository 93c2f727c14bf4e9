//! A coordinator outside of the machine that uses it, as etcd is: nodes by their paths, that outlive its process.
//!
//! It speaks lines of JSON over the made-up network: etcd's own API would cost a simulation more and show nothing else of
//! Codis. What is asked for is done even when nobody waits for the answer any more. The other end is `store::outside`.
//!
//! Left out: members that disagree, passwords, watches, zookeeper's sessions (what is lent expires, as in etcd).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::Instant;

use crate::host::{self, Socket};

/// What is asked of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// A new node, for a while or for ever.
    Create {
        path: String,
        text: String,
        lifetime: Option<Duration>,
    },
    /// A new text of a node, which needn't exist.
    Write { path: String, text: String },
    /// Another while for a node.
    Renew { path: String, lifetime: Duration },
    /// No such node.
    Remove { path: String },
    /// Its text.
    Read { path: String },
    /// The texts of its children, by name.
    ReadAll { path: String },
    /// The names of its children.
    Names { path: String },
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// There is such a node.
    Exists,
    /// There is no such node.
    Absent,
    /// Texts, or names.
    Texts(Vec<String>),
}

/// What a coordinator keeps. Copies are the same one.
#[derive(Clone, Default)]
pub struct Nodes(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<String, Node>,
    slow: Option<Duration>,
}

struct Node {
    text: String,
    expires: Option<Instant>,
}

impl Nodes {
    /// Nothing is in it any more.
    pub fn wipe(&self) {
        self.inner().nodes.clear();
    }

    /// From now on it takes so long until something is done, and as long again until that is told.
    pub fn set_slow(&self, slow: Option<Duration>) {
        self.inner().slow = slow;
    }

    /// The text of a node.
    pub fn read(&self, path: &str) -> Option<String> {
        self.inner().get(path).map(|node| node.text.clone())
    }

    /// The names of a node's children, sorted.
    pub fn names(&self, path: &str) -> Vec<String> {
        self.inner().names(path)
    }

    fn slow(&self) -> Option<Duration> {
        self.inner().slow
    }

    fn answer(&self, ask: Ask) -> Answer {
        let mut inner = self.inner();
        match ask {
            Ask::Create { path, text, lifetime } => match inner.get(&path) {
                Some(_) => Answer::Exists,
                None => inner.put(path, text, lifetime),
            },
            Ask::Write { path, text } => inner.put(path, text, None),
            Ask::Renew { path, lifetime } => match inner.get(&path).map(|node| node.text.clone()) {
                Some(text) => inner.put(path, text, Some(lifetime)),
                None => Answer::Absent,
            },
            Ask::Remove { path } => match inner.nodes.remove(&path) {
                Some(_) => Answer::Done,
                None => Answer::Absent,
            },
            Ask::Read { path } => match inner.get(&path) {
                Some(node) => Answer::Texts(vec![node.text.clone()]),
                None => Answer::Absent,
            },
            Ask::ReadAll { path } => {
                let names = inner.names(&path).into_iter();
                let texts = names.filter_map(|name| Some(inner.get(&format!("{path}/{name}"))?.text.clone()));
                Answer::Texts(texts.collect())
            }
            Ask::Names { path } => Answer::Texts(inner.names(&path)),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn get(&self, path: &str) -> Option<&Node> {
        let now = Instant::now();
        let node = self.nodes.get(path);
        node.filter(|node| node.expires.is_none_or(|expires| expires > now))
    }

    fn put(&mut self, path: String, text: String, lifetime: Option<Duration>) -> Answer {
        let expires = lifetime.map(|lifetime| Instant::now() + lifetime);
        self.nodes.insert(path, Node { text, expires });
        Answer::Done
    }

    fn names(&self, path: &str) -> Vec<String> {
        let below = format!("{}/", path.trim_end_matches('/'));
        let paths = self.nodes.range(below.clone()..).map(|(path, _)| path);
        let paths = paths.take_while(|path| path.starts_with(&below));
        let here = paths.filter(|path| self.get(path).is_some());
        let names: BTreeSet<&str> = here.filter_map(|path| path[below.len()..].split('/').next()).collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

/// Serves them on the current host, as long as its process lives.
///
/// # Errors
/// The port is taken.
pub async fn serve(nodes: Nodes, addr: &str) -> io::Result<()> {
    let mut port = host::listen(addr).await?;
    loop {
        let socket = port.accept().await?;
        host::spawn(converse(nodes.clone(), socket));
    }
}

async fn converse(nodes: Nodes, socket: Socket) {
    let mut stream = BufReader::new(socket.stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        let Ok(ask) = serde_json::from_str(&line) else { return };
        line.clear();
        let answer = answer_in_time(&nodes, ask).await;
        if said(&mut stream, &answer).await.is_err() {
            return;
        }
    }
}

async fn answer_in_time(nodes: &Nodes, ask: Ask) -> Answer {
    if let Some(slow) = nodes.slow() {
        tokio::time::sleep(slow).await;
        let answer = nodes.answer(ask);
        tokio::time::sleep(slow).await;
        return answer;
    }
    nodes.answer(ask)
}

/// Says one thing, in one line.
pub(crate) async fn said(stream: &mut (impl AsyncWriteExt + Unpin), what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}
