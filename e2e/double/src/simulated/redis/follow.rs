//! A replica's side of replication: connect, synchronize, apply what comes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::super::disk::{Change, Data, apply};
use super::{Client, Master, Server};
use crate::redis::Connection;
use crate::resp::{self, Value};

/// Between two tries to connect, and between two acknowledgements.
const SECOND: Duration = Duration::from_secs(1);
/// A full synchronization takes at least this, and longer with more keys.
const SYNC: Duration = Duration::from_millis(200);
/// Keys that are copied in a second.
const KEYS_A_SECOND: usize = 100_000;

/// Follows the master of this generation, until there is another one.
pub(super) async fn follow(server: Server, generation: u64) {
    loop {
        let Some(master) = server.present_master(generation) else {
            return;
        };
        let patience = server.repl_timeout();
        // Whatever ends the link, it is tried again.
        let _ = link(&server, generation, &master, patience).await;
        if !server.link_is_lost(generation) {
            return;
        }
        sleep(SECOND).await;
    }
}

async fn link(server: &Server, generation: u64, master: &Master, patience: Duration) -> Result<(), ()> {
    let address = format!("{}:{}", master.host, master.port);
    let password = server.state().conf("masterauth").unwrap_or_default().to_owned();
    let opened = timeout(patience, Connection::open(&address, &password, patience)).await;
    let mut connection = opened.map_err(drop)?.map_err(drop)?;
    let (ip, port, id, offset) = server.introduction();
    let announce = ["REPLCONF", "listening-port", &port, "ip-address", &ip];
    connection.command(&announce).await.map_err(drop)?;
    let psync = ["PSYNC", &id, &(offset + 1).to_string()];
    let said = connection
        .command(&psync)
        .await
        .map_err(drop)?
        .text()
        .unwrap_or_default();
    let words: Vec<&str> = said.split(' ').collect();
    match words.as_slice() {
        ["FULLRESYNC", id, offset] => {
            server.begin_sync(generation);
            let payload = timeout(patience * 4, connection.next())
                .await
                .map_err(drop)?
                .map_err(drop)?;
            sleep(SYNC + SECOND * u32::try_from(payload.items().len() / 3 / KEYS_A_SECOND).unwrap_or(0)).await;
            server.take_over(generation, id, offset.parse().map_err(drop)?, &payload)?;
        }
        ["CONTINUE", id] => server.go_on(generation, id)?,
        _ => return Err(()),
    }
    stream(server, generation, connection, patience).await
}

/// Applies the stream and acknowledges it.
async fn stream(server: &Server, generation: u64, connection: Connection, patience: Duration) -> Result<(), ()> {
    let (mut socket, mut buffer) = connection.into_parts();
    let mut heard = Instant::now();
    let mut acknowledge = Instant::now();
    loop {
        server.apply_stream(generation, &mut buffer)?;
        if acknowledge <= Instant::now() {
            let offset = server.state().offset.to_string();
            let mut out = BytesMut::new();
            resp::encode_command(&["REPLCONF", "ACK", &offset], &mut out);
            socket.write_all(&out).await.map_err(drop)?;
            acknowledge = Instant::now() + SECOND;
        }
        tokio::select! {
            biased;
            read = socket.read_buf(&mut buffer) => {
                if !matches!(read, Ok(1..)) {
                    return Err(());
                }
                heard = Instant::now();
            }
            () = tokio::time::sleep_until(acknowledge) => {
                if heard.elapsed() > patience {
                    return Err(());
                }
            }
        }
    }
}

impl Server {
    fn present_master(&self, generation: u64) -> Option<Master> {
        let state = self.state();
        (state.generation == generation).then(|| state.master.clone()).flatten()
    }

    fn repl_timeout(&self) -> Duration {
        Duration::from_secs(
            u64::try_from(self.state().number("repl-timeout", 60))
                .unwrap_or(60)
                .max(1),
        )
    }

    /// Address, port, history and offset, for the master.
    fn introduction(&self) -> (String, String, String, i64) {
        let state = self.state();
        let ip = state.conf("slave-announce-ip").unwrap_or_default().to_owned();
        let port = state.conf("port").unwrap_or("6379").to_owned();
        (ip, port, state.replication_id.clone(), state.offset)
    }

    /// False when there is another master meanwhile.
    fn link_is_lost(&self, generation: u64) -> bool {
        let mut state = self.state();
        if state.generation != generation {
            return false;
        }
        if state.link_up || state.syncing {
            state.link_down_since = Some(Instant::now());
        }
        (state.link_up, state.syncing) = (false, false);
        true
    }

