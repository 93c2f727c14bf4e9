//! A master's side of replication: its history, who follows it, and how they come into step.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::Chance;
use super::super::disk::Logged;
use super::core::{Answer, Redis, Server, text};
use crate::resp::{self, Value};

/// What a dump takes at least: the fork, and the cron that notices its end.
const SAVE: Duration = Duration::from_millis(100);
/// What each key adds to it.
const SAVE_KEY: Duration = Duration::from_micros(1);
/// What may wait for a replica before its connection is cut: codis's `client-output-buffer-limit slave`.
const UNREAD: usize = 256 << 20;
const NO_ID: &str = "0000000000000000000000000000000000000000";

/// The writes of a server and its forebears, as a stream of bytes with a name.
pub(super) struct History {
    pub(super) id: String,
    /// The history that this one continues, up to an offset.
    pub(super) former: String,
    pub(super) former_end: i64,
    /// How many bytes it has.
    pub(super) offset: u64,
    pub(super) backlog: Option<Backlog>,
    /// The database that the stream is in; none if replicas have to be told anew.
    database: Option<u32>,
    /// When the last replica left, in milliseconds since 1970.
    pub(super) lonely_since: i64,
    pinged: i64,
    pub(super) full_syncs: u64,
    pub(super) partial_syncs: u64,
}

/// The last bytes of the stream, as many as were set at least.
#[derive(Default)]
pub(super) struct Backlog {
    chunks: VecDeque<Bytes>,
    pub(super) length: usize,
}

/// A connection that is a replica's.
pub(super) struct Attached {
    /// What it has to be told as soon as its dump is made; none when it is in step.
    held: Option<BytesMut>,
    /// What it acknowledged, and when (seconds since 1970).
    pub(super) acked: u64,
    pub(super) acked_at: i64,
}

impl Attached {
    pub(super) fn is_online(&self) -> bool {
        self.held.is_none()
    }
}

impl Backlog {
    fn push(&mut self, bytes: Bytes, limit: usize) {
        self.length += bytes.len();
        self.chunks.push_back(bytes);
        while let Some(first) = self.chunks.front()
            && self.length - first.len() >= limit
        {
            self.length -= first.len();
            self.chunks.pop_front();
        }
    }

    /// The last bytes.
    fn tail(&self, length: usize) -> BytesMut {
        let mut skip = self.length - length.min(self.length);
        let mut tail = BytesMut::new();
        for chunk in &self.chunks {
            let from = skip.min(chunk.len());
            skip -= from;
            tail.extend_from_slice(&chunk[from..]);
        }
        tail
    }
}

impl History {
    pub(super) fn new(chance: &mut Chance) -> Self {
        Self {
            id: chance.id(),
            former: NO_ID.into(),
            former_end: -1,
            offset: 0,
            backlog: None,
            database: None,
            lonely_since: 0,
            pinged: 0,
            full_syncs: 0,
            partial_syncs: 0,
        }
    }

    /// A history of its own from here on that continues the one so far.
    pub(super) fn branch(&mut self, id: String) {
        self.former = std::mem::replace(&mut self.id, id);
        self.former_end = i64::try_from(self.offset).unwrap_or(i64::MAX).saturating_add(1);
        self.database = None;
    }

    /// Somebody else's history from here on.
    pub(super) fn adopt(&mut self, id: String, offset: u64) {
        self.id = id;
        self.former = NO_ID.into();
        self.former_end = -1;
        self.offset = offset;
        self.backlog = Some(Backlog::default());
        self.database = None;
    }

    /// The bytes after an offset, if this history has had that offset and remembers what came since.
    fn since(&self, id: &str, next: i64) -> Option<BytesMut> {
        let is_mine = id == self.id || (id == self.former && next <= self.former_end);
        let had = u64::try_from(next.checked_sub(1)?).ok()?;
        let missing = usize::try_from(self.offset.checked_sub(had)?).ok()?;
        let backlog = self.backlog.as_ref()?;
        (is_mine && missing <= backlog.length).then(|| backlog.tail(missing))
    }
}

impl Redis {
    fn now_seconds(&self) -> i64 {
        self.clock.ms() / 1000
    }

    fn replicas(&self) -> impl Iterator<Item = (u64, &Attached)> {
        let all = self.clients.iter();
        all.filter_map(|(id, client)| Some((id, client.state.replica.as_ref()?)))
    }

