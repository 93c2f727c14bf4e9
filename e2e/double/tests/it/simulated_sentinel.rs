//! Simulated sentinels: failovers, partitions, and the configuration that wins.

use std::time::Duration;

use codis_double::resp::Value;
use codis_double::simulated::redis::{Role, Server};
use codis_double::simulated::sentinel::Sentinel;
use tokio::time::{Instant, sleep};

use super::simulated_host::{Net, Node};

struct Group {
    net: Net,
    nodes: Vec<Node>,
    servers: Vec<Server>,
    sentinels: Vec<(Node, Sentinel)>,
    client: Node,
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

/// A master with replicas, and three sentinels that know all of it.
async fn group(replicas: usize) -> Group {
    let net = Net::default();
    let mut group = Group {
        client: net.node("10.0.0.99"),
        net,
        nodes: Vec::new(),
        servers: Vec::new(),
        sentinels: Vec::new(),
    };
    for number in 0..=replicas {
        let node = group.net.node(&format!("10.0.0.{}", number + 1));
        let role = if number == 0 { "" } else { "slaveof 10.0.0.1 6379" };
        group.servers.push(node.redis(role).await);
        group.nodes.push(node);
    }
    for number in 1..=3 {
        let node = group.net.node(&format!("10.0.1.{number}"));
        let sentinel = node.sentinel().await;
        group.sentinels.push((node.clone(), sentinel));
        group.monitor(&node, "10.0.0.1").await;
    }
    seconds(25).await;
    for (_, sentinel) in &group.sentinels {
        assert_eq!(sentinel.known("demo-1"), Some((replicas, 2)));
    }
    group
}

impl Group {
    async fn monitor(&self, sentinel: &Node, ip: &str) {
        let settings = [
            "SENTINEL",
            "SET",
            "demo-1",
            "down-after-milliseconds",
            "5000",
            "failover-timeout",
            "30000",
            "parallel-syncs",
            "1",
            "auth-pass",
            "pw",
        ];
        let commands: [&[&str]; 2] = [&["SENTINEL", "MONITOR", "demo-1", ip, "6379", "2"], &settings];
        let addr = format!("{}:26379", sentinel.ip);
        assert_eq!(self.client.ask(&addr, &commands).await, Some(Value::ok()));
    }

    fn believed(&self) -> Vec<String> {
        let masters = self.sentinels.iter().map(|(_, sentinel)| sentinel.master("demo-1"));
        masters.map(Option::unwrap_or_default).collect()
    }

    /// Waits until all sentinels have another master; how long that took.
    async fn switched(&self, from: &str) -> Duration {
        let began = Instant::now();
        while self.believed().iter().any(|master| master == from) {
            sleep(Duration::from_millis(10)).await;
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{:?}",
                self.sentinels[0].1.events()
            );
        }
        began.elapsed()
    }

    fn trace(&self) -> String {
        let events = self
            .sentinels
            .iter()
            .map(|(_, sentinel)| format!("{:?}\n", sentinel.events()));
        let servers = self
            .servers
            .iter()
            .map(|server| format!("{} {}\n", server.replid(), server.offset()));
        events.chain(servers).collect()
    }
}

