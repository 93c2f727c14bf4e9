//! Requests recorded from a real Codis, sent to the stand-in in the state they were recorded in: the same status, the
//! same JSON shape, the same texts, but for the addresses and tokens of this run.

use std::path::Path;
use std::time::Duration;

use codis_double::dashboard;
use codis_double::redis::Connection;
use serde_json::{Value, json};

use crate::support::{AUTH, PRODUCT, Server, World, X, dashboard_options, redis_is_here, say, until};

/// A recorded exchange in terms of this run.
fn fixture(name: &str, names: &[(&str, String)]) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(format!("{name}.json"));
    let mut text = std::fs::read_to_string(path).unwrap();
    for (recorded, here) in names {
        text = text.replace(recorded, here);
    }
    serde_json::from_str(&text).unwrap()
}

/// Whether two answers have the same keys and types. Maps of texts (`INFO`, sentinel's rows) differ between versions
/// of redis in which keys they hold, so only what they are is compared.
fn same_shape(at: &str, recorded: &Value, here: &Value) {
    match (recorded, here) {
        (Value::Object(recorded), Value::Object(here)) => {
            let texts = |map: &serde_json::Map<String, Value>| map.len() > 15 && map.values().all(Value::is_string);
            if texts(recorded) && texts(here) {
                return;
            }
            assert_eq!(
                recorded.keys().collect::<Vec<_>>(),
                here.keys().collect::<Vec<_>>(),
                "keys at {at}"
            );
            recorded
                .iter()
                .for_each(|(key, value)| same_shape(&format!("{at}.{key}"), value, &here[key]));
        }
        (Value::Array(recorded), Value::Array(here)) => {
            assert_eq!(recorded.len(), here.len(), "length at {at}");
            recorded
                .iter()
                .zip(here)
                .for_each(|(recorded, here)| same_shape(&format!("{at}[]"), recorded, here));
        }
        _ => assert_eq!(
            std::mem::discriminant(recorded),
            std::mem::discriminant(here),
            "type at {at}: {here}"
        ),
    }
}

impl World {
    /// The recorded names and what they are here.
    fn names(&self) -> Vec<(&'static str, String)> {
        let servers = [
            "10.96.23.157:6379",
            "10.96.254.53:6379",
            "10.96.225.85:6379",
            "10.96.10.95:6379",
        ];
        let sentinels = ["10.96.157.16:26379", "10.96.64.243:26379", "10.96.250.83:26379"];
        let tokens = ["6355099fd93a9594c5606153e92e82b9", "5ac01f9c105f7163fe2153f9ab72328d"];
        let mut names: Vec<_> = servers
            .into_iter()
            .zip(self.servers.iter().map(|server| server.addr.clone()))
            .collect();
        names.extend(
            sentinels
                .into_iter()
                .zip(self.sentinels.iter().map(|server| server.addr.clone())),
        );
        names.extend(
            tokens
                .into_iter()
                .zip(self.proxies.iter().map(|proxy| proxy.model.token.clone())),
        );
        if let Some(proxy) = self.proxies.first() {
            names.push(("10.244.3.7:11080", proxy.admin_addr.to_string()));
        }
        names
    }

