//! The CodisCluster: one Codis product.
//!
//! Every field of the predecessor (tangcong/codis-operator) is here under its old name, so that its objects apply
//! unchanged. Nothing has a persisted default: what the operator chose is in the status or on the objects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CodisClusterStatus, ConfigOverrides, PodOptions, Quantity, SecretKeyReference};

/// A Codis cluster: proxies, groups of redis servers, a dashboard, sentinels and a web front end.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "codis.k8s.io",
    version = "v1alpha1",
    kind = "CodisCluster",
    plural = "codisclusters",
    shortname = "cc",
    category = "codis",
    namespaced,
    status = "CodisClusterStatus",
    derive = "PartialEq",
    doc = "A Codis cluster: sharded Redis behind proxies.",
    annotation("api-approved.kubernetes.io", "unapproved, the group codis.k8s.io was chosen by the predecessor"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Serving", type_ = "string", json_path = ".status.conditions[?(@.type==\"Serving\")].status"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Proxies", type_ = "string", json_path = ".status.proxies"),
    printcolumn(name = "Servers", type_ = "string", json_path = ".status.servers"),
    printcolumn(name = "Sentinels", type_ = "string", json_path = ".status.sentinels"),
    printcolumn(name = "Slots", type_ = "integer", json_path = ".status.slotsServed"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.gitops.revision", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label that starts with a letter, of at most 40 characters: object names are made from it")
)]
#[x_kube(validation = Rule::new("self.coordinatorName == oldSelf.coordinatorName && self.coordinatorAddr == oldSelf.coordinatorAddr")
    .message("coordinatorName and coordinatorAddr can't be changed: the topology would stay behind in the old coordinator"))]
#[x_kube(validation = Rule::new("has(self.productName) == has(oldSelf.productName) && (!has(self.productName) || self.productName == oldSelf.productName)")
    .message("productName can't be changed, given later or taken away: the topology would stay behind under the old name"))]
#[x_kube(validation = Rule::new("!has(oldSelf.sentinel) || oldSelf.sentinel.replicas == 0 || has(self.sentinel) && self.sentinel.replicas >= oldSelf.sentinel.replicas")
    .message("sentinel.replicas can't be lowered in this version: the others would go on counting the ones that left"))]
#[serde(rename_all = "camelCase")]
pub struct CodisClusterSpec {
    /// Where the topology is kept: filesystem (a volume of the dashboard), etcd or zookeeper.
    #[x_kube(validation = Rule::new("self in ['filesystem', 'fs', 'etcd', 'zookeeper', 'zk']")
        .message("coordinatorName must be one of filesystem, etcd, zookeeper"))]
    pub coordinator_name: String,
    /// The coordinator's address, host:port (a comma list for zookeeper); `builtin` with filesystem.
    pub coordinator_addr: String,
    /// The name of the product in Codis: in the coordinator, at the sentinels, for clients of jodis. The object's name if
    /// not given; can't be changed, given later or taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9_-]*$')")
        .message("productName must start with a letter or a digit and have only letters, digits, - and _"))]
    pub product_name: Option<String>,
    /// The scheduler of every pod of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// What clients connect to.
    pub codis_proxy: ProxySpec,
    /// How slots move between groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_moves: Option<SlotMovesSpec>,
    /// The redis servers, in groups.
    pub codis_server: ServerSpec,
    /// The single writer of the topology.
    pub codis_dashboard: DashboardSpec,
    /// The web front end. Without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codis_fe: Option<FeSpec>,
    /// The sentinels, which detect dead masters. Without them the operator itself promotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<SentinelSpec>,
    /// What a write's acknowledgement stands for. available (the default): the master has it. bounded: a master takes
    /// writes only while at least one replica is at most 10 s behind, so that a cut-off master stops by itself; a group
    /// without a replica then takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['available', 'bounded']").message("durability must be available or bounded"))]
    pub durability: Option<String>,
    /// Whether the operator moves a master by itself for a drain, a rolling change or a better spread: automatic (the
    /// default), or supervised: it waits for `kubectl codis promote`. Failovers of dead masters don't ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['automatic', 'supervised']").message("maintenance must be automatic or supervised"))]
    pub maintenance: Option<String>,
    /// No change of what runs until it is false again. Dead members are still replaced and failed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// No pods; volumes and topology are kept. Refused where data isn't on volumes: it would be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hibernate: Option<bool>,
    /// Manage (the default), or Observe: nothing is written but the status, which tells the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['Manage', 'Observe']").message("management must be Manage or Observe"))]
    pub management: Option<String>,
    /// Whether the API server refuses to delete this object (by the ValidatingAdmissionPolicy of deploy/).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<bool>,
    /// A node that hasn't been ready for this long doesn't come back, like 5m; at least 1m. 5m if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(\\\\.[0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1m') && duration(self) <= duration('24h')")
        .message("nodeLossAfter must be a duration like 90s, 5m or 1h, from 1m to 24h"))]
    pub node_loss_after: Option<String>,
}

