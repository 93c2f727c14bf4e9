//! A product in containers: a dashboard, two proxies, two groups of two servers, three sentinels.

use std::{future::Future, net::SocketAddr, time::Instant};

use anyhow::{Context, Result, ensure};
use codis_operator::{
    codis::{Codis, Timeouts},
    domain::{Address, DashboardView, GroupId, Topology, ports},
    telemetry::Effects,
};
use futures::future::try_join_all;

use crate::{
    coordinator::{Coordinator, Kind},
    engine::{FOLDER, Machine},
    resp::Connection,
    wait::{secs, wait_for},
};

/// The product.
pub const PRODUCT: &str = "demo";
/// The password of its servers.
pub const AUTH: &str = "product-password";
/// The password of its clients.
pub const SESSION: &str = "session-password";

/// A product in containers.
pub struct World {
    /// Where its topology is.
    pub coordinator: Coordinator,
    /// The dashboard's machine.
    pub dashboard: Machine,
    /// The proxies' machines.
    pub proxies: Vec<Machine>,
    /// The servers' machines: those of group 1, then those of group 2.
    pub servers: Vec<Machine>,
    /// The sentinels' machines.
    pub sentinels: Vec<Machine>,
    /// The operator's own door to it.
    pub door: Codis,
}

/// The image of Codis that is tested.
pub fn image() -> String {
    std::env::var("CODIS_IMAGE").unwrap_or_else(|_| "codis-double:dev".to_owned())
}

impl World {
    /// Machines with their files, servers and sentinels that run; no dashboard and no proxy yet.
    pub async fn start(kind: Kind) -> Result<Self> {
        let network = format!("codis-contract-{}-{}", std::process::id(), kind.name());
        // The network comes with the first container and goes with the last.
        let coordinator = Coordinator::start(kind, &network).await?;
        let files = [
            ("dashboard.toml", dashboard_toml(&coordinator)),
            ("rival.toml", dashboard_toml(&coordinator).replace("18080", "18081")),
        ];
        let dashboard = Machine::idle(&image(), &network, "dashboard", &files).await?;
        let proxy_file = [("proxy.toml", proxy_toml(&coordinator))];
        let server_file = [("redis.conf", redis_conf())];
        let sentinel_file = [("sentinel.conf", sentinel_conf())];
        let proxies = many(&network, "proxy", 2, &proxy_file).await?;
        let servers = many(&network, "server", 4, &server_file).await?;
        let sentinels = many(&network, "sentinel", 3, &sentinel_file).await?;
        let address = Address::new(dashboard.ip.to_string(), ports::DASHBOARD);
        let world = Self {
            coordinator,
            dashboard,
            proxies,
            servers,
            sentinels,
            door: Codis::new(PRODUCT, Some(AUTH), address, Effects::none(), Timeouts::default())?,
        };
        let running = world.servers.iter().map(|server| server.run("server", SERVER));
        try_join_all(running).await?;
        let running = world
            .sentinels
            .iter()
            .map(|sentinel| sentinel.run("sentinel", SENTINEL));
        try_join_all(running).await?;
        Ok(world)
    }

    /// Starts the dashboard.
    pub async fn start_dashboard(&self, flags: &str) -> Result<()> {
        let host = format!("{}:{}", self.dashboard.ip, ports::DASHBOARD);
        let command = format!("codis-dashboard --ncpu=1 -c {FOLDER}/dashboard.toml --host-admin={host} {flags}");
        self.dashboard.run("dashboard", &command).await
    }

    /// Starts a proxy as the operator does: it registers itself.
    pub async fn start_proxy(&self, number: usize) -> Result<()> {
        let (proxy, dashboard) = (&self.proxies[number], self.dashboard.ip);
        let (ip, file) = (proxy.ip, format!("{FOLDER}/proxy.toml"));
        let command = format!(
            "codis-proxy --ncpu=1 --max-ncpu=1 -c {file} --dashboard={dashboard}:{} --host-admin={ip}:{} --host-proxy={ip}:{}",
            ports::DASHBOARD,
            ports::PROXY_ADMIN,
            ports::PROXY,
        );
        proxy.run("proxy", &command).await
    }

    /// Runs codis-admin on the dashboard's machine.
    pub async fn admin(&self, arguments: &str) -> Result<String> {
        self.dashboard.sh(&format!("codis-admin {arguments}")).await
    }

    /// The flags by which codis-admin finds the product in the coordinator.
    pub fn in_store(&self) -> String {
        format!("--product={PRODUCT} {}", self.coordinator.flag())
    }

    /// What a node of the coordinator holds.
    pub async fn stored(&self, path: &str) -> Result<Option<String>> {
        self.coordinator.text(&self.dashboard, path).await
    }

    /// Who holds the lock.
    pub async fn lock(&self) -> Result<Option<String>> {
        self.stored(&format!("/codis3/{PRODUCT}/topom")).await
    }

    /// What the dashboard says.
    pub async fn topology(&self) -> Result<Topology> {
        match self.door.dashboard().await {
            DashboardView::Online { topology, .. } => Ok(*topology),
            DashboardView::Unavailable(why) => Err(anyhow::anyhow!("the dashboard {why}")),
        }
    }

    /// Waits until the dashboard says what is wished.
    pub async fn until(&self, what: &str, wished: impl Fn(&Topology) -> bool) -> Result<Topology> {
        wait_for(what, secs(60), async || {
            let topology = self.topology().await?;
            ensure!(wished(&topology), "{}", short(&topology));
            Ok(topology)
        })
        .await
    }

    /// The address of a server.
    pub fn server(&self, number: usize) -> Address {
        Address::new(self.servers[number].ip.to_string(), ports::SERVER)
    }

