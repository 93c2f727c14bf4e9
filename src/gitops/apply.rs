//! A revision is taken whole or not at all: admitted, rehearsed on the API server, then applied.
//!
//! What it costs follows what it changes: a document whose file is the same as before is neither compared nor sent.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use kube::ResourceExt;

use super::{
    admit::admit,
    document::{Document, Problem},
    keeper::{Keeper, keeper},
    library::{Library, Reading},
    source::Source,
    status::{Verdict, summary},
    work::{Refusal, Work, enforce, rehearse},
};
use crate::{
    api::{CodisCluster, names},
    cluster::{Error, Origin, drift},
};

/// The longest wait before what can't be applied now is tried again; what was rejected is mended by a person.
const AGAIN: Duration = Duration::from_secs(60);
const REJECTED_AGAIN: Duration = Duration::from_secs(600);
/// Calls to the API server at the same time, of one source.
const CONCURRENCY: usize = 8;

/// A revision that its reader admits, and the API server hasn't yet.
pub(super) struct Candidate {
    revision: String,
    origin: String,
    documents: BTreeMap<String, Arc<Document>>,
}

/// The revision that holds: hand edits are put back to it.
pub(super) struct InForce {
    pub revision: String,
    /// The repository, branch and path that it is from.
    pub origin: String,
    pub documents: BTreeMap<String, Arc<Document>>,
    /// Whether all of it was applied. What was begun is finished, whatever becomes of later revisions.
    pub is_whole: bool,
}

/// The last revision that was applied whole.
#[derive(Clone, Debug)]
pub(super) struct Applied {
    pub revision: String,
    /// The repository, branch and path that it is from.
    pub origin: String,
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

impl Source {
    /// Takes a revision: admits it and applies it, or rejects it and leaves the one before in force.
    pub(super) async fn take(&mut self, revision: String, files: &Reading) {
        self.attempted = Some(revision.clone());
        (self.pending, self.retry) = (None, None);
        let origin = self.origin();
        if self.in_force.is_none() && self.resumes().is_some_and(|resumes| resumes.revision == revision) {
            self.resume(files);
        }
        let in_force = self.in_force.as_ref();
        if in_force.is_some_and(|in_force| in_force.revision == revision && in_force.origin == origin) {
            // Its documents are admitted already. What isn't as they say is a hand's doing, or isn't reached yet.
            self.verdict = match self.is_applying() {
                true => Verdict::Applying,
                false => Verdict::Applied,
            };
            return self.advance().await;
        }
        match self.admitted(files) {
            Err(problems) => self.reject(problems),
            Ok(documents) => {
                self.pending = Some(Candidate {
                    revision,
                    origin,
                    documents,
                });
            }
        }
        self.advance().await;
    }

    /// Takes the files of the revision in force as what holds: this process has just begun, and knew only its name.
    pub(super) fn resume(&mut self, files: &Reading) {
        let Some(resumes) = self.resumes().cloned() else {
            return;
        };
        let revision = resumes.revision;
        // It was admitted once; a newer operator may see it differently, then hand edits wait for the next revision.
        match self.admitted(files) {
            Ok(documents) => {
                self.in_force = Some(InForce {
                    revision,
                    origin: resumes.origin,
                    documents,
                    is_whole: resumes.is_whole,
                });
            }
            Err(problems) => {
                let (source, problems) = (self.key(), summary(&problems));
                tracing::warn!(source, revision, problems, "what is in force isn't admitted any more");
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
                    self.begin(candidate);
                    ready = Some(work);
                }
                Err(Refused::For(problems)) => {
                    self.reject(problems);
                    // Whose fault it is can't be told: a quota or another owner may give way.
                    self.pending = Some(candidate);
                }
                Err(Refused::Now(what)) => {
                    let (source, revision) = (self.key(), &candidate.revision);
                    tracing::warn!(source, revision, what, "can't be admitted yet");
                    self.verdict = Verdict::Waiting(what);
                    self.pending = Some(candidate);
                }
            }
        }
        self.finish(ready).await;
        match (self.is_applying(), &self.pending, &self.verdict) {
            (false, None, _) => self.retry = None,
            (false, Some(_), Verdict::Rejected(_)) => self.retry_later(REJECTED_AGAIN),
            _ => self.retry_later(AGAIN),
        }
    }

    fn begin(&mut self, candidate: Candidate) {
        if self
            .applied
            .as_ref()
            .is_some_and(|applied| applied.origin != candidate.origin)
        {
            // The status has one origin: that of what is in force.
            self.applied = None;
        }
        self.in_force = Some(InForce {
            revision: candidate.revision,
            origin: candidate.origin,
            documents: candidate.documents,
            is_whole: false,
        });
    }

