//! Spec → [`ValidCluster`]: parse, don't check. After this room nothing reads a raw spec.
//!
//! May enter: api, domain. Stays out: clients. The API server refuses most bad input by the rules in `api`; they are
//! repeated here for objects that came another way (an older CRD, a Git repository).

mod brakes;
mod component;
mod names;
mod overrides;
mod parameters;
mod passwords;
mod pod;
mod shared;
mod slot_moves;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::Toleration;
use kube::ResourceExt;

pub use brakes::{Brakes, Hold, PromotionRequest};
pub use component::{Component, ProxySizing, Service, Volume};
pub use names::Names;
pub use overrides::{SentinelTuning, Settings};
pub use parameters::{Kind, LIVE, Live, bytes, is_bare, live};
pub use passwords::{Auth, Password, Passwords, password};
pub use pod::Pod;
pub use shared::SharedProduct;
pub use slot_moves::{BalanceBy, SlotMoves};

use crate::{
    api::{CodisCluster, CodisClusterSpec, Resources, names as annotations},
    domain::{Address, GroupId},
};

/// What is wrong with a field, and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The field's path, like `spec.codisServer.replicas`.
    pub field: String,
    /// What is wrong, and the fix.
    pub problem: String,
}

impl Invalid {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// Where the topology is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Coordinator {
    /// On the dashboard's own volume.
    #[default]
    Filesystem,
    /// In etcd (v2 API).
    Etcd(Vec<Address>),
    /// In zookeeper.
    Zookeeper(Vec<Address>),
}

/// Where proxies register for clients that know jodis (contract §8.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jodis {
    /// Never a filesystem, which clients couldn't read.
    pub coordinator: Coordinator,
    /// Whether it is where clients of Codis 2 look.
    pub compatible: bool,
}

/// A CodisCluster that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidCluster {
    /// Its name, namespace and uid, and the names of all that belongs to it in Kubernetes.
    pub names: Names,
    /// Its name in Codis, where that isn't the object's name.
    product: Option<String>,
    /// Where the topology is kept.
    pub coordinator: Coordinator,
    /// The wished passwords; those in force are a fact.
    pub passwords: Passwords,
    /// How many groups are wished; ids 1 to this.
    pub groups: u16,
    /// Groups that aren't wished any more and still exist: they are kept well until they are empty.
    pub leaving_groups: BTreeSet<GroupId>,
    /// How many servers a group has.
    pub group_size: u16,
    /// The servers; `replicas` is that of one group.
    pub server: Component,
    /// Where the servers' data is kept; none: emptyDir.
    pub volume: Option<Volume>,
    /// The proxies.
    pub proxy: Component,
    /// The proxies' Service.
    pub proxy_service: Service,
    /// The proxies' threads and buffers.
    pub proxy_sizing: ProxySizing,
    /// Proxies more than wished, and missing, during a rolling update.
    pub proxy_rollout: (Option<i32>, Option<i32>),
    /// For how many seconds at most a proxy that leaves waits for its clients to go.
    pub proxy_drain: u16,
    /// Whether proxies read from replicas.
    pub replica_reads: bool,
    /// Where proxies register for clients that know jodis.
    pub jodis: Option<Jodis>,
    /// When the number of proxies follows their CPU use.
    pub proxy_scaling: Option<Scaling>,
    /// The dashboard.
    pub dashboard: Component,
    /// The web front end and its Service.
    pub fe: Option<(Component, Service)>,
    /// The sentinels; none with zero replicas.
    pub sentinel: Option<Component>,
    /// How the sentinels watch.
    pub sentinel_tuning: SentinelTuning,
    /// Whether a person marked it for taking over the predecessor's objects.
    pub adopt: bool,
    /// The token of a loss that a person accepted.
    pub accepted_loss: Option<String>,
    /// How slots move between groups.
    pub slot_moves: SlotMoves,
    /// The rebalance that a person asks for.
    pub rebalance: Option<String>,
    /// What a person stopped.
    pub brakes: Brakes,
    /// The switchover that a person asks for.
    pub promotion: Option<PromotionRequest>,
    /// A node that hasn't been ready for this long doesn't come back.
    pub node_loss_after: Duration,
    /// Servers whose number is lower aren't rolled, counted over all groups (design, decision 2).
    pub partition: u16,
    /// Replicas that must be close behind for a master to take writes: 1 with bounded durability, else 0.
    pub good_replicas: u32,
    /// Whether data volumes go with the cluster.
    pub deletes_volumes: bool,
    /// Whether volumes of an earlier cluster of this name are taken over.
    pub adopts_volumes: bool,
    /// Fields that are accepted but have no effect yet.
    pub without_effect: Vec<String>,
}

