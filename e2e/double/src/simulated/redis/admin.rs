//! The commands that aren't about keys.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::process::Then;
use super::core::{Answer, Redis, Server, text, upper};
use super::migrate;
use crate::resp::Value;

fn bulk(text: &str) -> Value {
    Value::bulk(text.to_owned())
}

fn count(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

impl Redis {
    /// Does a command that isn't about keys; none if it is.
    pub(super) fn administrate(&mut self, id: u64, name: &str, words: &[Bytes], server: &Server) -> Option<Answer> {
        let args = &words[1..];
        let reply = match name {
            "PING" => self.ping(id, args),
            "ECHO" => Value::bulk(args[0].clone()),
            "AUTH" => self.auth(id, args),
            "SELECT" => self.select(id, &args[0]),
            "INFO" => bulk(&self.info(&args.first().map(|section| text(section)).unwrap_or_default())),
            "CONFIG" => self.config(args),
            "CLIENT" => self.client(id, args, server),
            "SLAVEOF" | "REPLICAOF" => self.slaveof(&text(&args[0]), &text(&args[1]), server),
            "ROLE" => self.role(),
            "PUBLISH" => self.tell(&args[0], &args[1]),
            "TIME" => self.time(),
            "COMMAND" => Value::Array(Some(Vec::new())),
            "SLOWLOG" if upper(&args[0]) == "LEN" => Value::Integer(0),
            "SLOWLOG" if upper(&args[0]) == "RESET" => Value::ok(),
            "LATENCY" if upper(&args[0]) == "RESET" => Value::Integer(0),
            "SLOWLOG" | "LATENCY" => Value::Array(Some(Vec::new())),
            "CLUSTER" => Value::error("ERR This instance has cluster support disabled"),
            "UNWATCH" => Value::ok(),
            "REPLCONF" => return Some(self.replconf(id, args)),
            "PSYNC" | "SYNC" => return Some(self.psync(id, args, server)),
            "QUIT" => return Some(self.quit(id)),
            "WAIT" => return Some(self.wait(id, args, server)),
            "DEBUG" => return Some(debug(args)),
            "MIGRATE" => return Some(migrate::begin(self, id, args, server)),
            "SHUTDOWN" => {
                let process = server.clone();
                return Some(Answer::Later(Then::Hold(Box::pin(async move { process.end(Ok(())) }))));
            }
            _ => return None,
        };
        Some(Answer::Reply(reply))
    }

    fn ping(&self, id: u64, args: &[Bytes]) -> Value {
        let listens = self
            .clients
            .get(id)
            .is_some_and(|client| !client.channels.is_empty() || !client.patterns.is_empty());
        let said = args.first().cloned();
        match said {
            said if listens => Value::Array(Some(vec![bulk("pong"), Value::bulk(said.unwrap_or_default())])),
            Some(said) => Value::bulk(said),
            None => Value::Simple("PONG".into()),
        }
    }

    fn quit(&mut self, id: u64) -> Answer {
        self.clients.say(id, &Value::ok());
        self.clients.flush();
        self.clients.close(id);
        Answer::Silence
    }

    fn auth(&mut self, id: u64, args: &[Bytes]) -> Value {
        let password = self.settings.text("requirepass").to_owned();
        let said = args.last().map(|word| text(word)).unwrap_or_default();
        if password.is_empty() && args.len() == 1 {
            return Value::error(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            );
        }
        if said != password {
            return Value::error("WRONGPASS invalid username-password pair or user is disabled.");
        }
        if let Some(session) = self.clients.state(id) {
            session.authenticated = true;
        }
        Value::ok()
    }

    fn select(&mut self, id: u64, number: &[u8]) -> Value {
        let Ok(number) = text(number).parse::<u32>() else {
            return Value::error("ERR value is not an integer or out of range");
        };
        if i64::from(number) >= self.settings.number("databases") {
            return Value::error("ERR DB index is out of range");
        }
        if let Some(session) = self.clients.state(id) {
            session.database = number;
        }
        Value::ok()
    }

    fn config(&mut self, args: &[Bytes]) -> Value {
        match (upper(&args[0]).as_str(), &args[1..]) {
            ("GET", patterns) if !patterns.is_empty() => {
                let found = patterns
                    .iter()
                    .flat_map(|pattern| self.settings.matching(&text(pattern)));
                let words = found.flat_map(|(key, value)| [Value::bulk(key), Value::bulk(value)]);
                Value::Array(Some(words.collect()))
            }
            ("SET", pairs) if !pairs.is_empty() && pairs.len().is_multiple_of(2) => {
                for pair in pairs.chunks_exact(2) {
                    if let Err(why) = self.settings.set(&text(&pair[0]), &text(&pair[1])) {
                        return Value::error(why);
                    }
                }
                self.configured();
                Value::ok()
            }
            ("REWRITE", []) => self.rewrite(),
            ("RESETSTAT", []) => {
                (self.commands, self.connections) = (0, 0);
                Value::ok()
            }
            _ => Value::error(format!("ERR unknown subcommand '{}'. Try CONFIG HELP.", text(&args[0]))),
        }
    }

    /// What follows from a change at once.
    fn configured(&mut self) {
        self.count_good();
        let logs = self.settings.flag("appendonly");
        if logs && !self.logs {
            drop(self.disk.load(&self.log_path()));
            self.disk.rewrite(self.life, self.dump());
        }
        self.logs = logs;
    }

    fn rewrite(&mut self) -> Value {
        if self.conf_path.is_empty() {
            return Value::error("ERR The server is running without a config file");
        }
        let master = self.follow.as_ref().map(|follow| (follow.host.as_str(), follow.port));
        let text = self.settings.rewritten(master);
        match crate::host::Files::write(&self.disk, &self.conf_path, text.as_bytes()) {
            Ok(()) => Value::ok(),
            Err(error) => Value::error(format!("ERR Rewriting config file: {error}")),
        }
    }

    fn client(&mut self, id: u64, args: &[Bytes], server: &Server) -> Value {
        match (upper(&args[0]).as_str(), &args[1..]) {
            ("SETNAME", [name]) => {
                if let Some(session) = self.clients.state(id) {
                    session.name = text(name);
                }
                Value::ok()
            }
            ("GETNAME", []) => {
                let name = self.clients.state(id).map(|session| session.name.clone());
                Value::Bulk(name.filter(|name| !name.is_empty()).map(Bytes::from))
            }
            ("ID", []) => Value::Integer(i64::try_from(id).unwrap_or(i64::MAX)),
            ("SETINFO", _) => Value::ok(),
            ("LIST", _) => {
                let lines = self.clients.iter().map(|(id, client)| {
                    format!(
                        "id={id} addr={} name={} db={}\n",
                        client.peer, client.state.name, client.state.database
                    )
                });
                Value::bulk(lines.collect::<String>())
            }
            ("KILL", filter) => self.kill(id, filter, server),
            _ => Value::error(format!("ERR unknown subcommand '{}'. Try CLIENT HELP.", text(&args[0]))),
        }
    }

    /// `CLIENT KILL` by type, id or address; not of who says it.
    fn kill(&mut self, own: u64, filter: &[Bytes], server: &Server) -> Value {
        let (key, wanted) = match filter {
            [address] => ("ADDR".to_owned(), text(address)),
            [key, wanted] => (upper(key), text(wanted).to_ascii_lowercase()),
            _ => return Value::error("ERR syntax error"),
        };
        if key == "TYPE" && wanted == "master" {
            return count(usize::from(self.connect_anew(server)));
        }
        let matching = self.clients.iter().filter(|(id, client)| {
            let kind = match (
                &client.state.replica,
                client.channels.is_empty() && client.patterns.is_empty(),
            ) {
                (Some(_), _) => "slave",
                (None, true) => "normal",
                (None, false) => "pubsub",
            };
            *id != own
                && match key.as_str() {
                    "TYPE" => kind == wanted || (kind == "slave" && wanted == "replica"),
                    "ID" => id.to_string() == wanted,
                    _ => client.peer.to_string() == wanted,
                }
        });
        let killed: Vec<u64> = matching.map(|(id, _)| id).collect();
        killed.iter().for_each(|id| self.clients.close(*id));
        match (filter.len(), killed.is_empty()) {
            (1, true) => Value::error("ERR No such client"),
            (1, false) => Value::ok(),
            _ => count(killed.len()),
        }
    }

    fn role(&self) -> Value {
        let offset = |offset: u64| Value::Integer(i64::try_from(offset).unwrap_or(i64::MAX));
        if let Some(follow) = &self.follow {
            let state = if follow.is_up() { "connected" } else { "connect" };
            return Value::Array(Some(vec![
                bulk("slave"),
                bulk(&follow.host),
                Value::Integer(i64::from(follow.port)),
                bulk(state),
                offset(self.history.offset),
            ]));
        }
        let replicas = self.told_replicas().into_iter().map(|told| {
            let words = [told.ip, told.port.to_string(), told.acked.to_string()];
            Value::Array(Some(words.iter().map(|word| bulk(word)).collect()))
        });
        Value::Array(Some(vec![
            bulk("master"),
            offset(self.history.offset),
            Value::Array(Some(replicas.collect())),
        ]))
    }

    /// `PUBLISH` goes into a master's history, not into its file.
    fn tell(&mut self, channel: &[u8], payload: &[u8]) -> Value {
        let heard = self.clients.publish(channel, payload);
        if self.is_master() {
            let mut bytes = bytes::BytesMut::new();
            crate::resp::encode_command(&[&b"PUBLISH"[..], channel, payload], &mut bytes);
            self.feed(0, &bytes.freeze());
        }
        count(heard)
    }

    fn time(&self) -> Value {
        let now = self.clock.ms();
        let words = [(now / 1000).to_string(), (now % 1000 * 1000).to_string()];
        Value::Array(Some(words.iter().map(|word| bulk(word)).collect()))
    }

    /// How many replicas have acknowledged an offset.
    fn with(&self, offset: u64) -> usize {
        let replicas = self
            .clients
            .iter()
            .filter_map(|(_, client)| client.state.replica.as_ref());
        replicas
            .filter(|replica| replica.is_online() && replica.acked >= offset)
            .count()
    }

    fn wait(&mut self, id: u64, args: &[Bytes], server: &Server) -> Answer {
        let (Ok(wanted), Ok(patience)) = (text(&args[0]).parse::<usize>(), text(&args[1]).parse::<u64>()) else {
            return Answer::Reply(Value::error("ERR value is not an integer or out of range"));
        };
        if !self.is_master() {
            return Answer::Reply(Value::error("ERR WAIT cannot be used with replica instances."));
        }
        let offset = self.clients.get(id).map_or(0, |client| client.state.written);
        if self.with(offset) >= wanted {
            return Answer::Reply(count(self.with(offset)));
        }
        self.feed(
            0,
            &Bytes::from_static(b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n"),
        );
        let process = server.clone();
        let patience = if patience == 0 { u64::from(u32::MAX) } else { patience };
        let end = Instant::now() + Duration::from_millis(patience);
        Answer::Later(Then::Park(Box::pin(async move {
            let acked = process.core().acked.clone();
            let have = loop {
                let told = acked.notified();
                let have = process.core().with(offset);
                if have >= wanted || timeout_at(end, told).await.is_err() {
                    break have;
                }
            };
            process.core().clients.say(id, &count(have));
        })))
    }
}

fn debug(args: &[Bytes]) -> Answer {
    let seconds = args.get(1).and_then(|word| text(word).parse::<f64>().ok());
    match (upper(&args[0]).as_str(), seconds.map(Duration::try_from_secs_f64)) {
        ("SLEEP", Some(Ok(pause))) => Answer::Later(Then::HoldReply(Box::pin(async move {
            sleep(pause).await;
            Value::ok()
        }))),
        _ => Answer::Reply(Value::error("ERR DEBUG knows only SLEEP here")),
    }
}
