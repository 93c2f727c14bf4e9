//! The pods' start scripts (`src/build/scripts`), told again: there is no shell in here. They decide what the scripts decide,
//! with the same files; `e2e` runs the real ones.

use std::{collections::BTreeMap, time::Duration};

use codis_double::{
    config::{DashboardConfig, ProxyConfig},
    dashboard,
    host::{self, Files as _},
    proxy,
    redis::Connection,
    simulated::{disk::Disk, redis, sentinel},
    store::Coordinator,
};
use tokio::time::sleep;

use super::Serves;
use crate::{
    build::OWNED_ELSEWHERE,
    seeded::{self, Bug},
    simulation::kube::{Exit, Launch},
};

/// Tries of the gate to find a master, a second apart.
const GATE_TRIES: u32 = 8;
/// How long a server may take to tell who it is.
const ASK: Duration = Duration::from_secs(2);
/// A dashboard has been here that began with a product of ours.
const PRODUCT_OURS: &str = "/data/product-ours";

fn ended(code: i32, message: String) -> Exit {
    Exit { code, message }
}

fn told(end: Result<(), String>) -> Exit {
    match end {
        Ok(()) => ended(0, String::new()),
        Err(why) => ended(1, why),
    }
}

fn gave_up(outcome: anyhow::Result<()>) -> Exit {
    match outcome {
        Ok(()) => ended(0, String::new()),
        Err(error) => ended(1, format!("{error:#}")),
    }
}

/// What a script has to work with.
pub(super) struct Pod {
    pub launch: Launch,
    pub disk: Disk,
    pub serves: Serves,
}

impl Pod {
    /// Runs the pod's script until its process ends.
    pub(super) async fn run(self) -> Exit {
        let script = self.launch.command.last().cloned().unwrap_or_default();
        match script.rsplit('/').next().unwrap_or_default() {
            "server.sh" => self.server().await,
            "sentinel.sh" => self.sentinel().await,
            "dashboard.sh" => self.dashboard().await,
            "proxy.sh" => self.proxy().await,
            "fe.sh" => self.front_end().await,
            other => ended(127, format!("{other}: not found")),
        }
    }

    fn secret(&self, name: &str) -> String {
        let file = self.launch.files.get(&format!("/etc/codis/{name}"));
        file.map(|text| String::from_utf8_lossy(text).into_owned())
            .unwrap_or_default()
    }

    /// The words of a file's lines.
    fn table(&self, name: &str) -> Vec<Vec<String>> {
        let text = self.secret(name);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        text.lines().map(words).filter(|words| !words.is_empty()).collect()
    }

    async fn server(self) -> Exit {
        let members = self.table("members");
        let Some([_, own, group]) = members.iter().find(|row| row[0] == self.launch.pod).map(Vec::as_slice) else {
            return ended(1, String::new());
        };
        let others: Vec<String> = members
            .iter()
            .filter(|row| row[2] == *group && row[1] != *own)
            .map(|row| row[1].clone())
            .collect();
        let is_bootstrapped = self.table("bootstrapped").iter().any(|row| row[0] == *group);
        let mut role = self.old_role(&others);
        if role.is_none() && is_empty(&self.disk) && is_bootstrapped && !seeded::has(Bug::NoStartGate) {
            role = self.master_among(&others).await;
            if role.is_none() {
                return ended(1, "codis-gate: no data here and no master in the group".to_owned());
            }
        }
        let fence = role.is_none() && is_bootstrapped && !others.is_empty();
        let mut conf = self.secret("redis.conf");
        if fence {
            conf.push_str("min-slaves-to-write 1\nmin-slaves-max-lag 5\n");
        }
        conf.push_str(&format!("slave-announce-ip {own}\nslave-announce-port 6379\n"));
        if let Some(role) = role {
            conf.push_str(&format!("{role}\n"));
        }
        if let Err(error) = self.disk.write("/data/redis.conf", conf.as_bytes()) {
            return ended(1, error.to_string());
        }
        let server = redis::start(self.disk.clone(), "/data/redis.conf");
        self.serves.redis(server.clone());
        told(server.ended().await)
    }

