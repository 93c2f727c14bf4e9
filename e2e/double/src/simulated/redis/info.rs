//! `INFO`.

use std::fmt::Write as _;

use super::core::Redis;
use super::replica::Link;

/// A replica as its master tells it.
pub(super) struct Told {
    pub(super) ip: String,
    pub(super) port: u16,
    pub(super) acked: u64,
    is_online: bool,
    lag: i64,
}

type Section = fn(&Redis, &mut String);

const SECTIONS: [(&str, &str, Section); 8] = [
    ("server", "Server", Redis::info_server),
    ("clients", "Clients", Redis::info_clients),
    ("memory", "Memory", Redis::info_memory),
    ("persistence", "Persistence", Redis::info_persistence),
    ("stats", "Stats", Redis::info_stats),
    ("replication", "Replication", Redis::info_replication),
    ("cpu", "CPU", |_, _| {}),
    ("keyspace", "Keyspace", Redis::info_keyspace),
];

/// Adds a line.
macro_rules! line {
    ($out:expr, $($format:tt)*) => {{
        let _ = write!($out, $($format)*);
        $out.push_str("\r\n");
    }};
}

impl Redis {
    /// A section, or all of them.
    pub(super) fn info(&self, section: &str) -> String {
        let section = section.to_ascii_lowercase();
        let all = matches!(section.as_str(), "" | "all" | "default" | "everything");
        let mut out = String::with_capacity(1024);
        for (name, title, write) in SECTIONS {
            if all || name == section {
                if !out.is_empty() {
                    out.push_str("\r\n");
                }
                line!(out, "# {title}");
                write(self, &mut out);
            }
        }
        out
    }

    fn info_server(&self, out: &mut String) {
        let up = (self.clock.ms() - self.started) / 1000;
        line!(out, "redis_version:7.0.15");
        line!(out, "redis_mode:standalone");
        line!(out, "process_id:1");
        line!(out, "run_id:{}", self.run_id);
        line!(out, "tcp_port:{}", self.settings.text("port"));
        line!(out, "uptime_in_seconds:{up}");
        line!(out, "uptime_in_days:{}", up / 86400);
        line!(out, "hz:{}", self.settings.text("hz"));
        line!(out, "executable:/codis/codis-server");
        line!(out, "config_file:{}", self.conf_path);
    }

    fn info_clients(&self, out: &mut String) {
        line!(out, "connected_clients:{}", self.connected());
        line!(out, "maxclients:{}", self.settings.text("maxclients"));
        line!(out, "blocked_clients:0");
    }

    /// Connections that are no replicas'.
    pub(super) fn connected(&self) -> usize {
        let all = self.clients.iter();
        all.filter(|(_, client)| client.state.replica.is_none()).count()
    }

    fn info_memory(&self, out: &mut String) {
        let used = self.keys.memory();
        line!(out, "used_memory:{used}");
        line!(out, "used_memory_human:{:.2}M", used as f64 / f64::from(1 << 20));
        line!(out, "used_memory_rss:{}", used + used / 8);
        line!(out, "used_memory_peak:{used}");
        line!(out, "maxmemory:{}", self.settings.text("maxmemory"));
        line!(out, "maxmemory_policy:{}", self.settings.text("maxmemory-policy"));
        line!(out, "mem_fragmentation_ratio:1.12");
    }

    fn info_persistence(&self, out: &mut String) {
        line!(out, "loading:{}", u8::from(self.loading));
        line!(out, "rdb_changes_since_last_save:0");
        line!(out, "rdb_bgsave_in_progress:0");
        line!(out, "rdb_last_bgsave_status:ok");
        line!(out, "aof_enabled:{}", u8::from(self.logs));
        line!(out, "aof_rewrite_in_progress:0");
        line!(out, "aof_last_bgrewrite_status:ok");
        line!(out, "aof_last_write_status:ok");
    }

