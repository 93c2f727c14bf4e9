//! Leader election with a `coordination.k8s.io` Lease.
//!
//! Races are closed by the API server: a Lease is taken and renewed only at the version that was read, and 409 means
//! that somebody else was faster. Clocks of other machines are never compared: a Lease expires when it wasn't seen to
//! change for its duration. Writes stop at the renew deadline, which is before anybody else may see it expire.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, Resource, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Call, DOOR, Error, WriteGate, bounded};
use crate::{api::names, telemetry::Effects};

/// The Lease that candidates compete for.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The Lease's namespace: the operator's own.
    pub namespace: String,
    /// The Lease's name.
    pub lease: String,
    /// Who we are. Unique to this process, not only to the pod: whoever reads its own name believes that it leads.
    pub identity: String,
}

/// How long things take. `retry` < `renew_deadline` < `duration`.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A Lease that wasn't renewed for so long may be taken.
    pub duration: Duration,
    /// A leader that couldn't renew for so long stops writing.
    pub renew_deadline: Duration,
    /// How often the leader renews and the others look.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// A Lease as it was last read.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The Lease itself.
    pub lease: Lease,
    /// When, by our clock, its content was first seen as it is.
    pub since: Instant,
}

impl Seen {
    /// What is known after reading `lease`. A touch that leaves the content as it is (a label) renews nothing.
    pub fn update(previous: Option<&Self>, lease: Lease, now: Instant) -> Self {
        let since = previous
            .filter(|seen| seen.lease.spec == lease.spec)
            .map_or(now, |seen| seen.since);
        Self { lease, since }
    }

    fn holder(&self) -> Option<&str> {
        let holder = self
            .lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_deref());
        holder.filter(|holder| !holder.is_empty())
    }

    /// The duration that the holder promised, or `default` if it didn't say.
    fn duration(&self, default: Duration) -> Duration {
        let seconds = self.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        seconds
            .and_then(|s| u64::try_from(s).ok())
            .map_or(default, Duration::from_secs)
    }
}

/// What a candidate does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// There is no Lease: create it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// It is nobody's, or it expired: take it.
    Take,
    /// It is somebody else's until then, unless it changes.
    Wait {
        /// When it expires.
        until: Instant,
    },
}

/// What `me` does about a Lease. `default` is the duration of a Lease that doesn't tell its own.
pub fn evaluate(seen: Option<&Seen>, me: &str, default: Duration, now: Instant) -> Move {
    let Some(seen) = seen else { return Move::Create };
    let until = seen.since + seen.duration(default);
    match seen.holder() {
        Some(holder) if holder == me => Move::Renew,
        Some(_) if now < until => Move::Wait { until },
        Some(_) | None => Move::Take,
    }
}

/// One candidate's part in the election.
pub struct Election {
    api: Api<Lease>,
    candidate: Candidate,
    timing: Timing,
    effects: Effects,
    gate: WriteGate,
    leading: watch::Sender<bool>,
    seen: Option<Seen>,
}

impl Election {
    /// A candidate, the gate that is open while it leads, and whether it leads.
    pub fn new(
        client: Client,
        candidate: Candidate,
        timing: Timing,
        effects: Effects,
    ) -> (Self, WriteGate, watch::Receiver<bool>) {
        let (leading, receiver) = watch::channel(false);
        let gate = WriteGate::closed();
        let election = Self {
            api: Api::namespaced(client, &candidate.namespace),
            candidate,
            timing,
            effects,
            gate: gate.clone(),
            leading,
            seen: None,
        };
        (election, gate, receiver)
    }

