//! What a sentinel knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::failover::Failover;
use crate::resp::Value;

/// Between two pings of one instance.
pub(super) const PING: Duration = Duration::from_secs(1);
/// Between two looks at one instance's INFO.
pub(super) const INFO: Duration = Duration::from_secs(10);
/// Between two hellos.
pub(super) const HELLO: Duration = Duration::from_secs(2);

/// A server or a sentinel that is watched.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    /// Since when it doesn't answer: the time of its last good answer.
    pub last_ok: Instant,
    pub next_ping: Instant,
    pub next_info: Instant,
    pub next_hello: Instant,
    /// A conversation is under way.
    pub is_busy: bool,
    pub is_down: bool,
    pub run_id: String,
    /// When its INFO came last.
    pub info_at: Option<Instant>,
    pub reports_master: bool,
    /// Since when it reports this role.
    pub role_since: Instant,
    /// Whom it follows, as it says, and since when.
    pub follows: String,
    pub follows_since: Instant,
    pub link_up: bool,
    pub link_down: Duration,
    pub priority: i64,
    pub offset: i64,
    /// Which re-pointing after a failover it is in.
    pub is_told: bool,
}

impl Instance {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            last_ok: now,
            next_ping: now,
            next_info: now,
            next_hello: now,
            is_busy: false,
            is_down: false,
            run_id: String::new(),
            info_at: None,
            reports_master: false,
            role_since: now,
            follows: String::new(),
            follows_since: now,
            link_up: false,
            link_down: Duration::ZERO,
            priority: 100,
            offset: 0,
            is_told: false,
        }
    }
}

/// Another sentinel of a master.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub address: String,
    pub instance: Instance,
    pub last_hello: Instant,
    /// When it said that the master is down.
    pub agrees_at: Option<Instant>,
    /// Whom it votes for, and in which epoch.
    pub vote: Option<(String, u64)>,
    pub next_ask: Instant,
}

/// A master that is watched, with its replicas and its other sentinels.
#[derive(Clone, Debug)]
pub(super) struct Master {
    pub address: String,
    pub quorum: usize,
    pub parallel_syncs: usize,
    pub down_after: Duration,
    pub failover_timeout: Duration,
    pub password: String,
    pub config_epoch: u64,
    pub instance: Instance,
    pub replicas: BTreeMap<String, Instance>,
    /// By their ids.
    pub peers: BTreeMap<String, Peer>,
    pub is_objectively_down: bool,
    pub failover: Failover,
    /// No failover of ours before.
    pub not_before: Option<Instant>,
    /// Our vote: for whom, in which epoch.
    pub vote: (String, u64),
    /// Since when the address is this one.
    pub since: Instant,
}

/// Everything.
pub(super) struct State {
    pub my_id: String,
    pub my_ip: String,
    pub epoch: u64,
    pub masters: BTreeMap<String, Master>,
    /// Servers whose hellos are heard, by their masters' names.
    pub heard: BTreeSet<(String, String)>,
    pub subscribers: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    /// Draws that look like chance.
    pub chance: fastrand::Rng,
    pub exit: Option<i32>,
}

/// Something to say to somebody.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// PING, and the others that are due.
    Look {
        master: String,
        address: String,
        password: String,
        info: bool,
        hello: Option<String>,
    },
    /// Hear the hellos of others.
    Subscribe {
        master: String,
        address: String,
        password: String,
    },
    /// PING another sentinel.
    Peer {
        master: String,
        id: String,
        address: String,
    },
    /// Ask it whether the master is down, and for its vote if there is an election.
    Ask {
        master: String,
        id: String,
        address: String,
        words: Vec<String>,
    },
    /// Have a server follow somebody, or nobody.
    Slaveof {
        address: String,
        password: String,
        to: Option<String>,
    },
}

