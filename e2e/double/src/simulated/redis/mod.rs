//! A redis server as Codis runs it: strings, an append-only file, replication, `MIGRATE`, fences.
//!
//! Left out: values that aren't strings, `WATCH`, scripts, eviction, RDB files, transactions as one unit in the stream and
//! in the file, the output limits of normal clients and subscribers. A rewrite of the file is done at once.

mod admin;
mod core;
mod data;
mod info;
mod keys;
mod master;
mod migrate;
mod replica;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::core::{Redis, Server as Running};
use self::master::History;
use self::settings::Settings;
use super::clients::Clients;
use super::disk::Disk;
use super::process::Process;
use super::{Chance, Clock};
use crate::host::{self, Files};

/// What a process takes before it loads.
const START: Duration = Duration::from_millis(20);
/// What loading a command takes.
const LOAD: Duration = Duration::from_micros(1);

/// What a server is to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It follows nobody.
    Master,
    /// It follows `master` (`host:port`).
    Replica {
        /// Whom, as it was told.
        master: String,
        /// Whether it is in step with it.
        up: bool,
    },
}

/// A server, seen from inside; copies are the same one. What is asked here costs no time and no connection.
#[derive(Clone)]
pub struct Server(Running);

/// Starts `redis-server <conf_path>` on the current host. It listens at once, and loads what is on the disk.
pub fn start(disk: Disk, conf_path: &str) -> Server {
    let conf = disk.read(conf_path).ok().flatten();
    let text = String::from_utf8_lossy(conf.as_deref().unwrap_or_default()).into_owned();
    let (settings, master) = Settings::parse(&text);
    let life = disk.open();
    let mut chance = Chance::new(life);
    let clock = Clock::here();
    let process = Process::new(Redis {
        clients: Clients::default(),
        logs: settings.flag("appendonly"),
        settings,
        conf_path: conf_path.into(),
        disk,
        life,
        run_id: chance.id(),
        history: History::new(&mut chance),
        started: clock.ms(),
        clock,
        chance,
        keys: keys::Keys::default(),
        loading: true,
        follow: None,
        good: 0,
        acked: Arc::new(Notify::new()),
        commands: 0,
        connections: 0,
        wrote: false,
    });
    let running = process.clone();
    let has_conf = conf.is_some();
    let guard = process.life();
    process.spawn(async move {
        let _guard = guard;
        if !has_conf {
            running.end(Err("Fatal error, can't open config file".into()));
            return;
        }
        let why = run(running.clone(), master).await;
        running.end(Err(why));
    });
    Server(process)
}

/// Serves until it is killed; tells why it can't.
async fn run(server: Running, master: Option<(String, u16)>) -> String {
    let port = server.core().settings.number("port");
    let listener = match host::listen(&format!("0.0.0.0:{port}")).await {
        Ok(listener) => listener,
        Err(error) => return format!("Failed listening on port {port}: {error}"),
    };
    let accepting = server.clone();
    server.spawn(accepting.accept(listener));
    load(&server).await;
    if let Some((host, port)) = master {
        server.core().begin_following(&host, port, false, &server);
    }
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        let _turn = server.turn().await;
        let mut core = server.core();
        core.cron();
        core.clients.flush();
    }
}

async fn load(server: &Running) {
    sleep(START).await;
    let (logs, path, disk) = {
        let core = server.core();
        (core.logs, core.log_path(), core.disk.clone())
    };
    let commands = if logs { disk.load(&path) } else { Vec::new() };
    sleep(LOAD * u32::try_from(commands.len()).unwrap_or(u32::MAX)).await;
    let _turn = server.turn().await;
    let mut core = server.core();
    for command in commands {
        core.load(BytesMut::from(&command.bytes[..]), command.database);
    }
    core.loading = false;
}

impl Redis {
    /// Where the append-only file is.
    fn log_path(&self) -> String {
        let folder = match self.settings.text("dir") {
            "" => self.conf_path.rsplit_once('/').map_or("", |(folder, _)| folder),
            folder => folder.trim_end_matches('/'),
        };
        format!("{folder}/appendonlydir")
    }
}

impl Server {
    /// Whom it follows.
    pub fn role(&self) -> Role {
        match &self.0.core().follow {
            None => Role::Master,
            Some(follow) => Role::Replica {
                master: format!("{}:{}", follow.host, follow.port),
                up: follow.is_up(),
            },
        }
    }

    /// Bytes of its history.
    pub fn offset(&self) -> u64 {
        self.0.core().history.offset
    }

    /// The name of its history (`master_replid`).
    pub fn replid(&self) -> String {
        self.0.core().history.id.clone()
    }

    /// What tells this process from the one before (`run_id`).
    pub fn run_id(&self) -> String {
        self.0.core().run_id.clone()
    }

    /// How many keys it holds, in all databases.
    pub fn keys(&self) -> u64 {
        self.0.core().keys.count()
    }

    /// A value; none if there is no such key or its time is over.
    pub fn get(&self, database: u32, key: &[u8]) -> Option<Bytes> {
        let core = self.0.core();
        let now = core.clock.ms();
        let entry = core.keys.get(database, key)?;
        entry.until.is_none_or(|until| until > now).then(|| entry.value.clone())
    }

    /// Connections that are no replicas'.
    pub fn clients(&self) -> usize {
        self.0.core().connected()
    }

    /// How many full and partial synchronisations it has served.
    pub fn synchronisations(&self) -> (u64, u64) {
        let core = self.0.core();
        (core.history.full_syncs, core.history.partial_syncs)
    }

    /// Whether it reads its file or a master's dump.
    pub fn is_loading(&self) -> bool {
        self.0.core().loading
    }

    /// A parameter by its old name (`slave`); empty if it isn't known.
    pub fn setting(&self, key: &str) -> String {
        self.0.core().settings.text(key).to_owned()
    }

    /// SIGTERM: writes and syncs its file, and ends.
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
