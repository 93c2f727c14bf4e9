//! What the predecessor deployed is taken over: ours join, become masters, and then its parts go, in an order that never
//! leaves anything without somebody.

use super::*;
use crate::domain::Part;

fn old(group: u64, ordinal: u64) -> Address {
    Address::new(format!("10.244.{group}.{ordinal}"), 6379)
}

fn old_sentinel() -> Address {
    Address::new("10.244.9.9", 26379)
}

/// The predecessor's cluster as it was found: its servers, its sentinel and its proxies have everything, ours are empty.
fn found() -> World {
    let mut world = World::settled();
    world.addresses.dashboard = Address::new("10.244.0.9", 18080);
    for (id, group) in &mut world.topology.groups {
        let group_number = u64::from(id.get());
        for (ordinal, server) in (0..).zip(&mut group.servers) {
            server.address = old(group_number, ordinal);
            let pod = format!("c-redis-{}", 2 * (group_number - 1) + ordinal);
            let view = if ordinal == 0 {
                master(5)
            } else {
                replica_of(&old(group_number, 0), true)
            };
            world.observed.servers.insert(server.address.clone(), view);
            let known = MemberPod {
                uid: format!("uid-{pod}"),
                name: pod.clone(),
                ready: true,
                ..MemberPod::default()
            };
            world.observed.server_pods.insert(server.address.clone(), known);
            world
                .addresses
                .inherited
                .entry(*id)
                .or_default()
                .push((pod, server.address.clone()));
            world
                .observed
                .servers
                .insert(self::server(group_number, ordinal), master(0));
        }
    }
    world.topology.sentinels.servers = vec![old_sentinel()];
    world.topology.sentinels.masters = (1..=2).map(|group| (gid(group), old(group, 0))).collect();
    for view in world.observed.sentinels.values_mut() {
        *view = Ok(SentinelView::default());
    }
    for proxy in &mut world.topology.proxies {
        proxy.sentinels = vec![old_sentinel().to_string()];
    }
    for pod in &mut world.observed.proxy_pods {
        pod.inherited = true;
    }
    world.observed.bootstrapped.clear();
    world.observed.predecessor = [
        Part::Sentinels,
        Part::Servers,
        Part::Dashboard,
        Part::Proxies,
        Part::Fe,
        Part::ProxyService,
        Part::FeService,
    ]
    .into();
    world
}

impl World {
    /// As the facts do: what is the predecessor's isn't foreign.
    fn next(&self) -> Decision {
        let mut desired = self.desired();
        let inherited = self.addresses.inherited.values().flatten();
        desired
            .known_hosts
            .extend(inherited.map(|(_, address)| address.host().to_owned()));
        desired.known_hosts.insert(old_sentinel().host().to_owned());
        decide(&desired, &self.observed())
    }

    /// Does a step, with what the controller and Kubernetes make of it.
    fn take(&mut self, step: &Step) {
        match step {
            Step::RemoveSentinel(sentinel) => {
                self.topology.sentinels.servers.retain(|known| known != sentinel);
                self.topology.sentinels.out_of_sync = true;
            }
            Step::ResyncSentinels => {
                self.apply(step);
                let masters = self
                    .topology
                    .groups
                    .values()
                    .map(|group| (group.id, group.master().unwrap().clone()));
                let masters: BTreeMap<GroupId, Address> = masters.collect();
                let watched = masters.iter().map(|(id, at)| watched(id.get().into(), at));
                let view = SentinelView {
                    masters: watched.collect(),
                    in_tilt: false,
                };
                self.observed
                    .sentinels
                    .values_mut()
                    .for_each(|known| *known = Ok(view.clone()));
                self.topology.sentinels.masters = masters;
            }
            Step::Monitor {
                sentinel,
                group,
                master,
            } => {
                let view = self.observed.sentinels.get_mut(sentinel).unwrap().as_mut().unwrap();
                view.masters.extend([watched(group.get().into(), master)]);
            }
            Step::Switchover { group, from, to, .. } => {
                let servers = &mut self.topology.groups.get_mut(group).unwrap().servers;
                let index = servers.iter().position(|server| server.address == *to).unwrap();
                servers.swap(0, index);
                for server in servers.iter() {
                    self.observed
                        .servers
                        .insert(server.address.clone(), replica_of(to, true));
                }
                self.observed.servers.insert(to.clone(), master(5));
                assert!(self.addresses.is_inherited(from) && !self.addresses.is_inherited(to));
                self.topology.sentinels.out_of_sync = true;
            }
            Step::RemoveServer { group, server } => {
                self.apply(step);
                self.topology.sentinels.out_of_sync = true;
                self.addresses
                    .inherited
                    .get_mut(group)
                    .unwrap()
                    .retain(|(_, address)| address != server);
            }
            Step::Retire(part) => {
                self.observed.predecessor.remove(part);
                match part {
                    Part::Proxies => {
                        self.observed.predecessor.insert(Part::ProxyPods);
                    }
                    Part::ProxyPods => {
                        self.observed.proxy_pods.retain(|pod| !pod.inherited);
                        let pods = self.observed.proxy_pods.clone();
                        let is_there = |record: &ProxyRecord| {
                            pods.iter().any(|pod| pod.ip.as_deref() == Some(record.admin.host()))
                        };
                        self.topology.proxies.retain(is_there);
                    }
                    _ => {}
                }
            }
            step => self.apply(step),
        }
    }