impl State {
    pub(super) fn new(id: &str, ip: &str) -> Self {
        let seed = id
            .bytes()
            .fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self {
            my_id: id.to_owned(),
            my_ip: ip.to_owned(),
            epoch: 0,
            masters: BTreeMap::new(),
            heard: BTreeSet::new(),
            subscribers: Vec::new(),
            chance: fastrand::Rng::with_seed(seed),
            exit: None,
        }
    }

    /// Tells subscribers.
    pub(super) fn event(&mut self, channel: &str, text: &str) {
        let parts = [
            Value::bulk("message"),
            Value::bulk(channel.to_owned()),
            Value::bulk(text.to_owned()),
        ];
        let mut bytes = BytesMut::new();
        Value::Array(Some(parts.to_vec())).encode(&mut bytes);
        let bytes = bytes.freeze();
        self.subscribers
            .retain(|(name, out)| name != channel || out.send(bytes.clone()).is_ok());
    }

    /// Everything that is due.
    pub(super) fn tick(&mut self) -> Vec<Task> {
        let mut tasks = Vec::new();
        let names: Vec<String> = self.masters.keys().cloned().collect();
        for name in names {
            self.look(&name, &mut tasks);
            self.judge(&name);
            self.fail_over(&name, &mut tasks);
            self.mend_roles(&name, &mut tasks);
        }
        tasks
    }

    fn look(&mut self, name: &str, tasks: &mut Vec<Task>) {
        let now = Instant::now();
        let (id, ip, epoch) = (self.my_id.clone(), self.my_ip.clone(), self.epoch);
        let Some(master) = self.masters.get_mut(name) else {
            return;
        };
        let hello = |address: &str, config_epoch: u64| {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, "6379"));
            format!("{ip},26379,{id},{epoch},{name},{host},{port},{config_epoch}")
        };
        let hello = hello(&master.announced(), master.config_epoch);
        // A replica is looked at each second while something is going on.
        let is_restless = master.is_objectively_down || master.instance.is_down || master.failover.is_on();
        let info = |is_master: bool| if is_restless && !is_master { PING } else { INFO };
        let address = master.address.clone();
        let password = master.password.clone();
        let all = std::iter::once((address, true, &mut master.instance)).chain(
            master
                .replicas
                .iter_mut()
                .map(|(address, replica)| (address.clone(), false, replica)),
        );
        for (address, is_master, instance) in all {
            let last = instance.info_at.unwrap_or(now);
            instance.next_info = instance.next_info.min(last + info(is_master));
            // A failover chooses by what replicas say when the master is down: they are asked at once.
            if instance.is_busy || instance.next_ping.min(instance.next_info) > now {
                continue;
            }
            instance.is_busy = true;
            instance.next_ping = now + PING;
            let is_info = instance.next_info <= now;
            let is_hello = instance.next_hello <= now;
            if is_info {
                instance.next_info = now + info(is_master);
            }
            if is_hello {
                instance.next_hello = now + HELLO;
            }
            if self.heard.insert((name.to_owned(), address.clone())) {
                tasks.push(Task::Subscribe {
                    master: name.to_owned(),
                    address: address.clone(),
                    password: password.clone(),
                });
            }
            tasks.push(Task::Look {
                master: name.to_owned(),
                address,
                password: password.clone(),
                info: is_info,
                hello: is_hello.then(|| hello.clone()),
            });
        }
        for (id, peer) in &mut master.peers {
            if !peer.instance.is_busy && peer.instance.next_ping <= now {
                peer.instance.is_busy = true;
                peer.instance.next_ping = now + PING;
                tasks.push(Task::Peer {
                    master: name.to_owned(),
                    id: id.clone(),
                    address: peer.address.clone(),
                });
            }
        }
    }

    /// Who is down, as far as this sentinel can tell, and whether enough others say the same.
    fn judge(&mut self, name: &str) {
        let Some(master) = self.masters.get_mut(name) else {
            return;
        };
        let down_after = master.down_after;
        let is_silent = |instance: &Instance| instance.last_ok.elapsed() > down_after;
        for replica in master.replicas.values_mut() {
            replica.is_down = is_silent(replica);
        }
        for peer in master.peers.values_mut() {
            peer.instance.is_down = is_silent(&peer.instance);
        }
        // A master that says for long that it is a replica is none.
        let lies = master.instance.info_at.is_some()
            && !master.instance.reports_master
            && master.instance.role_since.elapsed() > down_after + 2 * INFO;
        let was_down = master.instance.is_down;
        master.instance.is_down = is_silent(&master.instance) || lies;
        let recently = |peer: &&Peer| peer.agrees_at.is_some_and(|at| at.elapsed() < 5 * PING);
        let agree = 1 + master.peers.values().filter(recently).count();
        master.is_objectively_down = master.instance.is_down && agree >= master.quorum;
        let line = format!("master {name} {}", master.address.replace(':', " "));
        if master.instance.is_down != was_down {
            let word = if was_down { "-sdown" } else { "+sdown" };
            self.event(word, &line);
        }
    }

    /// Servers that have another role than they should.
    fn mend_roles(&mut self, name: &str, tasks: &mut Vec<Task>) {
        let Some(master) = self.masters.get_mut(name) else {
            return;
        };
        let is_sane = !master.instance.is_down
            && master.instance.reports_master
            && master.instance.info_at.is_some_and(|at| at.elapsed() < 2 * INFO);
        if !is_sane || master.failover.is_on() {
            return;
        }
        let (address, password) = (master.address.clone(), master.password.clone());
        let patience = master.failover_timeout;
        let since = master.since;
        for (replica, instance) in &mut master.replicas {
            let is_fresh = instance.info_at.is_some_and(|at| at.elapsed() < INFO + 2 * PING);
            let is_stray =
                instance.reports_master && instance.role_since.elapsed() > 4 * HELLO && since.elapsed() > 4 * HELLO;
            let is_lost = !instance.reports_master
                && instance.follows != address
                && instance.follows_since.elapsed() > patience
                && since.elapsed() > patience;
            if is_fresh && !instance.is_down && (is_stray || is_lost) {
                // Once, until its INFO says something else.
                instance.role_since = Instant::now();
                instance.follows_since = Instant::now();
                tasks.push(Task::Slaveof {
                    address: replica.clone(),
                    password: password.clone(),
                    to: Some(address.clone()),
                });
            }
        }
    }
}

