//! Codis as an HTTP client of another Codis process (§2).

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::timings::Timings;
use crate::wire::{Proxy, RemoteError, Sentinel, Slot};

/// Why a call failed, in Codis's words: `[Remote Error] ...` or what the network said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct RpcError(pub String);

/// A client without proxies or retries.
#[derive(Debug, Clone)]
pub struct Rpc {
    http: reqwest::Client,
}

impl Rpc {
    /// A client with the timeouts of Codis.
    pub fn new(timings: &Timings) -> Self {
        let builder = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(timings.dial)
            .timeout(timings.request);
        Self {
            http: builder.build().unwrap_or_default(),
        }
    }

    /// GET an answer.
    pub async fn get<T: DeserializeOwned>(&self, addr: &str, path: &str) -> Result<T, RpcError> {
        self.call(Method::GET, addr, path, None::<&()>).await
    }

    /// PUT without a body.
    pub async fn put(&self, addr: &str, path: &str) -> Result<(), RpcError> {
        self.call::<serde_json::Value>(Method::PUT, addr, path, None::<&()>)
            .await
            .map(drop)
    }

    /// PUT without a body, for what it answers.
    pub async fn put_for<T: DeserializeOwned>(&self, addr: &str, path: &str) -> Result<T, RpcError> {
        self.call(Method::PUT, addr, path, None::<&()>).await
    }

    /// PUT a body.
    pub async fn put_json(&self, addr: &str, path: &str, body: &impl Serialize) -> Result<(), RpcError> {
        self.call::<serde_json::Value>(Method::PUT, addr, path, Some(body))
            .await
            .map(drop)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        addr: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, RpcError> {
        let mut request = self.http.request(method.clone(), format!("http://{addr}{path}"));
        request = match body {
            Some(body) => request.json(body),
            None if method == Method::PUT => request.header("content-length", "0"),
            None => request,
        };
        let answer = request.send().await.map_err(|error| told(addr, &error))?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(|error| told(addr, &error))?;
        match status {
            200 => serde_json::from_slice(&body).map_err(|error| RpcError(error.to_string())),
            800 | 1500 => Err(remote(&body)),
            other => Err(RpcError(format!("[Remote Error] unexpected status {other}"))),
        }
    }
}

fn remote(body: &[u8]) -> RpcError {
    let told = serde_json::from_slice::<RemoteError>(body).map(|error| error.cause);
    RpcError(format!("[Remote Error] {}", told.unwrap_or_default()))
}

/// What the network said; never the URL, which holds the xauth.
fn told(addr: &str, error: &reqwest::Error) -> RpcError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
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

    /// Replaces slots.
    pub async fn fill_slots(&self, slots: &[Slot]) -> Result<(), RpcError> {
        self.rpc.put_json(&self.addr, &self.path("fillslots"), &slots).await
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
