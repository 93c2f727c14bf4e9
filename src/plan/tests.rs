use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    api::CodisCluster,
    build::Addresses,
    domain::{
        ActionState, Address, Group, GroupId, MemberPod, ProxyPod, ProxyRecord, Replication, SentinelMaster,
        SentinelView, Server, ServerView, SlotId, SlotMapping, Topology, even_layout,
    },
    validate::{ValidCluster, validate},
};

/// Two groups of two servers, three sentinels, two proxies; everything in its place. Tests change what they are about.
struct World {
    cluster: ValidCluster,
    addresses: Addresses,
    observed: Observed,
    topology: Topology,
    persistent: bool,
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
    };
    (format!("c-{group}"), master)
}

impl World {
    fn settled() -> Self {
        let spec: CodisCluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster",
            "metadata": {"name": "c", "namespace": "ns", "uid": "u"},
            "spec": {
                "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
                "codisProxy": {"image": "i", "replicas": 2}, "codisDashboard": {"image": "i"},
                "codisServer": {"image": "i", "replicas": 4, "groupReplicas": 2},
                "sentinel": {"image": "i", "replicas": 3}
            }
        }))
        .unwrap();
        let servers: BTreeMap<_, _> = (1..=2).map(|g| (gid(g), vec![server(g, 0), server(g, 1)])).collect();
        let sentinels: Vec<_> = (0..3).map(sentinel).collect();
        let group = |id: u64| Group {
            id: gid(id),
            servers: (0..2)
                .map(|o| Server {
                    address: server(id, o),
                    action: ActionState::Idle,
                })
                .collect(),
            promoting: None,
            out_of_sync: false,
        };
        let view = SentinelView {
            masters: (1..=2).map(|g| watched(g, &server(g, 0))).collect(),
        };
        let proxies = [1, 2].map(|n| (format!("token-{n}"), format!("10.244.0.{n}")));
        let topology = Topology {
            groups: (1..=2).map(|id| (gid(id), group(id))).collect(),
            slots: even_layout(&[gid(1), gid(2)])
                .into_iter()
                .map(|(id, group)| SlotMapping {
                    id,
                    group: Some(group),
                    migrating: false,
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
                    error: None,
                })
                .collect(),
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
                            at_gate: false,
                            stopped_empty: false,
                        },
                    )
                })
                .collect(),
            proxy_pods: proxies
                .iter()
                .map(|(token, ip)| ProxyPod {
                    name: token.clone(),
                    ip: Some(ip.clone()),
                    ready: true,
                    ending: false,
                    running_for: Some(100),
                })
                .collect(),
            bootstrapped: [gid(1), gid(2)].into(),
            ..Observed::default()
        };
        Self {
            cluster: validate(&spec).unwrap(),
            addresses: Addresses {
                dashboard: Address::new("10.96.0.1", 18080),
                servers,
                sentinels,
            },
            observed,
            topology,
            persistent: true,
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
                migrating: false,
            })
            .collect();
        world.topology = Topology {
            slots,
            proxies: std::mem::take(&mut world.topology.proxies),
            ..Topology::default()
        };
        world.observed.bootstrapped.clear();
        for view in world.observed.servers.values_mut() {
            *view = master(0);
        }
        for view in world.observed.sentinels.values_mut() {
            *view = Ok(SentinelView::default());
        }
        world
    }

    fn decide(&self) -> Decision {
        let members = self
            .addresses
            .servers
            .values()
            .flatten()
            .chain(&self.addresses.sentinels);
        let desired = Desired {
            cluster: &self.cluster,
            addresses: &self.addresses,
            known_hosts: members.map(|address| address.host().to_owned()).collect(),
            persistent: if self.persistent {
                [gid(1), gid(2)].into()
            } else {
                BTreeSet::new()
            },
            has_password: true,
            allow_stand_in: self.allow_stand_in,
        };
        let mut observed = self.observed.clone();
        let (version, topology) = (self.version.clone(), Box::new(self.topology.clone()));
        observed.dashboard = DashboardView::Online { version, topology };
        decide(&desired, &observed)
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
            Step::AddServer { group, server } => {
                let server = Server {
                    address: server.clone(),
                    action: ActionState::Idle,
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
                    fenced: false,
                };
                self.observed.servers.insert(server.clone(), view);
            }
            Step::AddSentinel(sentinel) => {
                self.topology.sentinels.servers.push(sentinel.clone());
                self.topology.sentinels.out_of_sync = true;
            }
            Step::ResyncSentinels => {
                self.topology.sentinels.out_of_sync = false;
                let masters = (1..=2).map(|g| watched(g, &server(g, 0)));
                let view = SentinelView {
                    masters: masters.collect(),
                };
                self.observed
                    .sentinels
                    .values_mut()
                    .for_each(|known| *known = Ok(view.clone()));
            }
            Step::ArmGate(groups) => self.observed.bootstrapped.extend(groups),
            Step::AssignSlots(slots) => {
                for (slot, group) in slots {
                    self.topology.slots[usize::from(slot.get())].group = Some(*group);
                    self.topology.groups.get_mut(group).unwrap().out_of_sync = true;
                }
            }
            Step::ResyncGroup(group) => self.topology.groups.get_mut(group).unwrap().out_of_sync = false,
            other => panic!("not in a bootstrap: {other:?}"),
        }
    }
}

