//! One client of a proxy (§8.6): commands are sent on as they arrive, replies go back in order.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Inner;
use super::keys::keys_of;
use super::replicas::is_read;
use super::stats::Outcome;
use crate::SLOTS;
use crate::host::{Socket, Stream};
use crate::resp::{self, Value, slot_of};

/// What the proxy refuses (§8.6).
const BLACKLIST: &[&str] = &[
    "KEYS",
    "SCAN",
    "MULTI",
    "EXEC",
    "DISCARD",
    "WATCH",
    "UNWATCH",
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "PUBLISH",
    "PUBSUB",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "CONFIG",
    "CLIENT",
    "DBSIZE",
    "FLUSHALL",
    "FLUSHDB",
    "SAVE",
    "BGSAVE",
    "LASTSAVE",
    "BGREWRITEAOF",
    "SLAVEOF",
    "REPLICAOF",
    "SHUTDOWN",
    "SLOWLOG",
    "MIGRATE",
    "MOVE",
    "OBJECT",
    "RENAME",
    "RENAMENX",
    "BITOP",
    "MSETNX",
    "RANDOMKEY",
    "SCRIPT",
    "TIME",
    "WAIT",
    "CLUSTER",
    "MONITOR",
    "SYNC",
    "PSYNC",
    "REPLCONF",
    "ROLE",
    "DEBUG",
    "COMMAND",
    "SLOTSCHECK",
    "SLOTSDEL",
    "SLOTSMGRTSLOT",
    "SLOTSMGRTTAGSLOT",
    "SLOTSMGRTONE",
    "SLOTSMGRTTAGONE",
    "SLOTSMGRTSLOT-ASYNC",
    "SLOTSMGRTTAGSLOT-ASYNC",
    "SLOTSMGRTONE-ASYNC",
    "SLOTSMGRTTAGONE-ASYNC",
    "SLOTSMGRT-ASYNC-FENCE",
    "SLOTSMGRT-ASYNC-CANCEL",
    "SLOTSMGRT-ASYNC-STATUS",
    "SLOTSMGRT-EXEC-WRAPPER",
    "SLOTSRESTORE",
    "SLOTSRESTORE-ASYNC",
    "SLOTSRESTORE-ASYNC-AUTH",
    "SLOTSRESTORE-ASYNC-SELECT",
    "SLOTSRESTORE-ASYNC-ACK",
];

type Reply = Pin<Box<dyn Future<Output = Value> + Send>>;

/// A command whose reply is awaited.
struct Pending {
    name: String,
    since: Instant,
    reply: Reply,
}

/// What a client has told of itself.
struct Session {
    proxy: Arc<Inner>,
    authorized: bool,
    database: u32,
    quit: bool,
}

/// Serves a client until it goes or the proxy ends.
pub(crate) async fn serve(proxy: Arc<Inner>, socket: Socket) {
    let depth = usize::try_from(proxy.config.session_max_pipeline)
        .unwrap_or(1)
        .clamp(1, 10_000);
    let (read, write) = tokio::io::split(socket.stream);
    let (pending, replies) = mpsc::channel(depth);
    let authorized = proxy.config.session_auth.is_empty();
    let session = Session {
        proxy: proxy.clone(),
        authorized,
        database: 0,
        quit: false,
    };
    tokio::join!(session.read(read, pending), write_replies(proxy, write, replies));
}

async fn write_replies(proxy: Arc<Inner>, mut write: WriteHalf<Box<dyn Stream>>, mut replies: mpsc::Receiver<Pending>) {
    let mut out = BytesMut::new();
    loop {
        let mut pending = match replies.try_recv() {
            Ok(pending) => pending,
            Err(_) => {
                if write.write_all_buf(&mut out).await.is_err() {
                    return;
                }
                match replies.recv().await {
                    Some(pending) => pending,
                    None => return,
                }
            }
        };
        let value = match (&mut pending.reply).now_or_never() {
            Some(value) => value,
            None => {
                if write.write_all_buf(&mut out).await.is_err() {
                    return;
                }
                pending.reply.await
            }
        };
        proxy
            .stats
            .count(&pending.name, pending.since.elapsed(), outcome(&value));
        value.encode(&mut out);
    }
}

