//! Codis, Kubernetes and what the operator remembers, as far as the rules of slots and groups see them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::{
    api::CodisCluster,
    build::Addresses,
    domain::{
        Address, Dump, Group, GroupId, Intent, ProxyRecord, Route, SLOT_COUNT, SlotId, SlotMapping, Topology, ports,
    },
    validate::{ValidCluster, validate},
};

use super::Story;

/// So many seconds pass between two looks.
pub(super) const SECONDS: u64 = 3;
/// Every so many slots one has a key.
pub(super) const KEYED: usize = 16;
/// So many groups, and servers of each, there may be.
pub(super) const GROUPS: u16 = 6;
pub(super) const SERVERS: u16 = 3;

/// A codis-server and its volume.
#[derive(Default)]
pub(super) struct Process {
    /// Whether its pod exists.
    pub pod: bool,
    /// For how many looks it won't answer yet, and for how many seconds it hasn't.
    pub out: u32,
    pub silent_for: u64,
    pub follows: Option<Address>,
    /// The address that it tells its master.
    pub announced: Option<Address>,
    pub link: bool,
    /// For how many looks its link stays down.
    pub broken: u32,
    pub link_down_for: Option<u64>,
    /// The slots that it holds a key of, and how often that was written.
    pub keys: BTreeMap<usize, u32>,
    pub offset: u64,
}

impl Process {
    pub(super) fn answers(&self) -> bool {
        self.pod && self.out == 0
    }

    pub(super) fn is_master(&self) -> bool {
        self.answers() && self.follows.is_none()
    }

    /// A full copy is on its way: what was there is gone.
    pub(super) fn attach(&mut self, master: &Address) {
        self.follows = Some(master.clone());
        self.link = false;
        self.link_down_for = None;
        self.keys.clear();
    }
}

/// How far a slot's migration has come (contract §6.1).
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Stage {
    /// No proxy knows.
    Preparing,
    Migrating,
    Finished,
}

pub(super) struct Sentinel {
    pub out: u32,
    pub watches: BTreeMap<GroupId, Address>,
}

pub(super) struct Proxy {
    pub admin: Address,
    pub token: String,
    pub table: Vec<Route>,
}

impl Proxy {
    /// The pod that takes a place after others that had it.
    pub(super) fn new(others: u16, place: usize) -> Self {
        Self {
            admin: Address::new(format!("10.244.{others}.{place}"), ports::PROXY_ADMIN),
            token: format!("token-{others}-{place}"),
            table: vec![Route::default(); usize::from(SLOT_COUNT)],
        }
    }
}

/// What the status says; it may be lost.
#[derive(Clone, Default)]
pub(super) struct Status {
    pub balanced: BTreeSet<GroupId>,
    pub groups: BTreeMap<GroupId, Vec<Address>>,
}

/// A cluster and the operator's surroundings.
pub(super) struct Life {
    pub chance: fastrand::Rng,
    pub cluster: ValidCluster,
    pub addresses: Addresses,
    pub persistent: bool,
    pub topology: Topology,
    pub stages: BTreeMap<usize, Stage>,
    /// For how many looks the dashboard is away.
    pub away: u32,
    /// Every server by its address. At addresses that were taken nobody answers any more.
    pub processes: BTreeMap<Address, Process>,
    /// How often a server's address was taken.
    pub taken: BTreeMap<(GroupId, u16), u16>,
    pub sentinels: BTreeMap<Address, Sentinel>,
    pub proxies: Vec<Proxy>,
    /// How many proxies have died.
    pub dead_proxies: u16,
    pub sets: BTreeMap<GroupId, u16>,
    pub gates: BTreeSet<GroupId>,
    pub intent: Option<Intent>,
    pub failed_moves: BTreeMap<GroupId, (u32, u64)>,
    /// Masters that the sentinels replaced while they were silent.
    pub replaced: BTreeMap<Address, Address>,
    pub status: Status,
    pub dump: Option<Dump>,
    /// Where each slot was last known to be, and where it is on its way to.
    pub truth: Vec<Option<(GroupId, Option<GroupId>)>>,
    /// How often each slot's key was written.
    pub written: BTreeMap<usize, u32>,
}

