//! What leads to Codis: the machine's sockets, or a network that somebody made up.

use std::{io, sync::Arc};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::domain::Address;

/// A connection's two directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Who opens connections in a world without sockets.
pub trait Network: Send + Sync {
    /// Opens a connection to `peer`. It closes when the stream is dropped.
    ///
    /// # Errors
    /// What a socket would say: nobody listens there, or no packet arrives.
    fn connect(&self, peer: &Address) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
}

/// How Codis is reached. By default it is over the machine's sockets. Cheap to clone.
#[derive(Clone, Default)]
pub struct Link(Option<Arc<dyn Network>>);

impl Link {
    /// A link over a network of one's own.
    #[must_use]
    pub fn over(network: Arc<dyn Network>) -> Self {
        Self(Some(network))
    }

    /// The network of one's own, for clients that otherwise open their sockets themselves.
    pub(super) fn network(&self) -> Option<&dyn Network> {
        self.0.as_deref()
    }

    /// Opens a connection, whatever it is over.
    pub(super) async fn connect(&self, peer: &Address) -> io::Result<Box<dyn Stream>> {
        match self.network() {
            Some(network) => network.connect(peer).await,
            None => Ok(Box::new(TcpStream::connect((peer.host(), peer.port())).await?)),
        }
    }
}

#[cfg(test)]
mod tests;
