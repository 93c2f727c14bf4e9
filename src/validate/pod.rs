//! How the pods of a component are made, besides what the operator decides: `spec.<component>.pod`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, TopologySpreadConstraint};
use serde::de::DeserializeOwned;

use super::Errors;
use crate::api::{PodOptions, Verbatim};

/// Labels and annotations under these are the operator's.
const OURS: &str = "codis.k8s.io/";
/// Labels under these, or of these names, are the operator's, or of the controllers of Kubernetes.
const RESERVED_LABELS: [&str; 6] = [
    OURS,
    "app.kubernetes.io/",
    "apps.kubernetes.io/",
    "statefulset.kubernetes.io/",
    "controller-revision-hash",
    "pod-template-hash",
];

/// What a person asks of the pods of a component.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Labels, none of the operator's.
    pub labels: BTreeMap<String, String>,
    /// Annotations, none of the operator's.
    pub annotations: BTreeMap<String, String>,
    /// Secrets with the credentials of image registries.
    pub pull_secrets: Vec<String>,
    /// The PriorityClass.
    pub priority_class: Option<String>,
    /// The ServiceAccount.
    pub service_account: Option<String>,
    /// Node and pod affinity.
    pub affinity: Option<Affinity>,
    /// Spread over zones and the like. One without a selector is meant for the component's own pods.
    pub spread: Vec<TopologySpreadConstraint>,
}

impl Pod {
    /// `field` is the component's, like `spec.codisServer`.
    pub(super) fn of(field: &str, options: Option<&PodOptions>, errors: &mut Errors) -> Self {
        let field = format!("{field}.pod");
        let Some(options) = options else {
            return Self::default();
        };
        let pull_secrets = options.image_pull_secrets.iter().flatten();
        Self {
            labels: labels(&format!("{field}.labels"), options.labels.as_ref(), errors),
            annotations: annotations(&format!("{field}.annotations"), options.annotations.as_ref(), errors),
            pull_secrets: pull_secrets.map(|secret| secret.name.clone()).collect(),
            priority_class: options.priority_class_name.clone(),
            service_account: options.service_account_name.clone(),
            affinity: affinity(&format!("{field}.affinity"), options.affinity.as_ref(), errors),
            spread: spread(
                &format!("{field}.topologySpreadConstraints"),
                options.topology_spread_constraints.as_deref().unwrap_or_default(),
                errors,
            ),
        }
    }
}

fn labels(field: &str, given: Option<&BTreeMap<String, String>>, errors: &mut Errors) -> BTreeMap<String, String> {
    for (key, value) in given.into_iter().flatten() {
        key_is_free(field, key, &RESERVED_LABELS, errors);
        if !value.is_empty() && !is_name(value) {
            errors.add(
                &format!("{field}.{key}"),
                format!("{value:?} is no label value: at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends"),
            );
        }
    }
    given.cloned().unwrap_or_default()
}

fn annotations(field: &str, given: Option<&BTreeMap<String, String>>, errors: &mut Errors) -> BTreeMap<String, String> {
    for key in given.into_iter().flatten().map(|(key, _)| key) {
        key_is_free(field, key, &[OURS], errors);
    }
    given.cloned().unwrap_or_default()
}

fn key_is_free(field: &str, key: &str, reserved: &[&str], errors: &mut Errors) {
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
    let field = format!("{field}.{key}");
    if !is_name(name) || (key.contains('/') && !super::is_host(prefix)) {
        errors.add(&field, "is no name like `team` or `example.com/team`");
    }
    let is_reserved = |taken: &&&str| {
        if taken.ends_with('/') {
            key.starts_with(**taken)
        } else {
            key == **taken
        }
    };
    if let Some(taken) = reserved.iter().find(is_reserved) {
        errors.add(&field, format!("{taken} isn't for users: choose another name"));
    }
}

/// Whether a text is the name part of a qualified name, or a label's value.
fn is_name(text: &str) -> bool {
    let at_ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && at_ends(text.chars().next())
        && at_ends(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn affinity(field: &str, given: Option<&Verbatim>, errors: &mut Errors) -> Option<Affinity> {
    let affinity: Affinity = read(field, given?, errors)?;
    for (kind, term) in terms(&affinity) {
        if term.topology_key.is_empty() {
            errors.add(
                &format!("{field}.{kind}"),
                "each term needs a topologyKey, like kubernetes.io/hostname",
            );
        }
    }
    Some(affinity)
}

/// The terms on pods, each with the field it is in.
fn terms(affinity: &Affinity) -> Vec<(&'static str, &PodAffinityTerm)> {
    let (near, apart) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let near = near.into_iter().flat_map(|near| {
        let required = near
            .required_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        let preferred = near
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        required.chain(preferred.map(|term| &term.pod_affinity_term))
    });
    let apart = apart.into_iter().flat_map(|apart| {
        let required = apart
            .required_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        let preferred = apart
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        required.chain(preferred.map(|term| &term.pod_affinity_term))
    });
    let near = near.map(|term| ("podAffinity", term));
    near.chain(apart.map(|term| ("podAntiAffinity", term))).collect()
}

fn spread(field: &str, given: &[Verbatim], errors: &mut Errors) -> Vec<TopologySpreadConstraint> {
    let mut all = Vec::new();
    for (index, constraint) in given.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let Some(constraint) = read::<TopologySpreadConstraint>(&field, constraint, errors) else {
            continue;
        };
        if constraint.max_skew < 1 {
            errors.add(&format!("{field}.maxSkew"), "must be at least 1");
        }
        if constraint.topology_key.is_empty() {
            errors.add(
                &format!("{field}.topologyKey"),
                "must name a label of nodes, like topology.kubernetes.io/zone",
            );
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&constraint.when_unsatisfiable.as_str()) {
            errors.add(
                &format!("{field}.whenUnsatisfiable"),
                "must be DoNotSchedule or ScheduleAnyway",
            );
        }
        all.push(constraint);
    }
    all
}

/// An object of Kubernetes' own. A field that it doesn't have would be dropped without a word: it is an error.
fn read<T: DeserializeOwned>(field: &str, given: &Verbatim, errors: &mut Errors) -> Option<T> {
    let mut unknown = Vec::new();
    let value = serde_json::Value::Object(given.0.clone());
    let parsed = serde_ignored::deserialize(value, |path| unknown.push(path.to_string()));
    for path in unknown {
        // Optional fields are a `?` on the way.
        let path: Vec<&str> = path.split('.').filter(|part| *part != "?").collect();
        errors.add(&format!("{field}.{}", path.join(".")), "there is no such field");
    }
    match parsed {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            errors.add(field, error.to_string());
            None
        }
    }
}