pub(super) fn gid(id: u16) -> GroupId {
    GroupId::try_from(u64::from(id)).unwrap()
}

/// A server's address after it was taken so many times.
pub(super) fn server(group: GroupId, ordinal: u16, taken: u16) -> Address {
    Address::new(format!("10.{}.{group}.{ordinal}", 96 + taken), ports::SERVER)
}

pub(super) fn ordinal_of(address: &Address) -> u16 {
    address.host().rsplit('.').next().unwrap().parse().unwrap()
}

pub(super) fn group_of(address: &Address) -> GroupId {
    gid(address.host().split('.').nth(2).unwrap().parse().unwrap())
}

pub(super) fn number(slot: SlotId) -> usize {
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

/// Every server that there may be.
fn all_servers() -> impl Iterator<Item = Address> {
    (1..=GROUPS).flat_map(|group| (0..SERVERS).map(move |ordinal| server(gid(group), ordinal, 0)))
}

/// Two groups of two servers, two proxies, three sentinels; the tests of the rules begin with it, too.
pub(crate) fn a_cluster() -> ValidCluster {
    let spec: CodisCluster = serde_json::from_value(json!({
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
    validate(&spec).unwrap()
}

/// Whether it happens that would happen in so many of a hundred cases.
pub(super) fn percent(chance: &mut fastrand::Rng, of_a_hundred: u8) -> bool {
    chance.u8(..100) < of_a_hundred
}

impl Life {
    /// Pods without a topology.
    pub(super) fn fresh(story: &Story) -> Self {
        let mut cluster = a_cluster();
        let sentinels: Vec<Address> = match story.with_sentinels {
            true => (0..3)
                .map(|n| Address::new(format!("10.96.0.1{n}"), ports::SENTINEL))
                .collect(),
            false => Vec::new(),
        };
        if !story.with_sentinels {
            cluster.sentinel = None;
        }
        (cluster.groups, cluster.group_size) = (story.groups, story.size);
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
            chance: fastrand::Rng::with_seed(story.seed),
            cluster,
            addresses: Addresses {
                dashboard: Address::new("10.96.0.1", ports::DASHBOARD),
                servers: BTreeMap::new(),
                leaving: BTreeMap::new(),
                sentinels: sentinels.clone(),
                inherited: BTreeMap::new(),
            },
            persistent: story.persistent,
            topology: Topology {
                slots: empty_slots(),
                ..Topology::default()
            },
            stages: BTreeMap::new(),
            away: 0,
            processes: all_servers().map(|address| (address, Process::default())).collect(),
            taken: BTreeMap::new(),
            sentinels: sentinels.iter().map(watch).collect(),
            proxies: vec![Proxy::new(0, 1), Proxy::new(0, 2)],
            dead_proxies: 0,
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
            let address = |ordinal: u16| self.address(id, ordinal);
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

    /// A server's address now.
    pub(super) fn address(&self, id: GroupId, ordinal: u16) -> Address {
        server(id, ordinal, self.taken.get(&(id, ordinal)).copied().unwrap_or(0))
    }

    /// One of all servers there may be, by its address now.
    pub(super) fn nth(&self, index: usize) -> Address {
        let first = all_servers().nth(index).unwrap();
        self.address(group_of(&first), ordinal_of(&first))
    }

    pub(super) fn is_current(&self, address: &Address) -> bool {
        self.address(group_of(address), ordinal_of(address)) == *address
    }

    /// Somebody else took a server's address, and its Service has another one.
    pub(super) fn take_address(&mut self, old: &Address) {
        let (id, ordinal) = (group_of(old), ordinal_of(old));
        *self.taken.entry((id, ordinal)).or_default() += 1;
        let process = self.processes.insert(old.clone(), Process::default());
        self.processes
            .insert(self.address(id, ordinal), process.unwrap_or_default());
    }

    pub(super) fn run_pods(&mut self) {
        let wished = |address: &Address| {
            self.sets
                .get(&group_of(address))
                .is_some_and(|n| ordinal_of(address) < *n && self.is_current(address))
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
    pub(super) fn start(&mut self, address: &Address) {
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
            announced: Some(address.clone()),
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
    pub(super) fn word_of_sentinels(&self, id: GroupId) -> Option<Address> {
        let answering = || self.sentinels.values().filter(|sentinel| sentinel.out == 0);
        let named: Vec<&Address> = answering().filter_map(|sentinel| sentinel.watches.get(&id)).collect();
        let is_word =
            |address: &&&Address| named.iter().filter(|other| other == address).count() * 2 > self.sentinels.len();
        named.iter().find(is_word).map(|address| (**address).clone())
    }

    pub(super) fn register(&mut self, proxy: usize) {
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

    /// Whether a proxy is registered that is no more: what all of them have to be told fails (contract §6).
    pub(super) fn has_dead_record(&self) -> bool {
        let is_alive = |record: &ProxyRecord| self.proxies.iter().any(|proxy| proxy.token == record.token);
        !self.topology.proxies.iter().all(is_alive)
    }

    /// A proxy dies: another pod takes its place, which knows nothing.
    pub(super) fn kill_proxy(&mut self, place: usize) {
        self.dead_proxies += 1;
        let token = std::mem::replace(&mut self.proxies[place], Proxy::new(self.dead_proxies, place)).token;
        let records = self.topology.proxies.iter_mut();
        for record in records.filter(|record| record.token == token) {
            (record.online, record.error) = (false, Some("connection refused".to_owned()));
        }
    }

    /// What the dashboard would tell a proxy of a slot.
    pub(super) fn route(&self, slot: usize) -> Route {
        let mapping = &self.topology.slots[slot];
        let (group, from) = match (self.stages.get(&slot), mapping.moving) {
            (Some(Stage::Migrating), Some(moving)) => (Some(moving.to), mapping.group),
            (Some(Stage::Finished), Some(moving)) => (Some(moving.to), None),
            _ => (mapping.group, None),
        };
        let master = group.and_then(|group| self.topology.groups.get(&group)?.master().cloned());
        Route {
            group,
            master,
            from,
            locked: false,
        }
    }

    pub(super) fn push(&mut self, slots: &[usize]) {
        let routes: Vec<Route> = slots.iter().map(|slot| self.route(*slot)).collect();
        let records = &self.topology.proxies;
        let is_told = |proxy: &&mut Proxy| records.iter().any(|record| record.token == proxy.token);
        for proxy in self.proxies.iter_mut().filter(is_told) {
            for (slot, route) in slots.iter().zip(&routes) {
                proxy.table[*slot] = route.clone();
            }
        }
    }

    pub(super) fn push_group(&mut self, id: GroupId) {
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

    /// Whether all servers answer, and each group has one master with keys at most.
    pub(super) fn has_clear_masters(&self) -> bool {
        let mut running = self.processes.values().filter(|process| process.pod);
        let has_keys = |(_, process): &(&Address, &Process)| process.is_master() && !process.keys.is_empty();
        let masters = self
            .processes
            .iter()
            .filter(has_keys)
            .map(|(address, _)| group_of(address));
        let groups: BTreeSet<GroupId> = masters.clone().collect();
        running.all(Process::answers) && masters.count() == groups.len()
    }

    /// The coordinator is emptied: a dashboard that comes back knows nothing.
    pub(super) fn lose(&mut self, with_tables: bool) {
        self.topology = Topology {
            slots: empty_slots(),
            ..Topology::default()
        };
        self.stages.clear();
        self.away = self.chance.u32(..4);
        if self.written.is_empty() {
            self.truth.fill(None);
        }
        if !with_tables {
            self.proxies
                .iter_mut()
                .for_each(|proxy| proxy.table.fill(Route::default()));
        }
    }

    /// The topology as somebody built it before, with every slot where `owner` says.
    pub(super) fn build(&mut self, owner: impl Fn(u16) -> GroupId) {
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
        let slots: Vec<_> = SlotId::all().map(|slot| (slot, owner(slot.get()))).collect();
        self.assign(&slots, true).unwrap();
        self.gates = self.topology.groups.keys().copied().collect();
    }
}
