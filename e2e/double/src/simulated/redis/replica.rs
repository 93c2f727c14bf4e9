//! A replica's side: finding its master, coming into step, and following the stream of writes.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::core::{Redis, Server, text, upper};
use crate::host::{self, Stream};
use crate::resp::{self, Value};

/// Between two attempts, and between two acknowledgements.
const SECOND: Duration = Duration::from_secs(1);
/// What loading a command takes.
const LOAD: Duration = Duration::from_micros(1);

/// How far a replica has come with its master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Greeting,
    Receiving,
    Loading,
    Up,
}

/// Whom a replica follows.
pub(super) struct Follow {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) link: Link,
    /// Since when the link is down, in milliseconds since 1970; none if it never was up.
    pub(super) down_since: Option<i64>,
    /// When its master was last heard.
    pub(super) heard: i64,
    /// Whether the history here is one that the master may go on with.
    pub(super) resumes: bool,
    /// The database that the stream is in.
    database: u32,
    task: Option<AbortHandle>,
}

impl Follow {
    pub(super) fn is_up(&self) -> bool {
        self.link == Link::Up
    }
}

impl Redis {
    /// `SLAVEOF`.
    pub(super) fn slaveof(&mut self, host: &str, port: &str, server: &Server) -> Value {
        if host.eq_ignore_ascii_case("no") && port.eq_ignore_ascii_case("one") {
            self.promote();
            return Value::ok();
        }
        let Ok(port) = port.parse::<u16>() else {
            return Value::error("ERR Invalid master port");
        };
        if self
            .follow
            .as_ref()
            .is_some_and(|follow| follow.host == host && follow.port == port)
        {
            return Value::Simple("OK Already connected to specified master".into());
        }
        let resumes = self.follow.as_ref().is_none_or(|follow| follow.resumes);
        self.begin_following(host, port, resumes, server);
        Value::ok()
    }

    pub(super) fn begin_following(&mut self, host: &str, port: u16, resumes: bool, server: &Server) {
        let now = self.clock.ms();
        let down_since = match &self.follow {
            Some(follow) if follow.is_up() => Some(now),
            Some(follow) => follow.down_since,
            None => None,
        };
        self.leave_master();
        self.drop_replicas();
        let process = server.clone();
        let task = server.spawn(async move { pursue(process).await });
        self.follow = Some(Follow {
            host: host.into(),
            port,
            link: Link::Connecting,
            down_since,
            heard: now,
            resumes,
            database: 0,
            task: Some(task),
        });
    }

    /// Breaks a link that is up; it is made again at once.
    pub(super) fn connect_anew(&mut self, server: &Server) -> bool {
        let Some(follow) = self.follow.as_ref().filter(|follow| follow.is_up()) else {
            return false;
        };
        let (host, port, resumes) = (follow.host.clone(), follow.port, follow.resumes);
        self.begin_following(&host, port, resumes, server);
        true
    }

    fn leave_master(&mut self) {
        if let Some(task) = self.follow.take().and_then(|mut follow| follow.task.take()) {
            task.abort();
        }
    }

    fn promote(&mut self) {
        if self.follow.is_none() {
            return;
        }
        self.leave_master();
        let id = self.chance.id();
        self.history.branch(id);
        self.history.lonely_since = self.clock.ms();
        self.drop_replicas();
    }

    fn set_link(&mut self, link: Link) {
        let now = self.clock.ms();
        if let Some(follow) = &mut self.follow {
            if follow.link == Link::Up && link != Link::Up {
                follow.down_since = Some(now);
            }
            follow.link = link;
            follow.heard = now;
            if link == Link::Up {
                follow.down_since = Some(now);
                follow.resumes = true;
            }
        }
    }

    /// A command of the master; true if it wants to know how far the replica is.
    fn obey(&mut self, words: &[Bytes]) -> bool {
        let mut bytes = BytesMut::new();
        resp::encode_command(words, &mut bytes);
        let name = upper(&words[0]);
        if name == "PING" && words.len() > 1 {
            return false;
        }
        self.stream(bytes.freeze());
        let database = self.follow.as_ref().map_or(0, |follow| follow.database);
        match (name.as_str(), words) {
            ("SELECT", [_, number]) => {
                if let Some(follow) = &mut self.follow {
                    follow.database = text(number).parse().unwrap_or(0);
                }
            }
            ("PUBLISH", [_, channel, payload]) => drop(self.clients.publish(channel, payload)),
            ("REPLCONF", [_, what, ..]) => return what.eq_ignore_ascii_case(b"getack"),
            ("PING", _) => {}
            _ => drop(self.data(database, &name, words)),
        }
        false
    }

