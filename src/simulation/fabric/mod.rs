//! The network between simulated machines: addresses, listeners, connections, delays and cuts.
//!
//! What isn't simulated: loss and order of packets (TCP hides both), bandwidth, buffers that fill.

mod pipe;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use codis_double::host::{Listener, Socket};
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use pipe::Line;

/// Attempts to connect come after these pauses, as Linux sends a SYN again; then it gives up.
const SYN_PAUSES: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// Finds what a name or a virtual address leads to: host and port → a machine's address.
pub type Resolver = dyn Fn(&str, u16) -> Option<Route> + Send + Sync;

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this machine.
    To(Ipv4Addr, u16),
    /// Nobody is behind the address: refused, as kube-proxy does it.
    Nobody,
}

/// The network. Cheap to clone: all clones are the same one.
#[derive(Clone)]
pub struct Fabric(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    resolver: Box<Resolver>,
}

struct State {
    chance: fastrand::Rng,
    machines: BTreeMap<Ipv4Addr, Machine>,
    /// Nothing gets from the first to the second.
    cuts: BTreeSet<(Ipv4Addr, Ipv4Addr)>,
    /// Machines that reach each other and nobody else.
    islands: Vec<BTreeSet<Ipv4Addr>>,
    /// Machines between which everything takes so much longer.
    congested: (BTreeSet<Ipv4Addr>, Duration),
    lines: Vec<Line>,
    next_port: u16,
}

#[derive(Default)]
struct Machine {
    listeners: BTreeMap<u16, mpsc::UnboundedSender<Socket>>,
}