fn outcome(value: &Value) -> Outcome {
    match value {
        Value::Error(text) if text.starts_with("ERR handle") => Outcome::Failed,
        Value::Error(_) => Outcome::Error,
        _ => Outcome::Fine,
    }
}

impl Session {
    /// Reads until the client goes, misbehaves or is silent for too long; ends when replies can't be sent.
    async fn read(mut self, mut read: ReadHalf<Box<dyn Stream>>, pending: mpsc::Sender<Pending>) {
        let mut buffer = BytesMut::new();
        let patience = self.proxy.config.session_recv_timeout.0;
        while !self.quit {
            match resp::decode_command(&mut buffer) {
                Ok(Some(words)) if words.is_empty() => continue,
                Ok(Some(words)) => {
                    if pending.send(self.take(words).await).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(_) => return,
            }
            let got = tokio::select! {
                biased;
                () = pending.closed() => return,
                got = tokio::time::timeout(patience, read.read_buf(&mut buffer)) => got,
            };
            if !matches!(got, Ok(Ok(1..))) {
                return;
            }
        }
    }

    async fn take(&mut self, words: Vec<Bytes>) -> Pending {
        let name = String::from_utf8_lossy(&words[0]).to_uppercase();
        let since = Instant::now();
        let reply = self.dispatch(&name, words).await;
        Pending { name, since, reply }
    }

    async fn dispatch(&mut self, name: &str, words: Vec<Bytes>) -> Reply {
        match name {
            "QUIT" => {
                self.quit = true;
                return now(Value::ok());
            }
            "AUTH" => return now(self.auth(&words)),
            _ if !self.authorized => return now(Value::error("NOAUTH Authentication required")),
            _ if BLACKLIST.contains(&name) => {
                return now(Value::error(format!(
                    "ERR handle request, command '{name}' is not allowed"
                )));
            }
            _ => {}
        }
        match name {
            "SELECT" => now(self.select(&words)),
            "PING" | "INFO" => self.any_backend(name, words).await,
            "SLOTSINFO" if words.len() == 2 => self.backend(&words).await,
            "SLOTSMAPPING" => now(self.mapping(&words)),
            "MGET" => self.each_key(name, words, 1, gather).await,
            "MSET" => self.each_key(name, words, 2, all_ok).await,
            "DEL" | "EXISTS" | "UNLINK" | "TOUCH" => self.each_key(name, words, 1, sum).await,
            _ => {
                let key = key_of(name, &words);
                self.send(name, slot_of(&key), &words).await
            }
        }
    }

    fn auth(&mut self, words: &[Bytes]) -> Value {
        let [_, password] = words else { return arity("auth") };
        let expected = &self.proxy.config.session_auth;
        if expected.is_empty() {
            return Value::error("ERR Client sent AUTH, but no password is set");
        }
        self.authorized = password == expected.as_bytes();
        if self.authorized {
            Value::ok()
        } else {
            Value::error("ERR invalid password")
        }
    }

    fn select(&mut self, words: &[Bytes]) -> Value {
        let [_, index] = words else { return arity("select") };
        let Some(database) = std::str::from_utf8(index)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
        else {
            return Value::error("ERR invalid DB index");
        };
        if !(0..self.proxy.config.backend_number_databases).contains(&database) {
            return Value::error("ERR invalid DB index, out of range");
        }
        self.database = u32::try_from(database).unwrap_or(0);
        Value::ok()
    }

    async fn send(&self, name: &str, slot: usize, words: &[Bytes]) -> Reply {
        let keys = || keys_of(name, words);
        let sent = self
            .proxy
            .router
            .send(slot, self.database, encode(words), is_read(name), keys)
            .await;
        later(sent.map_err(|refusal| Value::Error(refusal.0)))
    }

    /// `PING` and `INFO`: to the named backend, or to that of some slot.
    async fn any_backend(&self, name: &str, words: Vec<Bytes>) -> Reply {
        if words.len() == 2 {
            return self.backend(&words).await;
        }
        // Any slot will do; a stride through the table spreads the load.
        let turn = self.proxy.turn.fetch_add(1, Ordering::Relaxed);
        self.send(name, turn.wrapping_mul(389) % SLOTS, &words).await
    }

    async fn backend(&self, words: &[Bytes]) -> Reply {
        let addr = String::from_utf8_lossy(&words[1]);
        let sent = self
            .proxy
            .router
            .send_to(&addr, self.database, encode(&words[..1]))
            .await;
        later(sent.map_err(|refusal| Value::Error(refusal.0)))
    }

    /// Splits a command of many keys into one per key and joins the replies.
    async fn each_key(&self, name: &str, words: Vec<Bytes>, width: usize, join: fn(Vec<Value>) -> Value) -> Reply {
        let arguments = &words[1..];
        if arguments.is_empty() || !arguments.len().is_multiple_of(width) {
            return now(arity(&name.to_lowercase()));
        }
        let mut replies = Vec::with_capacity(arguments.len() / width);
        for part in arguments.chunks(width) {
            let mut single = vec![words[0].clone()];
            single.extend_from_slice(part);
            replies.push(self.send(name, slot_of(&part[0]), &single).await);
        }
        if replies.len() == 1 {
            return replies.remove(0);
        }
        Box::pin(async move {
            let values = join_all(replies).await;
            match values.iter().find(|value| matches!(value, Value::Error(_))) {
                Some(error) => error.clone(),
                None => join(values),
            }
        })
    }

    /// `[id, backend, migrate_from, [[replica...]...]]` of a slot or of all.
    fn mapping(&self, words: &[Bytes]) -> Value {
        let rows: Vec<Value> = self.proxy.router.slots().iter().map(row).collect();
        let Some(wanted) = words.get(1) else {
            return Value::Array(Some(rows));
        };
        let index = std::str::from_utf8(wanted)
            .ok()
            .and_then(|text| text.parse::<usize>().ok());
        let found = index.and_then(|index| rows.get(index).cloned());
        found.unwrap_or_else(|| Value::error("ERR parse slot number failed"))
    }
}

fn row(slot: &crate::wire::Slot) -> Value {
    let text = |text: &String| Value::bulk(text.clone());
    let bucket = |addrs: &Vec<String>| Value::Array(Some(addrs.iter().map(text).collect()));
    let replicas = slot.replica_groups.iter().map(bucket).collect();
    let (backend, source) = (text(&slot.backend_addr), text(&slot.migrate_from));
    Value::Array(Some(vec![
        Value::bulk(slot.id.to_string()),
        backend,
        source,
        Value::Array(Some(replicas)),
    ]))
}

fn key_of(name: &str, words: &[Bytes]) -> Bytes {
    let position = if matches!(name, "EVAL" | "EVALSHA") { 3 } else { 1 };
    words.get(position).cloned().unwrap_or_default()
}

fn encode(words: &[Bytes]) -> Bytes {
    let mut out = BytesMut::new();
    resp::encode_command(words, &mut out);
    out.freeze()
}

fn arity(name: &str) -> Value {
    Value::error(format!("ERR wrong number of arguments for '{name}' command"))
}

fn now(value: Value) -> Reply {
    Box::pin(std::future::ready(value))
}

fn later(sent: Result<oneshot::Receiver<Value>, Value>) -> Reply {
    match sent {
        Err(error) => now(error),
        Ok(reply) => Box::pin(async move {
            let lost = || Value::error("ERR handle response, backend conn reset");
            reply.await.unwrap_or_else(|_| lost())
        }),
    }
}

fn gather(values: Vec<Value>) -> Value {
    Value::Array(Some(
        values
            .iter()
            .map(|value| value.items().first().cloned().unwrap_or(Value::Bulk(None)))
            .collect(),
    ))
}

fn all_ok(_: Vec<Value>) -> Value {
    Value::ok()
}

fn sum(values: Vec<Value>) -> Value {
    Value::Integer(
        values
            .iter()
            .map(|value| if let Value::Integer(number) = value { *number } else { 0 })
            .sum(),
    )
}
