//! Specs of clusters for tests.

use codis_operator::api::CodisCluster;
use serde_json::json;

/// The image that stands in for Codis.
pub const IMAGE: &str = "codis-double:dev";
/// The same image under another name: another one to Kubernetes.
pub const NEXT_IMAGE: &str = "codis-double:next";
/// What clients of the clusters made here give in AUTH; the samples have the same.
pub const SESSION: &str = "session";
/// What servers of the clusters made here want; the samples have the same.
pub const PRODUCT: &str = "product";

/// The shape of a small cluster.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many groups.
    pub groups: i32,
    /// How many servers each has.
    pub group_replicas: i32,
    /// Whether data is on volumes.
    pub volumes: bool,
    /// How many sentinels.
    pub sentinels: i32,
    /// How many proxies.
    pub proxies: i32,
    /// How many front ends.
    pub fe: i32,
}

/// Two groups of two, three sentinels, two proxies: the smallest in which everything can fail and be survived.
pub const SMALL: Shape = Shape {
    groups: 2,
    group_replicas: 2,
    volumes: false,
    sentinels: 3,
    proxies: 2,
    fe: 1,
};

impl Shape {
    /// The same with data on volumes, or without.
    pub const fn volumes(self, volumes: bool) -> Self {
        Self { volumes, ..self }
    }

    /// The custom resource, written as a person would.
    pub fn cluster(self, name: &str) -> CodisCluster {
        let small = json!({"cpu": "10m", "memory": "24Mi"});
        let mut server = json!({"cpu": "10m", "memory": "32Mi"});
        if self.volumes {
            server["storage"] = json!("256Mi");
        }
        let spec = json!({
            "coordinatorName": "filesystem",
            "coordinatorAddr": "builtin",
            "codisProxy": {
                "image": IMAGE, "replicas": self.proxies, "sessionAuth": SESSION, "serviceType": "NodePort", "requests": small,
                // The suite's clients stay connected: a proxy that leaves cuts them.
                "drainSeconds": 5,
            },
            "codisServer": {
                "image": IMAGE, "replicas": self.groups * self.group_replicas, "groupReplicas": self.group_replicas,
                "requests": server,
            },
            "codisDashboard": {"image": IMAGE, "replicas": 1, "productAuth": PRODUCT, "requests": small},
            "codisFe": {"image": IMAGE, "replicas": self.fe, "requests": small},
            "sentinel": {"image": IMAGE, "replicas": self.sentinels, "requests": small},
        });
        let spec = serde_json::from_value(spec).unwrap_or_else(|error| panic!("the suite's own spec: {error}"));
        CodisCluster::new(name, spec)
    }
}

/// The file of one of the predecessor's samples, which are kept beside the repository. `CODIS_SAMPLES` names another
/// folder.
pub fn sample(number: u8) -> String {
    let beside = || format!("{}/../shared/samples", env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var("CODIS_SAMPLES").unwrap_or_else(|_| beside());
    format!("{folder}/sample-{number}.yml")
}
