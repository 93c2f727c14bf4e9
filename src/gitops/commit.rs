//! A revision is taken whole or not at all: admitted, rehearsed on the API server, then applied.
//!
//! What it costs follows what it changes: a document whose file is the same as before is neither compared nor sent.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, stream};
use kube::ResourceExt;

use super::{
    admit::admit,
    document::{Document, Problem},
    library::{Library, Reading},
    source::{Hub, Source},
    status::{Verdict, summary},
};
use crate::{
    api::{CodisCluster, GitopsStatus, names},
    cluster::{Applied, Drift, Error, Keeper, Origin, drift, keeper},
};

/// Calls to the API server at the same time, of one source.
const CONCURRENCY: usize = 8;

/// An admitted revision.
#[derive(Clone)]
pub(super) struct Candidate {
    pub revision: String,
    pub documents: BTreeMap<String, Arc<Document>>,
}

/// A cluster that isn't as its document says.
struct Work {
    name: String,
    document: Arc<Document>,
    wished: CodisCluster,
    live: Option<Arc<CodisCluster>>,
}

/// Why something can't be applied.
enum Refusal {
    /// The commit is wrong, as far as can be told.
    Problem(Problem),
    /// Something stands in the way for now.
    Trouble(String),
}

impl Source {
    /// Takes a revision: admits it and applies it, or rejects it and leaves the one before in force.
    pub(super) async fn take(&mut self, revision: String, files: &Reading) {
        self.attempted = Some(revision.clone());
        self.pending = None;
        self.retry_never();
        match self.admitted(files) {
            Err(problems) => self.reject(problems),
            Ok(documents) => {
                self.pending = Some(Candidate { revision, documents });
                self.advance().await;
            }
        }
    }

    /// Takes the files of the revision in force as what holds, without applying them: this process has just begun.
    pub(super) fn resume(&mut self, files: &Reading) {
        // It was admitted once; a newer operator may see it differently, then hand edits wait for the next revision.
        self.in_force = self.admitted(files).ok();
    }

    fn reject(&mut self, problems: Vec<Problem>) {
        tracing::warn!(
            source = self.key(),
            revision = self.attempted,
            problems = summary(&problems),
            "rejected"
        );
        self.hub.metrics.git_revision("rejected");
        self.verdict = Verdict::Rejected(problems);
    }

    /// The documents of a revision, if it may be applied as a whole.
    fn admitted(&mut self, files: &Reading) -> Result<BTreeMap<String, Arc<Document>>, Vec<Problem>> {
        let documents = admit(&self.namespace, files.files.iter().map(AsRef::as_ref))?;
        self.library = Arc::new(Library::of(files));
        Ok(documents)
    }

    /// Brings the pending revision forward as far as it goes.
    pub(super) async fn advance(&mut self) {
        let Some(candidate) = self.pending.take() else {
            return self.retry_never();
        };
        let work = match self.work(&candidate) {
            Ok(work) => work,
            Err(error) => return self.fail(candidate, error.to_string()),
        };
        let origin = Origin {
            source: &self.name,
            revision: &candidate.revision,
        };
        let rehearsed: Vec<_> = stream::iter(work)
            .map(|work| rehearse(&self.hub, origin, work))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let (mut ready, mut problems, mut troubles) = (Vec::new(), Vec::new(), Vec::new());
        for outcome in rehearsed {
            match outcome {
                Ok(work) => ready.push(work),
                Err(Refusal::Problem(problem)) => problems.push(problem),
                Err(Refusal::Trouble(what)) => troubles.push(what),
            }
        }
        if !problems.is_empty() {
            problems.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
            self.reject(problems);
            // Whose fault it is can't be told: a quota or another owner may give way.
            self.pending = Some(candidate);
            return self.retry_later();
        }
        if let Some(what) = troubles.into_iter().next() {
            return self.fail(candidate, what);
        }
        self.in_force = Some(candidate.documents.clone());
        self.apply(candidate, ready).await;
    }