    /// Asks the API server about a whole revision. Gives what there is to do for it.
    async fn rehearsed(&mut self, candidate: &Candidate) -> Result<Vec<Work>, Refused> {
        let todo = self.todo(&candidate.documents);
        let (settled, work) = todo.map_err(|error| Refused::Now(error.to_string()))?;
        let (ready, refused) = self.rehearse_all(&candidate.revision, work).await;
        let mut problems: Vec<Problem> = Vec::new();
        let mut trouble = None;
        for refusal in refused {
            match refusal {
                Refusal::Problem(problem) => problems.push(problem),
                Refusal::Trouble(what) => trouble = trouble.or(Some(what)),
            }
        }
        if !problems.is_empty() {
            problems.sort_by(|one, other| one.place().cmp(&other.place()));
            return Err(Refused::For(problems));
        }
        if let Some(what) = trouble {
            return Err(Refused::Now(what));
        }
        self.remember(settled);
        Ok(ready)
    }

    /// What may be done, and what not; both in the order of names, so that the same trouble reads the same.
    async fn rehearse_all(&self, revision: &str, work: Vec<Work>) -> (Vec<Work>, Vec<Refusal>) {
        let origin = Origin {
            source: &self.name,
            revision,
        };
        let rehearsed: Vec<_> = stream::iter(work)
            .map(|work| rehearse(&self.hub, origin, work))
            .buffered(CONCURRENCY)
            .collect()
            .await;
        let (mut ready, mut refused) = (Vec::new(), Vec::new());
        for outcome in rehearsed {
            match outcome {
                Ok(work) => ready.push(work),
                Err(refusal) => refused.push(refusal),
            }
        }
        (ready, refused)
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
        if !work.is_empty() && !self.is_told() {
            // What is about to be done is told first: a process that ends in the middle is followed by one that knows.
            self.judge(Verdict::Applying);
            self.report().await;
            if !self.is_told() {
                return self.judge(Verdict::Failed("the status can't be written".to_owned()));
            }
        }
        let origin = Origin {
            source: &self.name,
            revision: &revision,
        };
        let outcomes: Vec<_> = stream::iter(work)
            .map(|work| enforce(&self.hub, origin, work))
            .buffered(CONCURRENCY)
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
            None => self.finished(),
            Some(what) => {
                tracing::warn!(source = self.key(), revision, what, "can't be applied whole yet");
                self.hub.metrics.git_revision("failed");
                self.judge(Verdict::Failed(what));
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
        let (ready, refused) = self.rehearse_all(&in_force.revision, work).await;
        self.remember(settled);
        let failure = refused.into_iter().next().map(|refusal| match refusal {
            Refusal::Problem(problem) => problem.to_string(),
            Refusal::Trouble(what) => what,
        });
        (ready, failure)
    }

    fn finished(&mut self) {
        let Some(in_force) = &mut self.in_force else { return };
        in_force.is_whole = true;
        let (revision, documents) = (in_force.revision.clone(), &in_force.documents);
        self.enforced.retain(|name, _| documents.contains_key(name));
        self.repairs.retain(|name| documents.contains_key(name));
        let clusters = documents.len();
        self.applied = Some(Applied {
            revision: revision.clone(),
            origin: in_force.origin.clone(),
        });
        tracing::info!(source = self.key(), revision, clusters, "applied");
        self.hub.metrics.git_revision("applied");
        self.judge(Verdict::Applied);
    }

    /// What became of the revision in force; of interest only while it is the newest that was read.
    fn judge(&mut self, verdict: Verdict) {
        let origin = self.origin();
        let in_force = self.in_force.as_ref();
        if in_force.is_some_and(|it| Some(&it.revision) == self.attempted.as_ref() && it.origin == origin) {
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

    /// The clusters of a revision that need nothing, and those that do. What is known isn't looked at again.
    fn todo(&self, documents: &BTreeMap<String, Arc<Document>>) -> Result<Todo, Error> {
        let (mut settled, mut work) = (Vec::new(), Vec::new());
        for (name, document) in documents {
            if self.is_enforced(name, document) {
                continue;
            }
            // What holds already is the watch's concern: a hand edit that can't be put back mustn't stop other changes.
            let holds = self.in_force.as_ref().filter(|in_force| in_force.is_whole);
            let same = holds.and_then(|in_force| in_force.documents.get(name));
            if same.is_some_and(|same| same.cluster == document.cluster) {
                settled.push((name.clone(), Arc::clone(document)));
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
