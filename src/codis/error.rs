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
    /// It answered that it won't (status 800 of a dashboard or proxy, an error reply of a redis or sentinel).
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
    /// [`Effects`](crate::telemetry::Effects) kept it from being sent.
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
const PASSING: [&str; 10] = [
    "use of closed",
    "i/o timeout",
    "connection refused",
    "connection reset",
    "no route to host",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_retryable_when_its_cause_passes_by_itself() {
        for (cause, retryable) in [
            (
                "read tcp 10.244.1.11:59526->10.96.157.16:26379: use of closed network connection",
                true,
            ),
            ("dial tcp 10.96.157.16:26379: i/o timeout", true),
            ("dial tcp 10.96.23.157:6379: connect: no route to host", true),
            ("topom is not online", true),
            ("group-[2] is promoting", true),
            ("group-[2] is promoting index = 1", true),
            ("proxy-[305f049bf2e1eaca6c25934d23880ef8] resync slots failed", true),
            ("invalid xauth, please check product name & auth", false),
            ("group-[9] doesn't exist", false),
            ("group-[1] can't promote master", false),
            ("ERR invalid password", false),
        ] {
            let refused = Error::Refused {
                peer: Address::new("10.96.0.7", 18080),
                cause: cause.to_owned(),
            };
            assert_eq!(refused.is_retryable(), retryable, "{cause}");
        }
    }
}
