//! What the predecessor (tangcong/codis-operator) made for a cluster, as far as it matters to its being taken over.

use std::fmt;

/// A part of it that is still there, in the order in which they are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The StatefulSet of its sentinels and their Service.
    Sentinels,
    /// The StatefulSet of its servers, those of all groups, and their Service.
    Servers,
    /// The StatefulSet of its dashboard and its Service.
    Dashboard,
    /// The Deployment of its proxies, and what scales it.
    Proxies,
    /// The Deployment of its front end.
    Fe,
    /// The Service that clients connect to, while it leads to its proxies.
    ProxyService,
    /// The Service of the front end, while it leads to its.
    FeService,
    /// Its proxies' pods, once nothing makes new ones.
    ProxyPods,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sentinels => "sentinels",
            Self::Servers => "servers",
            Self::Dashboard => "dashboard",
            Self::Proxies => "Deployment of proxies",
            Self::Fe => "front end",
            Self::ProxyService => "proxies' Service",
            Self::FeService => "front end's Service",
            Self::ProxyPods => "proxies",
        })
    }
}
