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
    apply::{Applied, Candidate, InForce},
    document::Document,
    drift::Repairs,
    git::{Credentials, Git},
    library::Library,
    look::{Branch, Found, Looked, Order, Origin, look},
    status::{self, Holds, Report, Verdict, requested},
};
use crate::{
    api::{CodisCluster, CodisGitSource, CodisGitSourceStatus, names},
    cluster::{Cache, Cluster, EventKind},
    seeded::{self, Bug},
    telemetry::{Clock, Metrics},
};

/// A folder is also looked at without being told: not every file system tells.
const FOLDER_INTERVAL: Duration = Duration::from_secs(30);
/// How long after trouble the origin is looked at again; twice as long each time, up to the interval.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);
/// The first wait before something is tried again; twice as long each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait before a status is written again.
const LONGEST_REPORT: Duration = Duration::from_secs(300);

/// What all sources share.
pub(super) struct Hub {
    pub door: Cluster,
    pub git: Git,
    /// Every CodisCluster that has the label of a source.
    pub live: Cache<CodisCluster>,
    pub metrics: Metrics,
    pub clock: Clock,
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
    /// The files of the last revision that its reader admitted.
    pub library: Arc<Library>,
    pub trouble: Option<Held>,
    pub verdict: Verdict,
    pub attempted: Option<String>,
    pub applied: Option<Applied>,
    /// What holds for the clusters: hand edits of them are put back.
    pub in_force: Option<InForce>,
    /// What the process before left in force.
    resumes: Option<Resumes>,
    /// What each cluster was brought to, or found at, by this process: nothing is compared twice.
    pub enforced: BTreeMap<String, Arc<Document>>,
    /// A revision that waits for the API server's consent.
    pub pending: Option<Candidate>,
    /// When what isn't done is tried again, and after how long a wait.
    pub retry: Option<(Instant, Duration)>,
    pub repairs: Repairs,
    handled: Option<String>,
    /// The generation of the spec that the verdict is about.
    judged: Option<i64>,
    next_look: Instant,
    /// The origin that was last looked at with success: what is wanted there is known.
    shown: Option<String>,
    /// Looks in a row that found trouble.
    failed_looks: u32,
    /// When a status that couldn't be written is tried again, and after how long a wait.
    report_again: Option<(Instant, Duration)>,
}

/// The name of what is in force: its documents have to be read again.
#[derive(Clone, Debug)]
pub(super) struct Resumes {
    pub revision: String,
    /// The repository, branch and path that it is from.
    pub origin: String,
    /// Whether all of it was applied.
    pub is_whole: bool,
}

impl Resumes {
    fn of(status: &CodisGitSourceStatus) -> Option<Self> {
        let begun = status.applying_revision.clone().map(|revision| (revision, false));
        let whole = || status.last_applied_revision.clone().map(|revision| (revision, true));
        let (revision, is_whole) = begun.or_else(whole)?;
        Some(Self {
            revision,
            origin: status.origin.clone()?,
            is_whole,
        })
    }
}

/// A look that is under way, with the request and the generation that it is about.
type Look = BoxFuture<'static, (Looked, Option<String>, Option<i64>)>;

