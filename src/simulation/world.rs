//! A world: Kubernetes, Codis, an operator and clients, under one clock and one seed.

use std::{
    net::Ipv4Addr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};

use super::{
    api::{ApiServer, Fault},
    clients::{Ledger, Way},
    coordinator::{self, Etcd},
    fabric::Fabric,
    kube::{Kubernetes, Node},
    operator::{Gates, Operator},
    pods::{Pods, Running},
    resolve::Services,
    trace::Trace,
    weather::Weather,
};
use crate::{
    api::CodisCluster,
    seeded::{self, Bug},
    telemetry::Clock,
};

/// The one namespace of a world, and the one cluster in it.
pub const NAMESPACE: &str = "default";
/// The cluster's name.
pub const CLUSTER: &str = "c";
/// Kubernetes is looked after at least this often.
const TICK: Duration = Duration::from_millis(200);
/// The password of clients.
const SESSION: &str = "session";

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides every delay and every order.
    pub seed: u64,
    /// Whether servers keep their data on volumes.
    pub on_volumes: bool,
    /// Groups at the beginning.
    pub groups: u32,
    /// Servers of a group.
    pub replicas: u32,
    /// Two operators compete for the Lease.
    pub rivals: bool,
    /// How far clocks may differ, in seconds: those of the nodes, and the operators'.
    pub skew: i64,
    /// The topology is kept in an etcd outside of Kubernetes, not on the dashboard's volume.
    pub outside: bool,
    /// The cluster comes from a Git repository.
    pub from_git: bool,
    /// A mistake that is built in, in tests.
    pub bug: Option<Bug>,
}

/// A world.
pub struct World {
    /// What it was made of.
    pub plan: Plan,
    /// Its API server.
    pub api: ApiServer,
    /// Its network.
    pub fabric: Fabric,
    /// Its pods.
    pub pods: Pods,
    /// Its operator.
    pub operator: Operator,
    /// The other one, where two compete.
    pub rival: Option<Operator>,
    /// Who of them leads.
    pub gates: Gates,
    /// Their trouble with the API server.
    pub weather: Weather,
    /// How many hold their watches up at present.
    pub deafness: u32,
    /// Its etcd, if there is one.
    pub etcd: Option<Etcd>,
    /// What its clients know.
    pub ledger: Ledger,
    /// What happened.
    pub trace: Trace,
    clock: Clock,
    kubernetes: Arc<Mutex<Option<Kubernetes>>>,
    changed: Arc<Notify>,
    seen: u64,
    clients: u8,
}

impl World {
    /// A world with four nodes in two zones, an operator and the wish for a cluster. To be called within a runtime that has
    /// one thread.
    ///
    /// # Errors
    /// When its API server refuses the cluster.
    pub async fn new(plan: Plan) -> Result<Self> {
        let start: Timestamp = "2026-11-23T12:00:00Z".parse()?;
        let mut world = Self::bare(plan, start)?;
        if world.plan.from_git {
            world.begin_with_git().await?;
        } else {
            world.wish_for_a_cluster().await?;
        }
        if world.plan.rivals {
            world.compete();
        }
        world
            .operators()
            .for_each(|operator| operator.start(NAMESPACE, CLUSTER));
        Ok(world)
    }

    /// A world that nobody wished for anything in, at the time of day. Its operator serves every cluster. To be called within
    /// a runtime that has one thread; where tokio's time isn't paused the world runs in real time.
    ///
    /// # Errors
    /// When its API server refuses what is there from the beginning.
    pub fn empty(plan: Plan) -> Result<Self> {
        let mut world = Self::bare(plan, Timestamp::now())?;
        world.operator.start_for_all();
        Ok(world)
    }

