//! Hand edits of what a repository specifies are put back, within seconds and with an event that says whose they were.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kube::ResourceExt;
use tokio::time::Instant;

use super::{
    document::Document,
    keeper::{Keeper, keeper, whose},
    source::{Hub, Kind, Source},
    work::tell,
};
use crate::{
    api::{CodisCluster, CodisGitSource},
    cluster::{Drift, Error, EventKind, Origin, drift, revision_of},
};

/// This many edits of one cluster are put back at once; who goes on is answered more and more slowly.
const PATIENCE: u32 = 3;
/// After so long without an edit all is forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// The longest wait before an edit is put back.
const LONGEST: Duration = Duration::from_secs(300);
/// The first wait after a call failed.
const AGAIN: Duration = Duration::from_secs(2);

/// How often each cluster was put back, and when it is looked at again.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    done: BTreeMap<String, (u32, Instant)>,
    later: BTreeMap<String, Instant>,
    stuck: BTreeMap<String, String>,
    /// Calls that failed in a row.
    failed: BTreeMap<String, u32>,
}

impl Repairs {
    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.later.values().min().copied()
    }

    /// Those that are due, which are no longer waited for.
    pub(super) fn due(&mut self, now: Instant) -> BTreeSet<String> {
        let due = self.later.iter().filter(|(_, at)| **at <= now);
        let due: BTreeSet<String> = due.map(|(name, _)| name.clone()).collect();
        self.later.retain(|_, at| *at > now);
        due
    }

    /// Looks at a cluster again after a call failed, later each time; from the second time on the status says so.
    fn again(&mut self, name: &str, error: &Error) {
        let failed = self.failed.entry(name.to_owned()).or_default();
        let wait = AGAIN * (1 << (*failed).min(16));
        if *failed > 0 {
            self.stuck.insert(name.to_owned(), format!("{name}: {error}"));
        }
        *failed += 1;
        self.later.insert(name.to_owned(), Instant::now() + wait.min(LONGEST));
    }

    /// Whether a cluster is left alone for a while, because calls about it failed.
    fn rests(&self, name: &str, now: Instant) -> bool {
        self.failed.contains_key(name) && self.later.get(name).is_some_and(|at| *at > now)
    }

    /// A cluster is left as it is, for this reason. It is looked at again, since what lets it go may not be seen.
    fn hold(&mut self, name: &str, why: String, wait: Duration) {
        self.stuck.insert(name.to_owned(), why);
        self.later.insert(name.to_owned(), Instant::now() + wait);
    }

    /// Whether a cluster is looked at again by itself.
    pub(super) fn is_waiting(&self, name: &str) -> bool {
        self.later.contains_key(name)
    }

    /// All is well with a cluster.
    fn settled(&mut self, name: &str) {
        self.stuck.remove(name);
        self.failed.remove(name);
    }

    /// Only these are this source's concern.
    pub(super) fn retain(&mut self, is_ours: impl Fn(&str) -> bool) {
        self.done.retain(|name, _| is_ours(name));
        self.later.retain(|name, _| is_ours(name));
        self.stuck.retain(|name, _| is_ours(name));
        self.failed.retain(|name, _| is_ours(name));
    }

    /// What can't be put back.
    pub(super) fn stuck(&self) -> impl Iterator<Item = String> {
        self.stuck.values().cloned()
    }

    /// How long a cluster has to wait until it is put back now.
    fn wait(&self, name: &str, now: Instant) -> Option<Duration> {
        let (count, last) = self.done.get(name)?;
        let wait = pause(*count);
        let since = now.saturating_duration_since(*last);
        (since < FORGET && since < wait).then(|| wait - since)
    }

    fn count(&mut self, name: &str, now: Instant) {
        let (count, last) = self.done.entry(name.to_owned()).or_insert((0, now));
        if now.saturating_duration_since(*last) >= FORGET {
            *count = 0;
        }
        (*count, *last) = (*count + 1, now);
    }
}

