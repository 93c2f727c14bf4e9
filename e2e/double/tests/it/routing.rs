//! What clients of a proxy see.

use std::time::Duration;

use codis_double::identity::xauth;
use codis_double::redis::Connection;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::support::{AUTH, PRODUCT, SESSION, World, proxy_options, redis_is_here, say, until};

impl World {
    pub async fn put_proxy(&self, index: usize, verb: &str, body: &str) -> (u16, Value) {
        let proxy = &self.proxies[index];
        let xauth = xauth(&[PRODUCT, AUTH, &proxy.model.token]);
        let path = format!("/api/proxy/{verb}/{xauth}");
        self.send("PUT", &proxy.admin_addr.to_string(), &path, body.to_string())
            .await
    }

    pub async fn proxy_slots(&self, index: usize) -> Value {
        let proxy = &self.proxies[index];
        let xauth = xauth(&[PRODUCT, AUTH, &proxy.model.token]);
        let (status, slots) = self
            .send(
                "GET",
                &proxy.admin_addr.to_string(),
                &format!("/api/proxy/slots/{xauth}"),
                String::new(),
            )
            .await;
        assert_eq!(status, 200, "{slots}");
        slots
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_reach_the_group_of_their_slot() {
    if !redis_is_here() {
        return;
    }
    let world = World::bootstrapped().await;
    let (mut one, mut other) = (world.client(0).await, world.client(1).await);
    // `foo` is in slot 289, `a` in slot 579.
    assert_eq!(say(&mut one, "MSET foo 1 a 2 {a}b 3").await, "OK");
    assert_eq!(say(&mut other, "MGET a nothing foo {a}b").await, "2 (nil) 1 3");
    for (index, keys) in [(0, "keys=1,"), (2, "keys=2,")] {
        assert!(
            world.servers[index].info("db0").await.starts_with(keys),
            "server {index}"
        );
    }
    assert_eq!(say(&mut one, "EXISTS foo a nothing").await, "2");
    assert_eq!(say(&mut one, "DEL foo a nothing").await, "2");
    assert_eq!(say(&mut one, "SELECT 3").await, "OK");
    assert_eq!(say(&mut one, "GET {a}b").await, "(nil)", "another database");
    assert_eq!(say(&mut one, "SELECT 16").await, "ERR invalid DB index, out of range");
    assert_eq!(say(&mut one, "PING").await, "PONG");
    assert_eq!(say(&mut one, &format!("PING {}", world.server(0))).await, "PONG");
    assert_eq!(
        say(&mut one, "PING 127.0.0.1:1").await,
        "ERR backend server '127.0.0.1:1' not found"
    );
    assert_eq!(
        say(&mut one, "KEYS *").await,
        "ERR handle request, command 'KEYS' is not allowed"
    );
    assert_eq!(
        say(&mut one, "INCR a b").await,
        "ERR wrong number of arguments for 'incr' command"
    );
    assert!(
        say(&mut one, "SLOTSMAPPING 579")
            .await
            .starts_with(&format!("579 {}", world.server(2)))
    );
    let stats = world.proxy_stats(0).await;
    assert!(
        stats["ops"]["total"].as_i64() > Some(9) && stats["sessions"]["alive"] == 1,
        "{stats}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_must_authenticate() {
    let world = World::fresh().await;
    let addr = world.proxies[0].proxy_addr.to_string();
    let mut client = Connection::open(&addr, "", Duration::from_secs(5)).await.unwrap();
    assert_eq!(say(&mut client, "PING").await, "NOAUTH Authentication required");
    assert_eq!(say(&mut client, "AUTH wrong").await, "ERR invalid password");
    assert_eq!(say(&mut client, &format!("AUTH {SESSION}")).await, "OK");
    let offline = "ERR handle request, slot is not ready, may be offline";
    assert_eq!(say(&mut client, "GET a").await, offline);
    assert_eq!(say(&mut client, "PING").await, offline);

    let mut options = proxy_options();
    options.config.session_auth = String::new();
    options.slots = Some(Vec::new());
    let open = codis_double::proxy::start(options).await.unwrap();
    let mut client = Connection::open(&open.proxy_addr.to_string(), "", Duration::from_secs(5))
        .await
        .unwrap();
    until("it is online", || async {
        Connection::open(&open.proxy_addr.to_string(), "x", Duration::from_secs(5))
            .await
            .err()
            .map(|e| e.0)
            == Some("ERR Client sent AUTH, but no password is set".into())
    })
    .await;
    let told = say(&mut client, "GET a").await;
    assert!(told == offline || told == "ERR router is not online", "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_waits_turns_clients_away() {
    let waiting = codis_double::proxy::start(proxy_options()).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(waiting.proxy_addr).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "-ERR router is not online\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_clients_than_allowed_are_turned_away() {
    let mut options = proxy_options();
    options.config.proxy_max_clients = 1;
    options.slots = Some(Vec::new());
    let proxy = codis_double::proxy::start(options).await.unwrap();
    let addr = proxy.proxy_addr.to_string();
    let first = loop {
        match Connection::open(&addr, SESSION, Duration::from_secs(5)).await {
            Ok(client) => break client,
            Err(error) => assert_eq!(error.0, "ERR router is not online"),
        }
    };
    let second = Connection::open(&addr, SESSION, Duration::from_secs(5))
        .await
        .err()
        .map(|error| error.0);
    assert_eq!(second, Some("ERR max number of clients reached".into()));
    drop(first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_a_locked_slot_wait_until_it_is_unlocked() {
    if !redis_is_here() {
        return;
    }
    let world = World::bootstrapped().await;
    let slot = json!({"id": 579, "backend_addr": world.server(2), "backend_addr_group_id": 2, "forward_method": 1});
    let mut locked = slot.clone();
    locked["locked"] = json!(true);
    assert_eq!(
        world.put_proxy(0, "fillslots", &json!([locked]).to_string()).await.0,
        200
    );
    let (mut waiting, mut other) = (world.client(0).await, world.client(0).await);
    let write = tokio::spawn(async move { say(&mut waiting, "SET a 1").await });
    assert_eq!(say(&mut other, "SET foo 1").await, "OK", "other slots go on");
    // Locked again while locked: the first lock must not stand in the way.
    assert_eq!(
        world.put_proxy(0, "fillslots", &json!([locked]).to_string()).await.0,
        200
    );
    assert!(!write.is_finished());
    assert_eq!(world.put_proxy(0, "fillslots", &json!([slot]).to_string()).await.0, 200);
    assert_eq!(write.await.unwrap(), "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_tells_all_that_it_was_told_of_a_slot() {
    let world = World::fresh().await;
    let whole = json!({"id": 7, "locked": true, "backend_addr": "127.0.0.1:1", "backend_addr_group_id": 2,
        "migrate_from": "127.0.0.1:2", "migrate_from_group_id": 1, "forward_method": 1,
        "replica_groups": [["127.0.0.1:3"], ["127.0.0.1:4", "127.0.0.1:5"]]});
    assert_eq!(
        world.put_proxy(0, "fillslots", &json!([whole]).to_string()).await.0,
        200
    );
    let told = world.proxy_slots(0).await;
    assert_eq!(told.as_array().unwrap().len(), 1024);
    assert_eq!(told[7], whole);
    assert_eq!(told[8], json!({"id": 8, "forward_method": 1}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_backend_makes_errors_and_a_returned_one_serves_at_once() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::bootstrapped().await;
    let mut client = world.client(0).await;
    assert_eq!(say(&mut client, "SET a 1").await, "OK");
    world.servers[2].kill();
    until("the loss is noticed", || async {
        say(&mut world.client(0).await, "GET a")
            .await
            .starts_with("ERR handle response, backend conn")
    })
    .await;
    assert_eq!(say(&mut client, "SET foo 1").await, "OK", "the other group serves");
    world.servers[2].restart().await;
    let begun = std::time::Instant::now();
    until("it serves again", || async {
        say(&mut world.client(0).await, "SET a 2").await == "OK"
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_backend_fails_its_commands_after_the_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = proxy_options();
    options.config.product_auth = String::new();
    options.config.backend_recv_timeout = codis_double::scalar::Span(Duration::from_millis(200));
    let backend_addr = silent.local_addr().unwrap().to_string();
    let slot = codis_double::wire::Slot {
        id: 579,
        backend_addr,
        backend_addr_group_id: 1,
        ..Default::default()
    };
    options.slots = Some(vec![slot]);
    let proxy = codis_double::proxy::start(options).await.unwrap();
    let addr = proxy.proxy_addr.to_string();
    until("it is online", || async {
        Connection::open(&addr, SESSION, Duration::from_secs(5)).await.is_ok()
    })
    .await;
    let mut client = Connection::open(&addr, SESSION, Duration::from_secs(5)).await.unwrap();
    assert_eq!(
        say(&mut client, "GET a").await,
        "ERR handle response, backend conn failure, i/o timeout"
    );
}