impl Fabric {
    /// A network without machines. `seed` decides the delays.
    #[must_use]
    pub fn new(seed: u64, resolver: Box<Resolver>) -> Self {
        let state = State {
            chance: fastrand::Rng::with_seed(seed),
            machines: BTreeMap::new(),
            cuts: BTreeSet::new(),
            islands: Vec::new(),
            congested: (BTreeSet::new(), Duration::ZERO),
            lines: Vec::new(),
            next_port: 30_000,
        };
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            resolver,
        }))
    }

    /// A machine gets an address.
    pub fn plug(&self, ip: Ipv4Addr) {
        self.state().machines.entry(ip).or_default();
    }

    /// The addresses of all machines.
    #[must_use]
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        self.state().machines.keys().copied().collect()
    }

    /// A machine's address is gone: its connections fall silent, new ones get no answer.
    pub fn unplug(&self, ip: Ipv4Addr) {
        let mut state = self.state();
        state.machines.remove(&ip);
        for line in state.lines.iter().filter(|line| line.has(ip)) {
            line.sever();
        }
        state.lines.retain(|line| !line.has(ip));
    }

    /// Cuts or mends one direction between two addresses. What is under way waits.
    pub fn cut(&self, from: Ipv4Addr, to: Ipv4Addr, cut: bool) {
        let mut state = self.state();
        if cut {
            state.cuts.insert((from, to));
        } else {
            state.cuts.remove(&(from, to));
        }
        state.lines.retain(|line| !line.is_over());
        let cut = state.is_cut(from, to);
        for line in &state.lines {
            line.hold(from, to, cut);
        }
    }

    /// Cuts machines off from all others, from those too that come later; or joins them again.
    pub fn isolate(&self, island: &BTreeSet<Ipv4Addr>, cut: bool) {
        let mut state = self.state();
        if cut {
            state.islands.push(island.clone());
        } else if let Some(index) = state.islands.iter().position(|known| known == island) {
            state.islands.remove(index);
        }
        state.lines.retain(|line| !line.is_over());
        for line in &state.lines {
            let (one, other) = line.ends();
            line.hold(one, other, state.is_cut(one, other));
            line.hold(other, one, state.is_cut(other, one));
        }
    }

    /// Everything between these machines takes so much longer than it would, instead of what was so before.
    pub fn congest(&self, machines: BTreeSet<Ipv4Addr>, by: Duration) {
        let mut state = self.state();
        state.congested = (machines, by);
        for line in &state.lines {
            let (one, other) = line.ends();
            line.stretch(state.stretched(one, other));
        }
    }

    /// Whether somebody listens there.
    #[must_use]
    pub fn listens(&self, ip: Ipv4Addr, port: u16) -> bool {
        let state = self.state();
        let listener = state.machines.get(&ip).and_then(|machine| machine.listeners.get(&port));
        listener.is_some_and(|listener| !listener.is_closed())
    }

    /// Listens on a machine's port.
    ///
    /// # Errors
    /// The port is taken, or the machine has no such address.
    pub fn listen(&self, ip: Ipv4Addr, port: u16) -> io::Result<Box<dyn Listener>> {
        let mut state = self.state();
        let machine = state.machines.get_mut(&ip).ok_or(ErrorKind::AddrNotAvailable)?;
        if machine
            .listeners
            .get(&port)
            .is_some_and(|listener| !listener.is_closed())
        {
            return Err(ErrorKind::AddrInUse.into());
        }
        let (arrivals, accepted) = mpsc::unbounded_channel();
        machine.listeners.insert(port, arrivals);
        Ok(Box::new(Port {
            at: SocketAddr::from((ip, port)),
            accepted,
        }))
    }

    /// Opens a connection from a machine to `host:port`.
    #[must_use]
    pub fn connect(&self, from: Ipv4Addr, addr: &str) -> BoxFuture<'static, io::Result<Socket>> {
        let (fabric, addr) = (self.clone(), addr.to_owned());
        Box::pin(async move {
            for pause in SYN_PAUSES {
                if let Some(done) = fabric.knock(from, &addr) {
                    return done;
                }
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
            Err(ErrorKind::TimedOut.into())
        })
    }

    /// One SYN; none when no answer comes.
    fn knock(&self, from: Ipv4Addr, addr: &str) -> Option<io::Result<Socket>> {
        let Some((host, port)) = addr
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
        else {
            return Some(Err(ErrorKind::InvalidInput.into()));
        };
        let told = host.parse::<Ipv4Addr>().ok();
        let (ip, port) = match ((self.0.resolver)(host, port), told) {
            (Some(Route::To(ip, port)), _) => (ip, port),
            (Some(Route::Nobody), _) => return Some(Err(ErrorKind::ConnectionRefused.into())),
            (None, Some(ip)) => (ip, port),
            (None, None) => return Some(Err(io::Error::new(ErrorKind::NotFound, "no such host"))),
        };
        self.state().meet(from, ip, port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_cut(&self, from: Ipv4Addr, to: Ipv4Addr) -> bool {
        let mut islands = self.islands.iter();
        self.cuts.contains(&(from, to)) || islands.any(|island| island.contains(&from) != island.contains(&to))
    }

    fn stretched(&self, one: Ipv4Addr, other: Ipv4Addr) -> Duration {
        let (machines, by) = &self.congested;
        if machines.contains(&one) && machines.contains(&other) {
            *by
        } else {
            Duration::ZERO
        }
    }

    fn meet(&mut self, from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Option<io::Result<Socket>> {
        if self.is_cut(from, to) || self.is_cut(to, from) || !self.machines.contains_key(&from) {
            return None;
        }
        let listener = self.machines.get(&to)?.listeners.get(&port);
        let Some(listener) = listener.filter(|listener| !listener.is_closed()) else {
            return Some(Err(ErrorKind::ConnectionRefused.into()));
        };
        let own = self.next_port;
        self.next_port = own.checked_add(1).unwrap_or(30_000);
        let (here, there) = (SocketAddr::from((from, own)), SocketAddr::from((to, port)));
        // Most neighbours are near; a few ways are long enough for others to overtake.
        let delay = Duration::from_millis([0, 0, 0, 1, 2, 5][self.chance.usize(..6)]);
        let (line, ours, theirs) = Line::new(from, to, delay);
        line.stretch(self.stretched(from, to));
        if self.lines.len() > 256 {
            self.lines.retain(|line| !line.is_over());
        }
        self.lines.push(line);
        let arrived = Socket {
            stream: Box::new(theirs),
            local: there,
            peer: here,
        };
        if listener.send(arrived).is_err() {
            return Some(Err(ErrorKind::ConnectionRefused.into()));
        }
        Some(Ok(Socket {
            stream: Box::new(ours),
            local: here,
            peer: there,
        }))
    }
}

struct Port {
    at: SocketAddr,
    accepted: mpsc::UnboundedReceiver<Socket>,
}

impl Listener for Port {
    fn local(&self) -> SocketAddr {
        self.at
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Socket>> {
        Box::pin(async { self.accepted.recv().await.ok_or_else(|| ErrorKind::NotConnected.into()) })
    }
}

#[cfg(test)]
mod tests;