fn reasons(notes: &[Note]) -> Vec<&'static str> {
    notes.iter().map(|note| note.reason).collect()
}

#[test]
fn a_settled_cluster_needs_nothing() {
    let decision = World::settled().decide();
    assert_eq!(decision, Decision::default());
}

#[test]
fn a_new_cluster_is_built_step_by_step_and_then_rests() {
    let mut world = World::fresh();
    let mut names = Vec::new();
    while let Some(step) = world.decide().step {
        world.apply(&step);
        names.push(step.name());
        assert!(names.len() < 40, "it never ends: {names:?}");
    }
    names.dedup();
    let expected = [
        "CreateGroup",
        "AddServer",
        "AttachReplica",
        "CreateGroup",
        "AddServer",
        "AttachReplica",
        "AddSentinel",
        "ResyncSentinels",
        "ArmStartGate",
        "AssignSlots",
        "ResyncGroup",
    ];
    assert_eq!(names, expected);
    assert!(world.decide().is_settled(), "{:?}", world.decide());
}

#[test]
fn nothing_is_built_before_every_server_was_asked_for_keys() {
    let mut world = World::fresh();
    world.observed.servers.insert(server(2, 1), down());
    let decision = world.decide();
    assert_eq!(decision.step, None);
    assert_eq!(reasons(&decision.waits)[0], reason::SERVERS_NOT_READY);
}

#[test]
fn servers_with_keys_and_no_topology_are_left_alone() {
    let mut world = World::fresh();
    world.observed.servers.insert(server(2, 1), master(1));
    let decision = world.decide();
    assert_eq!(decision.step, None);
    assert_eq!(reasons(&decision.blocked), [reason::TOPOLOGY_LOST]);
}

#[test]
fn lost_slots_are_not_assigned_over_keys() {
    let mut world = World::settled();
    world.topology.slots[7].group = None;
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::TOPOLOGY_LOST])
    );
}

#[test]
fn a_topology_with_members_of_somebody_else_is_not_touched() {
    let mut world = World::settled();
    world.group(1).servers[0].address = Address::new("10.0.0.1", 6379);
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::COORDINATOR_IN_USE])
    );
}

#[test]
fn the_stand_in_is_refused_unless_allowed() {
    let mut world = World::settled();
    world.version = "codis-double 3.2.2".into();
    assert_eq!(reasons(&world.decide().blocked), [reason::STAND_IN_REFUSED]);
    world.allow_stand_in = true;
    assert!(world.decide().is_settled());
}

#[test]
fn a_dead_proxys_record_goes_before_anything_else() {
    let mut world = World::settled();
    world.failed_over();
    world.topology.proxies[0].error = Some("timeout".into());
    world.observed.proxy_pods.remove(0);
    assert!(matches!(world.decide().step, Some(Step::RemoveProxy { token, .. }) if token == "token-1"));
}

