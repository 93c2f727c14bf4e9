//! Simulated servers: replication, their files, their fences.

use std::time::Duration;

use codis_double::host::Files;
use codis_double::redis::flatten;
use codis_double::resp::Value;
use codis_double::simulated::redis::{Role, Server};
use tokio::time::{Instant, sleep};

use super::simulated_host::{Net, Node};

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn text(reply: Option<Value>) -> String {
    match reply {
        Some(Value::Error(text)) => text,
        Some(value) => value.text().unwrap_or_else(|| format!("{value:?}")),
        None => "no answer".into(),
    }
}

/// A master, its replica in step, and a client.
async fn pair(net: &Net) -> ((Node, Server), (Node, Server), Node) {
    let (master, replica, client) = (net.node("10.0.0.1"), net.node("10.0.0.2"), net.node("10.0.0.9"));
    let one = master.redis("").await;
    let two = replica.redis("slaveof 10.0.0.1 6379").await;
    seconds(2).await;
    ((master, one), (replica, two), client)
}

async fn write(client: &Node, server: &Node, keys: std::ops::Range<usize>) {
    let words: Vec<String> = keys.flat_map(|key| [format!("k{key}"), key.to_string()]).collect();
    let words: Vec<&str> = std::iter::once("MSET")
        .chain(words.iter().map(String::as_str))
        .collect();
    assert_eq!(text(client.say(server, &words).await), "OK");
}

#[tokio::test(start_paused = true)]
async fn a_replica_takes_all_keys_and_then_each_write() {
    let net = Net::default();
    let (master, replica, client) = (net.node("10.0.0.1"), net.node("10.0.0.2"), net.node("10.0.0.9"));
    let one = master.redis("").await;
    write(&client, &master, 0..100).await;
    let two = replica.redis("slaveof 10.0.0.1 6379").await;
    seconds(1).await;
    assert_eq!(two.keys(), 100);
    client.say(&master, &["SET", "late", "x", "PX", "5000"]).await;
    sleep(Duration::from_millis(5)).await;
    assert_eq!(two.get(0, b"late").as_deref(), Some(&b"x"[..]));
    assert_eq!((one.offset(), one.replid()), (two.offset(), two.replid()));
    seconds(7).await;
    assert_eq!((one.keys(), two.keys()), (100, 100), "a key with an end goes on both");
    let info = flatten(&text(client.say(&master, &["INFO", "replication"]).await));
    let told = format!("ip=10.0.0.2,port=6379,state=online,offset={},lag=", one.offset());
    assert!(info["slave0"].starts_with(&told), "{info:?}");
    let info = flatten(&text(client.say(&replica, &["INFO"]).await));
    assert_eq!(
        (info["role"].as_str(), info["master_link_status"].as_str()),
        ("slave", "up")
    );
    assert_eq!(info["db0"], "keys=100,expires=0,avg_ttl=0");
    let refused = text(client.say(&replica, &["SET", "a", "b"]).await);
    assert_eq!(refused, "READONLY You can't write against a read only replica.");
}

