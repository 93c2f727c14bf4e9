//! What names and virtual addresses lead to in a simulated Kubernetes: its DNS and its kube-proxy.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    api::ApiServer,
    fabric::{Resolver, Route},
    kube::Kubernetes,
};

/// The Services of a world, as the network needs them.
pub(super) struct Services {
    api: ApiServer,
    kubernetes: Arc<Mutex<Option<Kubernetes>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_address: BTreeMap<Ipv4Addr, (String, String)>,
    turn: usize,
}

impl Services {
    /// What the network asks.
    pub(super) fn resolver(api: ApiServer, kubernetes: Arc<Mutex<Option<Kubernetes>>>) -> Box<Resolver> {
        let services = Self {
            api,
            kubernetes,
            state: Mutex::default(),
        };
        Box::new(move |host, port| services.route(host, port))
    }

    fn route(&self, host: &str, port: u16) -> Option<Route> {
        let service = match host.parse::<Ipv4Addr>() {
            Ok(ip) => self.by_address(ip)?,
            Err(_) => self.by_name(host)?,
        };
        let kubernetes = self.kubernetes.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = kubernetes.as_ref()?.endpoints(&service.0, &service.1);
        if ready.is_empty() {
            return Some(Route::Nobody);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.turn = state.turn.wrapping_add(1);
        // Ports of our Services are those of their pods.
        let (ip, _) = ready[state.turn % ready.len()];
        Some(Route::To(ip, port))
    }

    /// `service.namespace.svc…`, or the name alone in the one namespace.
    fn by_name(&self, host: &str) -> Option<(String, String)> {
        let mut parts = host.split('.');
        let name = parts.next()?;
        let namespace = parts.next().unwrap_or("default");
        self.api.find("Service", namespace, name)?;
        Some((namespace.to_owned(), name.to_owned()))
    }

    fn by_address(&self, ip: Ipv4Addr) -> Option<(String, String)> {
        // The Services' range; pods have theirs.
        if ip.octets()[0] != 10 || ip.octets()[1] < 96 || ip.octets()[1] > 111 {
            return None;
        }
        let text = ip.to_string();
        let has_it = |(namespace, name): &(String, String)| {
            let found = self.api.find("Service", namespace, name);
            found.is_some_and(|service| service["spec"]["clusterIP"] == text.as_str())
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = state.by_address.get(&ip).filter(|known| has_it(known)) {
            return Some(known.clone());
        }
        let all = self.api.of_kind("Service");
        state.by_address = all
            .iter()
            .filter_map(|service| {
                let word = |path: &str| Some(service.pointer(path)?.as_str()?.to_owned());
                let ip = word("/spec/clusterIP")?.parse().ok()?;
                Some((ip, (word("/metadata/namespace")?, word("/metadata/name")?)))
            })
            .collect();
        state.by_address.get(&ip).cloned()
    }
}
