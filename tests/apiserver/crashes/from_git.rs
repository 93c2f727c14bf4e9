//! The same of a Git source: a revision that changes one cluster, makes another and leaves a third one out is taken over
//! the same wherever the process dies, and one that comes after it and knows nothing finds nothing to do.

use std::{fs, path::PathBuf};

use codis_git_server::{GitServer, Options, WorkTree, create_repository};
use codis_operator::api::{CodisCluster, CodisClusterSpec, CodisGitSource, CodisGitSourceStatus};
use kube::{
    Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use super::{
    Outcome, ends_the_same,
    operations::spec,
    operator::{Done, Hook, MOMENTS, Moment, Process},
    state::{State, collect, state},
};
use crate::{
    support::apiserver::{ApiServer, User, server},
    world::World,
};

/// Enough on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);
/// So many of the moments are tried at each effect, in turn.
const WAYS: usize = 2;
/// Where the source looks.
const FOLDER: &str = "clusters";

/// The servers, and a folder for all fleets.
struct Place {
    server: &'static ApiServer,
    git: GitServer,
    folder: PathBuf,
}

/// A namespace with a source, its repository, and the process that serves it.
struct Fleet<'a> {
    place: &'a Place,
    world: World,
    tree: WorkTree,
    client: Client,
    hook: Hook,
}

impl Place {
    async fn new(server: &'static ApiServer) -> Self {
        let folder = std::env::temp_dir().join(format!("codis-crashes-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let git = GitServer::start("127.0.0.1:0", &folder, Options::default());
        Self {
            server,
            git: git.await.unwrap(),
            folder,
        }
    }
}

impl<'a> Fleet<'a> {
    async fn new(place: &'a Place) -> Self {
        let namespace = place.server.namespace().await;
        create_repository(&place.folder, &namespace).unwrap();
        let folder = place.folder.join(format!("tree-{namespace}"));
        Self {
            place,
            tree: WorkTree::clone(&place.git.url(&namespace), &folder).unwrap(),
            client: place.server.client(User::Operator),
            hook: Hook::default(),
            world: World::of(place.server, namespace),
        }
    }

    /// Clusters `changes` and `leaves` are there, from the first revision.
    async fn prepare(&self) -> Result<(), String> {
        self.write("changes", 2);
        self.write("leaves", 2);
        self.push();
        let source = json!({ "url": self.place.git.url(&self.world.namespace), "path": FOLDER, "interval": "1h" });
        let source = CodisGitSource::new("fleet", serde_json::from_value(source).unwrap());
        let sources = self.world.api::<CodisGitSource>();
        sources.create(&PostParams::default(), &source).await.unwrap();
        self.serve_until("first").await
    }

    /// The second revision, taken over; then a process that knows nothing. What exists after each.
    async fn sync(&self) -> Result<Vec<State>, String> {
        self.write("changes", 3);
        self.write("comes", 2);
        self.tree.remove(&format!("{FOLDER}/leaves.yml")).unwrap();
        self.push();
        let mut states = Vec::new();
        for request in ["second", "third"] {
            self.serve_until(request).await?;
            states.push(state(&self.world).await);
        }
        Ok(states)
    }

    fn write(&self, name: &str, proxies: u32) {
        let spec: CodisClusterSpec =
            serde_json::from_value(spec(json!({ "codisProxy": { "replicas": proxies } }))).unwrap();
        let text = serde_yaml::to_string(&CodisCluster::new(name, spec)).unwrap();
        self.tree.write(&format!("{FOLDER}/{name}.yml"), text).unwrap();
    }

    fn push(&self) {
        self.tree.commit("a revision").unwrap();
        self.tree.push("main").unwrap();
    }

    /// Asks for a look, and serves the source until it was done and all is as the repository says. Whoever dies is
    /// followed by another process.
    async fn serve_until(&self, request: &str) -> Result<(), String> {
        let asks = json!({ "metadata": { "annotations": { "codis.k8s.io/requestedAt": request } } });
        let sources = self.world.api::<CodisGitSource>();
        let (params, asks) = (PatchParams::default(), Patch::Merge(asks));
        sources.patch("fleet", &params, &asks).await.unwrap();
        let (end, work) = (Instant::now() + LIMIT, self.place.folder.join("work"));
        loop {
            let process = Process::start(self.client.clone(), &self.hook);
            let done = tokio::select! {
                biased;
                ended = process.serve(&work) => ended,
                () = self.is_done(request) => return Ok(()),
                () = tokio::time::sleep_until(end) => {
                    let status = sources.get("fleet").await.unwrap().status;
                    return Err(format!("{request}: not done within {LIMIT:?}: {status:?}"));
                }
            };
            if let Done::Ended(ended) = done {
                return Err(format!("it ended by itself: {ended:?}"));
            }
        }
    }

    async fn is_done(&self, request: &str) {
        let revision = format!("main@sha1:{}", self.tree.head().unwrap());
        let is_whole = |status: &CodisGitSourceStatus| {
            let is_ready = |ready: &_| {
                status
                    .conditions
                    .iter()
                    .any(|c| c.type_ == "Ready" && c.status == ready)
            };
            status.last_handled_reconcile_at.as_deref() == Some(request)
                && status.last_applied_revision.as_ref() == Some(&revision)
                && status.applying_revision.is_none()
                && is_ready("True")
        };
        let sources = self.world.api::<CodisGitSource>();
        while !sources
            .get("fleet")
            .await
            .unwrap()
            .status
            .as_ref()
            .is_some_and(is_whole)
            || !self.all_tell().await
        {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether each cluster tells of which revision it is. Where somebody died that comes last.
    async fn all_tell(&self) -> bool {
        let clusters = self.world.api::<CodisCluster>();
        let all = clusters.list(&ListParams::default()).await.unwrap();
        let tells = |cluster: &CodisCluster| {
            let told = cluster.status.as_ref().and_then(|status| status.gitops.as_ref());
            told.map(|told| &told.revision) == cluster.annotations().get("codis.k8s.io/revision")
        };
        all.iter().all(tells)
    }

    /// Nothing is left of it; its source isn't another fleet's business.
    async fn end(self) {
        collect(&self.world).await;
    }
}

/// Has the process die at one effect.
async fn try_one(place: &Place, calm: &[State], (number, moment): (usize, Moment)) -> Result<(), String> {
    let fleet = Fleet::new(place).await;
    fleet.prepare().await?;
    fleet.hook.crash_at(number, moment);
    let states = fleet.sync().await;
    let hook = fleet.hook.clone();
    fleet.end().await;
    ends_the_same(&hook, calm, &states?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_is_taken_over_the_same_wherever_the_operator_dies() {
    let Some(server) = server().await else { return };
    let place = Place::new(server).await;
    let fleet = Fleet::new(&place).await;
    fleet.prepare().await.unwrap();
    let first = fleet.hook.sent();
    let calm = fleet.sync().await.unwrap();
    let names = fleet.hook.names_since(first);
    fleet.end().await;
    let mut failed = Vec::new();
    // A process serves the sources of all namespaces: one after the other.
    for number in 0..names.len() * WAYS {
        let (effect, moment) = (number / WAYS, MOMENTS[number % MOMENTS.len()]);
        if let Err(why) = try_one(&place, &calm, (effect, moment)).await {
            failed.push(format!("{moment:?} effect {effect} ({}): {why}", names[effect]));
        }
    }
    fs::remove_dir_all(&place.folder).ok();
    let points = names.len() * WAYS;
    Outcome { points, failed }.tell("Git sync", 16);
}
