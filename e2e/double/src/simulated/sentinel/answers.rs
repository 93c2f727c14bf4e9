//! What a sentinel answers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::state::{Instance, Master, State};
use crate::resp::Value;

fn row(pairs: Vec<(&str, String)>) -> Value {
    let words = pairs
        .into_iter()
        .flat_map(|(key, value)| [Value::bulk(key.to_owned()), Value::bulk(value)]);
    Value::Array(Some(words.collect()))
}

impl State {
    /// Answers a command; no reply where it goes to `out` itself.
    pub(super) fn answer(&mut self, words: &[Bytes], out: &mpsc::UnboundedSender<Bytes>) -> Option<Value> {
        let words: Vec<String> = words
            .iter()
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        Some(match words[0].to_uppercase().as_str() {
            "PING" => Value::Simple("PONG".into()),
            "INFO" => Value::bulk(self.info()),
            "SUBSCRIBE" => {
                for (number, channel) in words[1..].iter().enumerate() {
                    self.subscribers.push((channel.clone(), out.clone()));
                    let parts = [
                        Value::bulk("subscribe"),
                        Value::bulk(channel.clone()),
                        Value::Integer(number as i64 + 1),
                    ];
                    let mut bytes = BytesMut::new();
                    Value::Array(Some(parts.to_vec())).encode(&mut bytes);
                    // Who has gone wants no reply.
                    let _ = out.send(bytes.freeze());
                }
                return None;
            }
            "SENTINEL" => self.sentinel(&words[1..]),
            "CLIENT" => Value::ok(),
            other => Value::error(format!("ERR unknown command '{other}', with args beginning with: ")),
        })
    }

    fn sentinel(&mut self, words: &[String]) -> Value {
        let verb = words.first().map(|word| word.to_lowercase()).unwrap_or_default();
        let rest = words.get(1..).unwrap_or_default();
        match (verb.as_str(), rest) {
            ("masters", _) => {
                let rows = self.masters.iter().map(|(name, master)| master.row(name));
                Value::Array(Some(rows.collect()))
            }
            ("flushconfig", _) => Value::ok(),
            ("myid", _) => Value::bulk(self.my_id.clone()),
            ("monitor", [name, host, port, quorum]) => self.monitor(name, format!("{host}:{port}"), quorum),
            ("is-master-down-by-addr", [host, port, epoch, candidate]) => {
                self.vote(&format!("{host}:{port}"), epoch.parse().unwrap_or(0), candidate)
            }
            ("get-master-addr-by-name", [name]) => match self.masters.get(name) {
                Some(master) => {
                    let (host, port) = master.address.rsplit_once(':').unwrap_or((&master.address, ""));
                    Value::Array(Some(vec![Value::bulk(host.to_owned()), Value::bulk(port.to_owned())]))
                }
                None => Value::Array(None),
            },
            (_, [name, ..]) if !self.masters.contains_key(name) => Value::error("ERR No such master with that name"),
            ("remove", [name]) => {
                self.masters.remove(name);
                Value::ok()
            }
            ("reset", [name]) => {
                if let Some(master) = self.masters.get_mut(name) {
                    let address = master.address.clone();
                    master.turn_to(&address);
                    master.replicas.clear();
                    master.peers.clear();
                }
                Value::Integer(1)
            }
            ("set", [name, pairs @ ..]) => self.set(name, pairs),
            (_, [name, ..]) => match self.masters.get(name) {
                Some(master) => master.answer(&verb, name),
                None => Value::Array(None),
            },
            _ => Value::error(format!("ERR Unknown sentinel subcommand '{verb}'")),
        }
    }

    fn monitor(&mut self, name: &str, address: String, quorum: &str) -> Value {
        if self.masters.contains_key(name) {
            return Value::error("ERR Duplicate master name.");
        }
        match quorum.parse() {
            Ok(quorum) if quorum > 0 => {
                self.masters.insert(name.to_owned(), Master::new(address, quorum));
                Value::ok()
            }
            _ => Value::error("ERR Quorum must be 1 or greater."),
        }
    }

    fn set(&mut self, name: &str, pairs: &[String]) -> Value {
        let Some(master) = self.masters.get_mut(name) else {
            return Value::error("ERR No such master with that name");
        };
        for pair in pairs.chunks_exact(2) {
            let number = pair[1].parse::<u64>().unwrap_or(0);
            match pair[0].as_str() {
                "quorum" => master.quorum = usize::try_from(number).unwrap_or(1).max(1),
                "parallel-syncs" => master.parallel_syncs = usize::try_from(number).unwrap_or(1),
                "down-after-milliseconds" => master.down_after = Duration::from_millis(number),
                "failover-timeout" => master.failover_timeout = Duration::from_millis(number),
                "auth-pass" => master.password.clone_from(&pair[1]),
                _ => {}
            }
        }
        Value::ok()
    }

