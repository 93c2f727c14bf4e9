//! Slots locked and unlocked at proxies of the stand-in, over real redis-servers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use codis_double::{config::ProxyConfig, proxy, redis::Connection, wire::Slot};
use codis_operator::{
    codis::{Error, names, xauth},
    domain::{Address, GroupId, Route, SlotId},
    telemetry::Effects,
};
use tokio::net::TcpListener;

use crate::{PASSWORD, Process, door, door_with, eventually, group, redis_is_here};

/// The slot of the key `a`.
const A: u16 = 579;

/// That of `foo`.
const FOO: u16 = 289;

/// A proxy of the stand-in that is online, and what the door wants to know of it.
struct Proxy {
    handle: proxy::Handle,
    known: (Address, String),
}

fn slot(id: u16, group: i64, server: &Address) -> Slot {
    Slot {
        id: id.into(),
        backend_addr: server.to_string(),
        backend_addr_group_id: group,
        forward_method: 1,
        ..Slot::default()
    }
}

impl Proxy {
    async fn online(slots: Vec<Slot>) -> Self {
        let config = ProxyConfig {
            admin_addr: "127.0.0.1:0".to_owned(),
            proxy_addr: "127.0.0.1:0".to_owned(),
            product_name: "demo".to_owned(),
            product_auth: PASSWORD.to_owned(),
            ..ProxyConfig::default()
        };
        let options = proxy::Options {
            config,
            slots: Some(slots),
            ..proxy::Options::default()
        };
        let handle = proxy::start(options).await.unwrap();
        let admin = Address::new("127.0.0.1", handle.admin_addr.port());
        let known = (admin, handle.model.token.clone());
        let proxy = Self { handle, known };
        eventually("the proxy is online", async || proxy.try_say("SELECT 0").await.is_ok()).await;
        proxy
    }

    /// What it answers to a client.
    async fn try_say(&self, line: &str) -> Result<String, String> {
        say(&self.handle.proxy_addr.to_string(), line).await
    }

    async fn locked(&self) -> Vec<(u16, Option<u16>)> {
        let (admin, token) = &self.known;
        let locked = door().locked_slots(admin, token).await.unwrap();
        let plain = |(slot, group): (SlotId, Option<GroupId>)| (slot.get(), group.map(GroupId::get));
        locked.into_iter().map(plain).collect()
    }

