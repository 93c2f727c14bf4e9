//! Reads that go to replicas, and those that do not.

use codis_double::proxy;
use codis_double::redis::{Connection, RedisError};
use codis_double::resp::slot_of;
use codis_double::wire::Slot;
use std::time::Duration;

use crate::support::{AUTH, SESSION, Server, World, X, proxy_options, redis_is_here, say, until};

async fn client_of(proxy: &proxy::Handle) -> Result<Connection, RedisError> {
    let addr = proxy.proxy_addr.to_string();
    Connection::open(&addr, SESSION, Duration::from_secs(10)).await
}

impl Server {
    async fn say(&self, line: &str) -> String {
        let mut connection = Connection::open(&self.addr, AUTH, Duration::from_secs(5))
            .await
            .unwrap();
        say(&mut connection, line).await
    }

    /// A server of its own that answers `GET foo` with a name.
    async fn named(name: &str) -> Self {
        let server = Self::redis(AUTH).await;
        assert_eq!(server.say(&format!("SET foo {name}")).await, "OK");
        server
    }
}

/// A proxy that knows only the slot of `foo`.
async fn proxy_of(slot: Slot, primary_only: bool) -> (proxy::Handle, Connection) {
    let mut options = proxy_options();
    options.config.backend_primary_only = primary_only;
    options.slots = Some(vec![Slot {
        id: slot_of(b"foo") as i64,
        ..slot
    }]);
    let proxy = proxy::start(options).await.unwrap();
    until("the proxy is online", || async { client_of(&proxy).await.is_ok() }).await;
    let client = client_of(&proxy).await.unwrap();
    (proxy, client)
}

/// Reads until the answer is this.
async fn read_becomes(client: &mut Connection, name: &str) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while say(client, "GET foo").await != name {
        assert!(std::time::Instant::now() < end, "waited in vain until {name} is read");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nearest_replicas_take_turns_and_the_master_comes_last() {
    if !redis_is_here() {
        return;
    }
    let master = Server::named("master").await;
    let (mut one, mut two, mut far) = (
        Server::named("one").await,
        Server::named("two").await,
        Server::named("far").await,
    );
    let slot = Slot {
        backend_addr: master.addr.clone(),
        replica_groups: vec![vec![one.addr.clone(), two.addr.clone()], vec![far.addr.clone()]],
        ..Default::default()
    };
    let (_proxy, mut client) = proxy_of(slot, false).await;
    read_becomes(&mut client, "one").await;
    read_becomes(&mut client, "two").await;
    let mut read = Vec::new();
    for _ in 0..10 {
        read.push(say(&mut client, "GET foo").await);
    }
    assert!(read.windows(2).all(|pair| pair[0] != pair[1]), "in turns: {read:?}");
    assert!(read.iter().all(|name| name == "one" || name == "two"), "{read:?}");

    assert_eq!(say(&mut client, "SET {foo}bar 1").await, "OK");
    assert_eq!(master.say("GET {foo}bar").await, "1", "writes go to the master");
    assert_eq!(
        say(&mut client, "SORT {foo}list STORE {foo}sorted").await,
        "0",
        "and what may write"
    );

    one.kill();
    read_becomes(&mut client, "two").await;
    for _ in 0..10 {
        assert_eq!(say(&mut client, "GET foo").await, "two");
    }
    two.kill();
    read_becomes(&mut client, "far").await;
    far.kill();
    read_becomes(&mut client, "master").await;
    two.restart().await;
    assert_eq!(two.say("SET foo again").await, "OK");
    read_becomes(&mut client, "again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_its_master_is_left_alone_until_it_is_in_step() {
    if !redis_is_here() {
        return;
    }
    let (master, replica) = (Server::named("master").await, Server::named("replica").await);
    let slot = Slot {
        backend_addr: master.addr.clone(),
        replica_groups: vec![vec![replica.addr.clone()]],
        ..Default::default()
    };
    let (_proxy, mut client) = proxy_of(slot, false).await;
    read_becomes(&mut client, "replica").await;
    replica.say("CONFIG SET replica-serve-stale-data no").await;
    assert_eq!(replica.say("REPLICAOF 127.0.0.1 1").await, "OK");
    read_becomes(&mut client, "master").await;
    assert_eq!(replica.say("REPLICAOF NO ONE").await, "OK");
    read_becomes(&mut client, "replica").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_and_a_proxy_of_masters_read_from_no_replica() {
    if !redis_is_here() {
        return;
    }
    let (master, replica) = (Server::named("master").await, Server::named("replica").await);
    let source = Server::redis(AUTH).await;
    let slot = Slot {
        backend_addr: master.addr.clone(),
        replica_groups: vec![vec![replica.addr.clone()]],
        ..Default::default()
    };
    let moving = Slot {
        migrate_from: source.addr.clone(),
        ..slot.clone()
    };
    let (_moving, mut reader_of_moving) = proxy_of(moving, false).await;
    let (_primary, mut reader_of_primary) = proxy_of(slot.clone(), true).await;
    let (_other, mut reader) = proxy_of(slot, false).await;
    read_becomes(&mut reader, "replica").await;
    for _ in 0..20 {
        assert_eq!(say(&mut reader_of_moving, "GET foo").await, "master");
        assert_eq!(say(&mut reader_of_primary, "GET foo").await, "master");
        assert_eq!(say(&mut reader, "GET foo").await, "replica");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_serves_reads_from_its_replica_once_it_is_told_to() {
    if !redis_is_here() {
        return;
    }
    let world = World::bootstrapped().await;
    let mut client = world.client(0).await;
    assert_eq!(say(&mut client, "SET foo master").await, "OK");
    let replica = &world.servers[1];
    until("the replica has it", || async {
        replica.say("GET foo").await == "master"
    })
    .await;
    replica.say("CONFIG SET replica-read-only no").await;
    assert_eq!(replica.say("SET foo replica").await, "OK");
    assert_eq!(say(&mut client, "GET foo").await, "master");

    let switch = |value: i32| format!("group/replica-groups/{X}/1/{}/{value}", replica.addr);
    world.ok(&switch(1)).await;
    assert_eq!(world.groups().await[0]["out_of_sync"], true);
    world.ok(&format!("group/resync/{X}/1")).await;
    read_becomes(&mut client, "replica").await;
    assert!(
        say(&mut client, "SLOTSMAPPING 289").await.contains(world.server(0)),
        "its backend is still the master"
    );

    world.ok(&switch(0)).await;
    world.ok(&format!("group/resync/{X}/1")).await;
    assert_eq!(say(&mut client, "GET foo").await, "master");
}
