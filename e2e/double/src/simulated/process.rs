//! A process that serves connections: one command at a time, as a single thread would.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use futures::future::{BoxFuture, poll_fn};
use tokio::io::{AsyncReadExt, ReadHalf};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::clients::{Clients, Condition};
use crate::host::{self, Listener, Socket, Stream};
use crate::resp::{self, Value};
use bytes::Bytes;

/// What a process runs.
pub(super) trait Program: Send + Sized + 'static {
    /// What it keeps of each connection.
    type State: Default + Send;
    /// Its connections.
    fn clients(&mut self) -> &mut Clients<Self::State>;
    /// Does a command and puts its reply into the connection's buffer.
    fn execute(&mut self, client: u64, words: Vec<Bytes>, process: &Arc<Process<Self>>) -> Then;
    /// A connection began.
    fn joined(&mut self) {}
    /// A connection ended.
    fn left(&mut self, client: u64);
    /// The process ends; `killed` if nobody asked it to.
    fn end(&mut self, killed: bool);
}

/// What is left of a command that takes time.
pub(super) enum Then {
    /// Nothing.
    Next,
    /// Everybody waits for it.
    Hold(BoxFuture<'static, ()>),
    /// Everybody waits for its reply.
    HoldReply(BoxFuture<'static, Value>),
    /// Only its connection waits for it.
    Park(BoxFuture<'static, ()>),
}

/// A process: its state, and whose turn it is.
pub(super) struct Process<P: Program> {
    core: Mutex<P>,
    turn: tokio::sync::Mutex<()>,
    tasks: Mutex<Vec<AbortHandle>>,
    ended: watch::Sender<Option<Result<(), String>>>,
}

/// Ends its process when the main task goes, that is when it is killed.
pub(super) struct Life<P: Program>(Arc<Process<P>>);

impl<P: Program> Drop for Life<P> {
    fn drop(&mut self) {
        self.0.end(Err("killed".into()));
    }
}

impl<P: Program> Process<P> {
    pub(super) fn new(program: P) -> Arc<Self> {
        Arc::new(Self {
            core: Mutex::new(program),
            turn: tokio::sync::Mutex::new(()),
            tasks: Mutex::default(),
            ended: watch::Sender::new(None),
        })
    }

    /// Its state; nobody may wait while they have it.
    pub(super) fn core(&self) -> MutexGuard<'_, P> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the thread.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// A task of this process; it ends with it.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let handle = host::spawn(task).abort_handle();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.len() > 32 {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(handle.clone());
        handle
    }

    /// Makes the process end when the task that holds this is killed.
    pub(super) fn life(self: &Arc<Self>) -> Life<P> {
        Life(self.clone())
    }

    /// Ends the process, once.
    pub(super) fn end(&self, why: Result<(), String>) {
        let is_first = self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(why);
            first
        });
        if !is_first {
            return;
        }
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(AbortHandle::abort);
        let killed = !matches!(&*self.ended.borrow(), Some(Ok(())));
        let mut core = self.core();
        core.end(killed);
        core.clients().clear();
    }

    /// How it ended, if it did.
    pub(super) fn has_ended(&self) -> Option<Result<(), String>> {
        self.ended.borrow().clone()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> Result<(), String> {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(how) => how.clone().unwrap_or(Ok(())),
            // The sender lives as long as the process.
            Err(_) => Ok(()),
        }
    }

    /// Serves whoever connects, for ever.
    pub(super) async fn accept(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        while let Ok(socket) = listener.accept().await {
            let process = self.clone();
            self.spawn(async move { process.serve(socket).await });
        }
    }

    async fn serve(self: Arc<Self>, socket: Socket) {
        let (read, write) = tokio::io::split(socket.stream);
        let (id, wake) = {
            let mut core = self.core();
            core.joined();
            core.clients().add(write, socket.peer)
        };
        self.converse(id, &wake, read).await;
        let mut core = self.core();
        core.left(id);
        core.clients().remove(id);
        core.clients().flush();
    }

    async fn converse(self: &Arc<Self>, id: u64, wake: &Notify, mut read: ReadHalf<Box<dyn Stream>>) {
        let mut buffer = BytesMut::with_capacity(4096);
        loop {
            let condition = self.core().clients().condition(id);
            let writes = match condition {
                Condition::Closing => return,
                Condition::Idle => false,
                Condition::Writing => true,
            };
            tokio::select! {
                biased;
                () = wake.notified() => {}
                () = poll_fn(|context| self.core().clients().poll_write(id, context)), if writes => {}
                got = read.read_buf(&mut buffer) => match got {
                    Ok(0) | Err(_) => return,
                    Ok(_) => self.run(id, &mut buffer).await,
                },
            }
        }
    }

    /// Does all commands of a buffer and hands out what comes of it in the same step.
    async fn run(self: &Arc<Self>, id: u64, buffer: &mut BytesMut) {
        let mut turn = self.turn.lock().await;
        loop {
            let words = match resp::decode_command(buffer) {
                Ok(None) => break,
                Ok(Some(words)) if words.is_empty() => continue,
                Ok(Some(words)) => words,
                Err(error) => {
                    let mut core = self.core();
                    core.clients().say(id, &Value::error(error.to_string()));
                    core.clients().flush();
                    core.clients().close(id);
                    break;
                }
            };
            let then = self.core().execute(id, words, self);
            match then {
                Then::Next => continue,
                Then::Hold(rest) => rest.await,
                Then::HoldReply(rest) => {
                    let value = rest.await;
                    self.core().clients().say(id, &value);
                }
                Then::Park(rest) => {
                    self.core().clients().flush();
                    drop(turn);
                    rest.await;
                    turn = self.turn.lock().await;
                }
            }
        }
        self.core().clients().flush();
        drop(turn);
    }
}
