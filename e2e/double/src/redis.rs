//! A small client of redis and sentinel; its errors speak as Go's and redis 3.2's do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::host::{self, Socket};
use crate::resp::{self, Value};

/// What the network or redis said.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct RedisError(pub String);

impl From<RedisError> for crate::http::Refusal {
    fn from(error: RedisError) -> Self {
        Self(error.0)
    }
}

type Result<T> = std::result::Result<T, RedisError>;

/// Resolves an address and connects; the error is Go's dial text (§7).
pub async fn dial(addr: &str, timeout: Duration) -> Result<Socket> {
    if !addr.contains(':') {
        return Err(RedisError(format!("dial tcp: address {addr}: missing port in address")));
    }
    let mut target = addr.to_string();
    let connect = async {
        // A made-up host knows names of its own, and tells those that it does not know when it connects.
        match resolve(addr).await {
            Ok(resolved) => target = resolved.to_string(),
            Err(unknown) if host::current().is_none() => return Err(unknown),
            Err(_) => {}
        }
        host::connect(&target).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => no_such_host(addr),
            _ => RedisError(format!("dial tcp {target}: {}", go(&error))),
        })
    };
    let connected = tokio::time::timeout(timeout, connect).await;
    connected.unwrap_or_else(|_| Err(RedisError(format!("dial tcp {target}: i/o timeout"))))
}

fn no_such_host(addr: &str) -> RedisError {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    RedisError(format!("dial tcp: lookup {host}: no such host"))
}

/// The first address of a name, v4 before v6 as Go's dialer has it.
pub async fn resolve(addr: &str) -> Result<SocketAddr> {
    if let Ok(numeric) = addr.parse() {
        return Ok(numeric);
    }
    if let Some(host) = host::current() {
        let parts = addr.rsplit_once(':');
        let resolved = parts.and_then(|(name, port)| Some(SocketAddr::new(host.resolve(name)?, port.parse().ok()?)));
        return resolved.ok_or_else(|| no_such_host(addr));
    }
    let found = tokio::net::lookup_host(addr).await;
    let found: Vec<SocketAddr> = found.map_err(|_| no_such_host(addr))?.collect();
    found
        .iter()
        .find(|address| address.is_ipv4())
        .or(found.first())
        .copied()
        .ok_or_else(|| no_such_host(addr))
}

/// Go's words for an error of the network.
pub fn go(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, TimedOut, UnexpectedEof};
    match error.kind() {
        ConnectionRefused => "connect: connection refused".into(),
        ConnectionReset => "read: connection reset by peer".into(),
        HostUnreachable => "connect: no route to host".into(),
        TimedOut => "i/o timeout".into(),
        UnexpectedEof => "EOF".into(),
        _ => error.to_string(),
    }
}

