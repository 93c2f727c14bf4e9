//! A codis-server, asked directly: `AUTH`, `INFO` (contract §12) and `CONFIG`.

mod connection;

use std::{collections::BTreeMap, future::Future, time::Duration};

use futures::future::join_all;
use redis::{ErrorKind, RedisError, cmd};
use tokio::time::{Instant, sleep, timeout_at};

pub(super) use self::connection::Connection;
use super::{Codis, Error, error::innermost, names};
use crate::domain::{Address, Memory, Replication, ServerView};

/// How many replicas a master must have to take writes. Redis 7 still knows it by this name, the only one in 3.2.
/// The address that a server announces to its master, and thus to sentinels.
pub const ANNOUNCED: &str = "slave-announce-ip";
const MIN_REPLICAS: &str = "min-slaves-to-write";

/// More than any group has.
const FENCE: u32 = 100;

/// How often offsets are compared. Clients wait meanwhile.
const POLL: Duration = Duration::from_millis(5);

/// The parameters whose values are passwords.
const SECRET: [&str; 2] = ["requirepass", "masterauth"];

impl Codis {
    /// What a server says of itself.
    pub async fn server(&self, address: &Address) -> ServerView {
        let info = self.converse(address, async {
            let mut connection = self.open(address).await?;
            cmd("INFO").query_async::<String>(&mut connection).await
        });
        match info.await {
            Ok(info) => parse_info(&info).unwrap_or_else(ServerView::Unreachable),
            Err(Error::Refused { cause, .. }) if cause.starts_with("LOADING ") => ServerView::Loading,
            Err(Error::Refused { cause, .. }) => ServerView::Unreachable(cause),
            Err(error) => ServerView::Unreachable(error.to_string()),
        }
    }

    /// What several servers say, asked at once.
    pub async fn servers(&self, addresses: impl IntoIterator<Item = Address>) -> BTreeMap<Address, ServerView> {
        let ask = async |address| (self.server(&address).await, address);
        let views = join_all(addresses.into_iter().map(ask)).await;
        views.into_iter().map(|(view, address)| (address, view)).collect()
    }

    /// Waits until a replica has all of its master's writes: whether their offsets were equal at once before `until`.
    /// False as soon as one isn't the master, or the other doesn't follow it with its link up. The master should be
    /// fenced; its offset grows by pings and by keys that expire even so.
    ///
    /// # Errors
    /// Any [`Error`] of one that doesn't answer; it is no effect.
    pub async fn replication_offsets(
        &self,
        master: &Address,
        replica: &Address,
        until: Instant,
    ) -> Result<bool, Error> {
        let met = timeout_at(until, self.meet(master, replica)).await;
        met.unwrap_or(Ok(false))
    }

    async fn meet(&self, master: &Address, replica: &Address) -> Result<bool, Error> {
        let opened = tokio::join!(
            self.converse(master, self.open(master)),
            self.converse(replica, self.open(replica))
        );
        let (mut at_master, mut at_replica) = (opened.0?, opened.1?);
        loop {
            // The master first: what it had then is all there is to reach, whatever it pings in between.
            let goal = self.converse(master, replication(&mut at_master)).await?;
            let reached = self.converse(replica, replication(&mut at_replica)).await?;
            match (parse_info(&goal), parse_info(&reached)) {
                (Ok(goal), Ok(reached)) => match have_met(&goal, &reached, master) {
                    Some(false) => sleep(POLL).await,
                    Some(true) => return Ok(true),
                    None => return Ok(false),
                },
                (Err(cause), _) => return Err(unexpected(master, cause)),
                (_, Err(cause)) => return Err(unexpected(replica, cause)),
            }
        }
    }

