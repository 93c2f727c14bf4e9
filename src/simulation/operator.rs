//! The operator in a world: `reconcile` under the world's own scheduler, killed wherever the world wants.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use codis_double::host::Tasks;
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
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{api::ApiServer, fabric::Fabric, git::Repository, trace::Trace};
use crate::{
    api::CodisCluster,
    cluster::{Candidate, Cluster, Election, Timing, WriteGate},
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

/// Who may write, of all operators: never two at the same time.
#[derive(Clone, Default)]
pub struct Gates(Arc<Mutex<Leaders>>);

#[derive(Default)]
struct Leaders {
    gates: Vec<(&'static str, WriteGate)>,
    clash: Option<String>,
}

impl Gates {
    /// What two of them did at the same time, if that ever happened.
    #[must_use]
    pub fn clash(&self) -> Option<String> {
        self.open().clash.clone()
    }

    fn set(&self, who: &'static str, gate: WriteGate) {
        let mut leaders = self.open();
        leaders.gates.retain(|(name, _)| *name != who);
        leaders.gates.push((who, gate));
    }

    /// Somebody sends an effect.
    fn note(&self, who: &'static str, effect: &'static str) {
        let mut leaders = self.open();
        let mut others = leaders.gates.iter().filter(|(name, _)| *name != who);
        if let Some((other, _)) = others.find(|(_, gate)| gate.is_open()) {
            leaders.clash = Some(format!("{who} sends {effect} while {other} leads"));
        }
    }

    fn open(&self) -> MutexGuard<'_, Leaders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The operator's machine and what it needs to start on it.
pub struct Operator {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its name: in traces, and in whose name it asks the API server.
    pub who: &'static str,
    api: ApiServer,
    fabric: Fabric,
    clock: Clock,
    trace: Trace,
    hook: Hook,
    wake: Arc<Notify>,
    dead: Arc<Notify>,
    running: Option<JoinHandle<()>>,
    /// The present process's tasks.
    tasks: Tasks,
    deaths: usize,
    starts: usize,
    /// When a dead one is started again.
    revives: Option<Instant>,
    /// Among several: it works only while it has the Lease.
    elected: Option<Gates>,
    /// Where its one Git source is, if it serves any.
    pub git: Option<Repository>,
}

impl Operator {
    /// An operator that isn't started.
    #[must_use]
    pub fn new(
        (ip, who): (Ipv4Addr, &'static str),
        api: ApiServer,
        fabric: Fabric,
        clock: Clock,
        trace: Trace,
        dead: Arc<Notify>,
    ) -> Self {
        fabric.plug(ip);
        Self {
            ip,
            who,
            api,
            fabric,
            clock,
            trace,
            hook: Hook::default(),
            wake: Arc::default(),
            dead,
            running: None,
            tasks: Tasks::default(),
            deaths: 0,
            starts: 0,
            revives: None,
            elected: None,
            git: None,
        }
    }

    /// From its next start on it competes for the Lease.
    pub fn elect(&mut self, gates: Gates) {
        self.elected = Some(gates);
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
        self.starts += 1;
        self.tasks = Tasks::default();
        let (key, wake) = ((namespace.to_owned(), name.to_owned()), self.wake.clone());
        let duty = Duty {
            key,
            wake,
            trace: self.trace.clone(),
            who: self.who,
            git: self.git.clone(),
            clock: self.clock,
        };
        let Some(gates) = self.elected.clone() else {
            let context = self.context(WriteGate::open());
            let process = async move { duty.serve(&context).await };
            self.running = Some(tokio::spawn(self.tasks.gate(process)));
            return;
        };
        let candidate = Candidate {
            namespace: "default".to_owned(),
            lease: "codis-operator".to_owned(),
            identity: format!("{}/{}", self.who, self.starts),
        };
        // Renewals are no effects on a cluster: a world is quiet with them.
        let client = self.api.client_of(self.who);
        let (election, gate, leading) = Election::new(client, candidate, Timing::default(), Effects::none());
        gates.set(self.who, gate.clone());
        let context = self.context(gate);
        let process = async move {
            tokio::select! {
                biased;
                () = duty.lead(&context, leading) => {}
                () = election.run(std::future::pending()) => {}
            }
        };
        self.running = Some(tokio::spawn(self.tasks.gate(process)));
    }

    /// Starts its process for every cluster that there is: woken by its own watches, as in production.
    pub fn start_for_all(&mut self) {
        let (client, context) = (self.api.client(), self.context(WriteGate::open()));
        self.running = Some(tokio::spawn(work_for_all(client, context)));
    }

    /// What a process begins with.
    fn context(&self, gate: WriteGate) -> Arc<Context> {
        self.hook.reborn();
        let (hook, trace, who) = (self.hook.clone(), self.trace.clone(), self.who);
        let dead = self.dead.clone();
        let (own, gates) = (gate.clone(), self.elected.clone());
        let effects = Effects::new(move |door, effect| {
            // As in production, effects on Codis pass the same gate as writes to Kubernetes.
            own.pass().map_err(|error| error.to_string())?;
            if let Some(gates) = &gates {
                gates.note(who, effect);
            }
            match hook.ask(effect) {
                Ok(is_last_word) => {
                    trace.tell(format!("{who}: {door}/{effect}"));
                    if is_last_word {
                        hook.die_soon(dead.clone());
                    }
                    Ok(())
                }
                Err(why) => {
                    dead.notify_one();
                    Err(why)
                }
            }
        });
        let door = Cluster::new(self.api.client_of(who), gate, effects.clone(), "simulated");
        let link = Link::over(Arc::new(Cable {
            fabric: self.fabric.clone(),
            ip: self.ip,
        }));
        Context::within(door, effects, Metrics::default(), true, self.clock, link)
    }

    /// Kills it, where it is; it is started again after this time.
    pub fn kill(&mut self, away: Duration) {
        if let Some(task) = self.running.take() {
            self.deaths += 1;
            task.abort();
        }
        self.revives = Some(Instant::now() + away);
    }

    /// SIGSTOP or SIGCONT.
    pub fn freeze(&self, frozen: bool) {
        self.tasks.freeze(frozen);
    }

    /// Ends it if it was to crash, and starts it again when it is time.
    pub fn tend(&mut self, namespace: &str, name: &str) {
        if self.hook.is_dying() && self.is_up() {
            self.trace.tell(format!("{}: dies", self.who));
            self.kill(RESTART);
        } else if self.running.as_ref().is_some_and(JoinHandle::is_finished) {
            // It lost the Lease.
            self.running = None;
            self.revives = Some(Instant::now() + RESTART);
        }
        if self.revives.is_some_and(|at| at <= Instant::now()) {
            self.revives = None;
            self.trace.tell(format!("{}: starts", self.who));
            self.start(namespace, name);
        }
    }
}

/// What a process does while it leads.
struct Duty {
    key: (String, String),
    wake: Arc<Notify>,
    trace: Trace,
    who: &'static str,
    git: Option<Repository>,
    clock: Clock,
}

impl Duty {
    /// Works from when it leads until it leads no more.
    async fn lead(&self, context: &Context, leading: watch::Receiver<bool>) {
        until(leading.clone(), true).await;
        self.trace.tell(format!("{}: leads", self.who));
        tokio::select! {
            biased;
            () = until(leading, false) => self.trace.tell(format!("{}: leads no more", self.who)),
            () = self.serve(context) => {}
        }
    }

    async fn serve(&self, context: &Context) {
        // Both are one process: they end together.
        let mut beside = JoinSet::new();
        if let Some(git) = self.git.clone() {
            beside.spawn(sources(context, git, self.clock));
        }
        work(context, &self.key, &self.wake, &self.trace, self.who).await;
    }
}

async fn until(mut leading: watch::Receiver<bool>, wanted: bool) {
    let _ = leading.wait_for(|leads| *leads == wanted).await;
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

async fn work(context: &Context, key: &(String, String), wake: &Notify, trace: &Trace, who: &str) {
    let mut failed = 0;
    loop {
        let pause = match Box::pin(reconcile(context, &key.0, &key.1)).await {
            Ok(Requeue::Never) => Duration::from_secs(3600),
            Ok(Requeue::After(pause)) => {
                failed = 0;
                pause
            }
            Err(error) => {
                trace.tell(format!("{who}: a pass failed: {error}"));
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
