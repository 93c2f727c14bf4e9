//! What a server answers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::super::disk::{Change, apply};
use super::connection::Session;
use super::{Master, Out, Server, State};
use crate::redis::Connection;
use crate::resp::{self, Value};

/// Parameters that are told although nobody set them.
const DEFAULTS: [(&str, &str); 12] = [
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("databases", "16"),
    ("maxclients", "10000"),
    ("min-slaves-to-write", "0"),
    ("min-slaves-max-lag", "10"),
    ("appendonly", "no"),
    ("appendfsync", "everysec"),
    ("requirepass", ""),
    ("masterauth", ""),
    ("timeout", "0"),
    ("slave-priority", "100"),
];

const WRITES: [&str; 13] = [
    "SET", "MSET", "DEL", "UNLINK", "INCR", "INCRBY", "APPEND", "FLUSHALL", "FLUSHDB", "RESTORE", "SETNX", "GETSET",
    "SETEX",
];

fn text(word: &Bytes) -> String {
    String::from_utf8_lossy(word).into_owned()
}

fn arity(name: &str) -> Value {
    Value::error(format!(
        "ERR wrong number of arguments for '{}' command",
        name.to_lowercase()
    ))
}

impl Server {
    /// Runs a command; no reply where none is due.
    pub(super) fn command(&self, session: &mut Session, name: &str, words: Vec<Bytes>) -> Option<Value> {
        if name == "AUTH" {
            return Some(self.auth(session, &words));
        }
        if !session.is_authorized {
            return Some(Value::error("NOAUTH Authentication required."));
        }
        match name {
            "MULTI" => session.queued = Some(Vec::new()),
            "DISCARD" => session.queued = None,
            "EXEC" => return Some(self.exec(session)),
            _ => {
                if let Some(queued) = &mut session.queued {
                    queued.push(words);
                    return Some(Value::Simple("QUEUED".into()));
                }
                return self.one(session, name, &words);
            }
        }
        Some(Value::ok())
    }

    fn auth(&self, session: &mut Session, words: &[Bytes]) -> Value {
        let expected = self.state().conf("requirepass").unwrap_or_default().to_owned();
        if expected.is_empty() {
            return Value::error(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
            );
        }
        session.is_authorized = words.last().is_some_and(|word| word == expected.as_bytes());
        if session.is_authorized {
            Value::ok()
        } else {
            Value::error("WRONGPASS invalid username-password pair or user is disabled.")
        }
    }

    fn exec(&self, session: &mut Session) -> Value {
        let Some(queued) = session.queued.take() else {
            return Value::error("ERR EXEC without MULTI");
        };
        let replies = queued.iter().map(|words| {
            let name = text(&words[0]).to_uppercase();
            self.one(session, &name, words).unwrap_or_else(Value::ok)
        });
        Value::Array(Some(replies.collect()))
    }

    fn one(&self, session: &mut Session, name: &str, words: &[Bytes]) -> Option<Value> {
        if WRITES.contains(&name)
            && let Some(refusal) = self.state().refusal()
        {
            return Some(refusal);
        }
        let reply = match name {
            "PING" => Value::Simple("PONG".into()),
            "ECHO" => words
                .get(1)
                .map_or_else(|| arity(name), |word| Value::Bulk(Some(word.clone()))),
            "SELECT" => self.select(session, words),
            "QUIT" => {
                session.is_over = true;
                Value::ok()
            }
            "INFO" => Value::bulk(self.state().info(words.get(1).map(text).as_deref())),
            "CONFIG" => self.config(words),
            "CLIENT" => self.client(session, words),
            "SLAVEOF" | "REPLICAOF" => self.slave_of(words),
            "REPLCONF" => return self.replconf(session, words),
            "PSYNC" => return self.psync(session, words),
            "ROLE" => self.role(),
            "SUBSCRIBE" => return self.subscribe(session, words),
            "PUBLISH" => self.publish(words),
            "SHUTDOWN" => {
                self.exit(0);
                session.is_over = true;
                return None;
            }
            "SLOWLOG" | "LATENCY" | "COMMAND" => Value::Array(Some(Vec::new())),
            "CLUSTER" => Value::error("ERR This instance has cluster support disabled"),
            _ => self.keys_command(session.database, name, words),
        };
        Some(reply)
    }