    /// The values of some parameters by the names that were asked for; one that the server doesn't know is left out.
    /// Those of passwords are passwords.
    ///
    /// # Errors
    /// Any [`Error`]; it is no effect.
    pub async fn config_of(&self, address: &Address, keys: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        let mut ask = redis::pipe();
        for key in keys {
            ask.cmd("CONFIG").arg("GET").arg(key);
        }
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        let conversation = async {
            let mut connection = self.open(address).await?;
            ask.query_async::<Vec<BTreeMap<String, String>>>(&mut connection).await
        };
        let replies = self.converse(address, conversation).await?;
        // A key with a `*` is a pattern for redis, not for us.
        let named = keys
            .iter()
            .zip(replies)
            .filter_map(|(key, mut reply)| reply.remove_entry(*key));
        Ok(named.collect())
    }

    /// Sets parameters, one after the other, on one connection, so that a new `requirepass` doesn't lock the rest out.
    /// Each is an effect of its own and has [`Timeouts::redis`](super::Timeouts::redis). Nothing is rewritten on disk.
    ///
    /// # Errors
    /// Any [`Error`]; the parameters before it are set. A refusal names its parameter.
    pub async fn set_config(&self, address: &Address, pairs: &[(String, String)]) -> Result<(), Error> {
        if pairs.is_empty() {
            return Ok(());
        }
        let mut connection = self.converse(address, self.open(address)).await?;
        for (key, value) in pairs {
            self.before(names::SET_CONFIG)?;
            let done = self.converse(address, set(&mut connection, key, value)).await;
            done.map_err(|error| about(key, error))?;
        }
        Ok(())
    }

    /// Has a server announce itself under this address from now on: to its master at once, by a new connection that goes
    /// on where the old one was (`CLIENT KILL TYPE master`, redis 3.2 and later).
    ///
    /// # Errors
    /// Any [`Error`]; the address may be set, and the connection the old one.
    pub async fn announce(&self, address: &Address) -> Result<(), Error> {
        self.before(names::ANNOUNCE)?;
        let conversation = async {
            let mut connection = self.open(address).await?;
            set(&mut connection, ANNOUNCED, address.host()).await?;
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("master");
            kill.query_async::<u64>(&mut connection).await
        };
        self.converse(address, conversation).await.map(drop)
    }

