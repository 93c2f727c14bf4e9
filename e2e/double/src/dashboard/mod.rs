//! `codis-dashboard`: the only writer of the store, behind one mutex that every handler holds over its calls to
//! proxies and sentinels (§2).

mod api;
mod groups;
mod haul;
mod looks;
mod loops;
mod moves;
mod promote;
mod proxies;
pub mod rebalance;
mod sentinels;
mod slots;
pub mod state;
mod viewer;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use tokio::sync::MutexGuard;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::DashboardConfig;
use crate::host;
use crate::http::{self, Refusal};
use crate::identity;
use crate::logging::LogLevel;
use crate::rpc::Rpc;
use crate::sentinel::watch::{Learnt, Watcher};
use crate::stop::Stop;
use crate::store::{Coordinator, Store};
use crate::timings::Timings;
use crate::wire::Topom;
use looks::Looks;
use moves::Mover;
use state::State;

/// What a dashboard is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `dashboard.toml` and what the command line says over it.
    pub config: DashboardConfig,
    /// `--host-admin`.
    pub host_admin: Option<String>,
    /// `--remove-lock`.
    pub remove_lock: bool,
    /// Waiting times.
    pub timings: Timings,
    /// What `loglevel` calls change.
    pub log_level: LogLevel,
}

/// A running dashboard.
#[derive(Debug)]
pub struct Handle {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it tells of itself.
    pub model: Topom,
    /// Its insides, for those who run it in their own process.
    pub view: View,
    stop: Stop,
    task: JoinHandle<Result<()>>,
}

/// A look into a dashboard.
#[derive(Clone)]
pub struct View(Arc<Dashboard>);

impl View {
    /// Whether it holds its lock.
    pub fn is_online(&self) -> bool {
        self.0.online.load(Ordering::Acquire) && !self.0.stop.is_raised()
    }

    /// SIGTERM: the lock is released.
    pub fn shutdown(&self) {
        self.0.stop.raise();
    }

    /// Its groups, as they are stored; nothing while it is busy or has read nothing yet.
    pub fn groups(&self) -> Option<Vec<crate::wire::Group>> {
        let state = self.0.state.try_lock().ok()?;
        state.loaded.then(|| state.groups.values().cloned().collect())
    }

    /// The group of each slot, 0 for none; nothing while it is busy or has read nothing yet.
    pub fn slot_owners(&self) -> Option<Vec<i64>> {
        let state = self.0.state.try_lock().ok()?;
        state
            .loaded
            .then(|| state.slots.iter().map(|slot| slot.group_id).collect())
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.model.admin_addr)
    }
}

impl Handle {
    /// Ends it cleanly: the lock is released.
    pub fn shutdown(&self) {
        self.stop.raise();
    }

    /// Kills it: the lock stays, as after SIGKILL.
    pub fn kill(&self) {
        // Aborted first: only then does raising the signal not release the lock.
        self.task.abort();
        self.stop.raise();
    }

    /// The signal that ends it, for those who outlive the handle.
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Ends when it has ended; an error means that it gave up.
    pub async fn wait(self) -> Result<()> {
        self.task.await.context("dashboard ended")?
    }
}

/// Opens the port and begins to wait for the lock.
pub async fn start(options: Options) -> Result<Handle> {
    let config = options.config;
    config.validate()?;
    let coordinator = Coordinator::open(
        &config.coordinator_name,
        &config.coordinator_addr,
        &config.coordinator_auth,
    )?;
    let listener = host::listen(&config.admin_addr)
        .await
        .with_context(|| format!("listen {}", config.admin_addr))?;
    let addr = listener.local();
    let model = Topom {
        token: identity::token(&identity::macs(), &[&config.product_name, &addr.to_string()]),
        start_time: identity::start_time(),
        admin_addr: identity::advertise(options.host_admin.as_deref(), addr)?,
        product_name: config.product_name.clone(),
        pid: identity::pid(),
        pwd: identity::pwd(),
        sys: identity::sys(),
    };
    let stop = Stop::default();
    let (watcher, learnt) = Watcher::new();
    let dashboard = Arc::new(Dashboard {
        xauth: identity::xauth(&[&config.product_name]),
        rpc: Rpc::new(&options.timings),
        timings: options.timings,
        log_level: options.log_level,
        model: model.clone(),
        stop: stop.clone(),
        store: coordinator.product(&config.product_name),
        config,
        online: AtomicBool::new(false),
        state: tokio::sync::Mutex::default(),
        looks: Mutex::default(),
        mover: Mover::default(),
        watcher,
    });
    let view = View(dashboard.clone());
    let server = http::serve(listener, dashboard.clone(), stop.clone());
    let task = host::spawn(dashboard.run(server, options.remove_lock, learnt));
    Ok(Handle {
        addr,
        model,
        view,
        stop,
        task,
    })
}

