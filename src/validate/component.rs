//! What the components have in common: image, resources, placement, Services, volumes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{ResourceRequirements, Toleration},
    apimachinery::pkg::api::resource::Quantity as KubeQuantity,
};

use super::{
    Errors, Invalid, Placement, Pod, Settings,
    overrides::{self, File},
};
use crate::api::{CodisClusterSpec, ConfigOverrides, PodOptions, Quantity, Resources};

/// The size of a data volume when only a class was given.
const DEFAULT_VOLUME: &str = "10Gi";

/// A kind of process: how many, and how they run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Component {
    /// How many pods.
    pub replicas: u16,
    /// The container image.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: String,
    /// CPU and memory.
    pub resources: ResourceRequirements,
    /// Processors that it may use, at least 1; none without a limit.
    pub cpus: Option<u16>,
    /// Bytes that it may use; none without a limit.
    pub memory: Option<u64>,
    /// Where it may run.
    pub placement: Placement,
    /// What else a person asks of its pods.
    pub pod: Pod,
    /// Keys of its configuration file, beyond or instead of the operator's.
    pub config: Settings,
}

/// A Service that users connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// ClusterIP, NodePort or LoadBalancer.
    pub kind: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A claim for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The storage class; none: the default one.
    pub class: Option<String>,
    /// The size.
    pub size: String,
}

/// A proxy's threads and buffers, from its limits: Codis's own defaults (all processors of the host, 1 GiB off heap,
/// 256 MiB at start; contract §13.2) outgrow a small pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxySizing {
    /// Threads.
    pub ncpu: u16,
    /// MiB off heap; none: Codis's default.
    pub offheap_mb: Option<u64>,
    /// MiB allocated at start; none: Codis's default.
    pub placeholder_mb: Option<u64>,
}

impl ProxySizing {
    fn of(component: &Component) -> Self {
        const MB: u64 = 1 << 20;
        Self {
            ncpu: component.cpus.unwrap_or(2),
            offheap_mb: component.memory.map(|bytes| (bytes / 4 / MB).clamp(8, 1024)),
            placeholder_mb: component.memory.map(|bytes| (bytes / 16 / MB).clamp(1, 256)),
        }
    }
}

/// Every component of a spec.
pub(super) struct Parts {
    pub server: Component,
    pub volume: Option<Volume>,
    pub proxy: Component,
    pub proxy_service: Service,
    pub proxy_sizing: ProxySizing,
    pub dashboard: Component,
    pub fe: Option<(Component, Service)>,
    pub sentinel: Option<Component>,
}

impl Parts {
    pub(super) fn of(spec: &CodisClusterSpec, group_size: u16, errors: &mut Errors) -> Self {
        let scheduler = spec.scheduler_name.as_ref();
        let (server, proxy, dashboard) = (&spec.codis_server, &spec.codis_proxy, &spec.codis_dashboard);
        let server_component = Raw {
            field: "spec.codisServer",
            replicas: i32::from(group_size),
            image: &server.image,
            pull_policy: &server.image_pull_policy,
            requests: &server.requests,
            limits: &server.limits,
            node_selector: &server.node_selector,
            tolerations: &server.tolerations,
            pod: &server.pod,
            config: Some((File::Redis, &server.config)),
        };
        let proxy_component = Raw {
            field: "spec.codisProxy",
            replicas: proxy.replicas,
            image: &proxy.image,
            pull_policy: &proxy.image_pull_policy,
            requests: &proxy.requests,
            limits: &proxy.limits,
            node_selector: &proxy.node_selector,
            tolerations: &proxy.tolerations,
            pod: &proxy.pod,
            config: Some((File::Proxy, &proxy.config)),
        };
        let dashboard_component = Raw {
            field: "spec.codisDashboard",
            replicas: 1,
            image: &dashboard.image,
            pull_policy: &dashboard.image_pull_policy,
            requests: &dashboard.requests,
            limits: &dashboard.limits,
            node_selector: &dashboard.node_selector,
            tolerations: &dashboard.tolerations,
            pod: &dashboard.pod,
            config: Some((File::Dashboard, &dashboard.config)),
        };
        let proxy_parsed = proxy_component.parse(scheduler, errors);
        Self {
            volume: volume(
                "spec.codisServer",
                &server.storage_class_name,
                &server.requests,
                &server.limits,
                errors,
            ),
            server: server_component.parse(scheduler, errors),
            proxy_sizing: ProxySizing::of(&proxy_parsed),
            proxy: proxy_parsed,
            proxy_service: service(
                "spec.codisProxy",
                &proxy.service_type,
                &proxy.service_annotations,
                errors,
            ),
            dashboard: dashboard_component.parse(scheduler, errors),
            fe: fe(spec, errors),
            sentinel: sentinel(spec, errors),
        }
    }
}