#[test]
fn only_dead_proxies_lose_their_record() {
    type Change = fn(&mut ProxyRecord, &mut ProxyPod);
    let table: [(&str, bool, Change); 6] = [
        ("it answers", false, |_, _| ()),
        ("it restarts in place", false, |r, p| {
            r.error = Some("connection refused".into());
            (p.ready, p.running_for) = (false, Some(2));
        }),
        ("its container doesn't run", true, |r, p| {
            r.error = Some("connection refused".into());
            p.running_for = None;
        }),
        ("it hangs", true, |r, p| {
            r.error = Some("timeout".into());
            (p.ready, p.running_for) = (false, Some(90));
        }),
        ("another process has its address", true, |r, _| {
            r.error = Some("[Remote Error] invalid xauth, please check".into());
        }),
        ("only the dashboard can't reach it", false, |r, _| {
            r.error = Some("timeout".into())
        }),
    ];
    for (what, is_removed, change) in table {
        let mut world = World::settled();
        change(&mut world.topology.proxies[0], &mut world.observed.proxy_pods[0]);
        let removes = matches!(world.decide().step, Some(Step::RemoveProxy { .. }));
        assert_eq!(removes, is_removed, "{what}");
    }
}

#[test]
fn a_proxy_that_did_not_register_is_taken_online() {
    let mut world = World::settled();
    world.topology.proxies.remove(1);
    assert_eq!(
        world.decide().step,
        Some(Step::OnlineProxy(Address::new("10.244.0.2", 11080)))
    );
    world.observed.proxy_pods[1].running_for = Some(5);
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.waits)),
        (None, vec![reason::PROXIES_NOT_READY])
    );
}

#[test]
fn a_failover_is_made_official_once_everybody_names_the_same_master() {
    let mut world = World::settled();
    world.failed_over();
    assert_eq!(world.decide().step, Some(Step::ResyncGroup(gid(1))));
    let one = world.observed.sentinels.get_mut(&sentinel(0)).unwrap();
    one.as_mut().unwrap().masters.extend([watched(1, &server(1, 0))]);
    assert_eq!(world.decide().step, None, "one sentinel still names the old one");
}

#[test]
fn an_old_master_is_attached_to_the_new_one() {
    let mut world = World::settled();
    world.failed_over();
    world.group(1).out_of_sync = false;
    world.observed.servers.insert(server(1, 0), master(5));
    assert_eq!(
        world.decide().step,
        Some(Step::Attach {
            group: gid(1),
            server: server(1, 0)
        })
    );
}

#[test]
fn nobody_is_attached_while_the_sentinels_name_another_master() {
    let mut world = World::settled();
    world.failed_over();
    // The dashboard doesn't know yet: its order is the old one, and the old master is back.
    world.group(1).servers.swap(0, 1);
    world.group(1).out_of_sync = false;
    world.observed.servers.insert(server(1, 0), master(5));
    let decision = world.decide();
    assert_eq!((decision.step.clone(), decision.is_settled()), (None, false));
}

#[test]
fn an_emptied_master_is_never_copied_from() {
    let mut world = World::settled();
    world.observed.servers.insert(server(1, 0), master(0));
    world.observed.servers.insert(server(1, 1), master(5));
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::MASTER_EMPTIED])
    );
}

#[test]
fn a_group_whose_copies_are_all_gone_starts_empty_only_without_volumes() {
    let mut world = World::settled();
    for ordinal in 0..2 {
        world.observed.servers.insert(server(1, ordinal), down());
        world
            .observed
            .server_pods
            .get_mut(&server(1, ordinal))
            .unwrap()
            .stopped_empty = true;
        world.observed.server_pods.get_mut(&server(1, ordinal)).unwrap().at_gate = true;
    }
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::GROUP_LOST])
    );

    let token = decision.blocked[0]
        .message
        .split("accept-data-loss=")
        .nth(1)
        .unwrap()
        .to_owned();
    world.cluster.accepted_loss = Some(token);
    assert!(
        matches!(world.decide().step, Some(Step::StartEmpty { .. })),
        "a person accepted it"
    );

    world.observed.server_pods.get_mut(&server(1, 0)).unwrap().uid = "another loss".into();
    assert_eq!(
        world.decide().step,
        None,
        "what was accepted is one loss, not every later one"
    );

    world.persistent = false;
    assert!(matches!(world.decide().step, Some(Step::StartEmpty { group, .. }) if group == gid(1)));

    world.observed.server_pods.get_mut(&server(1, 1)).unwrap().stopped_empty = false;
    assert_eq!(world.decide().step, None, "one copy may be left");
}

