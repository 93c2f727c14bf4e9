//! A connection to a redis or sentinel, over sockets or any other network.

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, RedisFuture, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::task::JoinSet;

use super::host;
use crate::{codis::Link, domain::Address};

/// A connection that says nothing by itself: no HELLO, SELECT or CLIENT SETINFO; redis 3.2 knows some of them not, and
/// sentinels others. It closes when it is dropped.
pub struct Connection {
    inner: MultiplexedConnection,
    /// What moves bytes over a network that isn't sockets; it is cut off with the connection, whatever is still to be
    /// answered. Over sockets the library does the same by itself.
    _driver: JoinSet<()>,
}

impl Connection {
    /// Opens one. Time is bounded by the caller, over all steps.
    pub async fn open(link: &Link, address: &Address) -> Result<Self, RedisError> {
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let mut driver = JoinSet::new();
        let inner = if let Some(network) = link.network() {
            let stream = network.connect(address).await?;
            let (inner, moves) = MultiplexedConnection::new_with_config(&settings, stream, config).await?;
            driver.spawn(moves);
            inner
        } else {
            let info: ConnectionInfo = ConnectionAddr::Tcp(host(address).to_owned(), address.port())
                .into_connection_info()?
                .set_redis_settings(settings);
            Client::open(info)?
                .get_multiplexed_async_connection_with_config(&config)
                .await?
        };
        Ok(Self { inner, _driver: driver })
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        self.inner.req_packed_command(cmd)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.inner.req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.inner.get_db()
    }
}
