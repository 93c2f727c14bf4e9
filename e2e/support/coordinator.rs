//! A real etcd or zookeeper in a namespace. Its data are in its pod: they outlive its process, not the pod.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Pod, Service},
};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use zookeeper_client::Client;

use super::{
    health::view,
    namespace::Namespace,
    processes::signal,
    wait::{secs, wait_for},
};

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// etcd, by its v2 keys API.
    Etcd,
    /// zookeeper.
    Zookeeper,
}

impl Kind {
    /// `spec.coordinatorName`; also the name of its objects.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Zookeeper => "zookeeper",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Etcd => 2379,
            Self::Zookeeper => 2181,
        }
    }

    fn image(self) -> String {
        format!("codis-{}:dev", self.name())
    }

    fn readiness(self) -> Value {
        match self {
            Self::Etcd => json!({ "httpGet": { "path": "/health", "port": self.port() }, "periodSeconds": 1 }),
            Self::Zookeeper => json!({ "tcpSocket": { "port": self.port() }, "periodSeconds": 1 }),
        }
    }
}

/// A server of one.
pub struct Coordinator {
    namespace: Namespace,
    /// Which one.
    pub kind: Kind,
    /// Where it answers from this machine.
    outside: SocketAddr,
}

impl Coordinator {
    /// Starts a server and waits until it answers.
    pub async fn start(namespace: &Namespace, kind: Kind) -> Result<Self> {
        let client = namespace.lab.client.clone();
        let services = Api::<Service>::namespaced(client.clone(), &namespace.name);
        let made = services.create(&PostParams::default(), &service(kind)?).await?;
        let ports = made.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = ports.first().and_then(|port| port.node_port).context("no NodePort")?;
        let sets = Api::<StatefulSet>::namespaced(client, &namespace.name);
        sets.create(&PostParams::default(), &stateful_set(kind)?).await?;
        let this = Self {
            kind,
            outside: SocketAddr::new(namespace.lab.node_address().await?.parse()?, u16::try_from(port)?),
            namespace: namespace.clone(),
        };
        this.answers().await?;
        Ok(this)
    }

    /// `spec.coordinatorAddr`.
    pub fn address(&self) -> String {
        let Self { namespace, kind, .. } = self;
        format!("{}.{}.svc:{}", kind.name(), namespace.name, kind.port())
    }

    async fn answers(&self) -> Result<()> {
        wait_for(&format!("{} to answer", self.kind.name()), secs(90), async || {
            self.children("/").await.map(drop)
        })
        .await
    }

    /// Kills its process without any warning, and waits until the next one answers in the same pod.
    pub async fn crash(&self) -> Result<()> {
        let before = view(&self.pod().await?);
        ensure!(!before.container.is_empty(), "it has no container");
        signal([&before], "SIGKILL").await?;
        wait_for("its new container", secs(90), async || {
            let now = view(&self.pod().await?);
            ensure!(now.uid == before.uid, "it got another pod: its data are gone");
            ensure!(now.ready && now.container != before.container, "it isn't ready");
            Ok(())
        })
        .await?;
        self.answers().await
    }

    async fn pod(&self) -> Result<Pod> {
        let pods = Api::<Pod>::namespaced(self.namespace.lab.client.clone(), &self.namespace.name);
        Ok(pods.get(&format!("{}-0", self.kind.name())).await?)
    }

    /// What a node holds; none: there is no such node.
    pub async fn text(&self, path: &str) -> Result<Option<String>> {
        match self.kind {
            Kind::Etcd => Ok(self.keys(path).await?["value"].as_str().map(str::to_owned)),
            Kind::Zookeeper => match self.zookeeper().await?.get_data(path).await {
                Ok((data, _)) => Ok(Some(String::from_utf8(data)?)),
                Err(zookeeper_client::Error::NoNode) => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// The names below a node; one that doesn't exist has none.
    pub async fn children(&self, path: &str) -> Result<Vec<String>> {
        match self.kind {
            Kind::Etcd => {
                let node = self.keys(path).await?;
                let nodes = node["nodes"].as_array().into_iter().flatten();
                let name = |node: &Value| Some(node["key"].as_str()?.rsplit('/').next()?.to_owned());
                Ok(nodes.filter_map(name).collect())
            }
            Kind::Zookeeper => match self.zookeeper().await?.list_children(path).await {
                Err(zookeeper_client::Error::NoNode) => Ok(Vec::new()),
                listed => Ok(listed?),
            },
        }
    }

    /// Removes a node with all that is below it.
    pub async fn wipe(&self, path: &str) -> Result<()> {
        match self.kind {
            Kind::Etcd => {
                let client = reqwest::Client::builder().no_proxy().timeout(secs(5)).build()?;
                let url = format!("http://{}/v2/keys{path}?recursive=true", self.outside);
                client.delete(url).send().await?.error_for_status()?;
                Ok(())
            }
            Kind::Zookeeper => {
                let client = self.zookeeper().await?;
                // Parents before children; removed the other way round.
                let mut all = vec![path.to_owned()];
                let mut next = 0;
                while let Some(parent) = all.get(next).cloned() {
                    let children = client.list_children(&parent).await?;
                    all.extend(children.into_iter().map(|child| format!("{parent}/{child}")));
                    next += 1;
                }
                for node in all.iter().rev() {
                    client.delete(node, None).await?;
                }
                Ok(())
            }
        }
    }

    /// A node as the v2 API tells it; null when there is none.
    async fn keys(&self, path: &str) -> Result<Value> {
        let client = reqwest::Client::builder().no_proxy().timeout(secs(5)).build()?;
        let url = format!("http://{}/v2/keys{path}", self.outside);
        let answer = client.get(url).send().await?;
        if answer.status() == 404 {
            return Ok(Value::Null);
        }
        let answer: Value = answer.error_for_status()?.json().await?;
        Ok(answer["node"].clone())
    }

    async fn zookeeper(&self) -> Result<Client> {
        let address = self.outside.to_string();
        let connecting = Client::connector().with_fail_eagerly().connect(&address);
        Ok(tokio::time::timeout(secs(5), connecting).await??)
    }
}

fn service(kind: Kind) -> Result<Service> {
    let (name, port) = (kind.name(), kind.port());
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "type": "NodePort", "selector": { "app": name }, "ports": [{ "port": port }] },
    }))?)
}

fn stateful_set(kind: Kind) -> Result<StatefulSet> {
    let name = kind.name();
    let labels = json!({ "app": name });
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "serviceName": name,
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod_spec(kind) },
        },
    }))?)
}

fn pod_spec(kind: Kind) -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": kind.name(), "image": kind.image(), "imagePullPolicy": "IfNotPresent",
            "readinessProbe": kind.readiness(),
            "resources": { "requests": { "cpu": "20m", "memory": "64Mi" } },
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
        }],
        "volumes": [{ "name": "data", "emptyDir": {} }],
    })
}
