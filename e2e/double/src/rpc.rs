//! Codis as an HTTP client of another Codis process (§2).

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::exchange::{exchange, innermost};
use crate::host;
use crate::timings::Timings;
use crate::wire::{Proxy, RemoteError, Sentinel};

/// Why a call failed, in Codis's words: `[Remote Error] ...` or what the network said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct RpcError(pub String);

/// A client without proxies or retries.
#[derive(Debug, Clone)]
pub struct Rpc {
    /// None on a made-up host.
    http: Option<reqwest::Client>,
    dial: Duration,
    request: Duration,
}

impl Rpc {
    /// A client with the timeouts of Codis, for the host of the current task.
    pub fn new(timings: &Timings) -> Self {
        let real = || {
            let builder = reqwest::Client::builder()
                .no_proxy()
                .connect_timeout(timings.dial)
                .timeout(timings.request);
            builder.build().unwrap_or_default()
        };
        Self {
            http: host::current().is_none().then(real),
            dial: timings.dial,
            request: timings.request,
        }
    }

    /// GET an answer.
    pub async fn get<T: DeserializeOwned>(&self, addr: &str, path: &str) -> Result<T, RpcError> {
        self.call(Method::GET, addr, path, None).await
    }

    /// PUT without a body.
    pub async fn put(&self, addr: &str, path: &str) -> Result<(), RpcError> {
        self.call::<IgnoredAny>(Method::PUT, addr, path, None).await.map(drop)
    }

    /// PUT without a body, for what it answers.
    pub async fn put_for<T: DeserializeOwned>(&self, addr: &str, path: &str) -> Result<T, RpcError> {
        self.call(Method::PUT, addr, path, None).await
    }

    /// PUT a body.
    pub async fn put_json(&self, addr: &str, path: &str, body: &impl Serialize) -> Result<(), RpcError> {
        let body = serde_json::to_vec(body).map_err(|error| RpcError(error.to_string()))?;
        self.put_text(addr, path, body.into()).await
    }

    /// PUT a body that is JSON already.
    pub async fn put_text(&self, addr: &str, path: &str, body: Bytes) -> Result<(), RpcError> {
        let answer = self.call::<IgnoredAny>(Method::PUT, addr, path, Some(body)).await;
        answer.map(drop)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        addr: &str,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<T, RpcError> {
        let (status, answer) = match &self.http {
            Some(http) => over_sockets(http, method, addr, path, body).await?,
            None => self.over_host(method, addr, path, body).await?,
        };
        match status {
            200 => serde_json::from_slice(&answer).map_err(|error| RpcError(error.to_string())),
            800 | 1500 => Err(remote(&answer)),
            other => Err(RpcError(format!("[Remote Error] unexpected status {other}"))),
        }
    }

    async fn over_host(&self, method: Method, addr: &str, path: &str, body: Option<Bytes>) -> Answered {
        let failed = |text: &str| RpcError(format!("dial tcp {addr}: {text}"));
        let mut request = Request::builder().method(&method).uri(path);
        request = match &body {
            Some(_) => request.header(header::CONTENT_TYPE, "application/json"),
            None if method == Method::PUT => request.header(header::CONTENT_LENGTH, "0"),
            None => request,
        };
        let request = request.body(Full::new(body.unwrap_or_default()));
        let request = request.map_err(|error| failed(&error.to_string()))?;
        let answer = tokio::time::timeout(self.request, exchange(addr, request, self.dial)).await;
        let answer = answer.map_err(|_| failed("i/o timeout"))?;
        let answer = answer.map_err(|text| failed(&text))?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }
}

/// Status and body.
type Answered = Result<(u16, Bytes), RpcError>;

async fn over_sockets(http: &reqwest::Client, method: Method, addr: &str, path: &str, body: Option<Bytes>) -> Answered {
    let mut request = http.request(method.clone(), format!("http://{addr}{path}"));
    request = match body {
        Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(body),
        None if method == Method::PUT => request.header(header::CONTENT_LENGTH, "0"),
        None => request,
    };
    let answer = request.send().await.map_err(|error| told(addr, &error))?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await.map_err(|error| told(addr, &error))?;
    Ok((status, body))
}

fn remote(body: &[u8]) -> RpcError {
    let told = serde_json::from_slice::<RemoteError>(body).map(|error| error.cause);
    RpcError(format!("[Remote Error] {}", told.unwrap_or_default()))
}

/// What the network said; never the URL, which holds the xauth.
fn told(addr: &str, error: &reqwest::Error) -> RpcError {
    let text = innermost(error);
    if error.is_timeout() {
        RpcError(format!("dial tcp {addr}: i/o timeout"))
    } else if text.contains("refused") {
        RpcError(format!("dial tcp {addr}: connect: connection refused"))
    } else {
        RpcError(format!("dial tcp {addr}: {text}"))
    }
}

/// The admin API of one proxy (§8.1).
#[derive(Debug, Clone)]
pub struct ProxyClient {
    rpc: Rpc,
    addr: String,
    xauth: String,
}

impl ProxyClient {
    /// A client of the proxy at an admin address.
    pub fn new(rpc: &Rpc, addr: &str, xauth: String) -> Self {
        Self {
            rpc: rpc.clone(),
            addr: addr.to_string(),
            xauth,
        }
    }

    /// Its model; needs no xauth.
    pub async fn model(rpc: &Rpc, addr: &str) -> Result<Proxy, RpcError> {
        rpc.get(addr, "/api/proxy/model").await
    }

    fn path(&self, verb: &str) -> String {
        format!("/api/proxy/{verb}/{}", self.xauth)
    }

    /// Checks the xauth.
    pub async fn xping(&self) -> Result<(), RpcError> {
        self.rpc.get::<String>(&self.addr, &self.path("xping")).await.map(drop)
    }

    /// Its stats, without commands and runtime; `timeout` covers the whole call.
    pub async fn stats(&self, timeout: Duration) -> Option<Result<serde_json::Value, RpcError>> {
        let path = self.path("stats");
        tokio::time::timeout(timeout, self.rpc.get(&self.addr, &path))
            .await
            .ok()
    }

    /// Replaces slots; they are JSON already.
    pub async fn fill_slots(&self, slots: Bytes) -> Result<(), RpcError> {
        self.rpc.put_text(&self.addr, &self.path("fillslots"), slots).await
    }

    /// Goes online.
    pub async fn start(&self) -> Result<(), RpcError> {
        self.rpc.put(&self.addr, &self.path("start")).await
    }

    /// Ends the process.
    pub async fn shutdown(&self) -> Result<(), RpcError> {
        self.rpc.put(&self.addr, &self.path("shutdown")).await
    }

    /// Replaces the watched sentinels.
    pub async fn set_sentinels(&self, sentinels: &Sentinel) -> Result<(), RpcError> {
        self.rpc.put_json(&self.addr, &self.path("sentinels"), sentinels).await
    }
}
