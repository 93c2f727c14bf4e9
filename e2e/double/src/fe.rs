//! `codis-fe`: lists products, forwards to their dashboards, serves static files (§9).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::exchange::exchange;
use crate::host;
use crate::http::{pretty, serve_with, whole};
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
    /// None on a made-up host.
    http: Option<reqwest::Client>,
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
        host::read(&options.assets.join("index.html").to_string_lossy()).is_ok(),
        "no index.html in {}",
        options.assets.display()
    );
    let listener = host::listen(&options.listen)
        .await
        .with_context(|| format!("listen {}", options.listen))?;
    let addr = listener.local();
    let http = match host::current() {
        None => {
            let builder = reqwest::Client::builder().no_proxy().connect_timeout(DIAL);
            Some(builder.redirect(reqwest::redirect::Policy::none()).build()?)
        }
        Some(_) => None,
    };
    let fe = Arc::new(Fe {
        options,
        http,
        routes: Default::default(),
    });
    let stop = Stop::default();
    let task = serve_with(listener, stop.clone(), move |_, request| answer(fe.clone(), request));
    Ok(Handle { addr, stop, task })
}

type Answer = Response<Full<Bytes>>;

async fn answer(fe: Arc<Fe>, request: Request<Incoming>) -> Answer {
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
    async fn list(&self) -> Answer {
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
            pretty(&names)
        };
        plain(200, told.unwrap_or_default())
    }

    async fn discover(&self) -> Result<BTreeMap<String, String>> {
        let found = match &self.options.discovery {
            Discovery::File(path) => {
                let entries: Vec<Entry> = serde_json::from_slice(&host::read(&path.to_string_lossy())?)?;
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

    async fn forward(&self, dashboard: &str, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut forwarded = Request::builder().method(parts.method);
        if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
            forwarded = forwarded.header(header::CONTENT_TYPE, kind);
        }
        let Some(answered) = self.ask(dashboard, target, forwarded, whole(body).await).await else {
            return plain(502, Vec::new());
        };
        let mut response = Response::new(Full::from(answered.body().clone()));
        *response.status_mut() = answered.status();
        if let Some(kind) = answered.headers().get(header::CONTENT_TYPE) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
        }
        response
    }

    async fn ask(
        &self,
        dashboard: &str,
        target: &str,
        request: http::request::Builder,
        body: Bytes,
    ) -> Option<Response<Bytes>> {
        let Some(http) = &self.http else {
            let request = request.uri(target).body(Full::from(body)).ok()?;
            return exchange(dashboard, request, DIAL).await.ok();
        };
        let request = request.uri(format!("http://{dashboard}{target}")).body(body).ok()?;
        let answered = http.execute(request.try_into().ok()?).await.ok()?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = answered.status();
        *response.headers_mut() = answered.headers().clone();
        *response.body_mut() = answered.bytes().await.unwrap_or_default();
        Some(response)
    }

    fn asset(&self, path: &str) -> Option<Answer> {
        let inner = path.trim_start_matches('/');
        // Never out of the folder.
        if inner.split('/').any(|part| part == "..") {
            return None;
        }
        let file = self
            .options
            .assets
            .join(if inner.is_empty() { "index.html" } else { inner });
        let text = host::read(&file.to_string_lossy()).ok()?;
        let mut response = plain(200, text);
        if let Ok(kind) = HeaderValue::from_str(kind(&file)) {
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

fn plain(status: u16, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
