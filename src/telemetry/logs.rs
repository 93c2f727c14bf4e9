//! Logs, on standard error.

use std::io::{self, IsTerminal as _};

use clap::{Args, ValueEnum};
use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    util::{SubscriberInitExt as _, TryInitError},
};

/// kube's client logs whole answers: one that it can't read at warn, refusals at debug. They may be Secrets.
const NO_CONTENTS: &str = "kube_client::client=error";

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// The flags about logs.
#[derive(Clone, Debug, Args)]
pub struct LogOptions {
    /// What is logged: a level, or directives like `info,codis_operator=debug`. RUST_LOG if not given, else info.
    #[arg(long, global = true)]
    pub log_level: Option<String>,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Why logs can't be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is no directive.
    #[error("--log-level or RUST_LOG: {0}")]
    Filter(#[from] ParseError),
    /// Somebody else did it before.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

impl LogOptions {
    /// Starts logging for the whole process.
    ///
    /// # Errors
    /// When the level can't be read, or logs were started before.
    pub fn start(&self) -> Result<(), LogError> {
        let filter = self.filter(std::env::var("RUST_LOG").ok())?;
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            // Colours are for people at a terminal, not for `kubectl logs`.
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr);
        let started: Result<(), TryInitError> = match self.log_format {
            LogFormat::Text => lines.finish().try_init(),
            LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
        };
        Ok(started?)
    }

    fn filter(&self, environment: Option<String>) -> Result<EnvFilter, ParseError> {
        let wished = self
            .log_level
            .clone()
            .or(environment)
            .filter(|text| !text.trim().is_empty());
        let filter = EnvFilter::builder().parse(wished.as_deref().unwrap_or("info"))?;
        Ok(filter.add_directive(NO_CONTENTS.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_comes_before_the_environment_and_info_is_the_rest() {
        let filter = |flag: Option<&str>, environment: Option<&str>| {
            let options = LogOptions {
                log_level: flag.map(str::to_owned),
                log_format: LogFormat::Text,
            };
            options
                .filter(environment.map(str::to_owned))
                .map(|filter| filter.to_string())
        };
        assert_eq!(filter(None, None).unwrap(), "kube_client::client=error,info");
        assert_eq!(filter(None, Some("")).unwrap(), "kube_client::client=error,info");
        assert_eq!(filter(None, Some("debug")).unwrap(), "kube_client::client=error,debug");
        assert_eq!(
            filter(Some("warn"), Some("debug")).unwrap(),
            "kube_client::client=error,warn"
        );
        let asked = filter(Some("kube_client::client=trace"), None).unwrap();
        assert_eq!(
            asked, "kube_client::client=error",
            "even who asks for contents gets none"
        );
        assert!(filter(Some("a=b=c"), None).is_err());
    }
}
