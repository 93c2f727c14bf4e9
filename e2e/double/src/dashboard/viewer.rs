//! How near servers are to a proxy (§6.5).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;

use super::state::State;
use crate::redis::resolve;
use crate::wire::Proxy;

/// How long a name may take to resolve (§6.5).
const PATIENCE: Duration = Duration::from_millis(50);

/// A proxy that is told of slots.
#[derive(Debug, Default, PartialEq)]
pub struct Viewer {
    /// `proxy_datacenter`.
    pub datacenter: String,
    /// Servers with its IP.
    pub beside: BTreeSet<String>,
}

impl Viewer {
    /// Looks up where a proxy is and where the servers are that it may read from.
    pub async fn of(state: &State, proxy: &Proxy) -> Self {
        let servers = state.groups.values().flat_map(|group| &group.servers);
        let near = servers.filter(|server| server.replica_group && server.datacenter == proxy.datacenter);
        let near: Vec<&str> = near.map(|server| server.addr.as_str()).collect();
        let mut viewer = Self {
            datacenter: proxy.datacenter.clone(),
            beside: BTreeSet::new(),
        };
        if !near.is_empty()
            && let Some(ip) = locate(&proxy.admin_addr).await
        {
            let ips = join_all(near.iter().map(|addr| locate(addr))).await;
            let beside = near.into_iter().zip(ips).filter(|(_, located)| *located == Some(ip));
            viewer.beside = beside.map(|(addr, _)| addr.to_string()).collect();
        }
        viewer
    }
}

async fn locate(addr: &str) -> Option<IpAddr> {
    let resolved = tokio::time::timeout(PATIENCE, resolve(addr)).await;
    Some(resolved.ok()?.ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Group, GroupServer};

    #[tokio::test]
    async fn names_are_resolved_and_only_servers_that_serve_reads_count() {
        let server = |addr: &str, datacenter: &str, replica_group| GroupServer {
            addr: addr.into(),
            datacenter: datacenter.into(),
            replica_group,
            ..Default::default()
        };
        let group = Group {
            id: 1,
            servers: vec![
                server("localhost:1", "a", true),
                server("127.0.0.1:2", "b", true),
                server("127.0.0.1:3", "a", false),
                server("127.0.0.2:4", "a", true),
                server("no.such.host.invalid:5", "a", true),
            ],
            ..Default::default()
        };
        let state = State {
            groups: [(1, group)].into(),
            ..Default::default()
        };
        let proxy = Proxy {
            admin_addr: "127.0.0.1:9".into(),
            datacenter: "a".into(),
            ..Default::default()
        };
        let viewer = Viewer::of(&state, &proxy).await;
        assert_eq!(viewer.beside, BTreeSet::from(["localhost:1".to_string()]));
    }
}
