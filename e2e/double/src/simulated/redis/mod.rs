//! A redis server in memory: strings, replication with offsets, an append-only file on a [`Disk`].
//!
//! It answers as redis 7 does where Codis and the operator ask. What is dangerous about redis is kept: a replica throws its
//! data away for whatever its master has, a server that starts again has a new replication id, a master tells its clients
//! "OK" before any replica has the write.

mod commands;
mod connection;
mod follow;
mod info;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::disk::{Data, Disk};
use crate::host::{self, Files as _};
use crate::identity;

/// Bytes of the replication stream that are kept for replicas that come back.
const BACKLOG: usize = 1 << 20;

/// A running server. Cheap to clone: all clones are the same one.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

pub(super) struct Inner {
    state: Mutex<State>,
    disk: Disk,
    conf_path: String,
    /// A `MIGRATE` is over.
    free: Notify,
    ended: Notify,
}

/// What goes out on a connection besides replies.
enum Out {
    Bytes(Bytes),
    Close,
}

/// A connection as the others see it.
struct Client {
    out: mpsc::UnboundedSender<Out>,
    channels: Vec<String>,
    /// Set once it is a replica's.
    replica: Option<Replica>,
}

/// A replica as its master sees it.
struct Replica {
    address: String,
    port: String,
    acknowledged: i64,
    heard: Instant,
}

/// Whom a server follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its address.
    pub host: String,
    /// Its port.
    pub port: String,
}

struct State {
    conf: Vec<(String, String)>,
    data: Data,
    started: Instant,
    run_id: String,
    replication_id: String,
    /// The id before a promotion, and up to which offset it was the same history.
    former_id: Option<(String, i64)>,
    offset: i64,
    backlog: VecDeque<u8>,
    master: Option<Master>,
    /// Counts changes of the master: a follower of an older one ends.
    generation: u64,
    link_up: bool,
    syncing: bool,
    link_down_since: Option<Instant>,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    migrating: bool,
    exit: Option<i32>,
}

/// A configuration's last value of a key; the old and the new name of a parameter are the same one.
fn canonical(key: &str) -> String {
    let key = key.to_lowercase();
    match key.as_str() {
        "replicaof" => "slaveof".to_owned(),
        _ => key.replace("replica", "slave"),
    }
}

impl State {
    fn conf(&self, key: &str) -> Option<&str> {
        let key = canonical(key);
        let last = self.conf.iter().rev().find(|(known, _)| *known == key);
        last.map(|(_, value)| value.as_str())
    }

