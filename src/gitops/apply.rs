//! A revision is taken whole or not at all: admitted, rehearsed on the API server, then applied.
//!
//! What it costs follows what it changes: a document whose file is the same as before is neither compared nor sent.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, stream};
use kube::ResourceExt;

use super::{
    admit::admit,
    document::{Document, Problem},
    drift::{told, whose},
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

/// A revision that its reader admits, and the API server hasn't yet.
pub(super) struct Candidate {
    revision: String,
    documents: BTreeMap<String, Arc<Document>>,
}

/// The revision that holds: hand edits are put back to it.
pub(super) struct InForce {
    pub revision: String,
    pub documents: BTreeMap<String, Arc<Document>>,
    /// Whether all of it was applied. What was begun is finished, whatever becomes of later revisions.
    pub is_whole: bool,
}

/// A cluster that isn't as its document says.
struct Work {
    name: String,
    document: Arc<Document>,
    wished: CodisCluster,
    live: Option<Arc<CodisCluster>>,
}

/// Clusters that are settled, and those that aren't.
type Todo = (Vec<(String, Arc<Document>)>, Vec<Work>);

/// Why a revision isn't begun.
enum Refused {
    /// For these reasons.
    For(Vec<Problem>),
    /// Something stands in the way for now.
    Now(String),
}

/// Why a cluster can't be applied.
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
        (self.pending, self.retry) = (None, None);
        match self.admitted(files) {
            Err(problems) => self.reject(problems),
            Ok(documents) => self.pending = Some(Candidate { revision, documents }),
        }
        self.advance().await;
    }

    /// Takes the files of the revision in force as what holds: this process has just begun, and knew only its name.
    pub(super) fn resume(&mut self, files: &Reading) {
        let Some((revision, is_whole)) = self.resumes.clone() else {
            return;
        };
        // It was admitted once; a newer operator may see it differently, then hand edits wait for the next revision.
        match self.admitted(files) {
            Ok(documents) => {
                self.in_force = Some(InForce {
                    revision,
                    documents,
                    is_whole,
                });
            }
            Err(problems) => {
                let problems = summary(&problems);
                tracing::warn!(
                    source = self.key(),
                    revision,
                    problems,
                    "what is in force isn't admitted any more"
                );
            }
        }
    }

    fn reject(&mut self, problems: Vec<Problem>) {
        let verdict = Verdict::Rejected(problems);
        if let Verdict::Rejected(problems) = &verdict
            && self.verdict != verdict
        {
            let problems = summary(problems);
            tracing::warn!(source = self.key(), revision = self.attempted, problems, "rejected");
            self.hub.metrics.git_revision("rejected");
        }
        self.verdict = verdict;
    }

    /// The documents of a revision, if it may be applied as a whole.
    fn admitted(&mut self, files: &Reading) -> Result<BTreeMap<String, Arc<Document>>, Vec<Problem>> {
        let documents = admit(&self.namespace, files.files.iter().map(AsRef::as_ref))?;
        self.library = Arc::new(Library::of(files));
        Ok(documents)
    }

    /// Brings what isn't done forward as far as it goes.
    pub(super) async fn advance(&mut self) {
        let mut ready = None;
        if let Some(candidate) = self.pending.take() {
            match self.rehearsed(&candidate).await {
                Ok(work) => {
                    self.in_force = Some(InForce {
                        revision: candidate.revision,
                        documents: candidate.documents,
                        is_whole: false,
                    });
                    ready = Some(work);
                }
                Err(Refused::For(problems)) => {
                    self.reject(problems);
                    // Whose fault it is can't be told: a quota or another owner may give way.
                    self.pending = Some(candidate);
                }
                Err(Refused::Now(what)) => {
                    tracing::warn!(
                        source = self.key(),
                        revision = candidate.revision,
                        what,
                        "can't be admitted yet"
                    );
                    self.verdict = Verdict::Waiting(what);
                    self.pending = Some(candidate);
                    return self.retry_later();
                }
            }
        }
        self.finish(ready).await;
        if self.pending.is_some() || self.is_applying() {
            self.retry_later();
        } else {
            self.retry = None;
        }
    }

    /// Asks the API server about a whole revision. Gives what there is to do for it.
    async fn rehearsed(&mut self, candidate: &Candidate) -> Result<Vec<Work>, Refused> {
        let todo = self.todo(&candidate.documents);
        let (settled, work) = todo.map_err(|error| Refused::Now(error.to_string()))?;
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
            return Err(Refused::For(problems));
        }
        if let Some(what) = troubles.into_iter().next() {
            return Err(Refused::Now(what));
        }
        self.remember(settled);
        Ok(ready)
    }

    /// Applies what isn't applied of the revision in force. `ready` is what was rehearsed a moment ago.
    async fn finish(&mut self, ready: Option<Vec<Work>>) {
        let Some(in_force) = self.in_force.as_ref().filter(|in_force| !in_force.is_whole) else {
            return;
        };
        let revision = in_force.revision.clone();
        let (work, mut failure) = match ready {
            Some(work) => (work, None),
            None => self.rest().await,
        };
        if !work.is_empty() {
            // What is about to be done is told first: a process that ends in the middle is followed by one that knows.
            self.judge(&revision, Verdict::Applying);
            self.report().await;
        }
        let origin = Origin {
            source: &self.name,
            revision: &revision,
        };
        let outcomes: Vec<_> = stream::iter(work)
            .map(|work| enforce(&self.hub, origin, work))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for outcome in outcomes {
            match outcome {
                Ok((name, document)) => {
                    self.enforced.insert(name, document);
                }
                Err(what) => failure = failure.or(Some(what)),
            }
        }
        match failure {
            None => self.finished(revision),
            Some(what) => {
                tracing::warn!(source = self.key(), revision, what, "can't be applied whole yet");
                self.hub.metrics.git_revision("failed");
                self.judge(&revision, Verdict::Failed(what));
            }
        }
    }

    /// What is left of the revision in force, and what stands in the way of a part of it.
    async fn rest(&mut self) -> (Vec<Work>, Option<String>) {
        let Some(in_force) = &self.in_force else {
            return (Vec::new(), None);
        };
        let (settled, work) = match self.todo(&in_force.documents) {
            Ok(todo) => todo,
            Err(error) => return (Vec::new(), Some(error.to_string())),
        };
        let origin = Origin {
            source: &self.name,
            revision: &in_force.revision,
        };
        let (mut ready, mut failure) = (Vec::new(), None);
        for work in work {
            match rehearse(&self.hub, origin, work).await {
                Ok(work) => ready.push(work),
                Err(Refusal::Problem(problem)) => failure = failure.or(Some(problem.to_string())),
                Err(Refusal::Trouble(what)) => failure = failure.or(Some(what)),
            }
        }
        self.remember(settled);
        (ready, failure)
    }

    fn finished(&mut self, revision: String) {
        let Some(in_force) = &mut self.in_force else { return };
        in_force.is_whole = true;
        let documents = &in_force.documents;
        self.enforced.retain(|name, _| documents.contains_key(name));
        let clusters = documents.len();
        tracing::info!(source = self.key(), revision, clusters, "applied");
        self.hub.metrics.git_revision("applied");
        self.judge(&revision, Verdict::Applied);
        (self.applied, self.is_anchored) = (Some(revision), true);
    }

    /// What became of a revision; of interest only while it is the newest that was read.
    fn judge(&mut self, revision: &str, verdict: Verdict) {
        if self.attempted.as_deref() == Some(revision) {
            self.verdict = verdict;
        }
    }

    /// These are as they should be; whether they also say so is looked at afterwards.
    fn remember(&mut self, settled: Vec<(String, Arc<Document>)>) {
        for (name, document) in settled {
            self.nudges.push(name.clone());
            self.enforced.insert(name, document);
        }
    }

    /// The clusters of a revision that are as they should be, and those that aren't. What is known isn't looked at again.
    fn todo(&self, documents: &BTreeMap<String, Arc<Document>>) -> Result<Todo, Error> {
        let (mut settled, mut work) = (Vec::new(), Vec::new());
        for (name, document) in documents {
            if self.is_enforced(name, document) {
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
                settled.push((name.clone(), Arc::clone(document)));
                continue;
            }
            work.push(Work {
                name: name.clone(),
                document: Arc::clone(document),
                wished,
                live,
            });
        }
        Ok((settled, work))
    }

    /// Whether this process brought a cluster to this document, or found it there.
    pub(super) fn is_enforced(&self, name: &str, document: &Arc<Document>) -> bool {
        let known = self.enforced.get(name);
        known.is_some_and(|known| Arc::ptr_eq(known, document))
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
    let Some(whose) = whose(live, source) else {
        return Ok(());
    };
    let fix = match keeper(live, source) {
        Keeper::Tool(_) => "remove it there, and its mark from the cluster".to_owned(),
        _ => format!(
            "to hand it over: kubectl label codiscluster {} {}={source} --overwrite",
            work.name,
            names::LABEL_SOURCE
        ),
    };
    let message = format!("{} {whose}; {fix}", work.name);
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
        told(hub, live, &drift, origin.revision, &work.document.file).await;
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