    /// Has a master refuse writes, as if it lacked replicas; reads go on. Clients get an error (`NOREPLICAS`).
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Unexpected`] when the fence has no effect, because `min-slaves-max-lag` is 0. The fence
    /// may stand after any of them.
    pub async fn fence(&self, address: &Address) -> Result<(), Error> {
        self.before(names::FENCE)?;
        let info = self.converse(address, async {
            let mut connection = self.open(address).await?;
            set(&mut connection, MIN_REPLICAS, &FENCE.to_string()).await?;
            replication(&mut connection).await
        });
        match parse_info(&info.await?) {
            Ok(ServerView::Up { fenced: true, .. }) => Ok(()),
            Ok(_) => Err(unexpected(address, "its fence has no effect".to_owned())),
            Err(cause) => Err(unexpected(address, cause)),
        }
    }

    /// Lifts a fence, its entry script's or [`fence`](Self::fence)'s: lets a master take writes with `good_slaves`
    /// replicas, normally none.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn unfence(&self, address: &Address, good_slaves: u32) -> Result<(), Error> {
        self.before(names::UNFENCE)?;
        let lift = async {
            let mut connection = self.open(address).await?;
            set(&mut connection, MIN_REPLICAS, &good_slaves.to_string()).await
        };
        self.converse(address, lift).await
    }

    /// Has an old master follow the `new` one, which must be a master: from then on it acknowledges nothing, whoever still
    /// takes it for the master. Only then its fence goes (`good_slaves` as for [`unfence`](Self::unfence)), and the
    /// configuration is kept on disk. The commands are those of a sync action (contract §12.3) without the end of its
    /// clients' connections.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Unexpected`] when `new` is no master, and then nothing is done. Where the old one was
    /// reached at all it may follow already, with its fence.
    pub async fn demote(&self, old: &Address, new: &Address, good_slaves: u32) -> Result<(), Error> {
        let asked = self.converse(new, async { replication(&mut self.open(new).await?).await });
        match parse_info(&asked.await?) {
            Ok(ServerView::Up {
                replication: Replication::Master,
                ..
            }) => {}
            Ok(_) => return Err(unexpected(new, "it is no master, so nobody is to follow it".to_owned())),
            Err(cause) => return Err(unexpected(new, cause)),
        }
        self.before(names::DEMOTE)?;
        self.converse(old, async {
            let mut connection = self.open(old).await?;
            let mut follow = cmd("SLAVEOF");
            let () = follow
                .arg(host(new))
                .arg(new.port())
                .query_async(&mut connection)
                .await?;
            set(&mut connection, MIN_REPLICAS, &good_slaves.to_string()).await?;
            cmd("CONFIG").arg("REWRITE").query_async(&mut connection).await
        })
        .await
    }

    /// Has a server follow nobody: one that leaves and that sentinels would take for a replica still.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn detach(&self, address: &Address) -> Result<(), Error> {
        self.before(names::DETACH)?;
        self.converse(address, async {
            let mut connection = self.open(address).await?;
            cmd("SLAVEOF").arg("NO").arg("ONE").query_async(&mut connection).await
        })
        .await
    }

    /// A connection that has said nothing yet.
    pub(super) async fn connect(&self, address: &Address) -> Result<Connection, RedisError> {
        Connection::open(&self.0.link, address).await
    }

    /// A connection that has said the password, where there is one.
    pub(super) async fn open(&self, address: &Address) -> Result<Connection, RedisError> {
        let mut connection = self.connect(address).await?;
        if let Some(password) = &self.0.product_auth {
            let () = cmd("AUTH").arg(password).query_async(&mut connection).await?;
        }
        Ok(connection)
    }

    /// Bounds a conversation with a redis or sentinel in time, and gives its errors our kinds.
    pub(super) async fn converse<T>(
        &self,
        peer: &Address,
        conversation: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Error> {
        let after = self.0.timeouts.redis;
        match tokio::time::timeout(after, conversation).await {
            Ok(done) => done.map_err(|error| self.kind_of(peer, &error)),
            Err(_) => Err(Error::Timeout {
                peer: peer.clone(),
                after,
            }),
        }
    }

    fn kind_of(&self, peer: &Address, error: &RedisError) -> Error {
        let peer = peer.clone();
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => Error::Refused {
                peer,
                cause: self.without_password(&reply_text(error)),
            },
            ErrorKind::Io => Error::Unreachable {
                peer,
                cause: innermost(error),
            },
            _ => Error::Unexpected {
                peer,
                cause: self.without_password(&error.to_string()),
            },
        }
    }

    /// Since redis 6 the reply to an unknown command quotes its arguments.
    fn without_password(&self, text: &str) -> String {
        match &self.0.product_auth {
            Some(password) => text.replace(password, "***"),
            None => text.to_owned(),
        }
    }
}

/// Without the brackets of an IPv6 address.
fn host(address: &Address) -> &str {
    address.host().trim_start_matches('[').trim_end_matches(']')
}

async fn set(connection: &mut Connection, key: &str, value: &str) -> Result<(), RedisError> {
    let mut set = cmd("CONFIG");
    set.arg("SET").arg(key).arg(value).query_async(connection).await
}

async fn replication(connection: &mut Connection) -> Result<String, RedisError> {
    cmd("INFO").arg("replication").query_async(connection).await
}

/// Whether a replica has reached its master's offset; none when they aren't master and replica of each other.
fn have_met(goal: &ServerView, reached: &ServerView, master: &Address) -> Option<bool> {
    let ServerView::Up {
        replication: Replication::Master,
        offset: goal,
        ..
    } = goal
    else {
        return None;
    };
    match reached {
        ServerView::Up {
            replication:
                Replication::Replica {
                    master: followed,
                    link_up: true,
                },
            offset,
            ..
        } if followed == master => Some(offset == goal),
        _ => None,
    }
}

