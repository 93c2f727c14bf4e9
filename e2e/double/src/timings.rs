//! Every waiting time of the stand-in in one place; the defaults are those of Codis.

use std::time::Duration;

/// Waiting times; tests shorten them, the programs use the defaults.
#[derive(Debug, Clone)]
pub struct Timings {
    /// Tries to take the dashboard's lock (§10).
    pub lock_tries: u32,
    /// Pause between two tries to take the lock (§10).
    pub lock_pause: Duration,
    /// Sleep of the background loops between two passes (§6.7).
    pub loop_pause: Duration,
    /// Longest look at one target of a stats pass (§6.7).
    pub stats_timeout: Duration,
    /// Pause of the slot loop after a failed round (§6.1).
    pub slot_backoff: Duration,
    /// Pause between two rounds of the slot loop (§6.1).
    pub slot_round: Duration,
    /// Length of one subscription to the sentinels (§11).
    pub watch_round: Duration,
    /// Pause after a lost subscription (§11).
    pub watch_retry: Duration,
    /// Budget of one query of the masters (§11).
    pub masters_timeout: Duration,
    /// Pause between two queries of the masters (§11).
    pub masters_pause: Duration,
    /// Budget of one `INFO` that compares run ids in a proxy (§11).
    pub run_id_timeout: Duration,
    /// Tries of a proxy to register with its dashboard (§8.3).
    pub register_tries: u32,
    /// Pause between two tries to register (§8.3).
    pub register_pause: Duration,
    /// Pause after the first failure to make the node for clients; it grows (§8.7).
    pub jodis_pause: Duration,
    /// Connecting to another Codis process (§2).
    pub dial: Duration,
    /// A whole request to another Codis process (§2).
    pub request: Duration,
    /// Connecting to a redis for a client's command.
    pub backend_dial: Duration,
    /// How long a backend that refused is left alone.
    pub backend_backoff: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            lock_tries: 17,
            lock_pause: seconds(2),
            loop_pause: seconds(1),
            stats_timeout: seconds(1),
            slot_backoff: seconds(5),
            slot_round: Duration::from_millis(10),
            watch_round: seconds(15 * 60),
            watch_retry: seconds(10),
            masters_timeout: seconds(5),
            masters_pause: seconds(5),
            run_id_timeout: Duration::from_millis(100),
            register_tries: 10,
            register_pause: seconds(3),
            jodis_pause: seconds(1),
            dial: seconds(1),
            request: seconds(60),
            backend_dial: seconds(1),
            backend_backoff: Duration::from_millis(50),
        }
    }
}