    fn info_stats(&self, out: &mut String) {
        line!(out, "total_connections_received:{}", self.connections);
        line!(out, "total_commands_processed:{}", self.commands);
        line!(out, "instantaneous_ops_per_sec:0");
        line!(out, "sync_full:{}", self.history.full_syncs);
        line!(out, "sync_partial_ok:{}", self.history.partial_syncs);
        line!(out, "evicted_keys:0");
    }

    /// The replicas in the order in which they came.
    pub(super) fn told_replicas(&self) -> Vec<Told> {
        let now = self.clock.ms() / 1000;
        let all = self.clients.iter().filter_map(|(_, client)| {
            let session = &client.state;
            let replica = session.replica.as_ref()?;
            let peer = || client.peer.ip().to_string();
            Some(Told {
                ip: if session.ip.is_empty() {
                    peer()
                } else {
                    session.ip.clone()
                },
                port: session.port,
                acked: replica.acked,
                is_online: replica.is_online(),
                lag: now - replica.acked_at,
            })
        });
        all.collect()
    }

    fn info_replication(&self, out: &mut String) {
        line!(out, "role:{}", if self.is_master() { "master" } else { "slave" });
        self.info_master(out);
        let replicas = self.told_replicas();
        line!(out, "connected_slaves:{}", replicas.len());
        let (needed, lag) = (
            self.settings.number("min-slaves-to-write"),
            self.settings.number("min-slaves-max-lag"),
        );
        if needed > 0 && lag > 0 {
            line!(out, "min_slaves_good_slaves:{}", self.good);
        }
        for (number, replica) in replicas.iter().enumerate() {
            let state = if replica.is_online { "online" } else { "wait_bgsave" };
            let (ip, port, acked, lag) = (&replica.ip, replica.port, replica.acked, replica.lag);
            line!(
                out,
                "slave{number}:ip={ip},port={port},state={state},offset={acked},lag={lag}"
            );
        }
        let history = &self.history;
        line!(out, "master_failover_state:no-failover");
        line!(out, "master_replid:{}", history.id);
        line!(out, "master_replid2:{}", history.former);
        line!(out, "master_repl_offset:{}", history.offset);
        line!(out, "second_repl_offset:{}", history.former_end);
        let length = history.backlog.as_ref().map_or(0, |backlog| backlog.length);
        line!(out, "repl_backlog_active:{}", u8::from(history.backlog.is_some()));
        line!(out, "repl_backlog_size:{}", self.settings.text("repl-backlog-size"));
        let first = history
            .backlog
            .as_ref()
            .map_or(0, |_| history.offset + 1 - length as u64);
        line!(out, "repl_backlog_first_byte_offset:{first}");
        line!(out, "repl_backlog_histlen:{length}");
    }

    /// What a replica tells of its master.
    fn info_master(&self, out: &mut String) {
        let Some(follow) = &self.follow else { return };
        let now = self.clock.ms();
        let (offset, up) = (if follow.resumes { self.history.offset } else { 0 }, follow.is_up());
        let heard = if up { (now - follow.heard) / 1000 } else { -1 };
        line!(out, "master_host:{}", follow.host);
        line!(out, "master_port:{}", follow.port);
        line!(out, "master_link_status:{}", if up { "up" } else { "down" });
        line!(out, "master_last_io_seconds_ago:{heard}");
        let syncs = matches!(follow.link, Link::Receiving | Link::Loading);
        line!(out, "master_sync_in_progress:{}", u8::from(syncs));
        line!(out, "slave_read_repl_offset:{offset}");
        line!(out, "slave_repl_offset:{offset}");
        if !up {
            let since = follow.down_since.map_or(-1, |since| (now - since) / 1000);
            line!(out, "master_link_down_since_seconds:{since}");
        }
        line!(out, "slave_priority:{}", self.settings.text("slave-priority"));
        line!(
            out,
            "slave_read_only:{}",
            u8::from(self.settings.flag("slave-read-only"))
        );
        line!(out, "replica_announced:1");
    }

    fn info_keyspace(&self, out: &mut String) {
        for (number, keys) in self.keys.databases() {
            line!(
                out,
                "db{number}:keys={},expires={},avg_ttl=0",
                keys.len(),
                keys.ending()
            );
        }
    }
}
