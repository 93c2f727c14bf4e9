//! Fences, parameters and offsets of real redis-servers.

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use codis_operator::{
    codis::Error,
    domain::{Address, ServerView, slot_of_key},
    telemetry::Effects,
};

use crate::{PASSWORD, Process, door, door_with, eventually, nobody, redis_is_here};

/// Stops or continues a process.
fn signal(process: &Process, signal: &str) {
    let pid = process.child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

async fn min_replicas(server: &Process) -> String {
    let told = door()
        .config_of(&server.address, &["min-slaves-to-write"])
        .await
        .unwrap();
    told["min-slaves-to-write"].clone()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test]
async fn a_fenced_master_refuses_writes_until_it_is_unfenced() {
    if !redis_is_here() {
        return;
    }
    let server = Process::server("").await;
    let replica = Process::replica_of(&server.address).await;
    door().fence(&server.address).await.unwrap();
    let refused = server.try_ask::<()>("SET a 1").await.unwrap_err();
    assert_eq!(refused.code(), Some("NOREPLICAS"));
    assert_eq!(server.ask::<Option<String>>("GET a").await, None);
    let view = door().server(&server.address).await;
    assert!(matches!(view, ServerView::Up { fenced: true, .. }), "{view:?}");

    for (good_slaves, expected) in [(1, "1"), (0, "0")] {
        door().unfence(&server.address, good_slaves).await.unwrap();
        assert_eq!(min_replicas(&server).await, expected);
    }
    let _: () = server.ask("SET a 1").await;
    drop(replica);
}

#[tokio::test]
async fn an_old_master_follows_the_new_one_before_its_fence_goes_and_remembers_it() {
    if !redis_is_here() {
        return;
    }
    let (old, new) = (Process::server("").await, Process::server("").await);
    door().fence(&old.address).await.unwrap();
    let _: () = new.ask("SET a 1").await;
    door().demote(&old.address, &new.address, 0).await.unwrap();
    let refused = old.try_ask::<()>("SET a 2").await.unwrap_err();
    assert_eq!(refused.code(), Some("READONLY"));
    eventually("it has what the new one has", async || {
        old.ask::<Option<String>>("GET a").await.as_deref() == Some("1")
    })
    .await;
    assert_eq!(min_replicas(&old).await, "0");
    let kept = std::fs::read_to_string(old.folder.join("redis.conf")).unwrap();
    let port = new.address.port();
    assert!(kept.contains(&format!("replicaof 127.0.0.1 {port}")), "{kept}");
    assert!(!kept.contains("-to-write 100"), "{kept}");
}

#[tokio::test]
async fn a_replica_announces_its_address_to_its_master_and_goes_on_where_it_was() {
    if !redis_is_here() {
        return;
    }
    let master = Process::server("").await;
    let replica = Process::replica_of(&master.address).await;
    let _: () = replica.ask("CONFIG SET replica-announce-ip 10.9.9.9").await;
    let _: u64 = replica.ask("CLIENT KILL TYPE master").await;
    let lists = async |address: &Address| {
        let view = door().server(&master.address).await;
        matches!(view, ServerView::Up { replicas, .. } if replicas == BTreeSet::from([address.clone()]))
    };
    let former = Address::new("10.9.9.9", replica.address.port());
    eventually("its former address is listed", async || lists(&former).await).await;
    door().announce(&replica.address).await.unwrap();
    eventually("its present one is listed", async || lists(&replica.address).await).await;
    let stats: String = master.ask("INFO stats").await;
    assert!(stats.contains("sync_full:1\r\n"), "it was copied anew: {stats}");
}

#[tokio::test]
async fn nobody_is_made_to_follow_a_replica_and_the_fence_stays() {
    if !redis_is_here() {
        return;
    }
    let old = Process::server("").await;
    let replica = Process::replica_of(&old.address).await;
    door().fence(&old.address).await.unwrap();
    let error = door().demote(&old.address, &replica.address, 0).await.unwrap_err();
    assert!(error.to_string().contains("it is no master"), "{error}");
    let gone = nobody();
    let error = door().demote(&old.address, &gone, 0).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(min_replicas(&old).await, "100");
}

#[tokio::test]
async fn a_fence_without_effect_is_an_error() {
    if !redis_is_here() {
        return;
    }
    let server = Process::server("min-slaves-max-lag 0\n").await;
    let error = door().fence(&server.address).await.unwrap_err();
    assert!(error.to_string().ends_with("its fence has no effect"), "{error}");
}

#[tokio::test]
async fn offsets_meet_when_the_replica_has_all_and_not_when_it_hangs_or_follows_nobody() {
    if !redis_is_here() {
        return;
    }
    let master = Process::server("").await;
    let replica = Process::replica_of(&master.address).await;
    let met = async |one: &Process, other: &Process, within| {
        let until = tokio::time::Instant::now() + Duration::from_millis(within);
        door().replication_offsets(&one.address, &other.address, until).await
    };
    eventually("the link is up", async || {
        met(&master, &replica, 5000).await == Ok(true)
    })
    .await;
    for _ in 0..10 {
        let _: () = master.ask("SET a 1").await;
        assert_eq!(met(&master, &replica, 5000).await, Ok(true));
    }
    assert_eq!(met(&replica, &master, 5000).await, Ok(false), "the wrong way round");

    signal(&replica, "-STOP");
    let _: () = master.ask("SET a 2").await;
    let began = Instant::now();
    assert_eq!(met(&master, &replica, 300).await, Ok(false));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    signal(&replica, "-CONT");
    assert_eq!(met(&master, &replica, 5000).await, Ok(true));
}

#[tokio::test]
async fn a_link_that_is_down_ends_the_wait_and_a_server_that_is_gone_is_an_error() {
    if !redis_is_here() {
        return;
    }
    let master = Process::server("").await;
    let orphan = Process::replica_of(&nobody()).await;
    let gone = nobody();
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    let began = Instant::now();
    let met = door()
        .replication_offsets(&master.address, &orphan.address, until)
        .await;
    assert_eq!(met, Ok(false));
    for (one, other) in [(&master.address, &gone), (&gone, &orphan.address)] {
        let error = door().replication_offsets(one, other, until).await.unwrap_err();
        assert!(
            matches!(&error, Error::Unreachable { peer, .. } if *peer == gone),
            "{error}"
        );
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn parameters_are_set_and_told_and_a_new_password_doesnt_lock_the_rest_out() {
    if !redis_is_here() {
        return;
    }
    let server = Process::server("").await;
    let wished = pairs(&[
        ("requirepass", "newpw"),
        ("masterauth", "newpw"),
        ("maxmemory", "104857600"),
        ("maxmemory-policy", "allkeys-lru"),
    ]);
    door().set_config(&server.address, &wished).await.unwrap();
    let renewed = door_with(Some("newpw"), Effects::none());
    let keys = ["maxmemory", "no-such-thing", "maxmemory-policy", "requirepass", "max*"];
    let told = renewed.config_of(&server.address, &keys).await.unwrap();
    let expected = pairs(&[
        ("maxmemory", "104857600"),
        ("maxmemory-policy", "allkeys-lru"),
        ("requirepass", "newpw"),
    ]);
    assert_eq!(told, expected.into_iter().collect());

    // They are set in order, up to the one that is refused.
    let wished = pairs(&[("maxmemory", "1048576"), ("maxmemory-policy", "nonsense"), ("hz", "50")]);
    let error = renewed.set_config(&server.address, &wished).await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused { cause, .. } if cause.starts_with("maxmemory-policy: ERR ")),
        "{error}"
    );
    let told = renewed.config_of(&server.address, &["maxmemory", "hz"]).await.unwrap();
    assert_eq!((&*told["maxmemory"], &*told["hz"]), ("1048576", "10"));
}

#[tokio::test]
async fn no_refusal_tells_an_old_or_a_new_password() {
    if !redis_is_here() {
        return;
    }
    let server = Process::server("rename-command CONFIG \"\"\n").await;
    for key in ["requirepass", "masterauth", "RequirePass"] {
        let wished = pairs(&[(key, "hunter3")]);
        let error = door().set_config(&server.address, &wished).await.unwrap_err();
        let expected = format!("{key}: ERR unknown command");
        assert!(
            matches!(&error, Error::Refused { cause, .. } if *cause == expected),
            "{error}"
        );
    }
    for error in [
        door().config_of(&server.address, &["requirepass"]).await.unwrap_err(),
        door().fence(&server.address).await.unwrap_err(),
        door().unfence(&server.address, 0).await.unwrap_err(),
    ] {
        assert!(!format!("{error:?}").contains(PASSWORD), "{error}");
    }
}

#[tokio::test]
async fn an_effect_on_a_server_that_is_held_back_changes_nothing() {
    if !redis_is_here() {
        return;
    }
    let server = Process::server("").await;
    let crash = door_with(Some(PASSWORD), Effects::new(|_, _| Err("crash".to_owned())));
    for (done, name) in [
        (crash.fence(&server.address).await, "fence"),
        (crash.unfence(&server.address, 1).await, "unfence"),
        (crash.demote(&server.address, &server.address, 1).await, "demote"),
        (
            crash
                .set_config(&server.address, &pairs(&[("min-slaves-to-write", "2")]))
                .await,
            "set_config",
        ),
    ] {
        assert_eq!(done.unwrap_err().to_string(), format!("{name} wasn't sent: crash"));
    }
    assert_eq!(min_replicas(&server).await, "0");
}

#[tokio::test]
async fn the_slots_of_all_keys_in_all_databases_are_known_of_a_redis_that_knows_no_slots() {
    if !redis_is_here() {
        return;
    }
    let server = Process::server("").await;
    assert_eq!(door().slots_with_keys(&server.address).await.unwrap(), BTreeSet::new());
    for number in 0..3000 {
        let _: () = server.ask(&format!("SET {{a}}{number} 1")).await;
    }
    let _: () = server.ask("SET foo 1").await;
    let _: () = server.ask("COPY foo elsewhere DB 3").await;
    let _: () = server.ask("DEL foo").await;
    let slots = [b"a".as_slice(), b"elsewhere"].map(slot_of_key);
    let told = door().slots_with_keys_of([server.address.clone(), nobody()]).await;
    assert_eq!(told[0], (server.address.clone(), Ok(slots.into())));
    assert!(told[1].1.is_err(), "{told:?}");
}
