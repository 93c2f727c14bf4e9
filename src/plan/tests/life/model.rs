//! Codis, Kubernetes and what the operator remembers, as far as the rules of slots and groups see them. Time goes on by
//! `tick`; what Codis refuses is refused (contract §7).

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use crate::domain::{Dump, Evidence, Intent, NodeView, Route, SLOT_COUNT, Sentinels, SlotMove};

/// So many seconds pass between two looks.
const SECONDS: u64 = 3;
/// Every so many slots one has a key.
pub(super) const KEYED: usize = 16;

/// Chance, by a seed: SplitMix64.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }

    pub(super) fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }

    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// A codis-server and its volume.
#[derive(Default)]
pub(super) struct Process {
    /// Whether its pod exists.
    pub pod: bool,
    /// For how many looks it won't answer yet, and for how many seconds it hasn't.
    pub out: u32,
    pub silent_for: u64,
    pub follows: Option<Address>,
    pub link: bool,
    /// For how many looks its link stays down.
    pub broken: u32,
    link_down_for: Option<u64>,
    /// The slots that it holds a key of, and how often that was written.
    pub keys: BTreeMap<usize, u32>,
    offset: u64,
}

impl Process {
    pub(super) fn answers(&self) -> bool {
        self.pod && self.out == 0
    }

    pub(super) fn is_master(&self) -> bool {
        self.answers() && self.follows.is_none()
    }

    /// A full copy is on its way: what was there is gone.
    fn attach(&mut self, master: &Address) {
        self.follows = Some(master.clone());
        self.link = false;
        self.link_down_for = None;
        self.keys.clear();
    }
}

/// How far a slot's migration has come (contract §6.1).
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// No proxy knows.
    Preparing,
    Migrating,
    Finished,
}

pub(super) struct Sentinel {
    pub out: u32,
    watches: BTreeMap<GroupId, Address>,
}

pub(super) struct Proxy {
    admin: Address,
    token: String,
    pub table: Vec<Route>,
}

/// What the status says; it may be lost.
#[derive(Clone, Default)]
pub(super) struct Status {
    pub balanced: BTreeSet<GroupId>,
    pub groups: BTreeMap<GroupId, Vec<Address>>,
}

/// A cluster and the operator's surroundings.
pub(super) struct Life {
    pub chance: Chance,
    pub cluster: ValidCluster,
    pub addresses: Addresses,
    pub persistent: bool,
    pub topology: Topology,
    stages: BTreeMap<usize, Stage>,
    /// For how many looks the dashboard is away.
    pub away: u32,
    pub processes: BTreeMap<Address, Process>,
    pub sentinels: BTreeMap<Address, Sentinel>,
    pub proxies: Vec<Proxy>,
    pub sets: BTreeMap<GroupId, u16>,
    pub gates: BTreeSet<GroupId>,
    pub intent: Option<Intent>,
    failed_moves: BTreeMap<GroupId, (u32, u64)>,
    /// Masters that the sentinels replaced while they were silent.
    replaced: BTreeMap<Address, Address>,
    pub status: Status,
    pub dump: Option<Dump>,
    /// Where each slot was last known to be, and where it is on its way to.
    pub truth: Vec<Option<(GroupId, Option<GroupId>)>>,
    /// How often each slot's key was written.
    pub written: BTreeMap<usize, u32>,
}

fn ordinal_of(address: &Address) -> u16 {
    address.host().rsplit('.').next().unwrap().parse().unwrap()
}

pub(super) fn group_of(address: &Address) -> GroupId {
    gid(address.host().split('.').nth(2).unwrap().parse().unwrap())
}

fn number(slot: SlotId) -> usize {
    usize::from(slot.get())
}

fn empty_slots() -> Vec<SlotMapping> {
    let slot = |id| SlotMapping {
        id,
        group: None,
        moving: None,
    };
    SlotId::all().map(slot).collect()
}

