//! Connections to servers and to other sentinels: opened anew each second, read and written by a task each.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::state::{Asked, Instance, Master, Watcher, Who};
use super::{PING_PERIOD, Running};
use crate::host;
use crate::resp::{self, Value};

/// An open connection, or one that is being opened. It closes when it is dropped.
pub(super) struct Wire {
    pub(super) serial: u64,
    out: mpsc::UnboundedSender<Bytes>,
    task: AbortHandle,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    fn open(serial: u64, addr: String, owner: (String, Who), process: &Running) -> Self {
        let (out, queue) = mpsc::unbounded_channel();
        let running = process.clone();
        let task = process.spawn(async move {
            // That it ended is all there is to know.
            let _ = talk(serial, &addr, &owner, queue, &running).await;
            running.core().lost(serial, &owner);
        });
        Self { serial, out, task }
    }

    fn say<T: AsRef<[u8]>>(&self, words: &[T]) {
        let mut bytes = BytesMut::new();
        resp::encode_command(words, &mut bytes);
        // A connection that has just ended is told to its owner by its task.
        let _ = self.out.send(bytes.freeze());
    }
}

async fn talk(
    serial: u64,
    addr: &str,
    owner: &(String, Who),
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    process: &Running,
) -> std::io::Result<()> {
    let socket = host::connect(addr).await?;
    process.core().local_ip = socket.local.ip().to_string();
    let (mut read, mut write) = tokio::io::split(socket.stream);
    let mut buffer = BytesMut::with_capacity(4096);
    loop {
        tokio::select! {
            biased;
            got = read.read_buf(&mut buffer) => {
                if got? == 0 {
                    return Ok(());
                }
                while let Some(value) = resp::decode(&mut buffer).map_err(std::io::Error::other)? {
                    process.core().heard(serial, owner, &value);
                }
                process.core().clients.flush();
            }
            bytes = queue.recv() => match bytes {
                Some(bytes) => write.write_all(&bytes).await?,
                None => return Ok(()),
            },
        }
    }
}

impl Instance {
    /// Asks something; false if there is no connection.
    pub(super) fn ask<T: AsRef<[u8]>>(&mut self, asked: Asked, words: &[T]) -> bool {
        let Some(wire) = &self.commands else { return false };
        wire.say(words);
        self.pending.push_back(asked);
        true
    }

    pub(super) fn ping(&mut self, now: i64) {
        if self.ask(Asked::Ping, &["PING"]) {
            self.last_ping = now;
            if self.unanswered == 0 {
                self.unanswered = now;
            }
        }
    }
}

impl Watcher {
    /// Opens what isn't open, at most once a second.
    pub(super) fn connect(&mut self, master: &mut Master, who: &Who, now: i64, process: &Running) {
        let is_due = |one: &mut Instance| !one.is_linked(who) && one.port != 0 && now - one.last_connect >= PING_PERIOD;
        if !master.at(who).is_some_and(is_due) {
            return;
        }
        let (password, owner) = (master.password.clone(), (master.name.clone(), who.clone()));
        let name = format!("sentinel-{}-cmd", self.myid.get(..8).unwrap_or(&self.myid));
        let Some(one) = master.at(who) else { return };
        one.last_connect = now;
        let password = if matches!(who, Who::Sentinel(_)) {
            String::new()
        } else {
            password
        };
        if one.commands.is_none() {
            self.serial += 1;
            one.commands = Some(Wire::open(self.serial, one.addr(), owner.clone(), process));
            one.pending.clear();
            one.connected = now;
            if !password.is_empty() {
                one.ask(Asked::Other, &["AUTH", &password]);
            }
            one.ask(Asked::Other, &["CLIENT", "SETNAME", &name]);
            one.ping(now);
        }
        if one.hellos.is_none() && !matches!(who, Who::Sentinel(_)) {
            self.serial += 1;
            let wire = Wire::open(self.serial, one.addr(), owner, process);
            if !password.is_empty() {
                wire.say(&["AUTH", &password]);
            }
            wire.say(&["SUBSCRIBE", super::HELLO]);
            one.hellos = Some(wire);
            one.hellos_connected = now;
            one.hellos_heard = now;
        }
    }

    /// A connection ended.
    fn lost(&mut self, serial: u64, (name, who): &(String, Who)) {
        let is = |wire: &mut Wire| wire.serial == serial;
        let Some(one) = self.masters.get_mut(name).and_then(|master| master.at(who)) else {
            return;
        };
        if one.commands.take_if(is).is_some() {
            one.pending.clear();
        }
        drop(one.hellos.take_if(is));
    }

    /// Somebody answered or published.
    fn heard(&mut self, serial: u64, (name, who): &(String, Who), value: &Value) {
        let now = self.clock.ms();
        let Some(mut master) = self.masters.remove(name) else {
            return;
        };
        let mut hello = None;
        if let Some(one) = master.at(who) {
            let is = |wire: &Option<Wire>| wire.as_ref().is_some_and(|wire| wire.serial == serial);
            if is(&one.commands) {
                let asked = one.pending.pop_front();
                self.answered(&mut master, who, asked, value, now);
            } else if is(&one.hellos) {
                one.hellos_heard = now;
                hello = value.items().get(2).and_then(Value::text);
            }
        }
        self.masters.insert(name.clone(), master);
        if let Some(hello) = hello {
            self.greeted(&hello);
        }
        self.save();
    }

    fn answered(&mut self, master: &mut Master, who: &Who, asked: Option<Asked>, value: &Value, now: i64) {
        match asked {
            Some(Asked::Ping) => {
                let Some(one) = master.at(who) else { return };
                let is_well = match value {
                    Value::Simple(text) => text == "PONG",
                    Value::Error(text) => text.starts_with("LOADING") || text.starts_with("MASTERDOWN"),
                    _ => false,
                };
                if is_well {
                    one.available = now;
                    one.unanswered = 0;
                }
                one.last_pong = now;
            }
            Some(Asked::Info) => {
                if let Value::Bulk(Some(text)) = value {
                    self.informed(master, who, &String::from_utf8_lossy(text), now);
                }
            }
            Some(Asked::IsDown) => {
                if let (Who::Sentinel(_), Some(other)) = (who, master.at(who)) {
                    other.opined(value, now);
                }
            }
            Some(Asked::Other) | None => {}
        }
    }
}

impl Instance {
    /// What another sentinel says of the master.
    fn opined(&mut self, value: &Value, now: i64) {
        let [Value::Integer(down), leader, Value::Integer(epoch)] = value.items() else {
            return;
        };
        self.answered = now;
        self.thinks_down = *down == 1;
        if let Some(leader) = leader.text().filter(|leader| leader != "*") {
            self.vote = leader;
            self.vote_epoch = u64::try_from(*epoch).unwrap_or(0);
        }
    }
}
