//! What goes wrong in a world.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr, time::Duration};

use super::{
    coordinator::Harm,
    pods::Running,
    weather::Trouble,
    world::{NAMESPACE, World},
};

/// Whose pods a fault looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Servers.
    Server,
    /// Sentinels.
    Sentinel,
    /// The dashboard.
    Dashboard,
    /// Proxies.
    Proxy,
}

/// A fault. `nth` chooses among what there is at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL of the process: the container restarts in place.
    KillProcess(Part, usize),
    /// The pod is deleted without grace.
    KillPod(Part, usize),
    /// SIGSTOP, and SIGCONT later.
    Freeze(Part, usize, Duration),
    /// The pod can be reached by nobody, and reaches nobody.
    Isolate(Part, usize, Duration),
    /// The pod hears all and is heard by nobody.
    Mute(Part, usize, Duration),
    /// A node loses power, and has it again later.
    NodeDown(usize, Duration),
    /// An operator is killed.
    KillOperator(usize, Duration),
    /// SIGSTOP of an operator, and SIGCONT later: it goes on where it was, whoever leads by then.
    FreezeOperator(usize, Duration),
    /// An operator doesn't reach the API server, and Codis as ever.
    CutOffOperator(usize, Duration),
    /// The API server refuses, forgets to answer, is slow or away.
    Api(Trouble, Duration),
    /// Watches are silent.
    Deaf(Duration),
    /// The operators and a pod don't reach each other.
    Blind(Part, usize, Duration),
    /// The volume of a server is slow.
    SlowDisk(usize, Duration),
    /// Something becomes of the coordinator.
    Coordinator(Harm, Duration),
    /// The node of a pod is cut off, and runs on.
    CutOff(Part, usize, Duration),
    /// What servers send each other takes the first time longer, for the second.
    Congested(Duration, Duration),
}

impl Part {
    /// What is in the names of its pods.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Server => "-g",
            Self::Sentinel => "-sentinel-",
            Self::Dashboard => "-dashboard-",
            Self::Proxy => "-proxy-",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl Fault {
    /// Its kind, for tables.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::KillProcess(..) => "process killed",
            Self::KillPod(..) => "pod killed",
            Self::Freeze(..) => "process frozen",
            Self::Isolate(..) => "pod isolated",
            Self::Mute(..) => "pod mute",
            Self::NodeDown(..) => "node lost",
            Self::KillOperator(..) => "operator killed",
            Self::FreezeOperator(..) => "operator frozen",
            Self::CutOffOperator(..) => "operator cut off",
            Self::Api(Trouble::Refusals, _) => "API refuses",
            Self::Api(Trouble::LostReplies, _) => "API replies lost",
            Self::Api(Trouble::Slow, _) => "API slow",
            Self::Api(Trouble::Away, _) => "API away",
            Self::Deaf(_) => "watches silent",
            Self::Blind(..) => "operator blind",
            Self::SlowDisk(..) => "disk slow",
            Self::Coordinator(harm, _) => harm.kind(),
            Self::CutOff(..) => "node cut off",
            Self::Congested(..) => "replication slow",
        }
    }

    /// When it is over, counted from its beginning.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        match self {
            Self::KillProcess(..) | Self::KillPod(..) => Duration::ZERO,
            Self::Freeze(_, _, time)
            | Self::Isolate(_, _, time)
            | Self::Mute(_, _, time)
            | Self::NodeDown(_, time)
            | Self::KillOperator(_, time)
            | Self::FreezeOperator(_, time)
            | Self::CutOffOperator(_, time)
            | Self::Api(_, time)
            | Self::Deaf(time)
            | Self::Blind(_, _, time)
            | Self::SlowDisk(_, time)
            | Self::Coordinator(_, time)
            | Self::CutOff(_, _, time)
            | Self::Congested(_, time) => *time,
        }
    }

    /// Whether writes that were acknowledged around it may be lost: those that a master had and no other copy.
    #[must_use]
    pub fn may_lose(&self) -> bool {
        match self {
            Self::KillOperator(..)
            | Self::FreezeOperator(..)
            | Self::CutOffOperator(..)
            | Self::Api(..)
            | Self::Deaf(_)
            | Self::Coordinator(..)
            | Self::Congested(..)
            | Self::Blind(..) => false,
            Self::KillProcess(part, _)
            | Self::KillPod(part, _)
            | Self::Freeze(part, ..)
            | Self::Isolate(part, ..)
            | Self::Mute(part, ..) => *part == Part::Server,
            Self::NodeDown(..) | Self::SlowDisk(..) | Self::CutOff(..) => true,
        }
    }

    /// Whether the topology is lost by it.
    #[must_use]
    pub fn loses_topology(&self) -> bool {
        matches!(self, Self::Coordinator(Harm::Wiped, _))
    }
}

/// What has to be undone.
pub struct Undo(Box<dyn FnOnce(&mut World)>);

impl Undo {
    /// Undoes it.
    pub fn run(self, world: &mut World) {
        (self.0)(world);
    }

    /// What undoes it.
    pub(super) fn by(undo: impl FnOnce(&mut World) + 'static) -> Option<Self> {
        Some(Self(Box::new(undo)))
    }
}

