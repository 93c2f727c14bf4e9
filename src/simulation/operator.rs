//! The operator in a world: `reconcile` under the world's own scheduler, killed wherever the world wants.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::Service,
};
use kube::{
    Api, ResourceExt as _,
    runtime::{
        controller::{Action, Config, Controller},
        watcher,
    },
};
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
};

use super::{api::ApiServer, fabric::Fabric, git::Repository, trace::Trace};
use crate::{
    api::CodisCluster,
    cluster::{Cluster, WriteGate},
    codis::{Link, Network, Stream},
    controller::{Context, Error, Requeue, reconcile},
    domain::Address,
    gitops::{self, git::Git},
    telemetry::{Clock, Effects, Metrics},
};

/// Events of one cluster within this time are one reason to look, as in production.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// A process that ended is started again after this.
const RESTART: Duration = Duration::from_secs(2);

/// When an operator is killed, at one of its effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The effect isn't sent.
    Before,
    /// It is done and answered; nothing comes after it.
    After,
    /// It is done, and the answer never arrives.
    Lost,
}

/// What is counted and told of effects, and where to crash.
#[derive(Clone, Default)]
pub struct Hook(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    /// Effects that were sent, by the order in which they were.
    sent: Vec<&'static str>,
    crash: Option<(usize, Moment)>,
    /// The process is to die now: nothing is sent any more.
    dying: bool,
    /// It is to die when the next effect is asked for.
    last: bool,
}

impl Hook {
    /// Crashes at the n-th effect from the beginning of the world, counted from 0.
    pub fn crash_at(&self, number: usize, moment: Moment) {
        self.counts().crash = Some((number, moment));
    }

    /// The effects that were sent so far.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.counts().sent.len()
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.counts().sent.clone()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asked before each effect: whether it may be sent, and whether its answer is to be lost.
    fn ask(&self, effect: &'static str) -> Result<bool, String> {
        let mut counts = self.counts();
        if counts.dying || counts.last {
            counts.dying = true;
            return Err("the operator is dead".to_owned());
        }
        let due = counts.crash.filter(|(number, _)| *number == counts.sent.len());
        if let Some((_, moment)) = due {
            counts.crash = None;
            match moment {
                Moment::Before => {
                    counts.dying = true;
                    return Err("the operator dies before this".to_owned());
                }
                Moment::After | Moment::Lost => counts.last = true,
            }
        }
        counts.sent.push(effect);
        Ok(due.is_some_and(|(_, moment)| moment == Moment::Lost))
    }

    /// Dies when the effect is on its way, and before anybody could answer.
    fn die_soon(&self, dead: Arc<Notify>) {
        let hook = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut counts = hook.counts();
            if counts.last {
                counts.dying = true;
                dead.notify_one();
            }
        });
    }

    fn is_dying(&self) -> bool {
        self.counts().dying
    }

    fn reborn(&self) {
        let mut counts = self.counts();
        (counts.dying, counts.last) = (false, false);
    }
}

/// The operator's machine and what it needs to start on it.
pub struct Operator {
    /// Its address.
    pub ip: Ipv4Addr,
    api: ApiServer,
    fabric: Fabric,
    clock: Clock,
    trace: Trace,
    hook: Hook,
    wake: Arc<Notify>,
    dead: Arc<Notify>,
    running: Option<JoinHandle<()>>,
    deaths: usize,
    /// Where its one Git source is, if it serves any.
    pub git: Option<Repository>,
}

impl Operator {
    /// An operator that isn't started.
    #[must_use]
    pub fn new(ip: Ipv4Addr, api: ApiServer, fabric: Fabric, clock: Clock, trace: Trace) -> Self {
        fabric.plug(ip);
        Self {
            ip,
            api,
            fabric,
            clock,
            trace,
            hook: Hook::default(),
            wake: Arc::default(),
            dead: Arc::default(),
            running: None,
            deaths: 0,
            git: None,
        }
    }

