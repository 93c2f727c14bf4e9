//! What a pass can fail with, and when it is tried again: one table.

use std::time::Duration;

use crate::{cluster, codis};

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// At the door to Kubernetes.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// At the door to Codis.
    #[error(transparent)]
    Codis(codis::Error),
}

impl Error {
    /// What is taken, when an object of a wished name isn't ours.
    pub(super) fn name_taken(&self) -> Option<String> {
        match self {
            Self::Cluster(error @ cluster::Error::NameTaken { .. }) => Some(error.to_string()),
            Self::Cluster(_) | Self::Codis(_) => None,
        }
    }

    /// Whether the API server said no, and will until somebody changes something.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Cluster(error) if error.category() == cluster::Category::Refused)
    }

    /// A word for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Cluster(error) => error.category().as_str(),
            Self::Codis(_) => "codis",
        }
    }

    /// When to try again after `attempts` failures in a row.
    #[must_use]
    pub fn requeue(&self, attempts: u32) -> Duration {
        use cluster::Category as C;
        let (base, cap) = match self {
            Self::Cluster(error) => match error.category() {
                C::Conflict | C::Gone | C::Injected => (200, 2_000),
                C::Unavailable => (1_000, 15_000),
                C::NotLeader => (2_000, 2_000),
                C::Refused | C::NameTaken | C::Bug => (2_000, 60_000),
            },
            Self::Codis(_) => (1_000, 15_000),
        };
        Duration::from_millis((base << attempts.min(8)).min(cap))
    }
}
