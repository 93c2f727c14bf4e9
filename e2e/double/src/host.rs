//! The machine under a process: its sockets, clock, files and tasks; by default the real ones.
//!
//! A task runs on the host that it was put on with [`within`], and so does all that it spawns with [`spawn`]. Nothing else in
//! this crate opens a socket, reads a clock of the day or spawns, so that a simulation decides all of it.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

/// A connection's two directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection. It closes when it is dropped.
pub struct Socket {
    /// What is said.
    pub stream: Box<dyn Stream>,
    /// Its end here.
    pub local: SocketAddr,
    /// Its other end.
    pub peer: SocketAddr,
}

impl Debug for Socket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}->{}", self.local, self.peer)
    }
}

/// A port that is listened on, until it is dropped.
pub trait Listener: Send {
    /// Where it listens.
    fn local(&self) -> SocketAddr;
    /// The next connection; none is lost when the future is dropped before it ends.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Socket>>;
}

/// Files by their paths, for the coordinator that keeps its nodes in a folder.
pub trait Files: Send + Sync {
    /// A file's content; none if there is no such file.
    ///
    /// # Errors
    /// What a disk would say.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;
    /// Creates or replaces a file, as a whole or not at all.
    ///
    /// # Errors
    /// What a disk would say.
    fn write(&self, path: &str, content: &[u8]) -> io::Result<()>;
    /// Deletes a file, whether or not it exists.
    ///
    /// # Errors
    /// What a disk would say.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// The names in a folder, sorted; none in a missing one.
    ///
    /// # Errors
    /// What a disk would say.
    fn names(&self, folder: &str) -> io::Result<Vec<String>>;
}

/// A machine that somebody made up, as one process sees it.
pub trait Host: Send + Sync {
    /// Opens a connection to `host:port`, for as long as it takes. An error of the kind `NotFound` says that there is no
    /// such name.
    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<Socket>>;
    /// Listens on `ip:port`.
    ///
    /// # Errors
    /// The port is taken.
    fn listen(&self, addr: &str) -> io::Result<Box<dyn Listener>>;
    /// The time of day.
    fn now(&self) -> Timestamp;
    /// Its files.
    fn files(&self) -> Arc<dyn Files>;
    /// Its process's tasks.
    fn tasks(&self) -> &Tasks;
    /// What identifies the process, as hardware addresses and a process id do elsewhere.
    fn name(&self) -> String;
    /// The address of a name; by default there are no names but addresses.
    fn resolve(&self, name: &str) -> Option<IpAddr> {
        name.parse().ok()
    }
}

tokio::task_local! {
    static HOST: Arc<dyn Host>;
}

/// The host of the current task, if it is no real one.
pub fn current() -> Option<Arc<dyn Host>> {
    HOST.try_with(Arc::clone).ok()
}

/// Puts a task, and all that it spawns, on a host.
pub fn within<F>(host: Arc<dyn Host>, task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let spawned = tokio::spawn(HOST.scope(host.clone(), host.tasks().gate(task)));
    host.tasks().add(spawned.abort_handle());
    spawned
}

/// Spawns on the host of the current task.
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match current() {
        Some(host) => within(host, task),
        None => tokio::spawn(task),
    }
}

/// Spawns on the host of the current task, as a member of a set.
pub fn join_in<F>(set: &mut JoinSet<F::Output>, task: F)
where
    F: Future<Output: Send> + Send + 'static,
{
    match current() {
        Some(host) => {
            let spawned = set.spawn(HOST.scope(host.clone(), host.tasks().gate(task)));
            host.tasks().add(spawned);
        }
        None => {
            set.spawn(task);
        }
    }
}

/// The content of a file.
///
/// # Errors
/// What the disk says, and `NotFound`.
pub fn read(path: &str) -> io::Result<Vec<u8>> {
    match current() {
        Some(host) => host.files().read(path)?.ok_or(io::ErrorKind::NotFound.into()),
        None => std::fs::read(path),
    }
}

/// Opens a connection to `host:port`; a name's first address, v4 before v6 as Go's dialer has it.
///
/// # Errors
/// The network's.
pub async fn connect(addr: &str) -> io::Result<Socket> {
    if let Some(host) = current() {
        return host.connect(addr).await;
    }
    let stream = TcpStream::connect(addr).await?;
    real(stream)
}

/// Listens on `ip:port`.
///
/// # Errors
/// The port is taken.
pub async fn listen(addr: &str) -> io::Result<Box<dyn Listener>> {
    match current() {
        Some(host) => host.listen(addr),
        None => Ok(Box::new(TcpListener::bind(addr).await?)),
    }
}

/// The time of day.
pub fn now() -> Timestamp {
    current().map_or_else(Timestamp::now, |host| host.now())
}

fn real(stream: TcpStream) -> io::Result<Socket> {
    // Small pipelined commands: waiting to fill packets would only add delay.
    let _ = stream.set_nodelay(true);
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    Ok(Socket {
        stream: Box::new(stream),
        local,
        peer,
    })
}

impl Listener for TcpListener {
    fn local(&self) -> SocketAddr {
        self.local_addr()
            .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Socket>> {
        Box::pin(async { real(TcpListener::accept(self).await?.0) })
    }
}

/// All tasks of a process: killed or frozen together.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    running: Vec<AbortHandle>,
    /// How many of them were found running when last looked at.
    alive: usize,
    waiting: Vec<Waker>,
    frozen: bool,
    dead: bool,
}

impl Tasks {
    /// SIGKILL: nothing of it runs any more, its sockets close as soon as the runtime gets to them.
    pub fn kill(&self) {
        let running = {
            let mut inner = self.inner();
            inner.dead = true;
            inner.waiting.clear();
            std::mem::take(&mut inner.running)
        };
        // Without the lock: what is dropped may come back here.
        running.iter().for_each(AbortHandle::abort);
    }

    /// SIGSTOP or SIGCONT: a frozen process keeps its sockets and does nothing.
    pub fn freeze(&self, frozen: bool) {
        let waiting = {
            let mut inner = self.inner();
            inner.frozen = frozen;
            match frozen {
                true => Vec::new(),
                false => std::mem::take(&mut inner.waiting),
            }
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> bool {
        self.inner().frozen
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        self.inner().dead
    }

    fn add(&self, task: AbortHandle) {
        let mut inner = self.inner();
        if inner.dead {
            drop(inner);
            return task.abort();
        }
        // At half at least, so that looking costs each task the same.
        if inner.running.len() > 64.max(2 * inner.alive) {
            inner.running.retain(|task| !task.is_finished());
            inner.alive = inner.running.len();
        }
        inner.running.push(task);
    }

    /// A task that makes no step while they are frozen, nor once they were killed.
    pub fn gate<F: Future>(&self, task: F) -> Gated<F> {
        Gated {
            tasks: self.clone(),
            task: Box::pin(task),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that makes no step while its process is frozen.
pub struct Gated<F> {
    tasks: Tasks,
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        {
            let mut inner = self.tasks.inner();
            if inner.dead {
                return Poll::Pending;
            }
            if inner.frozen {
                if !inner.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    inner.waiting.push(context.waker().clone());
                }
                return Poll::Pending;
            }
        }
        self.task.as_mut().poll(context)
    }
}

impl Debug for Tasks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.inner();
        write!(formatter, "Tasks(frozen: {}, dead: {})", inner.frozen, inner.dead)
    }
}

impl Debug for dyn Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name())
    }
}