/// A dashboard's insides.
pub(crate) struct Dashboard {
    pub(crate) config: DashboardConfig,
    pub(crate) timings: Timings,
    pub(crate) xauth: String,
    pub(crate) model: Topom,
    pub(crate) rpc: Rpc,
    pub(crate) store: Store,
    pub(crate) log_level: LogLevel,
    pub(crate) stop: Stop,
    online: AtomicBool,
    state: tokio::sync::Mutex<State>,
    looks: Mutex<Looks>,
    pub(crate) mover: Mover,
    watcher: Watcher,
}

/// Ends the server with the dashboard, so that a killed one closes its port.
struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Dashboard {
    async fn run(self: Arc<Self>, server: JoinHandle<()>, remove_lock: bool, learnt: Learnt) -> Result<()> {
        let mut server = Server(server);
        if remove_lock && let Err(error) = self.store.release().await {
            tracing::warn!("force remove-lock failed: {error}");
        }
        match self.acquire().await {
            None => {}
            Some(false) => {
                self.stop.raise();
                bail!("dashboard online failed, give up & abort");
            }
            Some(true) => {
                self.online.store(true, Ordering::Release);
                tracing::warn!("dashboard is working ...");
                let mut loops = self.clone().start_loops(learnt).await;
                self.stop.raised().await;
                let _ = (&mut server.0).await;
                loops.shutdown().await;
                if let Err(error) = self.store.release().await {
                    // The end is clean nevertheless, as with Codis; the lock is a stale one then.
                    tracing::error!("store: release lock failed: {error}");
                }
            }
        }
        tracing::warn!("dashboard is exiting ...");
        Ok(())
    }

    /// Takes the lock, or gives up (§10); nothing is told when it is asked to stop. A try is never cut off: the lock
    /// could be taken by it, and nobody would release it.
    async fn acquire(&self) -> Option<bool> {
        for attempt in 0..self.timings.lock_tries {
            if attempt > 0 {
                self.stop.unless(tokio::time::sleep(self.timings.lock_pause)).await?;
            }
            match self.store.acquire(&self.model).await {
                Ok(()) => return Some(true),
                Err(error) => tracing::warn!("[{attempt}] dashboard online failed: acquire lock: {error}"),
            }
        }
        Some(false)
    }

    /// The one mutex; refuses unless online.
    pub(crate) async fn open(&self) -> Result<MutexGuard<'_, State>, Refusal> {
        self.check_open()?;
        if !self.online.load(Ordering::Acquire) {
            return Err("topom is not online".into());
        }
        let mut state = self.state.lock().await;
        self.check_open()?;
        if !state.loaded {
            *state = State::load(&self.store).await?;
        } else if self.store.is_doubtful() && state.next_look.is_none_or(|time| time <= Instant::now()) {
            self.look_again(&mut state).await;
        }
        Ok(state)
    }

    /// Reads what is stored after a failed write, which may have been done nevertheless. What is known stays in use
    /// while the store is away (§6.7), and looking does not take up all of the time.
    async fn look_again(&self, state: &mut State) {
        let begun = Instant::now();
        match State::load(&self.store).await {
            Ok(stored) => *state = stored,
            Err(_) => state.next_look = Some(Instant::now() + 2 * begun.elapsed()),
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), Refusal> {
        if self.stop.is_raised() {
            Err("use of closed topom".into())
        } else {
            Ok(())
        }
    }

    pub(crate) fn looks(&self) -> std::sync::MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
