//! The texts of the configuration files: the operator's lines first, then a person's.

use std::fmt::{Display, Write};

use super::Facts;
use crate::{
    domain::{Address, ports},
    validate::{Coordinator, SentinelTuning, Settings, ValidCluster, is_bare, live},
};

/// How far behind a replica may be, in seconds, for its master to take writes with bounded durability.
pub(super) const MAX_LAG: u32 = 10;

/// A TOML (and JSON) string. `validate` lets no character through that would need more than this.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// A TOML file. It has each key once: a person's value takes the place of the operator's.
struct Toml(Vec<(String, String)>);

impl Toml {
    fn text(&mut self, key: &str, value: &str) {
        self.0.push((key.to_owned(), quoted(value)));
    }

    fn number(&mut self, key: &str, value: impl Display) {
        self.0.push((key.to_owned(), value.to_string()));
    }

    fn overrides(&mut self, settings: &Settings) {
        for (key, value) in settings {
            let value = if is_bare(key) { value.clone() } else { quoted(value) };
            match self.0.iter_mut().find(|(known, _)| known == key) {
                Some(line) => line.1 = value,
                None => self.0.push((key.clone(), value)),
            }
        }
    }

    fn finish(self) -> String {
        self.0.into_iter().fold(String::new(), |mut file, (key, value)| {
            let _ = writeln!(file, "{key} = {value}");
            file
        })
    }
}

pub(super) fn dashboard_toml(cluster: &ValidCluster, facts: &Facts) -> String {
    let (coordinator, address) = coordinator(&cluster.coordinator);
    let tuning = cluster.sentinel_tuning;
    let mut toml = Toml(Vec::new());
    toml.text("coordinator_name", coordinator);
    toml.text("coordinator_addr", &address);
    toml.text("product_name", cluster.product());
    toml.text("product_auth", facts.auth.product.as_deref().unwrap_or_default());
    toml.text("admin_addr", &format!("0.0.0.0:{}", ports::DASHBOARD));
    toml.number("sentinel_quorum", cluster.quorum());
    toml.number("sentinel_parallel_syncs", tuning.parallel_syncs);
    toml.text("sentinel_down_after", &span(tuning.down_after_ms));
    toml.text("sentinel_failover_timeout", &span(tuning.failover_timeout_ms));
    if let Some(parallel) = cluster.slot_moves.parallel {
        toml.number("migration_parallel_slots", parallel);
    }
    toml.overrides(&cluster.dashboard.config);
    toml.finish()
}

/// A coordinator's name and address.
fn coordinator(coordinator: &Coordinator) -> (&'static str, String) {
    let join = |all: &[Address]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match coordinator {
        Coordinator::Filesystem => ("filesystem", "/data/codis".to_owned()),
        Coordinator::Etcd(addresses) => ("etcd", join(addresses)),
        Coordinator::Zookeeper(addresses) => ("zookeeper", join(addresses)),
    }
}

/// A time as Codis writes it.
fn span(millis: u32) -> String {
    if millis.is_multiple_of(1000) {
        format!("{}s", millis / 1000)
    } else {
        format!("{millis}ms")
    }
}

pub(super) fn proxy_toml(cluster: &ValidCluster, facts: &Facts) -> String {
    let mut toml = Toml(Vec::new());
    toml.text("product_name", cluster.product());
    toml.text("product_auth", facts.auth.product.as_deref().unwrap_or_default());
    toml.text("session_auth", facts.auth.session.as_deref().unwrap_or_default());
    toml.text("admin_addr", &format!("0.0.0.0:{}", ports::PROXY_ADMIN));
    toml.text("proto_type", "tcp4");
    toml.text("proxy_addr", &format!("0.0.0.0:{}", ports::PROXY));
    let sizes = [
        ("proxy_max_offheap_size", cluster.proxy_sizing.offheap_mb),
        ("proxy_heap_placeholder", cluster.proxy_sizing.placeholder_mb),
    ];
    for (key, size) in sizes {
        if let Some(size) = size {
            toml.text(key, &format!("{size}mb"));
        }
    }
    // Commands under way to a master that hangs keep their slots from being switched until they time out (contract §8.1):
    // with Codis's 30 s nobody could write for so long. What blocks a server for longer than this is a failover anyway.
    toml.text(
        "backend_recv_timeout",
        &span(cluster.sentinel_tuning.down_after_ms.max(1_000)),
    );
    toml.0.extend(jodis_settings(cluster));
    toml.overrides(&cluster.proxy.config);
    toml.finish()
}