    async fn apply(&mut self, candidate: Candidate, work: Vec<Work>) {
        if !work.is_empty() {
            // What is about to be done is told first: a process that ends in the middle is followed by one that knows.
            self.verdict = Verdict::Applying;
            self.report().await;
        }
        let origin = Origin {
            source: &self.name,
            revision: &candidate.revision,
        };
        let outcomes: Vec<_> = stream::iter(work)
            .map(|work| enforce(&self.hub, origin, work))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut failure = None;
        for outcome in outcomes {
            match outcome {
                Ok((name, document)) => {
                    self.enforced.insert(name, document);
                }
                Err(what) => failure = failure.or(Some(what)),
            }
        }
        if let Some(what) = failure {
            return self.fail(candidate, what);
        }
        self.retry_never();
        self.enforced.retain(|name, _| candidate.documents.contains_key(name));
        tracing::info!(
            source = self.key(),
            revision = candidate.revision,
            clusters = candidate.documents.len(),
            "applied"
        );
        self.hub.metrics.git_revision("applied");
        self.applied = Some(candidate.revision);
        self.verdict = Verdict::Applied;
    }

    fn fail(&mut self, candidate: Candidate, what: String) {
        tracing::warn!(
            source = self.key(),
            revision = candidate.revision,
            what,
            "can't be applied yet"
        );
        self.hub.metrics.git_revision("failed");
        self.verdict = Verdict::Failed(what);
        self.pending = Some(candidate);
        self.retry_later();
    }

    /// What there is to do for a revision. A cluster that is as it should be is remembered as such.
    fn work(&mut self, candidate: &Candidate) -> Result<Vec<Work>, Error> {
        let mut work = Vec::new();
        for (name, document) in &candidate.documents {
            if self
                .enforced
                .get(name)
                .is_some_and(|known| Arc::ptr_eq(known, document))
            {
                continue;
            }
            let (wished, live) = (self.wished(document), self.live(name));
            let is_settled = match &live {
                Some(live) => {
                    live.metadata.deletion_timestamp.is_none()
                        && keeper(live, &self.name) == Keeper::Us
                        && drift(live, &wished)?.is_none()
                }
                None => false,
            };
            if is_settled {
                self.enforced.insert(name.clone(), Arc::clone(document));
                self.nudges.push(name.clone());
                continue;
            }
            work.push(Work {
                name: name.clone(),
                document: Arc::clone(document),
                wished,
                live,
            });
        }
        Ok(work)
    }

    /// The object that a document asks for.
    pub(super) fn wished(&self, document: &Document) -> CodisCluster {
        let mut wished = document.cluster.clone();
        wished.metadata.namespace = Some(self.namespace.clone());
        wished
            .labels_mut()
            .insert(names::LABEL_SOURCE.to_owned(), self.name.clone());
        wished
    }

    /// What the cache has of a cluster: nothing, if it doesn't have the label of a source.
    pub(super) fn live(&self, name: &str) -> Option<Arc<CodisCluster>> {
        let key = kube::runtime::reflector::ObjectRef::new(name).within(&self.namespace);
        self.hub.live.get(&key)
    }

    /// What isn't as the repository says and is left so: clusters that left it, and edits that can't be put back.
    pub(super) fn held(&self) -> Vec<String> {
        let Some(in_force) = &self.in_force else {
            return Vec::new();
        };
        let mut left: Vec<String> = self
            .hub
            .live
            .state()
            .iter()
            .filter(|live| live.namespace().as_deref() == Some(self.namespace.as_str()))
            .filter(|live| keeper(live, &self.name) == Keeper::Us && !in_force.contains_key(&live.name_any()))
            .map(|live| format!("{} is no longer in the repository; it isn't deleted", live.name_any()))
            .collect();
        left.sort();
        left.extend(self.repairs.stuck());
        left
    }
}

