//! The simulated machines: what runs in pods, on their addresses, with their volumes.

mod machine;
mod scripts;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use codis_double::{
    dashboard, host,
    host::Tasks,
    proxy,
    simulated::{disk::Disk, redis, sentinel},
};
use jiff::SignedDuration;
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use super::{
    fabric::Fabric,
    kube::{Exit, Launch, Process, Runtime},
};
use crate::{domain::ports, telemetry::Clock};
pub use machine::Machine;

/// All pods. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub struct Pods(Arc<Inner>);

struct Inner {
    fabric: Fabric,
    clock: Clock,
    seed: u64,
    /// How far the clocks of nodes may be wrong.
    skew: SignedDuration,
    changed: Arc<Notify>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    disks: BTreeMap<String, Disk>,
    running: BTreeMap<(String, String), Running>,
    /// Those whose pod was replaced while they ran: their node isn't heard.
    replaced: Vec<Running>,
    started: u64,
}

/// A container that was started, whether or not it ended.
#[derive(Clone)]
pub struct Running {
    /// Its pod's address.
    pub ip: Ipv4Addr,
    /// Its node.
    pub node: String,
    /// The volume at /data.
    pub volume: Option<String>,
    /// The process's tasks.
    pub tasks: Tasks,
    /// What it offers.
    pub serves: Serves,
    /// The last word of its command, without its folder: which script it is.
    pub script: String,
    exit: Arc<Mutex<Option<Exit>>>,
    /// Tells this container from others, also of the same pod: later ones have greater numbers.
    pub number: u64,
}

/// What a process offers, for those who look inside.
#[derive(Clone, Default)]
pub struct Serves(Arc<Offer>);

#[derive(Default)]
struct Offer {
    what: Mutex<What>,
    stop: Notify,
}

#[derive(Clone, Default)]
enum What {
    #[default]
    Nothing,
    Other,
    Redis(redis::Server),
    Sentinel(sentinel::Sentinel),
    Dashboard(dashboard::View),
    Proxy(proxy::View),
}

impl Serves {
    fn set(&self, what: What) {
        *lock(&self.0.what) = what;
    }

    fn get(&self) -> What {
        lock(&self.0.what).clone()
    }

    fn redis(&self, server: redis::Server) {
        self.set(What::Redis(server));
    }

    fn sentinel(&self, sentinel: sentinel::Sentinel) {
        self.set(What::Sentinel(sentinel));
    }

    fn dashboard(&self, view: dashboard::View) {
        self.set(What::Dashboard(view));
    }

    fn proxy(&self, view: proxy::View) {
        self.set(What::Proxy(view));
    }

    fn stopper(&self) {
        self.set(What::Other);
    }

    async fn stopped(&self) {
        self.0.stop.notified().await;
    }

    /// The redis that runs here.
    #[must_use]
    pub fn as_redis(&self) -> Option<redis::Server> {
        match self.get() {
            What::Redis(server) => Some(server),
            _ => None,
        }
    }

    /// What it has to tell of itself, in one line: nothing of much change.
    #[must_use]
    pub fn summary(&self) -> String {
        match self.get() {
            What::Nothing => "starting".to_owned(),
            What::Other => "up".to_owned(),
            What::Redis(server) => server_line(&server),
            What::Sentinel(sentinel) => sentinel_line(&sentinel),
            What::Proxy(view) => if view.is_online() { "online" } else { "waiting" }.to_owned(),
            What::Dashboard(view) => match view.groups() {
                Some(groups) => dashboard_line(&groups),
                None => "busy".to_owned(),
            },
        }
    }

    /// The dashboard that runs here.
    #[must_use]
    pub fn as_dashboard(&self) -> Option<dashboard::View> {
        match self.get() {
            What::Dashboard(view) => Some(view),
            _ => None,
        }
    }

    /// The proxy that runs here.
    #[must_use]
    pub fn as_proxy(&self) -> Option<proxy::View> {
        match self.get() {
            What::Proxy(view) => Some(view),
            _ => None,
        }
    }

    /// SIGTERM.
    fn terminate(&self) {
        match self.get() {
            What::Nothing => {}
            What::Other => self.0.stop.notify_one(),
            What::Redis(server) => server.terminate(),
            What::Sentinel(sentinel) => sentinel.terminate(),
            What::Dashboard(view) => view.shutdown(),
            What::Proxy(view) => view.shutdown(),
        }
    }
}

