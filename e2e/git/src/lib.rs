//! A real Git server over HTTP for tests: git's own `git http-backend` as a CGI program.
//!
//! Everything under `/<name>.git/` is git's business, protocol v2 and pushes included. In front of it are Basic
//! authentication, counters, and faults that can be switched while it runs: by [`GitServer::set_fault`], or from
//! elsewhere by `POST /-/fault/<repository or all>/<fault>`. That endpoint is always there and asks for no password:
//! this server is for tests only. It needs `git` on the PATH.

mod cgi;
mod fault;
mod worktree;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::StreamExt;
use tokio::{net::TcpListener, task::AbortHandle};

pub use self::{fault::Fault, worktree::WorkTree};

/// The most that a request's body may hold: a push of a test's history.
const MAX_REQUEST: usize = 256 << 20;

/// In place of a repository's name: every repository.
pub const ALL: &str = "all";

/// What a server asks for.
#[derive(Clone, Default)]
pub struct Options {
    /// User and password that every request to a repository must have.
    pub basic_auth: Option<(String, String)>,
    /// The token that every request to a repository must have as `Authorization: Bearer`.
    pub bearer_token: Option<String>,
}

/// A server that ends when this is dropped.
pub struct GitServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: AbortHandle,
}

pub(crate) struct Shared {
    root: PathBuf,
    /// What the header `Authorization` must be, one of them.
    authorizations: BTreeSet<String>,
    faults: Mutex<BTreeMap<String, Fault>>,
    requests: AtomicU64,
    bytes_sent: AtomicU64,
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl GitServer {
    /// Serves the repositories `<root>/<name>.git` on `listen`; port 0 takes a free one.
    ///
    /// # Errors
    /// When it can't listen there.
    pub async fn start(listen: &str, root: &Path, options: Options) -> io::Result<Self> {
        let basic = options
            .basic_auth
            .map(|(user, password)| format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))));
        let bearer = options.bearer_token.map(|token| format!("Bearer {token}"));
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            authorizations: basic.into_iter().chain(bearer).collect(),
            faults: Mutex::default(),
            requests: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
        });
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(any(answer)).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // It fails only if it can't listen any more; then requests fail, and tests with them.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            shared,
            address,
            task: task.abort_handle(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a repository on this server.
    #[must_use]
    pub fn url(&self, repository: &str) -> String {
        format!("http://{}/{repository}.git", self.address)
    }

    /// From now on requests to this repository, or to [`ALL`], fail like this. [`Fault::None`] ends it.
    pub fn set_fault(&self, repository: &str, fault: Fault) {
        self.shared.set_fault(repository, fault);
    }

    /// How many requests there have been, those that failed included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many bytes of bodies have been sent.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn set_fault(&self, repository: &str, fault: Fault) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.insert(repository.to_owned(), fault);
    }

    fn fault(&self, repository: &str) -> Fault {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |name: &str| faults.get(name).cloned().filter(|fault| *fault != Fault::None);
        of(repository).or_else(|| of(ALL)).unwrap_or_default()
    }

    fn authorized(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        self.authorizations.is_empty() || given.is_some_and(|given| self.authorizations.contains(given))
    }
}

/// Makes the bare repository `<root>/<name>.git` unless it's there, with `main` as its branch; whoever pushes may do anything.
///
/// # Errors
/// When git can't be started or fails.
pub fn create_repository(root: &Path, name: &str) -> io::Result<PathBuf> {
    let path = root.join(format!("{name}.git"));
    if !path.join("HEAD").exists() {
        std::fs::create_dir_all(&path)?;
        let text = path.display().to_string();
        worktree::run(Command::new("git").args(["init", "--quiet", "--bare", "-b", "main", &text]))?;
        for (key, value) in [("http.receivepack", "true"), ("receive.denyDeleteCurrent", "ignore")] {
            worktree::run(Command::new("git").args(["-C", &text, "config", key, value]))?;
        }
    }
    Ok(path)
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if let Some(rest) = request.uri().path().strip_prefix("/-/") {
        return control(&shared, request.method(), rest);
    }
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let path = request.uri().path().trim_start_matches('/');
    let Some((repository, _)) = path.split_once(".git/") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let fault = shared.fault(repository);
    if !shared.authorized(request.headers()) {
        return (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")],
        )
            .into_response();
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_REQUEST).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let response = fault::answer(&shared, &fault, &parts, body).await;
    counted(shared, response)
}

/// `POST /-/fault/<repository>/<fault>` and `GET /-/healthz`.
fn control(shared: &Shared, method: &Method, path: &str) -> Response {
    let segments: Vec<&str> = path.split('/').collect();
    match (method, segments.as_slice()) {
        (&Method::GET, ["healthz"]) => "ok\n".into_response(),
        (&Method::POST, ["fault", repository, name]) => match name.parse() {
            Ok(fault) => {
                shared.set_fault(repository, fault);
                "ok\n".into_response()
            }
            Err(text) => (StatusCode::BAD_REQUEST, format!("{text}\n")).into_response(),
        },
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The response, its body counted as it goes out.
fn counted(shared: Arc<Shared>, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let stream = body.into_data_stream().inspect(move |chunk| {
        let length = chunk.as_ref().map_or(0, Bytes::len);
        shared.bytes_sent.fetch_add(length as u64, Ordering::Relaxed);
    });
    Response::from_parts(parts, Body::from_stream(stream))
}