/// Asks whether the API server would take it, and whether the cluster is this source's to change.
async fn rehearse(hub: &Hub, origin: Origin<'_>, mut work: Work) -> Result<Work, Refusal> {
    // Twice: what the cache didn't have may exist, what it had may be gone.
    for _ in 0..2 {
        if let Some(live) = &work.live {
            may_change(live, origin.source, &work)?;
        }
        match hub.door.rehearse(origin, work.live.as_deref(), &work.wished).await {
            Ok(()) => return Ok(work),
            Err(Error::Conflict { .. } | Error::Gone { .. }) => {
                let namespace = work.wished.namespace().unwrap_or_default();
                let found = hub.door.get(&namespace, &work.name).await;
                work.live = found
                    .map_err(|error| Refusal::Trouble(error.to_string()))?
                    .map(Arc::new);
            }
            Err(error @ (Error::Invalid { .. } | Error::Forbidden { .. })) => {
                return Err(Refusal::Problem(refused(&work.document, &error)));
            }
            Err(error) => return Err(Refusal::Trouble(error.to_string())),
        }
    }
    Err(Refusal::Trouble(format!("{} changes all the time", work.name)))
}

/// Whether a cluster that exists is this source's.
fn may_change(live: &CodisCluster, source: &str, work: &Work) -> Result<(), Refusal> {
    if live.metadata.deletion_timestamp.is_some() {
        let what = format!("{} is being deleted: it is made anew when it is gone", work.name);
        return Err(Refusal::Trouble(what));
    }
    let hand_over = format!(
        "to hand it over: kubectl label codiscluster {} {}={source} --overwrite",
        work.name,
        names::LABEL_SOURCE
    );
    let whose = match keeper(live, source) {
        Keeper::Us => return Ok(()),
        Keeper::Nobody => format!("exists, and isn't from this source; {hand_over}"),
        Keeper::Source(other) => format!("belongs to the source {other}; {hand_over}"),
        Keeper::Tool(tool) => format!("is kept by {tool}: remove it there and take its mark off the cluster first"),
    };
    let message = format!("{} {whose}", work.name);
    Err(Refusal::Problem(work.document.problem(Some("metadata.name"), message)))
}

/// What the API server says about a document, at the field that it names.
fn refused(document: &Document, error: &Error) -> Problem {
    let text = error.to_string();
    let field = text
        .split([' ', '[', ','])
        .find(|word| word.starts_with("spec") || word.starts_with("metadata."))
        .map(|word| word.trim_end_matches(':').to_owned());
    document.problem(field.as_deref(), text)
}

/// Applies one cluster, and tells in its status where it comes from.
async fn enforce(hub: &Hub, origin: Origin<'_>, work: Work) -> Result<(String, Arc<Document>), String> {
    let before: Option<Drift> = match &work.live {
        Some(live) => drift(live, &work.wished).map_err(|error| error.to_string())?,
        None => None,
    };
    let done = hub.door.enforce(origin, work.live.as_deref(), &work.wished).await;
    let done = done.map_err(|error| error.to_string())?;
    if done == Applied::Unchanged {
        return Ok((work.name, work.document));
    }
    if let (Some(live), Some(drift)) = (&work.live, before.filter(|drift| drift.was_applied)) {
        super::drift::told(hub, live, &drift, origin.revision, &work.document.file).await;
    }
    tell(hub, origin, &work.wished, &work.document.file)
        .await
        .map_err(|error| error.to_string())?;
    Ok((work.name, work.document))
}

/// Writes into a cluster's status where its spec comes from.
pub(super) async fn tell(hub: &Hub, origin: Origin<'_>, cluster: &CodisCluster, path: &str) -> Result<(), Error> {
    let status = GitopsStatus {
        source: origin.source.to_owned(),
        path: path.to_owned(),
        revision: origin.revision.to_owned(),
        applied_at: super::status::to_the_second(jiff::Timestamp::now()).to_string(),
    };
    let namespace = cluster.namespace().unwrap_or_default();
    hub.door.patch_gitops(&namespace, &cluster.name_any(), &status).await
}