/// How long a cluster that was put back so often has to wait.
fn pause(count: u32) -> Duration {
    match count.checked_sub(PATIENCE) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << (more + 1).min(9)).min(LONGEST),
    }
}

impl Source {
    /// Looks at clusters that may have been changed.
    pub(super) async fn check_all(&mut self, names: BTreeSet<String>) {
        for name in names {
            if let Err(error) = self.check(&name).await {
                tracing::warn!(source = self.key(), cluster = name, %error, "a cluster can't be kept as it should be");
                self.repairs.again(&name, &error);
            }
        }
        self.report().await;
    }

    async fn check(&mut self, name: &str) -> Result<(), Error> {
        let known = self.in_force.as_ref().and_then(|all| all.documents.get(name));
        let Some(document) = known.cloned() else {
            self.repairs.retain(|known| known != name);
            return Ok(());
        };
        // It is about to be applied anyway.
        if self.is_applying() && !self.is_enforced(name, &document) {
            return Ok(());
        }
        let wished = self.wished(&document);
        if let Some(live) = self.live(name)
            && self.is_settled(&live, &wished, &document)?
        {
            self.repairs.settled(name);
            self.enforced.insert(name.to_owned(), document);
            return Ok(());
        }
        let now = Instant::now();
        if self.repairs.rests(name, now) {
            return Ok(());
        }
        if let Some(wait) = self.repairs.wait(name, now) {
            self.repairs.later.insert(name.to_owned(), now + wait);
            return Ok(());
        }
        // The cache may be behind what was written a moment ago: this is asked only when something seems to be wrong.
        let live = self.hub.door.get(&self.namespace, name).await?;
        if let Some(live) = &live {
            if live.metadata.deletion_timestamp.is_some() {
                // Its end is seen. Until then there is nothing to do.
                self.repairs.later.insert(name.to_owned(), Instant::now() + LONGEST);
                return Ok(());
            }
            if self.is_settled(live, &wished, &document)? {
                self.repairs.settled(name);
                return Ok(());
            }
        }
        self.put_back(name, live, &wished, &document).await
    }

    /// Whether a cluster is as its document says, and says so.
    fn is_settled(&self, live: &CodisCluster, wished: &CodisCluster, document: &Document) -> Result<bool, Error> {
        let told = live.status.as_ref().and_then(|status| status.gitops.as_ref());
        let revision = revision_of(live, &self.name);
        let is_told = told.is_some_and(|told| {
            told.source == self.name && told.path == document.file && revision.is_none_or(|is| is == told.revision)
        });
        Ok(is_told && keeper(live, &self.name) == Keeper::Us && drift(live, wished)?.is_none())
    }

    async fn put_back(
        &mut self,
        name: &str,
        live: Option<CodisCluster>,
        wished: &CodisCluster,
        document: &Arc<Document>,
    ) -> Result<(), Error> {
        let drift = match &live {
            Some(live) => match whose(live, &self.name) {
                Some(whose) => {
                    let why = format!("{name} {whose}: it is left alone");
                    self.repairs.hold(name, why, LONGEST);
                    return Ok(());
                }
                None => drift(live, wished)?,
            },
            None if self.is_gone().await? => return Ok(()),
            None => None,
        };
        let revision = self.revision_of(live.as_ref(), drift.as_ref());
        let origin = Origin {
            source: &self.name,
            revision: &revision,
        };
        if live.is_none() || drift.is_some() {
            if let Err(error) = self.hub.door.enforce(origin, live.as_ref(), wished).await {
                return self.not_put_back(name, drift.as_ref(), error);
            }
            self.repairs.count(name, Instant::now());
            self.repairs.settled(name);
            self.hub.metrics.git_repaired();
        }
        match (&live, &drift) {
            (Some(live), Some(drift)) if drift.was_applied || self.is_enforced(name, document) => {
                announce(&self.hub, live, drift, &revision, &document.file).await;
            }
            (Some(_), _) => (),
            (None, _) => {
                let file = &document.file;
                let note = format!("{name} was deleted by hand: made again as in {file} of {revision}");
                tracing::warn!(source = self.key(), cluster = name, "deleted by hand, made again");
                self.event_about_source(EventKind::Warning, "ClusterRecreated", &note)
                    .await;
            }
        }
        self.enforced.insert(name.to_owned(), Arc::clone(document));
        tell(&self.hub, origin, wished, &document.file).await
    }

