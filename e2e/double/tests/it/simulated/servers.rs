//! Simulated redis servers and sentinels, among themselves.

use std::sync::Arc;
use std::time::Duration;

use codis_double::host::{Files, Host};
use codis_double::redis::{Connection, RedisError};
use codis_double::resp::Value;
use codis_double::simulated::disk::Disk;
use codis_double::simulated::redis::{self, Server};
use codis_double::simulated::sentinel;
use tokio::time::{Instant, sleep};

use super::machines::{Machine, World};

const A: &str = "10.0.2.1";
const B: &str = "10.0.2.2";
const SENTINELS: [&str; 3] = ["10.0.3.1", "10.0.3.2", "10.0.3.3"];
const CLIENT: &str = "10.0.9.9";

/// A server's machine, its volume, and what runs there.
struct Node {
    machine: Arc<Machine>,
    disk: Disk,
    server: Server,
}

impl Node {
    async fn start(world: &Arc<World>, ip: &'static str, master: Option<&str>) -> Self {
        Self::on(Machine::new(world, ip), Disk::default(), ip, master).await
    }

    async fn on(machine: Arc<Machine>, disk: Disk, ip: &str, master: Option<&str>) -> Self {
        let role = master
            .map(|master| format!("slaveof {master} 6379\n"))
            .unwrap_or_default();
        let conf = format!(
            "port 6379\nappendonly yes\nrepl-ping-slave-period 5\nrepl-timeout 12\nslave-announce-ip {ip}\n{role}"
        );
        disk.write("/data/redis.conf", conf.as_bytes()).unwrap();
        let volume = disk.clone();
        let server = machine
            .run(async move { redis::start(volume, "/data/redis.conf") })
            .await;
        Self { machine, disk, server }
    }

    /// SIGKILL; what is started next finds the volume as it is.
    async fn restart(&mut self, ip: &'static str, master: Option<&str>) {
        self.machine.tasks().kill();
        sleep(Duration::from_millis(100)).await;
        *self = Self::on(self.machine.again(), self.disk.clone(), ip, master).await;
    }
}

async fn say(world: &Arc<World>, address: &str, words: &[&str]) -> Result<Value, RedisError> {
    let address = address.to_owned();
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let client = Machine::new(world, CLIENT);
    let asked = client.run(async move {
        let mut connection = Connection::open(&address, "", Duration::from_secs(1)).await?;
        connection.command(&words).await
    });
    asked.await
}

async fn set(world: &Arc<World>, ip: &str, key: &str) -> Result<Value, RedisError> {
    say(world, &format!("{ip}:6379"), &["SET", key, key]).await
}

/// Waits until it is so, in virtual time.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    // Two of three failovers that end in a split vote.
    let end = Instant::now() + Duration::from_secs(150);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_has_what_its_master_acknowledged() {
    let world = World::new();
    let a = Node::start(&world, A, None).await;
    set(&world, A, "before").await.unwrap();
    let b = Node::start(&world, B, Some(A)).await;
    until("a copy", || b.server.get(b"before").is_some()).await;
    set(&world, A, "after").await.unwrap();
    until("the stream", || b.server.get(b"after").is_some()).await;
    assert_eq!(
        set(&world, B, "x").await.unwrap_err().0,
        "READONLY You can't write against a read only replica."
    );
    assert_eq!((a.server.is_master(), b.server.is_master()), (true, false));
}