    /// Applies a dump or an append-only file: commands without a history.
    pub(super) fn load(&mut self, mut commands: BytesMut, mut database: u32) {
        let logs = std::mem::replace(&mut self.logs, false);
        let backlog = self.history.backlog.take();
        while let Ok(Some(words)) = resp::decode_command(&mut commands) {
            match &words[..] {
                [] => {}
                [name, number] if name.eq_ignore_ascii_case(b"select") => database = text(number).parse().unwrap_or(0),
                _ => drop(self.data(database, &upper(&words[0]), &words)),
            }
        }
        self.logs = logs;
        self.history.backlog = backlog;
    }
}

/// Connects again and again; ends when the server follows somebody else or nobody.
async fn pursue(server: Server) {
    loop {
        // Why it ended shows in the link; there is nobody to tell.
        let _ = attempt(&server).await;
        server.core().set_link(Link::Connecting);
        sleep(SECOND).await;
    }
}

/// A connection to the master.
struct Master {
    read: ReadHalf<Box<dyn Stream>>,
    write: WriteHalf<Box<dyn Stream>>,
    buffer: BytesMut,
    patience: Duration,
}

/// The link ended; why doesn't matter.
struct Lost;

impl Master {
    async fn more(&mut self) -> Result<usize, Lost> {
        match timeout(self.patience, self.read.read_buf(&mut self.buffer)).await {
            Ok(Ok(bytes)) if bytes > 0 => Ok(bytes),
            _ => Err(Lost),
        }
    }

    async fn say(&mut self, words: &[&str]) -> Result<(), Lost> {
        let mut out = BytesMut::new();
        resp::encode_command(words, &mut out);
        let written = timeout(self.patience, self.write.write_all(&out)).await;
        written.ok().and_then(Result::ok).ok_or(Lost)
    }

    async fn hear(&mut self) -> Result<Value, Lost> {
        loop {
            self.skip_signs_of_life();
            match resp::decode(&mut self.buffer) {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => drop(self.more().await?),
                Err(_) => return Err(Lost),
            }
        }
    }

    fn skip_signs_of_life(&mut self) {
        while self.buffer.first() == Some(&b'\n') {
            self.buffer.advance(1);
        }
    }

    async fn ask(&mut self, words: &[&str]) -> Result<Value, Lost> {
        self.say(words).await?;
        self.hear().await
    }

    /// A bulk without an end of line: the dump.
    async fn dump(&mut self) -> Result<BytesMut, Lost> {
        let head = loop {
            self.skip_signs_of_life();
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                break self.buffer.split_to(end + 2);
            }
            self.more().await?;
        };
        let length = head
            .strip_prefix(b"$")
            .map(|digits| text(digits).trim().parse::<usize>());
        let Some(Ok(length)) = length else { return Err(Lost) };
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.split_to(length))
    }
}

async fn attempt(server: &Server) -> Result<(), Lost> {
    let (addr, patience) = {
        let core = server.core();
        let follow = core.follow.as_ref().ok_or(Lost)?;
        let patience = Duration::from_secs(core.settings.number("repl-timeout").max(1).unsigned_abs());
        (format!("{}:{}", follow.host, follow.port), patience)
    };
    let connected = timeout(patience, host::connect(&addr)).await;
    let socket = connected.ok().and_then(Result::ok).ok_or(Lost)?;
    let (read, write) = tokio::io::split(socket.stream);
    let mut master = Master {
        read,
        write,
        buffer: BytesMut::with_capacity(4096),
        patience,
    };
    server.core().set_link(Link::Greeting);
    greet(server, &mut master).await?;
    let (id, next) = server.core().position();
    let reply = master.ask(&["PSYNC", &id, &next]).await?.text().ok_or(Lost)?;
    let words: Vec<&str> = reply.split(' ').collect();
    match words[..] {
        ["CONTINUE", id] => server.core().resume(id),
        ["FULLRESYNC", id, offset] => resync(server, &mut master, id, offset.parse().map_err(|_| Lost)?).await?,
        _ => return Err(Lost),
    }
    listen(server, &mut master).await
}

