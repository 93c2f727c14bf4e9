//! Which product on which coordinator a CodisCluster means: enough of a spec to tell whether two mean the same one.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::{Coordinator, coordinator};
use crate::{api::CodisCluster, domain::Address};

/// A product on a coordinator that others can use, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedProduct {
    kind: &'static str,
    addresses: BTreeSet<Address>,
    product: String,
}

impl SharedProduct {
    /// What a CodisCluster means; none on a filesystem, which is its own, and where the spec makes no sense.
    #[must_use]
    pub fn of(cluster: &CodisCluster) -> Option<Self> {
        let (spec, namespace) = (&cluster.spec, cluster.namespace().unwrap_or_default());
        let (kind, addresses) = match coordinator("spec", &spec.coordinator_name, &spec.coordinator_addr).ok()? {
            Coordinator::Filesystem => return None,
            Coordinator::Etcd(addresses) => ("etcd", addresses),
            Coordinator::Zookeeper(addresses) => ("zookeeper", addresses),
        };
        Some(Self {
            kind,
            addresses: addresses.iter().map(|address| normal(address, &namespace)).collect(),
            product: spec.product_name.clone().unwrap_or_else(|| cluster.name_any()),
        })
    }

    /// Whether two are one and the same, as far as their addresses tell. That of two addresses one is an alias of the
    /// other is for the dashboards to find out, by the lock.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.product == other.product && !self.addresses.is_disjoint(&other.addresses)
    }
}

/// An address as it is meant in a pod of this namespace: names of Services in the form `service.namespace`.
fn normal(address: &Address, namespace: &str) -> Address {
    let host = address.host().to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    let short = host
        .strip_suffix(".svc.cluster.local")
        .or_else(|| host.strip_suffix(".svc"));
    let name = short.unwrap_or(host);
    let is_in_namespace = short.is_none() && (!name.contains('.') || is_pod(name)) && name != "localhost";
    let name = if is_in_namespace {
        format!("{name}.{namespace}")
    } else {
        name.to_owned()
    };
    Address::new(name, address.port())
}

/// Whether a name is `pod-0.service`, which is looked up in one's own namespace.
fn is_pod(name: &str) -> bool {
    let Some((pod, service)) = name.split_once('.') else {
        return false;
    };
    let ordinal = pod.rsplit_once('-').map(|(_, ordinal)| ordinal);
    !service.contains('.') && ordinal.is_some_and(|ordinal| ordinal.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster `name` in `namespace` on a coordinator; with a product of another name if one is given.
    fn shared(key: &str, kind: &str, addr: &str, product: Option<&str>) -> Option<SharedProduct> {
        let (namespace, name) = key.split_once('/').unwrap();
        let mut json = serde_json::json!({
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster",
            "metadata": { "name": name, "namespace": namespace, "uid": "u" },
            "spec": {
                "coordinatorName": kind, "coordinatorAddr": addr,
                "codisProxy": { "image": "codis", "replicas": 1 },
                "codisServer": { "image": "codis", "replicas": 2, "groupReplicas": 2 },
                "codisDashboard": { "image": "codis" },
            }
        });
        if let Some(product) = product {
            json["spec"]["productName"] = product.into();
        }
        SharedProduct::of(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn one_product_on_one_coordinator_is_found_under_every_way_to_write_it() {
        let one = shared("a/cache", "etcd", "etcd:2379", None).unwrap();
        for (key, kind, addr, product) in [
            ("a/cache", "etcd", "http://ETCD.a.svc:2379", None),
            ("b/cache", "etcd", "etcd.a.svc.cluster.local.:2379", None),
            ("b/other", "etcd", "other:2379,etcd.a:2379", Some("cache")),
        ] {
            let other = shared(key, kind, addr, product).unwrap();
            assert!(one.is_same(&other) && other.is_same(&one), "{key} {addr}");
        }
        let (one, other) = ("zk-0.zk:2181,zk-1.zk:2181", "zk-1.zk.a.svc:2181");
        let one = shared("a/c", "zookeeper", one, None).unwrap();
        assert!(one.is_same(&shared("b/c", "zk", other, None).unwrap()));
    }

    #[test]
    fn another_product_or_another_coordinator_is_no_collision() {
        let one = shared("a/cache", "etcd", "etcd:2379", None).unwrap();
        for (key, kind, addr, product) in [
            ("a/other", "etcd", "etcd:2379", None),
            ("b/cache", "etcd", "etcd:2379", None),
            ("a/cache", "etcd", "etcd:2380", None),
            ("a/cache", "zookeeper", "etcd:2379", None),
            ("a/cache", "etcd", "etcd:2379", Some("other")),
        ] {
            assert!(!one.is_same(&shared(key, kind, addr, product).unwrap()), "{key} {addr}");
        }
        let pods = |key| shared(key, "etcd", "etcd-0.etcd:2379", None).unwrap();
        assert!(
            !pods("a/cache").is_same(&pods("b/cache")),
            "each namespace has its own etcd"
        );
    }

    #[test]
    fn a_filesystem_is_never_shared_and_a_senseless_spec_means_nothing() {
        assert_eq!(shared("a/c", "filesystem", "builtin", None), None);
        assert_eq!(shared("a/c", "etcd", "nowhere", None), None);
        assert_eq!(shared("a/c", "consul", "consul:8500", None), None);
    }
}