    fn select(&self, session: &mut Session, words: &[Bytes]) -> Value {
        let databases = self.state().number("databases", 16);
        match words.get(1).and_then(|word| text(word).parse::<i64>().ok()) {
            Some(number) if (0..databases).contains(&number) => {
                session.database = u32::try_from(number).unwrap_or(0);
                Value::ok()
            }
            _ => Value::error("ERR DB index is out of range"),
        }
    }

    fn config(&self, words: &[Bytes]) -> Value {
        let words: Vec<String> = words.iter().map(text).collect();
        let verb = words.get(1).map(|verb| verb.to_uppercase());
        match (verb.as_deref(), words.get(2), words.get(3)) {
            (Some("GET"), Some(key), _) => {
                let state = self.state();
                let default = DEFAULTS.iter().find(|(known, _)| known == key).map(|(_, value)| *value);
                let found = state.conf(key).or(default);
                let pair = found.map(|value| vec![Value::bulk(key.clone()), Value::bulk(value.to_owned())]);
                Value::Array(Some(pair.unwrap_or_default()))
            }
            (Some("SET"), Some(key), Some(value)) => {
                self.state().set_conf(key, value);
                Value::ok()
            }
            (Some("REWRITE"), ..) => {
                self.rewrite_conf();
                Value::ok()
            }
            (Some("RESETSTAT"), ..) => Value::ok(),
            _ => Value::error("ERR Unknown CONFIG subcommand or wrong number of arguments"),
        }
    }

    fn client(&self, session: &Session, words: &[Bytes]) -> Value {
        let words: Vec<String> = words.iter().map(|word| text(word).to_uppercase()).collect();
        match words.get(1).map(String::as_str) {
            Some("KILL") => {
                let state = self.state();
                let mut killed = 0;
                for (id, client) in &state.clients {
                    // Who kills is spared until its reply is sent; subscribers are of another type.
                    if *id != session.id && client.replica.is_none() && client.channels.is_empty() {
                        let _ = client.out.send(Out::Close);
                        killed += 1;
                    }
                }
                Value::Integer(killed)
            }
            Some("LIST") => Value::bulk(String::new()),
            _ => Value::ok(),
        }
    }

    fn slave_of(&self, words: &[Bytes]) -> Value {
        let words: Vec<String> = words.iter().map(text).collect();
        match words.as_slice() {
            [_, no, one] if no.eq_ignore_ascii_case("no") && one.eq_ignore_ascii_case("one") => self.follow(None),
            [_, host, port] => self.follow(Some(Master {
                host: host.clone(),
                port: port.clone(),
            })),
            _ => return arity("slaveof"),
        }
        Value::ok()
    }

    fn replconf(&self, session: &mut Session, words: &[Bytes]) -> Option<Value> {
        let words: Vec<String> = words.iter().map(text).collect();
        if let [_, ack, offset] = words.as_slice()
            && ack == "ACK"
        {
            let mut state = self.state();
            if let Some(replica) = state
                .clients
                .get_mut(&session.id)
                .and_then(|client| client.replica.as_mut())
            {
                replica.acknowledged = offset.parse().unwrap_or(replica.acknowledged);
                replica.heard = Instant::now();
            }
            return None;
        }
        for pair in words[1..].chunks_exact(2) {
            match pair[0].as_str() {
                "listening-port" => session.announced.1 = Some(pair[1].clone()),
                "ip-address" => session.announced.0 = Some(pair[1].clone()),
                _ => {}
            }
        }
        Some(Value::ok())
    }

    fn psync(&self, session: &mut Session, words: &[Bytes]) -> Option<Value> {
        let [_, id, offset] = words else {
            return Some(arity("psync"));
        };
        {
            let state = self.state();
            if state.master.is_some() && !state.link_up {
                return Some(Value::error(
                    "NOMASTERLINK Can't SYNC while not connected with my master",
                ));
            }
        }
        let address = session.announced.0.clone().filter(|ip| !ip.is_empty());
        let announced = (
            address.unwrap_or_else(|| session.peer.clone()),
            session.announced.1.clone().unwrap_or_else(|| "6379".into()),
        );
        let replies = self.adopt(session.id, (&text(id), text(offset).parse().unwrap_or(-1)), announced);
        let mut bytes = BytesMut::new();
        replies.iter().for_each(|reply| reply.encode(&mut bytes));
        // By the outbox: what is written from now on comes after it.
        let state = self.state();
        if let Some(client) = state.clients.get(&session.id) {
            let _ = client.out.send(Out::Bytes(bytes.freeze()));
        }
        None
    }

