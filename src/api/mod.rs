//! What users write and read: the custom resources of group `codis.k8s.io`, their rules (CEL) and printed columns.
//!
//! May enter: serde, schemars, kube's derive. Stays out: every other room. A change here is a change of a contract.

mod cluster;
mod options;
mod quantity;
mod source;
mod status;

pub use cluster::{
    CodisCluster, CodisClusterSpec, DashboardSpec, FeSpec, HpaSpec, JodisSpec, ProxySpec, Resources, SentinelSpec,
    ServerSpec, SlotMovesSpec,
};
pub use options::{ConfigOverrides, ConfigValue, PodOptions, SecretKeyReference, Verbatim};
pub use quantity::{ParseQuantityError, Quantity};
pub use source::{
    CodisGitSource, CodisGitSourceSpec, CodisGitSourceStatus, GitReference, LocalReference, SourceProblem, go_duration,
    source_condition,
};
pub use status::{
    CodisClusterStatus, GitopsStatus, GroupStatus, PromotionStatus, ServerStatus, SlotMovesStatus, SwitchoverStatus,
    condition, condition_at, to_the_second,
};

/// The API group of every custom resource here.
pub const GROUP: &str = "codis.k8s.io";

/// Names that users and other controllers see on objects and that can't change later (design, "Names").
pub mod names {
    /// Label and selector: the CodisCluster an object belongs to.
    pub const LABEL_CLUSTER: &str = "codis.k8s.io/cluster";
    /// Label and selector: dashboard, proxy, fe, sentinel or server.
    pub const LABEL_COMPONENT: &str = "codis.k8s.io/component";
    /// Label and selector: the id of a server's group.
    pub const LABEL_GROUP: &str = "codis.k8s.io/group";
    /// Annotation by which a person marks a CodisCluster that may take over the predecessor's objects.
    pub const ANNOTATION_ADOPT: &str = "codis.k8s.io/adopt";
    /// Annotation by which a person accepts that a group lost every copy: its value is the token of the status.
    pub const ANNOTATION_ACCEPT_LOSS: &str = "codis.k8s.io/accept-data-loss";
    /// Label: the CodisGitSource that a CodisCluster's spec comes from. A person who sets it hands a cluster over to Git.
    pub const LABEL_SOURCE: &str = "codis.k8s.io/source";
    /// The value of [`LABEL_SOURCE`] for the folder of `--watch-dir`: no CodisGitSource can have this name.
    pub const WATCH_DIR_SOURCE: &str = "watch_dir";
    /// Annotation: the revision that brought a CodisCluster its spec. Written with the spec, so that no crash parts them.
    pub const ANNOTATION_REVISION: &str = "codis.k8s.io/revision";
    /// Annotation of a CodisGitSource: a new value makes it look at the branch at once.
    pub const ANNOTATION_REQUESTED_AT: &str = "codis.k8s.io/requestedAt";
    /// Annotation of a CodisGitSource by which a person accepts that its branch went back: its value is the commit.
    pub const ANNOTATION_ACCEPT_REWIND: &str = "codis.k8s.io/accept-rewind";
    /// Label of a server's pod: master or replica, as the topology has it. No immutable selector uses it.
    pub const LABEL_ROLE: &str = "codis.k8s.io/role";
    /// Annotation by which a person asks for a switchover: `<group>[/<pod>]@<anything new>`.
    pub const ANNOTATION_PROMOTE: &str = "codis.k8s.io/promote";
    /// Asks for slots to be spread evenly again, once for each value.
    pub const ANNOTATION_REBALANCE: &str = "codis.k8s.io/rebalance";
    /// Annotation by which a person stops changes for a while: JSON with `until` (RFC 3339), `reason` and `scope`.
    pub const ANNOTATION_HOLD: &str = "codis.k8s.io/hold";
    /// On a data volume's claim: the uid of the CodisCluster that it is of.
    pub const ANNOTATION_CLUSTER_UID: &str = "codis.k8s.io/cluster-uid";
    /// Finalizer that stops a cluster's pods in order before its objects are collected.
    pub const FINALIZER: &str = "codis.k8s.io/teardown";
    /// Field manager of everything that the cluster controller applies.
    pub const FIELD_MANAGER: &str = "codis-operator";
    /// Field manager of the status of Git sources; with `/<source>` behind it, of what a source applies.
    pub const GITOPS_MANAGER: &str = "codis-gitops";
}