#[tokio::test(start_paused = true)]
async fn a_killed_server_has_its_writes_and_an_emptied_master_empties_its_replica() {
    let world = World::new();
    let mut a = Node::start(&world, A, None).await;
    let b = Node::start(&world, B, Some(A)).await;
    set(&world, A, "k").await.unwrap();
    until("a copy", || b.server.get(b"k").is_some()).await;
    a.restart(A, None).await;
    assert!(a.server.get(b"k").is_some(), "the append-only file has it");
    a.disk.wipe();
    a.restart(A, None).await;
    until("the replica follows its master into the void", || {
        b.server.get(b"k").is_none()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn lost_power_takes_the_last_second_and_a_slow_disk_takes_more() {
    let world = World::new();
    let mut a = Node::start(&world, A, None).await;
    set(&world, A, "old").await.unwrap();
    sleep(Duration::from_secs(2)).await;
    set(&world, A, "new").await.unwrap();
    a.machine.tasks().kill();
    a.disk.lose_power();
    a.restart(A, None).await;
    assert_eq!(
        (a.server.get(b"old").is_some(), a.server.get(b"new").is_some()),
        (true, false)
    );
    a.disk.set_slow(Some(Duration::from_secs(5)));
    set(&world, A, "postponed").await.unwrap();
    a.restart(A, None).await;
    assert!(a.server.get(b"postponed").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_fenced_master_without_a_replica_takes_no_write() {
    let world = World::new();
    let _a = Node::start(&world, A, None).await;
    let fence = ["CONFIG", "SET", "min-slaves-to-write", "1"];
    say(&world, &format!("{A}:6379"), &fence).await.unwrap();
    let refused = set(&world, A, "k").await.unwrap_err();
    assert_eq!(refused.0, "NOREPLICAS Not enough good replicas to write.");
    let b = Node::start(&world, B, Some(A)).await;
    until("a link", || !b.server.summary().contains("down")).await;
    set(&world, A, "k").await.unwrap();
}

/// Three sentinels that watch A for group 1 of product demo.
async fn sentinels(world: &Arc<World>) -> Vec<sentinel::Sentinel> {
    let mut all = Vec::new();
    for (number, ip) in SENTINELS.iter().enumerate() {
        let disk = Disk::default();
        let conf = format!(
            "port 26379\nsentinel myid {}\nsentinel announce-ip {ip}\n",
            (number + 1).to_string().repeat(40)
        );
        disk.write("/data/sentinel.conf", conf.as_bytes()).unwrap();
        let machine = Machine::new(world, ip);
        all.push(
            machine
                .run(async move { sentinel::start(disk, "/data/sentinel.conf") })
                .await,
        );
        let at = format!("{ip}:26379");
        let monitor = ["SENTINEL", "monitor", "demo-1", A, "6379", "2"];
        say(world, &at, &monitor).await.unwrap();
        let settings = ["down-after-milliseconds", "5000", "failover-timeout", "30000"];
        let set = [&["SENTINEL", "set", "demo-1"][..], &settings].concat();
        say(world, &at, &set).await.unwrap();
    }
    all
}

fn all_say(sentinels: &[sentinel::Sentinel], text: &str) -> bool {
    sentinels.iter().all(|sentinel| sentinel.summary().contains(text))
}

#[tokio::test(start_paused = true)]
async fn sentinels_replace_a_dead_master_and_turn_it_into_a_replica_when_it_is_back() {
    let world = World::new();
    let mut a = Node::start(&world, A, None).await;
    let b = Node::start(&world, B, Some(A)).await;
    let watch = sentinels(&world).await;
    until("they know all", || all_say(&watch, "=10.0.2.1:6379+1r2s")).await;
    set(&world, A, "k").await.unwrap();
    let died = Instant::now();
    a.machine.tasks().kill();
    until("a new master", || b.server.is_master()).await;
    let took = died.elapsed().as_secs_f64();
    assert!((5.0..9.0).contains(&took), "{took} s");
    until("all of them know", || all_say(&watch, "=10.0.2.2:6379")).await;
    a.restart(A, None).await;
    until("the old one follows", || !a.server.is_master()).await;
    until("the new one is known as master by all", || {
        all_say(&watch, "=10.0.2.2:6379+1r2s e1")
    })
    .await;
    assert!(b.server.get(b"k").is_some());
}

#[tokio::test(start_paused = true)]
async fn sentinels_hear_of_a_failover_when_the_promoted_one_was_just_restarted() {
    let world = World::new();
    let a = Node::start(&world, A, None).await;
    let mut b = Node::start(&world, B, Some(A)).await;
    let watch = sentinels(&world).await;
    until("they know all", || all_say(&watch, "=10.0.2.1:6379+1r2s")).await;
    b.restart(B, Some(A)).await;
    sleep(Duration::from_millis(500)).await;
    a.machine.tasks().kill();
    until("all of them know the new master", || all_say(&watch, "=10.0.2.2:6379")).await;
}
