//! One cluster of a revision: rehearsed, applied, and told where it comes from.

use std::sync::Arc;

use kube::ResourceExt;

use super::{
    document::{Document, Problem},
    drift::announce,
    keeper::{Keeper, keeper, whose},
    source::Hub,
};
use crate::{
    api::{CodisCluster, GitopsStatus, names, to_the_second},
    cluster::{Applied, Drift, Error, Origin, drift},
};

/// A cluster that isn't as its document says.
pub(super) struct Work {
    pub name: String,
    pub document: Arc<Document>,
    pub wished: CodisCluster,
    pub live: Option<Arc<CodisCluster>>,
}

/// Why a cluster can't be applied.
pub(super) enum Refusal {
    /// The commit is wrong, as far as can be told.
    Problem(Problem),
    /// Something stands in the way for now.
    Trouble(String),
}

/// Asks whether the API server would take it, and whether the cluster is this source's to change.
pub(super) async fn rehearse(hub: &Hub, origin: Origin<'_>, mut work: Work) -> Result<Work, Refusal> {
    let mut last = String::new();
    // Twice: what the cache didn't have may exist, what it had may be gone.
    for _ in 0..2 {
        if let Some(live) = &work.live {
            may_change(live, origin.source, &work)?;
        }
        match hub.door.rehearse(origin, work.live.as_deref(), &work.wished).await {
            Ok(()) => return Ok(work),
            Err(error @ (Error::Conflict { .. } | Error::Gone { .. })) => {
                last = error.to_string();
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
    Err(Refusal::Trouble(last))
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
            "to hand it over: kubectl label -n {} codiscluster {} {}={source} --overwrite",
            live.namespace().unwrap_or_default(),
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
pub(super) async fn enforce(hub: &Hub, origin: Origin<'_>, work: Work) -> Result<(String, Arc<Document>), String> {
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
        announce(hub, live, &drift, origin.revision, &work.document.file).await;
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
        applied_at: to_the_second(hub.clock.now()).to_string(),
    };
    let namespace = cluster.namespace().unwrap_or_default();
    hub.door.patch_gitops(&namespace, &cluster.name_any(), &status).await
}
