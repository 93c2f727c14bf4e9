//! What a sentinel knows: masters, their replicas, the other sentinels. Times are milliseconds since 1970, 0 is never.

use std::collections::{BTreeMap, VecDeque};

use super::super::clients::Clients;
use super::super::conf::Conf;
use super::super::disk::Disk;
use super::super::{Chance, Clock};
use super::links::Wire;
use crate::host::Files;

/// What a link was asked, so that its replies are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Ping,
    Info,
    IsDown,
    Other,
}

/// Whom a master's sentinel looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Master,
    /// By `ip:port`.
    Replica(String),
    /// By its id.
    Sentinel(String),
}

/// How far a replica has come in following the new master.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reconfigured {
    #[default]
    No,
    Sent,
    InProgress,
    Done,
}

/// A server or a sentinel that is looked at.
#[derive(Default)]
pub(super) struct Instance {
    pub(super) ip: String,
    pub(super) port: u16,
    pub(super) runid: String,
    pub(super) commands: Option<Wire>,
    pub(super) hellos: Option<Wire>,
    pub(super) pending: VecDeque<Asked>,
    pub(super) last_connect: i64,
    pub(super) connected: i64,
    pub(super) hellos_connected: i64,
    pub(super) hellos_heard: i64,
    /// Of the oldest ping without an answer.
    pub(super) unanswered: i64,
    pub(super) last_ping: i64,
    pub(super) last_pong: i64,
    /// Of the last answer that says that all is well.
    pub(super) available: i64,
    pub(super) last_published: i64,
    pub(super) down_since: i64,
    pub(super) informed: i64,
    /// Whether it says that it is a master.
    pub(super) says_master: bool,
    pub(super) role_since: i64,
    pub(super) conf_since: i64,
    pub(super) its_master: (String, u16),
    pub(super) its_link_up: bool,
    pub(super) its_link_down_ms: i64,
    pub(super) priority: i64,
    pub(super) offset: u64,
    pub(super) reconfigured: Reconfigured,
    pub(super) reconfigured_at: i64,
    /// Of a sentinel: what it said of the master and for whom it voted.
    pub(super) thinks_down: bool,
    pub(super) vote: String,
    pub(super) vote_epoch: u64,
    pub(super) answered: i64,
    pub(super) greeted: i64,
}

/// The steps of a failover (`sentinel.c`, `SENTINEL_FAILOVER_STATE_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    #[default]
    None,
    WaitStart,
    SelectReplica,
    SendNoOne,
    WaitPromotion,
    Reconfigure,
    UpdateConfig,
}

/// A failover under way.
#[derive(Default)]
pub(super) struct Failover {
    pub(super) step: Step,
    pub(super) since: i64,
    pub(super) started: i64,
    pub(super) epoch: u64,
    pub(super) is_forced: bool,
    pub(super) promoted: Option<String>,
}

/// A master and all around it.
#[derive(Default)]
pub(super) struct Master {
    pub(super) name: String,
    pub(super) own: Instance,
    pub(super) replicas: BTreeMap<String, Instance>,
    pub(super) sentinels: BTreeMap<String, Instance>,
    pub(super) quorum: usize,
    pub(super) parallel: usize,
    pub(super) down_after: i64,
    pub(super) failover_timeout: i64,
    pub(super) password: String,
    pub(super) config_epoch: u64,
    pub(super) leader: String,
    pub(super) leader_epoch: u64,
    pub(super) objectively_down_since: i64,
    pub(super) failover: Failover,
}

/// A sentinel.
pub(super) struct Watcher {
    pub(super) clients: Clients<()>,
    pub(super) disk: Disk,
    pub(super) conf_path: String,
    pub(super) life: u64,
    pub(super) base: Conf,
    pub(super) clock: Clock,
    pub(super) chance: Chance,
    pub(super) myid: String,
    /// `announce-ip`, else the end of its own connections.
    pub(super) ip: String,
    pub(super) local_ip: String,
    pub(super) port: u16,
    pub(super) announced_port: u16,
    pub(super) epoch: u64,
    pub(super) masters: BTreeMap<String, Master>,
    pub(super) tilt_since: i64,
    pub(super) last_tick: i64,
    pub(super) serial: u64,
    pub(super) unsaved: bool,
    pub(super) started: i64,
    pub(super) events: Vec<(i64, String, String)>,
}

impl Instance {
    pub(super) fn new(ip: &str, port: u16, now: i64) -> Self {
        Self {
            ip: ip.into(),
            port,
            unanswered: now,
            last_pong: now,
            available: now,
            role_since: now,
            conf_since: now,
            hellos_heard: now,
            priority: 100,
            ..Self::default()
        }
    }