/// Where a proxy registers for clients that know jodis, as it stands in proxy.toml: read at its start only.
pub(super) fn jodis_settings(cluster: &ValidCluster) -> Vec<(String, String)> {
    let Some(jodis) = &cluster.jodis else {
        return Vec::new();
    };
    let (name, address) = coordinator(&jodis.coordinator);
    [
        ("jodis_name", quoted(name)),
        ("jodis_addr", quoted(&address)),
        ("jodis_compatible", jodis.compatible.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Spoken by redis 3.2 and by 7. AOF is on (decision 3); `repl-timeout` is low because a reconnect can fall into a
/// black hole for that long (identity-experiment S4), but longer than two pings. Of two lines with one key redis takes
/// the last: a person's come after the operator's, and those that the entry script adds (a fence) after both.
pub(super) fn redis_conf(cluster: &ValidCluster, facts: &Facts) -> String {
    let mut conf = format!(
        "bind 0.0.0.0\nprotected-mode no\nport {}\ndaemonize no\ndir /data\nlogfile \"\"\npidfile /tmp/redis.pid\n\
         appendonly yes\nappendfsync everysec\nsave \"\"\ntcp-keepalive 60\nrepl-ping-slave-period 5\nrepl-timeout 12\n\
         repl-diskless-sync no\nrepl-backlog-size 32mb\nclient-output-buffer-limit slave 256mb 64mb 60\n",
        ports::SERVER
    );
    if let Some(password) = &facts.auth.product {
        let _ = write!(
            conf,
            "requirepass {}\nmasterauth {}\n",
            quoted(password),
            quoted(password)
        );
    }
    if let Some(bytes) = max_memory(cluster) {
        let _ = writeln!(conf, "maxmemory {bytes}");
    }
    if cluster.good_replicas > 0 {
        let _ = writeln!(conf, "min-slaves-to-write {}", cluster.good_replicas);
        let _ = writeln!(conf, "min-slaves-max-lag {MAX_LAG}");
    }
    for (key, value) in &cluster.server.config {
        conf.push_str(&redis_lines(key, value));
    }
    conf
}

/// What of a server's memory limit its data may take, in bytes: 65 %, none without a limit. The rest is for what redis
/// doesn't count or can't evict: pages that a rewrite of the AOF or a full synchronisation copies while clients write,
/// the replicas' output buffers (256 MB each at most), fragmentation, the process itself.
pub(super) fn max_memory(cluster: &ValidCluster) -> Option<u64> {
    cluster.server.memory.map(|limit| limit / 100 * 65)
}

/// The lines of a parameter. Redis 3.2 takes `save` and `client-output-buffer-limit` one rule a line.
fn redis_lines(key: &str, value: &str) -> String {
    let words: Vec<&str> = value.split_whitespace().collect();
    let per_line = match key {
        "save" => 2,
        "client-output-buffer-limit" => 4,
        _ => words.len().max(1),
    };
    if words.is_empty() {
        return format!("{key} \"\"\n");
    }
    words.chunks(per_line).fold(String::new(), |mut lines, words| {
        let _ = writeln!(lines, "{key} {}", words.join(" "));
        lines
    })
}

/// What is told each sentinel of each master isn't here: sentinels start without masters (decision 5).
pub(super) fn sentinel_conf(cluster: &ValidCluster) -> String {
    let mut conf = format!(
        "port {}\nbind 0.0.0.0\nprotected-mode no\ndaemonize no\nlogfile \"\"\npidfile /tmp/sentinel.pid\ndir /data\n",
        ports::SENTINEL
    );
    for (key, value) in sentinel_process_settings(cluster) {
        conf.push_str(&redis_lines(key, value));
    }
    conf
}

/// The settings of a sentinel that it reads at its start only.
pub(super) fn sentinel_process_settings(cluster: &ValidCluster) -> impl Iterator<Item = (&String, &String)> {
    let settings = cluster.sentinel.iter().flat_map(|sentinel| &sentinel.config);
    settings.filter(|(key, _)| !SentinelTuning::KEYS.contains(&key.as_str()))
}

/// The settings of a server that it reads at its start only.
pub(super) fn server_start_settings(cluster: &ValidCluster) -> impl Iterator<Item = (&String, &String)> {
    cluster.server.config.iter().filter(|(key, _)| live(key).is_none())
}
