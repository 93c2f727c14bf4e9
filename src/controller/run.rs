//! The loop in a process: elected, woken by watches, bounded, stopped gracefully.

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::Service,
};
use kube::{
    Api, ResourceExt,
    runtime::{
        controller::{Action, Config, Controller},
        watcher,
    },
};
use tokio::{net::TcpListener, sync::watch};

use super::{Context, Error, Requeue, reconcile};
use crate::{
    api::CodisCluster,
    cluster::{Candidate, Cluster, Election, Timing, connect},
    gitops,
    telemetry::{Effects, Metrics, serve},
};

/// Clusters that are looked at at the same time. kube's own default is unbounded.
const CONCURRENCY: u16 = 8;
/// Events of one cluster within this time are one reason to look.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// How long passes under way may take to end when the process is told to: less than the 30 s that a pod has.
const GRACE: Duration = Duration::from_secs(20);

/// Where the process is to crash, for tests: only where the stand-in for Codis may run.
const CRASH_AT: &str = "CODIS_CRASH_AT";

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where health and metrics are served, like `0.0.0.0:8080`.
    pub listen: String,
    /// The namespace of the Lease: the operator's own.
    pub namespace: String,
    /// This process among the candidates: the pod's name.
    pub identity: String,
    /// Whether the stand-in for Codis may be run.
    pub allow_stand_in: bool,
    /// How Git sources are served.
    pub gitops: gitops::Settings,
}

/// Runs until SIGTERM or SIGINT, or until the Lease is lost.
///
/// # Errors
/// When it can't start, or lost the Lease: the process must end then, since a pass may be under way.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let metrics = Metrics::default();
    let crashing = |inner: Effects| match std::env::var(CRASH_AT) {
        Ok(at) if settings.allow_stand_in => Effects::crashing(&at, inner).map_err(anyhow::Error::msg),
        _ => Ok(inner),
    };
    let effects = metrics.effects(crashing(Effects::none())?);
    let client = connect().await?;
    let (stop, stopping) = watch::channel(false);
    let (resign, resigning) = watch::channel(false);
    let (ready, is_ready) = watch::channel(false);
    let listener = TcpListener::bind(&settings.listen).await?;
    let server = tokio::spawn(serve(listener, metrics.clone(), is_ready, stopped(resigning.clone())));
    let candidate = Candidate {
        namespace: settings.namespace.clone(),
        lease: "codis-operator".to_owned(),
        identity: settings.identity.clone(),
    };
    let (election, gate, leading) = Election::new(client.clone(), candidate, Timing::default(), effects.clone());
    let election = tokio::spawn(election.run(stopped(resigning)));
    let door = Cluster::new(client.clone(), gate.clone(), effects, &settings.identity);
    // Effects on Codis pass the same gate as writes to Kubernetes.
    let on_codis = Effects::new(move |_, _| gate.pass().map(drop).map_err(|error| error.to_string()));
    let on_codis = metrics.effects(crashing(on_codis)?);
    let context = Context::new(door, on_codis, metrics, settings.allow_stand_in);
    ready.send_replace(true);
    tracing::info!(identity = settings.identity, "started");

    let lead = pin!(lead(client, context, settings.gitops, leading, &stopping));
    let outcome = until_told(lead, &stop).await;
    // What was cut off may go on at a dashboard: the Lease expires then, and nobody else acts before it has ended.
    if outcome.is_none() {
        election.abort();
    }
    resign.send_replace(true);
    // The Lease is given back, so that the next one needn't wait for it to expire.
    match election.await {
        Err(error) if !error.is_cancelled() => return Err(error.into()),
        _ => server.await??,
    }
    outcome.unwrap_or(Ok(()))
}

