//! Redis servers, sentinels and a coordinator that exist in memory only, for a simulation that decides time, network,
//! disks and deaths.
//!
//! They run on the machine of [`crate::host`] as tasks of a process, so that they can be killed and frozen. Nothing is
//! drawn by lot: whatever a real one draws comes from a hash of the host's name and of how often its disk was opened.
//! They speak as redis 7.0 does and behave as sources of 3.2 to 7.0 have it; what differs is told where it is done.

mod clients;
mod conf;
pub mod coordinator;
pub mod disk;
mod process;
pub mod redis;
pub mod sentinel;

use std::sync::Arc;

use crate::host::{self, Host};

/// A number that looks random and is the same for the same bytes: FNV-1a, stirred.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let folded = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let stirred = (folded ^ (folded >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    stirred ^ (stirred >> 33)
}

/// The chances of one life of a process: the same life has the same.
#[derive(Clone)]
pub(crate) struct Chance {
    seed: String,
    drawn: u64,
}

impl Chance {
    /// Those of the `life`-th process on the current host.
    pub(crate) fn new(life: u64) -> Self {
        let name = host::current().map(|host| host.name()).unwrap_or_default();
        Self {
            seed: format!("{name}/{life}"),
            drawn: 0,
        }
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.drawn += 1;
        hash(format!("{}/{}", self.seed, self.drawn).as_bytes())
    }

    /// Forty hexadecimal digits, as redis names runs and histories.
    pub(crate) fn id(&mut self) -> String {
        let (a, b, c) = (self.next(), self.next(), self.next());
        format!("{a:016x}{b:016x}{:08x}", c >> 32)
    }
}

/// The time of day of the host that made it, also for who asks from elsewhere.
#[derive(Clone)]
pub(crate) struct Clock(Option<Arc<dyn Host>>);

impl Clock {
    /// That of the current host.
    pub(crate) fn here() -> Self {
        Self(host::current())
    }

    /// Milliseconds since 1970.
    pub(crate) fn ms(&self) -> i64 {
        self.0
            .as_ref()
            .map_or_else(host::now, |host| host.now())
            .as_millisecond()
    }
}
