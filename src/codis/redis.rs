//! A codis-server, asked directly: `AUTH` and `INFO` (contract §12).

use std::{collections::BTreeMap, future::Future};

use futures::future::join_all;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, aio::MultiplexedConnection, cmd,
};

use super::{Codis, Error, error::innermost, names};
use crate::domain::{Address, Replication, ServerView};

impl Codis {
    /// What a server says of itself.
    pub async fn server(&self, address: &Address) -> ServerView {
        let info = self.converse(address, async {
            let mut connection = connect(address).await?;
            if let Some(password) = &self.0.product_auth {
                let () = cmd("AUTH").arg(password).query_async(&mut connection).await?;
            }
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

    /// Lets a master take writes without a replica again: lifts the fence of its entry script.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn unfence(&self, address: &Address) -> Result<(), Error> {
        self.before(names::UNFENCE)?;
        let lift = async {
            let mut connection = connect(address).await?;
            if let Some(password) = &self.0.product_auth {
                let () = cmd("AUTH").arg(password).query_async(&mut connection).await?;
            }
            let mut set = cmd("CONFIG");
            // Redis 7 still knows the parameter by this name, which is the only one in 3.2.
            set.arg("SET").arg("min-slaves-to-write").arg(0);
            set.query_async::<()>(&mut connection).await
        };
        self.converse(address, lift).await
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

/// A connection that says nothing by itself: no HELLO, SELECT or CLIENT SETINFO; redis 3.2 knows some of them not, and
/// sentinels others. It closes when it is dropped.
pub(super) async fn connect(address: &Address) -> Result<MultiplexedConnection, RedisError> {
    let host = address.host().trim_start_matches('[').trim_end_matches(']');
    let info: ConnectionInfo = ConnectionAddr::Tcp(host.to_owned(), address.port())
        .into_connection_info()?
        .set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name());
    // Time is bounded by the caller, over all steps.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    Client::open(info)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
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
    let is_database = |name: &str| {
        name.strip_prefix("db")
            .is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
    };
    let keys = fields
        .iter()
        .filter(|(name, _)| is_database(name))
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
        // Redis tells how many replicas are good enough only while it asks for any.
        fenced: fields.contains_key("min_slaves_good_slaves"),
    })
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