    /// A write of the master's own: no history is kept while nobody ever asked for it.
    pub(super) fn feed(&mut self, database: u32, bytes: &Bytes) {
        if self.history.backlog.is_none() {
            return;
        }
        if self.history.database != Some(database) {
            self.history.database = Some(database);
            let mut select = BytesMut::new();
            resp::encode_command(&["SELECT", &database.to_string()], &mut select);
            self.stream(select.freeze());
        }
        self.stream(bytes.clone());
    }

    /// More bytes of the history, for its backlog and for the replicas.
    pub(super) fn stream(&mut self, bytes: Bytes) {
        self.history.offset += bytes.len() as u64;
        let limit = usize::try_from(self.settings.number("repl-backlog-size")).unwrap_or(1 << 20);
        let replicas: Vec<u64> = self.replicas().map(|(id, _)| id).collect();
        for id in replicas {
            let held = self
                .clients
                .state(id)
                .and_then(|session| session.replica.as_mut()?.held.as_mut());
            let waiting = match held {
                Some(held) => {
                    held.extend_from_slice(&bytes);
                    held.len()
                }
                None => self.clients.push(id, &bytes),
            };
            if waiting > UNREAD {
                self.clients.close(id);
            }
        }
        if let Some(backlog) = &mut self.history.backlog {
            backlog.push(bytes, limit);
        }
    }

    /// Counts the replicas that count for `min-slaves-to-write`.
    pub(super) fn count_good(&mut self) {
        let (now, lag) = (self.now_seconds(), self.settings.number("min-slaves-max-lag"));
        let good = self
            .replicas()
            .filter(|(_, replica)| replica.is_online() && now - replica.acked_at <= lag);
        self.good = i64::try_from(good.count()).unwrap_or(i64::MAX);
    }

    pub(super) fn drop_replicas(&mut self) {
        let replicas: Vec<u64> = self.replicas().map(|(id, _)| id).collect();
        for id in replicas {
            self.clients.close(id);
        }
        self.count_good();
    }

    /// `REPLCONF`.
    pub(super) fn replconf(&mut self, id: u64, args: &[Bytes]) -> Answer {
        let now = self.now_seconds();
        let Some(session) = self.clients.state(id) else {
            return Answer::Silence;
        };
        for pair in args.chunks_exact(2) {
            let value = text(&pair[1]);
            match text(&pair[0]).to_ascii_lowercase().as_str() {
                "listening-port" => session.port = value.parse().unwrap_or(0),
                "ip-address" => session.ip = value,
                "ack" => {
                    if let (Some(replica), Ok(acked)) = (&mut session.replica, value.parse()) {
                        replica.acked = acked;
                        replica.acked_at = now;
                        self.acked.notify_waiters();
                    }
                    return Answer::Silence;
                }
                _ => {}
            }
        }
        Answer::Reply(Value::ok())
    }

    /// `PSYNC`, and `SYNC` without words.
    pub(super) fn psync(&mut self, id: u64, args: &[Bytes], server: &Server) -> Answer {
        if self.follow.as_ref().is_some_and(|follow| !follow.is_up()) {
            let why = "NOMASTERLINK Can't SYNC while not connected with my master";
            return Answer::Reply(Value::error(why));
        }
        let asked = match args {
            [history, next] => self.history.since(&text(history), text(next).parse().unwrap_or(0)),
            _ => None,
        };
        let now = self.now_seconds();
        let attached = |held| Attached {
            held,
            acked: 0,
            acked_at: now,
        };
        if let Some(missed) = asked {
            self.history.partial_syncs += 1;
            self.attach(id, attached(None));
            let told = format!("+CONTINUE {}\r\n", self.history.id);
            self.clients.push(id, told.as_bytes());
            self.clients.push(id, &missed);
            return Answer::Silence;
        }
        if self.history.backlog.is_none() {
            // Nobody has seen this history yet (`replication.c`, `syncCommand`).
            self.history.id = self.chance.id();
            self.history.former = NO_ID.into();
            self.history.backlog = Some(Backlog::default());
        }
        self.history.full_syncs += 1;
        self.history.database = None;
        if !args.is_empty() {
            let told = format!("+FULLRESYNC {} {}\r\n", self.history.id, self.history.offset);
            self.clients.push(id, told.as_bytes());
        }
        self.attach(id, attached(Some(BytesMut::new())));
        self.save_for(id, server);
        Answer::Silence
    }

