//! Connections to redis: one per address and database, pipelined, authenticated with `product_auth`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedRwLockReadGuard, mpsc, oneshot};
use tokio::time::Instant;

use super::replicas::Health;
use super::router::Route;
use crate::host::{self, Socket, Stream};
use crate::redis::{dial, go, old_words};
use crate::resp::{self, Value};

/// Requests that may wait for one connection before senders wait.
const QUEUE: usize = 4096;
/// Bytes that may wait to be written before requests stay in the queue.
const UNWRITTEN: usize = 1 << 20;

/// Between two questions whether an unfit server is fit again, at most.
const QUESTIONS: Duration = Duration::from_secs(1);

/// How backends are talked to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `product_auth`.
    pub auth: String,
    /// Connecting.
    pub dial: Duration,
    /// Rest after a refused connection.
    pub backoff: Duration,
    /// `backend_recv_timeout`.
    pub recv_timeout: Duration,
    /// `backend_ping_period`.
    pub ping_period: Duration,
    /// `backend_max_pipeline`.
    pub max_pipeline: usize,
}

/// A command on its way; the guard keeps its slot from changing until the reply is there.
struct Request {
    bytes: Bytes,
    reply: oneshot::Sender<Value>,
    /// The proxy's own `INFO`.
    question: bool,
    _guard: Option<OwnedRwLockReadGuard<Route>>,
}

impl Request {
    fn fail(self, why: &str) {
        // A client that went away wants no reply.
        let _ = self
            .reply
            .send(Value::error(format!("ERR handle response, backend conn {why}")));
    }
}

/// All backends that some slot uses.
#[derive(Debug)]
pub struct Pool {
    settings: Settings,
    backends: Mutex<BTreeMap<String, Weak<Backend>>>,
}

impl Pool {
    /// An empty pool.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            backends: Mutex::default(),
        }
    }

    /// The backend at an address; it lives as long as a slot holds it.
    pub fn get(&self, addr: &str) -> Arc<Backend> {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = backends.get(addr).and_then(Weak::upgrade) {
            return known;
        }
        backends.retain(|_, backend| backend.strong_count() > 0);
        let settings = self.settings.clone();
        let backend = Arc::new(Backend {
            addr: addr.into(),
            settings,
            links: Mutex::default(),
        });
        backends.insert(addr.into(), Arc::downgrade(&backend));
        backend
    }

    /// The backend at an address, if a slot uses it.
    pub fn known(&self, addr: &str) -> Option<Arc<Backend>> {
        self.backends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(addr)
            .and_then(Weak::upgrade)
    }
}

/// One redis.
#[derive(Debug)]
pub struct Backend {
    addr: String,
    settings: Settings,
    links: Mutex<BTreeMap<u32, Sender>>,
}

/// The near end of a connection.
#[derive(Debug, Clone)]
struct Sender {
    requests: mpsc::Sender<Request>,
    health: Arc<Health>,
}

impl Backend {
    /// Where it is.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// How it is talked to.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sends a command; the reply comes later, an error in any case of failure.
    pub async fn send(
        &self,
        database: u32,
        bytes: Bytes,
        guard: Option<OwnedRwLockReadGuard<Route>>,
    ) -> oneshot::Receiver<Value> {
        let (reply, replied) = oneshot::channel();
        let request = Request {
            bytes,
            reply,
            question: false,
            _guard: guard,
        };
        if let Err(unsent) = self.link(database).requests.send(request).await {
            unsent.0.fail("reset");
        }
        replied
    }

    /// Whether reads may be sent here now; if not, finds out whether they may be sent later.
    pub fn is_fit(&self, database: u32) -> bool {
        let link = self.link(database);
        if link.health.is_fit() {
            return true;
        }
        if link.health.asks(self.settings.ping_period.min(QUESTIONS)) {
            let (reply, _) = oneshot::channel();
            let question = Request {
                bytes: Bytes::from_static(b"*1\r\n$4\r\nINFO\r\n"),
                reply,
                question: true,
                _guard: None,
            };
            // A full queue has other worries.
            let _ = link.requests.try_send(question);
        }
        false
    }

    fn link(&self, database: u32) -> Sender {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || {
            let (sender, requests) = mpsc::channel(QUEUE);
            let health = Arc::<Health>::default();
            let link = Link {
                addr: self.addr.clone(),
                database,
                settings: self.settings.clone(),
                requests,
                health: health.clone(),
            };
            host::spawn(link.run());
            Sender {
                requests: sender,
                health,
            }
        };
        links.entry(database).or_insert_with(open).clone()
    }
}

/// One connection and who waits for it; ends when no slot uses the backend any more.
struct Link {
    addr: String,
    database: u32,
    settings: Settings,
    requests: mpsc::Receiver<Request>,
    health: Arc<Health>,
}