impl ValidCluster {
    /// The name of the product: what Codis, sentinels, clients of jodis and the coordinator call the cluster. Objects of
    /// Kubernetes are named after the CodisCluster instead.
    #[must_use]
    pub fn product(&self) -> &str {
        self.product.as_deref().unwrap_or(&self.names.cluster)
    }

    /// The ids of the wished groups.
    pub fn wished_groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (1..=u64::from(self.groups)).filter_map(|id| GroupId::try_from(id).ok())
    }

    /// Whether a group is wished.
    #[must_use]
    pub fn stays(&self, group: GroupId) -> bool {
        group.get() <= self.groups
    }

    /// The ids of all groups, leaving ones included.
    pub fn group_ids(&self) -> impl Iterator<Item = GroupId> + use<'_> {
        self.wished_groups().chain(self.leaving_groups.iter().copied())
    }

    /// How many sentinels are wished.
    #[must_use]
    pub fn sentinel_count(&self) -> u16 {
        self.sentinel.as_ref().map_or(0, |component| component.replicas)
    }

    /// How many sentinels must agree that a master is dead: a majority.
    #[must_use]
    pub fn quorum(&self) -> u16 {
        self.sentinel_count() / 2 + 1
    }
}

/// Parses a CodisCluster.
///
/// # Errors
/// All that is wrong with it, each with its field and the fix.
pub fn validate(cluster: &CodisCluster) -> Result<ValidCluster, Vec<Invalid>> {
    let mut errors = Errors::default();
    let spec = &cluster.spec;
    let names = errors.take(Names::of(cluster));
    let product = errors.take(product(spec));
    let coordinator = errors.take(coordinator("spec", &spec.coordinator_name, &spec.coordinator_addr));
    let passwords = Passwords::of(spec, &mut errors);
    let (groups, group_size) = errors.take(group_shape(cluster));
    if spec.codis_dashboard.replicas.is_some_and(|replicas| replicas != 1) {
        errors.add(
            "spec.codisDashboard.replicas",
            "must be 1: the dashboard is the single writer of the topology",
        );
    }
    let proxy_scaling = scaling(spec, &mut errors);
    let jodis = errors.take(jodis(spec));
    let proxy_drain = errors.take(drain_seconds(spec));
    let slot_moves = SlotMoves::of(spec, &mut errors);
    let brakes = Brakes::of(cluster, &mut errors);
    let node_loss_after = errors.take(brakes::node_loss_after(spec.node_loss_after.as_deref()));
    let is_bounded = errors.take(choice(
        "spec.durability",
        spec.durability.as_deref(),
        ["available", "bounded"],
    ));
    if is_bounded && group_size == 1 {
        errors.add(
            "spec.durability",
            "bounded needs replicas: with codisServer.groupReplicas 1 no write would ever be taken",
        );
    }
    let deletes_volumes = errors.take(choice(
        "spec.codisServer.volumeRetention",
        spec.codis_server.volume_retention.as_deref(),
        ["Retain", "Delete"],
    ));
    let adopts_volumes = errors.take(choice(
        "spec.codisServer.volumePolicy",
        spec.codis_server.volume_policy.as_deref(),
        ["Refuse", "Adopt"],
    ));
    let parts = component::Parts::of(spec, group_size, &mut errors);
    errors.into_result()?;
    Ok(ValidCluster {
        names,
        product,
        coordinator,
        passwords,
        groups,
        leaving_groups: BTreeSet::new(),
        group_size,
        volume: parts.volume,
        server: parts.server,
        proxy: parts.proxy,
        proxy_service: parts.proxy_service,
        proxy_sizing: parts.proxy_sizing,
        proxy_rollout: (spec.codis_proxy.max_surge, spec.codis_proxy.max_unavailable),
        proxy_drain,
        replica_reads: spec.codis_proxy.replica_reads.unwrap_or(false),
        jodis,
        proxy_scaling,
        dashboard: parts.dashboard,
        fe: parts.fe,
        sentinel_tuning: parts
            .sentinel
            .as_ref()
            .map(|sentinel| SentinelTuning::of(&sentinel.config))
            .unwrap_or_default(),
        sentinel: parts.sentinel,
        adopt: cluster
            .annotations()
            .get(annotations::ANNOTATION_ADOPT)
            .is_some_and(|value| value == "true"),
        slot_moves,
        rebalance: cluster.annotations().get(annotations::ANNOTATION_REBALANCE).cloned(),
        accepted_loss: cluster.annotations().get(annotations::ANNOTATION_ACCEPT_LOSS).cloned(),
        brakes,
        promotion: PromotionRequest::of(cluster),
        node_loss_after,
        partition: u16::try_from(spec.codis_server.partition.unwrap_or(0)).unwrap_or(u16::MAX),
        good_replicas: u32::from(is_bounded),
        deletes_volumes,
        adopts_volumes,
        without_effect: without_effect(cluster),
    })
}

