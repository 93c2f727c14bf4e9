//! A server's state, and the way of a command through it: who may say what, when.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::super::clients::Clients;
use super::super::disk::{Disk, Logged, Sync};
use super::super::process::{Process, Program, Then};
use super::super::{Chance, Clock};
use super::keys::Keys;
use super::master::{Attached, History};
use super::replica::Follow;
use super::settings::Settings;
use crate::resp::{self, Value};

/// A server.
pub(super) struct Redis {
    pub(super) clients: Clients<Session>,
    pub(super) settings: Settings,
    pub(super) conf_path: String,
    pub(super) disk: Disk,
    /// Which process of the disk it is.
    pub(super) life: u64,
    pub(super) clock: Clock,
    pub(super) chance: Chance,
    pub(super) keys: Keys,
    pub(super) run_id: String,
    /// Milliseconds since 1970.
    pub(super) started: i64,
    pub(super) loading: bool,
    /// Whether writes go to the append-only file.
    pub(super) logs: bool,
    pub(super) history: History,
    pub(super) follow: Option<Follow>,
    /// Replicas whose lag was good enough when last counted.
    pub(super) good: i64,
    /// Told when a replica acknowledges.
    pub(super) acked: Arc<Notify>,
    /// Commands and connections so far.
    pub(super) commands: u64,
    pub(super) connections: u64,
    /// A write happened since this was last cleared.
    pub(super) wrote: bool,
}

/// What a server knows of a connection.
#[derive(Default)]
pub(super) struct Session {
    pub(super) database: u32,
    pub(super) authenticated: bool,
    pub(super) name: String,
    queue: Option<Vec<Vec<Bytes>>>,
    spoilt: bool,
    pub(super) replica: Option<Attached>,
    /// What a replica says of its own address.
    pub(super) port: u16,
    pub(super) ip: String,
    /// The end of its last write in the history.
    pub(super) written: u64,
}

/// What comes of a command.
pub(super) enum Answer {
    /// This, at once.
    Reply(Value),
    /// Nothing: it was said already, or isn't to be.
    Silence,
    /// Later.
    Later(Then),
}

pub(super) type Server = Arc<Process<Redis>>;

/// What redis knows of a command: its arity, as in redis (negative: at least), and whether it writes or takes memory.
struct Kind {
    arity: isize,
    writes: bool,
    grows: bool,
}

fn kind(name: &str) -> Option<Kind> {
    let (arity, writes, grows) = match name {
        "SET" | "MSET" => (-3, true, true),
        "INCR" | "DECR" => (2, true, true),
        "INCRBY" | "DECRBY" | "APPEND" | "SETNX" => (3, true, true),
        "SETEX" | "PSETEX" => (4, true, true),
        "RESTORE" => (-4, true, true),
        "DEL" | "UNLINK" => (-2, true, false),
        "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" => (-3, true, false),
        "PERSIST" => (2, true, false),
        "FLUSHALL" | "FLUSHDB" => (-1, true, false),
        "MIGRATE" => (-6, true, false),
        "GET" | "STRLEN" | "TTL" | "PTTL" | "TYPE" | "DUMP" | "ECHO" | "SELECT" => (2, false, false),
        "MGET" | "EXISTS" | "AUTH" | "CONFIG" | "CLIENT" | "SLOWLOG" | "LATENCY" | "DEBUG" | "SUBSCRIBE"
        | "PSUBSCRIBE" | "SCAN" | "CLUSTER" => (-2, false, false),
        "PUBLISH" | "SLAVEOF" | "REPLICAOF" | "WAIT" => (3, false, false),
        "PSYNC" => (-3, false, false),
        "DBSIZE" | "RANDOMKEY" | "MULTI" | "EXEC" | "DISCARD" | "TIME" | "ROLE" | "SYNC" => (1, false, false),
        "PING" | "INFO" | "REPLCONF" | "SHUTDOWN" | "COMMAND" | "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "QUIT" | "UNWATCH" => {
            (-1, false, false)
        }
        _ => return None,
    };
    Some(Kind { arity, writes, grows })
}