#[test]
fn without_sentinels_the_replica_that_has_most_replaces_a_master_that_is_gone() {
    let mut world = World::settled();
    world.cluster.sentinel = None;
    world.addresses.sentinels.clear();
    world.observed.sentinels.clear();
    world.topology.sentinels = crate::domain::Sentinels::default();
    world.observed.servers.insert(server(1, 0), down());
    let mut replica = replica_of(&server(1, 0), false);
    if let ServerView::Up { link_down_for, .. } = &mut replica {
        *link_down_for = Some(12);
    }
    world.observed.servers.insert(server(1, 1), replica);
    world.observed.server_pods.get_mut(&server(1, 0)).unwrap().ready = false;
    world.observed.down_for.insert(server(1, 0), 3);
    assert_eq!(world.decide().step, None, "not yet");
    world.observed.down_for.insert(server(1, 0), 12);
    assert_eq!(
        world.decide().step,
        Some(Step::Promote {
            group: gid(1),
            server: server(1, 1)
        })
    );
    world.observed.server_pods.get_mut(&server(1, 0)).unwrap().ready = true;
    assert_eq!(world.decide().step, None, "the kubelet says that it serves");
}

#[test]
fn a_stuck_promotion_is_repeated() {
    let mut world = World::settled();
    world.group(2).promoting = Some(1);
    assert_eq!(
        world.decide().step,
        Some(Step::Promote {
            group: gid(2),
            server: server(2, 1)
        })
    );
}

#[test]
fn sentinels_are_configured_anew_only_while_everybody_answers() {
    let mut world = World::settled();
    world.topology.sentinels.out_of_sync = true;
    assert_eq!(world.decide().step, Some(Step::ResyncSentinels));
    type Change = fn(&mut World);
    let table: [(&str, Change); 4] = [
        ("a sentinel", |w| {
            drop(w.observed.sentinels.insert(sentinel(1), Err("timeout".into())))
        }),
        ("a replica", |w| drop(w.observed.servers.insert(server(2, 1), down()))),
        ("a master", |w| drop(w.observed.servers.insert(server(2, 0), down()))),
        ("a proxy", |w| w.topology.proxies[0].error = Some("timeout".into())),
    ];
    for (who, change) in table {
        let mut world = World::settled();
        world.topology.sentinels.out_of_sync = true;
        change(&mut world);
        let decision = world.decide();
        assert_eq!(
            (decision.step.clone(), decision.is_settled()),
            (None, false),
            "without {who}: {decision:?}"
        );
    }
}

#[test]
fn a_sentinel_that_came_back_is_told_what_it_lacks() {
    let mut world = World::settled();
    world
        .observed
        .sentinels
        .get_mut(&sentinel(2))
        .unwrap()
        .as_mut()
        .unwrap()
        .masters
        .remove("c-2");
    let (sentinel, group, master) = (sentinel(2), gid(2), server(2, 0));
    assert_eq!(
        world.decide().step,
        Some(Step::Monitor {
            sentinel,
            group,
            master
        })
    );
    world.observed.servers.insert(server(2, 0), down());
    assert_eq!(world.decide().step, None, "not of a master that doesn't answer");
}

#[test]
fn a_replica_that_is_down_leaves_the_cluster_unsettled() {
    let mut world = World::settled();
    world
        .observed
        .servers
        .insert(server(1, 1), replica_of(&server(1, 0), false));
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.waits)),
        (None, vec![reason::REPLICATION])
    );
}

