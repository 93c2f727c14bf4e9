//! A simulated machine, as one process on it sees it.

use std::{io, net::Ipv4Addr, sync::Arc};

use codis_double::host::{Files, Host, Listener, Socket, Tasks};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

use crate::{simulation::fabric::Fabric, telemetry::Clock};

/// A process's machine: an address, a clock that may be wrong, files.
pub struct Machine {
    /// Its name, unique among all processes of a world.
    pub name: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The network.
    pub fabric: Fabric,
    /// The world's clock.
    pub clock: Clock,
    /// How far the machine's clock is ahead of it.
    pub skew: SignedDuration,
    /// Its files.
    pub files: Arc<dyn Files>,
    /// The process's tasks.
    pub tasks: Tasks,
}

impl Host for Machine {
    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<Socket>> {
        self.fabric.connect(self.ip, addr)
    }

    fn listen(&self, addr: &str) -> io::Result<Box<dyn Listener>> {
        let port = addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        self.fabric.listen(self.ip, port.ok_or(io::ErrorKind::InvalidInput)?)
    }

    fn now(&self) -> Timestamp {
        self.clock.now().checked_add(self.skew).unwrap_or(Timestamp::MAX)
    }

    fn files(&self) -> Arc<dyn Files> {
        self.files.clone()
    }

    fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
