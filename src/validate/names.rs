//! The names of all that belongs to a cluster. They can't change later (design, "Names").

use kube::ResourceExt;

use super::Invalid;
use crate::{api::CodisCluster, domain::GroupId};

/// A cluster's identity and the names made from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The CodisCluster's name.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
}

impl Names {
    pub(super) fn of(cluster: &CodisCluster) -> Result<Self, Invalid> {
        let name = cluster.name_any();
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        let ends = name.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inside = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if name.len() > 40 || !(starts && ends && inside) {
            return Err(Invalid::new(
                "metadata.name",
                format!("{name:?} must be a DNS label that starts with a letter, of at most 40 characters"),
            ));
        }
        Ok(Self {
            cluster: name,
            namespace: cluster.namespace().unwrap_or_default(),
            uid: cluster.uid().unwrap_or_default(),
        })
    }

    /// Namespace and name.
    #[must_use]
    pub fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.cluster.clone())
    }
    /// The dashboard's StatefulSet and Service.
    #[must_use]
    pub fn dashboard(&self) -> String {
        format!("{}-dashboard", self.cluster)
    }
    /// The Service whose name the dashboard's lock has. `kubernetes` is a short word for the Kubernetes that it is in.
    #[must_use]
    pub fn dashboard_in(&self, kubernetes: &str) -> String {
        format!("{}-dashboard-{kubernetes}", self.cluster)
    }
    /// The proxies' Deployment and Service.
    #[must_use]
    pub fn proxy(&self) -> String {
        format!("{}-proxy", self.cluster)
    }
    /// The front end's Deployment and Service.
    #[must_use]
    pub fn fe(&self) -> String {
        format!("{}-fe", self.cluster)
    }
    /// The sentinels' StatefulSet and Service.
    #[must_use]
    pub fn sentinel(&self) -> String {
        format!("{}-sentinel", self.cluster)
    }
    /// A sentinel's pod and Service.
    #[must_use]
    pub fn sentinel_pod(&self, ordinal: u16) -> String {
        format!("{}-sentinel-{ordinal}", self.cluster)
    }
    /// A group's StatefulSet and Service.
    #[must_use]
    pub fn group(&self, group: GroupId) -> String {
        format!("{}-g{group}", self.cluster)
    }
    /// A server's pod and Service.
    #[must_use]
    pub fn server_pod(&self, group: GroupId, ordinal: u16) -> String {
        format!("{}-g{group}-{ordinal}", self.cluster)
    }
    /// The Secret with config files, scripts and passwords.
    #[must_use]
    pub fn config(&self) -> String {
        config_secret(&self.cluster)
    }
    /// The ConfigMap with the dump of the topology.
    #[must_use]
    pub fn topology(&self) -> String {
        format!("{}-topology", self.cluster)
    }
    /// The Secret that applications read to connect.
    #[must_use]
    pub fn connection(&self) -> String {
        format!("{}-connection", self.cluster)
    }
}

/// The name of the Secret with a cluster's config files, scripts and passwords.
#[must_use]
pub fn config_secret(cluster: &str) -> String {
    format!("{cluster}-config")
}