    pub(super) fn addr(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }

    /// Neither of its links is down.
    pub(super) fn is_linked(&self, who: &Who) -> bool {
        self.commands.is_some() && (self.hellos.is_some() || matches!(who, Who::Sentinel(_)))
    }

    pub(super) fn is_down(&self) -> bool {
        self.down_since != 0
    }

    pub(super) fn unlink(&mut self) {
        self.commands = None;
        self.hellos = None;
        self.pending.clear();
    }
}

impl Master {
    pub(super) fn new(name: &str, ip: &str, port: u16, quorum: usize, now: i64) -> Self {
        Self {
            name: name.into(),
            own: Instance {
                says_master: true,
                ..Instance::new(ip, port, now)
            },
            quorum,
            parallel: 1,
            down_after: 30_000,
            failover_timeout: 180_000,
            ..Self::default()
        }
    }

    pub(super) fn at(&mut self, who: &Who) -> Option<&mut Instance> {
        match who {
            Who::Master => Some(&mut self.own),
            Who::Replica(addr) => self.replicas.get_mut(addr),
            Who::Sentinel(id) => self.sentinels.get_mut(id),
        }
    }

    /// The master, the other sentinels, the replicas: in this order they are looked at.
    pub(super) fn everybody(&self) -> Vec<Who> {
        let sentinels = self.sentinels.keys().cloned().map(Who::Sentinel);
        let replicas = self.replicas.keys().cloned().map(Who::Replica);
        std::iter::once(Who::Master).chain(sentinels).chain(replicas).collect()
    }

    pub(super) fn is_failing_over(&self) -> bool {
        self.failover.step != Step::None
    }

    pub(super) fn is_objectively_down(&self) -> bool {
        self.objectively_down_since != 0
    }

    /// The address that clients should use.
    pub(super) fn current(&self) -> (String, u16) {
        let promoted = self.failover.promoted.as_ref().and_then(|addr| self.replicas.get(addr));
        match promoted {
            Some(promoted) if self.failover.step >= Step::Reconfigure => (promoted.ip.clone(), promoted.port),
            _ => (self.own.ip.clone(), self.own.port),
        }
    }

    /// How events name one.
    pub(super) fn describe(&self, who: &Who) -> String {
        let whole = |kind: &str, name: &str, ip: &str, port: u16| {
            let (master, own) = (&self.name, &self.own);
            format!("{kind} {name} {ip} {port} @ {master} {} {}", own.ip, own.port)
        };
        match who {
            Who::Master => format!("master {} {} {}", self.name, self.own.ip, self.own.port),
            Who::Replica(addr) => {
                let (ip, port) = addr.rsplit_once(':').unwrap_or((addr, "0"));
                whole("slave", addr, ip, port.parse().unwrap_or(0))
            }
            Who::Sentinel(id) => {
                let known = self.sentinels.get(id);
                let (ip, port) = known.map_or(("", 0), |known| (known.ip.as_str(), known.port));
                whole("sentinel", id, ip, port)
            }
        }
    }

    /// Everything learnt about it is forgotten but the other sentinels, and its replicas are those.
    pub(super) fn restart_at(&mut self, ip: &str, port: u16, replicas: Vec<(String, u16)>, now: i64) {
        self.own = Instance {
            says_master: true,
            ..Instance::new(ip, port, now)
        };
        self.failover = Failover::default();
        self.objectively_down_since = 0;
        self.leader.clear();
        let fresh = replicas.into_iter().map(|(ip, port)| {
            let replica = Instance::new(&ip, port, now);
            (replica.addr(), replica)
        });
        self.replicas = fresh.collect();
    }
}

impl Watcher {
    /// Tells whoever listens.
    pub(super) fn event(&mut self, event: &str, text: &str) {
        self.clients.publish(event.as_bytes(), text.as_bytes());
        if self.events.len() >= 4096 {
            self.events.drain(..2048);
        }
        self.events.push((self.clock.ms(), event.into(), text.into()));
    }

    /// Writes the configuration if something changed.
    pub(super) fn save(&mut self) {
        if std::mem::take(&mut self.unsaved) {
            let text = self.conf().render();
            // The disks of the simulation take what fits into memory.
            let _ = self.disk.write(&self.conf_path, text.as_bytes());
        }
    }

