//! A small world: redis and sentinel processes, a dashboard and proxies in this process; all of it dies with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use codis_double::config::{DashboardConfig, ProxyConfig};
use codis_double::redis::Connection;
use codis_double::resp::Value as Reply;
use codis_double::scalar::Span;
use codis_double::timings::Timings;
use codis_double::{dashboard, proxy};
use serde_json::{Value, json};

pub const PRODUCT: &str = "demo";
pub const AUTH: &str = "prodpw";
pub const SESSION: &str = "sesspw";
/// The dashboard xauth of `demo`.
pub const X: &str = "c32db19baf104a834a2d07a99c55a19a";

/// Whether the redis tier can run; says so loudly when it cannot, and fails when it must.
pub fn redis_is_here() -> bool {
    let here = Command::new("redis-server")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !here {
        assert!(
            std::env::var("REQUIRE_REDIS").as_deref() != Ok("1"),
            "REQUIRE_REDIS=1, but no redis-server on PATH"
        );
        eprintln!("\n!!!!!! SKIPPED: no redis-server on PATH, the redis tier of this test did not run !!!!!!\n");
    }
    here
}

/// A folder that goes with its owner.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "codis-double-it-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that is killed with its owner.
pub struct Process(pub Child);

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A redis or sentinel.
pub struct Server {
    pub addr: String,
    config: String,
    sentinel: bool,
    process: Process,
    _folder: Folder,
}

impl Server {
    pub async fn redis(auth: &str) -> Self {
        let secret = if auth.is_empty() {
            String::new()
        } else {
            format!("requirepass {auth}\nmasterauth {auth}\n")
        };
        Self::start(&format!("save \"\"\nrepl-diskless-sync-delay 0\n{secret}"), false).await
    }

    pub async fn sentinel() -> Self {
        Self::start("", true).await
    }

    async fn start(more: &str, sentinel: bool) -> Self {
        let (folder, port) = (Folder::new(), free_port());
        let text = format!("port {port}\nbind 127.0.0.1\ndir {}\n{more}", folder.0.display());
        let config = folder.file("redis.conf", &text);
        let process = launch(&config, sentinel);
        let server = Self {
            addr: format!("127.0.0.1:{port}"),
            config,
            sentinel,
            process,
            _folder: folder,
        };
        server.answers().await;
        server
    }

    async fn answers(&self) {
        let addr = self.addr.clone();
        until("redis answers", || async {
            Connection::open(&addr, "", Duration::from_secs(1)).await.is_ok()
        })
        .await;
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// It keeps its connections and answers nothing.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let kill = format!("kill {signal} {}", self.process.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    pub async fn restart(&mut self) {
        self.process = launch(&self.config, self.sentinel);
        self.answers().await;
    }

    pub async fn info(&self, key: &str) -> String {
        let auth = if self.sentinel { "" } else { AUTH };
        match Connection::open(&self.addr, auth, Duration::from_secs(1)).await {
            Ok(mut connection) => connection
                .plain_info()
                .await
                .unwrap_or_default()
                .remove(key)
                .unwrap_or_default(),
            Err(_) => String::new(),
        }
    }
}

fn launch(config: &str, sentinel: bool) -> Process {
    let mut command = Command::new("redis-server");
    command.arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    if sentinel {
        command.arg("--sentinel");
    }
    Process::spawn(&mut command)
}

/// Waits for a condition, for twenty seconds at most.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    until_within(Duration::from_secs(60), what, condition).await;
}

