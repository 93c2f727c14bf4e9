//! What all pods have in common. They run under the `restricted` pod security standard.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy},
        core::v1::{
            Affinity, Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, ExecAction,
            HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, LocalObjectReference, ObjectFieldSelector,
            PersistentVolumeClaim, PersistentVolumeClaimSpec, PodAffinityTerm, PodAntiAffinity, PodSecurityContext,
            PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecretVolumeSource, SecurityContext, TCPSocketAction,
            TopologySpreadConstraint, Volume, VolumeMount, VolumeResourceRequirements, WeightedPodAffinityTerm,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{
    Facts,
    budgets::REPLICA,
    meta::{self, Component, DATA_CLAIM},
    restart,
};
use crate::api::names::ANNOTATION_CLUSTER_UID;
use crate::{
    api::names::{LABEL_GROUP, LABEL_ROLE},
    validate::{self, ValidCluster},
};

/// The user and group of every process: a fixed one, so that volumes stay readable.
const UID: i64 = 1000;
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Where the predecessor's images have Codis (contract §18).
const CODIS_PATH: &str = "/gopath/src/github.com/CodisLabs/codis";

/// What one kind of pod differs in.
pub(super) struct Pod<'a> {
    pub component: Component,
    pub spec: &'a validate::Component,
    /// The entry script, a key of the Secret.
    pub script: &'static str,
    /// The other keys of the Secret that it reads.
    pub files: &'a [&'static str],
    pub env: Vec<EnvVar>,
    pub ports: &'a [(&'static str, u16)],
    pub readiness: Probe,
    pub liveness: Option<Probe>,
    /// How it leaves, where it isn't told to stop at once.
    pub leaving: Option<Leaving>,
    /// Where data is, if anything is written.
    pub data: Data,
}

/// A script that a container runs before it is told to stop.
pub(super) struct Leaving {
    /// A key of the Secret.
    pub script: &'static str,
    pub arguments: Vec<String>,
    /// How long the script and the stop after it may take, in seconds.
    pub within: u16,
}

/// Where a pod keeps data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    None,
    /// A few files for as long as the pod lives, in memory: they may hold passwords, and Cluster Autoscaler doesn't
    /// remove nodes whose pods have an emptyDir on disk.
    Memory,
    EmptyDir,
    /// On the claim `data`.
    Claim,
}

impl Pod<'_> {
    pub(super) fn template(self, cluster: &ValidCluster, facts: &Facts) -> PodTemplateSpec {
        let (placement, wished) = (&self.spec.placement, &self.spec.pod);
        let mut labels = wished.labels.clone();
        labels.extend(meta::selector_labels(&cluster.names, self.component));
        if let Component::Server(_) = self.component {
            labels.insert(LABEL_ROLE.to_owned(), REPLICA.to_owned());
        }
        let mut annotations = wished.annotations.clone();
        if let Some(revision) = restart::revision(cluster, facts, self.component) {
            annotations.insert(restart::ANNOTATION_CONFIG.to_owned(), revision);
        }
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels),
                annotations: (!annotations.is_empty()).then_some(annotations),
                ..Default::default()
            }),
            spec: Some(PodSpec {
                affinity: Some(with_wished(
                    apart(cluster, facts, self.component),
                    wished.affinity.as_ref(),
                )),
                automount_service_account_token: Some(false),
                enable_service_links: Some(false),
                image_pull_secrets: pull_secrets(wished),
                node_selector: placement.node_selector.clone(),
                priority_class_name: wished.priority_class.clone(),
                service_account_name: wished.service_account.clone(),
                termination_grace_period_seconds: self.leaving.as_ref().map(|leaving| leaving.within.into()),
                topology_spread_constraints: spread(cluster, self.component, wished),
                scheduler_name: placement.scheduler.clone(),
                security_context: Some(pod_security()),
                tolerations: placement.tolerations.clone(),
                volumes: Some(self.volumes(cluster)),
                containers: vec![self.container()],
                ..Default::default()
            }),
        }
    }

    fn volumes(&self, cluster: &ValidCluster) -> Vec<Volume> {
        let files = self.files.iter().chain([&self.script]);
        let items = files
            .map(|key| KeyToPath {
                key: (*key).into(),
                path: (*key).into(),
                mode: None,
            })
            .collect();
        let mut volumes = vec![Volume {
            name: "config".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(cluster.names.config()),
                items: Some(items),
                default_mode: Some(0o440),
                optional: None,
            }),
            ..Default::default()
        }];
        let empty_dir = match self.data {
            Data::None | Data::Claim => None,
            Data::EmptyDir => Some(EmptyDirVolumeSource::default()),
            Data::Memory => Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity("1Mi".to_owned())),
            }),
        };
        volumes.extend(empty_dir.map(|empty_dir| Volume {
            name: DATA_CLAIM.to_owned(),
            empty_dir: Some(empty_dir),
            ..Default::default()
        }));
        volumes
    }

    fn container(self) -> Container {
        let mut mounts = vec![mount("config", "/etc/codis", true)];
        if self.data != Data::None {
            mounts.push(mount(DATA_CLAIM, "/data", false));
        }
        let mut env = vec![value("CODIS_PATH", CODIS_PATH)];
        env.extend(self.env);
        let ports = self.ports.iter().map(|(name, port)| ContainerPort {
            name: Some((*name).to_owned()),
            container_port: (*port).into(),
            protocol: Some("TCP".to_owned()),
            ..Default::default()
        });
        Container {
            name: self.component.name().to_owned(),
            image: Some(self.spec.image.clone()),
            image_pull_policy: Some(self.spec.pull_policy.clone()),
            command: Some(vec!["sh".to_owned(), format!("/etc/codis/{}", self.script)]),
            env: Some(env),
            ports: Some(ports.collect()),
            resources: Some(self.spec.resources.clone()),
            readiness_probe: Some(self.readiness),
            liveness_probe: self.liveness,
            lifecycle: self.leaving.map(before_stop),
            security_context: Some(container_security()),
            volume_mounts: Some(mounts),
            ..Default::default()
        }
    }
}