fn fe(spec: &CodisClusterSpec, errors: &mut Errors) -> Option<(Component, Service)> {
    let fe = spec.codis_fe.as_ref()?;
    let raw = Raw {
        field: "spec.codisFe",
        replicas: fe.replicas,
        image: &fe.image,
        pull_policy: &fe.image_pull_policy,
        requests: &fe.requests,
        limits: &fe.limits,
        node_selector: &fe.node_selector,
        tolerations: &fe.tolerations,
        pod: &fe.pod,
        config: None,
    };
    let service = service("spec.codisFe", &fe.service_type, &fe.service_annotations, errors);
    Some((raw.parse(spec.scheduler_name.as_ref(), errors), service))
}

fn sentinel(spec: &CodisClusterSpec, errors: &mut Errors) -> Option<Component> {
    let sentinel = spec.sentinel.as_ref().filter(|sentinel| sentinel.replicas != 0)?;
    let raw = Raw {
        field: "spec.sentinel",
        replicas: sentinel.replicas,
        image: &sentinel.image,
        pull_policy: &sentinel.image_pull_policy,
        requests: &sentinel.requests,
        limits: &sentinel.limits,
        node_selector: &sentinel.node_selector,
        tolerations: &sentinel.tolerations,
        pod: &sentinel.pod,
        config: Some((File::Sentinel, &sentinel.config)),
    };
    Some(raw.parse(spec.scheduler_name.as_ref(), errors))
}

/// The fields of a component as they were written.
struct Raw<'a> {
    field: &'static str,
    replicas: i32,
    image: &'a str,
    pull_policy: &'a Option<String>,
    requests: &'a Option<Resources>,
    limits: &'a Option<Resources>,
    node_selector: &'a Option<BTreeMap<String, String>>,
    tolerations: &'a Option<Vec<Toleration>>,
    pod: &'a Option<PodOptions>,
    config: Option<(File, &'a Option<ConfigOverrides>)>,
}

