//! A cluster in which everything is in its place; tests change what they are about.

mod bootstrap;
mod claim;
mod drain;
mod gate;
mod heal;
mod moves;
mod proxies;
mod readdress;
mod reads;
mod restore;
mod roll;
mod sentinels;
mod slots;
mod spread;
mod takeover;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    build::Addresses,
    domain::{
        ActionState, Address, Group, GroupId, MemberPod, Memory, ProxyPod, ProxyRecord, Replication, SentinelMaster,
        SentinelView, Server, ServerView, SlotId, SlotMapping, Topology, even_layout,
    },
    validate::ValidCluster,
};

/// Two groups of two servers, three sentinels, two proxies; everything in its place. Tests change what they are about.
struct World {
    cluster: ValidCluster,
    addresses: Addresses,
    /// Hosts that members had, with their pods.
    former: BTreeMap<String, String>,
    observed: Observed,
    topology: Topology,
    persistent: bool,
    promotion: Option<(GroupId, Option<Address>)>,
    allow_stand_in: bool,
    version: String,
}

fn gid(id: u64) -> GroupId {
    GroupId::try_from(id).unwrap()
}

fn server(group: u64, ordinal: u64) -> Address {
    Address::new(format!("10.96.{group}.{ordinal}"), 6379)
}

fn sentinel(ordinal: u64) -> Address {
    Address::new(format!("10.96.9.{ordinal}"), 26379)
}

fn master(keys: u64) -> ServerView {
    ServerView::Up {
        replication: Replication::Master,
        offset: 100,
        keys,
        uptime: 1000,
        link_down_for: None,
        replicas: BTreeSet::new(),
        memory: Memory::default(),
        fenced: false,
    }
}

fn replica_of(master: &Address, link_up: bool) -> ServerView {
    ServerView::Up {
        replication: Replication::Replica {
            master: master.clone(),
            link_up,
        },
        offset: 100,
        keys: 5,
        uptime: 1000,
        link_down_for: None,
        replicas: BTreeSet::new(),
        memory: Memory::default(),
        fenced: false,
    }
}

fn down() -> ServerView {
    ServerView::Unreachable("connection refused".into())
}

fn watched(group: u64, at: &Address) -> (String, SentinelMaster) {
    let master = SentinelMaster {
        address: at.clone(),
        replicas: 1,
        other_sentinels: 2,
        flags: "master".into(),
        silent_ms: 500,
        replica_silence: BTreeMap::from([(server(group, 1), 500)]),
    };
    (format!("c-{group}"), master)
}

impl World {
    fn settled() -> Self {
        let servers: BTreeMap<_, _> = (1..=2).map(|g| (gid(g), vec![server(g, 0), server(g, 1)])).collect();
        let sentinels: Vec<_> = (0..3).map(sentinel).collect();
        let group = |id: u64| Group {
            id: gid(id),
            servers: (0..2)
                .map(|o| Server {
                    address: server(id, o),
                    action: ActionState::Idle,
                    is_read: false,
                })
                .collect(),
            promoting: None,
            out_of_sync: false,
        };
        let view = SentinelView {
            masters: (1..=2).map(|g| watched(g, &server(g, 0))).collect(),
            in_tilt: false,
        };
        let proxies = [1, 2].map(|n| (format!("token-{n}"), format!("10.244.0.{n}")));
        let topology = Topology {
            groups: (1..=2).map(|id| (gid(id), group(id))).collect(),
            slots: even_layout(&[gid(1), gid(2)])
                .into_iter()
                .map(|(id, group)| SlotMapping {
                    id,
                    group: Some(group),
                    moving: None,
                })
                .collect(),
            sentinels: crate::domain::Sentinels {
                servers: sentinels.clone(),
                out_of_sync: false,
                masters: (1..=2).map(|g| (gid(g), server(g, 0))).collect(),
            },
            proxies: proxies
                .iter()
                .map(|(token, ip)| ProxyRecord {
                    token: token.clone(),
                    admin: Address::new(ip.clone(), 11080),
                    online: true,
                    switched: false,
                    sentinels: sentinels.iter().map(Address::to_string).collect(),
                    error: None,
                })
                .collect(),
            migrations_disabled: false,
            migration_interval: 0,
            migration_running: false,
        };
        let observed = Observed {
            servers: (1..=2)
                .flat_map(|g| {
                    [
                        (server(g, 0), master(5)),
                        (server(g, 1), replica_of(&server(g, 0), true)),
                    ]
                })
                .collect(),
            sentinels: sentinels.iter().map(|s| (s.clone(), Ok(view.clone()))).collect(),
            server_pods: (1..=2)
                .flat_map(|g| (0..2).map(move |o| (g, o)))
                .map(|(g, o)| {
                    let name = format!("c-g{g}-{o}");
                    (
                        server(g, o),
                        MemberPod {
                            uid: format!("uid-{name}"),
                            name,
                            ready: true,
                            ..MemberPod::default()
                        },
                    )
                })
                .collect(),
            proxy_pods: proxies
                .iter()
                .map(|(token, ip)| ProxyPod {
                    uid: format!("uid-{token}"),
                    name: token.clone(),
                    ip: Some(ip.clone()),
                    ready: true,
                    ending: false,
                    running_for: Some(100),
                    inherited: false,
                })
                .collect(),
            bootstrapped: [gid(1), gid(2)].into(),
            balanced: [gid(1), gid(2)].into(),
            ..Observed::default()
        };
        Self {
            cluster: crate::simulation::a_cluster(),
            addresses: Addresses {
                dashboard: Address::new("10.96.0.1", 18080),
                servers,
                leaving: BTreeMap::new(),
                sentinels,
                inherited: BTreeMap::new(),
            },
            former: BTreeMap::new(),
            observed,
            topology,
            persistent: true,
            promotion: None,
            allow_stand_in: false,
            version: "3.2.2".into(),
        }
    }

