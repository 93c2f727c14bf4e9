//! The CodisGitSource: a branch of a Git repository whose CodisClusters are applied.
//!
//! Field names and Secret keys are Flux's, so that one Secret serves both.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How often a branch is looked at when the source doesn't say.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
/// How long one fetch may take when the source doesn't say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The branch when the source names none.
const DEFAULT_BRANCH: &str = "main";

/// The condition types of a CodisGitSource. kstatus reads them, so `kubectl wait` and Flux do.
pub mod source_condition {
    /// The branch's tip is applied, all of it.
    pub const READY: &str = "Ready";
    /// A revision is being worked on, or something is being tried again.
    pub const RECONCILING: &str = "Reconciling";
    /// It is a person's turn.
    pub const STALLED: &str = "Stalled";
}

/// A branch of a Git repository: the CodisClusters under its path are applied in the source's namespace.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "codis.k8s.io",
    version = "v1alpha1",
    kind = "CodisGitSource",
    plural = "codisgitsources",
    shortname = "cgs",
    category = "codis",
    namespaced,
    status = "CodisGitSourceStatus",
    derive = "PartialEq",
    doc = "A branch of a Git repository whose CodisClusters are applied.",
    annotation("api-approved.kubernetes.io", "unapproved, the group codis.k8s.io was chosen by the predecessor"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Clusters", type_ = "integer", json_path = ".status.clusters"),
    printcolumn(name = "Applied", type_ = "string", json_path = ".status.lastAppliedRevision"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend", priority = 1),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label of at most 63 characters: it is the value of a label on every cluster of the source")
)]
#[serde(rename_all = "camelCase")]
pub struct CodisGitSourceSpec {
    /// The repository, https://, http:// or ssh://. Credentials belong in the Secret that secretRef names.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^(https?|ssh)://[^/]')")
        .message("url must begin with https://, http:// or ssh:// (user@host:path is written ssh://user@host/path)"))]
    #[x_kube(validation = Rule::new("!self.matches('^https?://[^/]*@') && !self.matches('^ssh://[^/@]*:[^/@]*@')")
        .message("url must not hold a user or password: put them in a Secret and name it in secretRef"))]
    pub url: String,
    /// What of the repository; the branch `main` if not given.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<GitReference>,
    /// The folder that holds the specs, at any depth; the whole repository if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.split('/').exists(part, part == '..')")
        .message("path must be relative to the repository's root, without .."))]
    pub path: Option<String>,
    /// How often the branch is looked at, like 30s or 5m; at least 5s. 30s if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(\\\\.[0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('5s') && duration(self) <= duration('24h')")
        .message("interval must be a duration like 30s, 5m or 1h, from 5s to 24h"))]
    pub interval: Option<String>,
    /// How long one fetch may take, like 60s; 60s if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(\\\\.[0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('10m')")
        .message("timeout must be a duration like 60s or 2m, from 1s to 10m"))]
    pub timeout: Option<String>,
    /// The Secret with the credentials: username and password, or bearerToken, or identity and known_hosts; and ca.crt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
    /// Neither fetch, nor apply, nor put hand edits back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Whether a cluster that left the repository may be removed. Without effect in this version: nothing is ever deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<bool>,
}

/// What of a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitReference {
    /// The branch; `main` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self.matches('^[^-/\\\\s~^:?*\\\\[\\\\\\\\][^\\\\s~^:?*\\\\[\\\\\\\\]*$') && !self.contains('..') && !self.contains('@{') && !self.endsWith('/') && !self.endsWith('.lock')")
        .message("ref.branch must be the name of a branch, like main, without refs/heads/"))]
    pub branch: Option<String>,
}

/// An object in the same namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl CodisGitSourceSpec {
    /// The branch that is followed.
    #[must_use]
    pub fn branch(&self) -> &str {
        let named = self
            .reference
            .as_ref()
            .and_then(|reference| reference.branch.as_deref());
        named.unwrap_or(DEFAULT_BRANCH)
    }

    /// How often the branch is looked at.
    #[must_use]
    pub fn interval(&self) -> Duration {
        duration(self.interval.as_deref()).unwrap_or(DEFAULT_INTERVAL)
    }

    /// How long one fetch may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        duration(self.timeout.as_deref()).unwrap_or(DEFAULT_TIMEOUT)
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.suspend == Some(true)
    }
}

/// A duration in Go's notation, whose form the API server has checked.
fn duration(text: Option<&str>) -> Option<Duration> {
    go_duration(text?)
}

/// A duration in Go's notation, like 90s or 1h30m; none for zero and for what isn't one.
#[must_use]
pub fn go_duration(text: &str) -> Option<Duration> {
    let parsed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(parsed).ok().filter(|duration| !duration.is_zero())
}

/// What became of a source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CodisGitSourceStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The revision that was tried last, like `main@sha1:<commit>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempted_revision: Option<String>,
    /// When that was, in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempted_at: Option<String>,
    /// The last revision that was applied, all of it. It is in force, unless applyingRevision is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_revision: Option<String>,
    /// When its last object was applied, in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_at: Option<String>,
    /// A revision that was begun and isn't applied whole yet. It is in force, and is finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applying_revision: Option<String>,
    /// Where both are from: repository, branch and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The value of the annotation codis.k8s.io/requestedAt that was acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// How many clusters the revision in force has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<i32>,
    /// Why the attempted revision was rejected: at most 20 places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<SourceProblem>,
    /// What isn't as the repository says, and is left so: clusters that left it (they go on running), hand edits that
    /// the API server doesn't let back. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<String>,
}

/// Why a revision was rejected: a place and the fix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceProblem {
    /// The file, from the repository's root.
    pub file: String,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<i32>,
    /// The column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<i32>,
    /// The field, like spec.codisServer.replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong, and the fix.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: serde_json::Value) -> CodisGitSourceSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_a_source_does_not_say_has_a_default() {
        let plain = spec(serde_json::json!({ "url": "https://git.example.com/fleet.git" }));
        assert_eq!(plain.branch(), "main");
        assert_eq!(
            (plain.interval(), plain.timeout()),
            (Duration::from_secs(30), Duration::from_secs(60))
        );
        assert!(!plain.is_suspended());
    }

    #[test]
    fn durations_are_written_as_in_go() {
        for (text, wanted) in [
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1500ms", 1_500),
            ("1.5s", 1_500),
        ] {
            let source = spec(serde_json::json!({ "url": "https://h/r", "interval": text }));
            assert_eq!(source.interval(), Duration::from_millis(wanted), "{text}");
        }
    }
}
