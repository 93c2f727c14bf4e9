//! Configuration by key: `spec.<component>.config`. What the operator itself must decide is refused, with who decides it.

use std::collections::BTreeMap;

use super::{
    Errors,
    parameters::{self, Kind},
};
use crate::api::ConfigOverrides;

/// Values by key, as they go into a configuration file.
pub type Settings = BTreeMap<String, String>;

/// Longer than any sensible value.
const LONGEST: usize = 1024;

/// A configuration file of Codis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Redis,
    Proxy,
    Dashboard,
    Sentinel,
}

impl File {
    fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis.conf",
            Self::Proxy => "proxy.toml",
            Self::Dashboard => "dashboard.toml",
            Self::Sentinel => "sentinel.conf",
        }
    }

    /// What stands between the words of a key.
    fn hyphen(self) -> char {
        match self {
            Self::Redis | Self::Sentinel => '-',
            Self::Proxy | Self::Dashboard => '_',
        }
    }

    /// Why a key isn't a person's to set, and what to set instead.
    fn refusal(self, key: &str) -> Option<String> {
        let rows: &[(&[&str], &str)] = match self {
            Self::Redis => &parameters::REDIS_REFUSED,
            Self::Proxy => &parameters::PROXY_REFUSED,
            Self::Dashboard => &parameters::DASHBOARD_REFUSED,
            Self::Sentinel => &[],
        };
        let is_meant = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => key.starts_with(prefix),
            None => key == pattern,
        };
        let (_, why) = rows.iter().find(|(keys, _)| keys.iter().any(|key| is_meant(key)))?;
        Some((*why).to_owned())
    }

    /// What is known of a key: an error where the file has none of this name. Redis has more in each version than
    /// anybody knows beforehand.
    fn kind(self, key: &str) -> Result<Kind, String> {
        let find = |table: &[(&str, Kind)]| table.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind);
        let known = match self {
            Self::Redis => return Ok(parameters::live(key).map_or(Kind::Text, |live| live.kind)),
            Self::Proxy => find(&parameters::PROXY),
            Self::Dashboard => find(&parameters::DASHBOARD),
            Self::Sentinel => find(&parameters::SENTINEL),
        };
        let all = |table: &[(&str, Kind)]| table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        known.ok_or_else(|| match self {
            Self::Sentinel => format!("only these can be set: {}", all(&parameters::SENTINEL)),
            _ => format!("{} has no such key (Codis would ignore it without a word)", self.name()),
        })
    }
}

/// The overrides of a component. `field` is the component's, like `spec.codisServer`.
pub(super) fn settings(field: &str, file: File, given: Option<&ConfigOverrides>, errors: &mut Errors) -> Settings {
    let mut settings = Settings::new();
    for (key, value) in given.into_iter().flatten() {
        match checked(file, key, &value.0) {
            Ok(()) => {
                settings.insert(key.clone(), value.0.clone());
            }
            Err(problem) => errors.add(&format!("{field}.config.{key}"), problem),
        }
    }
    settings
}

fn checked(file: File, key: &str, value: &str) -> Result<(), String> {
    let is_inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == file.hyphen();
    if key.len() > 64 || !key.starts_with(|c: char| c.is_ascii_lowercase()) || !key.chars().all(is_inside) {
        return Err(format!(
            "is no key of {}: write lower-case words with '{}' between them",
            file.name(),
            file.hyphen()
        ));
    }
    if let Some(why) = file.refusal(key) {
        return Err(why);
    }
    if value.len() > LONGEST || value.chars().any(|c| c.is_control() || matches!(c, '"' | '\'' | '\\')) {
        return Err(format!(
            "the value must be one line of at most {LONGEST} characters without quotes and backslashes (it is quoted where that is needed)"
        ));
    }
    file.kind(key)?.check(value)
}

/// How sentinels watch: what `SENTINEL SET` can change at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentinelTuning {
    /// A master that doesn't answer for this long, in milliseconds, is dead to a sentinel.
    pub down_after_ms: u32,
    /// How long a failover may take, in milliseconds; a failed one is tried again after twice as long.
    pub failover_timeout_ms: u32,
    /// How many replicas follow a new master at a time.
    pub parallel_syncs: u32,
}

impl Default for SentinelTuning {
    fn default() -> Self {
        Self {
            down_after_ms: 5_000,
            // Sentinels that stand for election in the same instant vote for themselves, nobody is elected, and they try
            // again after twice this: it is how long clients can't write then.
            failover_timeout_ms: 10_000,
            parallel_syncs: 1,
        }
    }
}

impl SentinelTuning {
    /// The keys of it.
    pub const KEYS: [&str; 3] = ["down-after-milliseconds", "failover-timeout", "parallel-syncs"];

    /// Takes its keys out of a sentinel's settings.
    pub(super) fn of(settings: &Settings) -> Self {
        let default = Self::default();
        let [down_after, failover, syncs] =
            Self::KEYS.map(|key| settings.get(key).and_then(|value| value.parse::<u32>().ok()));
        Self {
            down_after_ms: down_after.unwrap_or(default.down_after_ms),
            failover_timeout_ms: failover.unwrap_or(default.failover_timeout_ms),
            parallel_syncs: syncs.unwrap_or(default.parallel_syncs),
        }
    }
}
