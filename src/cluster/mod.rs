//! The one door to Kubernetes: fetch, server-side apply, delete, status, events, finalizer, lease.
//!
//! May enter: kube, api. Stays out: decisions. What is wanted comes in as objects, what exists goes out as objects.
//! Every write passes the gate of the lease and the hook on effects, and every call ends in bounded time.

mod all;
mod apply;
mod claims;
mod compare;
mod error;
mod gate;
mod kubernetes;
mod lease;
mod live;
mod nodes;
mod own;
mod predecessor;
mod settled;
mod source;
mod watch;

use std::{fmt, time::Duration};

use kube::{
    Api, Client, Config, Resource,
    core::NamespaceResourceScope,
    runtime::events::{Recorder, Reporter},
};
use serde::de::DeserializeOwned;

pub use self::{
    apply::{Applied, Propagation},
    compare::difference,
    error::{Call, Category, Error},
    gate::WriteGate,
    lease::{Candidate, Election, Move, Seen, Timing, evaluate},
    live::Live,
    nodes::Nodes,
    own::EventKind,
    predecessor::Predecessor,
    source::{Drift, Origin, drift, revision_of},
    watch::{Cache, Change},
};
use crate::{
    api::{CodisCluster, names},
    telemetry::Effects,
};

/// The name of this door for the hook on effects.
pub const DOOR: &str = "kubernetes";

/// Annotation on everything that is applied: the hash of what was wanted.
pub const ANNOTATION_APPLIED: &str = "codis.k8s.io/applied";

/// No call takes longer. The API server's own limit for a request is 60 s, but by then a turn has long been lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// What the door can read and write: a namespaced kind that is known at compile time.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + serde::Serialize + fmt::Debug
{
}
impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + serde::Serialize
        + fmt::Debug
{
}

/// The door. A clone shares the connection, the gate and the memory of published events.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    gate: WriteGate,
    effects: Effects,
    recorder: Recorder,
    nodes: nodes::LastNodes,
    kubernetes: kubernetes::Uid,
    clusters: all::LastClusters,
    settled: settled::Settled,
}

/// A client for the API server that the environment names (service account or kubeconfig).
///
/// It doesn't retry by itself: kube's default can hold one call for minutes, while the loop has its own backoff.
///
/// # Errors
/// When the environment names no API server, or its credentials can't be used.
pub async fn connect() -> Result<Client, Error> {
    let malformed = |detail: String| Error::Malformed {
        call: Call::new("configure", "client", ""),
        detail,
    };
    let mut config = Config::infer().await.map_err(|error| malformed(error.to_string()))?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).map_err(|error| malformed(error.to_string()))
}

impl Cluster {
    /// A door through `client`. `instance` names this process in events (the pod's name).
    pub fn new(client: Client, gate: WriteGate, effects: Effects, instance: &str) -> Self {
        let reporter = Reporter {
            controller: names::FIELD_MANAGER.to_owned(),
            instance: Some(instance.to_owned()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            nodes: nodes::LastNodes::default(),
            kubernetes: kubernetes::Uid::default(),
            clusters: all::LastClusters::default(),
            settled: settled::Settled::default(),
            client,
            gate,
            effects,
        }
    }

    /// The cluster of this name, if there is one.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Option<CodisCluster>, Error> {
        self.read(namespace, name).await
    }

    /// The object of this name, whoever it belongs to.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub async fn read<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error> {
        let call = Call::new("get", K::kind(&()), format!("{namespace}/{name}"));
        bounded(CALL_TIMEOUT, call, self.api::<K>(namespace).get_opt(name)).await
    }

    fn api<K: Object>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Every write goes through here: past the gate, past the hook, and never on after another replica may lead.
    async fn write<T>(
        &self,
        effect: &'static str,
        call: Call,
        future: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let left = self.gate.pass()?;
        self.effects.allow(DOOR, effect).map_err(Error::Injected)?;
        tracing::debug!(%call, "write");
        bounded(left.min(CALL_TIMEOUT), call, future).await
    }
}

/// Waits for a call, but not longer than `limit`.
async fn bounded<T>(limit: Duration, call: Call, future: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::of(call, error)),
        Err(_) => Err(Error::Timeout { call, after: limit }),
    }
}