/// Waits for a condition.
pub async fn until_within<F: Future<Output = bool>>(limit: Duration, what: &str, mut condition: impl FnMut() -> F) {
    let end = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

pub fn timings() -> Timings {
    Timings {
        lock_tries: 5,
        lock_pause: Duration::from_millis(100),
        loop_pause: Duration::from_millis(50),
        slot_backoff: Duration::from_millis(100),
        slot_round: Duration::from_millis(1),
        watch_retry: Duration::from_millis(200),
        masters_pause: Duration::from_millis(200),
        register_tries: 3,
        register_pause: Duration::from_millis(50),
        ..Default::default()
    }
}

pub fn dashboard_options(root: &Path) -> dashboard::Options {
    let config = DashboardConfig {
        coordinator_addr: root.display().to_string(),
        admin_addr: "127.0.0.1:0".into(),
        product_name: PRODUCT.into(),
        product_auth: AUTH.into(),
        sentinel_down_after: Span(Duration::from_secs(1)),
        sentinel_failover_timeout: Span(Duration::from_secs(6)),
        sentinel_client_timeout: Span(Duration::from_secs(3)),
        ..Default::default()
    };
    dashboard::Options {
        config,
        timings: timings(),
        ..Default::default()
    }
}

pub fn proxy_options() -> proxy::Options {
    let config = ProxyConfig {
        admin_addr: "127.0.0.1:0".into(),
        proxy_addr: "127.0.0.1:0".into(),
        product_name: PRODUCT.into(),
        product_auth: AUTH.into(),
        session_auth: SESSION.into(),
        backend_recv_timeout: Span(Duration::from_secs(3)),
        ..Default::default()
    };
    proxy::Options {
        config,
        timings: timings(),
        ..Default::default()
    }
}

/// Dashboard, two proxies, two groups of two, and on demand three sentinels.
pub struct World {
    pub dashboard: Option<dashboard::Handle>,
    pub options: dashboard::Options,
    pub addr: String,
    pub proxies: Vec<proxy::Handle>,
    pub servers: Vec<Server>,
    pub sentinels: Vec<Server>,
    pub store: Folder,
    pub http: reqwest::Client,
}

impl World {
    /// A dashboard without anything.
    pub async fn empty() -> Self {
        let store = Folder::new();
        Self::with(dashboard_options(&store.0), store).await
    }

    /// A dashboard of these options; the folder is kept for as long as the world.
    pub async fn with(options: dashboard::Options, store: Folder) -> Self {
        let dashboard = dashboard::start(options.clone()).await.unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        let (addr, dashboard) = (dashboard.addr.to_string(), Some(dashboard));
        let none = (Vec::new(), Vec::new(), Vec::new());
        let world = Self {
            dashboard,
            options,
            addr,
            proxies: none.0,
            servers: none.1,
            sentinels: none.2,
            store,
            http,
        };
        until("the dashboard is online", || async {
            world.get("/topom").await.0 == 200
        })
        .await;
        world
    }

    /// A dashboard and two proxies that are online.
    pub async fn fresh() -> Self {
        let mut world = Self::empty().await;
        world.add_proxies().await;
        world
    }

    async fn add_proxies(&mut self) {
        for _ in 0..2 {
            self.add_proxy().await;
        }
    }

    /// Groups 1 and 2 of two servers each, half of the slots each, replicas linked.
    pub async fn bootstrapped() -> Self {
        let mut world = Self::empty().await;
        world.bootstrap().await;
        world
    }

    /// Proxies, groups and slots of a world that was empty.
    pub async fn bootstrap(&mut self) {
        self.add_proxies().await;
        for _ in 0..4 {
            self.servers.push(Server::redis(AUTH).await);
        }
        for (index, gid) in [1, 1, 2, 2].into_iter().enumerate() {
            if index % 2 == 0 {
                self.ok(&format!("group/create/{X}/{gid}")).await;
            }
            self.ok(&format!("group/add/{X}/{gid}/{}", self.server(index))).await;
        }
        for index in [1, 3] {
            self.ok(&format!("group/action/create/{X}/{}", self.server(index)))
                .await;
        }
        self.assign_all().await;
        self.ok(&format!("group/resync-all/{X}")).await;
        for index in [1, 3] {
            until("the replica is linked", || async { self.linked(index).await }).await;
        }
        until("sync actions are done", || async {
            self.groups().await.to_string().matches("\"synced\"").count() == 2
        })
        .await;
    }

    /// Also three sentinels that know masters and replicas.
    pub async fn watched() -> Self {
        let mut world = Self::bootstrapped().await;
        for _ in 0..3 {
            let sentinel = Server::sentinel().await;
            world.ok(&format!("sentinels/add/{X}/{}", sentinel.addr)).await;
            world.sentinels.push(sentinel);
        }
        world.ok(&format!("sentinels/resync-all/{X}")).await;
        until("every sentinel knows the others and the replicas", || async {
            world.sentinels_know_all().await
        })
        .await;
        world
    }

    async fn sentinels_know_all(&self) -> bool {
        let stats = self.stats().await;
        let looks = stats["sentinels"]["stats"].as_object().cloned().unwrap_or_default();
        let known = |look: &Value| {
            ["demo-1", "demo-2"].iter().all(|name| {
                let master = &look["sentinel"][name];
                master["slaves"].as_array().is_some_and(|slaves| slaves.len() == 1)
                    && master["master"]["num-other-sentinels"] == "2"
                    && master["slaves"][0]["master-link-status"] == "ok"
            })
        };
        looks.len() == 3 && looks.values().all(known) && stats["sentinels"]["masters"]["2"].is_string()
    }

    pub async fn add_proxy(&mut self) -> usize {
        let proxy = proxy::start(proxy_options()).await.unwrap();
        self.ok(&format!("proxy/online/{X}/{}", proxy.admin_addr)).await;
        self.proxies.push(proxy);
        self.proxies.len() - 1
    }

    pub fn server(&self, index: usize) -> &str {
        &self.servers[index].addr
    }

    pub async fn linked(&self, index: usize) -> bool {
        self.servers[index].info("master_link_status").await == "up"
    }

    pub async fn assign_all(&self) {
        let slots: Vec<_> = (0..1024)
            .map(|id| json!({"id": id, "group_id": 1 + id / 512}))
            .collect();
        let (status, body) = self
            .put_body(&format!("slots/assign/{X}"), &json!(slots).to_string())
            .await;
        assert_eq!((status, &body), (200, &json!("OK")));
    }

    /// Closes a proxy without telling the dashboard, as a crash would.
    pub async fn lose_proxy(&self, index: usize) {
        self.proxies[index].shutdown();
        let addr = self.proxies[index].admin_addr;
        until("the proxy's port is closed", || async {
            tokio::net::TcpStream::connect(addr).await.is_err()
        })
        .await;
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", &self.addr, path, String::new()).await
    }

    /// PUT below `/api/topom/`.
    pub async fn put(&self, path: &str) -> (u16, Value) {
        self.put_body(path, "").await
    }

    pub async fn put_body(&self, path: &str, body: &str) -> (u16, Value) {
        self.send("PUT", &self.addr, &format!("/api/topom/{path}"), body.to_string())
            .await
    }

    pub async fn ok(&self, path: &str) {
        assert_eq!(self.put(path).await, (200, json!("OK")), "{path}");
    }

    /// The cause of a call that must be refused.
    pub async fn refused(&self, path: &str) -> String {
        let (status, body) = self.put(path).await;
        assert_eq!(status, 800, "{path}: {body}");
        body["Cause"].as_str().unwrap_or_default().to_string()
    }

    pub async fn send(&self, method: &str, addr: &str, path: &str, body: String) -> (u16, Value) {
        let request = self
            .http
            .request(method.parse().unwrap(), format!("http://{addr}{path}"));
        let answer = request.body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn stats(&self) -> Value {
        self.get("/topom/stats").await.1
    }

    pub async fn groups(&self) -> Value {
        self.stats().await["group"]["models"].clone()
    }

    pub async fn proxy_stats(&self, index: usize) -> Value {
        self.send(
            "GET",
            &self.proxies[index].admin_addr.to_string(),
            "/proxy/stats",
            String::new(),
        )
        .await
        .1
    }

    pub async fn client(&self, index: usize) -> Connection {
        let addr = self.proxies[index].proxy_addr.to_string();
        Connection::open(&addr, SESSION, Duration::from_secs(10)).await.unwrap()
    }
}

/// Sends words that hold no spaces; an error reply is its text.
pub async fn say(client: &mut Connection, line: &str) -> String {
    match client.command(&line.split(' ').collect::<Vec<_>>()).await {
        Ok(Reply::Bulk(None)) => "(nil)".into(),
        Ok(Reply::Array(Some(items))) => items
            .iter()
            .map(|item| item.text().unwrap_or("(nil)".into()))
            .collect::<Vec<_>>()
            .join(" "),
        Ok(reply) => reply.text().unwrap_or_default(),
        Err(error) => error.to_string(),
    }
}
