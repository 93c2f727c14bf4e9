//! One test's part of the API server: a namespace, a CodisCluster, and the door.

use codis_operator::{
    api::{CodisCluster, CodisClusterSpec},
    cluster::{Cluster, Object, WriteGate},
    telemetry::Effects,
};
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

use crate::support::apiserver::{ApiServer, Logged, User, server};

pub struct World {
    pub server: &'static ApiServer,
    pub namespace: String,
    /// The tested door, as the operator.
    pub door: Cluster,
    /// Everybody else.
    pub admin: Client,
}

impl World {
    /// `None` when there is no API server to test with.
    pub async fn new() -> Option<Self> {
        let server = server().await?;
        Some(Self::of(server, server.namespace().await))
    }

    /// A part that exists of an API server.
    pub fn of(server: &'static ApiServer, namespace: String) -> Self {
        let client = server.client(User::Operator);
        Self {
            server,
            namespace,
            door: Cluster::new(client, WriteGate::open(), Effects::none(), "test"),
            admin: server.client(User::Admin),
        }
    }

    /// Somebody else's view of a kind.
    pub fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// A CodisCluster that exists.
    pub async fn cluster(&self, name: &str) -> CodisCluster {
        let spec: CodisClusterSpec = serde_json::from_value(spec()).unwrap();
        let cluster = CodisCluster::new(name, spec);
        self.api().create(&PostParams::default(), &cluster).await.unwrap()
    }

    /// What the door wrote so far.
    pub fn writes(&self) -> Vec<Logged> {
        self.server.writes(User::Operator, &self.namespace)
    }

    /// Metadata of an object of `cluster`, and of nobody, with `cluster`'s mark.
    pub fn meta(&self, cluster: &CodisCluster, name: &str) -> Value {
        let cluster_name = cluster.metadata.name.as_deref().unwrap();
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": { "codis.k8s.io/cluster": cluster_name, "app.kubernetes.io/managed-by": "codis-operator" },
            "ownerReferences": [{ "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster", "name": cluster_name,
                "uid": cluster.metadata.uid, "controller": true, "blockOwnerDeletion": true }],
        })
    }
}

/// The smallest complete spec.
pub fn spec() -> Value {
    json!({
        "coordinatorName": "filesystem",
        "coordinatorAddr": "builtin",
        "codisProxy": { "replicas": 2, "image": "codis" },
        "codisServer": { "replicas": 4, "groupReplicas": 2, "image": "codis" },
        "codisDashboard": { "replicas": 1, "image": "codis" },
    })
}