impl Link {
    async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            match self.connect().await {
                Ok((socket, buffer)) => {
                    Conversation::new(&self.settings, &self.health)
                        .run(socket, buffer, first, &mut self.requests)
                        .await;
                    self.health.lose();
                }
                Err(why) => {
                    tracing::warn!("backend conn [{}] db-{} failed: {why}", self.addr, self.database);
                    first.fail(&format!("failure, {why}"));
                    self.rest().await;
                }
            }
        }
    }

    /// Connects, authenticates and selects; one budget for all of it.
    async fn connect(&self) -> Result<(Socket, BytesMut), String> {
        let mut socket = dial(&self.addr, self.settings.dial)
            .await
            .map_err(|error| error.to_string())?;
        let mut buffer = BytesMut::new();
        let greet = async {
            if !self.settings.auth.is_empty() {
                exchange(&mut socket.stream, &mut buffer, &["AUTH", &self.settings.auth]).await?;
            }
            if self.database != 0 {
                exchange(&mut socket.stream, &mut buffer, &["SELECT", &self.database.to_string()]).await?;
            }
            Ok::<(), String>(())
        };
        let greeted = tokio::time::timeout(self.settings.dial, greet).await;
        greeted.unwrap_or_else(|_| Err("i/o timeout".into()))?;
        Ok((socket, buffer))
    }

    /// Fails what arrives for a moment, so that a dead redis is not dialed for each command.
    async fn rest(&mut self) {
        let end = Instant::now() + self.settings.backoff;
        while let Ok(Some(request)) = tokio::time::timeout_at(end, self.requests.recv()).await {
            request.fail("reset");
        }
    }
}

async fn exchange(stream: &mut dyn Stream, buffer: &mut BytesMut, words: &[&str]) -> Result<(), String> {
    let mut out = BytesMut::new();
    resp::encode_command(words, &mut out);
    stream.write_all(&out).await.map_err(|error| go(&error))?;
    loop {
        match resp::decode(buffer).map_err(|error| error.to_string())? {
            Some(Value::Error(text)) => return Err(old_words(&text)),
            Some(_) => return Ok(()),
            None => {}
        }
        match stream.read_buf(buffer).await {
            Ok(0) => return Err("EOF".into()),
            Ok(_) => {}
            Err(error) => return Err(go(&error)),
        }
    }
}

/// What is under way on one connection.
struct Conversation<'a> {
    settings: &'a Settings,
    health: &'a Health,
    waiting: VecDeque<(Instant, Request)>,
    out: BytesMut,
    active: Instant,
}

impl<'a> Conversation<'a> {
    fn new(settings: &'a Settings, health: &'a Health) -> Self {
        Self {
            settings,
            health,
            waiting: VecDeque::new(),
            out: BytesMut::new(),
            active: Instant::now(),
        }
    }

    async fn run(
        mut self,
        mut socket: Socket,
        buffer: BytesMut,
        first: Request,
        requests: &mut mpsc::Receiver<Request>,
    ) {
        self.take(first);
        let ended = self.talk(&mut socket.stream, buffer, requests).await;
        if let Err(why) = ended {
            let why = format!("failure, {why}");
            self.waiting.drain(..).for_each(|(_, request)| request.fail(&why));
        }
    }

    fn take(&mut self, request: Request) {
        self.out.extend_from_slice(&request.bytes);
        self.waiting.push_back((Instant::now(), request));
        self.active = Instant::now();
    }

    /// When the oldest reply is overdue, or an idle connection wants a ping.
    fn deadline(&self) -> Instant {
        match self.waiting.front() {
            Some((since, _)) => *since + self.settings.recv_timeout,
            None => self.active + self.settings.ping_period,
        }
    }

    async fn talk(
        &mut self,
        stream: &mut dyn Stream,
        mut buffer: BytesMut,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<(), String> {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut open = true;
        while open || !self.waiting.is_empty() {
            let room = open && self.waiting.len() < self.settings.max_pipeline && self.out.len() < UNWRITTEN;
            let deadline = self.deadline();
            tokio::select! {
                biased;
                got = read.read_buf(&mut buffer) => match got {
                    Ok(0) => return Err("EOF".into()),
                    Ok(_) => self.replies(&mut buffer)?,
                    Err(error) => return Err(go(&error)),
                },
                // Before what may always be ready, or an overdue reply would never be missed.
                () = tokio::time::sleep_until(deadline) => self.overdue()?,
                wrote = write.write_buf(&mut self.out), if !self.out.is_empty() => {
                    wrote.map_err(|error| go(&error))?;
                }
                request = requests.recv(), if room => match request {
                    Some(request) => self.take_all(request, requests),
                    None => open = false,
                },
            }
        }
        Ok(())
    }

    fn take_all(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) {
        self.take(first);
        while self.out.len() < UNWRITTEN && self.waiting.len() < self.settings.max_pipeline {
            let Ok(next) = requests.try_recv() else { return };
            self.take(next);
        }
    }

    fn replies(&mut self, buffer: &mut BytesMut) -> Result<(), String> {
        self.active = Instant::now();
        while let Some(value) = resp::decode(buffer).map_err(|error| error.to_string())? {
            let Some((_, request)) = self.waiting.pop_front() else {
                return Err("unexpected reply".into());
            };
            match request.question {
                true => self.health.learn(&value),
                false => self.health.hear(&value),
            }
            let _ = request.reply.send(value);
        }
        Ok(())
    }

    fn overdue(&mut self) -> Result<(), String> {
        if !self.waiting.is_empty() {
            return Err("i/o timeout".into());
        }
        let (reply, _) = oneshot::channel();
        self.take(Request {
            bytes: Bytes::from_static(b"*1\r\n$4\r\nPING\r\n"),
            reply,
            question: false,
            _guard: None,
        });
        Ok(())
    }
}
