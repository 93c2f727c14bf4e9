//! Services to EndpointSlices, and to where their addresses lead.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde_json::{Value, json};

use super::{
    Kubernetes,
    cache::Pod,
    object::{Name, controller_of, has_all, list, text},
};

impl Kubernetes {
    pub(super) fn sync_endpoints(&mut self, services: &BTreeSet<Name>) {
        for name in services {
            match self.cache.get("Service", &name.0, &name.1).cloned() {
                Some(service) if service["spec"]["selector"].is_object() => self.sync_service(name, &service),
                // Its slice goes with it.
                _ => drop(self.routes.remove(name)),
            }
        }
    }

    fn sync_service(&mut self, name: &Name, service: &Value) {
        let selector = &service["spec"]["selector"];
        let near = self
            .cache
            .pods
            .values()
            .filter(|pod| pod.name.0 == name.0 && has_all(selector, pod.labels()));
        let pods: Vec<Pod> = near
            .filter(|pod| !pod.ip.is_empty() && !pod.is_over())
            .cloned()
            .collect();
        let is_published = service["spec"]["publishNotReadyAddresses"] == true;
        let serves = |pod: &Pod| is_published || (pod.is_ready && !pod.is_going);
        let routes = pods.iter().filter(|pod| serves(pod));
        let port = &service["spec"]["ports"][0];
        let routes = routes.filter_map(|pod| {
            Some((
                pod.ip.parse::<Ipv4Addr>().ok()?,
                port_of(&pod.raw, &port["targetPort"])?,
            ))
        });
        self.routes.insert(name.clone(), routes.collect());
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|pod| endpoint(pod, serves(pod), is_published))
            .collect();
        let ports = list(service, "/spec/ports").iter();
        let ports: Vec<Value> = ports
            .map(|port| {
                let target = pods.first().and_then(|pod| port_of(&pod.raw, &port["targetPort"]));
                json!({"name": text(port, "/name"), "port": target, "protocol": "TCP"})
            })
            .collect();
        self.write_slice(service, json!(endpoints), json!(ports));
    }

    fn write_slice(&mut self, service: &Value, endpoints: Value, ports: Value) {
        let (namespace, name) = (text(service, "/metadata/namespace"), text(service, "/metadata/name"));
        let slice = format!("{name}-slice");
        if let Some(known) = self.api.find("EndpointSlice", namespace, &slice) {
            if known["endpoints"] != endpoints || known["ports"] != ports {
                let mut new = Value::clone(&known);
                (new["endpoints"], new["ports"]) = (endpoints, ports);
                self.api.replace(new);
            }
            return;
        }
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": slice, "namespace": namespace, "ownerReferences": [controller_of(service)],
                "labels": {
                    "kubernetes.io/service-name": name,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
            },
        });
        if let Some(mut made) = self.api.make("EndpointSlice", slice) {
            (made["endpoints"], made["ports"]) = (endpoints, ports);
            self.api.replace(made);
        }
    }

    /// Where a ClusterIP's port leads: ready pods and their ports.
    #[must_use]
    pub fn behind(&self, address: Ipv4Addr, port: u16) -> Vec<(Ipv4Addr, u16)> {
        let address = address.to_string();
        let mut services = self.cache.all("Service").iter();
        let found = services.find(|(_, service)| text(service, "/spec/clusterIP") == address);
        let Some((name, service)) = found else {
            return Vec::new();
        };
        let mut ports = list(service, "/spec/ports").iter();
        let Some(wished) = ports.find(|known| known["port"] == port) else {
            return Vec::new();
        };
        let target = |ip: Ipv4Addr| {
            let pod = self.cache.pods.values().find(|pod| pod.ip == ip.to_string());
            Some((ip, port_of(&pod?.raw, &wished["targetPort"])?))
        };
        let routes = self.routes.get(name).into_iter().flatten();
        routes.filter_map(|(ip, _)| target(*ip)).collect()
    }
}

/// The number of a port that may be a container port's name.
pub(super) fn port_of(pod: &Value, target: &Value) -> Option<u16> {
    if let Some(number) = target.as_u64() {
        return number.try_into().ok();
    }
    let mut ports = list(pod, "/spec/containers")
        .iter()
        .flat_map(|container| list(container, "/ports"));
    let port = ports.find(|port| port["name"] == *target)?;
    port["containerPort"].as_u64()?.try_into().ok()
}

fn endpoint(pod: &Pod, is_ready: bool, is_published: bool) -> Value {
    let mut endpoint = json!({
        "addresses": [pod.ip],
        "conditions": {"ready": is_ready, "serving": is_published || pod.is_ready, "terminating": pod.is_going},
        "nodeName": pod.node,
        "targetRef": {"kind": "Pod", "namespace": pod.name.0, "name": pod.name.1, "uid": pod.uid},
    });
    if let Some(zone) = pod.labels().get("topology.kubernetes.io/zone") {
        endpoint["zone"] = zone.clone();
    }
    if let Some(hostname) = pod.raw["spec"].get("hostname") {
        endpoint["hostname"] = hostname.clone();
    }
    endpoint
}