    fn number(&self, key: &str, default: i64) -> i64 {
        self.conf(key).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    fn set_conf(&mut self, key: &str, value: &str) {
        let key = canonical(key);
        self.conf.retain(|(known, _)| *known != key);
        self.conf.push((key, value.to_owned()));
    }

    /// Replicas that hear of writes soon enough.
    fn good_replicas(&self) -> i64 {
        let lag = Duration::from_secs(u64::try_from(self.number("min-slaves-max-lag", 10)).unwrap_or(0));
        let replicas = self.clients.values().filter_map(|client| client.replica.as_ref());
        i64::try_from(replicas.filter(|replica| replica.heard.elapsed() <= lag).count()).unwrap_or(i64::MAX)
    }

    fn is_fenced(&self) -> bool {
        self.number("min-slaves-to-write", 0) > 0 && self.number("min-slaves-max-lag", 10) > 0
    }

    /// Bytes of the replication stream: to the backlog and to all replicas.
    fn feed(&mut self, bytes: &Bytes) {
        self.offset += bytes.len() as i64;
        self.backlog.extend(bytes.iter());
        let surplus = self.backlog.len().saturating_sub(BACKLOG);
        self.backlog.drain(..surplus);
        for client in self.clients.values().filter(|client| client.replica.is_some()) {
            let _ = client.out.send(Out::Bytes(bytes.clone()));
        }
    }

    /// Ends connections. Replicas' are spared unless they are meant.
    fn cut(&mut self, replicas: bool) {
        for client in self.clients.values() {
            if client.replica.is_some() == replicas {
                let _ = client.out.send(Out::Close);
            }
        }
    }

    /// A new history begins.
    fn begin_history(&mut self, id: String) {
        self.former_id = Some((std::mem::replace(&mut self.replication_id, id), self.offset));
    }
}

/// Starts a server, as `codis-server <conf_path>` does. To be called on its machine.
pub fn start(disk: Disk, conf_path: &str) -> Server {
    let conf = read_conf(&disk, conf_path);
    let run_id = identity::token(&[host_name()], &["redis", &format!("{:?}", host::now())]) + "00000000";
    let is_kept = conf
        .iter()
        .rev()
        .find(|(key, _)| key == "appendonly")
        .is_some_and(|(_, value)| value == "yes");
    let loaded = if is_kept { disk.load() } else { None };
    if is_kept && loaded.is_none() {
        disk.rewrite(Data::default());
    }
    let state = State {
        conf,
        data: loaded.unwrap_or_default(),
        started: Instant::now(),
        replication_id: run_id.clone(),
        run_id,
        former_id: None,
        offset: 0,
        backlog: VecDeque::new(),
        master: None,
        generation: 0,
        link_up: false,
        syncing: false,
        link_down_since: Some(Instant::now()),
        clients: BTreeMap::new(),
        next_client: 0,
        migrating: false,
        exit: None,
    };
    let server = Server(Arc::new(Inner {
        state: Mutex::new(state),
        disk,
        conf_path: conf_path.to_owned(),
        free: Notify::new(),
        ended: Notify::new(),
    }));
    let told = server.state().conf("slaveof").map(str::to_owned);
    if let Some((host, port)) = told.as_deref().and_then(|line| line.split_once(' ')) {
        server.follow(Some(Master {
            host: host.to_owned(),
            port: port.to_owned(),
        }));
    }
    host::spawn(connection::listen(server.clone(), Abandoned(server.0.disk.clone())));
    server
}

/// What a killed process leaves on its disk.
struct Abandoned(Disk);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn host_name() -> String {
    host::current().map_or_else(String::new, |host| host.name())
}

fn read_conf(disk: &Disk, path: &str) -> Vec<(String, String)> {
    let text = disk.read(path).ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let pair = |line: &str| {
        let (key, value) = line.trim().split_once(' ')?;
        Some((canonical(key), value.trim().trim_matches('"').to_owned()))
    };
    text.lines()
        .filter(|line| !line.trim().starts_with('#'))
        .filter_map(pair)
        .collect()
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it follows nobody.
    pub fn is_master(&self) -> bool {
        self.state().master.is_none()
    }

    /// Whom it follows.
    pub fn master(&self) -> Option<Master> {
        self.state().master.clone()
    }

    /// Its role, whom it follows and what it has, in a few words.
    pub fn summary(&self) -> String {
        let state = self.state();
        let keys = state.data.values().any(|keys| !keys.is_empty());
        let data = if keys { "" } else { " empty" };
        let fence = if state.is_fenced() { " fenced" } else { "" };
        match &state.master {
            None => format!("master{fence}{data}"),
            Some(master) if state.link_up => format!("of {}{data}", master.host),
            Some(master) => format!("of {} (down){data}", master.host),
        }
    }

    /// A key's value in database 0.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.state().data.get(&0)?.get(key).cloned()
    }

    /// Keys in all databases.
    pub fn keys(&self) -> usize {
        self.state().data.values().map(BTreeMap::len).sum()
    }

    /// SIGTERM: a clean end.
    pub fn terminate(&self) {
        self.exit(0);
    }

    fn exit(&self, code: i32) {
        self.state().exit.get_or_insert(code);
        self.0.ended.notify_waiters();
        self.0.ended.notify_one();
    }

    /// Ends when it has ended by itself; with what it exits.
    pub async fn ended(&self) -> i32 {
        loop {
            let notified = self.0.ended.notified();
            if let Some(code) = self.state().exit {
                return code;
            }
            notified.await;
        }
    }

    /// Follows a master, or nobody.
    fn follow(&self, master: Option<Master>) {
        let mut state = self.state();
        if state.master == master {
            return;
        }
        let was_replica = state.master.is_some();
        state.generation += 1;
        state.link_up = false;
        state.syncing = false;
        state.link_down_since = Some(Instant::now());
        state.master.clone_from(&master);
        match &master {
            Some(master) => {
                let line = format!("{} {}", master.host, master.port);
                state.set_conf("slaveof", &line);
                let generation = state.generation;
                drop(state);
                host::spawn(follow::follow(self.clone(), generation));
            }
            None => {
                state.conf.retain(|(key, _)| key != "slaveof");
                if was_replica {
                    let id = identity::token(&[state.run_id.clone()], &["promoted", &state.generation.to_string()])
                        + "00000000";
                    state.begin_history(id);
                    // Replicas of it learn the new id by a partial resync.
                    state.cut(true);
                }
            }
        }
    }

    /// Writes its configuration to the disk.
    fn rewrite_conf(&self) {
        let state = self.state();
        let quoted = |value: &str| {
            if value.is_empty() {
                "\"\"".to_owned()
            } else {
                value.to_owned()
            }
        };
        let lines: Vec<String> = state
            .conf
            .iter()
            .map(|(key, value)| format!("{key} {}\n", quoted(value)))
            .collect();
        drop(state);
        // A made-up volume takes everything.
        let _ = self.0.disk.write(&self.0.conf_path, lines.concat().as_bytes());
    }
}