#[test]
fn a_member_with_keys_of_its_own_does_not_join_a_group() {
    let mut world = World::settled();
    world.group(1).servers.pop();
    world.observed.servers.insert(server(1, 1), master(9));
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::SERVER_HAS_DATA])
    );
}

#[test]
fn slots_count_as_served_while_their_master_answers() {
    let world = World::settled();
    let mut observed = world.observed.clone();
    observed.dashboard = DashboardView::Online {
        version: String::new(),
        topology: Box::new(world.topology.clone()),
    };
    let desired = Desired {
        cluster: &world.cluster,
        addresses: &world.addresses,
        known_hosts: BTreeSet::new(),
        persistent: BTreeSet::new(),
        has_password: true,
        allow_stand_in: false,
    };
    let whole = health(&desired, &observed);
    assert_eq!(
        (whole.slots_served, whole.servers_in_role, whole.sentinels_watching),
        (1024, 4, 3)
    );
    assert!(whole.is_serving());
    observed.servers.insert(server(1, 0), down());
    let half = health(&desired, &observed);
    assert_eq!(
        (half.slots_served, half.servers_in_role, half.is_serving()),
        (512, 3, false)
    );
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
        fenced: true,
    };
    world.observed.servers.insert(server(1, 0), view);
    for (ordinal, silent_ms) in (0..).zip(silent_ms) {
        let view = world
            .observed
            .sentinels
            .get_mut(&sentinel(ordinal))
            .unwrap()
            .as_mut()
            .unwrap();
        view.masters.get_mut("c-1").unwrap().silent_ms = silent_ms;
    }
    world
}

#[test]
fn a_sentinel_that_lost_a_restarted_master_connects_anew() {
    let mut world = restarted(3, [500, 3_000, 500]);
    let ServerView::Up { fenced, .. } = world.observed.servers.get_mut(&server(1, 0)).unwrap() else {
        unreachable!()
    };
    *fenced = false;
    let (sentinel, group, master) = (sentinel(1), gid(1), server(1, 0));
    assert_eq!(
        world.decide().step,
        Some(Step::Relink {
            sentinel,
            group,
            master
        })
    );
    assert_ne!(
        restarted(90, [500, 3_000, 500]).decide().step.map(|s| s.name()),
        Some("RelinkSentinel")
    );
}

#[test]
fn a_restarted_master_takes_writes_once_too_few_sentinels_are_left_to_replace_it() {
    assert_eq!(
        restarted(3, [500, 500, 500]).decide().step,
        Some(Step::Unfence(server(1, 0)))
    );
    let two_heard = restarted(1, [500, 900, 1_500]);
    assert_eq!(two_heard.decide().step, Some(Step::Unfence(server(1, 0))));
    let one_heard = restarted(1, [500, 1_500, 1_500]).decide();
    assert_eq!(
        (one_heard.step.clone(), reasons(&one_heard.waits)),
        (None, vec![reason::FAILOVER])
    );
}

#[test]
fn a_restarted_master_that_is_being_replaced_stays_fenced() {
    let mut world = restarted(3, [500, 500, 500]);
    for view in world.observed.sentinels.values_mut().flatten() {
        view.masters.get_mut("c-1").unwrap().flags = "s_down,master".into();
    }
    assert!(!matches!(world.decide().step, Some(Step::Unfence(_))));
    let mut world = restarted(3, [500, 500, 500]);
    world.group(1).servers.swap(0, 1);
    assert!(
        !matches!(world.decide().step, Some(Step::Unfence(_))),
        "it is no longer the official master"
    );
}

#[test]
fn an_attached_replica_is_not_left_fenced() {
    let mut world = World::settled();
    let replication = Replication::Replica {
        master: server(1, 0),
        link_up: true,
    };
    let view = ServerView::Up {
        replication,
        offset: 9,
        keys: 5,
        uptime: 60,
        link_down_for: None,
        fenced: true,
    };
    world.observed.servers.insert(server(1, 1), view);
    assert_eq!(world.decide().step, Some(Step::Unfence(server(1, 1))));
}

