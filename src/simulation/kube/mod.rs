//! The rest of Kubernetes, in process: controllers, scheduler and kubelets, on the objects of [`ApiServer`].
//!
//! Everything happens in [`Kubernetes::step`], in one order, with chances from one seed: what it does is the same in every run.
//! Controllers are as quick as can be: they have done all there is to do when a step ends. Time passes only where containers
//! start, probes wait, pods end and nodes aren't heard.
//!
//! Left out, since nothing of ours uses it: Jobs, DaemonSets, CronJobs, ControllerRevision objects (templates of older revisions
//! are remembered inside), `maxUnavailable` of StatefulSets, proportional scaling of Deployments that roll, pausing and
//! rolling back, progress deadlines; resources and preemption in the scheduler, host ports, pod affinity by namespace selectors;
//! metrics (an autoscaler's wish is told: [`Kubernetes::hpa_wish`]); leases of nodes as objects; volumes that exist before their
//! claims, resizing, snapshots; sidecars, ephemeral and resized containers, lifecycle hooks other than `preStop`; images as such;
//! the end of namespaces; the condition `DisruptionTarget`; init containers that run again when a node is back.

mod budgets;
mod cache;
mod claims;
mod collect;
mod deployments;
mod endpoints;
mod kubelet;
mod nodes;
mod object;
mod replica_sets;
mod scale;
mod schedule;
mod spread;
mod stateful_pods;
mod stateful_sets;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub(in crate::simulation) use self::object::selects;
use self::{cache::Cache, kubelet::Sandbox, nodes::NodeState, object::Name};
use super::api::ApiServer;

/// What starts containers: the world's side of a kubelet.
pub trait Runtime: Send {
    /// A container starts.
    fn start(&mut self, launch: Launch) -> Box<dyn Process>;
    /// A volume's content is gone for good.
    fn delete_volume(&mut self, volume: &str);
}

/// What runs in a container.
pub trait Process: Send {
    /// None while it runs.
    fn ended(&self) -> Option<Exit>;
    /// A probe as the pod's spec has it (tcpSocket, exec, httpGet; ports by number): whether it would succeed now.
    fn probe(&self, probe: &Value) -> bool;
    /// preStop with this handler if there is one, then SIGTERM.
    fn terminate(&mut self, pre_stop: Option<&Value>);
    /// SIGKILL.
    fn kill(&mut self);
    /// The mounted Secrets and ConfigMaps changed under it.
    fn remounted(&mut self, files: &BTreeMap<String, Vec<u8>>) {
        let _ = files;
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// What it exited with.
    pub code: i32,
    /// Its termination message.
    pub message: String,
}

/// A container that is to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The node it runs on.
    pub node: String,
    /// The container's name.
    pub container: String,
    /// Its command.
    pub command: Vec<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, with everything that is referred to.
    pub env: BTreeMap<String, String>,
    /// Secrets and ConfigMaps, by absolute path, as the kubelet has mounted them.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What is mounted at `/data`: the claim's volume, or the pod's emptyDir.
    pub volume: Option<String>,
    /// How often it was started before, in this pod.
    pub restarts: u32,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The value of its label `topology.kubernetes.io/zone`.
    pub zone: String,
}

/// Controllers, scheduler and kubelets.
pub struct Kubernetes {
    api: ApiServer,
    runtime: Box<dyn Runtime>,
    rng: fastrand::Rng,
    cache: Cache,
    nodes: BTreeMap<String, NodeState>,
    /// What runs, or is about to, by the pod's uid.
    sandboxes: BTreeMap<String, Sandbox>,
    /// How many pods had an address.
    addresses: u32,
    /// Templates of StatefulSets, by uid and revision.
    templates: BTreeMap<(String, String), Value>,
    /// What autoscalers would like, by their names.
    wishes: BTreeMap<Name, i64>,
    /// Where Services lead, by their names: as long as the endpoints stay, so does this.
    routes: BTreeMap<Name, Vec<(Ipv4Addr, u16)>>,
    /// When something is due in workloads: pods that become available.
    due: BTreeSet<Timestamp>,
    /// The time of this step, and as Kubernetes writes it.
    now: Timestamp,
    stamp: String,
}