    /// A world without a cluster, whose operator isn't started.
    fn bare(plan: Plan, start: Timestamp) -> Result<Self> {
        let clock = Clock::starting_at(start);
        let api = ApiServer::new(move || clock.now());
        let weather = Weather::over(&api, plan.seed);
        if seeded::has(Bug::StaleLists) {
            // A cache that lags for seconds does no harm (140 seeds of `hands`): this one misses the last changes for ever.
            api.set_faults(|asked| (asked.verb == "list").then_some(Fault::StaleList(40)));
        }
        let kubernetes = Arc::new(Mutex::new(None));
        let fabric = Fabric::new(plan.seed, Services::resolver(api.clone(), kubernetes.clone()));
        let changed = Arc::<Notify>::default();
        let trace = Trace::default();
        let skew = jiff::SignedDuration::from_secs(plan.skew);
        let pods = Pods::new(fabric.clone(), clock, (plan.seed, skew), changed.clone());
        let nodes: Vec<Node> = (0..4)
            .map(|index| Node {
                name: format!("node-{index}"),
                zone: format!("zone-{}", index % 2),
            })
            .collect();
        let made = Kubernetes::new(api.clone(), &nodes, Box::new(pods.clone()), plan.seed);
        *kubernetes.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        let me = (Ipv4Addr::new(10, 245, 0, 1), "operator");
        let own = Clock::starting_at(start.checked_sub(skew)?);
        let operator = Operator::new(me, api.clone(), fabric.clone(), own, trace.clone(), changed.clone());
        let etcd = plan.outside.then(|| Etcd::new(fabric.clone(), clock));
        let world = Self {
            plan,
            api,
            fabric,
            pods,
            operator,
            rival: None,
            gates: Gates::default(),
            weather,
            deafness: 0,
            etcd,
            ledger: Ledger::default(),
            trace,
            clock,
            kubernetes,
            changed,
            seen: 0,
            clients: 0,
        };
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "simulated", "volumeBindingMode": "WaitForFirstConsumer",
        });
        world.api.make("StorageClass", class).context("no storage class")?;
        Ok(world)
    }

    /// A second operator, and the Lease between them.
    fn compete(&mut self) {
        let other = (Ipv4Addr::new(10, 245, 0, 3), "operator-2");
        let (api, fabric, trace) = (self.api.clone(), self.fabric.clone(), self.trace.clone());
        let mut rival = Operator::new(other, api, fabric, self.clock, trace, self.changed.clone());
        rival.git.clone_from(&self.operator.git);
        self.rival = Some(rival);
        let gates = self.gates.clone();
        self.operators().for_each(|operator| operator.elect(gates.clone()));
    }

    /// Every operator that there is.
    pub fn operators(&mut self) -> impl Iterator<Item = &mut Operator> {
        std::iter::once(&mut self.operator).chain(self.rival.as_mut())
    }

    /// One of them.
    pub fn operator(&mut self, nth: usize) -> &mut Operator {
        match &mut self.rival {
            Some(rival) if nth % 2 == 1 => rival,
            _ => &mut self.operator,
        }
    }

    /// How many effects they sent.
    #[must_use]
    pub fn sent(&self) -> usize {
        let rival = self.rival.as_ref().map_or(0, |rival| rival.hook().sent());
        self.operator.hook().sent() + rival
    }

    /// Their names, one operator after the other.
    #[must_use]
    pub fn sent_names(&self) -> Vec<&'static str> {
        let rival = self.rival.as_ref().map(|rival| rival.hook().names());
        [self.operator.hook().names(), rival.unwrap_or_default()].concat()
    }

    async fn wish_for_a_cluster(&self) -> Result<()> {
        let cluster: CodisCluster = serde_json::from_value(self.spec())?;
        self.clusters().create(&PostParams::default(), &cluster).await?;
        Ok(())
    }

    /// The wish for the cluster, as a whole object.
    pub(super) fn spec(&self) -> Value {
        let plan = &self.plan;
        let mut server = json!({
            "image": "codis", "replicas": plan.groups * plan.replicas, "groupReplicas": plan.replicas,
        });
        if plan.on_volumes {
            server["requests"] = json!({"storage": "1Gi"});
        }
        let mut proxy = json!({"image": "codis", "replicas": 2, "sessionAuth": SESSION});
        let mut place = json!({"coordinatorName": "filesystem", "coordinatorAddr": "builtin"});
        if plan.outside {
            place = json!({"coordinatorName": "etcd", "coordinatorAddr": coordinator::address()});
            proxy["jodis"] = place.clone();
        }
        json!({
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster",
            "metadata": {"name": CLUSTER, "namespace": NAMESPACE},
            "spec": {
                "coordinatorName": place["coordinatorName"], "coordinatorAddr": place["coordinatorAddr"],
                "codisProxy": proxy,
                "codisServer": server,
                "codisDashboard": {"image": "codis", "productAuth": "product"},
                "sentinel": {"image": "codis", "replicas": 3},
            },
        })
    }

    fn clusters(&self) -> Api<CodisCluster> {
        Api::namespaced(self.api.client(), NAMESPACE)
    }

    /// A person changes the cluster's wish by a merge patch.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn wish(&self, patch: Value) -> Result<()> {
        self.trace.tell(format!("wish: {patch}"));
        let params = PatchParams::default();
        self.clusters().patch(CLUSTER, &params, &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// The cluster as it is now.
    #[must_use]
    pub fn cluster(&self) -> Option<Arc<Value>> {
        self.api.find("CodisCluster", NAMESPACE, CLUSTER)
    }

    /// Whether the present wish is said to be fulfilled; what is said otherwise.
    ///
    /// # Errors
    /// What the status says.
    pub fn ready(&self) -> Result<(), String> {
        let cluster = self.cluster().ok_or("there is no cluster")?;
        let none = Vec::new();
        let conditions = cluster["status"]["conditions"].as_array().unwrap_or(&none);
        let observed = &cluster["status"]["observedGeneration"];
        let told = conditions.iter().find(|condition| condition["type"] == "Ready");
        match told {
            Some(told) if told["status"] == "True" && *observed == cluster["metadata"]["generation"] => {
                self.as_in_git()
            }
            Some(told) => Err(format!("{}: {}", told["reason"], told["message"])),
            None => Err("nothing was said yet".to_owned()),
        }
    }

    /// A client begins to write.
    pub fn client(&mut self, pace: Duration) {
        self.clients += 1;
        let name = format!("k{}", self.clients);
        self.way()
            .write(Ipv4Addr::new(10, 246, 0, self.clients), name, pace, &self.ledger);
    }

    /// How clients find the cluster.
    #[must_use]
    pub fn way(&self) -> Way {
        Way {
            fabric: self.fabric.clone(),
            clock: self.clock,
            address: format!("{CLUSTER}-proxy.{NAMESPACE}.svc:19000"),
            password: SESSION.to_owned(),
        }
    }

    /// Kubernetes, for faults.
    ///
    /// # Panics
    /// Never: it is there from the beginning.
    pub fn kubernetes<T>(&self, act: impl FnOnce(&mut Kubernetes) -> T) -> Option<T> {
        self.open().as_mut().map(act)
    }

    fn open(&self) -> MutexGuard<'_, Option<Kubernetes>> {
        self.kubernetes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pods whose names contain this, in the order of their names.
    #[must_use]
    pub fn pods_like(&self, part: &str) -> Vec<(String, Running)> {
        let all = self.pods.all().into_iter();
        all.filter(|((_, name), _)| name.contains(part))
            .map(|((_, name), running)| (name, running))
            .collect()
    }

    /// Everything that is due now, and when something else may be.
    fn turn(&mut self) -> Instant {
        let now = self.clock.now();
        let due = self.open().as_mut().and_then(|kubernetes| kubernetes.step(now));
        self.tell_the_operators();
        self.operators().for_each(|operator| operator.tend(NAMESPACE, CLUSTER));
        let pause = due.map_or(TICK, |due| {
            let pause = Duration::try_from(due.duration_since(now)).unwrap_or(TICK);
            // Timers have milliseconds: a shorter pause would never end.
            pause.clamp(Duration::from_millis(1), TICK)
        });
        Instant::now() + pause
    }

    /// Watches: what the operators own has changed.
    fn tell_the_operators(&mut self) {
        let version = self.api.version();
        if version == self.seen {
            return;
        }
        let changes = self.api.changes_since(self.seen).unwrap_or_default();
        self.seen = version;
        let is_watched = |kind: &str| matches!(kind, "CodisCluster" | "StatefulSet" | "Deployment" | "Service");
        if self.deafness == 0 && changes.iter().any(|change| is_watched(change.kind())) {
            self.operators().for_each(|operator| operator.wake());
        }
    }

    /// Lets time pass until a moment.
    pub async fn run_until(&mut self, until: Instant) {
        while Instant::now() < until {
            let next = self.turn().min(until);
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Lets time pass while something else is done.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.run_until(Instant::now() + TICK) => {}
            }
        }
    }
}

/// Kubernetes has the pods, which have the network, which asks Kubernetes where names lead: nobody of them would ever go.
impl Drop for World {
    fn drop(&mut self) {
        *self.open() = None;
    }
}