    fn begin_sync(&self, generation: u64) {
        let mut state = self.state();
        if state.generation == generation {
            state.syncing = true;
        }
    }

    /// A full synchronization: what it had is gone, whatever the master has.
    fn take_over(&self, generation: u64, id: &str, offset: i64, payload: &Value) -> Result<(), ()> {
        let mut data = Data::default();
        for row in payload.items().chunks_exact(3) {
            let [
                Value::Integer(database),
                Value::Bulk(Some(key)),
                Value::Bulk(Some(value)),
            ] = row
            else {
                return Err(());
            };
            let change = (
                u32::try_from(*database).map_err(drop)?,
                key.clone(),
                Some(value.clone()),
            );
            apply(&mut data, change);
        }
        let mut state = self.state();
        if state.generation != generation {
            return Err(());
        }
        if state.conf("appendonly") == Some("yes") {
            self.0.disk.rewrite(data.clone());
        }
        state.data = data;
        (state.replication_id, state.former_id) = (id.to_owned(), None);
        (state.offset, state.syncing, state.link_up) = (offset, false, true);
        state.backlog.clear();
        state.cut(true);
        Ok(())
    }

    /// A partial one: only what is missing comes.
    fn go_on(&self, generation: u64, id: &str) -> Result<(), ()> {
        let mut state = self.state();
        if state.generation != generation {
            return Err(());
        }
        if state.replication_id != id {
            state.begin_history(id.to_owned());
            state.cut(true);
        }
        state.link_up = true;
        Ok(())
    }

    fn apply_stream(&self, generation: u64, buffer: &mut BytesMut) -> Result<(), ()> {
        let mut state = self.state();
        if state.generation != generation {
            return Err(());
        }
        loop {
            let Some(words) = resp::decode_command(buffer).map_err(drop)? else {
                return Ok(());
            };
            // The stream is written in one way only: said again, it has the same length.
            let mut said = BytesMut::new();
            resp::encode_command(&words, &mut said);
            if let Some(change) = change_of(&words) {
                if state.conf("appendonly") == Some("yes") {
                    self.0.disk.append(change.clone());
                }
                apply(&mut state.data, change);
            }
            state.feed(&said.freeze());
        }
    }

    /// A connection became a replica's. What it is sent first; then the stream follows.
    pub(super) fn adopt(&self, id: u64, asked: (&str, i64), announced: (String, String)) -> Vec<Value> {
        let mut state = self.state();
        let begin = state.offset - state.backlog.len() as i64;
        let (history, next) = asked;
        let is_same = history == state.replication_id
            || state
                .former_id
                .as_ref()
                .is_some_and(|(former, until)| history == former && next <= until + 1);
        let replies = if is_same && next > begin && next <= state.offset + 1 {
            let skip = usize::try_from(next - 1 - begin).unwrap_or(0);
            let missed: Vec<u8> = state.backlog.iter().skip(skip).copied().collect();
            let mut all = vec![Value::Simple(format!("CONTINUE {}", state.replication_id))];
            let mut buffer = BytesMut::from(missed.as_slice());
            while let Ok(Some(value)) = resp::decode(&mut buffer) {
                all.push(value);
            }
            all
        } else {
            vec![
                Value::Simple(format!("FULLRESYNC {} {}", state.replication_id, state.offset)),
                snapshot(&state.data),
            ]
        };
        let acknowledged = if replies.len() == 2 { 0 } else { next - 1 };
        if let Some(Client { replica, .. }) = state.clients.get_mut(&id) {
            *replica = Some(super::Replica {
                address: announced.0,
                port: announced.1,
                acknowledged,
                heard: Instant::now(),
            });
        }
        replies
    }
}

fn snapshot(data: &Data) -> Value {
    let rows = data.iter().flat_map(|(database, keys)| {
        let database = i64::from(*database);
        keys.iter().flat_map(move |(key, value)| {
            [
                Value::Integer(database),
                Value::Bulk(Some(key.clone())),
                Value::Bulk(Some(value.clone())),
            ]
        })
    });
    Value::Array(Some(rows.collect()))
}

/// What a command of the stream changes: `SET db key value` or `DEL db key`; anything else is a ping.
fn change_of(words: &[Bytes]) -> Option<Change> {
    let number = |word: &Bytes| std::str::from_utf8(word).ok()?.parse().ok();
    match words {
        [name, database, key, value] if name == "SET" => Some((number(database)?, key.clone(), Some(value.clone()))),
        [name, database, key] if name == "DEL" => Some((number(database)?, key.clone(), None)),
        _ => None,
    }
}