/// After so many rounds in one step somebody writes without end.
const ROUNDS: usize = 200;

impl Kubernetes {
    /// Controllers of these objects, on these nodes, which they make.
    pub fn new(api: ApiServer, nodes: &[Node], runtime: Box<dyn Runtime>, seed: u64) -> Self {
        let now = api.now();
        let mut new = Self {
            runtime,
            rng: fastrand::Rng::with_seed(seed),
            cache: Cache::default(),
            nodes: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            addresses: 0,
            templates: BTreeMap::new(),
            wishes: BTreeMap::new(),
            routes: BTreeMap::new(),
            due: BTreeSet::new(),
            now,
            stamp: object::seconds(now),
            api,
        };
        nodes
            .iter()
            .enumerate()
            .for_each(|(index, node)| new.add_node(index, node));
        new
    }

    /// Does all that is due at this time. Says when the next thing is due without a change of objects.
    pub fn step(&mut self, now: Timestamp) -> Option<Timestamp> {
        if now != self.now {
            (self.now, self.stamp) = (now, object::seconds(now));
        }
        for round in 0..ROUNDS {
            let is_due = self.due.first().is_some_and(|due| *due <= now);
            let has_news = self.cache.refresh(&self.api);
            let is_done = !has_news && !is_due;
            if !is_done {
                self.due.retain(|due| *due > now);
                self.controllers(is_due);
            }
            self.watch_nodes();
            let has_moved = self.run_kubelets();
            if is_done && !has_moved && self.api.version() == self.cache.version() {
                break;
            }
            debug_assert!(round + 1 < ROUNDS, "the simulated controllers don't come to rest");
        }
        self.next_due()
    }

    /// All controllers for which there is something new.
    fn controllers(&mut self, is_due: bool) {
        let news = std::mem::take(&mut self.cache.news);
        let any = |kinds: &[&str]| kinds.iter().any(|kind| news.kinds.contains(kind));
        if news.garbage {
            self.collect();
        }
        if any(&["Node"]) {
            self.taint_nodes();
        }
        if any(&["HorizontalPodAutoscaler", "Deployment"]) {
            self.scale();
        }
        if is_due || any(&["Deployment", "ReplicaSet", "Pod"]) {
            self.deployments();
            self.replica_sets((!is_due).then_some(&news.owners));
        }
        if is_due || any(&["StatefulSet", "Pod", "PersistentVolumeClaim"]) {
            let is_all = is_due || any(&["PersistentVolumeClaim"]);
            self.stateful_sets((!is_all).then_some(&news.owners));
        }
        if any(&["PersistentVolumeClaim", "PersistentVolume", "StorageClass", "Pod"]) {
            self.claims();
        }
        if any(&[
            "Pod",
            "Node",
            "PersistentVolumeClaim",
            "PersistentVolume",
            "StorageClass",
        ]) {
            self.schedule();
        }
        self.hear_of_pods(&news.pods);
        self.sync_endpoints(&news.services);
        self.budgets((!news.sizes).then_some(&news.budgets));
    }

    fn next_due(&self) -> Option<Timestamp> {
        let sandboxes = self.sandboxes.values().filter_map(|sandbox| self.due_of(sandbox));
        let nodes = self.nodes.values().filter_map(|node| node.due(self.now));
        let first = self.due.first().copied();
        sandboxes.chain(nodes).chain(first).filter(|due| *due > self.now).min()
    }

    /// A number from `least` up to, but not, `most`, by chance.
    fn chance(&mut self, least: i64, most: i64) -> i64 {
        if least >= most {
            least
        } else {
            self.rng.i64(least..most)
        }
    }

    /// The ready pods behind a Service's first port: where its ClusterIP leads.
    #[must_use]
    pub fn endpoints(&self, namespace: &str, service: &str) -> Vec<(Ipv4Addr, u16)> {
        let name = (namespace.to_owned(), service.to_owned());
        self.routes.get(&name).cloned().unwrap_or_default()
    }
}
