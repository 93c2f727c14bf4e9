//! `redis.conf`, `CONFIG GET`, `SET` and `REWRITE`. Keys have their old names (`slave`) inside, both outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::super::clients::glob;
use super::super::conf::{self, Conf};

/// Defaults of redis 7 for what a file doesn't say, with codis-server's own where they matter here.
const DEFAULTS: [(&str, &str); 41] = [
    ("appendfsync", "everysec"),
    ("appendonly", "no"),
    ("bind", ""),
    (
        "client-output-buffer-limit",
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    ),
    ("daemonize", "no"),
    ("databases", "16"),
    ("dir", ""),
    ("hz", "10"),
    ("lazyfree-lazy-eviction", "no"),
    ("latency-monitor-threshold", "0"),
    ("logfile", ""),
    ("loglevel", "notice"),
    ("masterauth", ""),
    ("maxclients", "10000"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("maxmemory-samples", "5"),
    ("min-slaves-max-lag", "10"),
    ("min-slaves-to-write", "0"),
    ("no-appendfsync-on-rewrite", "no"),
    ("notify-keyspace-events", ""),
    ("pidfile", ""),
    ("port", "6379"),
    ("protected-mode", "yes"),
    ("repl-backlog-size", "1048576"),
    ("repl-backlog-ttl", "3600"),
    ("repl-disable-tcp-nodelay", "no"),
    ("repl-diskless-sync", "no"),
    ("repl-ping-slave-period", "10"),
    ("repl-timeout", "60"),
    ("requirepass", ""),
    ("save", ""),
    ("slave-announce-ip", ""),
    ("slave-announce-port", "0"),
    ("slave-priority", "100"),
    ("slave-read-only", "yes"),
    ("slave-serve-stale-data", "yes"),
    ("slowlog-log-slower-than", "10000"),
    ("slowlog-max-len", "128"),
    ("tcp-keepalive", "300"),
    ("timeout", "0"),
];
const BYTES: [&str; 2] = ["maxmemory", "repl-backlog-size"];
const NUMBERS: [&str; 14] = [
    "databases",
    "hz",
    "maxclients",
    "min-slaves-max-lag",
    "min-slaves-to-write",
    "port",
    "repl-backlog-ttl",
    "repl-ping-slave-period",
    "repl-timeout",
    "slave-announce-port",
    "slave-priority",
    "slowlog-log-slower-than",
    "slowlog-max-len",
    "timeout",
];
const FLAGS: [&str; 5] = [
    "appendonly",
    "no-appendfsync-on-rewrite",
    "repl-diskless-sync",
    "slave-read-only",
    "slave-serve-stale-data",
];
const FIXED: [&str; 4] = ["daemonize", "databases", "logfile", "pidfile"];

/// All parameters of a server, but its master.
#[derive(Debug, Default)]
pub(super) struct Settings {
    values: BTreeMap<String, String>,
    lines: Conf,
    changed: BTreeSet<String>,
}

/// The name that a parameter has inside.
fn canonical(key: &str) -> String {
    let key = key.to_ascii_lowercase();
    match key.as_str() {
        "repl-ping-replica-period" => "repl-ping-slave-period".into(),
        key if key.starts_with("min-replicas-") => key.replace("min-replicas-", "min-slaves-"),
        key if key.starts_with("replica-") => key.replace("replica-", "slave-"),
        key => key.into(),
    }
}

/// The name that redis 5 and later prefer, where it differs.
fn modern(key: &str) -> Option<String> {
    match key {
        "repl-ping-slave-period" => Some("repl-ping-replica-period".into()),
        key if key.starts_with("min-slaves-") => Some(key.replace("min-slaves-", "min-replicas-")),
        key if key.starts_with("slave-") => Some(key.replace("slave-", "replica-")),
        _ => None,
    }
}

impl Settings {
    /// Reads a file; also tells the master that it names.
    pub(super) fn parse(text: &str) -> (Self, Option<(String, u16)>) {
        let lines = Conf::parse(text);
        let defaults = DEFAULTS
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut values: BTreeMap<String, String> = defaults.collect();
        let mut master = None;
        for line in &lines.0 {
            let (key, words) = (canonical(&line[0]), &line[1..]);
            match (key.as_str(), words) {
                ("slaveof" | "replicaof", [host, port]) => {
                    master = port.parse().ok().map(|port| (host.clone(), port));
                }
                _ => {
                    let value = normal(&key, &words.join(" ")).unwrap_or_else(|_| words.join(" "));
                    values.insert(key, value);
                }
            }
        }
        let changed = BTreeSet::new();
        (Self { values, lines, changed }, master)
    }

    /// A parameter by its old name; empty if it isn't known.
    pub(super) fn text(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    /// A number by its old name, 0 if it is none.
    pub(super) fn number(&self, key: &str) -> i64 {
        self.text(key).parse().unwrap_or(0)
    }

    /// A flag by its old name.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.text(key) == "yes"
    }

    /// `CONFIG GET`: names as they were asked for, values.
    pub(super) fn matching(&self, pattern: &str) -> Vec<(String, String)> {
        let pattern = pattern.to_ascii_lowercase();
        let names = |key: &String| [Some(key.clone()), modern(key)].into_iter().flatten();
        let all = self
            .values
            .iter()
            .flat_map(|(key, value)| names(key).map(move |name| (name, value.clone())));
        all.filter(|(name, _)| glob(pattern.as_bytes(), name.as_bytes()))
            .collect()
    }

    /// `CONFIG SET` of one parameter.
    ///
    /// # Errors
    /// Redis's words.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let inside = canonical(key);
        if !self.values.contains_key(&inside) {
            return Err(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{key}'"
            ));
        }
        let failed = |why: &str| format!("ERR CONFIG SET failed (possibly related to argument '{key}') - {why}");
        if FIXED.contains(&inside.as_str()) {
            return Err(failed("can't set immutable config"));
        }
        let value = normal(&inside, value).map_err(failed)?;
        self.values.insert(inside.clone(), value);
        self.changed.insert(inside);
        Ok(())
    }

    /// The file as `CONFIG REWRITE` leaves it: its own lines, those of what was set, and the master's.
    pub(super) fn rewritten(&self, master: Option<(&str, u16)>) -> String {
        let mut open: BTreeSet<&str> = self.changed.iter().map(String::as_str).collect();
        let mut lines = Conf::default();
        for line in &self.lines.0 {
            let key = canonical(&line[0]);
            if key == "slaveof" || key == "replicaof" {
                continue;
            }
            if !self.changed.contains(&key) {
                lines.0.push(line.clone());
            } else if open.remove(key.as_str()) {
                lines.0.extend(self.line(&line[0], &key));
            }
        }
        lines.0.extend(open.into_iter().flat_map(|key| self.line(key, key)));
        let mut text = lines.render();
        if let Some((host, port)) = master {
            let _ = writeln!(text, "slaveof {host} {port}");
        }
        text
    }

    fn line(&self, name: &str, key: &str) -> Option<Vec<String>> {
        let value = self.text(key);
        let is_default = DEFAULTS.contains(&(key, value));
        let words: Vec<String> = match (key, value.is_empty()) {
            // No line at all says that there is no password.
            ("requirepass" | "masterauth", true) => return None,
            ("save" | "client-output-buffer-limit" | "bind", false) => value.split(' ').map(str::to_owned).collect(),
            _ => vec![value.to_owned()],
        };
        let keeps = !is_default || self.lines.0.iter().any(|line| canonical(&line[0]) == key);
        keeps.then(|| std::iter::once(name.to_owned()).chain(words).collect())
    }
}