impl Master {
    pub(super) fn new(address: String, quorum: usize) -> Self {
        Self {
            address,
            quorum,
            parallel_syncs: 1,
            down_after: Duration::from_secs(30),
            failover_timeout: Duration::from_secs(180),
            password: String::new(),
            config_epoch: 0,
            instance: Instance::new(),
            replicas: BTreeMap::new(),
            peers: BTreeMap::new(),
            is_objectively_down: false,
            failover: Failover::None,
            not_before: None,
            vote: (String::new(), 0),
            since: Instant::now(),
        }
    }

    /// What others are told: the promoted one, as soon as there is one.
    fn announced(&self) -> String {
        self.failover.promoted().unwrap_or(&self.address).to_owned()
    }

    /// The master is another one now; who was it becomes a replica.
    pub(super) fn turn_to(&mut self, address: &str) {
        let mut replicas: Vec<String> = self.replicas.keys().cloned().collect();
        replicas.push(std::mem::replace(&mut self.address, address.to_owned()));
        self.replicas = replicas
            .into_iter()
            .filter(|replica| replica != address)
            .map(|replica| (replica, Instance::new()))
            .collect();
        self.instance = Instance::new();
        self.is_objectively_down = false;
        self.failover = Failover::None;
        self.since = Instant::now();
        for peer in self.peers.values_mut() {
            (peer.agrees_at, peer.vote) = (None, None);
        }
    }
}
