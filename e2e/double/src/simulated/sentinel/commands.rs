//! What a sentinel answers.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::super::clients::{Clients, glob};
use super::super::process::{Process, Program, Then};
use super::HELLO;
use super::state::{Master, Reconfigured, Step, Watcher, Who};
use crate::resp::Value;

const NO_MASTER: &str = "ERR No such master with that name";
const SYNTAX: &str = "ERR wrong number of arguments for 'sentinel' command";

fn bulk(text: &str) -> Value {
    Value::bulk(text.to_owned())
}

fn array(values: impl Iterator<Item = Value>) -> Value {
    Value::Array(Some(values.collect()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn count(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

impl Program for Watcher {
    type State = ();

    fn clients(&mut self) -> &mut Clients<()> {
        &mut self.clients
    }

    fn execute(&mut self, id: u64, words: Vec<Bytes>, process: &Arc<Process<Self>>) -> Then {
        let name = text(&words[0]).to_ascii_uppercase();
        let args: Vec<String> = words[1..].iter().map(|word| text(word)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if self.clients.pubsub(id, &name, &words[1..]) {
            return Then::Next;
        }
        let reply = match (name.as_str(), &args[..]) {
            ("PING", _) => Value::Simple("PONG".into()),
            ("SENTINEL", [command, rest @ ..]) => self.sentinel(&command.to_ascii_lowercase(), rest),
            ("INFO", _) => bulk(&self.info()),
            ("PUBLISH", [HELLO, hello]) => {
                self.greeted(hello);
                Value::Integer(1)
            }
            ("PUBLISH", _) => Value::error("ERR Only HELLO messages are accepted by Sentinel instances."),
            ("ROLE", _) => array([bulk("sentinel"), array(self.masters.keys().map(|name| bulk(name)))].into_iter()),
            ("CLIENT", _) => Value::ok(),
            ("AUTH", _) => Value::error(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            ),
            ("SHUTDOWN", _) => {
                let process = process.clone();
                return Then::Hold(Box::pin(async move { process.end(Ok(())) }));
            }
            _ => {
                let told: String = args.iter().map(|word| format!("'{word}' ")).collect();
                let said = text(&words[0]);
                Value::error(format!(
                    "ERR unknown command '{said}', with args beginning with: {told}"
                ))
            }
        };
        self.save();
        self.clients.say(id, &reply);
        Then::Next
    }

    fn left(&mut self, _: u64) {}

    fn end(&mut self, _: bool) {
        self.masters.values_mut().for_each(|master| {
            for who in master.everybody() {
                master.at(&who).into_iter().for_each(super::state::Instance::unlink);
            }
        });
        self.disk.close(self.life);
    }
}

impl Watcher {
    fn sentinel(&mut self, command: &str, args: &[&str]) -> Value {
        let now = self.clock.ms();
        match (command, args) {
            ("masters", []) => array(self.masters.values().map(|master| self.row(master, &Who::Master, now))),
            ("myid", []) => bulk(&self.myid),
            ("flushconfig", []) => {
                self.unsaved = true;
                Value::ok()
            }
            ("monitor", [name, ip, port, quorum]) => self.monitor(name, ip, port, quorum, now),
            ("is-master-down-by-addr", [ip, port, epoch, candidate]) => self.opinion(ip, port, epoch, candidate, now),
            ("get-master-addr-by-name", [name]) => match self.masters.get(*name).map(Master::current) {
                Some((ip, port)) => array([bulk(&ip), bulk(&port.to_string())].into_iter()),
                None => Value::Array(None),
            },
            ("reset", [pattern]) => self.reset(pattern, now),
            ("set", [name, options @ ..]) => self.set(name, options),
            ("master" | "slaves" | "replicas" | "sentinels" | "remove" | "failover" | "ckquorum", [name]) => {
                let Some(mut master) = self.masters.remove(*name) else {
                    return Value::error(NO_MASTER);
                };
                let reply = self.about(command, &mut master, now);
                if command == "remove" {
                    self.unsaved = true;
                } else {
                    self.masters.insert((*name).into(), master);
                }
                reply
            }
            (
                "masters"
                | "myid"
                | "flushconfig"
                | "monitor"
                | "is-master-down-by-addr"
                | "get-master-addr-by-name"
                | "reset"
                | "set"
                | "master"
                | "slaves"
                | "replicas"
                | "sentinels"
                | "remove"
                | "failover"
                | "ckquorum",
                _,
            ) => Value::error(SYNTAX),
            _ => Value::error(format!("ERR unknown subcommand '{command}'. Try SENTINEL HELP.")),
        }
    }

    /// Commands on a master that is known.
    fn about(&mut self, command: &str, master: &mut Master, now: i64) -> Value {
        let everybody = master.everybody();
        let rows = |watcher: &Self, wanted: fn(&Who) -> bool| {
            array(
                everybody
                    .iter()
                    .filter(|who| wanted(who))
                    .map(|who| watcher.row(master, who, now)),
            )
        };
        match command {
            "master" => self.row(master, &Who::Master, now),
            "slaves" | "replicas" => rows(self, |who| matches!(who, Who::Replica(_))),
            "sentinels" => rows(self, |who| matches!(who, Who::Sentinel(_))),
            "remove" => {
                let text = master.describe(&Who::Master);
                self.event("-monitor", &text);
                Value::ok()
            }
            "ckquorum" => check_quorum(master),
            _ if master.is_failing_over() => Value::error("INPROG Failover already in progress"),
            _ if master.best_replica(now).is_none() => Value::error("NOGOODSLAVE No suitable replica to promote"),
            _ => {
                self.start_failover(master, true, now);
                Value::ok()
            }
        }
    }

    fn monitor(&mut self, name: &str, ip: &str, port: &str, quorum: &str, now: i64) -> Value {
        let Ok(quorum) = quorum.parse::<i64>() else {
            return Value::error("ERR Invalid quorum");
        };
        let Ok(port) = port.parse::<u16>() else {
            return Value::error("ERR Invalid port number");
        };
        if ip.parse::<IpAddr>().is_err() {
            return Value::error("ERR Invalid IP address or hostname specified");
        }
        if self.masters.contains_key(name) {
            return Value::error("ERR Duplicate master name.");
        }
        let Some(quorum) = usize::try_from(quorum).ok().filter(|quorum| *quorum > 0) else {
            return Value::error("ERR Quorum must be 1 or greater.");
        };
        let master = Master::new(name, ip, port, quorum, now);
        let told = format!("{} quorum {quorum}", master.describe(&Who::Master));
        self.masters.insert(name.into(), master);
        self.event("+monitor", &told);
        self.unsaved = true;
        Value::ok()
    }

    fn set(&mut self, name: &str, options: &[&str]) -> Value {
        let Some(master) = self.masters.get_mut(name) else {
            return Value::error(NO_MASTER);
        };
        self.unsaved = true;
        for pair in options.chunks(2) {
            let [option, value] = pair else {
                return Value::error(format!(
                    "ERR Unknown option or number of arguments for SENTINEL SET '{}'",
                    pair[0]
                ));
            };
            match master.set(&option.to_ascii_lowercase(), value) {
                Some(Ok(())) => {}
                Some(Err(())) => {
                    return Value::error(format!("ERR Invalid argument '{value}' for SENTINEL SET '{option}'"));
                }
                None => {
                    let why = "Unknown option or number of arguments for SENTINEL SET";
                    return Value::error(format!("ERR {why} '{option}'"));
                }
            }
        }
        Value::ok()
    }

    fn reset(&mut self, pattern: &str, now: i64) -> Value {
        let matching = self
            .masters
            .values_mut()
            .filter(|master| glob(pattern.as_bytes(), master.name.as_bytes()));
        let mut told = Vec::new();
        for master in matching {
            let (ip, port) = (master.own.ip.clone(), master.own.port);
            master.restart_at(&ip, port, Vec::new(), now);
            master.sentinels.clear();
            told.push(master.describe(&Who::Master));
        }
        self.unsaved = true;
        told.iter().for_each(|text| self.event("+reset-master", text));
        count(told.len())
    }

    /// `is-master-down-by-addr`: an opinion, and a vote if one is asked for.
    fn opinion(&mut self, ip: &str, port: &str, epoch: &str, candidate: &str, now: i64) -> Value {
        let is_it = |master: &&Master| master.own.ip == ip && master.own.port.to_string() == port;
        let name = self.masters.values().find(is_it).map(|master| master.name.clone());
        let mut reply = (false, "*".to_owned(), 0);
        if let Some(mut master) = name.and_then(|name| self.masters.remove(&name)) {
            reply.0 = master.own.is_down() && self.tilt_since == 0;
            if candidate != "*" {
                let (leader, at) = self.vote(&mut master, epoch.parse().unwrap_or(0), candidate, now);
                reply.1 = if leader.is_empty() { "*".into() } else { leader };
                reply.2 = i64::try_from(at).unwrap_or(0);
            }
            self.masters.insert(master.name.clone(), master);
        }
        array(
            [
                Value::Integer(i64::from(reply.0)),
                bulk(&reply.1),
                Value::Integer(reply.2),
            ]
            .into_iter(),
        )
    }

    fn info(&self) -> String {
        let seconds = |since: i64| (self.clock.ms() - since) / 1000;
        let up = seconds(self.started);
        let tilt = if self.tilt_since == 0 {
            -1
        } else {
            seconds(self.tilt_since)
        };
        let mut out = format!(
            "# Server\r\nredis_version:7.0.15\r\nredis_mode:sentinel\r\nrun_id:{}\r\ntcp_port:{}\r\n\
             uptime_in_seconds:{up}\r\n\r\n# Sentinel\r\nsentinel_masters:{}\r\nsentinel_tilt:{}\r\nsentinel_tilt_since_seconds:{tilt}\r\n\
             sentinel_running_scripts:0\r\nsentinel_scripts_queue_length:0\r\nsentinel_simulate_failure_flags:0\r\n",
            self.myid,
            self.port,
            self.masters.len(),
            u8::from(self.tilt_since != 0)
        );
        for (number, master) in self.masters.values().enumerate() {
            let status = match (master.is_objectively_down(), master.own.is_down()) {
                (true, _) => "odown",
                (false, true) => "sdown",
                _ => "ok",
            };
            let (name, addr) = (&master.name, master.own.addr());
            let (slaves, sentinels) = (master.replicas.len(), master.sentinels.len() + 1);
            let _ = write!(
                out,
                "master{number}:name={name},status={status},address={addr},slaves={slaves},sentinels={sentinels}\r\n"
            );
        }
        out
    }

    /// A row of `SENTINEL masters` and its kin.
    fn row(&self, master: &Master, who: &Who, now: i64) -> Value {
        let (one, name) = match who {
            Who::Master => (Some(&master.own), master.name.clone()),
            Who::Replica(addr) => (master.replicas.get(addr), addr.clone()),
            Who::Sentinel(id) => (master.sentinels.get(id), id.clone()),
        };
        let Some(one) = one else { return Value::Array(None) };
        let since = |at: i64| if at == 0 { 0 } else { now - at };
        let mut row: Vec<(&str, String)> = vec![
            ("name", name),
            ("ip", one.ip.clone()),
            ("port", one.port.to_string()),
            ("runid", one.runid.clone()),
            ("flags", flags(master, who)),
            ("link-pending-commands", one.pending.len().to_string()),
            ("link-refcount", "1".into()),
            ("last-ping-sent", since(one.unanswered).to_string()),
            ("last-ok-ping-reply", (now - one.available).to_string()),
            ("last-ping-reply", (now - one.last_pong).to_string()),
        ];
        if one.is_down() {
            row.push(("s-down-time", since(one.down_since).to_string()));
        }
        if *who == Who::Master && master.is_objectively_down() {
            row.push(("o-down-time", since(master.objectively_down_since).to_string()));
        }
        row.push(("down-after-milliseconds", master.down_after.to_string()));
        if !matches!(who, Who::Sentinel(_)) {
            let role = if one.says_master { "master" } else { "slave" };
            row.push(("info-refresh", since(one.informed).to_string()));
            row.push(("role-reported", role.into()));
            row.push(("role-reported-time", since(one.role_since).to_string()));
        }
        row.extend(special(master, who, now));
        array(row.iter().flat_map(|(key, value)| [bulk(key), bulk(value)]))
    }
}

/// What only one of the three kinds has.
fn special(master: &Master, who: &Who, now: i64) -> Vec<(&'static str, String)> {
    match who {
        Who::Master => vec![
            ("config-epoch", master.config_epoch.to_string()),
            ("num-slaves", master.replicas.len().to_string()),
            ("num-other-sentinels", master.sentinels.len().to_string()),
            ("quorum", master.quorum.to_string()),
            ("failover-timeout", master.failover_timeout.to_string()),
            ("parallel-syncs", master.parallel.to_string()),
        ],
        Who::Replica(addr) => master.replicas.get(addr).map_or_else(Vec::new, |one| {
            let status = if one.its_link_up { "ok" } else { "err" };
            let host = if one.its_master.0.is_empty() {
                "?"
            } else {
                &one.its_master.0
            };
            vec![
                ("master-link-down-time", one.its_link_down_ms.to_string()),
                ("master-link-status", status.into()),
                ("master-host", host.into()),
                ("master-port", one.its_master.1.to_string()),
                ("slave-priority", one.priority.to_string()),
                ("slave-repl-offset", one.offset.to_string()),
            ]
        }),
        Who::Sentinel(id) => master.sentinels.get(id).map_or_else(Vec::new, |one| {
            let vote = if one.vote.is_empty() { "?" } else { &one.vote };
            vec![
                ("last-hello-message", (now - one.greeted).to_string()),
                ("voted-leader", vote.into()),
                ("voted-leader-epoch", one.vote_epoch.to_string()),
            ]
        }),
    }
}

fn flags(master: &Master, who: &Who) -> String {
    let (one, kind, promoted) = match who {
        Who::Master => (Some(&master.own), "master", false),
        Who::Replica(addr) => {
            let promoted = master.failover.promoted.as_ref() == Some(addr);
            (master.replicas.get(addr), "slave", promoted)
        }
        Who::Sentinel(id) => (master.sentinels.get(id), "sentinel", false),
    };
    let Some(one) = one else { return kind.into() };
    let is_master = *who == Who::Master;
    let all = [
        ("s_down", one.is_down()),
        ("o_down", is_master && master.is_objectively_down()),
        (kind, true),
        ("disconnected", !one.is_linked(who)),
        ("master_down", one.thinks_down),
        ("failover_in_progress", is_master && master.failover.step != Step::None),
        ("promoted", promoted),
        ("reconf_sent", one.reconfigured == Reconfigured::Sent),
        ("reconf_inprog", one.reconfigured == Reconfigured::InProgress),
        ("reconf_done", one.reconfigured == Reconfigured::Done),
    ];
    let set: Vec<&str> = all.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    set.join(",")
}

fn check_quorum(master: &Master) -> Value {
    let all = master.sentinels.len() + 1;
    let usable = master
        .sentinels
        .values()
        .filter(|other| !other.is_down() && other.commands.is_some());
    let usable = usable.count() + 1;
    let (quorum, majority) = (usable >= master.quorum, usable > all / 2);
    if quorum && majority {
        let told = format!("OK {usable} usable Sentinels. Quorum and failover authorization can be reached");
        return Value::Simple(told);
    }
    let mut why = format!("NOQUORUM {usable} usable Sentinels. ");
    if !quorum {
        why.push_str("Not enough available Sentinels to reach the specified quorum for this master");
    }
    if !majority {
        let and = if quorum { "" } else { ". " };
        let _ = write!(
            why,
            "{and}Not enough available Sentinels to reach the majority and authorize a failover"
        );
    }
    Value::error(why)
}