impl Life {
    /// Pods without a topology.
    pub(super) fn fresh(groups: u16, size: u16, with_sentinels: bool, persistent: bool, seed: u64) -> Self {
        let mut cluster = World::settled().cluster;
        let sentinels: Vec<Address> = if with_sentinels {
            (0..3).map(sentinel).collect()
        } else {
            Vec::new()
        };
        if !with_sentinels {
            cluster.sentinel = None;
        }
        (cluster.groups, cluster.group_size) = (groups, size);
        let proxy = |n: u64| Proxy {
            admin: Address::new(format!("10.244.0.{n}"), 11080),
            token: format!("token-{n}"),
            table: vec![Route::default(); usize::from(SLOT_COUNT)],
        };
        let watch = |address: &Address| {
            (
                address.clone(),
                Sentinel {
                    out: 0,
                    watches: BTreeMap::new(),
                },
            )
        };
        let mut life = Self {
            chance: Chance(seed),
            cluster,
            addresses: Addresses {
                dashboard: Address::new("10.96.0.1", 18080),
                servers: BTreeMap::new(),
                leaving: BTreeMap::new(),
                sentinels: sentinels.clone(),
            },
            persistent,
            topology: Topology {
                slots: empty_slots(),
                ..Topology::default()
            },
            stages: BTreeMap::new(),
            away: 0,
            processes: (1..=6u64)
                .flat_map(|g| (0..3u64).map(move |o| (server(g, o), Process::default())))
                .collect(),
            sentinels: sentinels.iter().map(watch).collect(),
            proxies: vec![proxy(1), proxy(2)],
            sets: BTreeMap::new(),
            gates: BTreeSet::new(),
            intent: None,
            failed_moves: BTreeMap::new(),
            replaced: BTreeMap::new(),
            status: Status::default(),
            dump: None,
            truth: vec![None; usize::from(SLOT_COUNT)],
            written: BTreeMap::new(),
        };
        for n in 0..2 {
            life.register(n);
        }
        life
    }

    pub(super) fn is_whole(&self) -> bool {
        self.topology.slots.iter().all(|slot| slot.group.is_some())
    }

    /// As `settle` in the controller, before it observes: what is wished is applied. Whether anything that runs changed.
    pub(super) fn apply_wish(&mut self) -> bool {
        let known = self.sets.keys().chain(self.status.groups.keys()).copied();
        self.cluster.leaving_groups = known.filter(|id| !self.cluster.stays(*id)).collect();
        let size = self.cluster.group_size;
        let (mut changed, mut servers, mut leaving) = (false, BTreeMap::new(), BTreeMap::new());
        for id in self.cluster.group_ids().collect::<Vec<_>>() {
            let known = self.status.groups.get(&id).filter(|known| !known.is_empty());
            let highest = known.and_then(|known| known.iter().map(ordinal_of).max());
            let has = highest
                .map(|highest| highest + 1)
                .or_else(|| self.sets.get(&id).copied());
            let all = has.unwrap_or(0).max(size);
            let address = |ordinal: u16| server(id.get().into(), ordinal.into());
            servers.insert(id, (0..size).map(address).collect());
            if all > size {
                leaving.insert(id, (size..all).map(address).collect::<Vec<_>>());
            }
            changed |= self.sets.insert(id, all).is_some_and(|before| before != all);
        }
        (self.addresses.servers, self.addresses.leaving) = (servers, leaving);
        self.run_pods();
        changed
    }

    fn run_pods(&mut self) {
        let wished = |address: &Address| {
            self.sets
                .get(&group_of(address))
                .is_some_and(|n| ordinal_of(address) < *n)
        };
        let (start, stop): (Vec<Address>, Vec<Address>) = self.processes.keys().cloned().partition(wished);
        for address in stop {
            let process = self.processes.get_mut(&address).unwrap();
            (process.pod, process.out, process.link) = (false, 0, false);
        }
        for address in start {
            if !self.processes[&address].pod {
                self.start(&address);
            }
        }
    }

    /// The entry script: an empty member of a group whose gate is armed follows the master that the others know.
    fn start(&mut self, address: &Address) {
        let id = group_of(address);
        let official = self.topology.groups.get(&id).and_then(Group::master).cloned();
        let master = self
            .word_of_sentinels(id)
            .or(official)
            .filter(|master| master != address);
        let (is_armed, persistent) = (self.gates.contains(&id), self.persistent);
        let process = self.processes.get_mut(address).unwrap();
        let kept = if persistent {
            std::mem::take(process)
        } else {
            Process::default()
        };
        *process = Process {
            pod: true,
            keys: kept.keys,
            follows: kept.follows,
            offset: kept.offset,
            ..Process::default()
        };
        if let (true, true, Some(master)) = (is_armed, process.keys.is_empty(), master) {
            process.attach(&master);
        }
    }

