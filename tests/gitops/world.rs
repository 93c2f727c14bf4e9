//! One test's namespace, repository and sources; the engine that serves them all.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use codis_git_server::{GitServer, Options, WorkTree, create_repository};
use codis_operator::{
    api::{CodisCluster, CodisGitSource, CodisGitSourceStatus},
    cluster::{Cluster, WriteGate},
    gitops::{self, Settings},
    telemetry::{Effects, Metrics},
};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::support::apiserver::{ApiServer, Logged, User, server};

/// Enough on a loaded machine; nothing that works needs it.
pub const LIMIT: Duration = Duration::from_secs(60);
/// No source polls by itself in this time: what a test wants looked at, it pokes.
const NEVER: &str = "1h";

/// The Git server and the engine, for all tests.
struct Shared {
    git: GitServer,
    root: PathBuf,
}

pub struct World {
    pub server: &'static ApiServer,
    pub git: &'static GitServer,
    /// The folder of the Git server's repositories.
    pub root: &'static Path,
    pub namespace: String,
    /// The repository's name, its clone.
    pub repository: String,
    pub tree: WorkTree,
    pub admin: Client,
    pokes: AtomicU32,
}

async fn shared(server: &'static ApiServer, is_served: bool) -> &'static Shared {
    static SHARED: OnceCell<Shared> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let root = std::env::temp_dir().join(format!("codis-gitops-{}", std::process::id()));
            fs::create_dir_all(&root).unwrap();
            // A runtime that outlives each test's own.
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let folder = root.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(async {
                    let git = GitServer::start("127.0.0.1:0", &folder, Options::default())
                        .await
                        .unwrap();
                    sender.send(git).ok();
                    if is_served {
                        engine(server, folder.join("work"), None).await;
                    }
                    std::future::pending::<()>().await;
                });
            });
            Shared {
                git: receiver.await.unwrap(),
                root,
            }
        })
        .await
}

/// Serves sources as the operator does, for ever.
pub async fn engine(server: &'static ApiServer, root: PathBuf, watch_dir: Option<(PathBuf, String)>) {
    let client = server.client(User::Operator);
    let door = Cluster::new(client, WriteGate::open(), Effects::none(), "test");
    let settings = Settings {
        program: env!("CARGO_BIN_EXE_codis-operator").into(),
        root,
        watch_dir,
    };
    gitops::run(door, Metrics::default(), settings, std::future::pending())
        .await
        .unwrap();
}

impl World {
    /// `None` when there is no API server to test with.
    pub async fn new() -> Option<Self> {
        Self::of(true).await
    }

    /// A world whose sources nobody serves, in all of this test binary.
    pub async fn unserved() -> Option<Self> {
        Self::of(false).await
    }

    async fn of(is_served: bool) -> Option<Self> {
        let server = server().await?;
        let shared = shared(server, is_served).await;
        let namespace = server.namespace().await;
        let repository = namespace.clone();
        create_repository(&shared.root, &repository).unwrap();
        let tree = WorkTree::clone(
            &shared.git.url(&repository),
            &shared.root.join(format!("tree-{namespace}")),
        )
        .unwrap();
        Some(Self {
            server,
            git: &shared.git,
            root: &shared.root,
            namespace,
            repository,
            tree,
            admin: server.client(User::Admin),
            pokes: AtomicU32::new(0),
        })
    }

    pub fn clusters(&self) -> Api<CodisCluster> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    pub fn sources(&self) -> Api<CodisGitSource> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// The source `fleet` of this test's repository, at the folder `clusters`.
    pub async fn source(&self) -> CodisGitSource {
        self.source_with("fleet", json!({})).await
    }

    pub async fn source_with(&self, name: &str, more: Value) -> CodisGitSource {
        let mut spec = json!({ "url": self.git.url(&self.repository), "path": "clusters", "interval": NEVER });
        merge(&mut spec, more);
        let source: CodisGitSource = serde_json::from_value(json!({
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisGitSource", "metadata": { "name": name }, "spec": spec
        }))
        .unwrap();
        self.sources().create(&PostParams::default(), &source).await.unwrap()
    }