    /// Our proxies came up.
    fn with_our_proxies(&mut self) {
        for (number, token) in [(11, "ours-1"), (12, "ours-2")] {
            let ip = format!("10.244.0.{number}");
            self.observed.proxy_pods.retain(|pod| pod.name != token);
            self.topology.proxies.retain(|record| record.token != token);
            let pod = self.observed.proxy_pods.first().cloned().unwrap();
            let record = self.topology.proxies.first().cloned().unwrap();
            let (ip, name) = (Some(ip), token.to_owned());
            self.topology.proxies.push(ProxyRecord {
                token: token.to_owned(),
                admin: Address::new(ip.clone().unwrap(), 11080),
                ..record
            });
            self.observed.proxy_pods.push(ProxyPod {
                name,
                ip,
                inherited: false,
                running_for: Some(100),
                ..pod
            });
        }
    }

    /// Steps until none is left; what was done.
    fn go_on(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..100 {
            let decision = self.next();
            assert_eq!(decision.blocked, []);
            let Some(step) = decision.step else { return done };
            done.push(match &step {
                Step::Retire(part) => format!("{part:?}"),
                step => step.name().to_owned(),
            });
            self.take(&step);
            // A dump is kept in every pass in which there is one.
            if let Some(dump) = dump(&self.desired(), &self.observed()) {
                self.observed.dump = Some(Ok(dump));
            }
        }
        panic!("it doesn't end: {done:?}");
    }
}

#[test]
fn ours_join_become_masters_and_then_its_parts_go_one_after_another() {
    let mut world = found();
    let done = world.go_on();
    let first = |name: &str| {
        done.iter()
            .position(|step| step == name)
            .unwrap_or_else(|| panic!("no {name} in {done:?}"))
    };
    let last = |name: &str| done.iter().rposition(|step| step == name).unwrap();
    let order = [
        last("AddServer"),
        first("RemoveSentinel"),
        first("AddSentinel"),
        first("ResyncSentinels"),
        first("Switchover"),
        last("RemoveServer"),
        first("Servers"),
        first("Dashboard"),
        first("Proxies"),
    ];
    assert!(order.is_sorted(), "{done:?}");
    assert!(first("Sentinels") < first("Dashboard"), "{done:?}");
    let count = |name: &str| done.iter().filter(|step| *step == name).count();
    assert_eq!((count("Switchover"), count("RemoveServer")), (2, 4), "{done:?}");
    let ours = |group: u64| [server(group, 0), server(group, 1)];
    for group in 1..=2 {
        let members: BTreeSet<Address> = world
            .group(group)
            .servers
            .iter()
            .map(|server| server.address.clone())
            .collect();
        assert_eq!(members, ours(group).into());
    }
    // Clients find its proxies until ours have taken over.
    assert_eq!(world.observed.predecessor, [Part::ProxyService, Part::ProxyPods].into());
    world.with_our_proxies();
    assert_eq!(world.go_on(), ["ProxyService"]);
    world.observed.unused_for.insert(Part::ProxyPods, 29);
    assert_eq!(world.go_on(), [""; 0], "those that are connected have 30 s");
    world.observed.unused_for.insert(Part::ProxyPods, 30);
    assert_eq!(world.go_on(), ["ProxyPods"]);
    assert!(world.next().is_settled(), "{:?}", world.next());
}

