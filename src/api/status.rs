//! What the operator reports about a CodisCluster.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The condition types of a CodisCluster, at most six (design, decision 11).
pub mod condition {
    /// Serving, the generation observed, every wished pod ready, every replica attached, nothing left to do.
    pub const READY: &str = "Ready";
    /// An online proxy exists and all 1024 slots map to reachable masters.
    pub const SERVING: &str = "Serving";
    /// A step is running, or something is being waited for.
    pub const PROGRESSING: &str = "Progressing";
    /// Something must not be done, with the reason and the fix.
    pub const BLOCKED: &str = "Blocked";
    /// It serves, or tries to, with less redundancy than was asked for.
    pub const DEGRADED: &str = "Degraded";
    /// It is a person's turn.
    pub const STALLED: &str = "Stalled";
}

/// A condition that follows on those that were there: the time of its last transition is kept while its status is the
/// same. Times are to the second, as the API server keeps them: an equal status must compare equal.
#[must_use]
pub fn condition_after(
    old: &[Condition],
    type_: &str,
    status: &str,
    reason: impl Into<String>,
    message: impl Into<String>,
    generation: Option<i64>,
) -> Condition {
    let same = old.iter().find(|old| old.type_ == type_ && old.status == status);
    let now = || Time(to_the_second(Timestamp::now()));
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: same.map_or_else(now, |old| old.last_transition_time.clone()),
    }
}

/// A time as the API server keeps it.
#[must_use]
pub fn to_the_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or_default()
}

/// The observed state of a CodisCluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CodisClusterStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word: Pending, Progressing, Ready, Degraded, Blocked or Deleting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What is being done or waited for, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Ready, Serving, Progressing, Blocked, Degraded and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Proxies online / wished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxies: Option<String>,
    /// Servers in their role / wished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<String>,
    /// Sentinels that watch every group / wished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinels: Option<String>,
    /// Slots that map to a reachable master, of 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_served: Option<i32>,
    /// The replication groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupStatus>,
    /// The addresses assigned to Services (name to ClusterIP). A Service that is made anew gets the same one:
    /// Codis, sentinels and replication know the servers by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<String, String>,
    /// Fields of the spec that are accepted but don't take effect yet, or not any more, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_effect: Vec<String>,
    /// Where in Git its spec comes from. Written by the Git sources with a field manager of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gitops: Option<GitopsStatus>,
}

/// Where in Git a spec comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitopsStatus {
    /// The CodisGitSource, in the cluster's namespace; `watch_dir` for the folder that the operator watches.
    pub source: String,
    /// The file, from the repository's root.
    pub path: String,
    /// The revision that made the spec what it is, like `main@sha1:<commit>`.
    pub revision: String,
    /// When it was applied, in UTC.
    pub applied_at: String,
}

/// A replication group: one master and its replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// 1 to 9999.
    pub id: i32,
    /// Slots that the topology gives to this group.
    pub slots: i32,
    /// The pod that is master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Whether a member whose volume is empty must not start as a master (design, decision 6).
    pub bootstrapped: bool,
    /// The members, master first, as the topology has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ServerStatus>,
}

/// One codis-server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// The pod's name.
    pub name: String,
    /// master, replica or unreachable.
    pub role: String,
    /// Whether a replica's link to the group's master is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_up: Option<bool>,
}
