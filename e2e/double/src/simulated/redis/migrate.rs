//! `MIGRATE`: keys on their way to another server. Everybody waits meanwhile, as in redis.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::process::Then;
use super::core::{Answer, Redis, Server, text, upper};
use crate::host::{self, Socket};
use crate::resp::{self, Value};

/// What was asked for.
struct Order {
    addr: String,
    from: u32,
    to: String,
    patience: Duration,
    copies: bool,
    replaces: bool,
    password: Vec<Bytes>,
    keys: Vec<Bytes>,
}

impl Order {
    fn parse(args: &[Bytes], from: u32) -> Option<Self> {
        let millis: u64 = text(&args[4]).parse().ok()?;
        let mut order = Self {
            addr: format!("{}:{}", text(&args[0]), text(&args[1])),
            from,
            to: text(&args[3]),
            patience: Duration::from_millis(if millis == 0 { 1000 } else { millis }),
            copies: false,
            replaces: false,
            password: Vec::new(),
            keys: vec![args[2].clone()],
        };
        let mut options = args[5..].iter();
        while let Some(option) = options.next() {
            match upper(option).as_str() {
                "COPY" => order.copies = true,
                "REPLACE" => order.replaces = true,
                "AUTH" => order.password = vec![options.next()?.clone()],
                "AUTH2" => order.password = vec![options.next()?.clone(), options.next()?.clone()],
                "KEYS" if args[2].is_empty() => order.keys = options.by_ref().cloned().collect(),
                _ => return None,
            }
        }
        Some(order)
    }

    /// The conversation: how many replies come before those of the keys, and all commands.
    fn commands(&self, packed: &[(Bytes, i64, Bytes)]) -> (usize, BytesMut) {
        let (mut first, mut out) = (1, BytesMut::new());
        if !self.password.is_empty() {
            let words: Vec<Bytes> = std::iter::once("AUTH".into())
                .chain(self.password.iter().cloned())
                .collect();
            resp::encode_command(&words, &mut out);
            first += 1;
        }
        resp::encode_command(&["SELECT", &self.to], &mut out);
        for (key, ttl, dump) in packed {
            let ttl = ttl.to_string();
            let mut words = vec![&b"RESTORE"[..], key, ttl.as_bytes(), dump];
            if self.replaces {
                words.push(b"REPLACE");
            }
            resp::encode_command(&words, &mut out);
        }
        (first, out)
    }
}

pub(super) fn begin(redis: &mut Redis, id: u64, args: &[Bytes], server: &Server) -> Answer {
    let from = redis.clients.get(id).map_or(0, |client| client.state.database);
    let Some(order) = Order::parse(args, from) else {
        return Answer::Reply(Value::error("ERR syntax error"));
    };
    let packed = order.keys.iter().filter_map(|key| {
        let (ttl, dump) = redis.packed(from, key)?;
        Some((key.clone(), ttl, dump))
    });
    let packed: Vec<_> = packed.collect();
    if packed.is_empty() {
        return Answer::Reply(Value::Simple("NOKEY".into()));
    }
    let server = server.clone();
    Answer::Later(Then::HoldReply(Box::pin(async move {
        match send(&server, &order, &packed).await {
            Ok(()) => Value::ok(),
            Err(why) => Value::error(why),
        }
    })))
}

async fn send(server: &Server, order: &Order, packed: &[(Bytes, i64, Bytes)]) -> Result<(), String> {
    let failed = |what: &str| format!("IOERR error or timeout {what} target instance");
    let connected = timeout(order.patience, host::connect(&order.addr)).await;
    let connected = connected.ok().and_then(Result::ok);
    let mut socket = connected.ok_or("IOERR error or timeout connecting to the client")?;
    let (first, out) = order.commands(packed);
    let written = timeout(order.patience, socket.stream.write_all(&out)).await;
    written.ok().and_then(Result::ok).ok_or_else(|| failed("writing to"))?;
    let (mut refused, mut buffer) = (None, BytesMut::new());
    for number in 0..first + packed.len() {
        let reply = hear(&mut socket, &mut buffer, order.patience).await;
        match reply.ok_or_else(|| failed("reading from"))? {
            Value::Error(why) => refused = refused.or(Some(why)),
            _ if number < first || order.copies => {}
            // A key leaves as soon as the target has it, whatever becomes of the others.
            _ => {
                let gone = packed[number - first].0.clone();
                server.core().delete(order.from, &[gone]);
            }
        }
    }
    match refused {
        Some(why) => Err(format!("ERR Target instance replied with error: {why}")),
        None => Ok(()),
    }
}

async fn hear(socket: &mut Socket, buffer: &mut BytesMut, patience: Duration) -> Option<Value> {
    loop {
        if let Some(value) = resp::decode(buffer).ok()? {
            return Some(value);
        }
        let read = timeout(patience, socket.stream.read_buf(buffer)).await;
        if read.ok()?.ok()? == 0 {
            return None;
        }
    }
}
