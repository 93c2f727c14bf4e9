//! The door to Codis against real redis-servers, a real redis-sentinel and proxies of the stand-in on loopback.
//!
//! Without `redis-server` on the PATH they are skipped, loudly; with `REQUIRE_REDIS=1` they fail.
#![allow(
    clippy::unwrap_used,
    reason = "the lint's exception for tests doesn't know helpers of tests"
)]

mod proxies;
mod servers;

use std::{
    collections::HashMap,
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use codis_operator::{
    codis::{Codis, Error, SentinelSettings, Timeouts, names},
    domain::{Address, GroupId, Replication, ServerView},
    telemetry::Effects,
};

const PASSWORD: &str = "prodpw";

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

const SETTINGS: SentinelSettings = SentinelSettings {
    quorum: 2,
    parallel_syncs: 1,
    down_after: Duration::from_secs(5),
    failover_timeout: Duration::from_secs(60),
};

/// A redis-server or redis-sentinel that ends with its test.
struct Process {
    child: Child,
    folder: PathBuf,
    address: Address,
    password: Option<&'static str>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Whether redis is there. Its absence is an error where `REQUIRE_REDIS=1`.
fn redis_is_here() -> bool {
    let here = Command::new("redis-server")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !here {
        assert!(
            std::env::var_os("REQUIRE_REDIS").is_none_or(|required| required != "1"),
            "redis-server isn't on the PATH, and REQUIRE_REDIS=1"
        );
        eprintln!("SKIPPED: redis-server isn't on the PATH");
    }
    here
}

impl Process {
    async fn start(config: &str, sentinel: bool, password: Option<&'static str>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = folder.join("redis.conf");
        let common = format!("bind 127.0.0.1\nport {port}\ndir {}\n", folder.display());
        fs::write(&file, format!("{common}{config}")).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file).args(sentinel.then_some("--sentinel"));
        let process = Self {
            child: command.stdout(Stdio::null()).spawn().unwrap(),
            folder,
            address: Address::new("127.0.0.1", port),
            password,
        };
        eventually("it listens", async || process.try_ask::<String>("PING").await.is_ok()).await;
        process
    }

    async fn server(more: &str) -> Self {
        let config =
            format!("save \"\"\nrequirepass {PASSWORD}\nmasterauth {PASSWORD}\nrepl-diskless-sync-delay 0\n{more}");
        Self::start(&config, false, Some(PASSWORD)).await
    }

    async fn replica_of(master: &Address) -> Self {
        Self::server(&format!("replicaof {} {}\n", master.host(), master.port())).await
    }

    async fn sentinel() -> Self {
        Self::start("", true, None).await
    }

    async fn try_ask<T: redis::FromRedisValue>(&self, line: &str) -> redis::RedisResult<T> {
        let password = self.password.map(|p| format!(":{p}@")).unwrap_or_default();
        // In the client's URL there is no way to keep it from introducing itself, which would count as commands.
        let info = redis::IntoConnectionInfo::into_connection_info(format!("redis://{password}{}", self.address))?;
        let quiet = info.redis_settings().clone().set_skip_set_lib_name();
        let client = redis::Client::open(info.set_redis_settings(quiet))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command
            .arg(words.collect::<Vec<_>>())
            .query_async(&mut connection)
            .await
    }

    async fn ask<T: redis::FromRedisValue>(&self, line: &str) -> T {
        self.try_ask(line).await.unwrap()
    }

    /// The rows of `SENTINEL masters`.
    async fn masters(&self) -> Vec<HashMap<String, String>> {
        self.ask("SENTINEL masters").await
    }
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn door_with(password: Option<&str>, effects: Effects) -> Codis {
    let no_dashboard = Address::new("127.0.0.1", 1);
    Codis::new("demo", password, no_dashboard, effects, Timeouts::default()).unwrap()
}

fn door() -> Codis {
    door_with(Some(PASSWORD), Effects::none())
}

fn group(number: u64) -> GroupId {
    GroupId::try_from(number).unwrap()
}

fn nobody() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Address::new("127.0.0.1", listener.local_addr().unwrap().port())
}

#[tokio::test]
async fn a_master_is_seen_with_its_keys_in_all_databases() {
    if !redis_is_here() {
        return;
    }
    let master = Process::server("").await;
    let _: () = master.ask("MSET a 1 b 2").await;
    let _: bool = master.ask("COPY a c DB 3").await;
    let view = door().server(&master.address).await;
    let ServerView::Up { replication, keys, .. } = view else {
        panic!("{view:?}");
    };
    assert_eq!((replication, keys), (Replication::Master, 3));
}

#[tokio::test]
async fn a_replica_is_seen_with_its_link_and_reaches_its_masters_offset() {
    if !redis_is_here() {
        return;
    }
    let master = Process::server("").await;
    let replica = Process::replica_of(&master.address).await;
    let _: () = master.ask("SET a 1").await;
    let addresses = [master.address.clone(), replica.address.clone()];
    eventually("the replica has the master's offset", async || {
        let views = door().servers(addresses.clone()).await;
        let (
            ServerView::Up { offset, .. },
            ServerView::Up {
                replication,
                offset: reached,
                keys,
                ..
            },
        ) = (&views[&addresses[0]], &views[&addresses[1]])
        else {
            return false;
        };
        let linked = Replication::Replica {
            master: addresses[0].clone(),
            link_up: true,
        };
        *replication == linked && *keys == 1 && *offset > 0 && reached == offset
    })
    .await;
    drop(master);
    eventually("the link is down", async || {
        let view = door().server(&replica.address).await;
        matches!(
            view,
            ServerView::Up {
                replication: Replication::Replica { link_up: false, .. },
                ..
            }
        )
    })
    .await;
}

#[tokio::test]
async fn a_wrong_or_missing_or_needless_password_is_told_in_redis_words() {
    if !redis_is_here() {
        return;
    }
    let locked = Process::server("").await;
    let open = Process::start("save \"\"\n", false, None).await;
    for (password, server, expected) in [
        (Some("hunter2"), &locked, "WRONGPASS "),
        (None, &locked, "NOAUTH "),
        (Some(""), &locked, "NOAUTH "),
        (
            Some("hunter2"),
            &open,
            "ERR AUTH <password> called without any password configured",
        ),
    ] {
        let view = door_with(password, Effects::none()).server(&server.address).await;
        let ServerView::Unreachable(why) = view else {
            panic!("{view:?}");
        };
        assert!(why.starts_with(expected), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
}

#[tokio::test]
async fn nothing_but_auth_and_info_is_asked_and_no_connection_stays() {
    if !redis_is_here() {
        return;
    }
    let server = Process::start("save \"\"\nrequirepass prodpw\n", false, Some(PASSWORD)).await;
    let _: () = server.ask("CONFIG RESETSTAT").await;
    for _ in 0..5 {
        assert!(matches!(door().server(&server.address).await, ServerView::Up { .. }));
    }
    // The connection that asks for the statistics says AUTH, too.
    let statistics: String = server.ask("INFO commandstats").await;
    let mut calls: Vec<&str> = statistics
        .lines()
        .filter_map(|line| line.split_once(",usec="))
        .map(|(calls, _)| calls)
        .filter(|calls| !calls.contains("config|resetstat"))
        .collect();
    calls.sort_unstable();
    assert_eq!(calls, ["cmdstat_auth:calls=6", "cmdstat_info:calls=5"]);
    eventually("only the asking connection is open", async || {
        server
            .ask::<String>("INFO clients")
            .await
            .contains("connected_clients:1\r\n")
    })
    .await;
}

#[tokio::test]
async fn a_sentinel_watches_what_it_is_told_to_with_all_settings() {
    if !redis_is_here() {
        return;
    }
    let master = Process::server("").await;
    let replica = Process::replica_of(&master.address).await;
    let sentinel = Process::sentinel().await;
    let counted = Arc::new(AtomicU32::new(0));
    let counter = counted.clone();
    let effects = Effects::new(move |door, effect| {
        assert_eq!((door, effect), ("codis", names::MONITOR));
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    let door = door_with(Some(PASSWORD), effects);
    let nothing = door.sentinels([sentinel.address.clone()]).await;
    assert!(nothing[&sentinel.address].as_ref().unwrap().masters.is_empty());

    door.monitor(&sentinel.address, group(1), &master.address, &SETTINGS)
        .await
        .unwrap();
    assert_eq!(counted.load(Ordering::Relaxed), 1);
    let row = sentinel.masters().await.remove(0);
    for (field, value) in [
        ("name", "demo-1"),
        ("quorum", "2"),
        ("parallel-syncs", "1"),
        ("down-after-milliseconds", "5000"),
        ("failover-timeout", "60000"),
    ] {
        assert_eq!(row[field], value, "{field}");
    }
    // It finds the replica in the master's INFO only with the right auth-pass.
    eventually("the sentinel knows the replica", async || {
        let views = door.sentinels([sentinel.address.clone()]).await;
        let known = views[&sentinel.address]
            .as_ref()
            .unwrap()
            .masters
            .get("demo-1")
            .cloned();
        known.is_some_and(|known| {
            known.address == master.address
                && (known.replicas, known.other_sentinels) == (1, 0)
                && known.flags == "master"
                && known.silent_ms < 2_000
        })
    })
    .await;
    drop(replica);
}

#[tokio::test]
async fn telling_a_sentinel_again_keeps_the_address_and_renews_the_settings() {
    if !redis_is_here() {
        return;
    }
    let sentinel = Process::sentinel().await;
    let (first, second) = (nobody(), nobody());
    door()
        .monitor(&sentinel.address, group(7), &first, &SETTINGS)
        .await
        .unwrap();
    let settings = SentinelSettings {
        failover_timeout: Duration::from_secs(30),
        ..SETTINGS
    };
    door()
        .monitor(&sentinel.address, group(7), &second, &settings)
        .await
        .unwrap();
    let rows = sentinel.masters().await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["port"], first.port().to_string());
    assert_eq!(rows[0]["failover-timeout"], "30000");
}

#[tokio::test]
async fn a_sentinel_that_is_redirected_watches_the_present_address_only() {
    if !redis_is_here() {
        return;
    }
    let sentinel = Process::sentinel().await;
    let (door, taken, present) = (door(), nobody(), nobody());
    for known in [Some(&taken), None] {
        if let Some(known) = known {
            let told = door.monitor(&sentinel.address, group(7), known, &SETTINGS);
            told.await.unwrap();
        }
        let redirected = door.redirect(&sentinel.address, group(7), &present, &SETTINGS);
        redirected.await.unwrap();
        let rows = sentinel.masters().await;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["port"], present.port().to_string(), "it knew {known:?}");
        assert_eq!(rows[0]["failover-timeout"], "60000");
    }
}

#[tokio::test]
async fn a_sentinel_that_refuses_watches_nothing() {
    if !redis_is_here() {
        return;
    }
    let sentinel = Process::sentinel().await;
    for settings in [
        SentinelSettings { quorum: 0, ..SETTINGS },
        SentinelSettings {
            down_after: Duration::ZERO,
            ..SETTINGS
        },
    ] {
        let error = door()
            .monitor(&sentinel.address, group(1), &nobody(), &settings)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(sentinel.masters().await.is_empty(), "{settings:?}");
    }
}

#[tokio::test]
async fn an_introduction_that_is_held_back_isnt_made() {
    if !redis_is_here() {
        return;
    }
    let sentinel = Process::sentinel().await;
    let door = door_with(None, Effects::new(|_, _| Err("lost".to_owned())));
    let error = door
        .monitor(&sentinel.address, group(1), &nobody(), &SETTINGS)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Injected { .. }), "{error}");
    assert!(sentinel.masters().await.is_empty());
}

#[tokio::test]
async fn who_isnt_there_or_isnt_a_sentinel_is_an_error_in_words() {
    if !redis_is_here() {
        return;
    }
    let server = Process::start("save \"\"\n", false, None).await;
    let gone = nobody();
    let views = door().sentinels([server.address.clone(), gone.clone()]).await;
    let (not_one, nowhere) = (&views[&server.address], &views[&gone]);
    assert!(
        not_one
            .as_ref()
            .unwrap_err()
            .starts_with("ERR unknown command 'SENTINEL'"),
        "{not_one:?}"
    );
    assert!(
        nowhere.as_ref().unwrap_err().contains("Connection refused"),
        "{nowhere:?}"
    );
    let view = door().server(&gone).await;
    assert!(
        matches!(&view, ServerView::Unreachable(why) if why.contains("Connection refused")),
        "{view:?}"
    );
}

#[tokio::test]
async fn a_fence_is_seen_and_lifted() {
    if !redis_is_here() {
        return;
    }
    let server = Process::server("min-slaves-to-write 1\n").await;
    let fenced = async || {
        matches!(
            door().server(&server.address).await,
            ServerView::Up { fenced: true, .. }
        )
    };
    assert!(fenced().await);
    door().unfence(&server.address, 0).await.unwrap();
    assert!(!fenced().await);
}
