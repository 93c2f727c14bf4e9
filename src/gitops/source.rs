//! The task of one source: looks at its origin from time to time, takes what is new, puts hand edits back, reports.
//!
//! A look runs beside everything else of the source: however slow a server is, hand edits are put back meanwhile, and other
//! sources have tasks of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt, OptionFuture};
use kube::ResourceExt;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::{
    Held,
    commit::Candidate,
    document::Document,
    drift::Repairs,
    git::{Credentials, Git},
    library::Library,
    look::{Branch, Found, Looked, Order, Origin, look},
    status::{self, Report, Verdict, requested},
};
use crate::{
    api::{CodisCluster, CodisGitSource, names},
    cluster::{Cache, Cluster, EventKind},
    telemetry::Metrics,
};

/// A folder is also looked at without being told: not every file system tells.
const FOLDER_INTERVAL: Duration = Duration::from_secs(30);
/// Waits between tries of what can't be applied: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What all sources share.
pub(super) struct Hub {
    pub door: Cluster,
    pub git: Git,
    /// Every CodisCluster that has the label of a source.
    pub live: Cache<CodisCluster>,
    pub metrics: Metrics,
}

/// Clusters that changed, for the task of their source.
#[derive(Default)]
pub(super) struct Nudges {
    changed: Mutex<Changed>,
    bell: Notify,
}

#[derive(Default)]
struct Changed {
    names: BTreeSet<String>,
    all: bool,
}

impl Nudges {
    pub(super) fn push(&self, name: String) {
        self.lock().names.insert(name);
        self.bell.notify_one();
    }

    /// Any may have changed.
    pub(super) fn push_all(&self) {
        self.lock().all = true;
        self.bell.notify_one();
    }

    fn take(&self) -> Changed {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the source is, as far as people say.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A CodisGitSource.
    Object(Arc<CodisGitSource>),
    /// The folder of `--watch-dir`.
    Folder(PathBuf),
}

/// A source and what is known about it.
pub(super) struct Source {
    pub hub: Arc<Hub>,
    /// Where its clusters are.
    pub namespace: String,
    /// The value of the label of its clusters.
    pub name: String,
    pub kind: Kind,
    pub nudges: Arc<Nudges>,
    /// The state of the origin that was dealt with.
    seen: Option<String>,
    credentials: Option<Arc<Credentials>>,
    /// The files of the revision in force.
    pub library: Arc<Library>,
    pub trouble: Option<Held>,
    pub verdict: Verdict,
    pub attempted: Option<String>,
    pub applied: Option<String>,
    /// What holds for the clusters: hand edits of them are put back.
    pub in_force: Option<BTreeMap<String, Arc<Document>>>,
    /// What each cluster was brought to, or found at, by this process: nothing is compared twice.
    pub enforced: BTreeMap<String, Arc<Document>>,
    /// An admitted revision that isn't applied whole yet.
    pub pending: Option<Candidate>,
    retry: Option<(Instant, Duration)>,
    pub repairs: Repairs,
    handled: Option<String>,
    next_look: Instant,
}

impl Source {
    pub(super) fn new(hub: Arc<Hub>, kind: Kind, namespace: String, name: String, nudges: Arc<Nudges>) -> Self {
        let status = match &kind {
            Kind::Object(object) => object.status.clone().unwrap_or_default(),
            Kind::Folder(_) => crate::api::CodisGitSourceStatus::default(),
        };
        Self {
            hub,
            namespace,
            name,
            kind,
            nudges,
            seen: None,
            credentials: None,
            library: Arc::default(),
            trouble: None,
            verdict: Verdict::Unknown,
            attempted: status.last_attempted_revision,
            applied: status.last_applied_revision,
            in_force: None,
            enforced: BTreeMap::new(),
            pending: None,
            retry: None,
            repairs: Repairs::default(),
            handled: None,
            next_look: Instant::now(),
        }
    }