    /// Whether the source itself was deleted, which its task may learn last: it makes no cluster any more.
    async fn is_gone(&self) -> Result<bool, Error> {
        let Kind::Object(object) = &self.kind else {
            return Ok(false);
        };
        let found = self
            .hub
            .door
            .read::<CodisGitSource>(&self.namespace, &self.name)
            .await?;
        Ok(found.is_none_or(|found| found.uid() != object.uid() || found.metadata.deletion_timestamp.is_some()))
    }

    /// The revision that a cluster's spec is from: that which it bears, unless it has never been applied like this.
    fn revision_of(&self, live: Option<&CodisCluster>, drift: Option<&Drift>) -> String {
        let bears = live.filter(|_| drift.is_none_or(|drift| drift.was_applied));
        let bears = bears.and_then(|live| revision_of(live, &self.name));
        let told = live
            .and_then(|live| live.status.as_ref())
            .and_then(|status| status.gitops.as_ref());
        let told = told.filter(|told| told.source == self.name && drift.is_none_or(|drift| drift.was_applied));
        let in_force = self.in_force.as_ref().map(|in_force| in_force.revision.as_str());
        let known = bears.or(told.map(|told| told.revision.as_str())).or(in_force);
        known.unwrap_or_default().to_owned()
    }

    /// An edit that the API server doesn't let back (a group more, say) is reported, and tried again, but not often.
    fn not_put_back(&mut self, name: &str, drift: Option<&Drift>, error: Error) -> Result<(), Error> {
        if error.is_retryable() {
            return Err(error);
        }
        let by = drift.and_then(|drift| drift.by.as_deref()).unwrap_or("somebody");
        let field = drift.map_or("it", |drift| drift.field.as_str());
        let what = format!("{name}: {field} was changed by {by} and can't be put back: {error}");
        tracing::warn!(source = self.key(), what, "held");
        self.repairs.count(name, Instant::now());
        let wait = self.repairs.wait(name, Instant::now()).unwrap_or(AGAIN);
        self.repairs.hold(name, what, wait);
        Ok(())
    }
}

/// Says on a cluster whose edit was put back.
pub(super) async fn announce(hub: &Hub, live: &CodisCluster, drift: &Drift, revision: &str, path: &str) {
    let by = drift.by.as_deref().unwrap_or("somebody");
    let note = format!(
        "{} was changed by {by}: put back as in {path} of {revision}",
        drift.field
    );
    tracing::warn!(
        cluster = live.name_any(),
        namespace = live.namespace(),
        note,
        "hand edit"
    );
    let event = hub
        .door
        .event(live, EventKind::Warning, "HandEditReverted", "PutBack", &note);
    if let Err(error) = event.await {
        tracing::warn!(cluster = live.name_any(), %error, "an event was lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_put_back_at_once_and_who_goes_on_is_answered_more_slowly() {
        let seconds: Vec<u64> = (0..14).map(|count| pause(count).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 0, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    }

    #[test]
    fn after_a_quiet_time_all_is_forgotten() {
        let (mut repairs, start) = (Repairs::default(), Instant::now());
        for _ in 0..5 {
            repairs.count("a", start);
        }
        assert_eq!(repairs.wait("a", start), Some(Duration::from_secs(8)));
        assert_eq!(
            repairs.wait("a", start + Duration::from_secs(6)),
            Some(Duration::from_secs(2))
        );
        assert_eq!(repairs.wait("a", start + Duration::from_secs(8)), None);
        assert_eq!(repairs.wait("b", start), None);
        repairs.count("a", start + FORGET);
        assert_eq!(repairs.wait("a", start + FORGET), None);
    }
}