/// Leads until it ends or a signal comes. Then no pass begins any more, and those under way, a switchover perhaps, come to
/// their end before another process may lead: it would clear away what this one is about to finish. None when they
/// don't end in time.
async fn until_told(
    mut lead: Pin<&mut impl Future<Output = anyhow::Result<()>>>,
    stop: &watch::Sender<bool>,
) -> Option<anyhow::Result<()>> {
    tokio::select! {
        outcome = &mut lead => return Some(outcome),
        () = signal() => tracing::info!("stopping"),
    }
    stop.send_replace(true);
    let ended = tokio::time::timeout(GRACE, lead).await;
    if ended.is_err() {
        tracing::warn!("a pass is cut off");
    }
    ended.ok()
}

/// Waits for the Lease, runs the loop and the Git sources, and ends when the Lease is lost.
async fn lead(
    client: kube::Client,
    context: Arc<Context>,
    sources: gitops::Settings,
    mut leading: watch::Receiver<bool>,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    tokio::select! {
        leads = leading.wait_for(|leads| *leads) => drop(leads?),
        () = stopped(stopping.clone()) => return Ok(()),
    }
    tracing::info!("leading");
    context.metrics.leading(true);
    // Without it no pass gets far. The passes ask again, so that it may be mended meanwhile.
    if let Err(error) = context.cluster.kubernetes_uid().await {
        tracing::error!(%error, "this Kubernetes can't be told from others");
    }
    let lost = async {
        let _ = leading.wait_for(|leads| !*leads).await;
    };
    let (door, metrics) = (context.cluster.clone(), context.metrics.clone());
    let sources = gitops::run(door, metrics, sources, stopped(stopping.clone()));
    let clusters = watches(client, context, stopped(stopping.clone()));
    // Sources are never in the middle of what only they can finish: nobody waits for them in the end.
    let failed = async {
        match sources.await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    tokio::select! {
        () = clusters => Ok(()),
        error = failed => Err(error),
        () = lost => anyhow::bail!("the lease is lost"),
    }
}

async fn watches(
    client: kube::Client,
    context: Arc<Context>,
    stopping: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let attempts = Arc::new(Attempts::default());
    let failed = Arc::clone(&attempts);
    let config = watcher::Config::default();
    Controller::new(Api::<CodisCluster>::all(client.clone()), config.clone())
        .owns(Api::<StatefulSet>::all(client.clone()), config.clone())
        .owns(Api::<Deployment>::all(client.clone()), config.clone())
        .owns(Api::<Service>::all(client), config)
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .graceful_shutdown_on(stopping)
        .run(
            move |cluster, context| pass(cluster, context, Arc::clone(&attempts)),
            move |cluster, error: &Error, _| Action::requeue(error.requeue(failed.of(&key(&cluster)))),
            context,
        )
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "watch");
            }
        })
        .await;
}

fn key(cluster: &CodisCluster) -> (String, String) {
    (cluster.namespace().unwrap_or_default(), cluster.name_any())
}

/// One pass, counted and logged.
async fn pass(cluster: Arc<CodisCluster>, context: Arc<Context>, attempts: Arc<Attempts>) -> Result<Action, Error> {
    let (key, start) = (key(&cluster), context.clock.instant());
    let result = reconcile(&context, &key.0, &key.1).await;
    let word = result.as_ref().map_or_else(Error::category, |_| "ok");
    let took = context.clock.instant().duration_since(start);
    context.metrics.reconciled(word, took);
    match result {
        Ok(requeue) => {
            attempts.clear(&key);
            Ok(match requeue {
                Requeue::Never => Action::await_change(),
                Requeue::After(time) => Action::requeue(time),
            })
        }
        Err(error) => {
            tracing::warn!(namespace = key.0, cluster = key.1, %error, "a pass failed");
            attempts.count(key);
            Err(error)
        }
    }
}

/// Failures in a row, by cluster.
#[derive(Default)]
struct Attempts(Mutex<HashMap<(String, String), u32>>);

impl Attempts {
    fn of(&self, key: &(String, String)) -> u32 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .copied()
            .unwrap_or_default()
    }
    fn count(&self, key: (String, String)) {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default() += 1;
    }
    fn clear(&self, key: &(String, String)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => (),
        _ = tokio::signal::ctrl_c() => (),
    }
}
