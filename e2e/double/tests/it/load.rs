//! Clients that write and read all the while, and what must be true of their keys in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use codis_double::redis::Connection;
use codis_double::resp::slot_of;
use tokio::task::JoinSet;

use crate::support::{AUTH, World, say};

/// Counters that all clients increment.
const COUNTERS: usize = 60;
/// Keys that each client has for itself.
const OWN: usize = 40;

/// What one client did.
#[derive(Default)]
struct Done {
    /// Acknowledged increments by counter.
    counted: BTreeMap<String, u64>,
    /// What its own keys hold.
    written: BTreeMap<String, String>,
    complaints: Vec<String>,
    rounds: u64,
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Done>,
}

impl Load {
    /// Two clients, each with a connection to each of two proxies.
    pub async fn begin(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..2 {
            let lines = [world.client(0).await, world.client(1).await];
            let stop = stop.clone();
            clients.spawn(async move { work(number, lines, &stop).await });
        }
        Self { stop, clients }
    }

    /// Ends the work; no client may have seen an error or a value that it did not expect. Tells what the keys hold.
    pub async fn end(mut self) -> BTreeMap<String, String> {
        self.stop.store(true, Ordering::Release);
        let (mut counted, mut expected) = (BTreeMap::<String, u64>::new(), BTreeMap::new());
        let mut rounds = 0;
        while let Some(done) = self.clients.join_next().await {
            let done = done.unwrap();
            assert_eq!(done.complaints, Vec::<String>::new());
            for (key, count) in done.counted {
                *counted.entry(key).or_default() += count;
            }
            expected.extend(done.written);
            rounds += done.rounds;
        }
        eprintln!("the clients worked {rounds} rounds");
        assert!(rounds > 0);
        expected.extend(counted.into_iter().map(|(key, count)| (key, count.to_string())));
        expected
    }
}

async fn work(number: usize, mut lines: [Connection; 2], stop: &AtomicBool) -> Done {
    let mut done = Done::default();
    while !stop.load(Ordering::Acquire) && done.complaints.is_empty() {
        let round = done.rounds as usize;
        let (writer, reader) = if round.is_multiple_of(2) { (0, 1) } else { (1, 0) };
        count(&mut done, &mut lines[writer], round * 7 + number).await;
        own(&mut done, &mut lines, (writer, reader), number, round).await;
        done.rounds += 1;
    }
    done
}

async fn count(done: &mut Done, line: &mut Connection, turn: usize) {
    let key = format!("counter:{}", turn % COUNTERS);
    let script = format!("EVAL return(redis.call('INCR',KEYS[1])) 1 {key}");
    let command = if turn.is_multiple_of(3) {
        script
    } else {
        format!("INCR {key}")
    };
    match say(line, &command).await.parse::<u64>() {
        Ok(_) => *done.counted.entry(key).or_default() += 1,
        Err(_) => done.complaints.push(format!("{command} failed")),
    }
}

/// Writes keys through one proxy and reads them back through the other; deletes one and looks for it.
async fn own(
    done: &mut Done,
    lines: &mut [Connection; 2],
    (writer, reader): (usize, usize),
    number: usize,
    round: usize,
) {
    let (a, b) = (
        format!("own:{number}:{}", round % OWN),
        format!("more:{number}:{}", round % OWN),
    );
    let gone = format!("gone:{number}:{}", round % OWN);
    let mut expect = Vec::new();
    if let (Some(old_a), Some(old_b)) = (done.written.get(&a), done.written.get(&b)) {
        expect.push((reader, format!("MGET {a} {b}"), format!("{old_a} {old_b}")));
    }
    let value = format!("v{round}");
    expect.extend([
        (writer, format!("MSET {a} {value} {b} {value}"), "OK".into()),
        (reader, format!("GET {a}"), value.clone()),
        (reader, format!("SET {gone} x"), "OK".into()),
        (writer, format!("DEL {gone}"), "1".into()),
        (reader, format!("EXISTS {gone}"), "0".into()),
        (reader, format!("SADD {{own:{number}:{round}}}:s m"), "1".into()),
        (
            writer,
            format!("SMOVE {{own:{number}:{round}}}:s {{own:{number}:{round}}}:t m"),
            "1".into(),
        ),
        (reader, format!("DEL {{own:{number}:{round}}}:t"), "1".into()),
    ]);
    for (line, command, answer) in expect {
        let got = say(&mut lines[line], &command).await;
        if got != answer {
            done.complaints.push(format!("{command} said {got}, not {answer}"));
        }
    }
    done.written.extend([(a, value.clone()), (b, value)]);
}

