//! What was observed of one cluster in one pass: the input of `plan`, made by the two doors.

use std::collections::{BTreeMap, BTreeSet};

use super::{Address, Dump, Evidence, GroupId, Part, ProxyRecord, SlotId, Topology};

/// Everything that `plan` may know about the running cluster.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What the dashboard says, or why it says nothing.
    pub dashboard: DashboardView,
    /// Every wished server by its address, as asked directly.
    pub servers: BTreeMap<Address, ServerView>,
    /// Every wished sentinel by its address, as asked directly; an error text when it doesn't answer.
    pub sentinels: BTreeMap<Address, Result<SentinelView, String>>,
    /// The pods of the servers by their address, where a pod exists.
    pub server_pods: BTreeMap<Address, MemberPod>,
    /// The pods of the sentinels by their address, where a pod exists.
    pub sentinel_pods: BTreeMap<Address, MemberPod>,
    /// The nodes of Kubernetes, by name. Those that pods name and that aren't here are gone.
    pub nodes: BTreeMap<String, NodeView>,
    /// The switchover that was begun, as the status has it.
    pub intent: Option<Intent>,
    /// Workloads whose controllers are rolling them, like `proxy 1/3`.
    pub rolling: Vec<String>,
    /// The dashboard's pod, where one exists.
    pub dashboard_pod: Option<MemberPod>,
    /// The pods of proxies and front ends.
    pub stateless_pods: Vec<StatelessPod>,
    /// Claims of servers and of the dashboard whose volumes were on nodes that are gone.
    pub lost_claims: BTreeMap<Address, LostClaim>,
    /// Groups whose last switchover failed: how often in a row, and how many seconds ago.
    pub failed_moves: BTreeMap<GroupId, (u32, u64)>,
    /// The pods of the proxies.
    pub proxy_pods: Vec<ProxyPod>,
    /// Groups among which the slots are spread as the spec asked for, by the status.
    pub balanced: BTreeSet<GroupId>,
    /// For how many seconds slots have been on their way to another group, of those that have begun to move.
    pub moving_for: BTreeMap<SlotId, u64>,
    /// Why the dashboard's entry script doesn't start it: the product is somebody else's.
    pub owned_elsewhere: Option<String>,
    /// Whether the product is marked as this cluster's (design, decision 7).
    pub claimed: bool,
    /// Groups whose start gate is armed (design, decision 6).
    pub bootstrapped: BTreeSet<GroupId>,
    /// For how many seconds in a row a server, a sentinel or a proxy (its administrative address) hasn't answered.
    pub down_for: BTreeMap<Address, u64>,
    /// For how many seconds in a row most sentinels have named another master of a group than the dashboard has.
    pub disagreeing_for: BTreeMap<GroupId, u64>,
    /// Components whose wished pods aren't all ready, like `proxy 2/3`.
    pub unready: Vec<String>,
    /// The topology as it was last known in whole, where that was ever kept; why it can't be read.
    pub dump: Option<Result<Dump, String>>,
    /// What speaks for the dump, or against it; gathered only while slots have no group.
    pub evidence: Evidence,
    /// What is left of what the predecessor made, while its cluster is being taken over.
    pub predecessor: BTreeSet<Part>,
    /// For how many seconds no Service has led to its proxies any more.
    pub unused_for: BTreeMap<Part, u64>,
}

impl Observed {
    /// The node that a pod is on, if it is on one that is known.
    #[must_use]
    pub fn node(&self, name: Option<&String>) -> Option<&NodeView> {
        self.nodes.get(name?)
    }

    /// The zone of the node that a server's pod is on, where that is known.
    #[must_use]
    pub fn zone_of(&self, server: &Address) -> Option<&str> {
        let pod = self.server_pods.get(server)?;
        self.node(pod.node.as_ref())?.zone.as_deref()
    }

    /// The pod of a registered proxy. One that has ended may have left its address to another, which runs.
    #[must_use]
    pub fn proxy_pod(&self, record: &ProxyRecord) -> Option<&ProxyPod> {
        let pods = self.proxy_pods.iter();
        pods.filter(|pod| pod.ip.as_deref() == Some(record.admin.host()))
            .max_by_key(|pod| pod.running_for.is_some())
    }

    /// Whether clients find a proxy: it serves, and no pod that leaves is behind it, which serves only those it has.
    #[must_use]
    pub fn is_in_service(&self, record: &ProxyRecord) -> bool {
        let leaves = self.proxy_pod(record).is_some_and(|pod| pod.ending);
        record.online && record.error.is_none() && !leaves
    }
}

/// What the dashboard says.
#[derive(Clone, Debug)]
pub enum DashboardView {
    /// It doesn't answer, or doesn't hold its lock yet; why.
    Unavailable(String),
    /// It answers.
    Online {
        /// What it says it is; the stand-in says that it is one.
        version: String,
        /// The topology.
        topology: Box<Topology>,
    },
}