/// Keeps pods of one kind (servers: of one group) on different nodes where it can, or, for a group that was made where
/// there was room for that, always; and in different zones where it can.
fn apart(cluster: &ValidCluster, facts: &Facts, component: Component) -> Affinity {
    let term = |key: &str| PodAffinityTerm {
        label_selector: Some(meta::selector(&cluster.names, component)),
        topology_key: key.to_owned(),
        ..Default::default()
    };
    let preferred = |weight, key| WeightedPodAffinityTerm {
        weight,
        pod_affinity_term: term(key),
    };
    let is_strict = matches!(component, Component::Server(group) if facts.strict.contains(&group));
    let hosts = (!is_strict).then(|| preferred(100, HOSTNAME));
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(
                hosts.into_iter().chain([preferred(50, ZONE)]).collect(),
            ),
            required_during_scheduling_ignored_during_execution: is_strict.then(|| vec![term(HOSTNAME)]),
        }),
        ..Default::default()
    }
}

/// Whether a template keeps its pods on different nodes always: decided when its group was made.
pub(crate) fn is_strict(template: &PodTemplateSpec) -> bool {
    let affinity = template.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let anti = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let terms = anti.and_then(|anti| anti.required_during_scheduling_ignored_during_execution.as_deref());
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let is_ours = |term: &PodAffinityTerm| {
        let selector = term
            .label_selector
            .as_ref()
            .and_then(|selector| selector.match_labels.as_ref());
        let group = |labels: &BTreeMap<String, String>| labels.get(LABEL_GROUP).cloned();
        term.topology_key == HOSTNAME
            && selector.and_then(group).is_some()
            && selector.and_then(group) == labels.and_then(group)
    };
    terms.unwrap_or_default().iter().any(is_ours)
}

/// A person's affinity; what keeps pods apart is the operator's and theirs together.
fn with_wished(ours: Affinity, wished: Option<&Affinity>) -> Affinity {
    let Some(wished) = wished.cloned() else {
        return ours;
    };
    let own = ours.pod_anti_affinity.unwrap_or_default();
    let more = wished.pod_anti_affinity.unwrap_or_default();
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: both(
                own.preferred_during_scheduling_ignored_during_execution,
                more.preferred_during_scheduling_ignored_during_execution,
            ),
            required_during_scheduling_ignored_during_execution: both(
                own.required_during_scheduling_ignored_during_execution,
                more.required_during_scheduling_ignored_during_execution,
            ),
        }),
        ..wished
    }
}

