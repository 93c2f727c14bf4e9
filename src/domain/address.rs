//! `host:port`, compared as text, as Codis does.

use std::{fmt, str::FromStr};

/// Where a process answers: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: String,
    port: u16,
}

/// A text that is no `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not host:port")]
pub struct ParseAddressError(String);

impl Address {
    /// An address of its parts.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// The part before the last colon.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The part after the last colon.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAddressError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(error());
        }
        Ok(Self {
            host: host.to_owned(),
            port: port.parse().map_err(|_| error())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_is_written() {
        let address: Address = "10.96.0.7:6379".parse().unwrap();
        assert_eq!((address.host(), address.port()), ("10.96.0.7", 6379));
        assert_eq!(address.to_string(), "10.96.0.7:6379");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "host", ":1", "host:", "host:99999", "a b:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
