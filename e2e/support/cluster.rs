//! A CodisCluster under test, as its users see it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use codis_operator::api::{CodisCluster, CodisClusterStatus, names};
use k8s_openapi::{
    api::core::v1::{Pod, Service},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    health::Snapshot,
    lab::Lab,
    namespace::Namespace,
    resp::Connection,
    spec::SESSION,
    topology::Topology,
    wait::{secs, wait_for},
};

/// A CodisCluster under test.
#[derive(Clone)]
pub struct Cluster {
    /// Where it is.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
}

impl Cluster {
    /// A cluster by its name.
    pub fn new(namespace: &Namespace, name: &str) -> Self {
        Self {
            namespace: namespace.clone(),
            name: name.to_owned(),
        }
    }

    /// The Kubernetes cluster.
    pub fn lab(&self) -> &Lab {
        &self.namespace.lab
    }

    /// The API of its custom resource.
    pub fn api(&self) -> Api<CodisCluster> {
        Api::namespaced(self.lab().client.clone(), &self.namespace.name)
    }

    /// Applies a spec.
    pub async fn apply(&self, cluster: &CodisCluster) -> Result<()> {
        let parameters = PatchParams::apply("codis-e2e").force();
        self.api()
            .patch(&self.name, &parameters, &Patch::Apply(cluster))
            .await?;
        Ok(())
    }

    /// Applies a spec and waits until everything is as it says.
    pub async fn come_up(&self, cluster: &CodisCluster) -> Result<Snapshot> {
        self.apply(cluster).await?;
        self.ready(secs(300)).await?;
        self.healthy(secs(60)).await
    }

    /// Waits until everything is as the spec says, looked at, not believed.
    pub async fn healthy(&self, limit: Duration) -> Result<Snapshot> {
        wait_for("a healthy cluster", limit, async || Snapshot::healthy(self).await).await
    }

    /// Changes it by a JSON merge patch.
    pub async fn patch(&self, patch: &Value) -> Result<()> {
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        self.api().patch(&self.name, &parameters, &patch).await?;
        Ok(())
    }

    /// Sets an annotation, or takes it away.
    pub async fn annotate(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.patch(&json!({"metadata": {"annotations": {key: value}}})).await
    }

    /// Its status now.
    pub async fn status(&self) -> Result<CodisClusterStatus> {
        Ok(self.get().await?.status.unwrap_or_default())
    }

    /// Its custom resource now.
    pub async fn get(&self) -> Result<CodisCluster> {
        Ok(self.api().get(&self.name).await?)
    }

    /// Waits for Ready=True at the current generation; says how long it took.
    pub async fn ready(&self, limit: Duration) -> Result<Duration> {
        let began = Instant::now();
        wait_for("Ready=True", limit, async || ready(&self.get().await?)).await?;
        Ok(began.elapsed())
    }

    /// Waits for a condition of this type and status whose reason or message has `part` in it.
    pub async fn condition(&self, type_: &str, status: &str, part: &str, limit: Duration) -> Result<Condition> {
        wait_for(&format!("{type_}={status} that tells {part}"), limit, async || {
            let cluster = self.get().await?;
            let all = conditions(&cluster);
            let found = all.iter().find(|condition| {
                condition.type_ == type_
                    && condition.status == status
                    && (condition.reason == part || condition.message.contains(part))
            });
            found.cloned().with_context(|| tell(all))
        })
        .await
    }

    /// The label selector of all its objects.
    pub fn selector(&self) -> String {
        format!("{}={}", names::LABEL_CLUSTER, self.name)
    }