    /// Works until `updates` ends, which is when the source is deleted.
    pub(super) async fn run(mut self, mut updates: watch::Receiver<Kind>, changed: Arc<Notify>) {
        let mut looking: Option<BoxFuture<'static, (Looked, Option<String>)>> = None;
        let nudges = Arc::clone(&self.nudges);
        loop {
            if self.is_suspended() {
                looking = None;
            }
            let may_look = looking.is_none() && !self.is_suspended();
            tokio::select! {
                update = updates.changed() => {
                    if update.is_err() {
                        return;
                    }
                    let kind = updates.borrow_and_update().clone();
                    if self.renew(kind) {
                        looking = None;
                    }
                    self.report().await;
                }
                // What was found is dealt with before hand edits: they are compared with what is in force by then.
                Some((looked, request)) = OptionFuture::from(looking.as_mut()) => {
                    looking = None;
                    self.settle(looked, request).await;
                }
                () = sleep_until(self.next_look), if may_look => looking = Some(self.look()),
                () = changed.notified(), if may_look => looking = Some(self.look()),
                () = nudges.bell.notified(), if !self.is_suspended() => {
                    let names = self.to_check(nudges.take());
                    self.check_all(names).await;
                }
                () = sleep_until(self.next_repair()), if !self.is_suspended() => {
                    let due = self.repairs.due(Instant::now());
                    self.check_all(due).await;
                }
                () = sleep_until(self.next_retry()), if !self.is_suspended() && self.retry.is_some() => {
                    self.advance().await;
                    self.report().await;
                }
            }
        }
    }

    fn to_check(&self, changed: Changed) -> BTreeSet<String> {
        let known = self.in_force.iter().flat_map(BTreeMap::keys);
        let all = known.filter(|_| changed.all).cloned();
        all.chain(changed.names).collect()
    }

    /// Takes over what people changed. Returns whether a look that is under way is of no use any more.
    fn renew(&mut self, kind: Kind) -> bool {
        let (Kind::Object(old), Kind::Object(new)) = (&self.kind, &kind) else {
            return false;
        };
        let accepts = |source: &CodisGitSource| source.annotations().get(names::ANNOTATION_ACCEPT_REWIND).cloned();
        let another = old.spec.url != new.spec.url || old.spec.branch() != new.spec.branch();
        let changed = old.metadata.generation != new.metadata.generation || accepts(old) != accepts(new);
        let poked = requested(old) != requested(new);
        // What was written last is newer than what the watch tells.
        let mut fresh = CodisGitSource::clone(new);
        fresh.status.clone_from(&old.status);
        self.kind = Kind::Object(Arc::new(fresh));
        if another {
            // Another history: the commit in force isn't expected in it.
            self.applied = None;
        }
        if changed || poked {
            self.seen = None;
            self.credentials = None;
            self.next_look = Instant::now();
        }
        changed
    }

    fn is_suspended(&self) -> bool {
        matches!(&self.kind, Kind::Object(object) if object.spec.is_suspended())
    }

    fn look(&self) -> BoxFuture<'static, (Looked, Option<String>)> {
        let (hub, order) = (Arc::clone(&self.hub), self.order());
        let request = match &self.kind {
            Kind::Object(object) => requested(object),
            Kind::Folder(_) => None,
        };
        async move { (look(&hub.door, &hub.git, order).await, request) }.boxed()
    }