    fn attach(&mut self, id: u64, replica: Attached) {
        if let Some(session) = self.clients.state(id) {
            session.replica = Some(replica);
        }
        self.count_good();
    }

    /// Dumps all keys as they are now and sends them when that is done.
    fn save_for(&self, id: u64, server: &Server) {
        let dump = encode(&self.dump());
        let keys = u32::try_from(self.keys.count()).unwrap_or(u32::MAX);
        let process = server.clone();
        server.spawn(async move {
            tokio::time::sleep(SAVE + SAVE_KEY * keys).await;
            let _turn = process.turn().await;
            let mut core = process.core();
            let replica = core.clients.state(id).and_then(|session| session.replica.as_mut());
            let Some(held) = replica.and_then(|replica| replica.held.take()) else {
                return;
            };
            core.clients.push(id, format!("${}\r\n", dump.len()).as_bytes());
            core.clients.push(id, &dump);
            core.clients.push(id, &held);
            let now = core.now_seconds();
            if let Some(replica) = core.clients.state(id).and_then(|session| session.replica.as_mut()) {
                replica.acked_at = now;
            }
            core.count_good();
            core.clients.flush();
        });
    }

    /// All keys as commands.
    pub(super) fn dump(&self) -> Vec<Logged> {
        let mut commands = Vec::new();
        for (database, keys) in self.keys.databases() {
            for (key, entry) in keys.iter() {
                let mut bytes = BytesMut::new();
                resp::encode_command(&[&b"SET"[..], key, &entry.value], &mut bytes);
                if let Some(until) = entry.until {
                    resp::encode_command(&[&b"PEXPIREAT"[..], key, until.to_string().as_bytes()], &mut bytes);
                }
                commands.push(Logged {
                    database,
                    bytes: bytes.freeze(),
                });
            }
        }
        commands
    }

    /// What a server does each second for its replicas (`replicationCron`).
    pub(super) fn cron(&mut self) {
        let now = self.clock.ms();
        if self.is_master() {
            self.expire_all();
            let pause = self.settings.number("repl-ping-slave-period").max(1) * 1000;
            if self.replicas().next().is_some() && now - self.history.pinged >= pause {
                self.history.pinged = now;
                self.stream(Bytes::from_static(b"*1\r\n$4\r\nPING\r\n"));
            }
        }
        if self.replicas().next().is_some() {
            self.history.lonely_since = now;
        }
        let patience = self.settings.number("repl-timeout");
        let (mut lost, mut waiting) = (Vec::new(), Vec::new());
        for (id, replica) in self.replicas() {
            if !replica.is_online() {
                waiting.push(id);
            } else if now / 1000 - replica.acked_at > patience {
                lost.push(id);
            }
        }
        // A replica that waits for its dump is told that its master lives.
        for id in waiting {
            self.clients.push(id, b"\n");
        }
        lost.into_iter().for_each(|id| self.clients.close(id));
        self.count_good();
        self.forget(now);
        self.compact();
    }

    /// A master that nobody has followed for long forgets its history.
    fn forget(&mut self, now: i64) {
        let ttl = self.settings.number("repl-backlog-ttl") * 1000;
        let alone = self.is_master() && self.replicas().next().is_none();
        if alone && ttl > 0 && self.history.backlog.is_some() && now - self.history.lonely_since > ttl {
            self.history.backlog = None;
            self.history.id = self.chance.id();
            self.history.former = NO_ID.into();
            self.history.former_end = -1;
        }
    }

    /// Rewrites a file that is mostly history.
    fn compact(&mut self) {
        let keys = usize::try_from(self.keys.count()).unwrap_or(usize::MAX);
        if self.logs && !self.loading && self.disk.length() > keys.saturating_mul(2).saturating_add(100_000) {
            self.disk.rewrite(self.life, self.dump());
        }
    }
}

/// The commands of a dump as one stream.
fn encode(commands: &[Logged]) -> Bytes {
    let (mut bytes, mut current) = (BytesMut::new(), None);
    for command in commands {
        if current != Some(command.database) {
            current = Some(command.database);
            resp::encode_command(&["SELECT", &command.database.to_string()], &mut bytes);
        }
        bytes.extend_from_slice(&command.bytes);
    }
    bytes.freeze()
}