    fn role(&self) -> Value {
        let state = self.state();
        let offset = Value::Integer(state.offset);
        Value::Array(Some(match &state.master {
            None => vec![Value::bulk("master"), offset, Value::Array(Some(Vec::new()))],
            Some(master) => vec![
                Value::bulk("slave"),
                Value::bulk(master.host.clone()),
                Value::Integer(master.port.parse().unwrap_or(6379)),
                Value::bulk(if state.link_up { "connected" } else { "connect" }),
                offset,
            ],
        }))
    }

    fn subscribe(&self, session: &Session, words: &[Bytes]) -> Option<Value> {
        let mut state = self.state();
        let client = state.clients.get_mut(&session.id)?;
        for channel in words[1..].iter().map(text) {
            client.channels.push(channel.clone());
            let count = Value::Integer(client.channels.len() as i64);
            let mut bytes = BytesMut::new();
            Value::Array(Some(vec![Value::bulk("subscribe"), Value::bulk(channel), count])).encode(&mut bytes);
            let _ = client.out.send(Out::Bytes(bytes.freeze()));
        }
        None
    }

    fn publish(&self, words: &[Bytes]) -> Value {
        let [_, channel, message] = words else {
            return arity("publish");
        };
        let name = text(channel);
        let parts = [
            Value::bulk("message"),
            Value::Bulk(Some(channel.clone())),
            Value::Bulk(Some(message.clone())),
        ];
        let mut bytes = BytesMut::new();
        Value::Array(Some(parts.to_vec())).encode(&mut bytes);
        let bytes = bytes.freeze();
        let state = self.state();
        let hearers = state.clients.values().filter(|client| client.channels.contains(&name));
        let heard = hearers
            .filter(|client| client.out.send(Out::Bytes(bytes.clone())).is_ok())
            .count();
        Value::Integer(heard as i64)
    }

    fn keys_command(&self, database: u32, name: &str, words: &[Bytes]) -> Value {
        let mut state = self.state();
        let get = |state: &State, key: &Bytes| state.data.get(&database).and_then(|keys| keys.get(key)).cloned();
        match (name, words) {
            ("GET", [_, key]) => Value::Bulk(get(&state, key)),
            ("MGET", [_, keys @ ..]) => {
                Value::Array(Some(keys.iter().map(|key| Value::Bulk(get(&state, key))).collect()))
            }
            ("SET", [_, key, value, options @ ..]) => {
                let is_there = get(&state, key).is_some();
                let has = |word: &str| options.iter().any(|option| text(option).eq_ignore_ascii_case(word));
                if has("NX") && is_there || has("XX") && !is_there {
                    return Value::Bulk(None);
                }
                self.write(&mut state, (database, key.clone(), Some(value.clone())));
                Value::ok()
            }
            ("RESTORE", [_, key, _, value, ..]) => {
                self.write(&mut state, (database, key.clone(), Some(value.clone())));
                Value::ok()
            }
            ("MSET", [_, pairs @ ..]) if pairs.len().is_multiple_of(2) => {
                for pair in pairs.chunks_exact(2) {
                    self.write(&mut state, (database, pair[0].clone(), Some(pair[1].clone())));
                }
                Value::ok()
            }
            ("DEL" | "UNLINK", [_, keys @ ..]) => {
                let there: Vec<_> = keys.iter().filter(|key| get(&state, key).is_some()).cloned().collect();
                for key in &there {
                    self.write(&mut state, (database, key.clone(), None));
                }
                Value::Integer(there.len() as i64)
            }
            ("EXISTS", [_, keys @ ..]) => {
                Value::Integer(keys.iter().filter(|key| get(&state, key).is_some()).count() as i64)
            }
            ("INCR" | "INCRBY", [_, key, by @ ..]) => {
                let number = |value: &Bytes| text(value).parse::<i64>().ok();
                let old = get(&state, key).map_or(Some(0), |value| number(&value));
                let by = by.first().map_or(Some(1), number);
                let (Some(old), Some(by)) = (old, by) else {
                    return Value::error("ERR value is not an integer or out of range");
                };
                self.write(&mut state, (database, key.clone(), Some((old + by).to_string().into())));
                Value::Integer(old + by)
            }
            ("DBSIZE", _) => Value::Integer(state.data.get(&database).map_or(0, |keys| keys.len() as i64)),
            ("SCAN", _) => {
                // One page has them all.
                let keys = state.data.get(&database).into_iter().flat_map(|keys| keys.keys());
                let keys = keys.map(|key| Value::Bulk(Some(key.clone()))).collect();
                Value::Array(Some(vec![Value::bulk("0"), Value::Array(Some(keys))]))
            }
            ("FLUSHALL" | "FLUSHDB", _) => {
                let all: Vec<(u32, Bytes)> = state
                    .data
                    .iter()
                    .filter(|(number, _)| name == "FLUSHALL" || **number == database)
                    .flat_map(|(number, keys)| keys.keys().map(|key| (*number, key.clone())))
                    .collect();
                for (number, key) in all {
                    self.write(&mut state, (number, key, None));
                }
                Value::ok()
            }
            ("TTL" | "PTTL", [_, key]) => Value::Integer(if get(&state, key).is_some() { -1 } else { -2 }),
            ("TYPE", [_, key]) => Value::Simple(if get(&state, key).is_some() { "string" } else { "none" }.into()),
            ("EXPIRE" | "PEXPIRE" | "PERSIST", _) => Value::Integer(0),
            _ => Value::error(format!("ERR unknown command '{name}', with args beginning with: ")),
        }
    }

