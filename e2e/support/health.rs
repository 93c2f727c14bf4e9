//! The whole of a cluster at one moment, and whether it is as its spec wishes: looked at, not believed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use codis_operator::api::{CodisCluster, names};
use k8s_openapi::api::core::v1::Pod;

use super::{
    cluster::{Cluster, ready_or_flapping},
    topology::Topology,
};

/// A cluster at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its custom resource.
    pub resource: CodisCluster,
    /// Its pods by name.
    pub pods: BTreeMap<String, PodView>,
    /// What the dashboard says.
    pub topology: Topology,
    /// Services by ClusterIP; a server's and a sentinel's is named like its pod.
    pub services: BTreeMap<String, String>,
}

/// A pod at one moment.
#[derive(Clone, Debug)]
pub struct PodView {
    /// Its identity.
    pub uid: String,
    /// dashboard, proxy, fe, sentinel or server.
    pub component: String,
    /// Its address.
    pub ip: String,
    /// The node that it is on.
    pub node: String,
    /// The id of its running container, without the runtime's name.
    pub container: String,
    /// Whether it is ready and is to stay.
    pub ready: bool,
}

impl Snapshot {
    /// Looks at a cluster.
    pub async fn take(cluster: &Cluster) -> Result<Self> {
        let pods = cluster.pods().await?;
        Ok(Self {
            resource: cluster.get().await?,
            pods: pods
                .iter()
                .filter_map(|pod| Some((pod.metadata.name.clone()?, view(pod))))
                .collect(),
            services: cluster.service_addresses().await?,
            topology: cluster.topology().await?,
        })
    }

    /// Looks at a cluster that is as its spec wishes; else says what isn't.
    pub async fn healthy(cluster: &Cluster) -> Result<Self> {
        let snapshot = Self::take(cluster).await?;
        ready_or_flapping(&snapshot.resource)?;
        snapshot.every_pod_is_ready()?;
        snapshot.every_group_is_in_order()?;
        snapshot.every_proxy_is_registered()?;
        snapshot.every_sentinel_watches_every_group()?;
        Ok(snapshot)
    }

    /// Names of the pods of a component.
    pub fn pods_of(&self, component: &str) -> Vec<String> {
        let of = self.pods.iter().filter(|(_, pod)| pod.component == component);
        of.map(|(name, _)| name.clone()).collect()
    }

