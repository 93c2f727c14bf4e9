//! `INFO`, as far as somebody reads it.

use std::fmt::Write as _;

use super::State;

impl State {
    /// All sections, or one.
    pub(super) fn info(&self, section: Option<&str>) -> String {
        let section = section.map(str::to_lowercase);
        let has = |name: &str| {
            section
                .as_deref()
                .is_none_or(|wanted| [name, "all", "default", "everything"].contains(&wanted))
        };
        let mut text = String::new();
        if has("server") {
            let _ = write!(
                text,
                "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:{}\r\ntcp_port:6379\r\nuptime_in_seconds:{}\r\n",
                self.run_id,
                self.started.elapsed().as_secs()
            );
        }
        if has("clients") {
            let _ = write!(text, "# Clients\r\nconnected_clients:{}\r\n", self.clients.len());
        }
        if has("memory") {
            let _ = write!(
                text,
                "# Memory\r\nused_memory:{}\r\nmaxmemory:{}\r\n",
                1_000_000 + 100 * self.data.values().map(|keys| keys.len()).sum::<usize>(),
                self.number("maxmemory", 0)
            );
        }
        if has("persistence") {
            text.push_str("# Persistence\r\nloading:0\r\naof_enabled:1\r\n");
        }
        if has("replication") {
            self.replication(&mut text);
        }
        if has("keyspace") {
            text.push_str("# Keyspace\r\n");
            for (number, keys) in self.data.iter().filter(|(_, keys)| !keys.is_empty()) {
                let _ = write!(text, "db{number}:keys={},expires=0,avg_ttl=0\r\n", keys.len());
            }
        }
        text
    }

    fn replication(&self, text: &mut String) {
        text.push_str("# Replication\r\n");
        match &self.master {
            None => text.push_str("role:master\r\n"),
            Some(master) => {
                let status = if self.link_up { "up" } else { "down" };
                let _ = write!(
                    text,
                    "role:slave\r\nmaster_host:{}\r\nmaster_port:{}\r\nmaster_link_status:{status}\r\n\
                     master_last_io_seconds_ago:{}\r\nmaster_sync_in_progress:{}\r\nslave_read_repl_offset:{offset}\r\n\
                     slave_repl_offset:{offset}\r\n",
                    master.host,
                    master.port,
                    if self.link_up { 0 } else { -1 },
                    u8::from(self.syncing),
                    offset = self.offset
                );
                if let Some(since) = self.link_down_since.filter(|_| !self.link_up) {
                    let _ = write!(text, "master_link_down_since_seconds:{}\r\n", since.elapsed().as_secs());
                }
                let priority = self.number("slave-priority", 100);
                let _ = write!(text, "slave_priority:{priority}\r\nslave_read_only:1\r\n");
            }
        }
        let replicas: Vec<_> = self
            .clients
            .values()
            .filter_map(|client| client.replica.as_ref())
            .collect();
        let _ = write!(text, "connected_slaves:{}\r\n", replicas.len());
        if self.is_fenced() {
            let _ = write!(text, "min_slaves_good_slaves:{}\r\n", self.good_replicas());
        }
        for (number, replica) in replicas.iter().enumerate() {
            let _ = write!(
                text,
                "slave{number}:ip={},port={},state=online,offset={},lag={}\r\n",
                replica.address,
                replica.port,
                replica.acknowledged,
                replica.heard.elapsed().as_secs()
            );
        }
        let (former, until) = self.former_id.clone().unwrap_or_else(|| ("0".repeat(40), -1));
        let _ = write!(
            text,
            "master_replid:{}\r\nmaster_replid2:{former}\r\nmaster_repl_offset:{}\r\nsecond_repl_offset:{until}\r\n",
            self.replication_id, self.offset
        );
    }
}
