//! What the operator sees of it: as `observe` in the controller.

use std::collections::{BTreeMap, BTreeSet};

use super::life::{Life, Process, Proxy, Sentinel, group_of, ordinal_of, server};
use crate::{
    domain::{
        Address, DashboardView, Evidence, GroupId, MemberPod, Memory, NodeView, Observed, ProxyPod, Replication,
        SentinelMaster, SentinelView, ServerView, SlotId,
    },
    plan::Desired,
};

impl Life {
    pub(super) fn desired(&self, changed: bool) -> Desired<'_> {
        let hosts = self.processes.keys().chain(&self.addresses.sentinels);
        Desired {
            cluster: &self.cluster,
            addresses: &self.addresses,
            former: self.former(),
            known_hosts: hosts.map(|address| address.host().to_owned()).collect(),
            persistent: self.cluster.group_ids().filter(|_| self.persistent).collect(),
            has_password: true,
            now: "2026-11-23T12:00:00Z".parse().unwrap(),
            stopped: changed.then(|| "a change was just applied".to_owned()),
            promotion: None,
            allow_stand_in: false,
        }
    }

    fn former(&self) -> BTreeMap<String, String> {
        let of = |((group, ordinal), taken): (&(GroupId, u16), &u16)| {
            let (pod, group, ordinal) = (self.cluster.names.server_pod(*group, *ordinal), *group, *ordinal);
            (0..*taken).map(move |taken| (server(group, ordinal, taken).host().to_owned(), pod.clone()))
        };
        self.taken.iter().flat_map(of).collect()
    }

    pub(super) fn observe(&self) -> Observed {
        let all = self.addresses.servers.values().chain(self.addresses.leaving.values());
        let asked: Vec<&Address> = all.flatten().collect();
        let servers: BTreeMap<Address, ServerView> = asked.iter().map(|a| ((*a).clone(), self.view(a))).collect();
        let silent = self
            .processes
            .iter()
            .filter(|(_, process)| process.pod && process.out > 0);
        let dashboard = match self.away {
            0 => DashboardView::Online {
                version: "3.2.2".into(),
                topology: Box::new(self.topology.clone()),
            },
            _ => DashboardView::Unavailable("it is away".into()),
        };
        Observed {
            dashboard,
            evidence: self.evidence(&servers),
            servers,
            sentinels: self
                .sentinels
                .iter()
                .map(|(a, s)| (a.clone(), self.sentinel_view(s)))
                .collect(),
            server_pods: asked.iter().filter_map(|address| self.pod(address)).collect(),
            nodes: (0..3).map(|n| (format!("node-{n}"), NodeView::default())).collect(),
            intent: self.intent.clone(),
            failed_moves: self.failed_moves.clone(),
            proxy_pods: self.proxies.iter().map(proxy_pod).collect(),
            balanced: self.status.balanced.clone(),
            bootstrapped: self.gates.clone(),
            down_for: silent
                .map(|(address, process)| (address.clone(), process.silent_for))
                .collect(),
            dump: self.dump.clone().map(Ok),
            ..Observed::default()
        }
    }

    pub(super) fn view(&self, address: &Address) -> ServerView {
        let process = &self.processes[address];
        if !process.answers() {
            return ServerView::Unreachable("connection refused".into());
        }
        let replication = match &process.follows {
            None => Replication::Master,
            Some(master) => Replication::Replica {
                master: master.clone(),
                link_up: process.link,
            },
        };
        ServerView::Up {
            replication,
            offset: process.offset,
            keys: process.keys.len() as u64,
            uptime: 1000,
            link_down_for: process.link_down_for.filter(|_| !process.link),
            replicas: self
                .replicas_of(address)
                .filter_map(|(_, replica)| replica.announced.clone())
                .collect(),
            memory: Memory::default(),
            fenced: false,
        }
    }

    /// Those that are in touch with a server.
    fn replicas_of<'a>(&'a self, master: &'a Address) -> impl Iterator<Item = (&'a Address, &'a Process)> {
        let all = self.processes.iter();
        all.filter(move |(_, process)| process.link && process.answers() && process.follows.as_ref() == Some(master))
    }

    pub(super) fn pod(&self, address: &Address) -> Option<(Address, MemberPod)> {
        let process = self.processes.get(address).filter(|process| process.pod)?;
        let (group, ordinal) = (group_of(address), ordinal_of(address));
        let name = format!("c-g{group}-{ordinal}");
        let pod = MemberPod {
            uid: format!("uid-{name}"),
            name,
            node: Some(format!("node-{}", (group.get() + ordinal) % 3)),
            ready: process.out == 0,
            unready_for: (process.out > 0).then_some(process.silent_for),
            ..MemberPod::default()
        };
        Some((address.clone(), pod))
    }

    pub(super) fn sentinel_view(&self, sentinel: &Sentinel) -> Result<SentinelView, String> {
        if sentinel.out > 0 {
            return Err("timed out".into());
        }
        let silence = |address: &Address| match &self.processes[address] {
            process if process.answers() => 500,
            process => process.silent_for * 1000 + 500,
        };
        let known = |(id, master): (&GroupId, &Address)| {
            let replicas = self
                .processes
                .values()
                .filter(|process| process.answers() && process.follows.as_ref() == Some(master));
            let announced = replicas.filter_map(|replica| replica.announced.as_ref());
            let replica_silence: BTreeMap<Address, u64> = announced.map(|at| (at.clone(), silence(at))).collect();
            let view = SentinelMaster {
                address: master.clone(),
                replicas: u32::try_from(replica_silence.len()).unwrap(),
                other_sentinels: u32::try_from(self.sentinels.len() - 1).unwrap(),
                flags: if silence(master) > 1000 {
                    "s_down,master"
                } else {
                    "master"
                }
                .into(),
                silent_ms: silence(master),
                replica_silence,
            };
            (format!("c-{id}"), view)
        };
        Ok(SentinelView {
            masters: sentinel.watches.iter().map(known).collect(),
            in_tilt: false,
        })
    }

    /// As `dump::evidence` in the controller.
    pub(super) fn evidence(&self, servers: &BTreeMap<Address, ServerView>) -> Evidence {
        if self.away > 0 || self.dump.is_none() || self.is_whole() {
            return Evidence::default();
        }
        let slots = |process: &Process| {
            let ids = process.keys.keys().map(|slot| SlotId::try_from(*slot as u64).unwrap());
            ids.collect::<BTreeSet<_>>()
        };
        let masters = servers.keys().map(|address| (address, &self.processes[address]));
        let masters = masters.filter(|(_, process)| process.is_master() && !process.keys.is_empty());
        Evidence {
            tables: self
                .proxies
                .iter()
                .map(|proxy| (proxy.admin.clone(), Ok(proxy.table.clone())))
                .collect(),
            keys: masters
                .map(|(address, process)| (address.clone(), Ok(slots(process))))
                .collect(),
        }
    }
}

fn proxy_pod(proxy: &Proxy) -> ProxyPod {
    ProxyPod {
        uid: format!("uid-{}", proxy.token),
        name: proxy.token.clone(),
        ip: Some(proxy.admin.host().to_owned()),
        ready: true,
        ending: false,
        running_for: Some(100),
        inherited: false,
    }
}