    /// Competes until `stop`, then gives the Lease back, so that the next one needn't wait for it to expire.
    ///
    /// Losing the Lease closes the gate and tells the receiver; then it competes on. Whoever can't step down exits.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = self.turn() => (),
            }
        }
        self.step_down("stopping");
        if let Err(error) = self.vacate().await {
            tracing::warn!(%error, "the lease couldn't be given back: it has to expire");
        }
    }

    /// One attempt and the wait for the next.
    async fn turn(&mut self) {
        let started = Instant::now();
        // A leader's attempt ends early enough for another one before the deadline.
        let end = started + self.timing.renew_deadline / 2;
        let limit = self.gate.deadline().map_or(end, |deadline| end.min(deadline));
        let next = match tokio::time::timeout_at(limit, self.attempt()).await {
            Ok(Ok(Move::Wait { until })) => {
                self.step_down("held by another");
                until.min(started + self.timing.retry)
            }
            Ok(Ok(Move::Create | Move::Renew | Move::Take)) => {
                self.lead(started);
                started + self.timing.retry
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "lease");
                started + self.timing.retry
            }
            Err(_) => started + self.timing.retry,
        };
        match self.gate.deadline() {
            Some(deadline) if deadline <= next => {
                sleep_until(deadline).await;
                self.step_down("couldn't renew in time");
            }
            Some(_) | None => sleep_until(next).await,
        }
    }

    /// Reads the Lease if need be, and makes the move. On 409 it reads again.
    async fn attempt(&mut self) -> Result<Move, Error> {
        if !self.gate.is_open() || self.seen.is_none() {
            self.look().await?;
        }
        match self.make_move().await {
            Err(Error::Conflict { .. }) => {
                self.look().await?;
                self.make_move().await
            }
            other => other,
        }
    }

    async fn make_move(&mut self) -> Result<Move, Error> {
        let me = &self.candidate.identity;
        let next = evaluate(self.seen.as_ref(), me, self.timing.duration, Instant::now());
        let lease = match next {
            Move::Wait { .. } => return Ok(next),
            Move::Create | Move::Take | Move::Renew => {
                let before = self.seen.as_ref().map(|seen| seen.lease.clone());
                held(before, &self.candidate, self.timing.duration, next)
            }
        };
        self.effects.allow(DOOR, "lease").map_err(Error::Injected)?;
        let written = self.put(lease).await?;
        self.seen = Some(Seen::update(self.seen.as_ref(), written, Instant::now()));
        Ok(next)
    }

    /// Creates the Lease, or replaces it at the version that was read.
    async fn put(&self, lease: Lease) -> Result<Lease, Error> {
        let params = PostParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let (call, limit) = (self.call("write"), self.timing.renew_deadline / 2);
        if lease.metadata.resource_version.is_some() {
            bounded(limit, call, self.api.replace(&self.candidate.lease, &params, &lease)).await
        } else {
            bounded(limit, call, self.api.create(&params, &lease)).await
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        let get = self.api.get_opt(&self.candidate.lease);
        let found = bounded(self.timing.renew_deadline / 2, self.call("get"), get).await?;
        self.seen = found.map(|lease| Seen::update(self.seen.as_ref(), lease, Instant::now()));
        Ok(())
    }

    /// `started` is when the renewal was sent: nobody can have seen it earlier.
    fn lead(&self, started: Instant) {
        self.gate
            .open_until(started + self.timing.renew_deadline, started + self.timing.duration);
        if !self.leading.send_replace(true) {
            tracing::info!(identity = self.candidate.identity, "leading");
        }
    }

    fn step_down(&self, why: &'static str) {
        self.gate.close();
        if self.leading.send_replace(false) {
            tracing::info!(identity = self.candidate.identity, why, "not leading any more");
        }
    }

    /// Gives the Lease back, if it is ours.
    async fn vacate(&mut self) -> Result<(), Error> {
        self.look().await?;
        let Some(mut lease) = self
            .seen
            .take()
            .filter(|s| s.holder() == Some(&self.candidate.identity))
            .map(|s| s.lease)
        else {
            return Ok(());
        };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        self.effects.allow(DOOR, "lease").map_err(Error::Injected)?;
        self.put(lease).await.map(|_| ())
    }

    fn call(&self, verb: &'static str) -> Call {
        Call::new(
            verb,
            Lease::kind(&()),
            format!("{}/{}", self.candidate.namespace, self.candidate.lease),
        )
    }
}