    /// The pod behind an address that Codis knows.
    pub fn pod_at(&self, address: &str) -> Result<String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        self.services
            .get(host)
            .cloned()
            .with_context(|| format!("no Service has the address {address}"))
    }

    /// The pod that is a group's master, by the dashboard.
    pub fn master_of(&self, group: i64) -> Result<String> {
        let servers = self.topology.groups.get(&group).map(|group| &group.servers);
        let master = servers
            .and_then(|servers| servers.first())
            .with_context(|| format!("group {group} is empty"))?;
        self.pod_at(&master.address)
    }

    fn every_pod_is_ready(&self) -> Result<()> {
        let spec = &self.resource.spec;
        let wished = [
            ("dashboard", 1),
            ("proxy", spec.codis_proxy.replicas),
            ("server", spec.codis_server.replicas),
            (
                "sentinel",
                spec.sentinel.as_ref().map_or(0, |sentinel| sentinel.replicas),
            ),
            ("fe", spec.codis_fe.as_ref().map_or(0, |fe| fe.replicas)),
        ];
        for (component, count) in wished {
            let pods = self.pods.iter().filter(|(_, pod)| pod.component == component);
            let (ready, other): (Vec<_>, Vec<_>) = pods.partition(|(_, pod)| pod.ready);
            let other: Vec<&String> = other.iter().map(|(name, _)| *name).collect();
            ensure!(other.is_empty(), "not ready: {other:?}");
            ensure!(
                i32::try_from(ready.len())? == count,
                "{} of {count} {component} pods are ready",
                ready.len()
            );
        }
        Ok(())
    }

    fn every_group_is_in_order(&self) -> Result<()> {
        let servers = &self.resource.spec.codis_server;
        let groups = &self.topology.groups;
        ensure!(
            i32::try_from(groups.len())? == servers.replicas / servers.group_replicas,
            "{} groups",
            groups.len()
        );
        ensure!(self.topology.slots.len() == 1024, "{} slots", self.topology.slots.len());
        ensure!(
            self.topology.slots.iter().all(|owner| groups.contains_key(owner)),
            "not every slot has a group"
        );
        for (id, group) in groups {
            ensure!(!group.out_of_sync, "group {id} is out of sync");
            ensure!(!group.promoting, "group {id} is promoting");
            let count = i32::try_from(group.servers.len())?;
            ensure!(count == servers.group_replicas, "group {id} has {count} servers");
            let (master, replicas) = group.servers.split_first().context("an empty group")?;
            ensure!(
                master.role == "master",
                "group {id}: {} is first and says {:?}",
                master.address,
                master.role
            );
            for replica in replicas {
                let follows = replica.role == "slave" && replica.master == master.address && replica.link_up;
                ensure!(follows, "group {id}: {replica:?} does not follow {}", master.address);
            }
        }
        Ok(())
    }

    fn every_proxy_is_registered(&self) -> Result<()> {
        let pods = self.pods.values().filter(|pod| pod.component == "proxy");
        let wished: BTreeSet<String> = pods.map(|pod| format!("{}:11080", pod.ip)).collect();
        let records: BTreeSet<String> = self.topology.proxies.iter().map(|proxy| proxy.admin.clone()).collect();
        ensure!(records == wished, "proxy records {records:?}, pods {wished:?}");
        ensure!(
            self.topology.proxies.len() == wished.len(),
            "more proxy records than proxies"
        );
        for proxy in &self.topology.proxies {
            ensure!(proxy.online, "the proxy at {} isn't online", proxy.admin);
        }
        Ok(())
    }

    fn every_sentinel_watches_every_group(&self) -> Result<()> {
        let wished = self
            .resource
            .spec
            .sentinel
            .as_ref()
            .map_or(0, |sentinel| sentinel.replicas);
        let count = i32::try_from(self.topology.sentinels.len())?;
        ensure!(count == wished, "the dashboard knows {count} of {wished} sentinels");
        ensure!(!self.topology.sentinels_out_of_sync, "the sentinels are out of sync");
        for (sentinel, watched) in &self.topology.sentinels {
            for (id, group) in &self.topology.groups {
                let suffix = format!("-{id}");
                let found = watched.iter().find(|(name, _)| name.ends_with(&suffix));
                let (_, found) = found.with_context(|| format!("{sentinel} doesn't watch group {id}"))?;
                let master = group.servers.first().map(|server| server.address.as_str());
                let agrees = Some(found.address.as_str()) == master && found.flags == "master";
                ensure!(agrees, "{sentinel} has {found:?} for group {id}");
                ensure!(
                    found.others == (wished - 1).to_string(),
                    "{sentinel} knows {} others",
                    found.others
                );
            }
        }
        Ok(())
    }
}

/// A pod as it is now.
pub fn view(pod: &Pod) -> PodView {
    let status = pod.status.as_ref();
    let conditions = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    let ready = conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let mut containers = status
        .and_then(|status| status.container_statuses.as_ref())
        .into_iter()
        .flatten();
    let container = containers
        .find_map(|container| container.container_id.clone())
        .unwrap_or_default();
    let label = |name: &str| {
        pod.metadata
            .labels
            .iter()
            .flatten()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    PodView {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        component: label(names::LABEL_COMPONENT).cloned().unwrap_or_default(),
        ip: status.and_then(|status| status.pod_ip.clone()).unwrap_or_default(),
        node: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
        container: container.rsplit("//").next().unwrap_or_default().to_owned(),
        ready: ready && pod.metadata.deletion_timestamp.is_none(),
    }
}
