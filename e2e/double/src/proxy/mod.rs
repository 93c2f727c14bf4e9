//! `codis-proxy`: routes clients' commands by slot; owns nothing, is told everything by the dashboard (§8).

mod api;
mod backend;
mod jodis;
mod keys;
mod pull;
mod replicas;
mod router;
mod session;
mod stats;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::config::ProxyConfig;
use crate::host::{self, Listener, Socket};
use crate::logging::LogLevel;
use crate::rpc::Rpc;
use crate::sentinel::watch::{Learnt, Masters, Watch, Watcher};
use crate::stop::Stop;
use crate::store::Store;
use crate::timings::Timings;
use crate::wire::{self, Slot, Topom};
use crate::{http, identity};
use jodis::Jodis;
use router::Router;
use stats::Stats;

/// What a proxy is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `proxy.toml` and what the command line says over it.
    pub config: ProxyConfig,
    /// `--host-admin`.
    pub host_admin: Option<String>,
    /// `--host-proxy`.
    pub host_proxy: Option<String>,
    /// `--dashboard`: registers itself there.
    pub dashboard: Option<String>,
    /// `--zookeeper`, `--etcd`, `--filesystem`: registers itself with who holds the lock in this store.
    pub store: Option<Store>,
    /// `--fillslots`: goes online with these, without a dashboard.
    pub slots: Option<Vec<Slot>>,
    /// Waiting times.
    pub timings: Timings,
    /// What `loglevel` calls change.
    pub log_level: LogLevel,
}

impl Options {
    /// Where the dashboard is, as far as that can be told now.
    async fn find_dashboard(&self) -> Option<String> {
        match &self.store {
            Some(store) => store.topom().await.ok().flatten().map(|topom| topom.admin_addr),
            None => self.dashboard.clone(),
        }
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Handle {
    /// Where its admin API listens.
    pub admin_addr: SocketAddr,
    /// Where clients connect.
    pub proxy_addr: SocketAddr,
    /// What it tells of itself.
    pub model: wire::Proxy,
    /// Its insides, for those who run it in their own process.
    pub view: View,
    stop: Stop,
    task: JoinHandle<Result<()>>,
}

/// A look into a proxy.
#[derive(Clone)]
pub struct View(Arc<Inner>);

impl View {
    /// Whether it serves clients.
    pub fn is_online(&self) -> bool {
        self.0.is_online() && !self.0.stop.is_raised()
    }

    /// SIGTERM: all clients are cut off.
    pub fn shutdown(&self) {
        self.0.stop.raise();
    }

    /// Clients that are connected.
    pub fn sessions(&self) -> i64 {
        self.0.stats.alive.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.model.admin_addr)
    }
}

impl Handle {
    /// Ends it; the dashboard is not told.
    pub fn shutdown(&self) {
        self.stop.raise();
    }

    /// The signal that ends it, for those who outlive the handle.
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Ends when it has ended; an error means that it gave up.
    pub async fn wait(self) -> Result<()> {
        self.task.await.context("proxy ended")?
    }
}

/// A proxy's insides.
pub(crate) struct Inner {
    config: ProxyConfig,
    timings: Timings,
    xauth: String,
    model: wire::Proxy,
    router: Router,
    stats: Stats,
    stop: Stop,
    log_level: LogLevel,
    online: AtomicBool,
    went_online: Notify,
    started: Instant,
    turn: AtomicUsize,
    watcher: Watcher,
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    servers: Vec<String>,
    masters: Masters,
}

/// Opens both ports and waits to be brought online.
pub async fn start(options: Options) -> Result<Handle> {
    let config = &options.config;
    config.validate()?;
    let clients = host::listen(&config.proxy_addr)
        .await
        .with_context(|| format!("listen {}", config.proxy_addr))?;
    let admin = host::listen(&config.admin_addr)
        .await
        .with_context(|| format!("listen {}", config.admin_addr))?;
    let (admin_addr, proxy_addr) = (admin.local(), clients.local());
    let model = model(&options, admin_addr, proxy_addr)?;
    let jodis = Jodis::of(config, &model, options.timings.jodis_pause)?;
    let stop = Stop::default();
    let (watcher, learnt) = Watcher::new();
    let inner = Arc::new(Inner {
        xauth: identity::xauth(&[&config.product_name, &config.product_auth, &model.token]),
        router: Router::new(backend_settings(config, &options.timings), config.backend_primary_only),
        config: config.clone(),
        timings: options.timings.clone(),
        model: model.clone(),
        stats: Stats::default(),
        stop: stop.clone(),
        log_level: options.log_level.clone(),
        online: AtomicBool::new(false),
        went_online: Notify::new(),
        started: Instant::now(),
        turn: AtomicUsize::new(0),
        watcher,
        watched: Mutex::default(),
    });
    let view = View(inner.clone());
    let server = http::serve(admin, inner.clone(), stop.clone());
    let announced = host::spawn(inner.clone().announce(jodis));
    let task = host::spawn(inner.run(options, clients, server, learnt, announced));
    Ok(Handle {
        admin_addr,
        proxy_addr,
        model,
        view,
        stop,
        task,
    })
}

fn model(options: &Options, admin_addr: SocketAddr, proxy_addr: SocketAddr) -> Result<wire::Proxy> {
    let config = &options.config;
    let parts = [
        config.product_name.as_str(),
        &proxy_addr.to_string(),
        &admin_addr.to_string(),
    ];
    let token = identity::token(&identity::macs(), &parts);
    Ok(wire::Proxy {
        id: 0,
        jodis_path: jodis::path(config, &token),
        token,
        start_time: identity::start_time(),
        admin_addr: identity::advertise(options.host_admin.as_deref(), admin_addr)?,
        proto_type: config.proto_type.clone(),
        proxy_addr: identity::advertise(options.host_proxy.as_deref(), proxy_addr)?,
        product_name: config.product_name.clone(),
        pid: identity::pid(),
        pwd: identity::pwd(),
        sys: identity::sys(),
        hostname: identity::hostname(),
        datacenter: config.proxy_datacenter.clone(),
    })
}

fn backend_settings(config: &ProxyConfig, timings: &Timings) -> backend::Settings {
    backend::Settings {
        auth: config.product_auth.clone(),
        dial: timings.backend_dial,
        backoff: timings.backend_backoff,
        recv_timeout: config.backend_recv_timeout.0,
        ping_period: config.backend_ping_period.0,
        max_pipeline: usize::try_from(config.backend_max_pipeline).unwrap_or(1).max(1),
    }
}

impl Inner {
    async fn run(
        self: Arc<Self>,
        mut options: Options,
        clients: Box<dyn Listener>,
        server: JoinHandle<()>,
        learnt: Learnt,
        announced: JoinHandle<()>,
    ) -> Result<()> {
        let mut tasks = JoinSet::new();
        let inner = self.clone();
        host::join_in(&mut tasks, async move { inner.accept(clients).await });
        let inner = self.clone();
        host::join_in(&mut tasks, async move { inner.follow(learnt).await });
        if let Some(slots) = options.slots.take() {
            self.router.fill(slots).await?;
            self.go_online();
        }
        let mut outcome = Ok(());
        if options.dashboard.is_some() || options.store.is_some() {
            outcome = self.stop.unless(self.register(&options)).await.unwrap_or(Ok(()));
        }
        if outcome.is_err() {
            self.stop.raise();
        }
        self.stop.raised().await;
        tasks.shutdown().await;
        let _ = server.await;
        let _ = announced.await;
        tracing::warn!("proxy is exiting ...");
        outcome
    }