    /// A new cluster: the pods run, the topology is empty.
    fn fresh() -> Self {
        let mut world = Self::settled();
        let slots = SlotId::all()
            .map(|id| SlotMapping {
                id,
                group: None,
                moving: None,
            })
            .collect();
        world.topology = Topology {
            slots,
            proxies: std::mem::take(&mut world.topology.proxies),
            ..Topology::default()
        };
        world
            .topology
            .proxies
            .iter_mut()
            .for_each(|proxy| proxy.sentinels.clear());
        world.observed.bootstrapped.clear();
        for view in world.observed.servers.values_mut() {
            *view = master(0);
        }
        for view in world.observed.sentinels.values_mut() {
            *view = Ok(SentinelView::default());
        }
        world
    }

    fn desired(&self) -> Desired<'_> {
        let members = self
            .addresses
            .servers
            .values()
            .flatten()
            .chain(self.addresses.leaving.values().flatten())
            .chain(&self.addresses.sentinels);
        Desired {
            cluster: &self.cluster,
            addresses: &self.addresses,
            former: self.former.clone(),
            known_hosts: members
                .map(|address| address.host().to_owned())
                .chain(self.former.keys().cloned())
                .collect(),
            persistent: if self.persistent {
                [gid(1), gid(2)].into()
            } else {
                BTreeSet::new()
            },
            has_password: true,
            now: "2026-11-23T12:00:00Z".parse().unwrap(),
            stopped: None,
            promotion: self.promotion.clone(),
            allow_stand_in: self.allow_stand_in,
        }
    }

    fn observed(&self) -> Observed {
        let (version, topology) = (self.version.clone(), Box::new(self.topology.clone()));
        Observed {
            dashboard: DashboardView::Online { version, topology },
            ..self.observed.clone()
        }
    }

    fn decide(&self) -> Decision {
        decide(&self.desired(), &self.observed())
    }

    /// The same without sentinels.
    fn without_sentinels() -> Self {
        let mut world = Self::settled();
        world.cluster.sentinel = None;
        world.addresses.sentinels.clear();
        world.observed.sentinels.clear();
        world.topology.sentinels = crate::domain::Sentinels::default();
        world
            .topology
            .proxies
            .iter_mut()
            .for_each(|proxy| proxy.sentinels.clear());
        world
    }

    /// Its servers are on two nodes: those that were first in their groups on node-0.
    fn placed(mut self) -> Self {
        self.observed.nodes = (0..2)
            .map(|n| (format!("node-{n}"), crate::domain::NodeView::default()))
            .collect();
        for (address, pod) in &mut self.observed.server_pods {
            let first = self
                .topology
                .groups
                .values()
                .any(|group| group.master() == Some(address));
            pod.node = Some(if first { "node-0" } else { "node-1" }.to_owned());
        }
        self
    }

    /// What a sentinel that answers says.
    fn sentinel(&mut self, ordinal: u64) -> &mut SentinelView {
        let view = self.observed.sentinels.get_mut(&sentinel(ordinal)).unwrap();
        view.as_mut().unwrap()
    }

    fn group(&mut self, id: u64) -> &mut Group {
        self.topology.groups.get_mut(&gid(id)).unwrap()
    }

    /// The sentinels promoted the second server of group 1 and the dashboard followed them.
    fn failed_over(&mut self) {
        self.group(1).servers.swap(0, 1);
        self.group(1).out_of_sync = true;
        self.topology.sentinels.masters.insert(gid(1), server(1, 1));
        for view in self.observed.sentinels.values_mut().flatten() {
            view.masters.extend([watched(1, &server(1, 1))]);
        }
        self.observed.servers.insert(server(1, 0), down());
        self.observed.servers.insert(server(1, 1), master(5));
    }

    /// Does a step to the world, as Codis would.
    fn apply(&mut self, step: &Step) {
        match step {
            Step::CreateGroup(id) => {
                let group = Group {
                    id: *id,
                    servers: Vec::new(),
                    promoting: None,
                    out_of_sync: false,
                };
                self.topology.groups.insert(*id, group);
            }
            Step::AddServer { group, server, .. } => {
                let server = Server {
                    address: server.clone(),
                    action: ActionState::Idle,
                    is_read: false,
                };
                self.topology.groups.get_mut(group).unwrap().servers.push(server);
            }
            Step::Attach { group, server } => {
                let master = self.topology.groups[group].master().unwrap().clone();
                let replication = Replication::Replica { master, link_up: true };
                let view = ServerView::Up {
                    replication,
                    offset: 1,
                    keys: 0,
                    uptime: 9,
                    link_down_for: None,
                    replicas: BTreeSet::new(),
                    memory: Memory::default(),
                    fenced: false,
                };
                self.observed.servers.insert(server.clone(), view);
            }
            Step::AddSentinel(sentinel) => {
                self.topology.sentinels.servers.push(sentinel.clone());
                self.topology.sentinels.out_of_sync = true;
            }
            Step::ResyncSentinels => {
                let known: Vec<_> = self.topology.sentinels.servers.iter().map(Address::to_string).collect();
                for proxy in &mut self.topology.proxies {
                    proxy.sentinels.clone_from(&known);
                }
                self.topology.sentinels.out_of_sync = false;
                let masters = (1..=2).map(|g| watched(g, &server(g, 0)));
                let view = SentinelView {
                    masters: masters.collect(),
                    in_tilt: false,
                };
                self.observed
                    .sentinels
                    .values_mut()
                    .for_each(|known| *known = Ok(view.clone()));
            }
            Step::ClaimProduct => self.observed.claimed = true,
            Step::ArmGate(groups) => self.observed.bootstrapped.extend(groups),
            Step::AssignSlots(slots) => {
                for (slot, group) in slots {
                    self.topology.slots[usize::from(slot.get())].group = Some(*group);
                    self.topology.groups.get_mut(group).unwrap().out_of_sync = true;
                }
            }
            Step::OnlineProxy(admin) => {
                let sentinels = &self.topology.sentinels.servers;
                self.topology.proxies.push(ProxyRecord {
                    token: format!("token-{}", admin.host()),
                    admin: admin.clone(),
                    online: true,
                    switched: false,
                    sentinels: sentinels.iter().map(Address::to_string).collect(),
                    error: None,
                });
            }
            Step::RestoreSlots(slots) => {
                for slot in slots {
                    self.topology.slots[usize::from(slot.id.get())] = SlotMapping { moving: None, ..*slot };
                    let group = self.topology.groups.get_mut(&slot.group.unwrap()).unwrap();
                    group.out_of_sync = true;
                }
            }
            Step::MoveSlots(moves) => {
                for (slot, to) in moves {
                    self.topology.slots[usize::from(slot.get())].group = Some(*to);
                }
            }
            Step::HaltMoves => self.topology.migrations_disabled = true,
            Step::ResumeMoves => self.topology.migrations_disabled = false,
            Step::CancelMoves(slots) => {
                for slot in slots {
                    self.topology.slots[usize::from(slot.get())].moving = None;
                }
            }
            Step::RemoveServer { group, server } => {
                let servers = &mut self.topology.groups.get_mut(group).unwrap().servers;
                servers.retain(|known| known.address != *server);
            }
            Step::MarkReplicas { group, servers, reads } => {
                let known = self.topology.groups.get_mut(group).unwrap().servers.iter_mut();
                for server in known.filter(|known| servers.contains(&known.address)) {
                    server.is_read = *reads;
                }
            }
            Step::RemoveGroup(group) => drop(self.topology.groups.remove(group)),
            Step::ForgetGroup(group) => {
                self.cluster.leaving_groups.remove(group);
                self.addresses.servers.remove(group);
                self.observed.bootstrapped.remove(group);
            }
            Step::ResyncGroup(group) => self.topology.groups.get_mut(group).unwrap().out_of_sync = false,
            other => panic!("not in a bootstrap: {other:?}"),
        }
    }
}

fn reasons(notes: &[Note]) -> Vec<&'static str> {
    notes.iter().map(|note| note.reason).collect()
}

/// The master of group 1 came back a moment ago: its entry script fenced it.
fn restarted(uptime: u64, silent_ms: [u64; 3]) -> World {
    let mut world = World::settled();
    let view = ServerView::Up {
        replication: Replication::Master,
        offset: 9,
        keys: 5,
        uptime,
        link_down_for: None,
        replicas: BTreeSet::new(),
        memory: Memory::default(),
        fenced: true,
    };
    world.observed.servers.insert(server(1, 0), view);
    for (ordinal, silent_ms) in (0..).zip(silent_ms) {
        let view = world.sentinel(ordinal);
        view.masters.get_mut("c-1").unwrap().silent_ms = silent_ms;
    }
    world
}
