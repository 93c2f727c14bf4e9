//! The world of the demo, and what is done in it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    origin,
    tell::{Style, Teller},
    view::{NAMESPACE, SOURCE, View},
};
use crate::{
    api::{CodisGitSource, names},
    cluster::{Cluster, WriteGate},
    gitops,
    simulation::{Plan, World},
    telemetry::{Effects, Metrics},
};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);
/// Longer than anything of the demo takes on a slow machine.
const LIMIT: Duration = Duration::from_secs(90);
/// A client writes so often.
const PACE: Duration = Duration::from_millis(20);

/// Something that is told when it is first seen: who, and what.
pub(super) type Milestone<'a> = (&'static str, Box<dyn Fn(&View) -> Option<String> + 'a>);

/// The world and its teller.
pub(super) struct Stage {
    /// The world.
    pub world: World,
    /// A client of its API server.
    pub client: kube::Client,
    /// Who tells of it.
    pub teller: Teller,
}

impl Stage {
    /// A new world. To be called within a runtime of one thread.
    pub(super) fn new(teller: Teller) -> Result<Self> {
        let plan = Plan {
            seed: fastrand::u64(..),
            on_volumes: false,
            groups: 0,
            replicas: 0,
            rivals: false,
            skew: 0,
            outside: false,
            from_git: false,
            bug: None,
        };
        let world = World::empty(plan)?;
        let client = world.api.client();
        Ok(Self { world, client, teller })
    }

    /// Starts the Git sources.
    pub(super) fn start_sources(&self, root: PathBuf, watch_dir: Option<PathBuf>) -> Result<()> {
        let settings = gitops::Settings {
            program: std::env::current_exe().context("the path of this program")?,
            root,
            watch_dir: watch_dir.map(|folder| (folder, NAMESPACE.to_owned())),
        };
        let door = Cluster::new(self.client.clone(), WriteGate::open(), Effects::none(), "demo");
        let sources = gitops::run(door, Metrics::default(), settings, std::future::pending());
        tokio::spawn(async move {
            if let Err(error) = sources.await {
                eprintln!("the Git sources ended: {error:#}");
            }
        });
        Ok(())
    }

    /// Applies `source.yaml` of the example, with this URL.
    pub(super) async fn apply_source(&self, url: &str, branch: &str, path: Option<&str>) -> Result<()> {
        let mut source: CodisGitSource = serde_yaml::from_str(origin::SOURCE)?;
        source.spec.url = url.to_owned();
        source.spec.path = path.map(str::to_owned);
        if let Some(reference) = &mut source.spec.reference {
            reference.branch = Some(branch.to_owned());
        }
        source.spec.interval = Some("5s".to_owned());
        let sources = Api::namespaced(self.client.clone(), NAMESPACE);
        sources.create(&PostParams::default(), &source).await?;
        Ok(())
    }

    /// Has the source look at once, as a webhook would.
    pub(super) async fn nudge(&self) -> Result<()> {
        let sources = Api::<CodisGitSource>::namespaced(self.client.clone(), NAMESPACE);
        let now = jiff::Timestamp::now().to_string();
        let patch = json!({"metadata": {"annotations": {names::ANNOTATION_REQUESTED_AT: now}}});
        let patch = Patch::Merge(&patch);
        sources.patch(SOURCE, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Lets time pass in the world while something else is done.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        self.world.during(work).await
    }

    /// Lets time pass.
    pub(super) async fn pass(&mut self, time: Duration) {
        self.world.run_until(Instant::now() + time).await;
    }

    /// A look at the example's cluster.
    pub(super) async fn look(&self) -> Result<View> {
        Ok(View::of(&self.client, origin::CLUSTER).await?)
    }

    /// Tells of each of these when it is first seen; ends with the last of them.
    pub(super) async fn await_all(&mut self, milestones: Vec<Milestone<'_>>) -> Result<View> {
        let end = Instant::now() + LIMIT;
        let mut left = milestones;
        loop {
            let view = self.look().await?;
            let mut told = Vec::new();
            left.retain(|(who, seen)| seen(&view).map(|what| told.push((*who, what))).is_none());
            for (who, what) in told {
                self.teller.event(Style::Good, who, &what);
            }
            if left.is_empty() {
                return Ok(view);
            }
            if Instant::now() >= end {
                let missing: Vec<&str> = left.iter().map(|(who, _)| *who).collect();
                let (limit, says) = (LIMIT.as_secs(), view.waits_for());
                bail!("not within {limit} s: {}. The status says: {says}", missing.join(", "));
            }
            self.teller.progress(&view.waits_for());
            self.pass(LOOK).await;
        }
    }

    /// Waits for something that isn't told.
    pub(super) async fn until(&mut self, what: &str, seen: impl Fn(&View) -> bool) -> Result<View> {
        let end = Instant::now() + LIMIT;
        loop {
            let view = self.look().await?;
            if seen(&view) {
                return Ok(view);
            }
            let says = view.waits_for();
            if Instant::now() >= end {
                bail!("{what}: not within {} s. The status says: {says}", LIMIT.as_secs());
            }
            self.teller.progress(&says);
            self.pass(LOOK).await;
        }
    }

    /// A client begins to write through the proxies.
    pub(super) async fn write(&mut self) -> Result<()> {
        let way = self.way().await?;
        let ledger = self.world.ledger.clone();
        way.write([10, 246, 0, 1].into(), "key".to_owned(), PACE, &ledger);
        Ok(())
    }

    /// How clients find the cluster: as applications do, by the Secret that the operator makes for them.
    async fn way(&self) -> Result<crate::simulation::Way> {
        let name = format!("{}-connection", origin::CLUSTER);
        let secret = Api::<Secret>::namespaced(self.client.clone(), NAMESPACE)
            .get(&name)
            .await?;
        let password = secret.data.unwrap_or_default().remove("password").unwrap_or_default();
        let mut way = self.world.way();
        way.address = format!("{}-proxy.{NAMESPACE}.svc:19000", origin::CLUSTER);
        way.password = String::from_utf8(password.0)?;
        Ok(way)
    }

    /// Ends the writing, and reads back all that was acknowledged: how many there are, and which are missing.
    pub(super) async fn read_back(&mut self) -> Result<(usize, usize)> {
        self.world.ledger.close();
        let (way, writes) = (self.way().await?, self.world.ledger.acknowledged());
        let count = writes.len();
        let missing = self.during(way.missing([10, 246, 1, 1].into(), writes)).await;
        let missing = missing.map_err(|error| anyhow::anyhow!("the writes can't be read: {error}"))?;
        Ok((count, missing.len()))
    }

    /// How many writes were acknowledged, and how many got an error or no answer.
    pub(super) fn writes(&self) -> (usize, u32) {
        let ledger = &self.world.ledger;
        (ledger.count(), ledger.failed().values().sum())
    }

    /// A pod's process is killed, and the pod is gone at once.
    pub(super) async fn kill(&self, pod: &str) -> Result<()> {
        let running = self.world.pods.get(NAMESPACE, pod);
        running.with_context(|| format!("{pod} doesn't run"))?.kill();
        let pods = Api::<Pod>::namespaced(self.client.clone(), NAMESPACE);
        let now = DeleteParams::default().grace_period(0);
        pods.delete(pod, &now).await?;
        Ok(())
    }
}