impl World {
    /// Does a fault; nothing where there is nobody to do it to.
    pub fn inject(&mut self, fault: Fault) -> Option<Undo> {
        match fault {
            Fault::KillProcess(part, nth) => {
                let (name, _) = self.victim(fault, part, nth)?;
                self.kubernetes(|kubernetes| kubernetes.kill_process(NAMESPACE, &name));
                None
            }
            Fault::KillPod(part, nth) => {
                let (name, running) = self.victim(fault, part, nth)?;
                running.kill();
                let now = serde_json::json!({"gracePeriodSeconds": 0});
                self.api.delete("Pod", NAMESPACE, &name, now);
                None
            }
            Fault::Freeze(part, nth, _) => {
                let (_, running) = self.victim(fault, part, nth)?;
                running.tasks.freeze(true);
                Undo::by(move |_| running.tasks.freeze(false))
            }
            Fault::Isolate(part, nth, _) => {
                let (_, running) = self.victim(fault, part, nth)?;
                self.partition(&running, true, true)
            }
            Fault::Mute(part, nth, _) => {
                let (_, running) = self.victim(fault, part, nth)?;
                self.partition(&running, true, false)
            }
            Fault::Blind(part, nth, _) => {
                let (_, running) = self.victim(fault, part, nth)?;
                let ips: Vec<Ipv4Addr> = self.operators().map(|operator| operator.ip).collect();
                let both = |ip: Ipv4Addr| [(ip, running.ip), (running.ip, ip)];
                let ways: Vec<_> = ips.into_iter().flat_map(both).collect();
                self.cut(&ways)
            }
            Fault::NodeDown(nth, _) => self.lose_node(fault, nth),
            Fault::SlowDisk(nth, _) => {
                let (_, running) = self.victim(fault, Part::Server, nth)?;
                let disk = self.pods.disk(&running.volume?)?;
                disk.set_slow(Some(Duration::from_secs(3)));
                Undo::by(move |_| disk.set_slow(None))
            }
            Fault::Coordinator(harm, _) => self.harm_coordinator(fault, harm),
            Fault::CutOff(part, nth, _) => {
                let (_, running) = self.victim(fault, part, nth)?;
                self.cut_off(running.node)
            }
            Fault::Congested(by, _) => {
                self.trace.tell(format!("fault: {fault}"));
                let servers = self.pods_like(Part::Server.word()).into_iter();
                self.fabric
                    .congest(servers.map(|(_, running)| running.ip).collect(), by);
                Undo::by(|world| world.fabric.congest(BTreeSet::new(), Duration::ZERO))
            }
            _ => self.trouble(fault),
        }
    }

    /// A fault of an operator or of its way to the API server.
    fn trouble(&mut self, fault: Fault) -> Option<Undo> {
        self.trace.tell(format!("fault: {fault}"));
        match fault {
            Fault::KillOperator(nth, away) => {
                self.operator(nth).kill(away);
                None
            }
            Fault::FreezeOperator(nth, _) => {
                self.operator(nth).freeze(true);
                Undo::by(move |world| world.operator(nth).freeze(false))
            }
            Fault::CutOffOperator(nth, _) => {
                let whose = Some(self.operator(nth).who);
                self.weather.begin(Trouble::Away, whose);
                Undo::by(move |world| world.weather.end(Trouble::Away, whose))
            }
            Fault::Api(trouble, _) => {
                self.weather.begin(trouble, None);
                Undo::by(move |world| world.weather.end(trouble, None))
            }
            Fault::Deaf(_) => {
                self.deafness += 1;
                Undo::by(|world| {
                    world.deafness -= 1;
                    // Who connects again reads everything.
                    world.operators().for_each(|operator| operator.wake());
                })
            }
            _ => None,
        }
    }

    /// The nth of the pods that run.
    fn victim(&self, fault: Fault, part: Part, nth: usize) -> Option<(String, Running)> {
        let all = self.pods_like(part.word());
        let up: Vec<_> = all.into_iter().filter(|(_, running)| running.is_up()).collect();
        let chosen = up.get(nth % up.len().max(1)).cloned();
        let name = chosen.as_ref().map_or("nobody", |(name, _)| name);
        self.trace.tell(format!("fault: {fault} at {name}"));
        chosen
    }

    /// Every address but this one, and the operator's.
    fn others(&self, ip: Ipv4Addr) -> Vec<Ipv4Addr> {
        let mut all = self.fabric.addresses();
        all.retain(|other| *other != ip);
        all
    }

    fn partition(&mut self, running: &Running, out: bool, into: bool) -> Option<Undo> {
        let ip = running.ip;
        let mut ways = Vec::new();
        for other in self.others(ip) {
            if out {
                ways.push((ip, other));
            }
            if into {
                ways.push((other, ip));
            }
        }
        self.cut(&ways)
    }

    fn cut(&mut self, ways: &[(Ipv4Addr, Ipv4Addr)]) -> Option<Undo> {
        let ways = ways.to_vec();
        for (from, to) in &ways {
            self.fabric.cut(*from, *to, true);
        }
        Undo::by(move |world| {
            for (from, to) in &ways {
                world.fabric.cut(*from, *to, false);
            }
        })
    }

    fn lose_node(&mut self, fault: Fault, nth: usize) -> Option<Undo> {
        let node = format!("node-{}", nth % 4);
        self.trace.tell(format!("fault: {fault} at {node}"));
        for running in self.pods.all().into_values().filter(|running| running.node == node) {
            self.fabric.unplug(running.ip);
            running.tasks.kill();
            if let Some(disk) = running.volume.as_deref().and_then(|volume| self.pods.disk(volume)) {
                disk.lose_power();
            }
        }
        self.kubernetes(|kubernetes| kubernetes.node_down(&node, true));
        Undo::by(move |world| {
            world.trace.tell(format!("{node} is back"));
            world.kubernetes(|kubernetes| kubernetes.node_down(&node, false));
        })
    }
}
