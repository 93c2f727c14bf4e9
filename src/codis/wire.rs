//! HTTP as dashboards and proxies speak it (contract §2).

use std::{error::Error as StdError, sync::OnceLock, time::Duration};

use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use reqwest::{
    Body, Client, Method, Request, StatusCode, Url,
    header::{CONTENT_LENGTH, HOST, HeaderValue},
    redirect, retry,
};
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{Error, Link, Network, Stream, error::innermost, xauth::to_be_told};
use crate::domain::Address;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long answers may take, connecting included.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// A redis's or a sentinel's.
    pub redis: Duration,
    /// A dashboard's to a read.
    pub read: Duration,
    /// A dashboard's to an effect: it may wait up to 60 s for a hung proxy while it holds its one lock (contract §2).
    pub write: Duration,
    /// A proxy's to each call about locked slots. Clients wait meanwhile, so it is short, though a proxy whose server
    /// hangs may take up to `backend_recv_timeout` (contract §8.1).
    pub lock: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            redis: Duration::from_secs(2),
            read: Duration::from_secs(10),
            write: Duration::from_secs(90),
            lock: Duration::from_secs(2),
        }
    }
}

/// One call to a dashboard or proxy. Its path holds an xauth: it must not get into any text.
pub(super) struct Call<'a> {
    pub client: &'a Client,
    pub link: &'a Link,
    pub peer: &'a Address,
    pub timeout: Duration,
}

/// The body of an application error, status 800. There is a `Stack`, too; nobody reads it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RemoteError {
    cause: String,
}

/// A client that does nothing by itself: no retries, redirects, proxies or compression, and no connection kept:
/// an idle one may lead to a process that is gone, and that would be found out by a lost effect. It serves any peer;
/// `peer` is whom an error names. All doors share one: making it reads the trusted certificates, which isn't cheap.
pub(super) fn client(peer: &Address) -> Result<Client, Error> {
    static SHARED: OnceLock<Client> = OnceLock::new();
    if let Some(client) = SHARED.get() {
        return Ok(client.clone());
    }
    let made = Client::builder()
        .http1_only()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(|error| Error::Unexpected {
            peer: peer.clone(),
            cause: innermost(&error),
        })?;
    Ok(SHARED.get_or_init(|| made).clone())
}

/// Status and body.
type Answer = (StatusCode, Vec<u8>);

impl Call<'_> {
    /// GETs a path; the body of the answer with status 200.
    pub(super) async fn get(&self, path: &[&str]) -> Result<Vec<u8>, Error> {
        self.send(Method::GET, path, None::<&()>).await
    }

    /// PUTs to a path. The answer must be `"OK"`.
    pub(super) async fn put(&self, path: &[&str], body: Option<&impl Serialize>) -> Result<(), Error> {
        let answer = self.send(Method::PUT, path, body).await?;
        match serde_json::from_slice::<String>(&answer) {
            Ok(answer) if answer == "OK" => Ok(()),
            Ok(_) | Err(_) => Err(self.unexpected("not \"OK\"".to_owned())),
        }
    }

    async fn send(&self, method: Method, path: &[&str], body: Option<&impl Serialize>) -> Result<Vec<u8>, Error> {
        let mut request = self
            .client
            .request(method.clone(), self.url(path)?)
            .timeout(self.timeout);
        request = match body {
            Some(body) => request.json(body),
            // As Codis's own client has it (contract §2); ours would leave it out.
            None if method == Method::PUT => request.header(CONTENT_LENGTH, "0"),
            None => request,
        };
        let request = request.build().map_err(|error| self.transport(&error))?;
        let (status, body) = match self.link.network() {
            None => self.over_sockets(request).await?,
            Some(network) => self.over_network(network, request).await?,
        };
        self.judge(status, body)
    }

    async fn over_sockets(&self, request: Request) -> Result<Answer, Error> {
        let response = self.client.execute(request).await;
        let response = response.map_err(|error| self.transport(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.transport(&error))?;
        Ok((status, body.into()))
    }

    /// What the client does over sockets, with the same limits of time: a connection, one request, its whole answer.
    async fn over_network(&self, network: &dyn Network, request: Request) -> Result<Answer, Error> {
        let end = Instant::now() + self.timeout;
        let opened = timeout_at(end, timeout(CONNECT_TIMEOUT, network.connect(self.peer))).await;
        let stream = match opened.map_err(|_| self.too_late())? {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(error.to_string())),
            Err(_) => return Err(self.unreachable("operation timed out".to_owned())),
        };
        let request = self.on_the_wire(request)?;
        match timeout_at(end, exchange(stream, request)).await {
            Ok(done) => done.map_err(|error| self.unreachable(innermost(&error))),
            Err(_) => Err(self.too_late()),
        }
    }

    /// A request as it is sent once there is a connection: without the peer in its first line, with it in a header.
    fn on_the_wire(&self, request: Request) -> Result<hyper::Request<Body>, Error> {
        let no_request = |error: &dyn StdError| self.unexpected(innermost(error));
        let mut request = hyper::Request::try_from(request).map_err(|error| no_request(&error))?;
        let path = request.uri().path().parse().map_err(|error| no_request(&error))?;
        *request.uri_mut() = path;
        let host = HeaderValue::try_from(self.peer.to_string()).map_err(|error| no_request(&error))?;
        request.headers_mut().insert(HOST, host);
        Ok(request)
    }

    /// The body of an answer with status 200; any other is an error.
    fn judge(&self, status: StatusCode, body: Vec<u8>) -> Result<Vec<u8>, Error> {
        if status == StatusCode::OK {
            return Ok(body);
        }
        match serde_json::from_slice::<RemoteError>(&body) {
            Ok(RemoteError { cause }) if status.as_u16() == 800 => Err(Error::Refused {
                peer: self.peer.clone(),
                cause: to_be_told(&cause),
            }),
            // 404 of a path that isn't Codis's, 500 of a panic (contract §2), anything of somebody else.
            Ok(_) | Err(_) => Err(self.unexpected(format!("status {}", status.as_u16()))),
        }
    }

    /// The path's segments are escaped, so that a name from outside can't lead elsewhere.
    fn url(&self, path: &[&str]) -> Result<Url, Error> {
        let no_url = || self.unexpected("its address makes no URL".to_owned());
        let mut url = Url::parse(&format!("http://{}", self.peer)).map_err(|_| no_url())?;
        url.path_segments_mut().map_err(|()| no_url())?.clear().extend(path);
        Ok(url)
    }

    /// An error without an answer. The library's own text has the URL in it, the innermost cause hasn't.
    fn transport(&self, error: &reqwest::Error) -> Error {
        if error.is_timeout() && !error.is_connect() {
            return self.too_late();
        }
        self.unreachable(innermost(error))
    }

    fn too_late(&self) -> Error {
        Error::Timeout {
            peer: self.peer.clone(),
            after: self.timeout,
        }
    }

    fn unreachable(&self, cause: String) -> Error {
        Error::Unreachable {
            peer: self.peer.clone(),
            cause,
        }
    }

    pub(super) fn unexpected(&self, cause: String) -> Error {
        Error::Unexpected {
            peer: self.peer.clone(),
            cause,
        }
    }
}

/// Sends a request on a connection of its own, which is closed in the end, however it ends.
async fn exchange(stream: Box<dyn Stream>, request: hyper::Request<Body>) -> Result<Answer, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, body.into()))
}