/// Amounts of compute resources and, for components with data, of storage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Cores, like 500m or 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Bytes, like 256Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// Bytes of the data volume, like 10Gi. No container resource: it sizes the PersistentVolumeClaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Quantity>,
}

/// When the number of proxies follows their CPU use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas")
    .message("hpaSpec.minReplicas must not be greater than hpaSpec.maxReplicas"))]
#[serde(rename_all = "camelCase")]
pub struct HpaSpec {
    /// At least this many proxies, 1 or more.
    #[schemars(range(min = 1))]
    pub min_replicas: i32,
    /// At most this many proxies.
    #[schemars(range(min = 1))]
    pub max_replicas: i32,
    /// Percent of the requested CPU that is aimed at.
    #[schemars(range(min = 1))]
    pub cpu_used_threshold: i32,
}

/// Where proxies register, so that clients which know jodis (Java) find them without the Service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JodisSpec {
    /// zookeeper, or etcd (v2 API).
    #[x_kube(validation = Rule::new("self in ['zookeeper', 'etcd']").message("jodis.coordinatorName must be zookeeper or etcd"))]
    pub coordinator_name: String,
    /// Its addresses, host:port with a comma between several.
    #[schemars(length(min = 1))]
    pub coordinator_addr: String,
    /// Whether they register where clients of Codis 2 look: /zk/codis/db_NAME/proxy instead of /jodis/NAME. false if not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatible: Option<bool>,
}

/// The proxies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!(has(self.sessionAuth) && self.sessionAuth != '' && has(self.sessionAuthSecretRef))")
    .message("codisProxy: give either sessionAuth or sessionAuthSecretRef"))]
#[serde(rename_all = "camelCase")]
pub struct ProxySpec {
    /// The container image.
    #[schemars(length(min = 1))]
    pub image: String,
    /// Always, IfNotPresent or Never; IfNotPresent if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// How many proxies.
    #[schemars(range(min = 1))]
    pub replicas: i32,
    /// The password that clients give to the proxies. Empty: they need none. Without it one is made up; it is in the
    /// Secret `<name>-connection`. A change replaces the proxies one after the other: until the last one is new, the
    /// old ones refuse clients with the new password and the new ones those with the old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_auth: Option<String>,
    /// ClusterIP, NodePort or LoadBalancer; ClusterIP if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<String>,
    /// Annotations of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_annotations: Option<BTreeMap<String, String>>,
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Resources>,
    /// What a proxy may use at most. Its threads and buffers are sized by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// When the number of proxies follows their CPU use. It is a percentage of requests.cpu, which must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hpa_spec: Option<HpaSpec>,
    /// How many proxies more than wished may exist during a rolling update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_surge: Option<i32>,
    /// How many proxies may be missing during a rolling update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_unavailable: Option<i32>,
    /// For how many seconds at most a proxy that leaves waits for its clients to go, after the 5 s that Kubernetes takes to
    /// send it no new ones; 30 if not given. Then those that are still connected are cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 3600))]
    pub drain_seconds: Option<i32>,
    /// Whether read-only commands go to replicas, too: those of the proxy's zone first. A replica lags behind its master,
    /// so that what was just written may not be read yet. false if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_reads: Option<bool>,
    /// Where they register for clients that know jodis. Without it they don't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jodis: Option<JodisSpec>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
    /// Labels, annotations, affinity and the like of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOptions>,
    /// Keys of proxy.toml beyond or instead of the operator's choice, like `proxy_max_clients: 1000`. Keys that the operator needs are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigOverrides>,
    /// The Secret that holds the password of the proxies' clients, instead of sessionAuth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_auth_secret_ref: Option<SecretKeyReference>,
}

/// The redis servers, in groups of one master and its replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.replicas % self.groupReplicas == 0")
    .message("codisServer.replicas must be a multiple of codisServer.groupReplicas: every group has groupReplicas servers"))]