impl Source {
    pub(super) fn new(hub: Arc<Hub>, kind: Kind, namespace: String, name: String, nudges: Arc<Nudges>) -> Self {
        let status = match &kind {
            Kind::Object(object) => object.status.clone().unwrap_or_default(),
            Kind::Folder(_) => CodisGitSourceStatus::default(),
        };
        let applied = status.last_applied_revision.clone().zip(status.origin.clone());
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
            judged: status::judged(&status),
            resumes: Resumes::of(&status),
            attempted: status.last_attempted_revision,
            applied: applied.map(|(revision, origin)| Applied { revision, origin }),
            in_force: None,
            enforced: BTreeMap::new(),
            pending: None,
            retry: None,
            repairs: Repairs::default(),
            handled: None,
            next_look: Instant::now(),
            shown: None,
            failed_looks: 0,
            report_again: None,
        }
    }

    /// Works until `updates` ends, which is when the source is deleted.
    pub(super) async fn run(mut self, mut updates: watch::Receiver<Kind>, changed: Arc<Notify>) {
        let mut looking: Option<Look> = None;
        let nudges = Arc::clone(&self.nudges);
        self.report().await;
        loop {
            if self.is_suspended() {
                looking = None;
            }
            let (may_look, may_work) = (looking.is_none() && !self.is_suspended(), self.may_work());
            tokio::select! {
                // What people want, and what was found, before hand edits: those are compared with what is in force.
                biased;
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
                Some((looked, request, generation)) = OptionFuture::from(looking.as_mut()) => {
                    looking = None;
                    (self.handled, self.judged) = (request, generation);
                    self.settle(looked).await;
                }
                () = sleep_until(self.next_look), if may_look => looking = Some(self.look()),
                () = changed.notified(), if may_look => looking = Some(self.look()),
                () = until(self.report_again.map(|(at, _)| at)) => self.report().await,
                () = until(self.retry.map(|(at, _)| at)), if may_work => {
                    self.advance().await;
                    self.report().await;
                }
                () = until(self.repairs.next()), if may_work => {
                    let due = self.repairs.due(Instant::now());
                    self.check_all(due).await;
                }
                () = nudges.bell.notified(), if may_work => {
                    let names = self.to_check(nudges.take());
                    self.check_all(names).await;
                }
            }
        }
    }

    /// Whether clusters may be changed: not while it is suspended, and after that, or at another origin, not before a look
    /// has shown what is wanted now.
    fn may_work(&self) -> bool {
        !self.is_suspended() && self.shown.as_ref() == Some(&self.origin())
    }

    fn to_check(&self, changed: Changed) -> BTreeSet<String> {
        let in_force = self.in_force.iter().filter(|_| changed.all);
        let all = in_force.flat_map(|in_force| in_force.documents.keys().cloned());
        all.chain(changed.names).collect()
    }

    /// Takes over what people changed. Returns whether a look that is under way is of no use any more.
    fn renew(&mut self, kind: Kind) -> bool {
        let (Kind::Object(old), Kind::Object(new)) = (&self.kind, &kind) else {
            return false;
        };
        let accepts = |source: &CodisGitSource| source.annotations().get(names::ANNOTATION_ACCEPT_REWIND).cloned();
        let changed = old.metadata.generation != new.metadata.generation || accepts(old) != accepts(new);
        let (poked, was_suspended) = (requested(old) != requested(new), old.spec.is_suspended());
        // What was written last is newer than what the watch tells.
        let mut fresh = CodisGitSource::clone(new);
        fresh.status.clone_from(&old.status);
        self.kind = Kind::Object(Arc::new(fresh));
        if was_suspended {
            self.shown = None;
        }
        if changed {
            // It waited under another spec, and may not be wanted any more: the next look finds it again.
            (self.pending, self.retry) = (None, None);
        }
        if changed || poked {
            self.look_anew();
        }
        changed
    }

    /// Looks now, as if nothing were known of the origin.
    fn look_anew(&mut self) {
        (self.seen, self.credentials) = (None, None);
        self.next_look = Instant::now();
    }

    /// The request for a look that the source bears.
    fn request(&self) -> Option<String> {
        match &self.kind {
            Kind::Object(object) => requested(object),
            Kind::Folder(_) => None,
        }
    }

    fn is_suspended(&self) -> bool {
        matches!(&self.kind, Kind::Object(object) if object.spec.is_suspended())
    }

    fn look(&self) -> Look {
        let (hub, order, request) = (Arc::clone(&self.hub), self.order(), self.request());
        let generation = match &self.kind {
            Kind::Object(object) => object.metadata.generation,
            Kind::Folder(_) => None,
        };
        async move { (look(&hub.door, &hub.git, order).await, request, generation) }.boxed()
    }

    fn order(&self) -> Order {
        let (mut applied, mut resumes, mut holds) = (None, None, None);
        let origin = match &self.kind {
            Kind::Folder(folder) => Origin::Directory(folder.clone()),
            Kind::Object(object) => {
                let (here, prefix) = (self.origin(), format!("{}@sha1:", object.spec.branch()));
                let commit = |revision: &String| revision.strip_prefix(&prefix).map(str::to_owned);
                // Another repository's commits aren't expected to build on it.
                let anchor = self.applied.as_ref().filter(|applied| applied.origin == here);
                applied = anchor.and_then(|applied| commit(&applied.revision));
                resumes = self.resumes().and_then(|resumes| commit(&resumes.revision));
                let in_force = self.in_force.as_ref().filter(|in_force| in_force.origin == here);
                holds = in_force
                    .and_then(|in_force| commit(&in_force.revision))
                    .or_else(|| resumes.clone());
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
            applied,
            resumes,
            holds,
            library: Arc::clone(&self.library),
        }
    }

    /// The repository, branch and path: a revision of another origin is another revision.
    pub(super) fn origin(&self) -> String {
        match &self.kind {
            Kind::Folder(folder) => folder.display().to_string(),
            Kind::Object(object) => {
                let path = object.spec.path.as_deref().unwrap_or_default();
                format!("{} {} {path}", object.spec.url, object.spec.branch())
            }
        }
    }

    /// What the process before left in force, as long as this one doesn't hold it and it is of the same origin.
    pub(super) fn resumes(&self) -> Option<&Resumes> {
        let wanted = self.resumes.as_ref().filter(|_| self.in_force.is_none());
        wanted.filter(|resumes| resumes.origin == self.origin())
    }

    /// Whether the status says that what is in force is being applied.
    pub(super) fn is_told(&self) -> bool {
        let (Kind::Object(object), Some(in_force)) = (&self.kind, &self.in_force) else {
            return true;
        };
        object.status.as_ref().is_some_and(|status| {
            status.applying_revision.as_ref() == Some(&in_force.revision)
                && status.origin.as_ref() == Some(&in_force.origin)
        })
    }

    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Deals with what a look found.
    async fn settle(&mut self, looked: Looked) {
        self.credentials = looked.credentials;
        self.hub.metrics.git_looked(looked.found.word());
        if let Some(files) = looked.in_force {
            self.resume(&files);
        }
        if matches!(looked.found, Found::Trouble(_)) {
            self.failed_looks = self.failed_looks.saturating_add(1);
        } else {
            (self.failed_looks, self.shown) = (0, Some(self.origin()));
        }
        self.next_look = Instant::now() + self.pause();
        let trouble = self.trouble.take();
        if seeded::has(Bug::PruneOnEmpty) {
            self.prune_if_empty(&looked.found).await;
        }
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
        if looked.is_incomplete {
            // The files of the revision in force are tried for again.
            self.seen = None;
        }
        if self.request() != self.handled {
            // It came during the look, which may have been too early for it.
            self.look_anew();
        }
        if !self.may_work() {
            return self.report().await;
        }
        if self.retry.is_none() && self.is_applying() {
            self.advance().await;
        }
        self.check_all(self.unchecked()).await;
    }

    /// Clusters of the revision in force that this process hasn't looked at: they may have been changed meanwhile.
    fn unchecked(&self) -> BTreeSet<String> {
        let whole = self.in_force.iter().filter(|in_force| in_force.is_whole);
        let names = whole.flat_map(|in_force| in_force.documents.keys());
        names
            .filter(|name| !self.enforced.contains_key(*name) && !self.repairs.is_waiting(name))
            .cloned()
            .collect()
    }

    /// Whether the revision in force was begun and isn't applied whole.
    pub(super) fn is_applying(&self) -> bool {
        self.in_force.as_ref().is_some_and(|in_force| !in_force.is_whole)
    }

    /// How long until the next look: after trouble sooner than usual.
    fn pause(&self) -> Duration {
        let interval = self.interval();
        match self.failed_looks.checked_sub(1) {
            None => interval,
            Some(more) => interval.min(AFTER_TROUBLE * (1 << more.min(16))),
        }
    }

    fn interval(&self) -> Duration {
        match &self.kind {
            Kind::Object(object) => object.spec.interval(),
            Kind::Folder(_) => FOLDER_INTERVAL,
        }
    }

    /// Tries what isn't done again, later each time.
    pub(super) fn retry_later(&mut self, longest: Duration) {
        let wait = self.retry.map_or(FIRST_RETRY, |(_, wait)| (wait * 2).min(longest));
        self.retry = Some((Instant::now() + wait, wait));
    }

    /// Writes the status, if there is anything new to tell, and an event with it.
    pub(super) async fn report(&mut self) {
        let report = Report {
            is_suspended: self.is_suspended(),
            judged: self.judged,
            trouble: self.trouble.clone(),
            verdict: self.verdict.clone(),
            attempted: self.attempted.clone(),
            applied: self.applied.clone(),
            origin: self.in_force.as_ref().map(|in_force| in_force.origin.clone()),
            in_force: self.in_force.as_ref().map(|in_force| Holds {
                revision: in_force.revision.clone(),
                is_whole: in_force.is_whole,
                clusters: in_force.documents.len(),
                held: self.held(),
            }),
            handled: self.handled.clone(),
        };
        let Kind::Object(object) = &self.kind else { return };
        let status = status::of(object, &report, self.hub.clock.now());
        let news = status::news(object, &status);
        match self.hub.door.patch_source(object, &status).await {
            Ok(false) => return self.report_again = None,
            Ok(true) => self.report_again = None,
            Err(error) => {
                tracing::warn!(source = self.key(), %error, "the status isn't written");
                let longer = |(_, wait): (Instant, Duration)| (wait * 2).min(LONGEST_REPORT);
                let wait = self.report_again.map_or(FIRST_RETRY, longer);
                return self.report_again = Some((Instant::now() + wait, wait));
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

/// Waits until then; for ever, if there is no such time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