/// What a loading server does all the same.
fn loads(name: &str) -> bool {
    matches!(
        name,
        "AUTH"
            | "INFO"
            | "CONFIG"
            | "CLIENT"
            | "SELECT"
            | "SHUTDOWN"
            | "SUBSCRIBE"
            | "PSUBSCRIBE"
            | "UNSUBSCRIBE"
            | "PUNSUBSCRIBE"
            | "PUBLISH"
            | "REPLCONF"
            | "MULTI"
            | "EXEC"
            | "DISCARD"
            | "COMMAND"
            | "ROLE"
            | "TIME"
            | "SLOWLOG"
            | "LATENCY"
            | "DEBUG"
            | "QUIT"
    )
}

/// What a replica with stale data does even if it isn't to serve that.
fn is_stale(name: &str) -> bool {
    loads(name) || matches!(name, "PING" | "ECHO" | "SLAVEOF" | "REPLICAOF" | "UNWATCH")
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Redis {
    pub(super) fn is_master(&self) -> bool {
        self.follow.is_none()
    }

    /// Makes a write known: to the file, and from a master to its replicas.
    pub(super) fn propagate<T: AsRef<[u8]>>(&mut self, database: u32, words: &[T]) {
        let mut bytes = BytesMut::new();
        resp::encode_command(words, &mut bytes);
        let bytes = bytes.freeze();
        self.wrote = true;
        if self.logs {
            let command = Logged {
                database,
                bytes: bytes.clone(),
            };
            self.disk.append(self.life, command, self.sync());
        }
        if self.is_master() {
            self.feed(database, &bytes);
        }
    }

    pub(super) fn sync(&self) -> Sync {
        match self.settings.text("appendfsync") {
            "always" => Sync::Always,
            "no" => Sync::Never,
            _ => Sync::EverySecond,
        }
    }

    /// Why a command isn't done now, in redis's words and order (`server.c`, `processCommand`).
    fn refusal(&self, name: &str, kind: &Kind, session: &Session) -> Option<String> {
        let queued = |wanted: fn(&Kind) -> bool| {
            let queue = session.queue.iter().flatten();
            name == "EXEC"
                && queue
                    .filter_map(|words| self::kind(&upper(&words[0])))
                    .any(|kind| wanted(&kind))
        };
        let writes = kind.writes || queued(|kind| kind.writes);
        let limit = self.settings.number("maxmemory").unsigned_abs();
        if limit > 0 && self.is_master() && (kind.grows || queued(|kind| kind.grows)) && self.keys.memory() > limit {
            return Some("OOM command not allowed when used memory > 'maxmemory'.".into());
        }
        if writes && self.lacks_replicas() {
            return Some("NOREPLICAS Not enough good replicas to write.".into());
        }
        if writes && !self.is_master() && self.settings.flag("slave-read-only") {
            return Some("READONLY You can't write against a read only replica.".into());
        }
        let is_down = self.follow.as_ref().is_some_and(|follow| !follow.is_up());
        if is_down && !self.settings.flag("slave-serve-stale-data") && !is_stale(name) {
            return Some("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.".into());
        }
        (self.loading && !loads(name)).then(|| "LOADING Redis is loading the dataset in memory".into())
    }

    /// Whether a master has fewer good replicas than it needs for a write.
    fn lacks_replicas(&self) -> bool {
        let needed = self.settings.number("min-slaves-to-write");
        self.is_master() && needed > 0 && self.settings.number("min-slaves-max-lag") > 0 && self.good < needed
    }

    /// Everything about a command but its effect.
    fn admit(&mut self, id: u64, name: &str, words: &[Bytes]) -> Result<(), String> {
        let session = self.clients.get(id).map(|client| &client.state).ok_or("ERR gone")?;
        let Some(kind) = kind(name) else {
            let told: String = words[1..].iter().map(|word| format!("'{}' ", text(word))).collect();
            let said = text(&words[0]);
            return Err(format!(
                "ERR unknown command '{said}', with args beginning with: {told}"
            ));
        };
        if kind.arity.unsigned_abs() > words.len() || (kind.arity > 0 && kind.arity.unsigned_abs() < words.len()) {
            let name = name.to_ascii_lowercase();
            return Err(format!("ERR wrong number of arguments for '{name}' command"));
        }
        let open = session.authenticated || self.settings.text("requirepass").is_empty();
        if !open && !matches!(name, "AUTH" | "QUIT") {
            return Err("NOAUTH Authentication required.".into());
        }
        let listens = self
            .clients
            .get(id)
            .is_some_and(|client| !client.channels.is_empty() || !client.patterns.is_empty());
        if listens && !name.ends_with("SUBSCRIBE") && !matches!(name, "PING" | "QUIT") {
            let name = name.to_ascii_lowercase();
            return Err(format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
            ));
        }
        self.refusal(name, &kind, session).map_or(Ok(()), Err)
    }

    fn dispatch(&mut self, id: u64, words: Vec<Bytes>, server: &Server) -> Answer {
        let name = upper(&words[0]);
        if let Err(why) = self.admit(id, &name, &words) {
            if let Some(session) = self.clients.state(id) {
                session.spoilt = session.queue.is_some();
                if name == "EXEC" {
                    session.queue = None;
                    return Answer::Reply(Value::error(format!(
                        "EXECABORT Transaction discarded because of: {why}"
                    )));
                }
            }
            return Answer::Reply(Value::error(why));
        }
        match name.as_str() {
            "MULTI" | "EXEC" | "DISCARD" => return self.transaction(id, &name, server),
            _ => {}
        }
        if let Some(queue) = self.clients.state(id).and_then(|session| session.queue.as_mut()) {
            queue.push(words);
            return Answer::Reply(Value::Simple("QUEUED".into()));
        }
        self.call(id, &name, &words, server)
    }

    fn transaction(&mut self, id: u64, name: &str, server: &Server) -> Answer {
        let Some(session) = self.clients.state(id) else {
            return Answer::Silence;
        };
        if name == "MULTI" {
            if session.queue.is_some() {
                return Answer::Reply(Value::error("ERR MULTI calls can not be nested"));
            }
            session.queue = Some(Vec::new());
            session.spoilt = false;
            return Answer::Reply(Value::ok());
        }
        let Some(queue) = session.queue.take() else {
            return Answer::Reply(Value::error(format!("ERR {name} without MULTI")));
        };
        if name == "DISCARD" {
            return Answer::Reply(Value::ok());
        }
        if session.spoilt {
            let why = "EXECABORT Transaction discarded because of previous errors.";
            return Answer::Reply(Value::error(why));
        }
        let mut replies = Vec::new();
        for words in queue {
            match self.call(id, &upper(&words[0]), &words, server) {
                Answer::Reply(value) => replies.push(value),
                Answer::Silence => {}
                Answer::Later(_) => replies.push(Value::error("ERR not simulated within a transaction")),
            }
        }
        Answer::Reply(Value::Array(Some(replies)))
    }

    fn call(&mut self, id: u64, name: &str, words: &[Bytes], server: &Server) -> Answer {
        let database = self.clients.get(id).map_or(0, |client| client.state.database);
        if self.clients.pubsub(id, name, &words[1..]) {
            return Answer::Silence;
        }
        if let Some(answer) = self.administrate(id, name, words, server) {
            return answer;
        }
        let before = self.history.offset;
        let reply = self.data(database, name, words);
        if self.history.offset > before
            && let Some(session) = self.clients.state(id)
        {
            session.written = self.history.offset;
        }
        Answer::Reply(reply)
    }
}

