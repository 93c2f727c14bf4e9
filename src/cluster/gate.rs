//! The gate before every write: open while the lease is held.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::Error;

#[derive(Clone, Copy, Debug)]
enum Tenure {
    /// Nobody competes: tests and one-off commands.
    Always,
    Closed,
    /// Writes may begin until `deadline` and must be over at `expiry`, when another may take the lease.
    Until {
        deadline: Instant,
        expiry: Instant,
    },
}

/// Lets writes pass while the lease is held. It closes by itself when the renew deadline passes: no task has to run
/// for that.
#[derive(Clone, Debug)]
pub struct WriteGate(Arc<watch::Sender<Tenure>>);

impl WriteGate {
    /// A gate that is always open, for programs that compete with nobody.
    pub fn open() -> Self {
        Self::with(Tenure::Always)
    }

    pub(super) fn closed() -> Self {
        Self::with(Tenure::Closed)
    }

    fn with(tenure: Tenure) -> Self {
        Self(Arc::new(watch::Sender::new(tenure)))
    }

    pub(super) fn open_until(&self, deadline: Instant, expiry: Instant) {
        self.0.send_replace(Tenure::Until { deadline, expiry });
    }

    pub(super) fn close(&self) {
        self.0.send_replace(Tenure::Closed);
    }

    /// When the gate will close by itself; `None` if it is closed or always open.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match *self.0.borrow() {
            Tenure::Until { deadline, .. } => Some(deadline),
            Tenure::Always | Tenure::Closed => None,
        }
    }

    /// Whether a write may begin now.
    pub fn is_open(&self) -> bool {
        self.pass().is_ok()
    }

    /// How long a write that begins now may take at most.
    ///
    /// # Errors
    /// [`Error::NotLeader`] when none may begin.
    pub fn pass(&self) -> Result<Duration, Error> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Result<Duration, Error> {
        match *self.0.borrow() {
            Tenure::Always => Ok(Duration::MAX),
            Tenure::Until { deadline, expiry } if now < deadline => Ok(expiry.saturating_duration_since(now)),
            Tenure::Until { .. } | Tenure::Closed => Err(Error::NotLeader),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_closes_by_itself_at_the_deadline() {
        let (gate, now) = (WriteGate::closed(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(gate.pass_at(now), Err(Error::NotLeader));
        gate.open_until(after(10), after(15));
        assert_eq!(
            gate.pass_at(after(9)),
            Ok(Duration::from_secs(6)),
            "a write ends before another may lead"
        );
        assert_eq!(gate.pass_at(after(10)), Err(Error::NotLeader));
        gate.open_until(after(20), after(25));
        gate.close();
        assert_eq!(gate.pass_at(after(11)), Err(Error::NotLeader));
        assert_eq!(WriteGate::open().pass_at(after(1000)), Ok(Duration::MAX));
    }
}