    /// The replication line of the last start, if it names a member of the same group.
    fn old_role(&self, others: &[String]) -> Option<String> {
        let conf = self.disk.read("/data/redis.conf").ok().flatten()?;
        let former: BTreeMap<String, String> = self
            .table("former-addresses")
            .into_iter()
            .filter_map(|row| Some((row.first()?.clone(), row.get(1)?.clone())))
            .collect();
        let text = String::from_utf8_lossy(&conf).into_owned();
        let mut role = None;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["slaveof" | "replicaof", host, port, ..] = words.as_slice() {
                let host = former.get(*host).map_or(*host, String::as_str);
                if others.iter().any(|other| other == host) {
                    role = Some(format!("slaveof {host} {port}"));
                }
            }
        }
        role
    }

    /// Who is master among the others: asked for a few seconds.
    async fn master_among(&self, others: &[String]) -> Option<String> {
        let password = self.secret("product-auth");
        for _ in 0..GATE_TRIES {
            for other in others {
                if is_master(other, &password).await {
                    return Some(format!("slaveof {other} 6379"));
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
        None
    }

    async fn sentinel(self) -> Exit {
        let rows = self.table("sentinels");
        let Some([_, own, id]) = rows.iter().find(|row| row[0] == self.launch.pod).map(Vec::as_slice) else {
            return ended(1, String::new());
        };
        let conf = format!(
            "{}sentinel myid {id}\nsentinel announce-ip {own}\nsentinel announce-port 26379\n",
            self.secret("sentinel.conf")
        );
        if let Err(error) = self.disk.write("/data/sentinel.conf", conf.as_bytes()) {
            return ended(1, error.to_string());
        }
        let sentinel = sentinel::start(self.disk.clone(), "/data/sentinel.conf");
        self.serves.sentinel(sentinel.clone());
        told(sentinel.ended().await)
    }

    async fn dashboard(self) -> Exit {
        let config: DashboardConfig = match codis_double::config::parse(&self.secret("dashboard.toml")) {
            Ok(config) => config,
            Err(error) => return ended(1, format!("{error:#}")),
        };
        let remove_lock = match self.may_break_the_lock(&config).await {
            Ok(may) => may,
            Err(why) => return ended(1, why),
        };
        let options = dashboard::Options {
            config,
            host_admin: Some(self.secret("lock-address").trim().to_owned()),
            remove_lock,
            ..Default::default()
        };
        match dashboard::start(options).await {
            Err(error) => ended(1, format!("{error:#}")),
            Ok(handle) => {
                self.serves.dashboard(handle.view.clone());
                gave_up(handle.wait().await)
            }
        }
    }

    /// Whether the product's lock is one of our own that was left; why the dashboard mustn't start, if so.
    async fn may_break_the_lock(&self, config: &DashboardConfig) -> Result<bool, String> {
        let (name, addr) = (&config.coordinator_name, &config.coordinator_addr);
        if name == "filesystem" {
            return Ok(true);
        }
        let product = &config.product_name;
        let cant = |call: &str| {
            format!(
                "the {name} {addr} can't be read (codis-admin {call}), so nobody knows whose the product {product} is"
            )
        };
        let elsewhere = format!("{OWNED_ELSEWHERE}the product {product} on the {name} {addr}");
        let coordinator = Coordinator::open(name, addr, "").map_err(|error| error.to_string())?;
        let products = coordinator.products().await;
        let products = products.map_err(|_| cant("--dashboard-list"))?;
        let holder = products.into_iter().find(|(known, _)| known == product);
        let unlock = match holder.and_then(|(_, holder)| holder) {
            None => false,
            Some(holder) if holder == self.secret("lock-address").trim() => true,
            Some(holder) => return Err(format!("{elsewhere} is held by the dashboard {holder}")),
        };
        let began_as_ours = self.disk.read(PRODUCT_OURS).is_ok_and(|file| file.is_some());
        if self.secret("product-claimed").is_empty() && !(unlock && began_as_ours) {
            let store = coordinator.product(product);
            let groups = store.groups().await.map_err(|_| cant("--config-dump"))?;
            let proxies = store.proxies().await.map_err(|_| cant("--config-dump"))?;
            if !groups.is_empty() || !proxies.is_empty() {
                return Err(format!("{elsewhere} has content, and isn't marked as this cluster's"));
            }
        }
        let noted = self.disk.write(PRODUCT_OURS, b"");
        noted.map_err(|error| error.to_string())?;
        Ok(unlock)
    }

    async fn proxy(self) -> Exit {
        let dashboard = self.secret("dashboard-address").trim().to_owned();
        while !answers(&dashboard).await {
            sleep(Duration::from_secs(1)).await;
        }
        let mut config: ProxyConfig = match codis_double::config::parse(&self.secret("proxy.toml")) {
            Ok(config) => config,
            Err(error) => return ended(1, format!("{error:#}")),
        };
        if let Some(zone) = self.launch.env.get("ZONE").filter(|zone| !zone.is_empty())
            && config.proxy_datacenter.is_empty()
        {
            config.proxy_datacenter = zone.clone();
        }
        let ip = self.launch.ip;
        let options = proxy::Options {
            config,
            dashboard: Some(dashboard),
            host_admin: Some(format!("{ip}:11080")),
            host_proxy: Some(format!("{ip}:19000")),
            ..Default::default()
        };
        match proxy::start(options).await {
            Err(error) => ended(1, format!("{error:#}")),
            Ok(handle) => {
                self.serves.proxy(handle.view.clone());
                gave_up(handle.wait().await)
            }
        }
    }

    /// Nobody looks at it in here: it has its port.
    async fn front_end(self) -> Exit {
        let Ok(mut port) = host::listen("0.0.0.0:9090").await else {
            return ended(1, "9090 is taken".to_owned());
        };
        self.serves.stopper();
        loop {
            tokio::select! {
                biased;
                () = self.serves.stopped() => return ended(0, String::new()),
                accepted = port.accept() => drop(accepted),
            }
        }
    }
}

/// No append-only file and no dump: this server has never held anything on this volume.
fn is_empty(disk: &Disk) -> bool {
    let has = |path: &str| disk.read(path).is_ok_and(|file| file.is_some());
    !has("/data/appendonly.aof") && !has("/data/appendonlydir") && !has("/data/dump.rdb")
}

async fn is_master(ip: &str, password: &str) -> bool {
    let Ok(mut connection) = Connection::open(&format!("{ip}:6379"), password, ASK).await else {
        return false;
    };
    let info = connection.plain_info().await.unwrap_or_default();
    info.get("role").is_some_and(|role| role == "master")
}

/// Whether a dashboard holds its lock.
async fn answers(dashboard: &str) -> bool {
    let rpc = codis_double::rpc::Rpc::new(&codis_double::timings::Timings::default());
    rpc.get::<serde::de::IgnoredAny>(dashboard, "/topom").await.is_ok()
}