/// The Lease as `candidate` holds it from now on.
fn held(before: Option<Lease>, candidate: &Candidate, duration: Duration, next: Move) -> Lease {
    let mut lease = before.unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(candidate.lease.clone()),
            namespace: Some(candidate.namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    let now = MicroTime(Timestamp::now());
    if next != Move::Renew {
        spec.acquire_time = Some(now.clone());
        spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(1)));
    }
    spec.holder_identity = Some(candidate.identity.clone());
    // Rounded up: nobody may take it before our own idea of its end.
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    spec.lease_duration_seconds = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
    spec.renew_time = Some(now);
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Duration = Duration::from_secs(15);

    fn lease(holder: Option<&str>, seconds: Option<i32>, transitions: i32) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: seconds,
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[test]
    fn a_candidate_takes_only_what_is_free_expired_or_its_own() {
        let since = Instant::now();
        let at = |seconds| since + Duration::from_secs(seconds);
        let (waits, waits_less) = (Move::Wait { until: at(15) }, Move::Wait { until: at(5) });
        for (what, lease, now, expected) in [
            ("no lease", None, at(0), Move::Create),
            ("ours", Some(lease(Some("me"), Some(15), 0)), at(1), Move::Renew),
            (
                "ours, expired, nobody took it",
                Some(lease(Some("me"), Some(15), 0)),
                at(99),
                Move::Renew,
            ),
            ("another's", Some(lease(Some("other"), Some(15), 0)), at(14), waits),
            (
                "another's, expired",
                Some(lease(Some("other"), Some(15), 0)),
                at(15),
                Move::Take,
            ),
            (
                "another's, short",
                Some(lease(Some("other"), Some(5), 0)),
                at(4),
                waits_less,
            ),
            (
                "another's, without a duration",
                Some(lease(Some("other"), None, 0)),
                at(14),
                waits,
            ),
            ("given back", Some(lease(Some(""), Some(1), 0)), at(0), Move::Take),
            ("nobody's", Some(lease(None, None, 0)), at(0), Move::Take),
            ("empty", Some(Lease::default()), at(0), Move::Take),
        ] {
            let seen = lease.map(|lease| Seen { lease, since });
            assert_eq!(evaluate(seen.as_ref(), "me", DEFAULT, now), expected, "{what}");
        }
    }

    #[test]
    fn only_a_change_of_its_content_keeps_a_lease_alive() {
        let start = Instant::now();
        let later = start + Duration::from_secs(9);
        let first = Seen::update(None, lease(Some("other"), Some(15), 0), start);
        let mut touched = first.lease.clone();
        touched.metadata.resource_version = Some("2".into());
        assert_eq!(Seen::update(Some(&first), touched, later).since, start);
        assert_eq!(
            Seen::update(Some(&first), lease(Some("other"), Some(15), 1), later).since,
            later
        );
    }

    #[test]
    fn a_lease_that_is_taken_counts_it_and_one_that_is_renewed_does_not() {
        let candidate = Candidate {
            namespace: "ns".into(),
            lease: "l".into(),
            identity: "me".into(),
        };
        let transitions = |before: Option<Lease>, next| {
            let spec = held(before, &candidate, Duration::from_millis(1500), next)
                .spec
                .unwrap();
            assert_eq!(
                (spec.holder_identity.as_deref(), spec.lease_duration_seconds),
                (Some("me"), Some(2))
            );
            (spec.lease_transitions, spec.acquire_time.is_some())
        };
        assert_eq!(transitions(None, Move::Create), (Some(0), true));
        assert_eq!(
            transitions(Some(lease(Some("x"), Some(15), 3)), Move::Take),
            (Some(4), true)
        );
        assert_eq!(
            transitions(Some(lease(Some("me"), Some(15), 3)), Move::Renew),
            (Some(3), false)
        );
    }
}
