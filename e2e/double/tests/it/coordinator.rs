//! Coordinators for tests: a folder, and real etcd and zookeeper servers on loopback.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use codis_double::dashboard;
use zookeeper_client::Client;

use crate::support::{Folder, Process, World, dashboard_options, free_port, until};

/// Debian's, by its path: others on PATH may be too new to serve the v2 API.
const ETCD: &str = "/usr/bin/etcd";
/// Debian's; its manifest names all that it needs.
const ZOOKEEPER: &str = "/usr/share/java/zookeeper.jar";
/// Seconds; nobody needs a server for longer, not even a test that was killed.
const LIFETIME: &str = "600";

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Filesystem,
    Etcd,
    Zookeeper,
}

impl Kind {
    /// The coordinators whose server is installed; says loudly which is not, and fails when it must be.
    pub fn all() -> Vec<Self> {
        let mut kinds = vec![Self::Filesystem];
        kinds.extend(Self::servers());
        kinds
    }

    /// Those that are servers.
    pub fn servers() -> Vec<Self> {
        [Self::Etcd, Self::Zookeeper]
            .into_iter()
            .filter(|kind| kind.is_here())
            .collect()
    }

    /// Whether this one can be tested.
    pub fn is_here(self) -> bool {
        let needed = match self {
            Self::Filesystem => return true,
            Self::Etcd => ETCD,
            Self::Zookeeper => ZOOKEEPER,
        };
        let here = Path::new(needed).exists() && (self == Self::Etcd || java_is_here());
        if !here {
            assert!(
                std::env::var("REQUIRE_COORDINATORS").as_deref() != Ok("1"),
                "REQUIRE_COORDINATORS=1, but no {needed} or nothing to run it with"
            );
            eprintln!("\n!!!!!! SKIPPED: no {needed}, the {self:?} tier of this test did not run !!!!!!\n");
        }
        here
    }

    /// `coordinator_name`, and the flag.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::Etcd => "etcd",
            Self::Zookeeper => "zookeeper",
        }
    }
}

fn java_is_here() -> bool {
    let java = Command::new("java").arg("-version").stderr(Stdio::null()).status();
    java.is_ok_and(|status| status.success())
}

/// A server and what bounds its time, in a process group of their own: killing only the latter spares the former.
struct Server(Process);

impl Server {
    fn spawn(command: &mut Command) -> Self {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(Process::spawn(quiet.process_group(0)))
    }

    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} -{}", self.0.0.id());
        let _ = Command::new("sh").args(["-c", &kill]).status();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

/// A coordinator.
pub struct Coordinator {
    pub kind: Kind,
    pub addr: String,
    server: Option<Server>,
    folder: Folder,
}

impl Coordinator {
    pub async fn start(kind: Kind) -> Self {
        let folder = Folder::new();
        let addr = match kind {
            Kind::Filesystem => folder.0.display().to_string(),
            Kind::Etcd | Kind::Zookeeper => format!("127.0.0.1:{}", free_port()),
        };
        let mut coordinator = Self {
            kind,
            addr,
            server: None,
            folder,
        };
        coordinator.restart().await;
        coordinator
    }

    /// Stops the server as a crash would; what it has said is stored stays.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// It keeps its connections and answers nothing.
    pub fn freeze(&self) {
        self.server.iter().for_each(|server| server.signal("STOP"));
    }

    pub fn thaw(&self) {
        self.server.iter().for_each(|server| server.signal("CONT"));
    }

    /// Starts the server, again if it was stopped.
    pub async fn restart(&mut self) {
        let mut command = match self.kind {
            Kind::Filesystem => return,
            Kind::Etcd => self.etcd(),
            Kind::Zookeeper => self.zookeeper(),
        };
        self.server = Some(Server::spawn(&mut command));
        until("the coordinator answers", || self.answers()).await;
    }

    fn etcd(&self) -> Command {
        let url = format!("http://{}", self.addr);
        let mut command = bounded(ETCD);
        command
            .args(["--enable-v2", "--data-dir"])
            .arg(self.folder.0.join("etcd"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", free_port())]);
        command
    }

    fn zookeeper(&self) -> Command {
        let port = self.addr.rsplit_once(':').unwrap().1;
        // A short tick allows for short sessions, and a server that syncs every write is slow on this disk.
        let config = format!(
            "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
             forceSync=no\n",
            self.folder.0.join("zookeeper").display()
        );
        let config = self.folder.file("zoo.cfg", &config);
        let mut command = bounded("java");
        command
            .args(["-Xmx64m", "-cp", ZOOKEEPER])
            .args(["org.apache.zookeeper.server.quorum.QuorumPeerMain", &config]);
        command
    }

    async fn answers(&self) -> bool {
        match self.kind {
            Kind::Filesystem => true,
            Kind::Etcd => etcd_get(&self.addr, "/version").await.is_some(),
            Kind::Zookeeper => Client::connector()
                .with_fail_eagerly()
                .connect(&self.addr)
                .await
                .is_ok(),
        }
    }

    /// What a node holds, asked of the server without the code under test.
    pub async fn text(&self, path: &str) -> Option<String> {
        match self.kind {
            Kind::Filesystem => std::fs::read_to_string(format!("{}/data{path}", self.addr)).ok(),
            Kind::Etcd => {
                let answer = etcd_get(&self.addr, &format!("/v2/keys{path}")).await?;
                let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
                answer["node"]["value"].as_str().map(str::to_string)
            }
            Kind::Zookeeper => {
                let client = Client::connector().with_fail_eagerly().connect(&self.addr).await.ok()?;
                let (text, _) = client.get_data(path).await.ok()?;
                Some(String::from_utf8(text).unwrap())
            }
        }
    }

    /// Options of a dashboard that uses it.
    pub fn options(&self) -> dashboard::Options {
        let mut options = dashboard_options(&self.folder.0);
        options.config.coordinator_name = self.kind.name().into();
        options.config.coordinator_addr.clone_from(&self.addr);
        options
    }

    /// `--etcd=127.0.0.1:2379`.
    pub fn flag(&self) -> String {
        format!("--{}={}", self.kind.name(), self.addr)
    }

    /// A dashboard that uses it.
    pub async fn world(&self) -> World {
        World::with(self.options(), Folder::new()).await
    }
}

/// A command that ends on its own one day.
fn bounded(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", LIFETIME, program]);
    command
}

async fn etcd_get(addr: &str, path: &str) -> Option<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5));
    let answer = client
        .build()
        .unwrap()
        .get(format!("http://{addr}{path}"))
        .send()
        .await
        .ok()?;
    answer.error_for_status().ok()?.text().await.ok()
}