    /// Tells clients of this proxy for as long as it is online.
    async fn announce(self: Arc<Self>, jodis: Option<Jodis>) {
        if let Some(jodis) = jodis
            && self.stop.unless(self.went_online.notified()).await.is_some()
        {
            jodis.keep(&self.stop).await;
        }
    }

    fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }

    fn go_online(&self) {
        if !self.online.swap(true, Ordering::AcqRel) {
            tracing::warn!("proxy is working ...");
            self.went_online.notify_one();
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the sentinels that are listened to.
    fn watch(&self, servers: Vec<String>) {
        *self.watched() = Watched {
            servers,
            masters: Masters::new(),
        };
        self.rewatch();
    }

    fn rewatch(&self) {
        let servers = self.watched().servers.clone();
        let (product, timings) = (self.config.product_name.clone(), self.timings.clone());
        self.watcher.restart(
            Watch {
                servers,
                product,
                timings,
            },
            &self.stop,
        );
    }

    async fn follow(&self, mut learnt: Learnt) {
        while let Some(masters) = learnt.next().await {
            self.watched().masters.clone_from(&masters);
            self.router
                .switch(&masters, &self.config.product_auth, self.timings.run_id_timeout)
                .await;
        }
    }

    /// Asks the dashboard to bring this proxy online (§8.3).
    async fn register(&self, options: &Options) -> Result<()> {
        let rpc = Rpc::new(&self.timings);
        // With a store the dashboard may still be waiting for the lock, so Codis is three times as patient.
        let tries = self.timings.register_tries * if options.store.is_some() { 3 } else { 1 };
        for attempt in 0..tries {
            if attempt > 0 {
                tokio::time::sleep(self.timings.register_pause).await;
            }
            let Some(dashboard) = options.find_dashboard().await else {
                tracing::warn!("[{attempt}] fetch dashboard address failed");
                continue;
            };
            let topom = match rpc.get::<Topom>(&dashboard, "/api/topom/model").await {
                Ok(topom) => topom,
                Err(error) => {
                    tracing::warn!("[{attempt}] fetch dashboard model failed: {error}");
                    continue;
                }
            };
            if topom.product_name != self.config.product_name {
                bail!("unexcepted product name, got {}", topom.product_name);
            }
            let xauth = identity::xauth(&[&self.config.product_name]);
            match rpc
                .put(
                    &dashboard,
                    &format!("/api/topom/proxy/online/{xauth}/{}", self.model.admin_addr),
                )
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!("[{attempt}] online proxy failed: {error}"),
            }
        }
        bail!("online proxy failed")
    }

    async fn accept(self: Arc<Self>, mut clients: Box<dyn Listener>) {
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = sessions.join_next() => {}
                accepted = clients.accept() => match accepted {
                    Ok(socket) => host::join_in(&mut sessions, self.clone().admit(socket)),
                    // Out of descriptors, most likely: some session has to end first.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                },
            }
        }
    }

    async fn admit(self: Arc<Self>, mut socket: Socket) {
        let _alive = Alive::new(&self.stats);
        let refusal = if !self.is_online() {
            "-ERR router is not online\r\n"
        } else if self.stats.alive.load(Ordering::Relaxed) > self.config.proxy_max_clients {
            "-ERR max number of clients reached\r\n"
        } else {
            return session::serve(self.clone(), socket).await;
        };
        // The connection is closed next, whether or not this arrives.
        let _ = socket.stream.write_all(refusal.as_bytes()).await;
        let _ = socket.stream.shutdown().await;
    }
}

/// Counts a session for as long as it lives.
struct Alive<'a>(&'a Stats);

impl<'a> Alive<'a> {
    fn new(stats: &'a Stats) -> Self {
        stats.sessions.fetch_add(1, Ordering::Relaxed);
        stats.alive.fetch_add(1, Ordering::Relaxed);
        Self(stats)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::Relaxed);
    }
}
