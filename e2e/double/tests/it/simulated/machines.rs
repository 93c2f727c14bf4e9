//! A few made-up machines: their network is memory, their clock is tokio's, their disks are maps.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use codis_double::host::{self, Files, Host, Listener, Socket, Tasks};
use codis_double::resp::{self, Value};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What a packet takes.
const DELAY: Duration = Duration::from_millis(1);

/// What all machines share.
pub struct World {
    begun: Instant,
    ports: Mutex<BTreeMap<SocketAddr, mpsc::UnboundedSender<Socket>>>,
    /// Every connection that was tried, and when.
    trace: Mutex<Vec<String>>,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            ports: Mutex::default(),
            trace: Mutex::default(),
        })
    }

    pub fn trace(&self) -> Vec<String> {
        self.trace.lock().unwrap().clone()
    }

    fn open(&self, from: &str, addr: &str) -> io::Result<Socket> {
        let peer = addr.parse().map_err(|_| ErrorKind::NotFound)?;
        let mut trace = self.trace.lock().unwrap();
        let port = 30_000 + u16::try_from(trace.len() % 30_000).unwrap();
        let local = SocketAddr::new(from.parse().unwrap(), port);
        let (here, there) = tokio::io::duplex(64 << 10);
        let accepted = Socket {
            stream: Box::new(there),
            local: peer,
            peer: local,
        };
        let port = self.ports.lock().unwrap().get(&peer).cloned();
        let taken = port.is_some_and(|port| port.send(accepted).is_ok());
        trace.push(format!("{:?} {local} -> {peer}: {taken}", self.begun.elapsed()));
        match taken {
            true => Ok(Socket {
                stream: Box::new(here),
                local,
                peer,
            }),
            false => Err(ErrorKind::ConnectionRefused.into()),
        }
    }
}

/// A machine with one process.
pub struct Machine {
    world: Arc<World>,
    ip: &'static str,
    disk: Arc<Disk>,
    tasks: Tasks,
}

impl Machine {
    pub fn new(world: &Arc<World>, ip: &'static str) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            ip,
            disk: Arc::default(),
            tasks: Tasks::default(),
        })
    }

    /// The machine with its disk, for the next process.
    pub fn again(&self) -> Arc<Self> {
        Arc::new(Self {
            world: self.world.clone(),
            ip: self.ip,
            disk: self.disk.clone(),
            tasks: Tasks::default(),
        })
    }

    /// Runs something on it to its end.
    pub async fn run<T: Send + 'static>(self: &Arc<Self>, task: impl Future<Output = T> + Send + 'static) -> T {
        host::within(self.clone(), task).await.unwrap()
    }
}

impl Host for Machine {
    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<Socket>> {
        let (world, from, addr) = (self.world.clone(), self.ip, addr.to_string());
        async move {
            tokio::time::sleep(DELAY).await;
            world.open(from, &addr)
        }
        .boxed()
    }

    fn listen(&self, addr: &str) -> io::Result<Box<dyn Listener>> {
        let mut local: SocketAddr = addr.parse().map_err(|_| ErrorKind::InvalidInput)?;
        if local.ip().is_unspecified() {
            local.set_ip(self.ip.parse().unwrap());
        }
        let mut ports = self.world.ports.lock().unwrap();
        if ports.contains_key(&local) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let (port, arriving) = mpsc::unbounded_channel();
        ports.insert(local, port);
        Ok(Box::new(Port {
            world: self.world.clone(),
            local,
            arriving,
        }))
    }

    fn now(&self) -> Timestamp {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        start + jiff::SignedDuration::try_from(self.world.begun.elapsed()).unwrap()
    }

    fn files(&self) -> Arc<dyn Files> {
        self.disk.clone()
    }

    fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn name(&self) -> String {
        format!("machine-{}", self.ip)
    }
}

struct Port {
    world: Arc<World>,
    local: SocketAddr,
    arriving: mpsc::UnboundedReceiver<Socket>,
}

impl Listener for Port {
    fn local(&self) -> SocketAddr {
        self.local
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Socket>> {
        async { self.arriving.recv().await.ok_or(ErrorKind::BrokenPipe.into()) }.boxed()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.world.ports.lock().unwrap().remove(&self.local);
    }
}

#[derive(Default)]
struct Disk(Mutex<BTreeMap<String, Vec<u8>>>);

impl Files for Disk {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(path).cloned())
    }

    fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().insert(path.into(), content.into());
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.lock().unwrap().remove(path);
        Ok(())
    }

    fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let below = format!("{folder}/");
        let files = self.0.lock().unwrap();
        let inner = files.keys().filter_map(|path| path.strip_prefix(&below));
        let mut names: Vec<_> = inner
            .filter_map(|path| Some(path.split('/').next()?.to_string()))
            .collect();
        names.dedup();
        Ok(names)
    }
}

/// Starts a master that knows just enough.
pub async fn redis(world: &Arc<World>, ip: &'static str) {
    let machine = Machine::new(world, ip);
    machine
        .run(async move {
            let mut port = host::listen(&format!("{ip}:6379")).await.unwrap();
            let keys = Arc::<Mutex<BTreeMap<Vec<u8>, Value>>>::default();
            host::spawn(async move {
                while let Ok(socket) = port.accept().await {
                    host::spawn(serve(socket, keys.clone()));
                }
            });
        })
        .await;
}

async fn serve(mut socket: Socket, keys: Arc<Mutex<BTreeMap<Vec<u8>, Value>>>) {
    let mut buffer = BytesMut::new();
    while let Ok(1..) = socket.stream.read_buf(&mut buffer).await {
        let mut out = BytesMut::new();
        while let Some(words) = resp::decode_command(&mut buffer).unwrap() {
            let reply = match (String::from_utf8_lossy(&words[0]).as_ref(), &words[1..]) {
                ("INFO", _) => Value::bulk("# Replication\r\nrole:master\r\nrun_id:1\r\n"),
                ("CONFIG", _) => Value::Array(Some(vec![Value::bulk("maxmemory"), Value::bulk("0")])),
                ("SET", [key, value]) => {
                    keys.lock().unwrap().insert(key.to_vec(), Value::bulk(value.clone()));
                    Value::ok()
                }
                ("GET", [key]) => keys.lock().unwrap().get(&key[..]).cloned().unwrap_or(Value::Bulk(None)),
                _ => Value::ok(),
            };
            reply.encode(&mut out);
        }
        if socket.stream.write_all(&out).await.is_err() {
            return;
        }
    }
}
