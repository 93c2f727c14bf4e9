//! `codis-fe`: lists products, forwards to their dashboards, serves static files (§9).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode, header};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::stop::Stop;
use crate::store::Coordinator;

/// Routes are loaded again after this long at the earliest.
const RELOAD: Duration = Duration::from_secs(5);
/// Connecting to a dashboard (§2).
const DIAL: Duration = Duration::from_secs(10);

/// Where dashboards are found.
#[derive(Debug, Clone)]
pub enum Discovery {
    /// `--dashboard-list`: `[{"name", "dashboard"}]`.
    File(PathBuf),
    /// `--zookeeper`, `--etcd`, `--filesystem`: the lock nodes of all products.
    Store(Coordinator),
}

/// What an fe is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--listen`.
    pub listen: String,
    /// `--assets-dir`; must hold `index.html`.
    pub assets: PathBuf,
    /// Where dashboards are found.
    pub discovery: Discovery,
}

/// A running fe.
#[derive(Debug)]
pub struct Handle {
    /// Where it listens.
    pub addr: SocketAddr,
    stop: Stop,
    task: JoinHandle<()>,
}

impl Handle {
    /// Ends it.
    pub fn shutdown(&self) {
        self.stop.raise();
    }

    /// Ends when it has ended.
    pub async fn wait(self) -> Result<()> {
        self.task.await.context("fe ended")
    }
}

/// An entry of a dashboard list.
#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    dashboard: String,
}

struct Fe {
    options: Options,
    http: reqwest::Client,
    routes: tokio::sync::Mutex<Routes>,
}

#[derive(Default)]
struct Routes {
    loaded: Option<Instant>,
    dashboards: BTreeMap<String, String>,
}

/// Opens the port.
pub async fn start(options: Options) -> Result<Handle> {
    ensure!(
        options.assets.join("index.html").is_file(),
        "no index.html in {}",
        options.assets.display()
    );
    let listener = TcpListener::bind(&options.listen)
        .await
        .with_context(|| format!("listen {}", options.listen))?;
    let addr = listener.local_addr()?;
    let http = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(DIAL)
        .redirect(reqwest::redirect::Policy::none());
    let fe = Arc::new(Fe {
        options,
        http: http.build()?,
        routes: Default::default(),
    });
    let stop = Stop::default();
    let raised = stop.clone();
    let router = Router::new().fallback(answer).with_state(fe);
    let task = tokio::spawn(async move {
        tokio::select! {
            _ = axum::serve(listener, router).into_future() => {}
            () = raised.raised() => {}
        }
    });
    Ok(Handle { addr, stop, task })
}

async fn answer(State(fe): State<Arc<Fe>>, request: Request) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let product = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("forward="))
        .map(str::to_string);
    let path = request.uri().path().to_string();
    match product {
        None if request.method() == Method::GET && path == "/list" => fe.list().await,
        None => fe.asset(&path).unwrap_or_else(|| plain(403, Vec::new())),
        Some(product) => match fe.dashboard(&product).await {
            Some(dashboard) => fe.forward(&dashboard, request).await,
            None => plain(403, Vec::new()),
        },
    }
}

impl Fe {
    /// The products; the only thing that loads routes.
    async fn list(&self) -> Response<Body> {
        let mut routes = self.routes.lock().await;
        if routes.loaded.is_none_or(|loaded| loaded.elapsed() >= RELOAD) {
            match self.discover().await {
                Ok(dashboards) => routes.dashboards = dashboards,
                Err(error) => tracing::warn!("reload routes failed: {error:#}"),
            }
            routes.loaded = Some(Instant::now());
        }
        let names: Vec<_> = routes.dashboards.keys().collect();
        let told = if names.is_empty() {
            Ok(b"null".to_vec())
        } else {
            crate::http::pretty(&names)
        };
        plain(200, told.unwrap_or_default())
    }

    async fn discover(&self) -> Result<BTreeMap<String, String>> {
        let found = match &self.options.discovery {
            Discovery::File(path) => {
                let entries: Vec<Entry> = serde_json::from_slice(&std::fs::read(path)?)?;
                entries
                    .into_iter()
                    .map(|entry| (entry.name, entry.dashboard))
                    .collect::<Vec<_>>()
            }
            Discovery::Store(coordinator) => coordinator.dashboards().await?,
        };
        Ok(found
            .into_iter()
            .filter(|(_, dashboard)| !dashboard.is_empty())
            .collect())
    }

    async fn dashboard(&self, product: &str) -> Option<String> {
        self.routes.lock().await.dashboards.get(product).cloned()
    }

    async fn forward(&self, dashboard: &str, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let mut forwarded = self
            .http
            .request(parts.method, format!("http://{dashboard}{target}"))
            .body(body);
        if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
            forwarded = forwarded.header(header::CONTENT_TYPE, kind);
        }
        let Ok(answered) = forwarded.send().await else {
            return plain(502, Vec::new());
        };
        let status = answered.status();
        let kind = answered.headers().get(header::CONTENT_TYPE).cloned();
        let mut response = Response::new(Body::from(answered.bytes().await.unwrap_or_default()));
        *response.status_mut() = status;
        if let Some(kind) = kind {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    }

    fn asset(&self, path: &str) -> Option<Response<Body>> {
        let inner = path.trim_start_matches('/');
        // Never out of the folder.
        if inner.split('/').any(|part| part == "..") {
            return None;
        }
        let file = self
            .options
            .assets
            .join(if inner.is_empty() { "index.html" } else { inner });
        let text = std::fs::read(&file).ok()?;
        let mut response = plain(200, text);
        if let Ok(kind) = header::HeaderValue::from_str(kind(&file)) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        Some(response)
    }
}

fn kind(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn plain(status: u16, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