/// Collects every error, so that a person sees all of them at once.
#[derive(Default)]
pub(crate) struct Errors(Vec<Invalid>);

impl Errors {
    fn add(&mut self, field: &str, problem: impl Into<String>) {
        self.0.push(Invalid::new(field, problem));
    }

    /// The value, or its default after noting the error: it never leaves this room then.
    fn take<T: Default>(&mut self, result: Result<T, Invalid>) -> T {
        result.unwrap_or_else(|error| {
            self.0.push(error);
            T::default()
        })
    }

    fn into_result(self) -> Result<(), Vec<Invalid>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

/// Whether the second of two words was chosen; the first is the default.
fn choice(field: &str, value: Option<&str>, [default, other]: [&str; 2]) -> Result<bool, Invalid> {
    match value.unwrap_or(default) {
        value if value == default => Ok(false),
        value if value == other => Ok(true),
        _ => Err(Invalid::new(field, format!("must be {default} or {other}"))),
    }
}

/// What Codis takes and what is safe wherever the name gets: config files, paths in the coordinator, names of masters at
/// the sentinels. Codis itself takes dots and a leading underscore, too (contract §3).
fn product(spec: &CodisClusterSpec) -> Result<Option<String>, Invalid> {
    const LONGEST: usize = 63;
    let Some(name) = &spec.product_name else {
        return Ok(None);
    };
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.len() <= LONGEST && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_inside) {
        return Ok(Some(name.clone()));
    }
    let problem = format!(
        "{name:?} must start with a letter or a digit and have only letters, digits, - and _ , at most {LONGEST} of them"
    );
    Err(Invalid::new("spec.productName", problem))
}

/// `field` is the one that the name and the address are in.
fn coordinator(field: &str, name: &str, addr: &str) -> Result<Coordinator, Invalid> {
    match name {
        "filesystem" | "fs" => Ok(Coordinator::Filesystem),
        "etcd" => coordinator_addresses(field, addr).map(Coordinator::Etcd),
        "zookeeper" | "zk" => coordinator_addresses(field, addr).map(Coordinator::Zookeeper),
        _ => Err(Invalid::new(
            format!("{field}.coordinatorName"),
            format!("{name:?} is unknown: use filesystem, etcd or zookeeper"),
        )),
    }
}

fn coordinator_addresses(field: &str, addr: &str) -> Result<Vec<Address>, Invalid> {
    let invalid = |part: &str| {
        Invalid::new(
            format!("{field}.coordinatorAddr"),
            format!("{part:?} is no address of a coordinator: write host:port, with a comma between several"),
        )
    };
    let parts = addr.split(',').map(|part| part.trim().trim_start_matches("http://"));
    parts
        .map(|part| {
            let address: Address = part.parse().map_err(|_| invalid(part))?;
            if is_host(address.host()) {
                Ok(address)
            } else {
                Err(invalid(part))
            }
        })
        .collect()
}

fn jodis(spec: &CodisClusterSpec) -> Result<Option<Jodis>, Invalid> {
    const FIELD: &str = "spec.codisProxy.jodis";
    let Some(given) = &spec.codis_proxy.jodis else {
        return Ok(None);
    };
    if !["zookeeper", "etcd"].contains(&&*given.coordinator_name) {
        let problem = format!("{:?} isn't possible: use zookeeper or etcd", given.coordinator_name);
        return Err(Invalid::new(format!("{FIELD}.coordinatorName"), problem));
    }
    Ok(Some(Jodis {
        coordinator: coordinator(FIELD, &given.coordinator_name, &given.coordinator_addr)?,
        compatible: given.compatible.unwrap_or(false),
    }))
}