    /// Its pods.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let api = Api::<Pod>::namespaced(self.lab().client.clone(), &self.namespace.name);
        Ok(api.list(&ListParams::default().labels(&self.selector())).await?.items)
    }

    /// Its Services by their ClusterIP.
    pub async fn service_addresses(&self) -> Result<BTreeMap<String, String>> {
        let api = Api::<Service>::namespaced(self.lab().client.clone(), &self.namespace.name);
        let services = api
            .list(&ListParams::default().labels(&self.selector()))
            .await?
            .items
            .into_iter();
        let pair = |service: Service| Some((service.spec?.cluster_ip?, service.metadata.name?));
        Ok(services.filter_map(pair).filter(|(ip, _)| ip != "None").collect())
    }

    /// GETs a path from one of its Services, through the API server.
    pub async fn http(&self, service: &str, port: u16, path: &str) -> Result<String> {
        let namespace = &self.namespace.name;
        self.lab()
            .raw(&format!(
                "/api/v1/namespaces/{namespace}/services/{service}:{port}/proxy{path}"
            ))
            .await
    }

    /// What its dashboard says.
    pub async fn topology(&self) -> Result<Topology> {
        Topology::parse(&self.http(&format!("{}-dashboard", self.name), 18080, "/topom").await?)
    }

    /// Asks a server, by the name of its pod.
    pub async fn server_cli(&self, pod: &str, command: &str) -> Result<String> {
        let script = format!("REDISCLI_AUTH=$(cat /etc/codis/product-auth) redis-cli {command}");
        self.lab().exec(&self.namespace.name, pod, "server", &script).await
    }

    /// The log of one of its pods.
    pub async fn log(&self, pod: &str, container: &str) -> Result<String> {
        self.lab().log(&self.namespace.name, pod, container).await
    }

    /// Where clients of the proxies connect from this machine: a node and the Service's NodePort.
    pub async fn client_address(&self) -> Result<SocketAddr> {
        let api = Api::<Service>::namespaced(self.lab().client.clone(), &self.namespace.name);
        let service = api.get(&format!("{}-proxy", self.name)).await?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = ports
            .iter()
            .find(|port| port.port == 19000)
            .and_then(|port| port.node_port);
        let port = port.context("the proxy's Service has no NodePort for 19000")?;
        let node = self.lab().node_address().await?;
        Ok(SocketAddr::new(node.parse()?, u16::try_from(port)?))
    }

    /// A client of the proxies.
    pub async fn client(&self) -> Result<Connection> {
        Connection::open(self.client_address().await?, SESSION, secs(2)).await
    }

    /// Asks for its deletion and waits until the custom resource is gone.
    pub async fn delete(&self, limit: Duration) -> Result<()> {
        self.api().delete(&self.name, &Default::default()).await?;
        wait_for("the CodisCluster to be gone", limit, async || {
            let left = self.api().get_opt(&self.name).await?;
            ensure!(left.is_none(), "it still exists");
            Ok(())
        })
        .await
    }
}

/// The conditions of a custom resource.
pub fn conditions(cluster: &CodisCluster) -> &[Condition] {
    cluster.status.as_ref().map_or(&[], |status| &status.conditions)
}

/// Whether it is Ready at its generation; if not, why.
pub fn ready(cluster: &CodisCluster) -> Result<()> {
    let Some(condition) = conditions(cluster).iter().find(|condition| condition.type_ == "Ready") else {
        bail!("no condition Ready");
    };
    ensure!(condition.status == "True", "{}", tell(conditions(cluster)));
    let observed = cluster.status.as_ref().and_then(|status| status.observed_generation);
    ensure!(
        observed == cluster.metadata.generation,
        "Ready=True of another generation"
    );
    Ok(())
}

/// The same, where a group whose master was replaced often is no more than that: for ten minutes a cluster that is whole
/// isn't Ready for this alone.
pub fn ready_or_flapping(cluster: &CodisCluster) -> Result<()> {
    let all = conditions(cluster);
    let is = |type_: &str, status: &str, reason: &str| {
        let mut of_type = all.iter().filter(|condition| condition.type_ == type_);
        of_type.any(|condition| condition.status == status && (reason.is_empty() || condition.reason == reason))
    };
    let observed = cluster.status.as_ref().and_then(|status| status.observed_generation);
    let only_flaps = is("Ready", "False", "Flapping")
        && is("Serving", "True", "")
        && is("Progressing", "False", "")
        && is("Blocked", "False", "")
        && observed == cluster.metadata.generation;
    if only_flaps { Ok(()) } else { ready(cluster) }
}

/// Conditions in a line.
pub fn tell(conditions: &[Condition]) -> String {
    let line = |condition: &Condition| {
        let Condition {
            type_,
            status,
            reason,
            message,
            ..
        } = condition;
        format!("{type_}={status} ({reason}: {message})")
    };
    conditions.iter().map(line).collect::<Vec<_>>().join(", ")
}