    fn order(&self) -> Order {
        let mut applied = None;
        let origin = match &self.kind {
            Kind::Folder(folder) => Origin::Directory(folder.clone()),
            Kind::Object(object) => {
                let prefix = format!("{}@sha1:", object.spec.branch());
                applied = self
                    .applied
                    .as_deref()
                    .and_then(|revision| revision.strip_prefix(&prefix));
                Origin::Git(Box::new(Branch {
                    spec: object.spec.clone(),
                    namespace: self.namespace.clone(),
                    credentials: self.credentials.clone(),
                    accept_rewind: object.annotations().get(names::ANNOTATION_ACCEPT_REWIND).cloned(),
                }))
            }
        };
        Order {
            key: self.key(),
            origin,
            seen: self.seen.clone(),
            applied: applied.map(str::to_owned),
            needs_applied: self.in_force.is_none(),
            library: Arc::clone(&self.library),
        }
    }

    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Deals with what a look found.
    async fn settle(&mut self, looked: Looked, request: Option<String>) {
        self.next_look = Instant::now() + self.interval();
        self.credentials = looked.credentials;
        self.handled = request.or(self.handled.take());
        self.hub.metrics.git_looked(looked.found.word());
        if let Some(files) = looked.in_force {
            self.resume(&files);
        }
        let trouble = self.trouble.take();
        match looked.found {
            Found::Same => (),
            Found::Trouble(why) => {
                // Once, not at each look.
                if trouble.as_ref() != Some(&why) {
                    tracing::warn!(source = self.key(), reason = why.reason, "{}", why.message);
                }
                self.trouble = Some(why);
            }
            Found::Held { tip, revision, why } => {
                tracing::warn!(source = self.key(), reason = why.reason, "{}", why.message);
                (self.seen, self.attempted) = (Some(tip), Some(revision));
                (self.pending, self.retry) = (None, None);
                self.verdict = Verdict::Held(why);
            }
            Found::Revision { tip, revision, files } => {
                self.seen = Some(tip);
                self.take(revision, &files).await;
            }
        }
        // What was changed by hand while nothing was in force is found now.
        let names = self.in_force.iter().flat_map(BTreeMap::keys);
        let unchecked: BTreeSet<String> = names
            .filter(|name| !self.enforced.contains_key(*name))
            .cloned()
            .collect();
        if self.pending.is_none() && !unchecked.is_empty() {
            self.check_all(unchecked).await;
        } else {
            self.report().await;
        }
    }

    fn interval(&self) -> Duration {
        match &self.kind {
            Kind::Object(object) => object.spec.interval(),
            Kind::Folder(_) => FOLDER_INTERVAL,
        }
    }

    fn next_repair(&self) -> Instant {
        // Far enough away, when there is none.
        self.repairs
            .next()
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    fn next_retry(&self) -> Instant {
        self.retry.map_or_else(Instant::now, |(at, _)| at)
    }

    /// Tries the pending revision again, later each time.
    pub(super) fn retry_later(&mut self) {
        let wait = self.retry.map_or(RETRY.0, |(_, wait)| (wait * 2).min(RETRY.1));
        self.retry = Some((Instant::now() + wait, wait));
    }

    pub(super) fn retry_never(&mut self) {
        self.retry = None;
    }

    /// Writes the status, if there is anything new to tell, and an event with it.
    pub(super) async fn report(&mut self) {
        let report = Report {
            trouble: self.trouble.clone(),
            verdict: self.verdict.clone(),
            attempted: self.attempted.clone(),
            applied: self.applied.clone(),
            clusters: self.in_force.as_ref().map(BTreeMap::len),
            held: self.held(),
            handled: self.handled.clone(),
        };
        let Kind::Object(object) = &self.kind else { return };
        let status = status::of(object, &report);
        let news = status::news(object, &status);
        match self.hub.door.patch_source(object, &status).await {
            Ok(false) => return,
            Ok(true) => (),
            Err(error) => {
                tracing::warn!(source = self.key(), %error, "the status isn't written");
                return self.repairs.again(None);
            }
        }
        if let Some((kind, reason, message)) = news {
            self.event_about_source(kind, &reason, &message).await;
        }
        let Kind::Object(object) = &mut self.kind else { return };
        Arc::make_mut(object).status = Some(status);
    }

    /// An event is an aid: without it everything goes on.
    pub(super) async fn event_about_source(&self, kind: EventKind, reason: &str, message: &str) {
        let Kind::Object(object) = &self.kind else { return };
        if let Err(error) = self
            .hub
            .door
            .event(object.as_ref(), kind, reason, "Sync", message)
            .await
        {
            tracing::warn!(source = self.key(), %error, "an event was lost");
        }
    }
}
