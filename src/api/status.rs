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
pub fn condition_at(
    now: Timestamp,
    old: &[Condition],
    type_: &str,
    status: &str,
    reason: impl Into<String>,
    message: impl Into<String>,
    generation: Option<i64>,
) -> Condition {
    let same = old.iter().find(|old| old.type_ == type_ && old.status == status);
    let now = || Time(to_the_second(now));
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
    /// One word: Pending, Progressing, Ready, Degraded, Blocked, Hibernating or Deleting.
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
    /// The product in the coordinator that is marked as this cluster's. Only there: a filesystem is nobody else's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// The addresses assigned to Services (name to ClusterIP). A Service that is made anew gets the same one:
    /// Codis, sentinels and replication know the servers by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<String, String>,
    /// Fields of the spec that are accepted but don't take effect yet, or not any more, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_effect: Vec<String>,
    /// The switchover under way: written before the first lock, gone when the group is whole again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<SwitchoverStatus>,
    /// The slots that are to move to other groups, while there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_moves: Option<SlotMovesStatus>,
    /// The groups that have their share of the slots. Another one that is wished gets its share; slots that somebody moved
    /// between these by hand stay where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balanced: Option<Vec<i32>>,
    /// The last value of the annotation codis.k8s.io/rebalance that was dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalanced: Option<String>,
    /// What became of the last promotion that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<PromotionStatus>,
    /// What keeps changes back: paused, hibernate, Observe, a hold and its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brakes: Vec<String>,
    /// Nodes that are being drained or are lost, each with what that waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Servers that run what the spec says / wished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<String>,
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
    /// Whether its servers must be on different nodes (required) or are where possible (preferred). Decided when the
    /// group is made, and never changed: a change would restart its servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anti_affinity: Option<String>,
    /// When its master was replaced by a failover, in UTC, the last ten minutes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failovers: Vec<String>,
    /// The members, master first, as the topology has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ServerStatus>,
}

/// Slots on their way to other groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotMovesStatus {
    /// Slots that haven't arrived.
    pub left: i32,
    /// Slots that were to move when it began.
    pub total: i32,
    /// When it began, in UTC.
    pub started_at: String,
    /// How many seconds the rest takes at the pace until now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<i64>,
}

/// A planned change of a group's master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SwitchoverStatus {
    /// The group.
    pub group: i32,
    /// The pod that was master.
    pub from: String,
    /// The pod that is to be master.
    pub to: String,
    /// How far it came: Locking, Promoting or Undoing.
    pub phase: String,
    /// Why.
    pub reason: String,
    /// When it began, in UTC.
    pub started_at: String,
}

/// What became of a promotion that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionStatus {
    /// The request: the value of the annotation codis.k8s.io/promote.
    pub request: String,
    /// Started, Done or Refused.
    pub outcome: String,
    /// The pod that is to be master, once that is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Who is master now, or why it was refused.
    pub message: String,
    /// When, in UTC.
    pub at: String,
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