impl Pods {
    /// No pods yet. `changed` is told when a process ends by itself.
    #[must_use]
    pub fn new(fabric: Fabric, clock: Clock, (seed, skew): (u64, SignedDuration), changed: Arc<Notify>) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Inner {
            fabric,
            clock,
            seed,
            skew,
            changed,
            state,
        }))
    }

    /// The containers that were started last in their pods, by namespace and pod.
    #[must_use]
    pub fn all(&self) -> BTreeMap<(String, String), Running> {
        lock(&self.0.state).running.clone()
    }

    /// The containers that run, also those of pods that exist no more.
    #[must_use]
    pub fn all_that_run(&self) -> Vec<Running> {
        let state = lock(&self.0.state);
        let all = state.running.values().chain(&state.replaced);
        all.filter(|running| running.is_up()).cloned().collect()
    }

    /// The number of the container that was started last.
    #[must_use]
    pub fn started(&self) -> u64 {
        lock(&self.0.state).started
    }

    /// What was last started in a pod.
    #[must_use]
    pub fn get(&self, namespace: &str, pod: &str) -> Option<Running> {
        let key = (namespace.to_owned(), pod.to_owned());
        lock(&self.0.state).running.get(&key).cloned()
    }

    /// A volume.
    #[must_use]
    pub fn disk(&self, volume: &str) -> Option<Disk> {
        lock(&self.0.state).disks.get(volume).cloned()
    }

    /// Every other node's clock is ahead, the others' are behind.
    fn skew(&self, node: &str) -> SignedDuration {
        let is_ahead = node.bytes().last().is_some_and(|last| last % 2 == 0);
        if is_ahead { self.0.skew } else { -self.0.skew }
    }

    fn machine(&self, launch: &Launch, disk: &Disk, number: u64) -> Arc<Machine> {
        self.0.fabric.plug(launch.ip);
        Arc::new(Machine {
            // What servers and sentinels draw by chance comes from this name, so from the seed.
            name: format!("{}/{}/{}/{number}", self.0.seed, launch.namespace, launch.pod),
            ip: launch.ip,
            fabric: self.0.fabric.clone(),
            clock: self.0.clock,
            skew: self.skew(&launch.node),
            files: Arc::new(disk.clone()),
            tasks: Tasks::default(),
        })
    }
}

impl Runtime for Pods {
    fn start(&mut self, launch: Launch) -> Box<dyn Process> {
        let key = (launch.namespace.clone(), launch.pod.clone());
        let (disk, number) = {
            let mut state = lock(&self.0.state);
            state.started += 1;
            let disk = match &launch.volume {
                Some(volume) => state.disks.entry(volume.clone()).or_default().clone(),
                None => Disk::default(),
            };
            (disk, state.started)
        };
        let machine = self.machine(&launch, &disk, number);
        let running = Running {
            ip: launch.ip,
            node: launch.node.clone(),
            volume: launch.volume.clone(),
            tasks: machine.tasks.clone(),
            serves: Serves::default(),
            script: launch
                .command
                .last()
                .and_then(|word| word.rsplit('/').next())
                .unwrap_or_default()
                .to_owned(),
            exit: Arc::default(),
            number,
        };
        let pod = scripts::Pod {
            launch,
            disk,
            serves: running.serves.clone(),
        };
        let (exit, changed, tasks) = (running.exit.clone(), self.0.changed.clone(), machine.tasks.clone());
        host::within(machine, async move {
            let code = pod.run().await;
            lock(&exit).get_or_insert(code);
            changed.notify_one();
            // Whatever else the process began ends with it.
            tasks.kill();
        });
        {
            let mut state = lock(&self.0.state);
            state.replaced.retain(Running::is_up);
            let before = state.running.insert(key.clone(), running.clone());
            state.replaced.extend(before.filter(Running::is_up));
        }
        let pods = self.clone();
        Box::new(Container { pods, key, running })
    }

    fn delete_volume(&mut self, volume: &str) {
        lock(&self.0.state).disks.remove(volume);
    }
}

/// What the kubelet holds.
struct Container {
    pods: Pods,
    key: (String, String),
    running: Running,
}

impl Process for Container {
    fn ended(&self) -> Option<Exit> {
        lock(&self.running.exit).clone()
    }

