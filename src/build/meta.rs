//! Names, labels and owner of every object.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::Resource;

use crate::{
    api::{CodisCluster, names as labels},
    domain::GroupId,
    validate::{Names, ValidCluster},
};

/// The name of a data volume and of its claim template.
pub const DATA_CLAIM: &str = "data";

/// A kind of process, as its label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The dashboard.
    Dashboard,
    /// The proxies.
    Proxy,
    /// The web front end.
    Fe,
    /// The sentinels.
    Sentinel,
    /// The servers of one group.
    Server(GroupId),
}

impl Component {
    /// The label's value, also the name of the container.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dashboard => "dashboard",
            Self::Proxy => "proxy",
            Self::Fe => "fe",
            Self::Sentinel => "sentinel",
            Self::Server(_) => "server",
        }
    }
}

/// The labels that selectors use: no others, since selectors are immutable.
pub(super) fn selector_labels(names: &Names, component: Component) -> BTreeMap<String, String> {
    let mut selector = BTreeMap::from([
        (labels::LABEL_CLUSTER.to_owned(), names.cluster.clone()),
        (labels::LABEL_COMPONENT.to_owned(), component.name().to_owned()),
    ]);
    if let Component::Server(group) = component {
        selector.insert(labels::LABEL_GROUP.to_owned(), group.to_string());
    }
    selector
}

pub(super) fn selector(names: &Names, component: Component) -> LabelSelector {
    LabelSelector {
        match_labels: Some(selector_labels(names, component)),
        ..Default::default()
    }
}

/// The metadata of an object of a component.
pub(super) fn object(cluster: &ValidCluster, name: String, component: Component) -> ObjectMeta {
    with_labels(&cluster.names, name, selector_labels(&cluster.names, component))
}

/// The metadata of an object of the whole cluster.
pub(super) fn shared_object(names: &Names, name: String) -> ObjectMeta {
    with_labels(
        names,
        name,
        BTreeMap::from([(labels::LABEL_CLUSTER.to_owned(), names.cluster.clone())]),
    )
}

fn with_labels(names: &Names, name: String, mut all: BTreeMap<String, String>) -> ObjectMeta {
    all.insert("app.kubernetes.io/name".to_owned(), "codis".to_owned());
    all.insert("app.kubernetes.io/instance".to_owned(), names.cluster.clone());
    all.insert(
        "app.kubernetes.io/managed-by".to_owned(),
        labels::FIELD_MANAGER.to_owned(),
    );
    ObjectMeta {
        name: Some(name),
        namespace: Some(names.namespace.clone()),
        labels: Some(all),
        owner_references: Some(vec![owner(names)]),
        ..Default::default()
    }
}

/// The mark of what is ours, by which it is collected after its cluster.
fn owner(names: &Names) -> OwnerReference {
    OwnerReference {
        api_version: CodisCluster::api_version(&()).into_owned(),
        kind: CodisCluster::kind(&()).into_owned(),
        name: names.cluster.clone(),
        uid: names.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