/// Fills in keys of every type, some with a time to live, some in another database; `count` of them.
pub async fn seed(world: &World, count: usize) {
    let mut client = world.client(0).await;
    for number in 0..count {
        if number == count / 2 {
            assert_eq!(say(&mut client, "SELECT 3").await, "OK");
        }
        let (write, _, _) = seeded(number);
        let answer = say(&mut client, &write).await;
        assert!(matches!(answer.as_str(), "OK" | "1" | "2"), "{write}: {answer}");
    }
}

/// How a seeded key is written, how it is read, and what it then says.
fn seeded(number: usize) -> (String, String, String) {
    let key = format!("seed:{number}");
    let (write, read, says) = match number % 6 {
        0 => ("SET {key} v", "GET {key}", "v"),
        1 => ("SET {key} v EX 10000", "GETRANGE {key} 0 -1", "v"),
        2 => ("HSET {key} f v", "HGET {key} f", "v"),
        3 => ("RPUSH {key} a b", "LRANGE {key} 0 -1", "a b"),
        4 => ("SADD {key} m", "SMEMBERS {key}", "m"),
        _ => ("ZADD {key} 1 m", "ZRANGE {key} 0 -1", "m"),
    };
    let named = |text: &str| text.replace("{key}", &key);
    (named(write), named(read), says.into())
}

/// Every seeded key is what it was, with its time to live, read through both proxies.
pub async fn seeds_are_whole(world: &World, count: usize) {
    let mut clients = [world.client(0).await, world.client(1).await];
    for number in 0..count {
        if number == count / 2 {
            for client in &mut clients {
                assert_eq!(say(client, "SELECT 3").await, "OK");
            }
        }
        let (_, read, says) = seeded(number);
        let client = &mut clients[number % 2];
        assert_eq!(say(client, &read).await, says, "{read}");
        let left: i64 = say(client, &format!("TTL seed:{number}")).await.parse().unwrap();
        assert_eq!(left > 5000, number % 6 == 1, "seed:{number} lives {left} seconds");
    }
}

/// Every key holds what its writers left.
pub async fn all_hold(world: &World, expected: &BTreeMap<String, String>) {
    let mut client = world.client(1).await;
    for (key, value) in expected {
        assert_eq!(&say(&mut client, &format!("GET {key}")).await, value, "{key}");
    }
}

/// The keys of a server by database.
pub async fn keys_at(addr: &str) -> BTreeSet<(u32, String)> {
    let mut server = Connection::open(addr, AUTH, Duration::from_secs(5)).await.unwrap();
    let mut found = BTreeSet::new();
    for database in [0, 3] {
        say(&mut server, &format!("SELECT {database}")).await;
        let keys = server.command(&["KEYS", "*"]).await.unwrap();
        found.extend(keys.items().iter().map(|key| (database, key.text().unwrap())));
    }
    found
}

/// Every key is at the master of its slot's group and nowhere else; tells how many keys each server has.
pub async fn keys_are_where_they_belong(world: &World) -> Vec<usize> {
    let stats = world.stats().await;
    let groups = stats["group"]["models"].as_array().unwrap().clone();
    let master = |gid: &serde_json::Value| {
        let group = groups.iter().find(|group| &group["id"] == gid).unwrap();
        group["servers"][0]["server"].as_str().unwrap().to_string()
    };
    let homes: Vec<_> = stats["slots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| master(&slot["group_id"]))
        .collect();
    let mut counts = Vec::new();
    for server in &world.servers {
        let keys = keys_at(&server.addr).await;
        for (database, key) in &keys {
            let home = &homes[slot_of(key.as_bytes())];
            assert_eq!(
                home, &server.addr,
                "{key} of database {database} is at the wrong server"
            );
        }
        counts.push(keys.len());
    }
    counts
}
