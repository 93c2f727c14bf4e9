//! A real API server for tests: etcd and kube-apiserver on loopback, one per test binary.
//!
//! Nothing else runs: no controllers, no scheduler, no garbage collector. Every request is in the audit log, so a test
//! can count what was sent.

use std::{
    env, fs,
    io::{self, Write as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use axum::http::Request;
use codis_operator::api::{CodisCluster, CodisGitSource};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, CustomResourceExt,
    api::{ObjectMeta, PostParams},
    config::AuthInfo,
    runtime::{conditions, wait::await_condition},
};
use serde::Deserialize;
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep, timeout},
};

/// How long the server may take to start on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Where the Services of each server are.
const SERVICES: [&str; 2] = ["10.96.0.0/16", "127.96.0.0/16"];

/// Who asks: the audit log tells them apart. All may do everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The test itself.
    Admin,
    /// What is tested.
    Operator,
}

impl User {
    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }
}

/// One request of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// get, list, create, patch, …
    pub verb: String,
    /// Like `services` or `codisclusters/status`.
    pub resource: String,
    /// The object's name, if the request names one.
    pub name: String,
    /// The path and query, which tell the field manager and whether nothing was to be changed.
    pub uri: String,
    /// The answer's status; none while there is no answer.
    pub code: Option<u16>,
}

/// A running API server with the CRDs installed. When the test binary ends, however it ends, the processes end too.
pub struct ApiServer {
    url: String,
    directory: PathBuf,
    namespaces: AtomicU32,
    // Their standard inputs are the leash: see `leashed`.
    _etcd: Child,
    _apiserver: Child,
}

/// The server of this test binary, or `None`, said loudly, when its binaries aren't there.
///
/// # Panics
/// When it doesn't start, or isn't there although REQUIRE_APISERVER=1.
pub async fn server() -> Option<&'static ApiServer> {
    nth_server(0).await
}

/// The server of another Kubernetes. Its Services have loopback addresses: a test can be what is behind them.
#[allow(dead_code, reason = "most test binaries need one")]
pub async fn other_server() -> Option<&'static ApiServer> {
    nth_server(1).await
}

async fn nth_server(number: usize) -> Option<&'static ApiServer> {
    static SERVERS: [OnceCell<Option<ApiServer>>; 2] = [OnceCell::const_new(), OnceCell::const_new()];
    let server = SERVERS[number].get_or_init(|| async {
        match binaries() {
            Ok(binaries) => Some(ApiServer::start(&binaries, number).await),
            Err(why) if env::var("REQUIRE_APISERVER").as_deref() == Ok("1") => panic!("tier apiserver: {why}"),
            Err(why) => {
                // Not eprintln!, which the test runner swallows.
                writeln!(io::stderr(), "tier apiserver: SKIPPED ({why})").ok();
                None
            }
        }
    });
    server.await.as_ref()
}