    /// A write: into the data, the file and the stream, in one step.
    fn write(&self, state: &mut State, change: Change) {
        let number = change.0.to_string();
        let mut said = BytesMut::new();
        match &change.2 {
            Some(value) => resp::encode_command(&[b"SET", number.as_bytes(), &change.1, value], &mut said),
            None => resp::encode_command(&[b"DEL".as_slice(), number.as_bytes(), &change.1], &mut said),
        }
        if state.conf("appendonly") == Some("yes") {
            self.0.disk.append(change.clone());
        }
        apply(&mut state.data, change);
        state.feed(&said.freeze());
    }

    /// Keys go to another server, and nothing else happens meanwhile.
    pub(super) async fn migrate(&self, from: u32, words: &[Bytes]) -> Value {
        if let Some(refusal) = self.state().refusal() {
            return refusal;
        }
        let said: Vec<String> = words.iter().map(text).collect();
        let at = |word: &str| said.iter().position(|other| other == word);
        let (Some(keys), Some(timeout)) = (at("KEYS"), said.get(5).and_then(|word| word.parse().ok())) else {
            return arity("migrate");
        };
        let database = said[4].clone();
        let password = at("AUTH")
            .and_then(|index| said.get(index + 1).cloned())
            .unwrap_or_default();
        let found: Vec<(Bytes, Bytes)> = {
            let mut state = self.state();
            let there = state.data.get(&from);
            let found = words[keys + 1..]
                .iter()
                .filter_map(|key| Some((key.clone(), there?.get(key)?.clone())));
            let found: Vec<_> = found.collect();
            state.migrating = !found.is_empty();
            found
        };
        if found.is_empty() {
            return Value::Simple("NOKEY".into());
        }
        let busy = Busy(self.clone());
        let target = format!("{}:{}", said[1], said[2]);
        let sent = send(&target, &password, &database, &found, Duration::from_millis(timeout)).await;
        let mut state = self.state();
        if let Err(error) = sent {
            drop(state);
            drop(busy);
            return Value::error(format!("IOERR error or timeout {error}"));
        }
        for (key, _) in found {
            self.write(&mut state, (from, key, None));
        }
        drop(state);
        drop(busy);
        Value::ok()
    }
}

/// A `MIGRATE` that is under way.
struct Busy(Server);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state().migrating = false;
        self.0.0.free.notify_waiters();
    }
}

async fn send(
    target: &str,
    password: &str,
    database: &str,
    found: &[(Bytes, Bytes)],
    timeout: Duration,
) -> Result<(), crate::redis::RedisError> {
    let mut connection = Connection::open(target, password, timeout).await?;
    connection.command(&["SELECT", database]).await?;
    for (key, value) in found {
        let words: [&[u8]; 5] = [b"RESTORE", key, b"0", value, b"REPLACE"];
        connection.command(&words).await?;
    }
    Ok(())
}

impl State {
    /// Why a client's write isn't taken.
    fn refusal(&self) -> Option<Value> {
        if self.master.is_some() {
            return Some(Value::error("READONLY You can't write against a read only replica."));
        }
        let is_short = self.is_fenced() && self.good_replicas() < self.number("min-slaves-to-write", 0);
        is_short.then(|| Value::error("NOREPLICAS Not enough good replicas to write."))
    }
}
