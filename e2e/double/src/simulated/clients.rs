//! The connections of a process: what is to be written to each, and who listens to which channel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, WriteHalf};
use tokio::sync::Notify;

use crate::host::Stream;
use crate::resp::Value;

/// The near end of a connection, with what the program knows of it.
pub(super) struct Client<S> {
    /// Its other end.
    pub(super) peer: SocketAddr,
    /// What the program keeps.
    pub(super) state: S,
    /// Channels and patterns that it listens to.
    pub(super) channels: BTreeSet<Bytes>,
    pub(super) patterns: BTreeSet<Bytes>,
    /// It ends as soon as its task looks.
    closing: bool,
    out: BytesMut,
    write: WriteHalf<Box<dyn Stream>>,
    wake: Arc<Notify>,
}

/// What the task of a connection has to do.
pub(super) enum Condition {
    /// Wait for commands.
    Idle,
    /// And go on writing.
    Writing,
    /// End.
    Closing,
}

/// All connections, by a number that grows.
pub(super) struct Clients<S> {
    all: BTreeMap<u64, Client<S>>,
    last: u64,
    dirty: Vec<u64>,
}

impl<S> Default for Clients<S> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            last: 0,
            dirty: Vec::new(),
        }
    }
}

impl<S: Default> Clients<S> {
    /// A new connection: its number, and what wakes its task.
    pub(super) fn add(&mut self, write: WriteHalf<Box<dyn Stream>>, peer: SocketAddr) -> (u64, Arc<Notify>) {
        self.last += 1;
        let wake = Arc::new(Notify::new());
        let client = Client {
            peer,
            state: S::default(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            closing: false,
            out: BytesMut::new(),
            write,
            wake: wake.clone(),
        };
        self.all.insert(self.last, client);
        (self.last, wake)
    }
}

impl<S> Clients<S> {
    pub(super) fn remove(&mut self, id: u64) -> Option<Client<S>> {
        self.all.remove(&id)
    }

    /// Closes all at once.
    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    pub(super) fn get(&self, id: u64) -> Option<&Client<S>> {
        self.all.get(&id)
    }

    pub(super) fn state(&mut self, id: u64) -> Option<&mut S> {
        self.all.get_mut(&id).map(|client| &mut client.state)
    }

    /// All that aren't about to end.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Client<S>)> {
        self.all
            .iter()
            .filter(|(_, client)| !client.closing)
            .map(|(id, client)| (*id, client))
    }

    /// Ends a connection.
    pub(super) fn close(&mut self, id: u64) {
        if let Some(client) = self.all.get_mut(&id) {
            client.closing = true;
            client.wake.notify_one();
        }
    }

    pub(super) fn condition(&self, id: u64) -> Condition {
        match self.all.get(&id) {
            Some(client) if client.closing => Condition::Closing,
            Some(client) if client.out.is_empty() => Condition::Idle,
            Some(_) => Condition::Writing,
            None => Condition::Closing,
        }
    }

    /// Puts a value into a connection's buffer.
    pub(super) fn say(&mut self, id: u64, value: &Value) {
        if let Some(client) = self.all.get_mut(&id) {
            value.encode(&mut client.out);
            self.dirty.push(id);
        }
    }

    /// Puts bytes into a connection's buffer; tells how many wait there.
    pub(super) fn push(&mut self, id: u64, bytes: &[u8]) -> usize {
        let Some(client) = self.all.get_mut(&id) else { return 0 };
        client.out.extend_from_slice(bytes);
        self.dirty.push(id);
        client.out.len()
    }

    /// Hands all buffers to the sockets; what they don't take is left to the connections' tasks.
    pub(super) fn flush(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        for id in std::mem::take(&mut self.dirty) {
            if self.poll_write(id, &mut context).is_pending()
                && let Some(client) = self.all.get(&id)
            {
                client.wake.notify_one();
            }
        }
    }

    /// Writes a connection's buffer; ready when it is empty or can't be written any more.
    pub(super) fn poll_write(&mut self, id: u64, context: &mut Context<'_>) -> Poll<()> {
        let Some(client) = self.all.get_mut(&id) else {
            return Poll::Ready(());
        };
        while !client.out.is_empty() {
            match Pin::new(&mut client.write).poll_write(context, &client.out) {
                Poll::Ready(Ok(written)) if written > 0 => client.out.advance(written),
                Poll::Ready(_) => {
                    client.out.clear();
                    client.closing = true;
                    client.wake.notify_one();
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        // Streams here have no buffer of their own that a flush could fail to empty.
        let _ = Pin::new(&mut client.write).poll_flush(context);
        Poll::Ready(())
    }

    /// Tells a message to all that listen; how many did.
    pub(super) fn publish(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        let mut heard = 0;
        let bulk = |bytes: &[u8]| Value::bulk(Bytes::copy_from_slice(bytes));
        for (id, client) in &mut self.all {
            let before = heard;
            if client.channels.contains(channel) {
                Value::Array(Some(vec![bulk(b"message"), bulk(channel), bulk(payload)])).encode(&mut client.out);
                heard += 1;
            }
            for pattern in client.patterns.iter().filter(|pattern| glob(pattern, channel)) {
                let words = vec![bulk(b"pmessage"), bulk(pattern), bulk(channel), bulk(payload)];
                Value::Array(Some(words)).encode(&mut client.out);
                heard += 1;
            }
            if heard > before {
                self.dirty.push(*id);
            }
        }
        heard
    }

    /// Handles `SUBSCRIBE` and its kin; false if the command is another.
    pub(super) fn pubsub(&mut self, id: u64, name: &str, words: &[Bytes]) -> bool {
        let (is_pattern, adds) = match name {
            "SUBSCRIBE" => (false, true),
            "UNSUBSCRIBE" => (false, false),
            "PSUBSCRIBE" => (true, true),
            "PUNSUBSCRIBE" => (true, false),
            _ => return false,
        };
        let Some(client) = self.all.get_mut(&id) else {
            return true;
        };
        let set = if is_pattern { &client.patterns } else { &client.channels };
        let named: Vec<Bytes> = if words.is_empty() {
            set.iter().cloned().collect()
        } else {
            words.to_vec()
        };
        let told = if named.is_empty() {
            vec![None]
        } else {
            named.into_iter().map(Some).collect()
        };
        for channel in told {
            let set = if is_pattern {
                &mut client.patterns
            } else {
                &mut client.channels
            };
            match &channel {
                Some(channel) if adds => drop(set.insert(channel.clone())),
                Some(channel) => drop(set.remove(channel)),
                None => {}
            }
            let count = client.channels.len() + client.patterns.len();
            let words = vec![
                Value::bulk(name.to_ascii_lowercase()),
                Value::Bulk(channel),
                Value::Integer(i64::try_from(count).unwrap_or(i64::MAX)),
            ];
            Value::Array(Some(words)).encode(&mut client.out);
        }
        self.dirty.push(id);
        true
    }
}

/// Whether a text matches a pattern of `*` and `?`; classes in brackets are taken literally.
pub(super) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => glob(&pattern[1..], text) || (!text.is_empty() && glob(pattern, &text[1..])),
        (Some(b'?'), Some(_)) => glob(&pattern[1..], &text[1..]),
        (Some(a), Some(b)) if a == b => glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}
