//! A sentinel: pings and questions, subjective and objective death, elections, failovers, and greetings that let the
//! newest configuration win. Constants are those of redis 7.0's `sentinel.c`, which 3.2 shares.
//!
//! Left out: scripts, ACLs, passwords of its own, host names, `SIMULATE-FAILURE`, links shared between masters.

mod commands;
mod failover;
mod hello;
mod info;
mod links;
mod state;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use self::state::Watcher;
use super::clients::Clients;
use super::conf::Conf;
use super::disk::Disk;
use super::process::Process;
use super::{Chance, Clock};
use crate::host::{self, Files};

const HELLO: &str = "__sentinel__:hello";
/// Milliseconds, all of them.
const PING_PERIOD: i64 = 1_000;
const INFO_PERIOD: i64 = 10_000;
const PUBLISH_PERIOD: i64 = 2_000;

type Running = Arc<Process<Watcher>>;

/// A sentinel, seen from inside; copies are the same one.
#[derive(Clone)]
pub struct Sentinel(Running);

/// Starts `redis-server <conf_path> --sentinel` on the current host.
pub fn start(disk: Disk, conf_path: &str) -> Sentinel {
    let conf = disk.read(conf_path).ok().flatten();
    let text = String::from_utf8_lossy(conf.as_deref().unwrap_or_default()).into_owned();
    let (life, clock) = (disk.open(), Clock::here());
    let watcher = read(Conf::parse(&text), disk, conf_path, life, clock);
    let process = Process::new(watcher);
    let running = process.clone();
    let has_conf = conf.is_some();
    let guard = process.life();
    process.spawn(async move {
        let _guard = guard;
        if !has_conf {
            running.end(Err("Sentinel needs config file on disk".into()));
            return;
        }
        let why = run(running.clone()).await;
        running.end(Err(why));
    });
    Sentinel(process)
}

fn read(conf: Conf, disk: Disk, conf_path: &str, life: u64, clock: Clock) -> Watcher {
    let mut chance = Chance::new(life);
    let (sentinel, base): (Vec<_>, Vec<_>) = conf.0.into_iter().partition(|line| line[0] == "sentinel");
    let port = base
        .iter()
        .find(|line| line[0] == "port")
        .and_then(|line| line.get(1)?.parse().ok());
    let port = port.unwrap_or(26379);
    let mut watcher = Watcher {
        clients: Clients::default(),
        disk,
        conf_path: conf_path.into(),
        life,
        base: Conf(base),
        started: clock.ms(),
        clock,
        myid: chance.id(),
        chance,
        ip: String::new(),
        local_ip: String::new(),
        port,
        announced_port: port,
        epoch: 0,
        masters: BTreeMap::new(),
        tilt_since: 0,
        last_tick: 0,
        serial: 0,
        unsaved: true,
        events: Vec::new(),
    };
    let now = watcher.started;
    for line in sentinel {
        let words: Vec<&str> = line[1..].iter().map(String::as_str).collect();
        watcher.configure(&words, now);
    }
    watcher
}

/// Serves until it is killed; tells why it can't.
async fn run(process: Running) -> String {
    let port = process.core().port;
    let listener = match host::listen(&format!("0.0.0.0:{port}")).await {
        Ok(listener) => listener,
        Err(error) => return format!("Failed listening on port {port}: {error}"),
    };
    let accepting = process.clone();
    process.spawn(accepting.accept(listener));
    loop {
        let pause = {
            let mut core = process.core();
            core.tick(&process);
            core.clients.flush();
            // As often as the real one, which draws it so that sentinels do not start elections at once.
            Duration::from_millis(1_000 / (10 + core.chance.next() % 10))
        };
        sleep(pause).await;
    }
}

impl Sentinel {
    /// Its id.
    pub fn myid(&self) -> String {
        self.0.core().myid.clone()
    }

    /// The names of its masters.
    pub fn names(&self) -> Vec<String> {
        self.0.core().masters.keys().cloned().collect()
    }

    /// The address (`ip:port`) that it tells clients for a master.
    pub fn master(&self, name: &str) -> Option<String> {
        let (ip, port) = self.0.core().masters.get(name)?.current();
        Some(format!("{ip}:{port}"))
    }

    /// The epoch of a master's configuration.
    pub fn config_epoch(&self, name: &str) -> Option<u64> {
        self.0.core().masters.get(name).map(|master| master.config_epoch)
    }

    /// Whether it takes a master for down: by itself, and by quorum.
    pub fn is_down(&self, name: &str) -> Option<(bool, bool)> {
        let core = self.0.core();
        let master = core.masters.get(name)?;
        Some((master.own.is_down(), master.is_objectively_down()))
    }

    /// Whether it leads or tries to lead a failover of a master.
    pub fn is_failing_over(&self, name: &str) -> bool {
        self.0
            .core()
            .masters
            .get(name)
            .is_some_and(state::Master::is_failing_over)
    }

    /// How many replicas and other sentinels it knows of a master.
    pub fn known(&self, name: &str) -> Option<(usize, usize)> {
        let core = self.0.core();
        let master = core.masters.get(name)?;
        Some((master.replicas.len(), master.sentinels.len()))
    }

    /// Its last events, some thousand of them: when (milliseconds since 1970), which, about whom.
    pub fn events(&self) -> Vec<(i64, String, String)> {
        self.0.core().events.clone()
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.0.end(Ok(()));
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// The inner one: why it couldn't start, or `killed`.
    pub fn has_ended(&self) -> Option<Result<(), String>> {
        self.0.has_ended()
    }

    /// Waits until it ends, and tells how.
    ///
    /// # Errors
    /// Why it couldn't start, or `killed`.
    pub async fn ended(&self) -> Result<(), String> {
        self.0.ended().await
    }
}
