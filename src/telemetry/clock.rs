//! What time it is: the machine's, or that of a world that is simulated.

use std::time::Instant as StdInstant;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The one clock of a pass. Cheap to copy.
///
/// By default it is the machine's. [`starting_at`](Self::starting_at) makes one that goes by tokio's clock, which stands
/// still while tokio's time is paused and there is something to do: what a pass reads of it is the same in every run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock(Option<Start>);

/// What was shown when, by tokio's clock.
#[derive(Clone, Copy, Debug)]
struct Start {
    shown: Timestamp,
    made: Instant,
}

impl Clock {
    /// A clock that shows `start` now and goes on with tokio's time.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self(Some(Start {
            shown: start,
            made: Instant::now(),
        }))
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let Some(Start { shown, made }) = self.0 else {
            return Timestamp::now();
        };
        let gone = SignedDuration::try_from(made.elapsed()).unwrap_or(SignedDuration::MAX);
        shown.checked_add(gone).unwrap_or(Timestamp::MAX)
    }

    /// For measuring how long something takes: never set back, and virtual where tokio's time is.
    #[must_use]
    pub fn instant(&self) -> StdInstant {
        Instant::now().into_std()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_with_a_start_goes_by_virtual_time() {
        let start: Timestamp = "2026-01-31T23:59:59Z".parse().unwrap();
        let (clock, began) = (Clock::starting_at(start), Clock::default().instant());
        assert_eq!(clock.now(), start);
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(clock.now().to_string(), "2026-02-01T00:00:00.5Z");
        assert_eq!(clock.instant() - began, Duration::from_millis(1500));
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        assert_eq!(clock.instant() - began, Duration::from_millis(86_401_500));
        assert_eq!(Clock::starting_at(Timestamp::MAX).now(), Timestamp::MAX);
    }

    #[test]
    fn the_machines_clock_needs_no_runtime() {
        let (before, began) = (Timestamp::now(), StdInstant::now());
        let clock = Clock::default();
        let (now, instant) = (clock.now(), clock.instant());
        assert!((before..=Timestamp::now()).contains(&now), "{now}");
        assert!((began..=StdInstant::now()).contains(&instant));
        assert!(Clock::starting_at(before).now() >= before);
    }
}