/// A value in its normal form, or why it isn't one.
fn normal(key: &str, value: &str) -> Result<String, &'static str> {
    if BYTES.contains(&key) {
        let number = conf::bytes(value).ok_or("argument must be a memory value")?;
        return Ok(number.to_string());
    }
    if NUMBERS.contains(&key) {
        let number: i64 = value
            .parse()
            .map_err(|_| "argument couldn't be parsed into an integer")?;
        if number < 0 && key != "slowlog-log-slower-than" {
            return Err("argument must be between 0 and 2147483647 inclusive");
        }
        return Ok(number.to_string());
    }
    let value = if FLAGS.contains(&key) {
        value.to_ascii_lowercase()
    } else {
        value.to_owned()
    };
    if FLAGS.contains(&key) && value != "yes" && value != "no" {
        return Err("argument must be 'yes' or 'no'");
    }
    if key == "appendfsync" && !["always", "everysec", "no"].contains(&value.as_str()) {
        return Err("argument(s) must be one of the following: everysec, always, no");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewrite_keeps_the_file_and_says_what_was_set() {
        let file = "port 6379\nmin-slaves-to-write 1\nodd 1 2\nreplicaof 10.0.0.1 6379\n";
        let (mut settings, master) = Settings::parse(file);
        assert_eq!(master, Some(("10.0.0.1".into(), 6379)));
        settings.set("min-replicas-to-write", "0").unwrap();
        settings.set("maxmemory", "100mb").unwrap();
        settings.set("masterauth", "pw").unwrap();
        assert_eq!(
            settings.rewritten(Some(("10.0.0.2", 6380))),
            "port 6379\nmin-slaves-to-write 0\nodd 1 2\nmasterauth pw\nmaxmemory 104857600\nslaveof 10.0.0.2 6380\n"
        );
        assert_eq!(
            settings.matching("min-slaves-to-write"),
            [("min-slaves-to-write".into(), "0".into())]
        );
        assert_eq!(settings.matching("min-replicas-to-write").len(), 1);
        assert!(settings.set("nonsense", "1").is_err());
        assert!(settings.set("maxmemory", "x").is_err());
    }
}