fn both<T>(one: Option<Vec<T>>, other: Option<Vec<T>>) -> Option<Vec<T>> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.extend(other);
            Some(one)
        }
        (one, other) => one.or(other),
    }
}

fn pull_secrets(wished: &validate::Pod) -> Option<Vec<LocalObjectReference>> {
    let secrets = wished.pull_secrets.iter();
    let secrets: Vec<_> = secrets
        .map(|name| LocalObjectReference { name: name.clone() })
        .collect();
    (!secrets.is_empty()).then_some(secrets)
}

/// A constraint that selects nothing would do nothing: it is meant for the component's pods.
fn spread(
    cluster: &ValidCluster,
    component: Component,
    wished: &validate::Pod,
) -> Option<Vec<TopologySpreadConstraint>> {
    let constraints = wished.spread.iter().cloned();
    let constraints: Vec<_> = constraints
        .map(|mut constraint| {
            let own = || meta::selector(&cluster.names, component);
            constraint.label_selector.get_or_insert_with(own);
            constraint
        })
        .collect();
    (!constraints.is_empty()).then_some(constraints)
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(UID),
        run_as_group: Some(UID),
        fs_group: Some(UID),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..Default::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        ..Default::default()
    }
}

fn before_stop(leaving: Leaving) -> Lifecycle {
    let mut command = vec!["sh".to_owned(), format!("/etc/codis/{}", leaving.script)];
    command.extend(leaving.arguments);
    Lifecycle {
        pre_stop: Some(LifecycleHandler {
            exec: Some(ExecAction { command: Some(command) }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..Default::default()
    }
}

/// An environment variable with a fixed value.
pub(super) fn value(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.into()),
        value_from: None,
    }
}

/// An environment variable with a field of the pod.
pub(super) fn field(name: &str, path: &str) -> EnvVar {
    let field_ref = Some(ObjectFieldSelector {
        field_path: path.to_owned(),
        api_version: None,
    });
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref,
            ..Default::default()
        }),
    }
}

/// The name of the pod.
pub(super) fn pod_name() -> EnvVar {
    field("POD_NAME", "metadata.name")
}

/// Ready when the port is open.
pub(super) fn tcp(port: &str) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction {
            port: IntOrString::String(port.to_owned()),
            host: None,
        }),
        period_seconds: Some(5),
        timeout_seconds: Some(2),
        ..Default::default()
    }
}

/// Ready when a GET is answered with success.
pub(super) fn http(path: &str, port: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            ..Default::default()
        }),
        period_seconds: Some(5),
        timeout_seconds: Some(5),
        ..Default::default()
    }
}

/// Ready when a script says so.
pub(super) fn script(name: &str) -> Probe {
    Probe {
        exec: Some(ExecAction {
            command: Some(vec!["sh".to_owned(), format!("/etc/codis/{name}")]),
        }),
        period_seconds: Some(5),
        timeout_seconds: Some(5),
        ..Default::default()
    }
}

/// A StatefulSet whose pods start together and are replaced by the operator or by hand only (design, decision 2).
pub(super) fn stateful_set(
    cluster: &ValidCluster,
    facts: &Facts,
    name: String,
    replicas: u16,
    strategy: &str,
    claim: Option<&validate::Volume>,
    pod: Pod<'_>,
) -> StatefulSet {
    let component = pod.component;
    StatefulSet {
        metadata: meta::object(cluster, name.clone(), component),
        spec: Some(StatefulSetSpec {
            replicas: Some(replicas.into()),
            pod_management_policy: Some("Parallel".to_owned()),
            selector: meta::selector(&cluster.names, component),
            service_name: Some(name),
            template: pod.template(cluster, facts),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some(strategy.to_owned()),
                rolling_update: None,
            }),
            volume_claim_templates: claim.map(|volume| vec![claim_template(cluster, component, volume)]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Claims have no owner: data outlives its cluster.
fn claim_template(cluster: &ValidCluster, component: Component, volume: &validate::Volume) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(DATA_CLAIM.to_owned()),
            labels: Some(meta::selector_labels(&cluster.names, component)),
            // By it a later cluster of this name knows that the data isn't its own.
            annotations: Some([(ANNOTATION_CLUSTER_UID.to_owned(), cluster.names.uid.clone())].into()),
            ..Default::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(volume.size.clone()))].into()),
                limits: None,
            }),
            storage_class_name: volume.class.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