fn unexpected(peer: &Address, cause: String) -> Error {
    Error::Unexpected {
        peer: peer.clone(),
        cause,
    }
}

/// An error with the parameter that couldn't be set. Redis quotes refused values: what it says of a password is told
/// up to the first quote only.
fn about(key: &str, error: Error) -> Error {
    let is_secret = SECRET.iter().any(|secret| secret.eq_ignore_ascii_case(key));
    let tell = |cause: String| {
        let told = match cause.find(['\'', '"', '`']) {
            Some(quote) if is_secret => &cause[..quote],
            _ => &cause,
        };
        format!("{key}: {}", told.trim_end())
    };
    match error {
        Error::Refused { peer, cause } => Error::Refused {
            peer,
            cause: tell(cause),
        },
        Error::Unexpected { peer, cause } => Error::Unexpected {
            peer,
            cause: tell(cause),
        },
        other => other,
    }
}

/// An error reply as it was on the wire, like `ERR invalid password`.
fn reply_text(error: &RedisError) -> String {
    let code = error.code().unwrap_or("ERR");
    error
        .detail()
        .map_or_else(|| code.to_owned(), |detail| format!("{code} {detail}"))
}

/// A server's view out of its INFO (contract §12.4), or what is missing there.
fn parse_info(info: &str) -> Result<ServerView, String> {
    let fields: BTreeMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let text = |name: &str| {
        fields
            .get(name)
            .copied()
            .ok_or_else(|| format!("its INFO has no {name}"))
    };
    let number = |name: &str| fields.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    if text("loading").is_ok_and(|loading| loading == "1") {
        return Ok(ServerView::Loading);
    }
    let (replication, offset) = match text("role")? {
        "master" => (Replication::Master, number("master_repl_offset")),
        "slave" => {
            let port = text("master_port")?;
            let port = port.parse().map_err(|_| format!("its INFO has master_port {port:?}"))?;
            let replication = Replication::Replica {
                master: Address::new(text("master_host")?, port),
                link_up: text("master_link_status")? == "up",
            };
            (replication, number("slave_repl_offset"))
        }
        role => return Err(format!("its INFO has role {role:?}: it is no server")),
    };
    let keys = fields
        .iter()
        .filter(|(name, _)| is_numbered(name, "db"))
        .filter_map(|(_, database)| keys_of(database))
        .sum();
    Ok(ServerView::Up {
        replication,
        offset,
        keys,
        uptime: number("uptime_in_seconds"),
        // Never up is -1, and in redis 3.2 the seconds since 1970.
        link_down_for: fields
            .get("master_link_down_since_seconds")
            .and_then(|value| value.parse().ok()),
        replicas: fields
            .iter()
            .filter(|(name, _)| is_numbered(name, "slave"))
            .filter_map(|(_, replica)| address_of(replica))
            .collect(),
        memory: Memory {
            used: number("used_memory"),
            limit: number("maxmemory"),
        },
        // Redis tells how many replicas are good enough only while it asks for any.
        fenced: fields.contains_key("min_slaves_good_slaves"),
    })
}

/// Whether a field is one of several of a kind, like `db0` and `slave1`.
fn is_numbered(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind)
        .is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
}

/// The address in `ip=10.96.0.7,port=6379,state=online,offset=43,lag=0`.
fn address_of(replica: &str) -> Option<Address> {
    let mut parts = replica.split(',');
    let host = parts.next()?.strip_prefix("ip=")?;
    let port = parts.next()?.strip_prefix("port=")?.parse().ok()?;
    Some(Address::new(host, port))
}

/// The number in `keys=3,expires=0,avg_ttl=0`.
fn keys_of(database: &str) -> Option<u64> {
    database
        .split(',')
        .find_map(|part| part.strip_prefix("keys="))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests;