    /// Makes a source look now, and waits until it did.
    pub async fn poke(&self, name: &str) -> CodisGitSourceStatus {
        let value = format!("poke-{}", self.pokes.fetch_add(1, Ordering::Relaxed));
        self.annotate(name, "codis.k8s.io/requestedAt", &value).await;
        self.status(name, "the request to be handled", |status| {
            status.last_handled_reconcile_at.as_deref() == Some(&value)
        })
        .await
    }

    pub async fn annotate(&self, source: &str, key: &str, value: &str) {
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        self.sources()
            .patch(source, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    /// Waits until a source's status is as wanted.
    pub async fn status(
        &self,
        name: &str,
        what: &str,
        is: impl Fn(&CodisGitSourceStatus) -> bool,
    ) -> CodisGitSourceStatus {
        eventually(what, async || {
            let status = self.sources().get(name).await.unwrap().status.unwrap_or_default();
            if is(&status) {
                Ok(status)
            } else {
                Err(format!("{status:#?}"))
            }
        })
        .await
    }

    /// Waits until a source's condition Ready has this reason.
    pub async fn reason(&self, name: &str, reason: &str) -> CodisGitSourceStatus {
        self.status(name, reason, |status| ready(status).1 == reason).await
    }

    /// Waits until a cluster is as wanted.
    pub async fn cluster(&self, name: &str, what: &str, is: impl Fn(&CodisCluster) -> bool) -> CodisCluster {
        eventually(what, async || match self.clusters().get_opt(name).await.unwrap() {
            Some(cluster) if is(&cluster) => Ok(cluster),
            other => Err(format!("{other:#?}")),
        })
        .await
    }

    /// A person's edit.
    pub async fn edit(&self, name: &str, patch: Value) {
        let params = PatchParams {
            field_manager: Some("kubectl-edit".into()),
            ..PatchParams::default()
        };
        self.clusters()
            .patch(name, &params, &Patch::Merge(patch))
            .await
            .unwrap();
    }

    /// Waits until an event with this reason is there, and gives its note.
    pub async fn event(&self, reason: &str) -> String {
        let api = Api::<Event>::namespaced(self.admin.clone(), &self.namespace);
        eventually("an event", async || {
            let events = api.list(&ListParams::default()).await.unwrap().items;
            let found = events.iter().find(|event| event.reason.as_deref() == Some(reason));
            let told = || format!("{:?}", events.iter().map(|e| (&e.reason, &e.note)).collect::<Vec<_>>());
            found.and_then(|event| event.note.clone()).ok_or_else(told)
        })
        .await
    }

    /// Requests of the operator about specs: those that changed one, and those that only asked.
    pub fn spec_writes(&self) -> (Vec<String>, Vec<String>) {
        spec_writes(&self.server.requests(User::Operator, &self.namespace))
    }
}

/// Names of clusters that were written, and of those that were only rehearsed.
pub fn spec_writes(requests: &[Logged]) -> (Vec<String>, Vec<String>) {
    let of_git = |logged: &&Logged| logged.resource == "codisclusters" && logged.uri.contains("codis-gitops");
    let (asked, written): (Vec<_>, Vec<_>) = requests
        .iter()
        .filter(of_git)
        .partition(|logged| logged.uri.contains("dryRun"));
    let names = |all: Vec<&Logged>| all.iter().map(|logged| logged.name.clone()).collect();
    (names(written), names(asked))
}

/// Status, reason and message of the condition Ready.
pub fn ready(status: &CodisGitSourceStatus) -> (String, String, String) {
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
    ready.map_or_else(Default::default, |c| {
        (c.status.clone(), c.reason.clone(), c.message.clone())
    })
}

/// A small cluster's file.
pub fn file(name: &str, proxies: u32) -> String {
    format!(
        "apiVersion: codis.k8s.io/v1alpha1
kind: CodisCluster
metadata:
  name: {name}
spec:
  coordinatorName: filesystem
  coordinatorAddr: builtin
  codisProxy:
    replicas: {proxies}
    image: codis
  codisServer:
    replicas: 4
    groupReplicas: 2
    image: codis
  codisDashboard:
    replicas: 1
    image: codis
"
    )
}

pub fn proxies(cluster: &CodisCluster) -> i32 {
    cluster.spec.codis_proxy.replicas
}

/// Waits until something holds.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(now) if Instant::now() > end => panic!("waited {LIMIT:?} for {what}; now: {now}"),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}