#[tokio::test(start_paused = true)]
async fn a_short_interruption_ends_with_a_partial_resync() {
    let net = Net::default();
    let ((master, one), (replica, two), client) = pair(&net).await;
    net.part(&[&replica.ip]);
    write(&client, &master, 0..50).await;
    seconds(20).await;
    assert_eq!(
        two.role(),
        Role::Replica {
            master: master.addr(),
            up: false
        }
    );
    net.part(&[]);
    seconds(16).await;
    assert_eq!(two.keys(), 50);
    assert_eq!(one.synchronisations(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_promoted_replica_goes_on_with_its_masters_history() {
    let net = Net::default();
    let ((master, one), (replica, two), client) = pair(&net).await;
    let third = net.node("10.0.0.3");
    let three = third.redis("slaveof 10.0.0.2 6379").await;
    seconds(2).await;
    write(&client, &master, 0..10).await;
    seconds(1).await;
    assert_eq!(three.keys(), 10, "a replica of a replica gets all");
    assert_eq!(text(client.say(&replica, &["SLAVEOF", "NO", "ONE"]).await), "OK");
    client.say(&master, &["SLAVEOF", "10.0.0.2", "6379"]).await;
    write(&client, &replica, 10..20).await;
    seconds(3).await;
    assert_eq!((one.keys(), three.keys()), (20, 20));
    assert_eq!((one.replid(), three.replid()), (two.replid(), two.replid()));
    assert_eq!(
        two.synchronisations(),
        (1, 2),
        "one for the third at first, then partial ones"
    );
}

#[tokio::test(start_paused = true)]
async fn an_old_master_with_writes_of_its_own_loses_them() {
    let net = Net::default();
    let ((master, one), (replica, two), client) = pair(&net).await;
    net.part(&[&master.ip, &client.ip]);
    write(&client, &master, 0..10).await;
    let other = net.node("10.0.0.8");
    other.say(&replica, &["SLAVEOF", "NO", "ONE"]).await;
    net.part(&[]);
    client.say(&master, &["SLAVEOF", "10.0.0.2", "6379"]).await;
    seconds(2).await;
    assert_eq!((one.keys(), two.synchronisations()), (0, (1, 0)));
}

#[tokio::test(start_paused = true)]
async fn an_emptied_master_empties_its_replica() {
    let net = Net::default();
    let ((master, _), (_, two), client) = pair(&net).await;
    write(&client, &master, 0..10).await;
    seconds(1).await;
    assert_eq!(two.keys(), 10);
    master.kill().await;
    master.disk.wipe();
    let empty = master.redis("").await;
    seconds(3).await;
    assert_eq!((empty.keys(), two.keys()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_kill_loses_nothing_and_a_loss_of_power_a_second_at_most() {
    let net = Net::default();
    let (node, client) = (net.node("10.0.0.1"), net.node("10.0.0.9"));
    let server = node.redis("").await;
    for key in 0..40 {
        client.say(&node, &["SET", &format!("k{key}"), "v"]).await;
        sleep(Duration::from_millis(100)).await;
    }
    let before = server.run_id();
    node.kill().await;
    assert_eq!(server.has_ended(), Some(Err("killed".into())));
    let server = node.restart().await;
    assert_eq!((server.keys(), server.run_id() == before), (40, false));
    seconds(1).await;
    client.say(&node, &["INCR", "k40"]).await;
    node.kill().await;
    node.disk.lose_power();
    assert_eq!(node.restart().await.keys(), 40);
    assert_eq!(node.disk.names("/data").unwrap(), ["appendonlydir", "redis.conf"]);
}

#[tokio::test(start_paused = true)]
async fn a_kill_on_a_slow_disk_loses_what_waits_for_a_sync() {
    let net = Net::default();
    let (node, client) = (net.node("10.0.0.1"), net.node("10.0.0.9"));
    node.redis("").await;
    node.disk.set_slow(Some(Duration::from_secs(10)));
    for key in 0..10 {
        client.say(&node, &["SET", &format!("k{key}"), "v"]).await;
        if key < 9 {
            seconds(1).await;
        }
    }
    node.kill().await;
    let kept = node.restart().await.keys();
    assert!((7..10).contains(&kept), "{kept}");
}

#[tokio::test(start_paused = true)]
async fn a_terminated_server_syncs_and_always_means_always() {
    let net = Net::default();
    let (node, client) = (net.node("10.0.0.1"), net.node("10.0.0.9"));
    let server = node.redis("appendfsync always").await;
    node.disk.set_slow(Some(Duration::from_millis(100)));
    let began = Instant::now();
    client.say(&node, &["SET", "a", "1"]).await;
    assert!(began.elapsed() >= Duration::from_millis(100));
    node.kill().await;
    node.disk.lose_power();
    assert!(server.has_ended().is_some());
    let server = node.redis("").await;
    client.say(&node, &["SET", "b", "1"]).await;
    server.terminate();
    assert_eq!(server.ended().await, Ok(()));
    node.disk.lose_power();
    assert_eq!(node.restart().await.keys(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_master_without_good_replicas_refuses_writes() {
    let net = Net::default();
    let ((master, _), (replica, _), client) = pair(&net).await;
    client
        .say(&master, &["CONFIG", "SET", "min-slaves-to-write", "1"])
        .await;
    client.say(&master, &["CONFIG", "SET", "min-slaves-max-lag", "2"]).await;
    assert_eq!(text(client.say(&master, &["SET", "a", "1"]).await), "OK");
    let info = flatten(&text(client.say(&master, &["INFO", "replication"]).await));
    assert_eq!(info["min_slaves_good_slaves"], "1");
    replica.freeze(true);
    seconds(4).await;
    let refused = "NOREPLICAS Not enough good replicas to write.";
    assert_eq!(text(client.say(&master, &["SET", "a", "2"]).await), refused);
    assert_eq!(text(client.say(&master, &["GET", "a"]).await), "1");
    replica.freeze(false);
    seconds(2).await;
    assert_eq!(text(client.say(&master, &["SET", "a", "3"]).await), "OK");
    client
        .say(&master, &["CONFIG", "SET", "min-slaves-to-write", "100"])
        .await;
    assert_eq!(text(client.say(&master, &["DEL", "a"]).await), refused);
}

#[tokio::test(start_paused = true)]
async fn keys_migrate_with_their_ends_and_leave() {
    let net = Net::default();
    let (from, to, client) = (net.node("10.0.0.1"), net.node("10.0.0.2"), net.node("10.0.0.9"));
    let (one, two) = (from.redis("").await, to.redis("").await);
    write(&client, &from, 0..5).await;
    client.say(&from, &["SET", "e", "x", "EX", "100"]).await;
    let target = [
        "MIGRATE", "10.0.0.2", "6379", "", "3", "5000", "REPLACE", "AUTH", "pw", "KEYS", "k0", "e", "none",
    ];
    assert_eq!(text(client.say(&from, &target).await), "OK");
    assert_eq!((one.keys(), two.keys()), (4, 2));
    assert_eq!(two.get(3, b"k0").as_deref(), Some(&b"0"[..]));
    let left = client
        .ask("10.0.0.2:6379", &[&["AUTH", "pw"], &["SELECT", "3"], &["TTL", "e"]])
        .await;
    assert_eq!(left, Some(Value::Integer(100)));
    assert_eq!(text(client.say(&from, &target).await), "NOKEY");
    let wrong = ["MIGRATE", "10.0.0.2", "6379", "k1", "0", "100", "AUTH", "no"];
    let refused = text(client.say(&from, &wrong).await);
    assert!(
        refused.starts_with("ERR Target instance replied with error: WRONGPASS"),
        "{refused}"
    );
    to.kill().await;
    let refused = text(
        client
            .say(&from, &["MIGRATE", "10.0.0.2", "6379", "k1", "0", "100"])
            .await,
    );
    assert!(refused.starts_with("IOERR error or timeout"), "{refused}");
    assert_eq!(one.keys(), 4);
}

#[tokio::test(start_paused = true)]
async fn commands_answer_as_redis_does() {
    let net = Net::default();
    let (node, client) = (net.node("10.0.0.1"), net.node("10.0.0.9"));
    node.redis("maxmemory 100mb").await;
    for (words, reply) in [
        (
            &["FOO", "a"][..],
            "ERR unknown command 'FOO', with args beginning with: 'a' ",
        ),
        (&["GET"], "ERR wrong number of arguments for 'get' command"),
        (&["SET", "n", "1", "NX"], "OK"),
        (&["INCRBY", "n", "4"], "5"),
        (&["APPEND", "n", "x"], "2"),
        (&["INCR", "n"], "ERR value is not an integer or out of range"),
        (&["TYPE", "n"], "string"),
        (&["EXISTS", "n", "m"], "1"),
        (&["TTL", "m"], "-2"),
        (&["WAIT", "0", "10"], "0"),
        (&["WAIT", "1", "10"], "0"),
        (&["CLUSTER", "INFO"], "ERR This instance has cluster support disabled"),
        (&["EXEC"], "ERR EXEC without MULTI"),
        (&["SLAVEOF", "NO", "ONE"], "OK"),
        (&["CONFIG", "REWRITE"], "OK"),
    ] {
        assert_eq!(text(client.say(&node, words).await), reply, "{words:?}");
    }
    let silent = text(client.ask(&node.addr(), &[&["GET", "n"]]).await);
    assert_eq!(silent, "NOAUTH Authentication required.");
    let maxmemory = client.say(&node, &["CONFIG", "GET", "maxmemory"]).await.unwrap();
    assert_eq!(maxmemory.items()[1].text().unwrap(), "104857600");
    let all: &[&[&str]] = &[
        &["AUTH", "pw"],
        &["MULTI"],
        &["SET", "a", "1"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["EXEC"],
    ];
    let done = client.ask(&node.addr(), all).await.unwrap();
    assert_eq!(done.items(), [Value::ok(), Value::Integer(0)]);
}