    async fn replay_with(&self, addr: &str, name: &str, names: &[(&str, String)]) {
        let recorded = fixture(name, names);
        let request = &recorded["request"];
        let body = match &request["body"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
        let (status, here) = self.send(method, addr, path, body).await;
        assert_eq!(
            u64::from(status),
            recorded["status"].as_u64().unwrap(),
            "status of {name}: {here}"
        );
        match recorded["body"].get("Cause") {
            Some(cause) => assert_eq!(here, json!({"Cause": cause, "Stack": null}), "{name}"),
            None if recorded["body"].is_string() => assert_eq!(here, recorded["body"], "{name}"),
            None => same_shape(name, &recorded["body"], &here),
        }
    }

    /// A PING without AUTH, as the readiness probes of the recorded proxies sent them.
    async fn knock(&self, index: usize) {
        let addr = self.proxies[index].proxy_addr.to_string();
        let mut client = Connection::open(&addr, "", Duration::from_secs(5)).await.unwrap();
        assert_eq!(say(&mut client, "PING").await, "NOAUTH Authentication required");
    }

    async fn replay(&self, names: &[&str]) {
        for name in names {
            self.replay_with(&self.addr, name, &self.names()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_product_answers_as_recorded() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::fresh().await;
    until("proxies were looked at", || async {
        world.stats().await["proxy"]["stats"]
            .as_object()
            .is_some_and(|stats| stats.len() == 2)
    })
    .await;
    world
        .replay(&[
            "topom-model-fresh",
            "ok-xping",
            "err-rebalance-no-valid-group",
            "err-proxy-create-exists",
        ])
        .await;
    world
        .replay(&[
            "topom-fresh",
            "ok-proxy-online",
            "ok-proxy-reinit",
            "err-proxy-remove-unknown",
        ])
        .await;
    world.knock(0).await;
    let proxy = world.proxies[0].admin_addr.to_string();
    for name in ["proxy-model-fresh", "proxy-overview-fresh", "err-proxy-bad-xauth"] {
        world.replay_with(&proxy, name, &world.names()).await;
    }
    let bad_id = "4d4c97a7d1e5d9ff7d6791e860ac7ce8";
    let token = &world.proxies[0].model.token;
    let xauth = codis_double::identity::xauth(&[PRODUCT, AUTH, token]);
    world
        .replay_with(&proxy, "err-proxy-fillslots-bad-id", &[(bad_id, xauth)])
        .await;

    for _ in 0..4 {
        world.servers.push(Server::redis(AUTH).await);
    }
    world.sentinels.push(Server::sentinel().await);
    world
        .replay(&[
            "ok-group-create",
            "err-group-create-exists",
            "ok-group-create-2",
            "ok-group-create-3",
        ])
        .await;
    world
        .replay(&["err-slot-action-create-empty-group", "ok-group-add", "ok-group-add-2a"])
        .await;
    world
        .replay(&[
            "err-group-add-duplicate",
            "err-group-add-sentinel-address",
            "ok-rebalance-plan",
        ])
        .await;
    world
        .replay(&[
            "ok-group-remove",
            "err-group-remove-unknown",
            "ok-group-info",
            "ok-slots-assign",
        ])
        .await;
    world
        .replay(&["err-slot-action-already-in-group", "ok-assign-malformed-body"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_product_answers_as_recorded() {
    if !redis_is_here() {
        return;
    }
    let world = World::watched().await;
    for index in 0..2 {
        world.knock(index).await;
    }
    until("the looks hold everything", || async {
        let stats = world.stats().await;
        let masters = |proxy: &Value| proxy["stats"]["sentinels"]["masters"]["2"].is_string();
        stats["proxy"]["stats"]
            .as_object()
            .is_some_and(|proxies| proxies.values().all(masters))
    })
    .await;
    world
        .replay(&["topom-bootstrapped", "ok-group-resync-all", "ok-sentinel-info"])
        .await;
    world
        .replay_with(
            &world.proxies[0].admin_addr.to_string(),
            "proxy-stats-bootstrapped",
            &world.names(),
        )
        .await;
    world
        .replay(&[
            "err-assign-bad-slot",
            "err-assign-group0",
            "err-assign-offline-group-not-0",
        ])
        .await;
    world
        .replay(&[
            "err-assign-with-action",
            "err-create-range-invalid",
            "err-slot-action-bad-sid",
        ])
        .await;
    world
        .replay(&[
            "err-slot-action-remove-none",
            "err-slot-interval-invalid",
            "err-group-del-not-member",
        ])
        .await;
    world
        .replay(&[
            "err-group-del-master-in-use",
            "err-promote-master",
            "err-sentinel-add-redis-address",
        ])
        .await;
    world
        .replay(&["err-sentinel-add-duplicate", "err-sentinel-del-unknown"])
        .await;
    world
        .replay(&["err-sync-action-create-unknown-server", "err-sync-action-remove-none"])
        .await;
    world
        .replay(&["err-sync-action-remove-unknown", "ok-sentinels-resync-all"])
        .await;
    world.replay(&["ok-slots-disabled"]).await;
    world.ok(&format!("slots/action/create/{X}/3/2")).await;
    world
        .replay(&[
            "err-slot-action-create-exists",
            "ok-slot-action-remove-pending",
            "ok-slots-enabled",
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_proxy_makes_errors_as_recorded() {
    if !redis_is_here() {
        return;
    }
    let world = World::bootstrapped().await;
    let spare = Server::redis(AUTH).await;
    world.lose_proxy(0).await;
    let mut names = world.names();
    names.push(("305f049bf2e1eaca6c25934d23880ef8", world.proxies[0].model.token.clone()));
    names.push(("10.96.19.189:6379", spare.addr.clone()));
    assert!(
        world
            .put_body(&format!("slots/assign/{X}/offline"), "[{\"id\": 0}]")
            .await
            .0
            == 800
    );
    world.ok(&format!("slots/action/create/{X}/0/1")).await;
    until("the slot is stuck", || async {
        world.stats().await["slots"][0]["action"]["state"] == "preparing"
    })
    .await;
    let replayed = [
        "err-slot-action-remove-not-pending",
        "err-assign-dead-proxy",
        "err-group-resync-dead-proxy",
        "err-promote-dead-proxy",
        "err-promote-other-while-promoting",
        "err-group-is-promoting",
        "err-proxy-remove-dead-not-forced",
        "ok-proxy-remove-force",
    ];
    for name in replayed {
        world.replay_with(&world.addr, name, &names).await;
    }
    // Recorded when the two had already changed places.
    let swapped = [
        ("10.96.10.95:6379", world.server(2).to_string()),
        ("10.96.225.85:6379", world.server(3).to_string()),
    ];
    world.replay_with(&world.addr, "ok-group-promote", &swapped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dashboard_that_waits_for_its_lock_answers_as_recorded() {
    let world = World::empty().await;
    let mut options = dashboard_options(&world.store.0);
    options.timings.lock_tries = 1000;
    let waiting = dashboard::start(options).await.unwrap();
    let addr = waiting.addr.to_string();
    // Recorded with a second product; its xauth stands for that of the product here.
    let names = [("16ee6d69970a6da8ac1a2b29527bb20d", X.to_string())];
    for name in [
        "err-topom-not-online",
        "err-group-create-not-online",
        "xping-while-waiting-for-lock",
    ] {
        world.replay_with(&addr, name, &names).await;
    }
    world
        .replay_with(&addr, "topom-model-while-waiting-for-lock", &names)
        .await;
    waiting.shutdown();
    waiting.wait().await.unwrap();
}

#[test]
fn rebalance_plans_are_those_recorded() {
    for (name, owner) in [("ok-rebalance-plan", 0), ("ok-rebalance-plan-unbalanced", 2)] {
        let slots: Vec<_> = (0..1024)
            .map(|id| codis_double::wire::SlotMapping {
                id,
                group_id: owner,
                ..Default::default()
            })
            .collect();
        let plan = dashboard::rebalance::plan(&[1, 2].into(), &slots).unwrap();
        let told: serde_json::Map<_, _> = plan
            .into_iter()
            .map(|(sid, gid)| (sid.to_string(), json!(gid)))
            .collect();
        assert_eq!(Value::Object(told), fixture(name, &[])["body"], "{name}");
    }
}