    /// As a dashboard or a sentinel's switch does it.
    async fn fill(&self, slots: &[Slot]) {
        let (admin, token) = &self.known;
        let path = format!(
            "http://{admin}/api/proxy/fillslots/{}",
            xauth(&["demo", PASSWORD, token])
        );
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.put(path).json(slots).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}

async fn say(proxy: &str, line: &str) -> Result<String, String> {
    let mut client = Connection::open(proxy, "", Duration::from_secs(20))
        .await
        .map_err(|error| error.to_string())?;
    let words: Vec<_> = line.split(' ').collect();
    match client.command(&words).await {
        Ok(reply) => Ok(reply.text().unwrap_or_default()),
        Err(error) => Err(error.to_string()),
    }
}

/// A client that writes, for as long as that takes.
fn writer(proxy: &Proxy, line: &'static str) -> tokio::task::JoinHandle<Result<String, String>> {
    let address = proxy.handle.proxy_addr.to_string();
    tokio::spawn(async move { say(&address, line).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_makes_a_groups_writers_wait_without_an_error_until_it_is_unlocked() {
    if !redis_is_here() {
        return;
    }
    let server = Process::server("").await;
    let slots = vec![slot(A, 1, &server.address), slot(FOO, 2, &server.address)];
    let (one, other) = (Proxy::online(slots.clone()).await, Proxy::online(slots).await);
    let proxies = [one.known.clone(), other.known.clone()];
    let counted: Arc<Mutex<BTreeMap<&str, u32>>> = Arc::default();
    let counter = counted.clone();
    let door = door_with(
        Some(PASSWORD),
        Effects::new(move |_, effect| {
            *counter.lock().unwrap().entry(effect).or_default() += 1;
            Ok(())
        }),
    );

    door.lock_group(&proxies, group(1)).await.unwrap();
    assert_eq!(one.locked().await, [(A, Some(1))]);
    assert_eq!(other.locked().await, [(A, Some(1))]);
    let writers = [writer(&one, "SET a 1"), writer(&other, "SET a 1")];
    for proxy in [&one, &other] {
        assert_eq!(
            proxy.try_say("SET foo 1").await.unwrap(),
            "OK",
            "the other group goes on"
        );
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(writers.iter().all(|writer| !writer.is_finished()));
    // What is locked isn't locked again.
    door.lock_group(&proxies, group(1)).await.unwrap();

    door.unlock_group(&proxies, group(1)).await.unwrap();
    for writer in writers {
        assert_eq!(writer.await.unwrap().unwrap(), "OK");
    }
    assert!(one.locked().await.is_empty() && other.locked().await.is_empty());
    door.unlock_group(&proxies, group(1)).await.unwrap();
    let expected = BTreeMap::from([(names::LOCK_SLOTS, 2), (names::UNLOCK_SLOTS, 2)]);
    assert_eq!(*counted.lock().unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_doesnt_answer_fails_a_lock_in_time_and_the_others_can_be_unlocked() {
    let one = Proxy::online(vec![slot(A, 1, &crate::nobody())]).await;
    // The kernel takes the connection, and nobody reads it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
    let proxies = [(silent.clone(), "0".repeat(32)), one.known.clone()];

    let began = Instant::now();
    let error = door().lock_group(&proxies, group(1)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Timeout { peer, .. } if *peer == silent),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(one.locked().await, [(A, Some(1))]);

    door().unlock_group(&proxies, group(1)).await.unwrap_err();
    assert!(one.locked().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlock_keeps_what_a_switch_made_of_a_locked_slot() {
    if !redis_is_here() {
        return;
    }
    let (old, new) = (Process::server("").await, Process::server("").await);
    let proxy = Proxy::online(vec![slot(A, 1, &old.address)]).await;
    let proxies = [proxy.known.clone()];
    door().lock_group(&proxies, group(1)).await.unwrap();
    let mut switched = slot(A, 1, &new.address);
    switched.locked = true;
    proxy.fill(&[switched]).await;
    let write = writer(&proxy, "SET a 1");

    door().unlock_group(&proxies, group(1)).await.unwrap();
    assert_eq!(write.await.unwrap().unwrap(), "OK");
    assert_eq!(new.ask::<Option<String>>("GET a").await.as_deref(), Some("1"));
    assert_eq!(old.ask::<Option<String>>("GET a").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_back_or_refused_locks_nothing_and_tells_no_secret() {
    let proxy = Proxy::online(vec![slot(A, 1, &crate::nobody())]).await;
    let (admin, token) = proxy.known.clone();
    let crash = door_with(Some(PASSWORD), Effects::new(|_, _| Err("crash".to_owned())));
    let error = crash
        .lock_group(&[(admin.clone(), token.clone())], group(1))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "lock_slots wasn't sent: crash");

    let wrong = door_with(Some("hunter2"), Effects::none());
    let error = wrong
        .lock_group(&[(admin.clone(), token.clone())], group(1))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Refused { cause, .. } if cause.starts_with("invalid xauth")),
        "{error}"
    );
    let gone = door()
        .lock_group(&[(crate::nobody(), token.clone())], group(1))
        .await
        .unwrap_err();
    assert!(matches!(gone, Error::Unreachable { .. }), "{gone}");
    for error in [error, gone] {
        let text = format!("{error} {error:?}");
        for secret in [
            PASSWORD,
            "hunter2",
            &xauth(&["demo", PASSWORD, &token]),
            &xauth(&["demo", "hunter2", &token]),
        ] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert!(proxy.locked().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_listen_to_the_sentinels_that_they_are_told_or_to_none() {
    let proxy = Proxy::online(vec![slot(A, 1, &crate::nobody())]).await;
    let sentinel = crate::nobody();
    for wished in [vec![sentinel], Vec::new()] {
        door()
            .listen(std::slice::from_ref(&proxy.known), &wished)
            .await
            .unwrap();
        let (admin, _) = &proxy.known;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let told = client.get(format!("http://{admin}/proxy/stats")).send().await.unwrap();
        let told: serde_json::Value = told.json().await.unwrap();
        let servers = told["sentinels"]["servers"].as_array().cloned().unwrap_or_default();
        let servers: Vec<&str> = servers.iter().filter_map(|server| server.as_str()).collect();
        assert_eq!(servers, wished.iter().map(Address::to_string).collect::<Vec<_>>());
    }
    let gone = [(crate::nobody(), proxy.known.1.clone()), proxy.known.clone()];
    door().listen(&gone, &[]).await.unwrap_err();
}

#[tokio::test]
async fn a_proxy_says_where_it_sends_each_slot() {
    if !redis_is_here() {
        return;
    }
    let (here, there) = (Process::server("").await, Process::server("").await);
    let mut moving = slot(FOO, 2, &there.address);
    moving.migrate_from = here.address.to_string();
    moving.migrate_from_group_id = 1;
    moving.locked = true;
    let proxy = Proxy::online(vec![moving, slot(A, 1, &here.address)]).await;
    let (admin, token) = &proxy.known;
    let routes = door().routes(admin, token).await.unwrap();
    assert_eq!(routes.len(), 1024);
    let at = |group: u64, server: &Address, from: Option<u64>| Route {
        group: Some(crate::group(group)),
        master: Some(server.clone()),
        from: from.map(crate::group),
        locked: from.is_some(),
    };
    assert_eq!(routes[usize::from(A)], at(1, &here.address, None));
    assert_eq!(routes[usize::from(FOO)], at(2, &there.address, Some(1)));
    assert_eq!(routes[0], Route::default());
}