    /// Whether that master is down for us, and our vote.
    fn vote(&mut self, address: &str, epoch: u64, candidate: &str) -> Value {
        let found = self.masters.iter_mut().find(|(_, master)| master.address == address);
        let Some((_, master)) = found else {
            return Value::Array(Some(vec![Value::Integer(0), Value::bulk("*"), Value::Integer(0)]));
        };
        let is_down = master.instance.is_down;
        if candidate == "*" {
            return Value::Array(Some(vec![
                Value::Integer(i64::from(is_down)),
                Value::bulk("*"),
                Value::Integer(0),
            ]));
        }
        self.epoch = self.epoch.max(epoch);
        if master.vote.1 < epoch {
            master.vote = (candidate.to_owned(), epoch);
            // Who votes for another leaves it the time.
            let later = tokio::time::Instant::now() + 2 * master.failover_timeout;
            master.not_before = Some(later);
        }
        Value::Array(Some(vec![
            Value::Integer(i64::from(is_down)),
            Value::bulk(master.vote.0.clone()),
            Value::Integer(i64::try_from(master.vote.1).unwrap_or(0)),
        ]))
    }

    fn info(&self) -> String {
        let mut text = format!(
            "# Server\r\nredis_version:7.0.15\r\nredis_mode:sentinel\r\nrun_id:{}\r\n# Sentinel\r\nsentinel_masters:{}\r\n\
             sentinel_tilt:0\r\nsentinel_running_scripts:0\r\n",
            self.my_id,
            self.masters.len()
        );
        for (number, (name, master)) in self.masters.iter().enumerate() {
            let status = match (master.is_objectively_down, master.instance.is_down) {
                (true, _) => "odown",
                (_, true) => "sdown",
                _ => "ok",
            };
            text.push_str(&format!(
                "master{number}:name={name},status={status},address={},slaves={},sentinels={}\r\n",
                master.address,
                master.replicas.len(),
                master.peers.len() + 1
            ));
        }
        text
    }
}

impl Master {
    fn row(&self, name: &str) -> Value {
        let (host, port) = self.address.rsplit_once(':').unwrap_or((&self.address, ""));
        let mut flags = "master".to_owned();
        for (is_set, flag) in [
            (self.instance.is_down, ",s_down"),
            (self.is_objectively_down, ",o_down"),
            (self.failover.is_on(), ",failover_in_progress"),
        ] {
            if is_set {
                flags.push_str(flag);
            }
        }
        row(vec![
            ("name", name.to_owned()),
            ("ip", host.to_owned()),
            ("port", port.to_owned()),
            ("runid", self.instance.run_id.clone()),
            ("flags", flags),
            (
                "last-ok-ping-reply",
                self.instance.last_ok.elapsed().as_millis().to_string(),
            ),
            ("config-epoch", self.config_epoch.to_string()),
            ("num-slaves", self.replicas.len().to_string()),
            ("num-other-sentinels", self.peers.len().to_string()),
            ("quorum", self.quorum.to_string()),
            ("failover-timeout", self.failover_timeout.as_millis().to_string()),
            ("down-after-milliseconds", self.down_after.as_millis().to_string()),
            ("parallel-syncs", self.parallel_syncs.to_string()),
        ])
    }

    fn answer(&self, verb: &str, name: &str) -> Value {
        match verb {
            "master" => self.row(name),
            "slaves" | "replicas" => {
                let rows = self.replicas.iter().map(|(address, replica)| replica.row(address));
                Value::Array(Some(rows.collect()))
            }
            "sentinels" => {
                let rows = self.peers.iter().map(|(id, peer)| {
                    let (host, port) = peer.address.rsplit_once(':').unwrap_or((&peer.address, ""));
                    row(vec![
                        ("name", id.clone()),
                        ("ip", host.to_owned()),
                        ("port", port.to_owned()),
                        ("runid", id.clone()),
                    ])
                });
                Value::Array(Some(rows.collect()))
            }
            _ => Value::error(format!("ERR Unknown sentinel subcommand '{verb}'")),
        }
    }
}

impl Instance {
    fn row(&self, address: &str) -> Value {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        row(vec![
            ("name", address.to_owned()),
            ("ip", host.to_owned()),
            ("port", port.to_owned()),
            ("runid", self.run_id.clone()),
            ("flags", if self.is_down { "slave,s_down" } else { "slave" }.to_owned()),
            ("last-ok-ping-reply", self.last_ok.elapsed().as_millis().to_string()),
            ("master-link-status", if self.link_up { "ok" } else { "err" }.to_owned()),
            ("slave-priority", self.priority.to_string()),
            ("slave-repl-offset", self.offset.to_string()),
        ])
    }
}
