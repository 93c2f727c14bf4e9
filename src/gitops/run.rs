//! Every source of the API server and the watched folder, each in a task of its own; told of what changes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::OptionFuture};
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::{
    directory::{self, Watch},
    git::Git,
    source::{Hub, Kind, Nudges, Source},
};
use crate::{
    api::{CodisCluster, CodisGitSource, names},
    cluster::{Cache, Change, Cluster},
    telemetry::{Clock, Metrics},
};

/// How long a source whose task failed by a mistake of ours waits.
const AFTER_A_PANIC: Duration = Duration::from_secs(30);

/// How Git sources are served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This program: it is started again, as `git-worker`, for every fetch.
    pub program: PathBuf,
    /// A folder of our own, for what is fetched.
    pub root: PathBuf,
    /// A folder that is a source too, and the namespace of its clusters.
    pub watch_dir: Option<(PathBuf, String)>,
}

/// Namespace and name of a source.
type Key = (String, String);

struct Running {
    uid: Option<String>,
    updates: watch::Sender<Kind>,
    nudges: Arc<Nudges>,
    /// Rung when a folder changed.
    changed: Arc<Notify>,
    task: AbortHandle,
}

struct Sources {
    hub: Arc<Hub>,
    cache: Cache<CodisGitSource>,
    running: HashMap<Key, Running>,
    tasks: JoinSet<Key>,
}

/// Serves every source until `stopping`.
///
/// # Errors
/// When the folder of `--watch-dir` can't be watched.
pub async fn run(
    door: Cluster,
    metrics: Metrics,
    settings: Settings,
    stopping: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let git = Git::new(settings.program, settings.root);
    serve(door, metrics, git, Clock::default(), settings.watch_dir, stopping).await
}

/// The same with a door to Git and a clock of one's own.
///
/// # Errors
/// As [`run`].
pub async fn serve(
    door: Cluster,
    metrics: Metrics,
    git: Git,
    clock: Clock,
    watch_dir: Option<(PathBuf, String)>,
    stopping: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let (live, clusters) = door.watch::<CodisCluster>(Some(names::LABEL_SOURCE));
    let (cache, changes) = door.watch::<CodisGitSource>(None);
    let hub = Hub {
        git,
        door,
        live,
        metrics,
        clock,
    };
    let mut sources = Sources {
        hub: Arc::new(hub),
        cache,
        running: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let (mut clusters, mut changes) = (Box::pin(clusters), Box::pin(changes));
    let mut stopping = std::pin::pin!(stopping);
    // What exists is known before anything is compared with it: else all of it would be written again.
    loop {
        tokio::select! {
            // Never by chance: a world is to go the same way twice.
            biased;
            () = &mut stopping => return Ok(()),
            change = clusters.next() => match change {
                Some(Change::All) => break,
                Some(Change::Of(..)) => (),
                None => return Ok(()),
            },
        }
    }
    // Rung when the folder changed.
    let changed = Arc::<Notify>::default();
    let mut watch = match watch_dir {
        Some((folder, namespace)) => Some(sources.serve_folder(&folder, namespace, &changed)?),
        None => None,
    };
    loop {
        tokio::select! {
            biased;
            () = &mut stopping => return Ok(()),
            Some(ended) = sources.tasks.join_next_with_id() => sources.ended(ended),
            Some(change) = changes.next() => sources.renew(change),
            Some(()) = OptionFuture::from(watch.as_mut().map(Watch::changed)) => changed.notify_one(),
            // Last, for there may be very many.
            Some(change) = clusters.next() => sources.tell(&change),
        }
    }
}

impl Sources {
    /// Tells the sources of a namespace that a cluster changed: its label may be gone, or another's now.
    fn tell(&self, change: &Change) {
        for ((namespace, _), running) in &self.running {
            match change {
                Change::Of(of, name) if of == namespace => running.nudges.push(name.clone()),
                Change::Of(..) => (),
                Change::All => running.nudges.push_all(),
            }
        }
    }

    fn renew(&mut self, change: Change) {
        match change {
            Change::Of(namespace, name) => self.renew_one((namespace, name)),
            Change::All => {
                let known = self.running.keys().filter(|(_, name)| name != names::WATCH_DIR_SOURCE);
                let there = self.cache.state();
                let there = there
                    .iter()
                    .map(|source| (source.namespace().unwrap_or_default(), source.name_any()));
                let all: std::collections::BTreeSet<Key> = known.cloned().chain(there).collect();
                all.into_iter().for_each(|key| self.renew_one(key));
            }
        }
    }

    fn renew_one(&mut self, key: Key) {
        let found = self.cache.get(&ObjectRef::new(&key.1).within(&key.0));
        let found = found.filter(|source| source.metadata.deletion_timestamp.is_none());
        let uid = found.as_ref().and_then(|source| source.uid());
        if let Some(running) = self.running.get(&key)
            && (found.is_none() || running.uid != uid)
        {
            running.task.abort();
            self.running.remove(&key);
            // A whole repository may have to be removed: not on a thread that others need.
            let (hub, key) = (Arc::clone(&self.hub), format!("{}/{}", key.0, key.1));
            tokio::spawn(async move {
                let git = Arc::clone(&hub);
                hub.git.aside(move || git.git.forget(&key)).await;
            });
        }
        let Some(source) = found else { return };
        match self.running.get(&key) {
            Some(running) => {
                running.updates.send_replace(Kind::Object(source));
            }
            None => self.serve(key, Kind::Object(source), uid, Arc::default(), Duration::ZERO),
        }
    }

    fn serve(&mut self, key: Key, kind: Kind, uid: Option<String>, changed: Arc<Notify>, after: Duration) {
        let nudges = Arc::<Nudges>::default();
        let (updates, receiver) = watch::channel(kind.clone());
        let (hub, namespace, name) = (Arc::clone(&self.hub), key.0.clone(), key.1.clone());
        let source = Source::new(hub, kind, namespace, name, Arc::clone(&nudges));
        let (for_task, ended) = (Arc::clone(&changed), key.clone());
        let task = self.tasks.spawn(async move {
            sleep(after).await;
            source.run(receiver, for_task).await;
            ended
        });
        let running = Running {
            uid,
            updates,
            nudges,
            changed,
            task,
        };
        self.running.insert(key, running);
    }

    fn serve_folder(&mut self, folder: &Path, namespace: String, changed: &Arc<Notify>) -> anyhow::Result<Watch> {
        let watch = directory::watch(folder)?;
        let (key, kind) = (
            (namespace, names::WATCH_DIR_SOURCE.to_owned()),
            Kind::Folder(folder.to_owned()),
        );
        self.serve(key, kind, None, Arc::clone(changed), Duration::ZERO);
        Ok(watch)
    }

    /// A task ends by itself only when it panicked: one source's misfortune isn't the others'.
    fn ended(&mut self, ended: Result<(tokio::task::Id, Key), tokio::task::JoinError>) {
        let Err(error) = ended else { return };
        if error.is_cancelled() {
            return;
        }
        let id = error.id();
        let of_task = self.running.iter().find(|(_, running)| running.task.id() == id);
        let Some(key) = of_task.map(|(key, _)| key.clone()) else {
            return;
        };
        tracing::error!(namespace = key.0, source = key.1, %error, "a mistake in the program ended a source's task");
        let Some(running) = self.running.remove(&key) else {
            return;
        };
        let kind = running.updates.borrow().clone();
        self.serve(key, kind, running.uid, running.changed, AFTER_A_PANIC);
    }
}