    fn probe(&self, probe: &Value) -> bool {
        let running = &self.running;
        if self.ended().is_some() || running.tasks.is_frozen() {
            return false;
        }
        if probe.get("tcpSocket").is_some() {
            let port = match running.script.as_str() {
                "server.sh" => ports::SERVER,
                "sentinel.sh" => ports::SENTINEL,
                _ => ports::FE,
            };
            return self.pods.0.fabric.listens(running.ip, port);
        }
        match running.serves.get() {
            What::Dashboard(view) => view.is_online(),
            What::Proxy(view) => view.is_online(),
            What::Other => true,
            _ => false,
        }
    }

    fn terminate(&mut self, pre_stop: Option<&Value>) {
        let serves = self.running.serves.clone();
        let Some(drain) = pre_stop.and_then(|handler| handler["exec"]["command"].as_array().cloned()) else {
            return self.running.end(&serves, &self.pods.0.changed);
        };
        let seconds = |index: usize| {
            drain
                .get(index)
                .and_then(|word| word.as_str()?.parse().ok())
                .unwrap_or(0)
        };
        let (lingers, patience) = (Duration::from_secs(seconds(2)), Duration::from_secs(seconds(3)));
        let (running, changed) = (self.running.clone(), self.pods.0.changed.clone());
        tokio::spawn(async move {
            tokio::time::sleep(lingers).await;
            let end = Instant::now() + patience;
            while Instant::now() < end
                && !running.tasks.is_dead()
                && running.serves.as_proxy().is_some_and(|proxy| proxy.sessions() > 0)
            {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            running.end(&serves, &changed);
        });
    }

    fn kill(&mut self) {
        self.running.kill();
    }
}

impl Running {
    /// SIGKILL.
    pub fn kill(&self) {
        lock(&self.exit).get_or_insert(Exit {
            code: 137,
            message: String::new(),
        });
        self.tasks.kill();
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        lock(&self.exit).is_none()
    }

    /// SIGTERM. Who serves nothing yet ends at once.
    fn end(&self, serves: &Serves, changed: &Notify) {
        if matches!(serves.get(), What::Nothing) {
            lock(&self.exit).get_or_insert(Exit {
                code: 143,
                message: String::new(),
            });
            self.tasks.kill();
            changed.notify_one();
        } else {
            serves.terminate();
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The pod is gone, if nothing newer runs in it.
        let mut state = lock(&self.pods.0.state);
        let is_last = state
            .running
            .get(&self.key)
            .is_some_and(|last| last.number == self.running.number);
        if is_last {
            state.running.remove(&self.key);
            drop(state);
            self.running.kill();
            self.pods.0.fabric.unplug(self.running.ip);
        }
    }
}

fn server_line(server: &redis::Server) -> String {
    let data = if server.keys() == 0 { " empty" } else { "" };
    let is_fenced = server
        .setting("min-slaves-to-write")
        .parse()
        .is_ok_and(|least: i64| least > 0);
    match server.role() {
        redis::Role::Master if is_fenced => format!("master fenced{data}"),
        redis::Role::Master => format!("master{data}"),
        redis::Role::Replica { master, up: true } => format!("of {master}{data}"),
        redis::Role::Replica { master, up: false } => format!("of {master} (down){data}"),
    }
}

fn sentinel_line(sentinel: &sentinel::Sentinel) -> String {
    let line = |name: String| {
        let mark = match sentinel.is_down(&name) {
            Some((_, true)) => "!!",
            Some((true, _)) => "!",
            _ => "",
        };
        let (replicas, others) = sentinel.known(&name).unwrap_or_default();
        let master = sentinel.master(&name).unwrap_or_default();
        let epoch = sentinel.config_epoch(&name).unwrap_or_default();
        format!("{name}={master}{mark}+{replicas}r{others}s e{epoch}")
    };
    sentinel.names().into_iter().map(line).collect::<Vec<_>>().join(" ")
}

fn dashboard_line(groups: &[codis_double::wire::Group]) -> String {
    let group = |group: &codis_double::wire::Group| {
        let servers: Vec<&str> = group.servers.iter().map(|server| server.addr.as_str()).collect();
        let mark = if group.out_of_sync { "!" } else { "" };
        format!("g{}{mark}=[{}]{}", group.id, servers.join(" "), group.promoting.state)
    };
    groups.iter().map(group).collect::<Vec<_>>().join(" ")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