impl Raw<'_> {
    fn parse(&self, scheduler: Option<&String>, errors: &mut Errors) -> Component {
        let field = self.field;
        if self.image.trim().is_empty() {
            errors.add(&format!("{field}.image"), "must name a container image");
        }
        let pull_policy = self.pull_policy.clone().unwrap_or_else(|| "IfNotPresent".to_owned());
        if !["Always", "IfNotPresent", "Never"].contains(&pull_policy.as_str()) {
            errors.add(
                &format!("{field}.imagePullPolicy"),
                "must be Always, IfNotPresent or Never",
            );
        }
        let replicas = errors.take(
            u16::try_from(self.replicas)
                .map_err(|_| Invalid::new(format!("{field}.replicas"), "must be between 0 and 65535")),
        );
        let limit = |name: &str, quantity: fn(&Resources) -> Option<&Quantity>| {
            let value = self.limits.as_ref().and_then(quantity)?;
            Some((format!("{field}.limits.{name}"), value.units()))
        };
        let cpus = limit("cpu", |r| r.cpu.as_ref()).and_then(|(_, units)| u16::try_from(units.ok()?).ok());
        let memory = limit("memory", |r| r.memory.as_ref()).and_then(|(_, units)| u64::try_from(units.ok()?).ok());
        Component {
            replicas,
            image: self.image.to_owned(),
            pull_policy,
            resources: self.resources(errors),
            cpus: cpus.map(|cpus| cpus.max(1)),
            memory,
            placement: Placement {
                scheduler: scheduler.cloned(),
                node_selector: self.node_selector.clone(),
                tolerations: self.tolerations.clone(),
            },
            pod: Pod::of(field, self.pod.as_ref(), errors),
            config: self.config.map_or_else(Settings::new, |(file, given)| {
                overrides::settings(field, file, given.as_ref(), errors)
            }),
        }
    }

    /// CPU and memory only: storage is no container resource.
    fn resources(&self, errors: &mut Errors) -> ResourceRequirements {
        for (name, quantity) in [
            ("cpu", (|r| r.cpu.as_ref()) as fn(&Resources) -> Option<&Quantity>),
            ("memory", |r| r.memory.as_ref()),
        ] {
            let amount = |kind: &str, of: &Option<Resources>, errors: &mut Errors| {
                let value = of.as_ref().and_then(quantity)?;
                let field = format!("{}.{kind}.{name}", self.field);
                Some(errors.take(value.milli().map_err(|error| Invalid::new(field, error.to_string()))))
            };
            let request = amount("requests", self.requests, errors);
            let limit = amount("limits", self.limits, errors);
            if let (Some(request), Some(limit)) = (request, limit)
                && request > limit
            {
                errors.add(
                    &format!("{}.requests.{name}", self.field),
                    "must not be greater than the limit",
                );
            }
        }
        ResourceRequirements {
            requests: compute(self.requests),
            limits: compute(self.limits),
            ..Default::default()
        }
    }
}

fn compute(resources: &Option<Resources>) -> Option<BTreeMap<String, KubeQuantity>> {
    let resources = resources.as_ref()?;
    let amounts = [("cpu", &resources.cpu), ("memory", &resources.memory)];
    let given: BTreeMap<_, _> = amounts
        .into_iter()
        .filter_map(|(name, quantity)| Some((name.to_owned(), KubeQuantity(quantity.as_ref()?.0.clone()))))
        .collect();
    (!given.is_empty()).then_some(given)
}

fn volume(
    field: &str,
    class: &Option<String>,
    requests: &Option<Resources>,
    limits: &Option<Resources>,
    errors: &mut Errors,
) -> Option<Volume> {
    let size = requests.as_ref().and_then(|requests| requests.storage.as_ref());
    for (kind, quantity) in [
        ("requests", size),
        ("limits", limits.as_ref().and_then(|limits| limits.storage.as_ref())),
    ] {
        if let Some(quantity) = quantity {
            let field = format!("{field}.{kind}.storage");
            match quantity.units() {
                Ok(bytes) if bytes > 0 => {}
                Ok(_) => errors.add(&field, "must be more than 0"),
                Err(error) => errors.add(&field, error.to_string()),
            }
        }
    }
    if size.is_none() && class.is_none() {
        return None;
    }
    let size = size.map_or_else(|| DEFAULT_VOLUME.to_owned(), |quantity| quantity.0.clone());
    Some(Volume {
        class: class.clone().filter(|class| !class.is_empty()),
        size,
    })
}

fn service(
    field: &str,
    kind: &Option<String>,
    annotations: &Option<BTreeMap<String, String>>,
    errors: &mut Errors,
) -> Service {
    let kind = kind.clone().unwrap_or_else(|| "ClusterIP".to_owned());
    if !["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind.as_str()) {
        errors.add(
            &format!("{field}.serviceType"),
            "must be ClusterIP, NodePort or LoadBalancer",
        );
    }
    Service {
        kind,
        annotations: annotations.clone().unwrap_or_default(),
    }
}