    /// What most sentinels that answer take for a group's master.
    fn word_of_sentinels(&self, id: GroupId) -> Option<Address> {
        let answering = || self.sentinels.values().filter(|sentinel| sentinel.out == 0);
        let named: Vec<&Address> = answering().filter_map(|sentinel| sentinel.watches.get(&id)).collect();
        let is_word =
            |address: &&&Address| named.iter().filter(|other| other == address).count() * 2 > self.sentinels.len();
        named.iter().find(is_word).map(|address| (**address).clone())
    }

    pub(super) fn desired(&self, changed: bool) -> Desired<'_> {
        let hosts = self.processes.keys().chain(&self.addresses.sentinels);
        Desired {
            cluster: &self.cluster,
            addresses: &self.addresses,
            known_hosts: hosts.map(|address| address.host().to_owned()).collect(),
            persistent: self.cluster.group_ids().filter(|_| self.persistent).collect(),
            has_password: true,
            now: "2026-11-23T12:00:00Z".parse().unwrap(),
            stopped: changed.then(|| "a change was just applied".to_owned()),
            promotion: None,
            allow_stand_in: false,
        }
    }

    pub(super) fn observe(&self) -> Observed {
        let asked: Vec<Address> = self.desired(false).servers().map(|(_, (_, address))| address).collect();
        let servers: BTreeMap<Address, ServerView> = asked.iter().map(|a| (a.clone(), self.view(a))).collect();
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

    fn view(&self, address: &Address) -> ServerView {
        let process = &self.processes[address];
        if !process.answers() {
            return down();
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
            memory: Memory::default(),
            fenced: false,
        }
    }

    fn pod(&self, address: &Address) -> Option<(Address, MemberPod)> {
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

    fn sentinel_view(&self, sentinel: &Sentinel) -> Result<SentinelView, String> {
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
                .iter()
                .filter(|(_, p)| p.answers() && p.follows.as_ref() == Some(master));
            let replica_silence: BTreeMap<Address, u64> = replicas.map(|(a, _)| (a.clone(), silence(a))).collect();
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
    fn evidence(&self, servers: &BTreeMap<Address, ServerView>) -> Evidence {
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

    fn register(&mut self, proxy: usize) {
        let sentinels = self.topology.sentinels.servers.iter().map(Address::to_string).collect();
        let Proxy { admin, token, .. } = &self.proxies[proxy];
        self.topology.proxies.push(ProxyRecord {
            token: token.clone(),
            admin: admin.clone(),
            online: true,
            switched: false,
            sentinels,
            error: None,
        });
        let all: Vec<usize> = (0..usize::from(SLOT_COUNT)).collect();
        self.push(&all);
    }

    /// What the dashboard would tell a proxy of a slot.
    fn route(&self, slot: usize) -> Route {
        let mapping = &self.topology.slots[slot];
        let (group, from) = match (self.stages.get(&slot), mapping.moving) {
            (Some(Stage::Migrating), Some(moving)) => (Some(moving.to), mapping.group),
            (Some(Stage::Finished), Some(moving)) => (Some(moving.to), None),
            _ => (mapping.group, None),
        };
        let master = group.and_then(|group| self.topology.groups.get(&group)?.master().cloned());
        Route { group, master, from }
    }

    fn push(&mut self, slots: &[usize]) {
        let routes: Vec<Route> = slots.iter().map(|slot| self.route(*slot)).collect();
        let records = &self.topology.proxies;
        let is_told = |proxy: &&mut Proxy| records.iter().any(|record| record.token == proxy.token);
        for proxy in self.proxies.iter_mut().filter(is_told) {
            for (slot, route) in slots.iter().zip(&routes) {
                proxy.table[*slot] = route.clone();
            }
        }
    }

    fn push_group(&mut self, id: GroupId) {
        let slots = self.topology.slots.iter();
        let slots: Vec<usize> = slots
            .filter(|slot| slot.group == Some(id) || slot.moves_with(id))
            .map(|slot| number(slot.id))
            .collect();
        self.push(&slots);
        self.topology
            .proxies
            .iter_mut()
            .for_each(|record| record.switched = false);
    }

    /// Some time passes: servers come back, replicas catch up, sentinels act, clients write, slots move.
    pub(super) fn tick(&mut self) {
        self.away = self.away.saturating_sub(1);
        for (_, ago) in self.failed_moves.values_mut() {
            *ago += SECONDS;
        }
        for sentinel in self.sentinels.values_mut() {
            sentinel.out = sentinel.out.saturating_sub(1);
        }
        for process in self.processes.values_mut() {
            process.out = process.out.saturating_sub(1);
            process.silent_for = if process.out > 0 {
                process.silent_for + SECONDS
            } else {
                0
            };
        }
        self.write();
        self.replicate();
        self.fail_over();
        self.hear_sentinels();
        if self.away == 0 {
            self.migrate();
        }
    }

    fn replicate(&mut self) {
        for address in self.processes.keys().cloned().collect::<Vec<_>>() {
            let replica = &self.processes[&address];
            let Some(master) = replica.follows.clone() else {
                continue;
            };
            let source = &self.processes[&master];
            let may = replica.answers()
                && replica.broken <= 1
                && source.answers()
                && (source.follows.is_none() || source.link);
            let (keys, offset, was_up) = (source.keys.clone(), source.offset, replica.link);
            let comes_up = may && (was_up || self.chance.percent(60));
            let replica = self.processes.get_mut(&address).unwrap();
            replica.broken = replica.broken.saturating_sub(1);
            replica.link = comes_up;
            if comes_up {
                (replica.keys, replica.offset, replica.link_down_for) = (keys, offset, Some(0));
            } else if let (Some(seconds), false) = (&mut replica.link_down_for, was_up) {
                *seconds += SECONDS;
            }
        }
    }

    /// Sentinels promote a replica that was in touch with its master to the end.
    fn fail_over(&mut self) {
        for id in (1..=6).map(gid) {
            let Some(old) = self.word_of_sentinels(id) else {
                continue;
            };
            let silent_for = self.processes[&old].silent_for;
            // One that was started just now becomes a member long before sentinels know it.
            let known = self.topology.groups.get(&id);
            let is_member = |address: &Address| known.is_none_or(|g| g.servers.iter().any(|s| s.address == *address));
            let was_in_touch = |p: &Process| p.link_down_for.is_some_and(|seconds| seconds <= silent_for);
            let fit = |address: &Address, p: &Process| {
                is_member(address) && p.answers() && p.follows.as_ref() == Some(&old) && was_in_touch(p)
            };
            let fit = self.processes.iter().filter(|(address, p)| fit(address, p));
            let fit: Vec<Address> = fit.map(|(address, _)| address.clone()).collect();
            if silent_for < 3 * SECONDS || fit.is_empty() || !self.chance.percent(40) {
                continue;
            }
            let new = fit[self.chance.index(fit.len())].clone();
            self.processes.get_mut(&new).unwrap().follows = None;
            for process in self
                .processes
                .values_mut()
                .filter(|p| p.answers() && p.follows.as_ref() == Some(&old))
            {
                process.attach(&new);
            }
            for sentinel in self.sentinels.values_mut().filter(|sentinel| sentinel.out == 0) {
                sentinel.watches.insert(id, new.clone());
            }
            for route in self
                .proxies
                .iter_mut()
                .flat_map(|p| &mut p.table)
                .filter(|r| r.group == Some(id))
            {
                route.master = Some(new.clone());
            }
            self.topology
                .proxies
                .iter_mut()
                .for_each(|record| record.switched = true);
            self.replaced.insert(old, new);
        }
        for (old, new) in self.replaced.clone() {
            let is_word = self.word_of_sentinels(group_of(&old)).as_ref() == Some(&new);
            let process = self.processes.get_mut(&old).unwrap();
            if !process.pod || !is_word || process.follows.is_some() {
                self.replaced.remove(&old);
            } else if process.answers() && self.chance.percent(50) {
                process.attach(&new);
            }
        }
    }

    /// The dashboard follows the sentinels, by and by.
    fn hear_sentinels(&mut self) {
        if self.away > 0 || self.topology.sentinels.servers.is_empty() {
            return;
        }
        for id in self.topology.groups.keys().copied().collect::<Vec<_>>() {
            let Some(word) = self.word_of_sentinels(id) else {
                continue;
            };
            if !self.chance.percent(70) {
                continue;
            }
            self.topology.sentinels.masters.insert(id, word.clone());
            let group = self.topology.groups.get_mut(&id).unwrap();
            let index = group.servers.iter().position(|server| server.address == word);
            if let (Some(index @ 1..), None) = (index, group.promoting) {
                group.servers.swap(0, index);
                group.out_of_sync = true;
            }
        }
    }

    fn is_locked(&self, id: GroupId) -> bool {
        self.topology
            .groups
            .get(&id)
            .is_some_and(|group| group.promoting.is_some())
    }

    /// Clients write some keys through a proxy.
    fn write(&mut self) {
        for _ in 0..self.chance.below(4) {
            let slot = self.chance.index(usize::from(SLOT_COUNT) / KEYED) * KEYED;
            let proxy = self.chance.index(self.proxies.len());
            let Route {
                group: Some(group),
                master: Some(master),
                from,
            } = self.proxies[proxy].table[slot].clone()
            else {
                continue;
            };
            if self.is_locked(group) || !self.processes[&master].is_master() {
                continue;
            }
            // A proxy has the source send the key over first.
            let source = from.and_then(|from| self.master_of(from));
            if from.is_some() && source.is_none_or(|source| !self.carry(slot, &source, &master)) {
                continue;
            }
            let count = self.written.get(&slot).copied().unwrap_or(0) + 1;
            self.written.insert(slot, count);
            self.put(&master, slot, Some(count));
        }
    }

    fn master_of(&self, id: GroupId) -> Option<Address> {
        self.topology.groups.get(&id)?.master().cloned()
    }

    /// Changes a key at a master and the replicas that are in touch with it.
    fn put(&mut self, master: &Address, slot: usize, count: Option<u32>) {
        let process = self.processes.get_mut(master).unwrap();
        process.offset += 1;
        let offset = process.offset;
        let has = |(address, process): &(&Address, &mut Process)| {
            *address == master || process.answers() && process.link && process.follows.as_ref() == Some(master)
        };
        for (_, process) in self.processes.iter_mut().filter(has) {
            process.offset = offset;
            match count {
                Some(count) => process.keys.insert(slot, count),
                None => process.keys.remove(&slot),
            };
        }
    }

    fn carry(&mut self, slot: usize, from: &Address, to: &Address) -> bool {
        if !self.processes[from].is_master() || !self.processes[to].is_master() {
            return false;
        }
        if let Some(count) = self.processes[from].keys.get(&slot).copied() {
            self.put(to, slot, Some(count));
            self.put(from, slot, None);
        }
        true
    }

    /// The dashboard's loop, and its executor.
    fn migrate(&mut self) {
        let mut all: Vec<SlotMapping> = self
            .topology
            .slots
            .iter()
            .filter(|slot| slot.moving.is_some())
            .copied()
            .collect();
        all.sort_by_key(|slot| slot.moving.is_some_and(|moving| moving.pending));
        let (mut busy, mut budget) = (BTreeSet::new(), self.chance.below(60));
        for slot in all {
            let (Some(from), Some(moving)) = (slot.group, slot.moving) else {
                continue;
            };
            let is_free = !busy.contains(&from) && !busy.contains(&moving.to) && !self.topology.migrations_disabled;
            if !is_free || budget == 0 {
                continue;
            }
            budget -= 1;
            // Mostly it comes to its end; now and then something is in its way.
            let steps = if self.chance.percent(90) {
                4
            } else {
                self.chance.below(4)
            };
            for _ in 0..steps {
                if self.topology.slots[number(slot.id)].moving.is_some() {
                    self.advance(number(slot.id), from, moving.to);
                }
            }
            if self.topology.slots[number(slot.id)].moving.is_some() {
                busy.extend([from, moving.to]);
            }
        }
    }

    fn advance(&mut self, slot: usize, from: GroupId, to: GroupId) {
        let stage = match self.stages.get(&slot) {
            None => Some(Stage::Preparing),
            Some(Stage::Preparing) => Some(Stage::Migrating),
            Some(Stage::Migrating) => {
                let masters = self.master_of(from).zip(self.master_of(to));
                let is_locked = self.is_locked(from) || self.is_locked(to);
                if is_locked || masters.is_none_or(|(from, to)| !self.carry(slot, &from, &to)) {
                    return;
                }
                Some(Stage::Finished)
            }
            Some(Stage::Finished) => None,
        };
        let mapping = &mut self.topology.slots[slot];
        if let Some(stage) = stage {
            mapping.moving = Some(SlotMove { to, pending: false });
            self.truth[slot] = Some((from, Some(to)));
            self.stages.insert(slot, stage);
        } else {
            (mapping.group, mapping.moving) = (Some(to), None);
            self.truth[slot] = Some((to, None));
            self.stages.remove(&slot);
        }
        self.push(&[slot]);
    }

    /// The coordinator is emptied: a dashboard that comes back knows nothing.
    pub(super) fn lose(&mut self, with_tables: bool) {
        self.topology = Topology {
            slots: empty_slots(),
            ..Topology::default()
        };
        self.stages.clear();
        self.away = u32::try_from(self.chance.below(4)).unwrap();
        if self.written.is_empty() {
            self.truth.fill(None);
        }
        if !with_tables {
            self.proxies
                .iter_mut()
                .for_each(|proxy| proxy.table.fill(Route::default()));
        }
    }

    /// Does a step, up to the call at which the operator dies, if it does.
    pub(super) fn act(&mut self, step: &Step, dies_at: Option<usize>) -> Result<(), String> {
        let kept = self.dump_before(step);
        if let Some(dump) = kept {
            self.dump = Some(dump);
        }
        let calls = |all: usize| dies_at.map_or(all, |at| at.min(all));
        if self.away > 0 && !matches!(step, Step::ForgetGroup(_) | Step::ArmGate(_) | Step::Restart { .. }) {
            return Err("the dashboard is away".into());
        }
        match step {
            Step::CreateGroup(id) => self.create_group(*id)?,
            Step::AddServer { group, server, .. } => self.add_server(*group, server)?,
            Step::RemoveServer { group, server } => self.remove_server(*group, server)?,
            Step::RemoveGroup(id) => {
                if !self.known(*id)?.servers.is_empty() {
                    return Err(format!("group-[{id}] isn't empty"));
                }
                self.topology.groups.remove(id);
            }
            Step::ForgetGroup(id) => {
                self.gates.remove(id);
                if calls(2) > 1 {
                    self.sets.remove(id);
                    self.run_pods();
                }
            }
            Step::ArmGate(groups) => self.gates.extend(groups),
            Step::Attach { group, server } => {
                let master = self.known(*group)?.master().cloned().unwrap();
                let process = self.processes.get_mut(server).unwrap();
                if process.answers() && *server == master {
                    process.follows = None;
                } else if process.answers() {
                    process.attach(&master);
                }
            }
            Step::MoveSlots(moves) => {
                for (slot, to) in &moves[..calls(moves.len())] {
                    self.move_slot(*slot, *to)?;
                }
            }
            Step::CancelMoves(slots) => {
                for slot in &slots[..calls(slots.len())] {
                    let mapping = &mut self.topology.slots[number(*slot)];
                    if !mapping.moving.is_some_and(|moving| moving.pending) {
                        return Err(format!("slot-[{slot}] action isn't pending"));
                    }
                    mapping.moving = None;
                }
            }
            Step::AssignSlots(slots) => self.assign(&slots[..calls(slots.len())], dies_at.is_none())?,
            Step::RestoreSlots(slots) => {
                let owners: Vec<_> = slots.iter().filter_map(|slot| Some((slot.id, slot.group?))).collect();
                self.assign(&owners[..calls(owners.len())], dies_at.is_none())?;
            }
            Step::ResumeMoves => self.topology.migrations_disabled = false,
            Step::MarkReplicas { group, servers, reads } => {
                let count = calls(servers.len());
                self.known(*group)?.out_of_sync = true;
                let known = self.known(*group)?.servers.iter_mut();
                known
                    .filter(|s| servers[..count].contains(&s.address))
                    .for_each(|s| s.is_read = *reads);
                if dies_at.is_none() {
                    self.known(*group)?.out_of_sync = false;
                    self.push_group(*group);
                }
            }
            Step::ResyncGroup(id) => {
                self.known(*id)?.out_of_sync = false;
                self.push_group(*id);
            }
            Step::ResyncGroups => {
                for id in self.topology.groups.keys().copied().collect::<Vec<_>>() {
                    self.push_group(id);
                }
            }
            Step::Promote { group, server } => self.promote(*group, server, dies_at.is_some())?,
            Step::Switchover { group, from, to, .. } => self.switch_over(*group, from, to, dies_at)?,
            Step::Undo(intent) => self.undo(intent)?,
            Step::OnlineProxy(admin) => {
                let known = self.proxies.iter().position(|proxy| proxy.admin == *admin).unwrap();
                self.register(known);
            }
            Step::Listen { proxies, sentinels } => {
                let records = self.topology.proxies.iter_mut();
                for record in records.filter(|record| proxies.iter().any(|(_, token)| *token == record.token)) {
                    record.sentinels = sentinels.iter().map(Address::to_string).collect();
                }
            }
            Step::AddSentinel(address) => {
                self.topology.sentinels.servers.push(address.clone());
                self.topology.sentinels.out_of_sync = true;
            }
            Step::ResyncSentinels => self.resync_sentinels()?,
            Step::Monitor {
                sentinel,
                group,
                master,
            } => {
                self.sentinels
                    .get_mut(sentinel)
                    .unwrap()
                    .watches
                    .insert(*group, master.clone());
            }
            other => return Err(format!("not in this model: {other:?}")),
        }
        Ok(())
    }

    /// What `dump::foresee` and `dump::restoring` keep before a step.
    fn dump_before(&self, step: &Step) -> Option<Dump> {
        match step {
            Step::MoveSlots(moves) => dump_with(&self.desired(false), &self.observe(), moves),
            Step::RestoreSlots(slots) => {
                let mut dump = self.dump.clone()?;
                for slot in slots {
                    dump.slots[number(slot.id)] = *slot;
                }
                dump.restoring = true;
                Some(dump)
            }
            _ => None,
        }
    }

    fn known(&mut self, id: GroupId) -> Result<&mut Group, String> {
        self.topology
            .groups
            .get_mut(&id)
            .ok_or_else(|| format!("group-[{id}] doesn't exist"))
    }

    fn create_group(&mut self, id: GroupId) -> Result<(), String> {
        if self.topology.groups.contains_key(&id) {
            return Err(format!("group-[{id}] already exists"));
        }
        let group = Group {
            id,
            servers: Vec::new(),
            promoting: None,
            out_of_sync: false,
        };
        self.topology.groups.insert(id, group);
        Ok(())
    }

    fn add_server(&mut self, id: GroupId, address: &Address) -> Result<(), String> {
        let mut all = self.topology.groups.values().flat_map(|group| &group.servers);
        if all.any(|server| server.address == *address) {
            return Err(format!("server-[{address}] already exists"));
        }
        if !self.processes[address].answers() {
            return Err(format!("dial tcp {address}: i/o timeout"));
        }
        let group = self.known(id)?;
        if group.promoting.is_some() {
            return Err(format!("group-[{id}] is promoting"));
        }
        let server = Server {
            address: address.clone(),
            action: ActionState::Idle,
            is_read: false,
        };
        group.servers.push(server);
        self.topology.sentinels.out_of_sync = !self.topology.sentinels.servers.is_empty();
        Ok(())
    }

    fn remove_server(&mut self, id: GroupId, address: &Address) -> Result<(), String> {
        let is_used = self
            .topology
            .slots
            .iter()
            .any(|slot| slot.group == Some(id) || slot.moves_with(id));
        let group = self.known(id)?;
        if group.promoting.is_some() {
            return Err(format!("group-[{id}] is promoting"));
        }
        let index = group.servers.iter().position(|server| server.address == *address);
        match index {
            None => return Err(format!("group-[{id}] doesn't have server-[{address}]")),
            Some(0) if is_used || group.servers.len() > 1 => {
                return Err(format!("group-[{id}] can't remove master, still in use"));
            }
            Some(index) => drop(group.servers.remove(index)),
        }
        self.topology.sentinels.out_of_sync = !self.topology.sentinels.servers.is_empty();
        Ok(())
    }

    fn move_slot(&mut self, slot: SlotId, to: GroupId) -> Result<(), String> {
        if self.known(to)?.servers.is_empty() {
            return Err(format!("group-[{to}] is empty"));
        }
        let mapping = &mut self.topology.slots[number(slot)];
        if mapping.moving.is_some() {
            return Err(format!("slot-[{slot}] action already exists"));
        }
        if mapping.group == Some(to) {
            return Err(format!("slot-[{slot}] already in group-[{to}]"));
        }
        mapping.moving = Some(SlotMove { to, pending: true });
        Ok(())
    }

    /// A dashboard that dies in it has told no proxy.
    fn assign(&mut self, slots: &[(SlotId, GroupId)], is_told: bool) -> Result<(), String> {
        for (slot, to) in slots {
            let group = self.known(*to)?;
            if group.servers.is_empty() {
                return Err(format!("group-[{to}] is empty"));
            }
            group.out_of_sync = true;
            self.topology.slots[number(*slot)].group = Some(*to);
        }
        let told: Vec<usize> = slots.iter().map(|(slot, _)| number(*slot)).collect();
        if is_told {
            self.push(&told);
        }
        Ok(())
    }

    fn promote(&mut self, id: GroupId, to: &Address, fails: bool) -> Result<(), String> {
        let has_sentinels = !self.topology.sentinels.servers.is_empty();
        let group = self.known(id)?;
        let Some(index) = group.servers.iter().position(|server| server.address == *to) else {
            return Err(format!("group-[{id}] doesn't have server-[{to}]"));
        };
        match group.promoting {
            None if index == 0 => return Err(format!("group-[{id}] can't promote master")),
            Some(other) if other != index => return Err(format!("group-[{id}] is promoting index = {other}")),
            _ => {}
        }
        if fails {
            group.promoting = Some(index);
            return Err("resync slots failed".into());
        }
        if index > 0 {
            let new = group.servers.remove(index);
            let old = group.servers.remove(0);
            group.servers.insert(0, new);
            group.servers.push(old);
        }
        (group.promoting, group.out_of_sync) = (None, false);
        self.topology.sentinels.out_of_sync = has_sentinels;
        for sentinel in self
            .sentinels
            .values_mut()
            .filter(|sentinel| has_sentinels && sentinel.out == 0)
        {
            sentinel.watches.remove(&id);
        }
        let process = self.processes.get_mut(to).unwrap();
        if process.answers() {
            process.follows = None;
        }
        self.push_group(id);
        Ok(())
    }

    /// Fenced and waited for: the new master has all that the old one had. It may die with the intent written, with the
    /// promotion begun, or before the old master follows.
    fn switch_over(&mut self, id: GroupId, from: &Address, to: &Address, dies_at: Option<usize>) -> Result<(), String> {
        self.intent = Some(Intent {
            group: id,
            from: from.clone(),
            to: to.clone(),
        });
        self.topology.migrations_disabled = true;
        let is_in_touch = self.processes[to].link && self.processes[from].is_master();
        if !is_in_touch {
            let tries = self.failed_moves.get(&id).map_or(0, |(tries, _)| *tries);
            self.failed_moves.insert(id, (tries + 1, 0));
            (self.intent, self.topology.migrations_disabled) = (None, false);
            return Err("the replica isn't in step".into());
        }
        match dies_at {
            Some(0) => return Err("it died".into()),
            Some(1) => return self.promote(id, to, true),
            _ => self.promote(id, to, false)?,
        }
        if dies_at.is_some() {
            return Err("it died".into());
        }
        self.processes.get_mut(from).unwrap().attach(to);
        self.failed_moves.remove(&id);
        (self.intent, self.topology.migrations_disabled) = (None, self.chance.percent(20));
        Ok(())
    }

    fn undo(&mut self, intent: &Intent) -> Result<(), String> {
        let tries = self.failed_moves.get(&intent.group).map_or(0, |(tries, _)| *tries);
        self.failed_moves.insert(intent.group, (tries + 1, 0));
        let group = self.known(intent.group)?;
        let is_done = group.master() == Some(&intent.to);
        let from = self.processes.get_mut(&intent.from).unwrap();
        if is_done && from.answers() {
            from.attach(&intent.to);
        }
        (self.intent, self.topology.migrations_disabled) = (None, false);
        Ok(())
    }

    fn resync_sentinels(&mut self) -> Result<(), String> {
        let Sentinels { servers, .. } = &self.topology.sentinels;
        if servers.iter().any(|sentinel| self.sentinels[sentinel].out > 0) {
            return Err("dial tcp: i/o timeout".into());
        }
        let masters = self.topology.groups.values();
        let masters: BTreeMap<GroupId, Address> = masters.filter_map(|g| Some((g.id, g.master()?.clone()))).collect();
        for sentinel in servers {
            self.sentinels.get_mut(sentinel).unwrap().watches.clone_from(&masters);
        }
        let told: Vec<String> = servers.iter().map(Address::to_string).collect();
        self.topology
            .proxies
            .iter_mut()
            .for_each(|record| record.sentinels.clone_from(&told));
        self.topology.sentinels.masters = masters;
        self.topology.sentinels.out_of_sync = false;
        Ok(())
    }

    /// The topology as somebody built it before, with every slot where `owner` says.
    pub(super) fn build(&mut self, owner: impl Fn(usize) -> GroupId) {
        self.apply_wish();
        for (id, servers) in self.addresses.servers.clone() {
            self.create_group(id).unwrap();
            for address in &servers {
                self.add_server(id, address).unwrap();
                if *address != servers[0] {
                    self.processes.get_mut(address).unwrap().attach(&servers[0]);
                }
            }
        }
        self.topology.sentinels.servers.clone_from(&self.addresses.sentinels);
        if !self.addresses.sentinels.is_empty() {
            self.resync_sentinels().unwrap();
        }
        let slots: Vec<_> = SlotId::all().map(|slot| (slot, owner(number(slot)))).collect();
        self.assign(&slots, true).unwrap();
        self.gates = self.topology.groups.keys().copied().collect();
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
    }
}
