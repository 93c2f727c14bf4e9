//! What may go wrong between a client and the server.

use std::{io, time::Duration};

use super::{ApiServer, answer::Refusal, request::Request};

/// A request, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// In whose name it is asked.
    pub who: &'static str,
    /// Like `list`, `get`, `watch`, `create`, `update`, `patch`, `apply`, `delete`.
    pub verb: &'static str,
    /// Like `Pod`.
    pub kind: &'static str,
    /// Like `status`; empty for the object itself.
    pub subresource: &'static str,
    /// Empty for kinds without, and for lists over all.
    pub namespace: String,
    /// Empty for lists and creations.
    pub name: String,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this status, and nothing is done.
    Refuse(u16),
    /// It never arrives: the connection breaks, and nothing is done.
    Break,
    /// It is done, but the connection breaks before the answer is there.
    LoseReply,
    /// A list or a get is answered from the state of so many resource versions ago, as far as that is remembered.
    StaleList(u64),
    /// It arrives that much later.
    Delay(Duration),
}

/// Who decides what goes wrong.
pub(super) type Faults = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;

impl ApiServer {
    /// From now on this decides what becomes of each request of a client. It must not ask the server anything.
    pub fn set_faults(&self, faults: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) {
        *self.faults() = Some(Box::new(faults));
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        *self.faults() = None;
    }

    /// What becomes of a request.
    pub(super) fn fate(&self, request: &Request) -> Option<Fault> {
        let mut faults = self.faults();
        let faults = faults.as_mut()?;
        faults(&request.in_short(self.1))
    }
}

/// The connection broke.
pub(super) fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the simulated connection broke")
}

impl Refusal {
    /// As a server that has trouble words it.
    pub(super) fn trouble(code: u16) -> Self {
        let (reason, message) = match code {
            403 => ("Forbidden", "forbidden by a simulated fault"),
            409 => (
                "Conflict",
                "the object has been modified; please apply your changes to the latest version and try again",
            ),
            410 => ("Expired", "The resourceVersion is too old."),
            429 => ("TooManyRequests", "Too many requests, please try again later."),
            503 => (
                "ServiceUnavailable",
                "the server is currently unable to handle the request",
            ),
            504 => ("Timeout", "Timeout: request did not complete within requested timeout"),
            _ => ("InternalError", "Internal error occurred: a simulated fault"),
        };
        Self {
            code,
            reason,
            message: message.to_owned(),
            details: None,
        }
    }
}