    fn conf(&self) -> Conf {
        let mut conf = self.base.clone();
        let mut line = |words: &[&str]| {
            let words = std::iter::once("sentinel").chain(words.iter().copied());
            conf.0.push(words.map(str::to_owned).collect());
        };
        line(&["myid", &self.myid]);
        if !self.ip.is_empty() {
            line(&["announce-ip", &self.ip]);
        }
        if self.announced_port != self.port {
            line(&["announce-port", &self.announced_port.to_string()]);
        }
        for (name, master) in &self.masters {
            let (ip, port) = master.current();
            line(&["monitor", name, &ip, &port.to_string(), &master.quorum.to_string()]);
            line(&["down-after-milliseconds", name, &master.down_after.to_string()]);
            line(&["failover-timeout", name, &master.failover_timeout.to_string()]);
            line(&["parallel-syncs", name, &master.parallel.to_string()]);
            if !master.password.is_empty() {
                line(&["auth-pass", name, &master.password]);
            }
            line(&["config-epoch", name, &master.config_epoch.to_string()]);
            line(&["leader-epoch", name, &master.leader_epoch.to_string()]);
            let own = (ip != master.own.ip || port != master.own.port).then_some(&master.own);
            let others = master
                .replicas
                .values()
                .filter(|replica| (&replica.ip, replica.port) != (&ip, port));
            for replica in others.chain(own) {
                line(&["known-slave", name, &replica.ip, &replica.port.to_string()]);
            }
            for (id, other) in &master.sentinels {
                line(&["known-sentinel", name, &other.ip, &other.port.to_string(), id]);
            }
        }
        line(&["current-epoch", &self.epoch.to_string()]);
        conf
    }

    /// Takes a line of the configuration.
    pub(super) fn configure(&mut self, words: &[&str], now: i64) {
        match words {
            ["myid", id] => self.myid = (*id).into(),
            ["announce-ip", ip] => self.ip = (*ip).into(),
            ["announce-port", port] => self.announced_port = port.parse().unwrap_or(self.announced_port),
            ["current-epoch", epoch] => self.epoch = epoch.parse().unwrap_or(0),
            ["monitor", name, ip, port, quorum] => {
                let (port, quorum) = (port.parse().unwrap_or(0), quorum.parse().unwrap_or(1));
                let master = Master::new(name, ip, port, quorum, now);
                self.masters.insert((*name).into(), master);
            }
            [key, name, rest @ ..] => {
                if let Some(master) = self.masters.get_mut(*name) {
                    master.configure(key, rest, now);
                }
            }
            _ => {}
        }
    }
}

impl Master {
    fn configure(&mut self, key: &str, words: &[&str], now: i64) {
        let number = words.first().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match (key, words) {
            ("config-epoch", _) => self.config_epoch = number,
            ("leader-epoch", _) => self.leader_epoch = number,
            ("known-slave" | "known-replica", [ip, port]) => {
                let replica = Instance::new(ip, port.parse().unwrap_or(0), now);
                self.replicas.insert(replica.addr(), replica);
            }
            ("known-sentinel", [ip, port, id]) => {
                let other = Instance {
                    runid: (*id).into(),
                    ..Instance::new(ip, port.parse().unwrap_or(0), now)
                };
                self.sentinels.insert((*id).into(), other);
            }
            (_, [value]) => drop(self.set(key, value)),
            _ => {}
        }
    }

    /// An option of `SENTINEL SET`; none if there is no such one.
    ///
    /// # Errors
    /// The value is no good.
    pub(super) fn set(&mut self, option: &str, value: &str) -> Option<Result<(), ()>> {
        let number = value.parse::<u32>().ok().filter(|number| *number > 0);
        let done = match (option, number) {
            ("auth-pass", _) => {
                value.clone_into(&mut self.password);
                for who in self.everybody() {
                    self.at(&who).into_iter().for_each(Instance::unlink);
                }
                Ok(())
            }
            ("notification-script" | "client-reconfig-script" | "auth-user", _) => Ok(()),
            ("down-after-milliseconds", Some(number)) => {
                self.down_after = i64::from(number);
                Ok(())
            }
            ("failover-timeout", Some(number)) => {
                self.failover_timeout = i64::from(number);
                Ok(())
            }
            ("parallel-syncs", Some(number)) => {
                self.parallel = number as usize;
                Ok(())
            }
            ("quorum", Some(number)) => {
                self.quorum = number as usize;
                Ok(())
            }
            ("down-after-milliseconds" | "failover-timeout" | "parallel-syncs" | "quorum", None) => Err(()),
            _ => return None,
        };
        Some(done)
    }
}
