//! A cluster as the predecessor (tangcong/codis-operator) deployed it and as people then set it up by hand in the front end:
//! the objects, the owners, the labels and the commands are those of its code (contract §18).

use std::fmt::Debug;

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, StatefulSet},
        autoscaling::v1::HorizontalPodAutoscaler,
        core::v1::{Pod, Service},
    },
};
use kube::{
    Api, Resource,
    api::{ListParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    cluster::Cluster,
    spec::{IMAGE, PRODUCT, SESSION},
    wait::{secs, wait_for},
};

/// Its pods' labels of components.
const DASHBOARD: &str = "codis-dashboard";
const PROXY: &str = "codis-proxy";
const SERVER: &str = "codis-server";
const SENTINEL: &str = "redis-sentinel";
const FE: &str = "codis-fe";

/// Makes its objects for a cluster whose custom resource exists, waits for its pods, and sets the cluster up: groups of
/// `size`, the slots, the sentinels.
pub async fn deploy(cluster: &Cluster, volumes: bool) -> Result<()> {
    let resource = cluster.get().await?;
    let uid = resource.metadata.uid.clone().context("no uid")?;
    let spec = &resource.spec;
    let sentinels = spec.sentinel.as_ref().map_or(0, |sentinel| sentinel.replicas);
    let made = Made {
        name: &cluster.name,
        namespace: &cluster.namespace.name,
        owner: json!([{
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster", "name": cluster.name, "uid": uid,
            "controller": true, "blockOwnerDeletion": true,
        }]),
        coordinator: (&spec.coordinator_name, &spec.coordinator_addr),
    };
    // What it made ran as root.
    let namespace = &cluster.namespace.name;
    let privileged = "pod-security.kubernetes.io/enforce=privileged";
    cluster
        .lab()
        .kubectl(&["label", "--overwrite", "namespace", namespace, privileged])
        .await?;
    let services = [
        made.headless("dashboard", DASHBOARD, 18080),
        made.headless("redis", SERVER, 6379),
        made.headless("redis-sentinel", SENTINEL, 6379),
        made.public("proxy", PROXY, &[("admin-port", 11080), ("proxy-port", 19000)]),
        made.public("fe", FE, &[("fe-port", 9090)]),
    ];
    let sets = [
        made.set("dashboard", DASHBOARD, 1, &made.dashboard(), None),
        made.set("redis", SERVER, spec.codis_server.replicas, &server(), Some(volumes)),
        made.set("redis-sentinel", SENTINEL, sentinels, &sentinel(), Some(false)),
    ];
    let deployments = [
        made.deployment("proxy", PROXY, spec.codis_proxy.replicas, &made.proxy()),
        made.deployment("fe", FE, 1, &made.fe()),
    ];
    create::<Service>(cluster, &services).await?;
    create::<StatefulSet>(cluster, &sets).await?;
    create::<Deployment>(cluster, &deployments).await?;
    create::<HorizontalPodAutoscaler>(cluster, &[made.autoscaler(spec.codis_proxy.replicas)]).await?;
    set_up(cluster, usize::try_from(spec.codis_server.group_replicas)?).await
}

async fn create<K>(cluster: &Cluster, all: &[Value]) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize + Debug,
{
    let api = Api::<K>::namespaced(cluster.lab().client.clone(), &cluster.namespace.name);
    for object in all {
        api.create(&PostParams::default(), &serde_json::from_value(object.clone())?)
            .await?;
    }
    Ok(())
}

/// Its pods of a component that run, by name: with their addresses.
async fn pods(cluster: &Cluster, component: &str) -> Result<Vec<(String, String)>> {
    let api = Api::<Pod>::namespaced(cluster.lab().client.clone(), &cluster.namespace.name);
    let labels = format!("clusterName={},component={component}", cluster.name);
    let found = api.list(&ListParams::default().labels(&labels)).await?.items;
    let mut pods = Vec::new();
    for pod in found {
        let status = pod.status.unwrap_or_default();
        let runs = status
            .container_statuses
            .iter()
            .flatten()
            .all(|container| container.ready);
        ensure!(
            runs && status.container_statuses.is_some(),
            "{:?} doesn't run",
            pod.metadata.name
        );
        pods.push((
            pod.metadata.name.context("no name")?,
            status.pod_ip.context("no address")?,
        ));
    }
    pods.sort();
    Ok(pods)
}

async fn all(cluster: &Cluster, component: &str, count: usize) -> Result<Vec<(String, String)>> {
    wait_for(&format!("{count} pods {component}"), secs(240), async || {
        let pods = pods(cluster, component).await?;
        ensure!(pods.len() == count, "{} of {count} run", pods.len());
        Ok(pods)
    })
    .await
}

/// What a person does in its front end, by codis-admin.
async fn set_up(cluster: &Cluster, size: usize) -> Result<()> {
    let spec = cluster.get().await?.spec;
    let servers = all(cluster, SERVER, usize::try_from(spec.codis_server.replicas)?).await?;
    let sentinels = all(
        cluster,
        SENTINEL,
        usize::try_from(spec.sentinel.map_or(0, |s| s.replicas))?,
    )
    .await?;
    let (dashboard, ip) = all(cluster, DASHBOARD, 1).await?.remove(0);
    all(cluster, PROXY, usize::try_from(spec.codis_proxy.replicas)?).await?;
    let groups = servers.len() / size;
    let mut commands = Vec::new();
    for (group, servers) in (1..).zip(servers.chunks(size)) {
        commands.push(format!("--create-group --gid={group}"));
        commands.extend(
            servers
                .iter()
                .map(|(_, ip)| format!("--group-add --gid={group} --addr={ip}:6379")),
        );
        commands.extend(
            servers[1..]
                .iter()
                .map(|(_, ip)| format!("--sync-action --create --addr={ip}:6379")),
        );
        let (first, last) = ((group - 1) * 1024 / groups, group * 1024 / groups - 1);
        commands.push(format!(
            "--slots-assign --beg={first} --end={last} --gid={group} --confirm"
        ));
        commands.push(format!("--resync-group --gid={group}"));
    }
    commands.extend(
        sentinels
            .iter()
            .map(|(_, ip)| format!("--sentinel-add --addr={ip}:26379")),
    );
    for command in &commands {
        admin(cluster, &dashboard, &ip, command).await?;
    }
    // It fails more often than not while replicas attach (identity experiment, S3).
    wait_for("the sentinels to be configured", secs(60), async || {
        admin(cluster, &dashboard, &ip, "--sentinel-resync").await
    })
    .await?;
    wait_for("every replica to be in step", secs(60), async || {
        let topology = cluster.topology().await?;
        let replicas = topology.groups.values().flat_map(|group| group.servers.iter().skip(1));
        for replica in replicas {
            ensure!(replica.link_up, "{replica:?}");
        }
        ensure!(
            topology.proxies.iter().all(|proxy| proxy.online),
            "{:?}",
            topology.proxies
        );
        Ok(())
    })
    .await
}

async fn admin(cluster: &Cluster, pod: &str, ip: &str, command: &str) -> Result<()> {
    let script = format!("codis-admin --dashboard={ip}:18080 {command}");
    let done = cluster
        .lab()
        .exec(&cluster.namespace.name, pod, DASHBOARD, &script)
        .await;
    done.map(drop).with_context(|| command.to_owned())
}

fn server() -> String {
    format!("codis-server $(CODIS_PATH)/config/redis.conf --requirepass {PRODUCT} --masterauth {PRODUCT}")
}

fn sentinel() -> String {
    "codis-server $(CODIS_PATH)/config/sentinel.conf --sentinel".to_owned()
}

/// What is the same for all of its objects.
struct Made<'a> {
    name: &'a str,
    namespace: &'a str,
    owner: Value,
    coordinator: (&'a str, &'a str),
}