#[serde(rename_all = "camelCase")]
pub struct ServerSpec {
    /// The container image.
    #[schemars(length(min = 1))]
    pub image: String,
    /// Always, IfNotPresent or Never; IfNotPresent if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// How many servers over all groups.
    #[schemars(range(min = 1, max = 1024))]
    pub replicas: i32,
    /// How many servers a group has: one master, the others replicas.
    #[schemars(range(min = 1))]
    pub group_replicas: i32,
    /// Servers whose number is lower aren't updated; counted over all groups, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub partition: Option<i32>,
    /// The class of the data volumes. With it, or with requests.storage, data is kept on PersistentVolumeClaims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// What the scheduler sets aside; `storage` is the size of the data volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Resources>,
    /// What a server may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
    /// Labels, annotations, affinity and the like of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOptions>,
    /// Keys of redis.conf beyond or instead of the operator's choice, like `maxmemory-policy: allkeys-lru`. Keys that the operator needs are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigOverrides>,
    /// Whether data volumes stay when the cluster is deleted: Retain (the default) or Delete. The topology's volume goes
    /// with them: it names servers that are then no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['Retain', 'Delete']").message("volumeRetention must be Retain or Delete"))]
    pub volume_retention: Option<String>,
    /// What to do when data volumes of an earlier cluster of this name are found: Refuse (the default), nothing runs until a
    /// person decides; or Adopt, the new cluster goes on with them, with slots and groups as the dump of the topology has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['Refuse', 'Adopt']").message("volumePolicy must be Refuse or Adopt"))]
    pub volume_policy: Option<String>,
}

/// How slots move between groups, when groups come or go or a rebalance is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotMovesSpec {
    /// Nothing moves: what hasn't begun is called back, a slot that is on its way stays so and is served; all of it goes on
    /// when this is false again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// How many microseconds the dashboard waits between two steps of a slot's move; 0 if not given. More spares the servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub interval_microseconds: Option<i32>,
    /// How many slots move side by side at most; a group takes part in one at a time. Codis's own 100 if not given. A change
    /// restarts the dashboard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub parallel_slots: Option<i32>,
    /// What groups are to have alike: Slots (the default), Keys or Memory, by what their masters say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['Slots', 'Keys', 'Memory']").message("balanceBy must be Slots, Keys or Memory"))]
    pub balance_by: Option<String>,
}

/// The dashboard, the single writer of the topology.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!(has(self.productAuth) && self.productAuth != '' && has(self.productAuthSecretRef))")
    .message("codisDashboard: give either productAuth or productAuthSecretRef"))]
#[serde(rename_all = "camelCase")]
pub struct DashboardSpec {
    /// The container image.
    #[schemars(length(min = 1))]
    pub image: String,
    /// Always, IfNotPresent or Never; IfNotPresent if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Always 1: two dashboards would overwrite each other's topology.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == 1")
        .message("codisDashboard.replicas must be 1: the dashboard is the single writer of the topology"))]
    pub replicas: Option<i32>,
    /// The password of the servers, known to dashboard, proxies and servers. Empty: they need none. Without it one is made
    /// up. A change has no effect on a cluster that exists: all of them would have to change it at one moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_auth: Option<String>,
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Resources>,
    /// What the dashboard may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
    /// Labels, annotations, affinity and the like of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOptions>,
    /// Keys of dashboard.toml beyond or instead of the operator's choice, like `migration_timeout: 30s`. Keys that the operator needs are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigOverrides>,
    /// The Secret that holds the password of the servers, instead of productAuth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_auth_secret_ref: Option<SecretKeyReference>,
}

/// The web front end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeSpec {
    /// The container image.
    #[schemars(length(min = 1))]
    pub image: String,
    /// Always, IfNotPresent or Never; IfNotPresent if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// How many.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// ClusterIP, NodePort or LoadBalancer; ClusterIP if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<String>,
    /// Annotations of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_annotations: Option<BTreeMap<String, String>>,
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Resources>,
    /// What it may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
    /// Labels, annotations, affinity and the like of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOptions>,
}

/// The sentinels, which detect dead masters and fail over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SentinelSpec {
    /// The container image.
    #[schemars(length(min = 1))]
    pub image: String,
    /// Always, IfNotPresent or Never; IfNotPresent if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// How many; an odd number, 3 or more, survives the loss of one.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Accepted for the predecessor's sake, without effect: sentinels keep no state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Resources>,
    /// What a sentinel may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
    /// Labels, annotations, affinity and the like of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOptions>,
    /// Keys of sentinels beyond or instead of the operator's choice, like `down-after-milliseconds: 3000`, `failover-timeout` or `parallel-syncs`. Keys that the operator needs are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigOverrides>,
}
