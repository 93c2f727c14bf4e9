//! What happened in a world, in the order in which it happened: the same seed gives the same lines.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// A log by virtual time. Cheap to clone: all clones are the same one.
#[derive(Clone)]
pub struct Trace(Arc<Inner>);

struct Inner {
    began: Instant,
    lines: Mutex<Vec<String>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            lines: Mutex::default(),
        }))
    }
}

impl Trace {
    /// Seconds since the world began.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.0.began.elapsed().as_secs_f64()
    }

    /// Adds a line.
    pub fn tell(&self, line: impl AsRef<str>) {
        let text = format!("{:9.3} {}", self.seconds(), line.as_ref());
        self.open().push(text);
    }

    /// All lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.open().clone()
    }

    /// A digest of all lines.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for line in self.open().iter() {
            digest.update(line);
            digest.update(b"\n");
        }
        digest.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn open(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