    /// What is counted of its effects.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.hook.clone()
    }

    /// Something that it watches has changed.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends when it is to die.
    pub async fn dying(&self) {
        self.dead.notified().await;
    }

    /// How often it was killed.
    #[must_use]
    pub fn deaths(&self) -> usize {
        self.deaths
    }

    /// Whether its process runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.running.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Starts its process: without any memory.
    pub fn start(&mut self, namespace: &str, name: &str) {
        let context = self.context();
        let (key, wake) = ((namespace.to_owned(), name.to_owned()), self.wake.clone());
        let trace = self.trace.clone();
        let sources = self.git.clone().map(|git| sources(&context, git, self.clock));
        self.running = Some(tokio::spawn(async move {
            // Both are one process: they end together.
            let mut beside = JoinSet::new();
            if let Some(sources) = sources {
                beside.spawn(sources);
            }
            work(&context, &key, &wake, &trace).await;
        }));
    }

    /// Starts its process for every cluster that there is: woken by its own watches, as in production.
    pub fn start_for_all(&mut self) {
        let (client, context) = (self.api.client(), self.context());
        self.running = Some(tokio::spawn(work_for_all(client, context)));
    }

    /// What a process begins with.
    fn context(&self) -> Arc<Context> {
        self.hook.reborn();
        let (hook, trace) = (self.hook.clone(), self.trace.clone());
        let dead = self.dead.clone();
        let effects = Effects::new(move |door, effect| match hook.ask(effect) {
            Ok(is_last_word) => {
                trace.tell(format!("operator: {door}/{effect}"));
                if is_last_word {
                    hook.die_soon(dead.clone());
                }
                Ok(())
            }
            Err(why) => {
                dead.notify_one();
                Err(why)
            }
        });
        let door = Cluster::new(self.api.client(), WriteGate::open(), effects.clone(), "simulated");
        let link = Link::over(Arc::new(Cable {
            fabric: self.fabric.clone(),
            ip: self.ip,
        }));
        Context::within(door, effects, Metrics::default(), true, self.clock, link)
    }

    /// Kills it, where it is.
    pub fn kill(&mut self) {
        if let Some(task) = self.running.take() {
            self.deaths += 1;
            task.abort();
        }
    }

    /// Ends it if it was to crash; after a while it is started again. Says whether it was.
    pub fn bury(&mut self) -> bool {
        let dies = self.hook.is_dying() && self.is_up();
        if dies {
            self.trace.tell("operator: dies");
            self.kill();
        }
        dies
    }

    /// How long a dead one stays away.
    #[must_use]
    pub fn away() -> Duration {
        RESTART
    }
}

/// What it does for Git sources, as in production.
fn sources(context: &Context, git: Repository, clock: Clock) -> impl Future<Output = ()> + Send + use<> {
    let (door, metrics, git) = (
        context.cluster.clone(),
        context.metrics.clone(),
        Git::over(Arc::new(git)),
    );
    async move {
        // It fails only where there is a folder to watch.
        let _ = gitops::serve(door, metrics, git, clock, None, std::future::pending()).await;
    }
}

async fn work(context: &Context, key: &(String, String), wake: &Notify, trace: &Trace) {
    let mut failed = 0;
    loop {
        let pause = match Box::pin(reconcile(context, &key.0, &key.1)).await {
            Ok(Requeue::Never) => Duration::from_secs(3600),
            Ok(Requeue::After(pause)) => {
                failed = 0;
                pause
            }
            Err(error) => {
                trace.tell(format!("operator: a pass failed: {error}"));
                failed += 1;
                error.requeue(failed)
            }
        };
        tokio::select! {
            biased;
            () = wake.notified() => tokio::time::sleep(DEBOUNCE.min(pause)).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The loop of production, in the world.
async fn work_for_all(client: kube::Client, context: Arc<Context>) {
    let config = watcher::Config::default();
    Controller::new(Api::<CodisCluster>::all(client.clone()), config.clone())
        .owns(Api::<StatefulSet>::all(client.clone()), config.clone())
        .owns(Api::<Deployment>::all(client.clone()), config.clone())
        .owns(Api::<Service>::all(client), config)
        .with_config(Config::default().debounce(DEBOUNCE))
        .run(
            async |cluster, context| {
                let namespace = cluster.namespace().unwrap_or_default();
                match Box::pin(reconcile(&context, &namespace, &cluster.name_any())).await? {
                    Requeue::Never => Ok(Action::await_change()),
                    Requeue::After(time) => Ok(Action::requeue(time)),
                }
            },
            |_, error: &Error, _| Action::requeue(error.requeue(1)),
            context,
        )
        .for_each(async |_| {})
        .await;
}

/// The operator's way to Codis.
struct Cable {
    fabric: Fabric,
    ip: Ipv4Addr,
}

impl Network for Cable {
    fn connect(&self, peer: &Address) -> BoxFuture<'static, std::io::Result<Box<dyn Stream>>> {
        let opened = self.fabric.connect(self.ip, &peer.to_string());
        Box::pin(async move { Ok(Box::new(opened.await?.stream) as Box<dyn Stream>) })
    }
}
