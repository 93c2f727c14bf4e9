//! The dashboard's entry script as a kubelet would run it: with the files of the Secret, the stand-in for Codis and a real
//! etcd.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write as _},
    net::TcpListener,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Debian's, by its path: others on PATH may be too new to serve the v2 API.
const ETCD: &str = "/usr/bin/etcd";
/// Seconds; nobody needs a server for longer, not even a test that was killed.
const LIFETIME: &str = "600";
/// On a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("codis-dashboard-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process group that is killed with its owner.
struct Group(Child);

impl Group {
    fn spawn(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.process_group(0).spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} -{}", self.0.id());
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.0.wait();
    }
}

/// An etcd that serves the v2 API.
pub struct Etcd {
    pub addr: String,
    _server: Group,
    _folder: Folder,
}

impl Etcd {
    /// `None`, said loudly, when there is none on this machine.
    ///
    /// # Panics
    /// When it doesn't start, or isn't there although REQUIRE_COORDINATORS=1.
    pub async fn start() -> Option<Self> {
        if !Path::new(ETCD).exists() {
            assert!(
                env::var("REQUIRE_COORDINATORS").as_deref() != Ok("1"),
                "REQUIRE_COORDINATORS=1, but there is no {ETCD}"
            );
            // Not eprintln!, which the test runner swallows.
            writeln!(io::stderr(), "tier etcd: SKIPPED (there is no {ETCD})").ok();
            return None;
        }
        let (folder, addr) = (Folder::new(), format!("127.0.0.1:{}", free_port()));
        let url = format!("http://{addr}");
        let mut command = Command::new("timeout");
        command
            .args(["--signal=KILL", LIFETIME, ETCD, "--enable-v2", "--data-dir"])
            .arg(folder.0.join("etcd"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", free_port())]);
        let etcd = Self {
            addr,
            _server: Group::spawn(&mut command),
            _folder: folder,
        };
        until("etcd answers", || async { get(&etcd.addr, "/version").await.is_some() }).await;
        Some(etcd)
    }

    /// Everything in it, with the revision of each node's last write.
    pub async fn dump(&self) -> Value {
        let text = get(&self.addr, "/v2/keys/?recursive=true&sorted=true").await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The dashboard that holds a product's lock.
    pub async fn holder(&self, product: &str) -> Option<String> {
        let text = get(&self.addr, &format!("/v2/keys/codis3/{product}/topom")).await?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        let topom: Value = serde_json::from_str(answer["node"]["value"].as_str()?).ok()?;
        topom["admin_addr"].as_str().map(str::to_owned)
    }
}

/// A dashboard's pod: what the kubelet gives its container.
pub struct DashboardPod {
    folder: Folder,
    script: String,
    environment: BTreeMap<String, String>,
    addr: String,
}

/// A dashboard that runs.
pub struct Dashboard {
    process: Group,
    addr: String,
}

impl DashboardPod {
    /// A pod with these files in its Secret. Its dashboard listens at `addr`, which needn't be its pod's own.
    pub fn new(files: &BTreeMap<String, String>, environment: &BTreeMap<String, String>, addr: &str) -> Self {
        let folder = Folder::new();
        for name in ["secret", "data", "bin"] {
            fs::create_dir_all(folder.0.join(name)).unwrap();
        }
        for name in ["codis-dashboard", "codis-admin"] {
            symlink(stand_in(), folder.0.join("bin").join(name)).unwrap();
        }
        let pod = Self {
            folder,
            script: files["dashboard.sh"].clone(),
            environment: environment.clone(),
            addr: addr.to_owned(),
        };
        for (name, text) in files {
            pod.file(name, &text.replace("0.0.0.0:18080", addr));
        }
        pod
    }

    /// A pod with the files that matter here: `address` is the lock's.
    pub fn with_address(etcd: &Etcd, product: &str, address: &str) -> Self {
        let toml = format!(
            "product_name = \"{product}\"\ncoordinator_name = \"etcd\"\ncoordinator_addr = \"{}\"\nadmin_addr = \"0.0.0.0:18080\"\n",
            etcd.addr
        );
        let files = [
            ("dashboard.sh", include_str!("../../src/build/scripts/dashboard.sh")),
            ("dashboard.toml", &toml),
            ("lock-address", address),
            ("product-claimed", ""),
        ];
        let environment = [
            ("PRODUCT_NAME", product),
            ("COORDINATOR", "etcd"),
            ("COORDINATOR_ADDR", &etcd.addr),
            ("NCPU", "1"),
        ];
        let owned = |all: [(&str, &str); 4]| all.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self::new(
            &owned(files),
            &owned(environment),
            &format!("127.0.0.1:{}", free_port()),
        )
    }

    /// Writes a file of the Secret.
    pub fn file(&self, name: &str, text: &str) {
        fs::write(self.folder.0.join("secret").join(name), text).unwrap();
    }

    /// The container's last word.
    pub fn termination_message(&self) -> String {
        fs::read_to_string(self.folder.0.join("termination-log")).unwrap_or_default()
    }

    /// Runs a container whose script doesn't start the dashboard. Its last word.
    pub fn refused(&self) -> String {
        let ended = self
            .command("timeout", &["--signal=KILL", "60", "sh"])
            .status()
            .unwrap();
        assert_eq!(ended.code(), Some(1), "{}", self.termination_message());
        self.termination_message()
    }

    /// Starts a container, and waits until its dashboard holds its lock.
    pub async fn start(&self) -> Dashboard {
        let _ = fs::remove_file(self.folder.0.join("termination-log"));
        let dashboard = Dashboard {
            process: Group::spawn(&mut self.command("sh", &[])),
            addr: self.addr.clone(),
        };
        until("the dashboard holds its lock", || async {
            let refused = self.termination_message();
            assert_eq!(refused, "");
            get(&self.addr, "/topom").await.is_some()
        })
        .await;
        dashboard
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let at = |path: &str| self.folder.0.join(path).display().to_string();
        let script = self
            .script
            .replace("/etc/codis", &at("secret"))
            .replace("data=/data", &format!("data={}", at("data")))
            .replace("/dev/termination-log", &at("termination-log"));
        let path = format!("{}:{}", at("bin"), env::var("PATH").unwrap());
        let mut command = Command::new(program);
        command.args(arguments).args(["-c", &script]).env("PATH", path);
        command
            .envs(&self.environment)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Dashboard {
    /// Creates a group, by the dashboard's API.
    pub async fn create_group(&self, product: &str, group: u16) {
        let xauth = codis_operator::codis::xauth(&[product]);
        let url = format!("http://{}/api/topom/group/create/{xauth}/{group}", self.addr);
        let answer = client().put(url).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
    }

    /// Ends as at the end of a pod: it gives its lock back.
    pub fn stop(mut self) {
        self.process.signal("TERM");
        assert!(self.process.0.wait().unwrap().success());
    }

    /// Ends without a chance to give its lock back.
    pub fn kill(self) {
        drop(self.process);
    }
}

/// The stand-in for Codis. Cargo builds it with the whole workspace, so for `make test`; else it is built here.
fn stand_in() -> &'static Path {
    static STAND_IN: OnceLock<PathBuf> = OnceLock::new();
    STAND_IN.get_or_init(|| {
        let program = env::current_exe().unwrap();
        let path = program.parent().unwrap().parent().unwrap().join("codis-double");
        if !path.exists() {
            let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args([
                "build",
                "--quiet",
                "--locked",
                "-p",
                "codis-double",
                "--bin",
                "codis-double",
            ]);
            assert!(
                cargo
                    .current_dir(env!("CARGO_MANIFEST_DIR"))
                    .status()
                    .unwrap()
                    .success()
            );
        }
        path
    })
}

fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10));
    client.build().unwrap()
}

/// What is answered with 200: a dashboard without its lock says 800.
async fn get(addr: &str, path: &str) -> Option<String> {
    let answer = client().get(format!("http://{addr}{path}")).send().await.ok()?;
    let is_good = answer.status().as_u16() == 200;
    if is_good { answer.text().await.ok() } else { None }
}

async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let end = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < end, "waited in vain until {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
