//! A made-up network of machines for the simulated servers: delays, partitions, deaths. Time is tokio's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use codis_double::host::{self, Files, Host, Listener, Socket, Tasks};
use codis_double::resp::{self, Value};
use codis_double::simulated::disk::Disk;
use codis_double::simulated::redis::{self, Server};
use codis_double::simulated::sentinel::{self, Sentinel};
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// Of each direction; tokio's timers know nothing shorter.
const DELAY: Duration = Duration::from_millis(1);

/// All machines.
#[derive(Clone)]
pub struct Net(Arc<Shared>);

struct Shared {
    began: Instant,
    listeners: Mutex<BTreeMap<String, mpsc::UnboundedSender<Socket>>>,
    apart: Mutex<BTreeSet<String>>,
    ports: Mutex<u16>,
}

impl Default for Net {
    fn default() -> Self {
        Self(Arc::new(Shared {
            began: Instant::now(),
            listeners: Mutex::default(),
            apart: Mutex::default(),
            ports: Mutex::new(20_000),
        }))
    }
}

impl Net {
    /// A machine at an address.
    pub fn node(&self, ip: &str) -> Node {
        Node {
            net: self.clone(),
            ip: ip.into(),
            disk: Disk::new(),
            tasks: Arc::default(),
        }
    }

    /// These can talk to each other and to nobody else; nobody heals everything.
    pub fn part(&self, ips: &[&str]) {
        *self.0.apart.lock().unwrap() = ips.iter().map(|ip| (*ip).to_owned()).collect();
    }

    fn is_cut(&self, a: &str, b: &str) -> bool {
        let apart = self.0.apart.lock().unwrap();
        apart.contains(a) != apart.contains(b)
    }
}

/// A machine and its volume; each start is another process.
#[derive(Clone)]
pub struct Node {
    net: Net,
    pub ip: String,
    pub disk: Disk,
    tasks: Arc<Mutex<Tasks>>,
}

struct Process {
    net: Net,
    ip: String,
    disk: Disk,
    tasks: Tasks,
}

impl Node {
    pub fn addr(&self) -> String {
        format!("{}:6379", self.ip)
    }

    fn process(&self) -> Arc<dyn Host> {
        let tasks = Tasks::default();
        *self.tasks.lock().unwrap() = tasks.clone();
        Arc::new(Process {
            net: self.net.clone(),
            ip: self.ip.clone(),
            disk: self.disk.clone(),
            tasks,
        })
    }

    /// Starts a server with a configuration of its own.
    pub async fn redis(&self, more: &str) -> Server {
        let conf = format!(
            "port 6379\nrequirepass pw\nmasterauth pw\nappendonly yes\nappendfsync everysec\nrepl-timeout 12\n\
             repl-ping-slave-period 5\nslave-announce-ip {}\nslave-announce-port 6379\n{more}\n",
            self.ip
        );
        self.disk.write("/data/redis.conf", conf.as_bytes()).unwrap();
        self.restart().await
    }

    /// Starts a server with the configuration that is there.
    pub async fn restart(&self) -> Server {
        let disk = self.disk.clone();
        let started = host::within(self.process(), async move { redis::start(disk, "/data/redis.conf") });
        let server = started.await.unwrap();
        while server.is_loading() {
            sleep(Duration::from_millis(1)).await;
        }
        server
    }

    pub async fn sentinel(&self) -> Sentinel {
        let id = format!("{:0>40}", self.ip.replace('.', ""));
        let conf = format!("port 26379\nsentinel myid {id}\nsentinel announce-ip {}\n", self.ip);
        self.disk.write("/data/sentinel.conf", conf.as_bytes()).unwrap();
        self.restart_sentinel().await
    }

    /// Starts a sentinel with the configuration that is there.
    pub async fn restart_sentinel(&self) -> Sentinel {
        let disk = self.disk.clone();
        let started = host::within(
            self.process(),
            async move { sentinel::start(disk, "/data/sentinel.conf") },
        );
        started.await.unwrap()
    }

    /// SIGKILL.
    pub async fn kill(&self) {
        self.tasks.lock().unwrap().kill();
        sleep(Duration::from_micros(1)).await;
    }

    pub fn freeze(&self, frozen: bool) {
        self.tasks.lock().unwrap().freeze(frozen);
    }