impl Made<'_> {
    fn dashboard(&self) -> String {
        format!(
            "codis-dashboard --$(COORDINATOR_NAME) $(COORDINATOR_ADDR) -c $(CODIS_PATH)/config/dashboard.toml --host-admin $(POD_IP):18080 --product_name $(PRODUCT_NAME) --product_auth {PRODUCT}"
        )
    }

    fn proxy(&self) -> String {
        format!(
            "codis-proxy -c $(CODIS_PATH)/config/proxy.toml --dashboard $(DASHBOARD):18080 --host-admin $(POD_IP):11080 --host-proxy $(POD_IP):19000 --product_name $(PRODUCT_NAME) --product_auth {PRODUCT} --session_auth {SESSION}"
        )
    }

    fn fe(&self) -> String {
        "codis-fe --assets-dir $(CODIS_PATH)/bin/assets --listen $(POD_IP):9090 --dashboard-list $(CODIS_PATH)/config/dashboard.txt"
            .to_owned()
    }

    fn labels(&self, component: &str) -> Value {
        json!({"component": component, "clusterName": self.name})
    }

    /// The workloads have no labels, the Services have.
    fn meta(&self, part: &str, labels: Option<Value>) -> Value {
        let mut meta = json!({"name": format!("{}-{part}", self.name), "namespace": self.namespace, "ownerReferences": self.owner});
        if let Some(labels) = labels {
            meta["labels"] = labels;
        }
        meta
    }

    fn service(&self, part: &str, component: &str, ports: &[(&str, u16)]) -> Value {
        let ports = ports
            .iter()
            .map(|(name, port)| json!({"name": name, "port": port, "targetPort": port}));
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": self.meta(part, Some(self.labels(component))),
            "spec": {"ports": ports.collect::<Vec<_>>(), "selector": self.labels(component)},
        })
    }

    fn headless(&self, part: &str, component: &str, port: u16) -> Value {
        let mut service = self.service(part, component, &[("port", port)]);
        service["spec"]["clusterIP"] = json!("None");
        service
    }

    fn public(&self, part: &str, component: &str, ports: &[(&str, u16)]) -> Value {
        let mut service = self.service(part, component, ports);
        service["spec"]["type"] = json!("NodePort");
        service
    }

    fn template(&self, component: &str, command: &str) -> Value {
        let (kind, address) = self.coordinator;
        let dashboard = format!("{}-dashboard.{}.svc.cluster.local", self.name, self.namespace);
        let words: Vec<&str> = command.split(' ').collect();
        json!({
            "metadata": {"labels": self.labels(component)},
            "spec": {"containers": [{
                "name": component, "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                "command": words[..1], "args": words[1..],
                "env": [
                    {"name": "CODIS_PATH", "value": "/gopath/src/github.com/CodisLabs/codis"},
                    {"name": "PRODUCT_NAME", "value": self.name},
                    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "COORDINATOR_NAME", "value": kind},
                    {"name": "COORDINATOR_ADDR", "value": address},
                    {"name": "DASHBOARD", "value": dashboard},
                ],
                "resources": {"requests": {"cpu": "10m", "memory": "24Mi"}},
            }]},
        })
    }

    /// `data`: whether it has a volume at /data, and whether that is a claim.
    fn set(&self, part: &str, component: &str, replicas: i32, command: &str, data: Option<bool>) -> Value {
        let mut template = self.template(component, command);
        let volume = format!("{}-{part}-volume", self.name);
        let mut claims = Vec::new();
        if let Some(claim) = data {
            template["spec"]["containers"][0]["volumeMounts"] = json!([{"name": volume, "mountPath": "/data"}]);
            if claim {
                claims.push(json!({
                    "metadata": {"name": volume, "ownerReferences": self.owner},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "256Mi"}}},
                }));
            } else {
                template["spec"]["volumes"] = json!([{"name": volume, "emptyDir": {}}]);
            }
        }
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": self.meta(part, None),
            "spec": {
                "replicas": replicas, "serviceName": format!("{}-{part}", self.name), "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": self.labels(component)}, "template": template, "volumeClaimTemplates": claims,
            },
        })
    }

    fn deployment(&self, part: &str, component: &str, replicas: i32, command: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": self.meta(part, None),
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": self.labels(component)},
                "template": self.template(component, command),
            },
        })
    }

    fn autoscaler(&self, proxies: i32) -> Value {
        json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": self.meta("hpa", None),
            "spec": {
                "minReplicas": proxies, "maxReplicas": proxies, "targetCPUUtilizationPercentage": 80,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("{}-proxy", self.name)},
            },
        })
    }
}