/// Turns redis 7's wording into 3.2's.
pub fn old_words(text: &str) -> String {
    if text.starts_with("WRONGPASS") {
        return "ERR invalid password".into();
    }
    if text.starts_with("ERR AUTH <password> called without any password configured") {
        return "ERR Client sent AUTH, but no password is set".into();
    }
    match text.split_once(", with args beginning with:") {
        Some((before, _)) if text.starts_with("ERR unknown command") => before.replace('`', "'"),
        _ => text.into(),
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    buffer: BytesMut,
    timeout: Duration,
}

impl Connection {
    /// Connects and, with a password, authenticates; `timeout` bounds each step and each later reply.
    pub async fn open(addr: &str, auth: &str, timeout: Duration) -> Result<Self> {
        let socket = dial(addr, timeout).await?;
        let mut connection = Self {
            socket,
            buffer: BytesMut::new(),
            timeout,
        };
        if !auth.is_empty() {
            connection.command(&["AUTH", auth]).await?;
        }
        Ok(connection)
    }

    /// The bare connection, and what was read of it beyond the last reply.
    pub fn into_parts(self) -> (Box<dyn host::Stream>, BytesMut) {
        (self.socket.stream, self.buffer)
    }

    /// Sends a command and waits for its reply; an error reply is an error.
    pub async fn command<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Result<Value> {
        let mut out = BytesMut::new();
        resp::encode_command(words, &mut out);
        self.send(&out).await?;
        self.reply().await
    }

    /// Sends encoded bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.socket.stream.write_all(bytes).await;
        written.map_err(|error| RedisError(go(&error)))
    }

    /// Waits for one reply; an error reply is an error.
    pub async fn reply(&mut self) -> Result<Value> {
        let ends = format!("{:?}", self.socket);
        let waited = tokio::time::timeout(self.timeout, self.next()).await;
        waited.unwrap_or_else(|_| Err(RedisError(format!("read tcp {ends}: i/o timeout"))))
    }

    /// Waits for a reply without a limit, as a subscriber does.
    pub async fn next(&mut self) -> Result<Value> {
        loop {
            match resp::decode(&mut self.buffer).map_err(|error| RedisError(error.to_string()))? {
                Some(Value::Error(text)) => return Err(RedisError(old_words(&text))),
                Some(value) => return Ok(value),
                None => {}
            }
            match self.socket.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(RedisError("EOF".into())),
                Ok(_) => {}
                Err(error) => return Err(RedisError(go(&error))),
            }
        }
    }

    /// `INFO`, flattened, without synthesized keys.
    pub async fn plain_info(&mut self) -> Result<BTreeMap<String, String>> {
        let text = self.command(&["INFO"]).await?.text().unwrap_or_default();
        Ok(flatten(&text))
    }

    /// `INFO` with `master_addr` of a slave and `maxmemory` of `CONFIG GET` (§4).
    pub async fn info(&mut self) -> Result<BTreeMap<String, String>> {
        let mut info = self.plain_info().await?;
        if let (Some(host), Some(port)) = (info.get("master_host"), info.get("master_port")) {
            info.insert("master_addr".into(), format!("{host}:{port}"));
        }
        let answer = self.command(&["CONFIG", "GET", "maxmemory"]).await?;
        let [_, value] = answer.items() else {
            return Err(RedisError("invalid response of config get".into()));
        };
        info.insert("maxmemory".into(), value.text().unwrap_or_default());
        Ok(info)
    }

    /// The SetMaster transaction (§12.3); `None` makes a master.
    pub async fn set_master(&mut self, auth: &str, master: Option<&str>) -> Result<()> {
        let (host, port) = match master {
            None => ("NO", "ONE"),
            Some(addr) => addr
                .rsplit_once(':')
                .ok_or_else(|| RedisError(format!("invalid address {addr}")))?,
        };
        let steps: [&[&str]; 6] = [
            &["MULTI"],
            &["CONFIG", "SET", "masterauth", auth],
            &["SLAVEOF", host, port],
            &["CONFIG", "REWRITE"],
            &["CLIENT", "KILL", "TYPE", "normal"],
            &["EXEC"],
        ];
        let mut out = BytesMut::new();
        steps.iter().for_each(|step| resp::encode_command(step, &mut out));
        self.send(&out).await?;
        let mut last = Value::ok();
        for _ in steps {
            last = self.reply().await?;
        }
        match last.items().iter().find_map(|item| {
            if let Value::Error(text) = item {
                Some(text)
            } else {
                None
            }
        }) {
            Some(text) => Err(RedisError(old_words(text))),
            None => Ok(()),
        }
    }
}

/// The keys and values of an `INFO`.
pub fn flatten(info: &str) -> BTreeMap<String, String> {
    let pairs = info
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(':'));
    pairs
        .map(|(key, value)| (key.trim().to_string(), value.trim().to_string()))
        .collect()
}

/// A server's `run_id`, if it tells it in time.
pub async fn run_id(addr: &str, auth: &str, timeout: Duration) -> Option<String> {
    let ask = async { Connection::open(addr, auth, timeout).await?.plain_info().await };
    tokio::time::timeout(timeout, ask).await.ok()?.ok()?.remove("run_id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_7_is_made_to_speak_like_3_2() {
        let table = [
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                "ERR invalid password",
            ),
            (
                "ERR AUTH <password> called without any password configured for the default user. Are you sure?",
                "ERR Client sent AUTH, but no password is set",
            ),
            (
                "ERR unknown command 'SENTINEL', with args beginning with: 'flushconfig' ",
                "ERR unknown command 'SENTINEL'",
            ),
            ("NOAUTH Authentication required.", "NOAUTH Authentication required."),
        ];
        for (new, old) in table {
            assert_eq!(old_words(new), old);
        }
    }

    #[tokio::test]
    async fn dialing_fails_in_gos_words() {
        let none = dial("127.0.0.1", Duration::from_secs(1)).await.err();
        assert_eq!(
            none,
            Some(RedisError(
                "dial tcp: address 127.0.0.1: missing port in address".into()
            ))
        );
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap();
        let refused = dial(&port.to_string(), Duration::from_secs(1)).await.err();
        assert_eq!(
            refused,
            Some(RedisError(format!("dial tcp {port}: connect: connection refused")))
        );
    }
}