/// Whether a text is a DNS name or an IPv4 address.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.len() <= 253 && host.trim_end_matches('.').split('.').all(label)
}

fn group_shape(cluster: &CodisCluster) -> Result<(u16, u16), Invalid> {
    let server = &cluster.spec.codis_server;
    let (replicas, size) = (server.replicas, server.group_replicas);
    if size < 1 {
        return Err(Invalid::new("spec.codisServer.groupReplicas", "must be at least 1"));
    }
    if replicas < 1 || replicas % size != 0 {
        return Err(Invalid::new(
            "spec.codisServer.replicas",
            format!("{replicas} is not a multiple of groupReplicas ({size}): every group has groupReplicas servers"),
        ));
    }
    let too_many = |_| Invalid::new("spec.codisServer.replicas", "must be at most 1024");
    Ok((
        u16::try_from(replicas / size).map_err(too_many)?,
        u16::try_from(size).map_err(too_many)?,
    ))
}

/// Fields whose effect is still to come; the status says so.
fn without_effect(cluster: &CodisCluster) -> Vec<String> {
    let spec = &cluster.spec;
    let mut fields = Vec::new();
    let mut note = |given: bool, field: &str, why: &str| {
        if given {
            fields.push(format!("{field}: {why}"));
        }
    };
    note(
        spec.codis_proxy.hpa_spec.is_some() && !asks_for_cpu(spec),
        "spec.codisProxy.hpaSpec",
        "it is a percentage of spec.codisProxy.requests.cpu, which isn't given: replicas is used",
    );
    if let Some(sentinel) = &spec.sentinel {
        let storage =
            |resources: &Option<crate::api::Resources>| resources.as_ref().is_some_and(|r| r.storage.is_some());
        note(
            sentinel.storage_class_name.is_some(),
            "spec.sentinel.storageClassName",
            "sentinels keep no state",
        );
        note(
            storage(&sentinel.requests) || storage(&sentinel.limits),
            "spec.sentinel storage",
            "sentinels keep no state",
        );
    }
    fields
}

/// How the number of proxies follows their CPU use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scaling {
    /// At least this many proxies.
    pub min: i32,
    /// At most this many.
    pub max: i32,
    /// Percent of the requested CPU that is aimed at.
    pub cpu_percent: i32,
}

fn drain_seconds(spec: &CodisClusterSpec) -> Result<u16, Invalid> {
    let seconds = u16::try_from(spec.codis_proxy.drain_seconds.unwrap_or(30)).unwrap_or(0);
    if (5..=3600).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(Invalid::new("spec.codisProxy.drainSeconds", "must be from 5 to 3600"))
    }
}

fn scaling(spec: &CodisClusterSpec, errors: &mut Errors) -> Option<Scaling> {
    const FIELD: &str = "spec.codisProxy.hpaSpec";
    let hpa = spec.codis_proxy.hpa_spec.as_ref()?;
    if hpa.min_replicas > hpa.max_replicas {
        errors.add(&format!("{FIELD}.minReplicas"), "must not be greater than maxReplicas");
    }
    for (name, value) in [
        ("minReplicas", hpa.min_replicas),
        ("maxReplicas", hpa.max_replicas),
        ("cpuUsedThreshold", hpa.cpu_used_threshold),
    ] {
        if value < 1 {
            errors.add(&format!("{FIELD}.{name}"), "must be at least 1");
        }
    }
    asks_for_cpu(spec).then_some(Scaling {
        min: hpa.min_replicas,
        max: hpa.max_replicas,
        cpu_percent: hpa.cpu_used_threshold,
    })
}

/// Whether proxies request CPU: what they use is measured by it. A limit alone is a request too.
fn asks_for_cpu(spec: &CodisClusterSpec) -> bool {
    let proxy = &spec.codis_proxy;
    let gives_cpu = |resources: &Option<Resources>| resources.as_ref().is_some_and(|given| given.cpu.is_some());
    gives_cpu(&proxy.requests) || gives_cpu(&proxy.limits)
}

/// Where pods may run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// The scheduler.
    pub scheduler: Option<String>,
    /// Labels that a node must have.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that are tolerated.
    pub tolerations: Option<Vec<Toleration>>,
}

#[cfg(test)]
mod tests;
