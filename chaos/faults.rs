//! What can go wrong, done to real pods.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::support::{
    cluster::Cluster,
    health::Snapshot,
    lab::{Lab, OPERATOR, OPERATOR_NAMESPACE},
    processes::signal,
    wait::{secs, wait_for},
};

/// Whom a fault is done to.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// The master of the first group.
    Master,
    /// A replica of the first group.
    Replica,
    /// One pod of a component.
    One(&'static str),
    /// Every pod of the cluster.
    All,
}

/// A fault.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// SIGKILL, and the pod is deleted without grace: Kubernetes brings a new one at once.
    Kill(Target),
    /// The same, but no node takes the new pod until a sentinel has promoted another one, and ten seconds at least.
    KillForLong(Target),
    /// The same, and the operator is killed in the middle of it.
    KillForLongWithOperator(Target),
    /// SIGKILL of the process alone: the container restarts in place, in the same pod.
    KillProcess(Target),
}

/// What a fault has done.
pub struct Injected {
    /// When it began.
    pub at: Instant,
    /// When the last process was dead.
    pub dead: Instant,
    /// The pods.
    pub killed: BTreeSet<String>,
    /// How long they were away at least.
    pub away: Duration,
}

impl Injected {
    /// The processes have just died.
    fn now(at: Instant, killed: BTreeSet<String>) -> Self {
        Self {
            at,
            dead: Instant::now(),
            killed,
            away: Duration::ZERO,
        }
    }
}

impl Fault {
    /// Does it. `told` are the switches that sentinels told of before.
    pub async fn inject(self, cluster: &Cluster, before: &Snapshot, told: &BTreeSet<String>) -> Result<Injected> {
        match self {
            Self::Kill(target) => {
                let killed = kill(cluster, before, target).await?;
                let away = return_of(cluster, before, &killed.killed, killed.at).await?;
                Ok(Injected { away, ..killed })
            }
            Self::KillProcess(target) => {
                let killed = target.pods(before)?;
                let at = Instant::now();
                sigkill(before, &killed).await?;
                Ok(Injected::now(at, killed))
            }
            Self::KillForLong(target) => kill_for_long(cluster, before, target, told, false).await,
            Self::KillForLongWithOperator(target) => kill_for_long(cluster, before, target, told, true).await,
        }
    }
}

impl Target {
    fn pods(self, snapshot: &Snapshot) -> Result<BTreeSet<String>> {
        let (id, group) = snapshot.topology.groups.first_key_value().context("no group")?;
        Ok(match self {
            Self::Master => BTreeSet::from([snapshot.master_of(*id)?]),
            Self::Replica => {
                let replica = group.servers.get(1).context("no replica")?;
                BTreeSet::from([snapshot.pod_at(&replica.address)?])
            }
            Self::One(component) => snapshot.pods_of(component).into_iter().take(1).collect(),
            Self::All => snapshot.pods.keys().cloned().collect(),
        })
    }
}

async fn kill(cluster: &Cluster, before: &Snapshot, target: Target) -> Result<Injected> {
    let pods = target.pods(before)?;
    ensure!(!pods.is_empty(), "there is no {target:?}");
    let at = Instant::now();
    sigkill(before, &pods).await?;
    let injected = Injected::now(at, pods);
    delete(cluster, &injected.killed).await?;
    Ok(injected)
}

async fn kill_for_long(
    cluster: &Cluster,
    before: &Snapshot,
    target: Target,
    told: &BTreeSet<String>,
    operator: bool,
) -> Result<Injected> {
    let lab = cluster.lab();
    lab.schedulable(false).await?;
    let result = async {
        let killed = kill(cluster, before, target).await?;
        if operator {
            kill_operator(lab).await?;
        }
        // A promotion that doesn't come is for the invariants to tell.
        let switched = async || {
            let now = switches(cluster, before).await;
            ensure!(!now.is_subset(told), "no +switch-master");
            Ok(())
        };
        let _: Result<()> = wait_for("a promotion", secs(40), switched).await;
        tokio::time::sleep_until((killed.at + secs(10)).into()).await;
        let away = killed.at.elapsed();
        Ok(Injected { away, ..killed })
    }
    .await;
    lab.schedulable(true).await?;
    result
}

/// Kills the main process of each pod's container.
async fn sigkill(snapshot: &Snapshot, pods: &BTreeSet<String>) -> Result<()> {
    signal(pods.iter().filter_map(|name| snapshot.pods.get(name)), "SIGKILL").await
}

async fn delete(cluster: &Cluster, pods: &BTreeSet<String>) -> Result<()> {
    let flags = ["delete", "pods", "--grace-period=0", "--force", "--wait=false"];
    let args: Vec<&str> = flags.into_iter().chain(pods.iter().map(String::as_str)).collect();
    cluster.namespace.kubectl(&args).await.map(drop)
}

/// How long it took until each killed server runs again, as its new pod.
async fn return_of(cluster: &Cluster, before: &Snapshot, killed: &BTreeSet<String>, at: Instant) -> Result<Duration> {
    let servers: Vec<&String> = killed
        .iter()
        .filter(|name| before.pods[*name].component == "server")
        .collect();
    wait_for("the servers' new pods", secs(120), async || {
        let pods = cluster.pods().await?;
        for name in &servers {
            let pod = pods
                .iter()
                .find(|pod| pod.metadata.name.as_ref() == Some(name))
                .context("no pod yet")?;
            ensure!(
                pod.metadata.uid.as_ref() != Some(&before.pods[*name].uid),
                "{name}: the old pod"
            );
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            ensure!(phase == Some("Running"), "{name} is {phase:?}");
        }
        Ok(())
    })
    .await?;
    Ok(at.elapsed())
}

async fn kill_operator(lab: &Lab) -> Result<()> {
    let label = format!("app.kubernetes.io/name={OPERATOR}");
    let args = [
        "-n",
        OPERATOR_NAMESPACE,
        "delete",
        "pods",
        "-l",
        &label,
        "--grace-period=0",
        "--force",
    ];
    lab.kubectl(&args).await.map(drop)
}

/// What the sentinels' logs tell of switches.
pub async fn switches(cluster: &Cluster, before: &Snapshot) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for pod in before.pods_of("sentinel") {
        let log = cluster.log(&pod, "sentinel").await.unwrap_or_default();
        let of_pod = log.lines().filter(|line| line.contains("+switch-master "));
        lines.extend(of_pod.map(|line| format!("{pod}: {line}")));
    }
    lines
}