fn follows(master: &str) -> Role {
    Role::Replica {
        master: master.into(),
        up: true,
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_master_is_replaced_and_comes_back_as_a_replica() {
    let group = group(2).await;
    group.client.say(&group.nodes[0], &["SET", "a", "1"]).await;
    seconds(1).await;
    group.nodes[0].kill().await;
    let took = group.switched("10.0.0.1:6379").await;
    assert!((5_000..8_500).contains(&took.as_millis()), "{took:?}");
    let believed = group.believed();
    assert!(believed.iter().all(|master| *master == believed[0]), "{believed:?}");
    seconds(3).await;
    let (new, other) = if believed[0] == "10.0.0.2:6379" { (1, 2) } else { (2, 1) };
    assert_eq!(group.servers[new].role(), Role::Master);
    assert_eq!(group.servers[other].role(), follows(&believed[0]));
    let back = group.nodes[0].restart().await;
    assert_eq!((back.role(), back.keys()), (Role::Master, 1));
    seconds(25).await;
    assert_eq!((back.role(), back.keys()), (follows(&believed[0]), 1));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_master_is_replaced_and_demoted_when_it_thaws() {
    let group = group(1).await;
    group.nodes[0].freeze(true);
    let took = group.switched("10.0.0.1:6379").await;
    assert!(took < Duration::from_secs(9), "{took:?}");
    group.nodes[0].freeze(false);
    assert_eq!(group.servers[0].role(), Role::Master, "it doesn't know yet");
    seconds(25).await;
    assert_eq!(group.servers[0].role(), follows("10.0.0.2:6379"));
}

#[tokio::test(start_paused = true)]
async fn a_master_cut_off_with_a_client_takes_writes_that_are_lost() {
    let group = group(1).await;
    group.net.part(&["10.0.0.1", "10.0.0.99"]);
    group.switched("10.0.0.1:6379").await;
    assert_eq!(
        group.client.say(&group.nodes[0], &["SET", "a", "1"]).await,
        Some(Value::ok())
    );
    group.net.part(&[]);
    seconds(40).await;
    assert_eq!(group.servers[0].role(), follows("10.0.0.2:6379"));
    assert_eq!((group.servers[0].keys(), group.servers[1].keys()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_minority_of_sentinels_elects_nobody() {
    let group = group(1).await;
    group.net.part(&["10.0.0.1", "10.0.1.1", "10.0.1.2"]);
    seconds(40).await;
    assert_eq!(group.sentinels[2].1.master("demo-1").as_deref(), Some("10.0.0.1:6379"));
    assert_eq!(group.sentinels[2].1.is_down("demo-1"), Some((true, false)));
    group.sentinels[0].0.kill().await;
    let refused = group
        .client
        .ask("10.0.1.3:26379", &[&["SENTINEL", "CKQUORUM", "demo-1"]])
        .await;
    assert!(
        matches!(&refused, Some(Value::Error(why)) if why.starts_with("NOQUORUM 1 usable")),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stale_sentinel_with_a_higher_epoch_wins() {
    let group = group(1).await;
    // A failover, so that the epoch isn't 0; the old master is back as a replica.
    group.nodes[0].kill().await;
    group.switched("10.0.0.1:6379").await;
    group.nodes[0].restart().await;
    seconds(30).await;
    // It and one sentinel are away; the others forget everything and are told the old master.
    group.net.part(&["10.0.1.3", "10.0.0.2"]);
    for (node, _) in &group.sentinels[..2] {
        group
            .client
            .ask(&format!("{}:26379", node.ip), &[&["SENTINEL", "REMOVE", "demo-1"]])
            .await;
    }
    group.client.say(&group.nodes[0], &["SLAVEOF", "NO", "ONE"]).await;
    group.client.say(&group.nodes[0], &["SET", "a", "1"]).await;
    for (node, _) in &group.sentinels[..2] {
        group.monitor(node, "10.0.0.1").await;
    }
    seconds(20).await;
    assert_eq!(group.believed(), ["10.0.0.1:6379", "10.0.0.1:6379", "10.0.0.2:6379"]);
    group.net.part(&[]);
    seconds(40).await;
    assert_eq!(group.believed(), ["10.0.0.2:6379"; 3]);
    let demoted = group.client.say(&group.nodes[0], &["GET", "a"]).await;
    assert_eq!(demoted, Some(Value::Bulk(None)), "the write is lost");
}

#[tokio::test(start_paused = true)]
async fn without_a_good_replica_a_failover_waits_for_twice_its_timeout() {
    let group = group(1).await;
    group.nodes[1].kill().await;
    seconds(7).await;
    group.nodes[0].kill().await;
    seconds(20).await;
    assert_eq!(group.believed(), ["10.0.0.1:6379"; 3]);
    group.nodes[1].restart().await;
    let took = group.switched("10.0.0.1:6379").await;
    assert!(took > Duration::from_secs(30), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failover_on_demand_needs_no_death() {
    let group = group(1).await;
    let asked = group
        .client
        .ask("10.0.1.1:26379", &[&["SENTINEL", "FAILOVER", "demo-1"]])
        .await;
    assert_eq!(asked, Some(Value::ok()));
    assert!(group.switched("10.0.0.1:6379").await < Duration::from_secs(5));
    seconds(20).await;
    assert_eq!(group.servers[0].role(), follows("10.0.0.2:6379"));
}

#[tokio::test(start_paused = true)]
async fn a_sentinel_remembers_what_it_knew_and_looks_on_after_a_pause() {
    let group = group(2).await;
    let (node, _) = &group.sentinels[0];
    node.kill().await;
    let again = node.restart_sentinel().await;
    assert_eq!(again.master("demo-1").as_deref(), Some("10.0.0.1:6379"));
    assert_eq!(again.known("demo-1"), Some((2, 2)));
    seconds(1).await;
    node.freeze(true);
    seconds(8).await;
    node.freeze(false);
    seconds(1).await;
    let addr = format!("{}:26379", node.ip);
    let info = group
        .client
        .ask(&addr, &[&["INFO", "sentinel"]])
        .await
        .and_then(|info| info.text())
        .unwrap();
    assert!(info.contains("sentinel_tilt:1\r\n"), "{info}");
    seconds(40).await;
    assert_eq!(
        (again.is_down("demo-1"), again.is_failing_over("demo-1")),
        (Some((false, false)), false)
    );
}

#[tokio::test(start_paused = true)]
async fn a_sentinel_tells_of_a_switch_and_who_is_who() {
    let group = group(1).await;
    let row = group
        .client
        .ask("10.0.1.1:26379", &[&["SENTINEL", "MASTER", "demo-1"]])
        .await
        .unwrap();
    let row: Vec<_> = row.items().iter().filter_map(Value::text).collect();
    let at = |key: &str| row[row.iter().position(|word| word == key).unwrap() + 1].as_str();
    let told = [
        at("flags"),
        at("num-slaves"),
        at("num-other-sentinels"),
        at("quorum"),
        at("config-epoch"),
    ];
    assert_eq!(told, ["master", "1", "2", "2", "0"]);
    group.nodes[0].kill().await;
    group.switched("10.0.0.1:6379").await;
    for (_, sentinel) in &group.sentinels {
        let events = sentinel.events();
        let switch = events.iter().find(|(_, event, _)| event == "+switch-master").unwrap();
        assert_eq!(switch.2, "demo-1 10.0.0.1 6379 10.0.0.2 6379");
        assert_eq!(sentinel.config_epoch("demo-1"), Some(1));
    }
}

async fn story() -> String {
    let group = group(2).await;
    group.client.say(&group.nodes[0], &["SET", "a", "1"]).await;
    group.nodes[0].kill().await;
    group.switched("10.0.0.1:6379").await;
    group.nodes[0].restart().await;
    seconds(30).await;
    group.trace()
}

#[test]
fn the_same_story_is_told_twice() {
    let tell = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(story())
    };
    assert_eq!(tell(), tell());
}

/// Kills, freezes and partitions one after the other.
async fn trouble(seed: u64) -> String {
    let mut group = group(2).await;
    let mut state = seed;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    for step in 0..8 {
        let at = usize::try_from(draw(3)).unwrap();
        let (server, sentinel) = (group.nodes[at].clone(), group.sentinels[at].0.clone());
        let key = step.to_string();
        for node in &group.nodes {
            group.client.say(node, &["SET", &key, "x"]).await;
        }
        match draw(5) {
            0 | 1 => {
                server.kill().await;
                seconds(draw(15)).await;
                group.servers[at] = server.restart().await;
            }
            2 => {
                server.freeze(true);
                seconds(draw(15)).await;
                server.freeze(false);
            }
            3 => {
                sentinel.kill().await;
                seconds(draw(15)).await;
                group.sentinels[at].1 = sentinel.restart_sentinel().await;
            }
            _ => {
                group.net.part(&[&server.ip, &sentinel.ip]);
                seconds(draw(25)).await;
                group.net.part(&[]);
            }
        }
        seconds(draw(20)).await;
    }
    seconds(200).await;
    let believed = group.believed();
    for (node, server) in group.nodes.iter().zip(&group.servers) {
        let role = if node.addr() == believed[0] {
            Role::Master
        } else {
            follows(&believed[0])
        };
        assert_eq!(server.role(), role, "seed {seed}, {believed:?}\n{}", group.trace());
        assert_eq!(server.keys(), group.servers[0].keys(), "seed {seed}");
    }
    assert!(
        believed.iter().all(|master| *master == believed[0]),
        "seed {seed}, {believed:?}"
    );
    group.trace()
}

#[test]
fn after_any_trouble_there_is_one_master_and_the_same_trouble_ends_the_same() {
    let seeds = std::env::var("TROUBLES")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(4);
    for seed in 0..seeds {
        let tell = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build();
            runtime.unwrap().block_on(trouble(seed))
        };
        assert_eq!(tell(), tell(), "seed {seed}");
    }
}

/// What an idle cluster costs: `cargo test -p codis-double -- --ignored --nocapture idle`.
#[tokio::test(start_paused = true)]
#[ignore = "a measurement"]
async fn an_idle_cluster_is_cheap() {
    let group = group(3).await;
    let began = std::time::Instant::now();
    seconds(1000).await;
    println!("{:?} for a virtual second", began.elapsed() / 1000);
    drop(group);
}