pub(super) fn upper(word: &[u8]) -> String {
    text(word).to_ascii_uppercase()
}

impl Program for Redis {
    type State = Session;

    fn clients(&mut self) -> &mut Clients<Session> {
        &mut self.clients
    }

    fn execute(&mut self, id: u64, words: Vec<Bytes>, server: &Server) -> Then {
        self.commands += 1;
        self.wrote = false;
        let then = match self.dispatch(id, words, server) {
            Answer::Reply(value) => {
                self.clients.say(id, &value);
                Then::Next
            }
            Answer::Silence => Then::Next,
            Answer::Later(then) => return then,
        };
        // A slow disk holds up everybody when each reply waits for it.
        match self.disk.slow() {
            Some(slow) if self.wrote && self.logs && self.sync() == Sync::Always => {
                Then::Hold(Box::pin(tokio::time::sleep(slow)))
            }
            _ => then,
        }
    }

    fn joined(&mut self) {
        self.connections += 1;
    }

    fn left(&mut self, id: u64) {
        if self
            .clients
            .get(id)
            .is_some_and(|client| client.state.replica.is_some())
        {
            if let Some(session) = self.clients.state(id) {
                session.replica = None;
            }
            self.count_good();
        }
    }

    fn end(&mut self, killed: bool) {
        if !killed {
            self.disk.sync(self.life);
        }
        self.disk.close(self.life);
    }
}
