//! Specs of clusters for tests.

use codis_operator::api::{
    CodisCluster, CodisClusterSpec, DashboardSpec, FeSpec, ProxySpec, Quantity, Resources, SentinelSpec, ServerSpec,
};

/// The image that stands in for Codis.
pub const IMAGE: &str = "codis-double:dev";
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

    /// The custom resource.
    pub fn cluster(self, name: &str) -> CodisCluster {
        let image = IMAGE.to_owned();
        let small = requests("10m", "24Mi");
        let mut servers = requests("10m", "32Mi");
        servers.storage = self.volumes.then(|| Quantity("256Mi".to_owned()));
        let spec = CodisClusterSpec {
            coordinator_name: "filesystem".to_owned(),
            coordinator_addr: "builtin".to_owned(),
            scheduler_name: None,
            codis_proxy: self.proxy(),
            codis_server: ServerSpec {
                image: image.clone(),
                image_pull_policy: None,
                replicas: self.groups * self.group_replicas,
                group_replicas: self.group_replicas,
                partition: None,
                storage_class_name: None,
                requests: Some(servers),
                limits: None,
                node_selector: None,
                tolerations: None,
            },
            codis_dashboard: DashboardSpec {
                image: image.clone(),
                image_pull_policy: None,
                replicas: Some(1),
                product_auth: Some(PRODUCT.to_owned()),
                requests: Some(small.clone()),
                limits: None,
            },
            codis_fe: Some(FeSpec {
                image: image.clone(),
                image_pull_policy: None,
                replicas: self.fe,
                service_type: None,
                service_annotations: None,
                requests: Some(small.clone()),
                limits: None,
            }),
            sentinel: Some(SentinelSpec {
                image,
                image_pull_policy: None,
                replicas: self.sentinels,
                storage_class_name: None,
                requests: Some(small),
                limits: None,
                node_selector: None,
                tolerations: None,
            }),
        };
        CodisCluster::new(name, spec)
    }

    fn proxy(self) -> ProxySpec {
        ProxySpec {
            image: IMAGE.to_owned(),
            image_pull_policy: None,
            replicas: self.proxies,
            session_auth: Some(SESSION.to_owned()),
            service_type: Some("NodePort".to_owned()),
            service_annotations: None,
            requests: Some(requests("10m", "24Mi")),
            limits: None,
            hpa_spec: None,
            max_surge: None,
            max_unavailable: None,
            node_selector: None,
            tolerations: None,
        }
    }
}

fn requests(cpu: &str, memory: &str) -> Resources {
    Resources {
        cpu: Some(Quantity(cpu.to_owned())),
        memory: Some(Quantity(memory.to_owned())),
        storage: None,
    }
}

/// The file of one of the predecessor's samples, which are kept beside the repository. `CODIS_SAMPLES` names another
/// folder.
pub fn sample(number: u8) -> String {
    let beside = || format!("{}/../shared/samples", env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var("CODIS_SAMPLES").unwrap_or_else(|_| beside());
    format!("{folder}/sample-{number}.yml")
}