async fn greet(server: &Server, master: &mut Master) -> Result<(), Lost> {
    let (password, port, ip) = {
        let settings = &server.core().settings;
        let announced = match settings.number("slave-announce-port") {
            0 => settings.number("port"),
            announced => announced,
        };
        let ip = settings.text("slave-announce-ip").to_owned();
        (settings.text("masterauth").to_owned(), announced.to_string(), ip)
    };
    match master.ask(&["PING"]).await? {
        Value::Error(why) if !why.starts_with("NOAUTH") => return Err(Lost),
        _ => {}
    }
    if !password.is_empty()
        && let Value::Error(_) = master.ask(&["AUTH", &password]).await?
    {
        return Err(Lost);
    }
    master.ask(&["REPLCONF", "listening-port", &port]).await?;
    if !ip.is_empty() {
        master.ask(&["REPLCONF", "ip-address", &ip]).await?;
    }
    master.ask(&["REPLCONF", "capa", "eof", "capa", "psync2"]).await?;
    Ok(())
}

impl Redis {
    fn position(&self) -> (String, String) {
        match &self.follow {
            Some(follow) if follow.resumes => (self.history.id.clone(), (self.history.offset + 1).to_string()),
            _ => ("?".into(), "-1".into()),
        }
    }

    /// The master goes on where this server is, in a history that may have another name by now.
    fn resume(&mut self, id: &str) {
        if id != self.history.id {
            self.history.branch(id.into());
            self.drop_replicas();
        }
        self.history.backlog.get_or_insert_default();
        self.set_link(Link::Up);
    }
}

/// Drops what there is for what the master has. Until its dump is here the old keys stay.
async fn resync(server: &Server, master: &mut Master, id: &str, offset: u64) -> Result<(), Lost> {
    {
        let mut core = server.core();
        core.set_link(Link::Receiving);
        if let Some(follow) = &mut core.follow {
            follow.resumes = false;
        }
    }
    let dump = master.dump().await?;
    {
        let _turn = server.turn().await;
        let mut core = server.core();
        core.drop_replicas();
        core.keys = super::keys::Keys::default();
        core.loading = true;
        core.set_link(Link::Loading);
    }
    let commands = dump.iter().filter(|byte| **byte == b'*').count();
    sleep(LOAD * u32::try_from(commands).unwrap_or(u32::MAX)).await;
    let _turn = server.turn().await;
    let mut core = server.core();
    core.load(dump, 0);
    core.loading = false;
    core.history.adopt(id.into(), offset);
    if core.logs {
        core.disk.rewrite(core.life, core.dump());
    }
    core.set_link(Link::Up);
    Ok(())
}

/// Follows the stream until it ends or is silent for too long.
async fn listen(server: &Server, master: &mut Master) -> Result<(), Lost> {
    let mut beat = interval(SECOND);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    if let Some(follow) = &mut server.core().follow {
        follow.database = 0;
    }
    loop {
        let asked = apply(server, &mut master.buffer).await?;
        if asked {
            acknowledge(server, master).await?;
        }
        tokio::select! {
            biased;
            got = master.read.read_buf(&mut master.buffer) => match got {
                Ok(bytes) if bytes > 0 => {
                    heard = Instant::now();
                    server.core().touch();
                }
                _ => return Err(Lost),
            },
            _ = beat.tick() => {
                if heard.elapsed() > master.patience {
                    return Err(Lost);
                }
                acknowledge(server, master).await?;
            }
        }
    }
}

impl Redis {
    fn touch(&mut self) {
        let now = self.clock.ms();
        if let Some(follow) = &mut self.follow {
            follow.heard = now;
        }
    }
}

async fn acknowledge(server: &Server, master: &mut Master) -> Result<(), Lost> {
    let offset = server.core().history.offset.to_string();
    master.say(&["REPLCONF", "ACK", &offset]).await
}

async fn apply(server: &Server, buffer: &mut BytesMut) -> Result<bool, Lost> {
    if buffer.is_empty() {
        return Ok(false);
    }
    let _turn = server.turn().await;
    let mut core = server.core();
    let mut asked = false;
    while let Some(words) = resp::decode_command(buffer).map_err(|_| Lost)? {
        if !words.is_empty() {
            asked |= core.obey(&words);
        }
    }
    core.clients.flush();
    Ok(asked)
}
