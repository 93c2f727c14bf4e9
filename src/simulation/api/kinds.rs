//! The kinds that it knows.

/// A kind, as requests name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
    /// Whether it has a `status` that ordinary writes don't change.
    pub status: bool,
    /// Whether `metadata.generation` counts the changes of its spec.
    pub counted: bool,
}

const fn core(kind: &'static str, plural: &'static str, namespaced: bool, status: bool) -> Kind {
    of("", "v1", kind, plural, namespaced, status, false)
}

const fn of(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    status: bool,
    counted: bool,
) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural,
        namespaced,
        status,
        counted,
    }
}

/// A kind that is served, for discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its group; empty for the core group.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its name.
    pub kind: &'static str,
    /// Its name in paths.
    pub plural: &'static str,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

/// All kinds that are served.
pub(super) fn served() -> Vec<Served> {
    let served = |kind: Kind| Served {
        group: kind.group,
        version: kind.version,
        kind: kind.kind,
        plural: kind.plural,
        namespaced: kind.namespaced,
    };
    KINDS.into_iter().map(served).collect()
}

/// The operator's own group.
pub(super) const OWN: &str = "codis.k8s.io";

const KINDS: [Kind; 20] = [
    core("Namespace", "namespaces", false, true),
    core("Node", "nodes", false, true),
    of("", "v1", "Pod", "pods", true, true, true),
    core("Service", "services", true, true),
    core("Secret", "secrets", true, false),
    core("ConfigMap", "configmaps", true, false),
    core("PersistentVolumeClaim", "persistentvolumeclaims", true, true),
    core("PersistentVolume", "persistentvolumes", false, true),
    of("apps", "v1", "StatefulSet", "statefulsets", true, true, true),
    of("apps", "v1", "Deployment", "deployments", true, true, true),
    of("apps", "v1", "ReplicaSet", "replicasets", true, true, true),
    of(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        true,
        true,
        true,
    ),
    of(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        true,
        true,
        false,
    ),
    of("coordination.k8s.io", "v1", "Lease", "leases", true, false, false),
    of("events.k8s.io", "v1", "Event", "events", true, false, false),
    of(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        true,
        false,
        true,
    ),
    of(
        "storage.k8s.io",
        "v1",
        "StorageClass",
        "storageclasses",
        false,
        false,
        false,
    ),
    of(OWN, "v1alpha1", "CodisCluster", "codisclusters", true, true, true),
    of(OWN, "v1alpha1", "CodisGitSource", "codisgitsources", true, true, true),
    of(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRole",
        "clusterroles",
        false,
        false,
        false,
    ),
];

impl Kind {
    /// The kind of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.kind == name)
    }

    /// The kind that a path names.
    pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        let mut all = KINDS.into_iter();
        all.find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    /// `group/version`, as objects have it.
    pub(super) fn api_version(self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `plural.group`, as refusals have it.
    pub(super) fn resource(self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// `Kind.group`, as refusals have it.
    pub(super) fn qualified(self) -> String {
        match self.group {
            "" => self.kind.to_owned(),
            group => format!("{}.{group}", self.kind),
        }
    }

    pub(super) fn is_custom(self) -> bool {
        self.group == OWN
    }
}