/// The directory that has the programs.
fn binaries() -> Result<PathBuf, String> {
    let from = |variable: &str| env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    let candidates: Vec<PathBuf> = [
        from("KUBEBUILDER_ASSETS"),
        from("LAB_CACHE").map(|cache| cache.join("bin")),
        from("HOME").map(|home| home.join(".cache/codis-lab/bin")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let complete = |dir: &&PathBuf| {
        ["etcd", "kube-apiserver"]
            .iter()
            .all(|program| dir.join(program).is_file())
    };
    candidates
        .iter()
        .find(complete)
        .cloned()
        .ok_or_else(|| format!("no etcd and kube-apiserver in {candidates:?}"))
}

impl ApiServer {
    async fn start(binaries: &Path, number: usize) -> Self {
        // Between finding a free port and using it, another process may take it: then a second try helps.
        for attempt in 1.. {
            match Self::try_start(binaries, number, attempt).await {
                Ok(server) => return server,
                Err(why) if attempt == 3 => panic!("the API server doesn't start: {why}"),
                Err(why) => eprintln!("tier apiserver: try {attempt}: {why}"),
            }
        }
        unreachable!("the loop returns or panics")
    }

    async fn try_start(binaries: &Path, number: usize, attempt: u32) -> Result<Self, String> {
        let directory = env::temp_dir().join(format!("codis-apiserver-{}-{number}-{attempt}", std::process::id()));
        fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        write_files(&directory)?;
        let (client_port, peer_port, port) = (free_port(), free_port(), free_port());
        let etcd = leashed(
            &directory,
            "etcd",
            &binaries.join("etcd"),
            &etcd_flags(&directory, client_port, peer_port),
        )?;
        let flags = apiserver_flags(&directory, client_port, port, SERVICES[number]);
        let apiserver = leashed(&directory, "apiserver", &binaries.join("kube-apiserver"), &flags)?;
        let mut server = Self {
            url: format!("https://127.0.0.1:{port}"),
            directory,
            namespaces: AtomicU32::new(0),
            _etcd: etcd,
            _apiserver: apiserver,
        };
        server.wait_until_ready().await?;
        server.install_crds().await?;
        server.wait_for_its_own_namespace().await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> Result<(), String> {
        let (client, end) = (self.client(User::Admin), Instant::now() + START_LIMIT);
        loop {
            let request = Request::get("/readyz")
                .body(Vec::new())
                .map_err(|error| error.to_string())?;
            let answer = timeout(Duration::from_secs(5), client.request_text(request)).await;
            if matches!(&answer, Ok(Ok(text)) if text == "ok") {
                return Ok(());
            }
            for (name, child) in [("etcd", &mut self._etcd), ("apiserver", &mut self._apiserver)] {
                if child.try_wait().is_ok_and(|exited| exited.is_some()) {
                    let log = fs::read_to_string(self.directory.join(format!("{name}.log"))).unwrap_or_default();
                    let tail: Vec<&str> = log.lines().rev().take(5).collect();
                    return Err(format!("{name} ended: {tail:#?}"));
                }
            }
            if Instant::now() > end {
                return Err(format!("not ready after {START_LIMIT:?}: {answer:?}"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn install_crds(&self) -> Result<(), String> {
        let api = Api::<CustomResourceDefinition>::all(self.client(User::Admin));
        for crd in [CodisCluster::crd(), CodisGitSource::crd()] {
            let name = crd.metadata.name.clone().unwrap_or_default();
            api.create(&PostParams::default(), &crd)
                .await
                .map_err(|error| format!("the CRD {name} is refused: {error}"))?;
            let established = await_condition(api.clone(), &name, conditions::is_crd_established());
            let done = timeout(Duration::from_secs(30), established).await;
            done.map_err(|_| format!("the CRD {name} isn't established"))?
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// It makes kube-system itself, a moment after it is ready.
    async fn wait_for_its_own_namespace(&self) -> Result<(), String> {
        let api = Api::<Namespace>::all(self.client(User::Admin));
        let exists = await_condition(api, "kube-system", |found: Option<&Namespace>| found.is_some());
        let waited = timeout(Duration::from_secs(30), exists).await;
        waited
            .map_err(|_| "there is no kube-system".to_owned())?
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// A kubeconfig for programs of their own.
    #[allow(dead_code, reason = "not every test binary starts programs")]
    pub fn kubeconfig(&self, user: User) -> PathBuf {
        let path = self.directory.join(format!("kubeconfig-{}", user.name()));
        let text = format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{{"name": "test", "context": {{"cluster": "test", "user": "test"}}}}],
            "clusters": [{{"name": "test", "cluster": {{"server": "{}", "insecure-skip-tls-verify": true}}}}],
            "users": [{{"name": "test", "user": {{"token": "{}"}}}}]}}"#,
            self.url,
            user.name()
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// A client of one's own: connections belong to the runtime of the test that made them.
    pub fn client(&self, user: User) -> Client {
        let mut config = Config::new(self.url.parse().unwrap());
        config.accept_invalid_certs = true;
        config.default_retry = false;
        config.auth_info = AuthInfo {
            token: Some(user.name().to_owned().into()),
            ..AuthInfo::default()
        };
        Client::try_from(config).unwrap()
    }

    /// A new, empty namespace.
    pub async fn namespace(&self) -> String {
        let name = format!("test-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        self.create_namespace(&name).await;
        name
    }

    /// A new, empty namespace of this name.
    pub async fn create_namespace(&self, name: &str) {
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(self.client(User::Admin))
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }

    /// Every request so far of a user about a namespace. A request is logged before it is served, so whatever was
    /// answered is here.
    pub fn requests(&self, user: User, namespace: &str) -> Vec<Logged> {
        let mut all = self.logged(user, namespace);
        all.retain(|request| request.code.is_none());
        all
    }

    /// Those that were served: one whose client is gone before it was is dropped by the server.
    #[allow(dead_code, reason = "not every test binary kills clients")]
    pub fn served(&self, user: User, namespace: &str) -> Vec<Logged> {
        let mut all = self.logged(user, namespace);
        all.retain(|request| request.code.is_some_and(|code| (200..300).contains(&code)));
        all
    }

    fn logged(&self, user: User, namespace: &str) -> Vec<Logged> {
        let log = fs::read_to_string(self.directory.join("audit.log")).unwrap();
        // The last line may be half written.
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<AuditLine>(line).ok());
        lines.filter_map(|line| line.of(user, namespace)).collect()
    }

    /// Every request so far that wanted to change something.
    #[allow(dead_code, reason = "not every test binary counts all writes")]
    pub fn writes(&self, user: User, namespace: &str) -> Vec<Logged> {
        let mut requests = self.requests(user, namespace);
        requests.retain(|request| !matches!(request.verb.as_str(), "get" | "list" | "watch"));
        requests
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuditLine {
    verb: String,
    user: AuditUser,
    object_ref: Option<AuditObject>,
    #[serde(rename = "requestURI", default)]
    uri: String,
    response_status: Option<AuditResponse>,
}

#[derive(Deserialize)]
struct AuditResponse {
    code: u16,
}

#[derive(Deserialize)]
struct AuditUser {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuditObject {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

impl AuditLine {
    fn of(self, user: User, namespace: &str) -> Option<Logged> {
        let object = self.object_ref?;
        let wanted = self.user.username == user.name() && object.namespace == namespace;
        let resource = match object.subresource.as_str() {
            "" => object.resource,
            sub => format!("{}/{sub}", object.resource),
        };
        wanted.then_some(Logged {
            verb: self.verb,
            resource,
            name: object.name,
            uri: self.uri,
            code: self.response_status.map(|response| response.code),
        })
    }
}

/// Tokens, the audit policy, and a key to sign service accounts' tokens with.
fn write_files(directory: &Path) -> Result<(), String> {
    let tokens = "admin,admin,admin,system:masters\noperator,operator,operator,system:masters\n";
    let policy = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}],
        "omitStages": ["ResponseStarted", "Panic"]}"#;
    for (name, text) in [("tokens.csv", tokens), ("audit-policy.json", policy)] {
        fs::write(directory.join(name), text).map_err(|error| format!("{name}: {error}"))?;
    }
    let key = directory.join("service-accounts.key");
    let made = Command::new("openssl")
        .args(["genrsa", "-out"])
        .arg(key)
        .arg("2048")
        .stderr(Stdio::null())
        .status();
    match made {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("openssl genrsa: {other:?}")),
    }
}

fn etcd_flags(directory: &Path, client_port: u16, peer_port: u16) -> Vec<String> {
    let peer = format!("http://127.0.0.1:{peer_port}");
    vec![
        format!("--data-dir={}", directory.join("etcd").display()),
        format!("--listen-client-urls=http://127.0.0.1:{client_port}"),
        format!("--advertise-client-urls=http://127.0.0.1:{client_port}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn apiserver_flags(directory: &Path, etcd_port: u16, port: u16, services: &str) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", file("certificates")),
        format!("--service-account-key-file={}", file("service-accounts.key")),
        format!("--service-account-signing-key-file={}", file("service-accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-cluster-ip-range={services}"),
        // Nobody makes the service accounts that this would ask for.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        format!("--token-auth-file={}", file("tokens.csv")),
        format!("--audit-policy-file={}", file("audit-policy.json")),
        format!("--audit-log-path={}", file("audit.log")),
        "--audit-log-mode=blocking".to_owned(),
    ]
}

/// Starts a program that ends when this process does. A static is never dropped and a killed process runs no code, so
/// the leash is a pipe: the shell waits until it closes, kills the program, and removes the directory.
fn leashed(directory: &Path, name: &str, program: &Path, flags: &[String]) -> Result<Child, String> {
    let script = r#"exec 3<&0; directory=$1 log=$2; shift 2
        "$@" >"$log" 2>&1 </dev/null 3<&- & program=$!
        { cat; kill -9 $program; rm -rf "$directory"; } <&3 >/dev/null 2>&1 &
        wait $program"#;
    let log = directory.join(format!("{name}.log"));
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .arg(directory)
        .arg(log)
        .arg(program)
        .args(flags);
    // A group of its own: an interrupt from the keyboard must not end the shell before it cleaned up.
    command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().map_err(|error| format!("{name}: {error}"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