#[test]
fn its_copies_stay_while_one_of_ours_is_missing() {
    let mut world = found();
    world.observed.servers.insert(server(2, 1), down());
    let done = world.go_on();
    assert!(
        !done.contains(&"RemoveSentinel".to_owned()),
        "its sentinels watch: {done:?}"
    );
    let members = |world: &mut World, group| world.group(group).servers.len();
    assert_eq!((members(&mut world, 1), members(&mut world, 2)), (4, 3), "{done:?}");
    assert!(world.observed.predecessor.contains(&Part::Dashboard));
}

#[test]
fn one_of_its_replicas_that_died_is_taken_out_and_keeps_nobody_waiting() {
    let mut world = found();
    world.observed.servers.insert(old(1, 1), down());
    world.observed.server_pods.remove(&old(1, 1));
    let done = world.go_on();
    assert!(done.contains(&"Proxies".to_owned()), "{done:?}");
    assert_eq!(world.group(1).servers.len(), 2);
}

#[test]
fn its_dashboard_stays_until_the_topology_is_kept() {
    let mut world = found();
    world.go_on();
    world.observed.predecessor.insert(Part::Dashboard);
    world.observed.dump = None;
    assert_eq!(world.next().step, None);
    assert_eq!(reasons(&world.next().waits), [reason::TAKING_OVER]);
    world.observed.dump = dump(&world.desired(), &world.observed()).map(Ok);
    assert_eq!(world.next().step, Some(Step::Retire(Part::Dashboard)));
}

#[test]
fn while_a_person_holds_a_component_its_part_stays() {
    let mut world = found();
    world.cluster.brakes.paused = true;
    let done = world.go_on();
    assert!(!done.contains(&"RemoveServer".to_owned()), "{done:?}");
    assert!(world.observed.predecessor.contains(&Part::Servers));
}

/// Why a world's cluster can't be taken over.
fn objection(world: &World) -> Option<String> {
    let is_its = |address: &Address| address.host().starts_with("10.244.");
    takeover_objection(&world.cluster, &world.topology, &world.observed.servers, is_its)
}

#[test]
fn what_cannot_be_taken_over_says_what_to_do() {
    assert_eq!(objection(&found()), None);
    let mut replica_gone = found();
    let dead = Address::new("10.250.0.1", 6379);
    replica_gone.group(1).servers[1].address = dead.clone();
    replica_gone.observed.servers.insert(dead, down());
    assert_eq!(objection(&replica_gone), None, "it is taken out on the way");
    type Change = fn(&mut World);
    let table: [(&str, Change); 10] = [
        ("spec.hibernate", |world| world.cluster.brakes.hibernate = true),
        ("1 slots have no group", |world| world.topology.slots[7].group = None),
        ("1 slots are on their way", |world| {
            world.topology.slots[7].moving = Some(crate::domain::SlotMove {
                to: gid(2),
                pending: true,
            });
        }),
        ("groups 1 and the spec means 1, 2", |world| {
            drop(world.topology.groups.remove(&gid(2)))
        }),
        ("add spec.sentinel", |world| world.cluster.sentinel = None),
        ("a promotion in group 1", |world| world.group(1).promoting = Some(1)),
        ("group 2 has no server", |world| world.group(2).servers.clear()),
        ("192.168.0.1:6379 in group 1 is no pod", |world| {
            let stranger = Address::new("192.168.0.1", 6379);
            world.group(1).servers[1].address = stranger.clone();
            world.observed.servers.insert(stranger, replica_of(&old(1, 0), true));
        }),
        ("192.168.0.1:6379 in group 1 is no pod", |world| {
            let stranger = Address::new("192.168.0.1", 6379);
            world.group(1).servers[0].address = stranger.clone();
            world.observed.servers.insert(stranger, down());
        }),
        ("productAuth", |world| {
            world
                .observed
                .servers
                .insert(old(1, 0), ServerView::Unreachable("NOAUTH".into()));
        }),
    ];
    for (told, change) in table {
        let mut world = found();
        change(&mut world);
        let why = objection(&world).unwrap_or_else(|| panic!("{told}: nothing said"));
        assert!(why.contains(told), "{why}");
    }
}