    /// Says commands from here on one connection; the last reply. None without a connection or an answer in a second.
    pub async fn ask(&self, addr: &str, commands: &[&[&str]]) -> Option<Value> {
        let mut out = BytesMut::new();
        commands.iter().for_each(|words| resp::encode_command(words, &mut out));
        let (addr, wanted) = (addr.to_owned(), commands.len());
        let asker = Arc::new(Process {
            net: self.net.clone(),
            ip: self.ip.clone(),
            disk: self.disk.clone(),
            tasks: Tasks::default(),
        });
        let asked = host::within(asker, async move {
            let mut socket = host::connect(&addr).await.ok()?;
            socket.stream.write_all(&out).await.ok()?;
            let (mut buffer, mut last) = (BytesMut::new(), None);
            for _ in 0..wanted {
                last = loop {
                    if let Some(value) = resp::decode(&mut buffer).ok()? {
                        break Some(value);
                    }
                    if socket.stream.read_buf(&mut buffer).await.ok()? == 0 {
                        return None;
                    }
                };
            }
            last
        });
        let answer = tokio::time::timeout(Duration::from_secs(1), asked).await;
        answer.ok()?.unwrap()
    }

    /// A command to a server, with its password.
    pub async fn say(&self, server: &Node, words: &[&str]) -> Option<Value> {
        self.ask(&server.addr(), &[&["AUTH", "pw"], words]).await
    }
}

impl Host for Process {
    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<Socket>> {
        let (net, from, addr) = (self.net.clone(), self.ip.clone(), addr.to_owned());
        Box::pin(async move {
            sleep(DELAY).await;
            let to = addr.rsplit_once(':').map_or("", |(ip, _)| ip).to_owned();
            if net.is_cut(&from, &to) {
                std::future::pending::<()>().await;
            }
            let port = {
                let mut ports = net.0.ports.lock().unwrap();
                *ports += 1;
                *ports
            };
            let (peer, local): (SocketAddr, SocketAddr) =
                (addr.parse().unwrap(), format!("{from}:{port}").parse().unwrap());
            let (near, near_wire) = duplex(1 << 16);
            let (far, far_wire) = duplex(1 << 16);
            let socket = |stream, local, peer| Socket {
                stream: Box::new(stream),
                local,
                peer,
            };
            let listener = net.0.listeners.lock().unwrap().get(&addr).cloned();
            let arrived = listener.and_then(|listener| listener.send(socket(far, peer, local)).ok());
            arrived.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (near_read, near_write) = split(near_wire);
            let (far_read, far_write) = split(far_wire);
            tokio::spawn(pump(net.clone(), from.clone(), to.clone(), near_read, far_write));
            tokio::spawn(pump(net, to, from, far_read, near_write));
            Ok(socket(near, local, peer))
        })
    }

    fn listen(&self, addr: &str) -> io::Result<Box<dyn Listener>> {
        let local = addr.replace("0.0.0.0", &self.ip);
        let (sender, sockets) = mpsc::unbounded_channel();
        self.net.0.listeners.lock().unwrap().insert(local.clone(), sender);
        let local = local.parse().unwrap();
        Ok(Box::new(Port { local, sockets }))
    }

    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.net.0.began.elapsed().as_micros()).unwrap();
        Timestamp::from_microsecond(1_800_000_000_000_000 + passed).unwrap()
    }

    fn files(&self) -> Arc<dyn Files> {
        Arc::new(self.disk.clone())
    }

    fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn name(&self) -> String {
        self.ip.clone()
    }
}

/// One direction of a connection: late, and stuck while its ends are apart.
async fn pump(
    net: Net,
    from: String,
    to: String,
    mut read: ReadHalf<DuplexStream>,
    mut write: WriteHalf<DuplexStream>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(1 << 14);
        let got = read.read_buf(&mut buffer).await.unwrap_or(0);
        sleep(DELAY).await;
        while net.is_cut(&from, &to) {
            sleep(Duration::from_millis(200)).await;
        }
        if got == 0 || write.write_all(&buffer.split()).await.is_err() {
            let _ = write.shutdown().await;
            return;
        }
    }
}

struct Port {
    local: SocketAddr,
    sockets: mpsc::UnboundedReceiver<Socket>,
}

impl Listener for Port {
    fn local(&self) -> SocketAddr {
        self.local
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Socket>> {
        Box::pin(async {
            let socket = self.sockets.recv().await;
            socket.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
        })
    }
}
