//! A connection: two directions, each with a delay, that can be held, severed, and closed.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::Ipv4Addr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// Both directions, for those who cut cables.
pub(super) struct Line {
    ends: (Ipv4Addr, Ipv4Addr),
    there: Shared,
    back: Shared,
}

impl Line {
    /// A connection and its two ends.
    pub(super) fn new(from: Ipv4Addr, to: Ipv4Addr, delay: Duration) -> (Self, End, End) {
        let (there, back) = (Shared::new(delay), Shared::new(delay));
        let line = Self {
            ends: (from, to),
            there: there.clone(),
            back: back.clone(),
        };
        let ours = End::new(back.clone(), there.clone());
        (line, ours, End::new(there, back))
    }

    pub(super) fn has(&self, ip: Ipv4Addr) -> bool {
        self.ends.0 == ip || self.ends.1 == ip
    }

    /// From where to where.
    pub(super) fn ends(&self) -> (Ipv4Addr, Ipv4Addr) {
        self.ends
    }

    pub(super) fn is_over(&self) -> bool {
        let is_over = |way: &Shared| way.lock().is_closed;
        is_over(&self.there) && is_over(&self.back)
    }

    /// Holds or releases a direction.
    pub(super) fn hold(&self, from: Ipv4Addr, to: Ipv4Addr, hold: bool) {
        let way = match self.ends {
            ends if ends == (from, to) => &self.there,
            ends if ends == (to, from) => &self.back,
            _ => return,
        };
        let mut way = way.lock();
        way.is_held = hold;
        way.wake();
    }

    /// What is sent from now on takes so much longer than the connection's own delay.
    pub(super) fn stretch(&self, by: Duration) {
        for way in [&self.there, &self.back] {
            way.lock().longer = by;
        }
    }

    /// Nothing arrives any more, not even the end.
    pub(super) fn sever(&self) {
        for way in [&self.there, &self.back] {
            way.lock().is_severed = true;
        }
    }
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Way>>);

/// One direction.
struct Way {
    delay: Duration,
    longer: Duration,
    sent: VecDeque<(Instant, Vec<u8>)>,
    /// How much of the first is read.
    read: usize,
    /// The writer is gone.
    is_closed: bool,
    /// The reader is gone: writing is an error.
    is_deaf: bool,
    is_held: bool,
    is_severed: bool,
    reader: Option<Waker>,
}

impl Shared {
    fn new(delay: Duration) -> Self {
        Self(Arc::new(Mutex::new(Way {
            delay,
            longer: Duration::ZERO,
            sent: VecDeque::new(),
            read: 0,
            is_closed: false,
            is_deaf: false,
            is_held: false,
            is_severed: false,
            reader: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Way> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Reads what has arrived; when to look again otherwise.
    fn take(&mut self, into: &mut ReadBuf<'_>) -> Result<(), Option<Instant>> {
        if self.is_held || self.is_severed {
            return Err(None);
        }
        let now = Instant::now();
        let before = into.filled().len();
        while into.remaining() > 0
            && let Some((due, text)) = self.sent.front()
        {
            if *due > now {
                if into.filled().len() == before {
                    return Err(Some(*due));
                }
                break;
            }
            let rest = &text[self.read..];
            let count = rest.len().min(into.remaining());
            into.put_slice(&rest[..count]);
            self.read += count;
            if count == rest.len() {
                self.sent.pop_front();
                self.read = 0;
            }
        }
        let nothing = into.filled().len() == before && !self.is_closed;
        if nothing { Err(None) } else { Ok(()) }
    }
}

/// One end of a connection. Dropped, it closes.
pub(super) struct End {
    reads: Shared,
    writes: Shared,
    wait: Option<Pin<Box<Sleep>>>,
}

impl End {
    fn new(reads: Shared, writes: Shared) -> Self {
        Self {
            reads,
            writes,
            wait: None,
        }
    }
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let due = {
                let mut way = self.reads.lock();
                match way.take(into) {
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(due) => {
                        way.reader = Some(context.waker().clone());
                        due
                    }
                }
            };
            let Some(due) = due else { return Poll::Pending };
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if wait.deadline() != due {
                wait.as_mut().reset(due);
            }
            ready!(wait.as_mut().poll(context));
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<usize>> {
        let mut way = self.writes.lock();
        if way.is_deaf && !way.is_severed && !way.is_held {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        if !text.is_empty() && !way.is_deaf {
            let due = Instant::now() + way.delay + way.longer;
            way.sent.push_back((due, text.to_vec()));
            way.wake();
        }
        Poll::Ready(Ok(text.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut way = self.writes.lock();
        way.is_closed = true;
        way.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut writes = self.writes.lock();
        writes.is_closed = true;
        writes.wake();
        drop(writes);
        let mut reads = self.reads.lock();
        reads.is_deaf = true;
        reads.sent.clear();
    }
}