impl Default for DashboardView {
    fn default() -> Self {
        Self::Unavailable("not asked".to_owned())
    }
}

/// A server's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What is used.
    pub used: u64,
    /// `maxmemory`; 0: as much as there is.
    pub limit: u64,
}

/// A server, as asked directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerView {
    /// It doesn't answer; why.
    Unreachable(String),
    /// It answers but is loading its data.
    Loading,
    /// It answers.
    Up {
        /// Master, or replica of whom.
        replication: Replication,
        /// Its position in the replication stream, in bytes.
        offset: u64,
        /// Keys in all of its databases.
        keys: u64,
        /// For how many seconds its process has run.
        uptime: u64,
        /// For how many seconds a replica's link has been down; none while it is up, and if it never was.
        link_down_for: Option<u64>,
        /// Who follows it, under the addresses that they announced when they connected.
        replicas: BTreeSet<Address>,
        /// Its memory.
        memory: Memory,
        /// Whether it takes writes only with a replica attached: the fence of a master that was restarted.
        fenced: bool,
    },
}

/// A server's part in replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replication {
    /// It takes writes.
    Master,
    /// It follows a master.
    Replica {
        /// The master's address as the replica has it.
        master: Address,
        /// Whether the link is up.
        link_up: bool,
    },
}

/// A sentinel, as asked directly: the masters it watches, by name (`<product>-<gid>`, contract §11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentinelView {
    /// Masters by name.
    pub masters: BTreeMap<String, SentinelMaster>,
    /// Whether it has just found that time jumped (it, or its node, stood still), and doesn't act for 30 s.
    pub in_tilt: bool,
}

/// A master as one sentinel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelMaster {
    /// Where it is.
    pub address: Address,
    /// Replicas that the sentinel knows.
    pub replicas: u32,
    /// Other sentinels that the sentinel knows.
    pub other_sentinels: u32,
    /// The sentinel's flags, like `master` or `s_down,master`.
    pub flags: String,
    /// Milliseconds since the master last answered this sentinel's ping.
    pub silent_ms: u64,
    /// The same of each replica that the sentinel knows. One that it doesn't hear it won't promote.
    pub replica_silence: BTreeMap<Address, u64>,
}

/// The pod of a server, as Kubernetes has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MemberPod {
    /// Its name.
    pub name: String,
    /// Its uid: a new one means a new emptyDir.
    pub uid: String,
    /// The node that it was given to.
    pub node: Option<String>,
    /// Whether it was made from another template than the one that is wished now.
    pub outdated: bool,
    /// Whether it never became ready.
    pub never_ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Proof that no process of it runs: the kubelet's word, or its node is gone or out of service (design, decision 7).
    pub not_running: bool,
    /// The kubelet's word that it serves.
    pub ready: bool,
    /// Seconds since its container last started; none when it isn't running.
    pub running_for: Option<u64>,
    /// For how many seconds it hasn't served, by the kubelet's word; none while it does.
    pub unready_for: Option<u64>,
    /// Its last start ended at the gate, with no data and no master to copy from; it may be trying again.
    pub at_gate: bool,
    /// The kubelet's word that it is at the gate and that nothing runs in it now: this copy is gone.
    pub stopped_empty: bool,
}

/// A node, as far as it matters to what runs on it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeView {
    /// Why pods are to leave it, like `is cordoned` or a taint; none while they may stay.
    pub leaving: Option<String>,
    /// For how many seconds its kubelet hasn't been heard; none while it is.
    pub silent_for: Option<u64>,
    /// For how many seconds its object has been missing, while pods still name it.
    pub gone_for: Option<u64>,
    /// A person's or a machine's word that nothing runs there any more: the taint `out-of-service`.
    pub out_of_service: bool,
    /// Its zone.
    pub zone: Option<String>,
}

/// A pod that keeps nothing: any other one is as good.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StatelessPod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The node that it was given to.
    pub node: Option<String>,
    /// Whether it is being deleted.
    pub terminating: bool,
}

/// A claim whose volume went with its node.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LostClaim {
    /// Its name.
    pub claim: String,
    /// Its uid.
    pub uid: String,
    /// The node.
    pub node: String,
    /// Its node is only out of service: its object still exists, so it may come back with the volume.
    pub may_return: bool,
}

/// A switchover that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The group.
    pub group: GroupId,
    /// Who was master.
    pub from: Address,
    /// Who was to be.
    pub to: Address,
}

/// The pod of a proxy, as Kubernetes has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ProxyPod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its address, once it has one.
    pub ip: Option<String>,
    /// The kubelet's word that it serves.
    pub ready: bool,
    /// Whether it is being deleted or has ended.
    pub ending: bool,
    /// Seconds since its container last started; none when it isn't running.
    pub running_for: Option<u64>,
    /// Whether it is the predecessor's, and leaves once ours serve.
    pub inherited: bool,
}