    /// The machine of a server.
    pub fn machine_of(&self, server: &Address) -> Result<&Machine> {
        let mut all = self.servers.iter();
        let found = all.find(|machine| machine.ip.to_string() == server.host());
        found.with_context(|| format!("no machine is at {server}"))
    }

    /// The address of a sentinel.
    pub fn sentinel(&self, number: usize) -> Address {
        Address::new(self.sentinels[number].ip.to_string(), ports::SENTINEL)
    }

    /// Where clients of a proxy connect.
    pub fn clients_of(&self, proxy: usize) -> SocketAddr {
        SocketAddr::new(self.proxies[proxy].ip, ports::PROXY)
    }

    /// A client of a proxy.
    pub async fn client(&self, proxy: usize) -> Result<Connection> {
        Connection::open(self.clients_of(proxy), SESSION, secs(10)).await
    }

    /// What every machine printed last: the test failed.
    pub async fn tell(&self) {
        if let Ok(topology) = self.topology().await {
            println!("   {}", short(&topology));
        }
        for (name, machines) in [
            ("proxy", &self.proxies),
            ("server", &self.servers),
            ("sentinel", &self.sentinels),
        ] {
            for machine in machines {
                println!("-- {name} {}\n{}", machine.ip, machine.log(name, 8).await);
            }
        }
        println!("-- dashboard\n{}", self.dashboard.log("dashboard", 40).await);
        println!("-- rival\n{}", self.dashboard.log("rival", 10).await);
    }
}

/// Runs one step, and prints how long it took and what it saw.
pub async fn step(kind: Kind, name: &str, body: impl Future<Output = Result<String>>) -> Result<()> {
    let began = Instant::now();
    let seen = body.await;
    let (kind, took) = (kind.name(), began.elapsed().as_secs_f64());
    match seen {
        Ok(seen) => {
            println!("ok      {kind}: {name} ({took:.1} s)\n        {seen}");
            Ok(())
        }
        Err(error) => {
            println!("FAILED  {kind}: {name} ({took:.1} s)\n        {error:#}");
            Err(error.context(format!("{kind}: {name}")))
        }
    }
}

/// A group's number.
pub fn group(number: u64) -> Result<GroupId> {
    GroupId::try_from(number).context("no group")
}

/// A topology in a line.
pub fn short(topology: &Topology) -> String {
    let groups = topology.groups.values().map(|group| {
        let servers: Vec<String> = group.servers.iter().map(|server| server.address.to_string()).collect();
        let slots = topology.slots_of(group.id);
        format!("group {}: {} slots on {}", group.id, slots, servers.join(" and "))
    });
    let online = topology.proxies.iter().filter(|proxy| proxy.online).count();
    format!(
        "{}; {online} of {} proxies online",
        groups.collect::<Vec<_>>().join(", "),
        topology.proxies.len()
    )
}

async fn many(network: &str, name: &str, count: usize, files: &[(&str, String)]) -> Result<Vec<Machine>> {
    let image = image();
    let names: Vec<String> = (0..count).map(|number| format!("{name}-{number}")).collect();
    try_join_all(names.iter().map(|name| Machine::idle(&image, network, name, files))).await
}

/// Written to a folder that all images have: roles are kept there by CONFIG REWRITE.
const SERVER: &str = "codis-server /contract/redis.conf";
/// As the operator starts it.
const SENTINEL: &str = "codis-server /contract/sentinel.conf --sentinel";

fn dashboard_toml(coordinator: &Coordinator) -> String {
    format!(
        "coordinator_name = \"{}\"\ncoordinator_addr = \"{}\"\nproduct_name = \"{PRODUCT}\"\nproduct_auth = \"{AUTH}\"\n\
         admin_addr = \"0.0.0.0:{}\"\nsentinel_quorum = 2\nsentinel_parallel_syncs = 1\nsentinel_down_after = \"2s\"\n\
         sentinel_failover_timeout = \"10s\"\n",
        coordinator.kind.name(),
        coordinator.address,
        ports::DASHBOARD,
    )
}

fn proxy_toml(coordinator: &Coordinator) -> String {
    let jodis = match coordinator.kind {
        Kind::Filesystem => String::new(),
        kind => format!(
            "jodis_name = \"{}\"\njodis_addr = \"{}\"\njodis_timeout = \"5s\"\njodis_compatible = false\n",
            kind.name(),
            coordinator.address
        ),
    };
    format!(
        "product_name = \"{PRODUCT}\"\nproduct_auth = \"{AUTH}\"\nsession_auth = \"{SESSION}\"\n\
         admin_addr = \"0.0.0.0:{}\"\nproto_type = \"tcp4\"\nproxy_addr = \"0.0.0.0:{}\"\n\
         proxy_max_offheap_size = \"32mb\"\nproxy_heap_placeholder = \"8mb\"\nbackend_recv_timeout = \"5s\"\n{jodis}",
        ports::PROXY_ADMIN,
        ports::PROXY,
    )
}

fn redis_conf() -> String {
    format!(
        "bind 0.0.0.0\nprotected-mode no\nport {}\ndaemonize no\ndir /contract\nlogfile \"\"\nappendonly yes\n\
         appendfsync everysec\nsave \"\"\nrepl-ping-slave-period 5\nrepl-timeout 12\nrepl-diskless-sync no\n\
         requirepass {AUTH}\nmasterauth {AUTH}\n",
        ports::SERVER
    )
}

fn sentinel_conf() -> String {
    format!(
        "bind 0.0.0.0\nprotected-mode no\nport {}\ndir /contract\n",
        ports::SENTINEL
    )
}
