//! The coordinator of a world: an etcd outside of Kubernetes, or the dashboard's own volume; and what goes wrong with it.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use codis_double::{
    host::{self, Tasks},
    simulated::{
        coordinator::{self, Nodes},
        disk::Disk,
    },
};

use super::{
    fabric::Fabric,
    faults::{Fault, Part, Undo},
    pods::Machine,
    scenario::{Act, Event},
    world::{NAMESPACE, World},
};
use crate::telemetry::Clock;

/// Where etcd is: on no node of the cluster.
const ETCD: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 2);

/// Its address, as it is in specs.
pub fn address() -> String {
    format!("{ETCD}:2379")
}

/// What becomes of a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Its process is killed, and started again later.
    Down,
    /// Nobody reaches it for a while.
    Silent,
    /// It takes this long to do something, and as long again to tell.
    Slow(Duration),
    /// It is emptied; the dashboard starts anew later. A volume is emptied under a dashboard that dies at once.
    Wiped,
}

impl Harm {
    /// Its kind, for tables.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Down => "coordinator down",
            Self::Silent => "coordinator silent",
            Self::Slow(_) => "coordinator slow",
            Self::Wiped => "coordinator wiped",
        }
    }
}

/// An etcd outside of Kubernetes.
pub struct Etcd {
    fabric: Fabric,
    clock: Clock,
    nodes: Nodes,
    process: Tasks,
}

impl Etcd {
    /// One that runs and has nothing.
    pub fn new(fabric: Fabric, clock: Clock) -> Self {
        let mut new = Self {
            fabric,
            clock,
            nodes: Nodes::default(),
            process: Tasks::default(),
        };
        new.start();
        new
    }

    /// Starts its process: with what the one before it had.
    fn start(&mut self) {
        self.fabric.plug(ETCD);
        self.process = Tasks::default();
        let machine = Machine {
            name: "etcd".to_owned(),
            ip: ETCD,
            fabric: self.fabric.clone(),
            clock: self.clock,
            skew: jiff::SignedDuration::ZERO,
            files: Arc::new(Disk::default()),
            tasks: self.process.clone(),
        };
        let nodes = self.nodes.clone();
        host::within(
            Arc::new(machine),
            async move { coordinator::serve(nodes, &address()).await },
        );
    }
}

impl World {
    /// Harms the coordinator; nothing where it can't come to such harm.
    pub(super) fn harm_coordinator(&mut self, fault: Fault, harm: Harm) -> Option<Undo> {
        let what = if self.etcd.is_some() { "etcd" } else { "the volume" };
        self.trace.tell(format!("fault: {fault} at {what}"));
        let Some(etcd) = &self.etcd else {
            if harm == Harm::Wiped {
                self.wipe_volume();
            }
            return None;
        };
        match harm {
            Harm::Down => {
                etcd.process.kill();
                Undo::by(|world| {
                    if let Some(etcd) = world.etcd.as_mut().filter(|etcd| etcd.process.is_dead()) {
                        etcd.start();
                    }
                })
            }
            Harm::Silent => self.island(BTreeSet::from([ETCD])),
            Harm::Slow(time) => {
                etcd.nodes.set_slow(Some(time));
                Undo::by(|world| world.etcd.iter().for_each(|etcd| etcd.nodes.set_slow(None)))
            }
            Harm::Wiped => {
                etcd.nodes.wipe();
                Undo::by(Self::kill_dashboard)
            }
        }
    }

    /// Until its process ends a dashboard goes on with what it remembers.
    fn kill_dashboard(&mut self) {
        for (name, _) in self.pods_like(Part::Dashboard.word()) {
            self.trace.tell(format!("{name} is killed"));
            self.kubernetes(|kubernetes| kubernetes.kill_process(NAMESPACE, &name));
        }
    }

    fn wipe_volume(&mut self) {
        self.kill_dashboard();
        for (_, running) in self.pods_like(Part::Dashboard.word()) {
            if let Some(disk) = running.volume.as_deref().and_then(|volume| self.pods.disk(volume)) {
                disk.wipe();
            }
        }
    }

    /// A node is cut off from all others and from Kubernetes: what runs there runs on, and nobody hears of it.
    pub(super) fn cut_off(&mut self, node: String) -> Option<Undo> {
        let pods = self.pods.all().into_values();
        let here: BTreeSet<Ipv4Addr> = pods
            .filter(|running| running.node == node)
            .map(|running| running.ip)
            .collect();
        self.trace.tell(format!("{node} is cut off"));
        self.kubernetes(|kubernetes| kubernetes.kubelet_frozen(&node, true));
        let ends = self.island(here);
        Undo::by(move |world| {
            if let Some(ends) = ends {
                ends.run(world);
            }
            world.trace.tell(format!("{node} is heard again"));
            world.kubernetes(|kubernetes| kubernetes.kubelet_frozen(&node, false));
        })
    }

    fn island(&mut self, ips: BTreeSet<Ipv4Addr>) -> Option<Undo> {
        self.fabric.isolate(&ips, true);
        Undo::by(move |world| world.fabric.isolate(&ips, false))
    }
}

/// Whether a seed's topology is kept in etcd, and what happens to it: drawn apart, so that whatever else a seed brings stays.
pub(super) fn drawn(seed: u64, scenario: &str) -> (bool, Vec<Event>) {
    let mut chance = fastrand::Rng::with_seed(seed ^ 0x0e7c_d000);
    let is_about_it = scenario == "coordinator";
    let is_outside = chance.u8(..4) < if is_about_it { 3 } else { 1 };
    let count = match scenario {
        "coordinator" => chance.usize(1..=3),
        "any" | "faults" => usize::from(chance.u8(..3) == 0),
        _ => 0,
    };
    let event = |_| {
        let at = Duration::from_millis(chance.u64(500..25_000));
        let act = Act::Fault(fault(&mut chance, is_outside));
        Event { at, act }
    };
    let mut events: Vec<Event> = (0..count).map(event).collect();
    // Who loses the topology again before all of it was back, a failover in between, needs a person.
    let mut is_first = true;
    events.retain(|event| !is_wipe(event) || std::mem::take(&mut is_first));
    (is_outside, events)
}

fn is_wipe(event: &Event) -> bool {
    matches!(event.act, Act::Fault(Fault::Coordinator(Harm::Wiped, _)))
}

fn fault(chance: &mut fastrand::Rng, is_outside: bool) -> Fault {
    let parts = [Part::Dashboard, Part::Dashboard, Part::Server, Part::Proxy];
    let (part, nth) = (parts[chance.usize(..parts.len())], chance.usize(..12));
    let time = Duration::from_millis(chance.u64(500..40_000));
    let latency = Duration::from_millis(chance.u64(100..4_000));
    match chance.u8(..if is_outside { 8 } else { 4 }) {
        // Some are over before anybody takes the node for lost, some last much longer.
        0 | 1 => Fault::CutOff(part, nth, 4 * time),
        2 | 3 => Fault::Coordinator(Harm::Wiped, time / 2),
        4 | 5 => Fault::Coordinator(Harm::Down, time),
        6 => Fault::Coordinator(Harm::Silent, time),
        _ => Fault::Coordinator(Harm::Slow(latency), time),
    }
}

#[cfg(test)]
mod tests;
