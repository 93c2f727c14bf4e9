//! What a person stopped: paused, hibernate, Observe, supervised moves, and the annotation `codis.k8s.io/hold`.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Deserialize;

use super::{Errors, Invalid, choice};
use crate::api::{CodisCluster, names};

/// What a hold can be restricted to: the components, moves of masters, and moves of slots.
const SCOPES: [&str; 7] = ["dashboard", "fe", "sentinel", "proxy", "server", "moves", "slots"];

/// What a person stopped. Healing is never stopped but by Observe and hibernate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brakes {
    /// No changes.
    pub paused: bool,
    /// No pods.
    pub hibernate: bool,
    /// No writes.
    pub observe: bool,
    /// Masters are moved only when a person asks.
    pub supervised: bool,
    /// No changes for a while.
    pub hold: Option<Hold>,
}

/// A hold, as the annotation has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it ends; none: the annotation makes no sense, and holds until it is mended.
    pub until: Option<Timestamp>,
    /// Why, or what is wrong with the annotation.
    pub reason: String,
    /// What is held: some of the components, `moves` or `slots`; empty: everything.
    pub scope: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    until: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    scope: BTreeSet<String>,
}

impl Brakes {
    pub(super) fn of(cluster: &CodisCluster, errors: &mut Errors) -> Self {
        let spec = &cluster.spec;
        let supervised = choice(
            "spec.maintenance",
            spec.maintenance.as_deref(),
            ["automatic", "supervised"],
        );
        let observe = choice("spec.management", spec.management.as_deref(), ["Manage", "Observe"]);
        let (supervised, observe) = (errors.take(supervised), errors.take(observe));
        Self {
            paused: spec.paused.unwrap_or(false),
            hibernate: spec.hibernate.unwrap_or(false),
            observe,
            supervised,
            hold: cluster.annotations().get(names::ANNOTATION_HOLD).map(|text| hold(text)),
        }
    }

    /// Whether changes of a component (or `moves`) are stopped at this time, and why.
    #[must_use]
    pub fn stops(&self, what: &str, now: Timestamp) -> Option<String> {
        if self.paused {
            return Some("spec.paused is true".to_owned());
        }
        let hold = self.hold.as_ref().filter(|hold| hold.is_on(now))?;
        let in_scope = hold.scope.is_empty() || hold.scope.contains(what);
        in_scope.then(|| hold.told())
    }

    /// All that is stopped at this time, for the status.
    #[must_use]
    pub fn told(&self, now: Timestamp) -> Vec<String> {
        let mut all = Vec::new();
        let mut note = |is: bool, what: &str| {
            if is {
                all.push(what.to_owned());
            }
        };
        note(self.observe, "management: Observe: nothing is written");
        note(self.hibernate, "hibernate: no pods");
        note(self.paused, "paused: nothing that runs is changed");
        note(
            self.supervised,
            "maintenance: supervised: masters are moved only on request",
        );
        all.extend(self.hold.as_ref().filter(|hold| hold.is_on(now)).map(Hold::told));
        all
    }
}

impl Hold {
    fn is_on(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn told(&self) -> String {
        let scope: Vec<&str> = self.scope.iter().map(String::as_str).collect();
        let what = if scope.is_empty() {
            "everything".to_owned()
        } else {
            scope.join(", ")
        };
        match self.until {
            Some(until) => format!("held until {until} ({what}): {}", self.reason),
            None => format!("held ({what}): {}", self.reason),
        }
    }
}

/// A hold that can't be read was still meant to stop something: it stops everything until it is mended.
fn hold(text: &str) -> Hold {
    let read = || -> Result<Hold, String> {
        let written: Written = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if let Some(unknown) = written.scope.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
            return Err(format!("scope {unknown:?} is none of {}", SCOPES.join(", ")));
        }
        let until = written.until.parse::<Timestamp>();
        Ok(Hold {
            until: Some(until.map_err(|_| format!("until {:?} is no time like 2026-12-24T18:00:00Z", written.until))?),
            reason: written.reason,
            scope: written.scope,
        })
    };
    read().unwrap_or_else(|why| Hold {
        until: None,
        reason: format!(
            "the annotation {} isn't understood and holds everything until it is mended or removed: {why}; write {{\"until\":\"2026-12-24T18:00:00Z\",\"reason\":\"…\",\"scope\":[\"server\"]}}",
            names::ANNOTATION_HOLD
        ),
        scope: BTreeSet::new(),
    })
}

/// A request for a switchover: `<group>[/<pod>]@<anything new>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionRequest {
    /// The annotation's value, by which it is remembered.
    pub text: String,
    /// The group, and the pod that is to be master; else what is wrong with the request.
    pub wish: Result<(u16, Option<String>), String>,
}

impl PromotionRequest {
    pub(super) fn of(cluster: &CodisCluster) -> Option<Self> {
        let text = cluster.annotations().get(names::ANNOTATION_PROMOTE)?.clone();
        let (wish, _) = text.split_once('@').unwrap_or((&text, ""));
        let (group, pod) = match wish.split_once('/') {
            Some((group, pod)) => (group, Some(pod.to_owned())),
            None => (wish, None),
        };
        let wish = group
            .parse()
            .map(|group| (group, pod))
            .map_err(|_| format!("{text:?} is no request: write <group>[/<pod>]@<time>"));
        Some(Self { text, wish })
    }
}

/// How long a node may be away before it is taken for lost.
pub(super) fn node_loss_after(text: Option<&str>) -> Result<std::time::Duration, Invalid> {
    let Some(text) = text else {
        return Ok(std::time::Duration::from_mins(5));
    };
    let invalid = || {
        Invalid::new(
            "spec.nodeLossAfter",
            "must be a duration like 90s, 5m or 1h, from 1m to 24h",
        )
    };
    let duration = crate::api::go_duration(text).ok_or_else(invalid)?;
    if (std::time::Duration::from_mins(1)..=std::time::Duration::from_hours(24)).contains(&duration) {
        Ok(duration)
    } else {
        Err(invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_hold_stops_what_is_in_its_scope_until_its_end() {
        let hold = hold(r#"{"until":"2026-12-24T18:00:00Z","reason":"sale","scope":["server"]}"#);
        let brakes = Brakes {
            hold: Some(hold),
            ..Brakes::default()
        };
        assert!(
            brakes
                .stops("server", at("2026-12-24T17:59:59Z"))
                .is_some_and(|why| why.contains("sale"))
        );
        assert_eq!(brakes.stops("proxy", at("2026-12-24T17:59:59Z")), None);
        assert_eq!(brakes.stops("server", at("2026-12-24T18:00:00Z")), None, "it expires");
    }

    #[test]
    fn a_hold_that_makes_no_sense_holds_everything_and_says_how_to_write_it() {
        for text in [
            "yes",
            "{}",
            r#"{"until":"tomorrow"}"#,
            r#"{"until":"2026-12-24T18:00:00Z","scope":["redis"]}"#,
        ] {
            let brakes = Brakes {
                hold: Some(hold(text)),
                ..Brakes::default()
            };
            let why = brakes.stops("proxy", at("2030-01-01T00:00:00Z"));
            assert!(why.is_some_and(|why| why.contains("write {")), "{text}");
        }
    }
}
