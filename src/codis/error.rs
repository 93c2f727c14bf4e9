//! What can go wrong with an effect.

use std::{error::Error as StdError, time::Duration};

use crate::domain::Address;

/// Why an effect failed. Its texts hold no password and no xauth.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection, or it was lost. When it was lost, the effect may have happened.
    #[error("{peer} is unreachable: {cause}")]
    Unreachable {
        /// Who was called.
        peer: Address,
        /// The operating system's or the library's words.
        cause: String,
    },
    /// No answer in time. The effect may have happened, or may still happen.
    #[error("{peer} didn't answer within {} s", after.as_secs_f32())]
    Timeout {
        /// Who was called.
        peer: Address,
        /// How long it had.
        after: Duration,
    },
    /// It answered that it won't (status 800 of a dashboard, an error reply of a sentinel).
    #[error("{peer} refused: {cause}")]
    Refused {
        /// Who was called.
        peer: Address,
        /// Its words (contract §7).
        cause: String,
    },
    /// It answered something that isn't Codis's.
    #[error("{peer} answered unexpectedly: {cause}")]
    Unexpected {
        /// Who was called.
        peer: Address,
        /// What is wrong with the answer.
        cause: String,
    },
    /// [`Effects`](super::Effects) kept it from being sent.
    #[error("{effect} wasn't sent: {cause}")]
    Injected {
        /// The effect's name.
        effect: &'static str,
        /// Why.
        cause: String,
    },
}

/// Parts of the causes (contract §7, §15) of refusals that pass without anybody changing the request: the network
/// between Codis's parts, a process that starts or stops, an operation that runs.
const PASSING: [&str; 9] = [
    "use of closed",
    "i/o timeout",
    "connection refused",
    "connection reset",
    "topom is not online",
    " is promoting",
    "slots-migration is running",
    "resync slots failed",
    "fillslots failed",
];

impl Error {
    /// Whether the same call may succeed a little later though nobody changed anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Injected { .. } => true,
            Self::Refused { cause, .. } => PASSING.iter().any(|part| cause.contains(part)),
            Self::Unexpected { .. } => false,
        }
    }
}

/// The innermost cause: libraries wrap `Connection refused` in up to five layers that say less.
pub(super) fn innermost(error: &dyn StdError) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