#[test]
fn of_two_masters_with_data_none_is_wiped_unless_the_sentinels_know_which_one_was_last() {
    let mut world = World::settled();
    world.observed.servers.insert(server(1, 1), master(7));
    for view in world.observed.sentinels.values_mut().flatten() {
        view.masters.remove("c-1");
    }
    world.topology.sentinels.masters.clear();
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.blocked)),
        (None, vec![reason::SPLIT_MASTERS])
    );

    world.topology.sentinels.out_of_sync = true;
    let attach = Some(Step::Attach {
        group: gid(1),
        server: server(1, 1),
    });
    assert_eq!(world.decide().step, attach, "the dashboard has just promoted one");

    let mut world = World::settled();
    world.observed.servers.insert(server(1, 1), master(7));
    assert_eq!(world.decide().step, attach, "a majority names the official one");
}

#[test]
fn an_official_master_that_follows_another_gives_up_its_place_once_nobody_else_knows() {
    let mut world = World::settled();
    world
        .observed
        .servers
        .insert(server(1, 0), replica_of(&server(1, 1), true));
    world.observed.servers.insert(server(1, 1), master(5));
    assert_eq!(world.decide().step, None, "the sentinels will tell");
    for view in world.observed.sentinels.values_mut() {
        *view = Ok(SentinelView::default());
    }
    assert_eq!(
        world.decide().step,
        Some(Step::Promote {
            group: gid(1),
            server: server(1, 1)
        })
    );
}

#[test]
fn a_replica_that_never_had_the_masters_data_does_not_replace_it() {
    let mut world = World::settled();
    world.cluster.sentinel = None;
    world.addresses.sentinels.clear();
    world.observed.sentinels.clear();
    world.topology.sentinels = crate::domain::Sentinels::default();
    world.observed.servers.insert(server(1, 0), down());
    world.observed.server_pods.get_mut(&server(1, 0)).unwrap().ready = false;
    world.observed.down_for.insert(server(1, 0), 12);
    for (link_down_for, promotes) in [(None, false), (Some(10), true), (Some(3_600), false)] {
        let mut view = replica_of(&server(1, 0), false);
        if let ServerView::Up {
            link_down_for: seconds, ..
        } = &mut view
        {
            *seconds = link_down_for;
        }
        world.observed.servers.insert(server(1, 1), view);
        assert_eq!(world.decide().step.is_some(), promotes, "{link_down_for:?}");
    }
}

#[test]
fn an_emptied_master_is_replaced_by_the_operator_when_the_sentinels_fail_to() {
    let mut world = World::settled();
    world.observed.servers.insert(server(1, 0), down());
    world
        .observed
        .servers
        .insert(server(1, 1), replica_of(&server(1, 0), false));
    let pod = world.observed.server_pods.get_mut(&server(1, 0)).unwrap();
    (pod.ready, pod.at_gate, pod.stopped_empty) = (false, true, true);
    world.observed.down_for.insert(server(1, 0), 12);
    assert_eq!(world.decide().step, None, "the sentinels' turn");
    world.observed.down_for.insert(server(1, 0), 40);
    assert_eq!(
        world.decide().step,
        Some(Step::Promote {
            group: gid(1),
            server: server(1, 1)
        })
    );
}

#[test]
fn a_fence_is_lifted_by_the_sentinels_word_while_the_dashboard_is_away() {
    let away = |world: &World| {
        let desired = Desired {
            cluster: &world.cluster,
            addresses: &world.addresses,
            known_hosts: BTreeSet::new(),
            persistent: BTreeSet::new(),
            has_password: true,
            allow_stand_in: false,
        };
        decide(&desired, &world.observed).step
    };
    assert_eq!(
        away(&restarted(3, [500, 500, 5_000])),
        Some(Step::Unfence(server(1, 0)))
    );
    assert_eq!(away(&restarted(3, [500, 5_000, 5_000])), None);
}

#[test]
fn a_group_that_started_empty_is_armed_again_at_once() {
    let mut world = World::settled();
    world.observed.bootstrapped.remove(&gid(1));
    world.group(2).servers.pop();
    assert_eq!(world.decide().step, Some(Step::ArmGate(vec![gid(1)])));
}
