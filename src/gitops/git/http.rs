//! Which commit a branch is at, over HTTP: one POST of protocol v2's `ls-refs` with the branch as prefix.
//!
//! hyper rather than reqwest: with TLS switched on in reqwest, its every client in this process would load the system's
//! certificates and ask for a provider of cryptography. Here is neither a proxy nor a redirect, and connections are
//! kept alive.

use std::{
    collections::HashMap,
    error::Error as StdError,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::{HeaderValue, Method, Request, Response, StatusCode, header},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore};

use super::{
    Error, ErrorKind, Remote, Tip, credentials,
    pkt::{self, Answer, Packet},
    remote,
};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection waits for the next poll.
const IDLE: Duration = Duration::from_secs(90);
/// The most that is read of an answer to `ls-refs`: some 500 refs. A branch comes before those it is a prefix of.
const LS_REFS_CAP: usize = 64 << 10;
/// What is read beyond the branch's own line, so that the connection can be kept.
const SMALL: usize = 4 << 10;
/// The most that is read of a list of all refs: some 200,000.
const ADVERTISEMENT_CAP: usize = 16 << 20;
/// How long a server counts as one that doesn't speak v2.
const OLD_FOR: Duration = Duration::from_secs(600);

/// Some servers answer only to what calls itself git.
const USER_AGENT: &str = concat!("git/2 (codis-operator ", env!("CARGO_PKG_VERSION"), ")");

type Client = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What is known of the servers that are polled, by source.
#[derive(Default)]
pub(super) struct Polls(Mutex<HashMap<String, Arc<Server>>>);

struct Server {
    client: Client,
    url: String,
    ca: Option<String>,
    /// Until then it isn't asked in v2.
    old_until: Mutex<Option<Instant>>,
}

/// What a list of refs says of a branch.
enum Listed {
    At(String),
    /// The list is complete, and the branch isn't in it.
    Absent {
        any: bool,
    },
    /// This isn't a list of refs.
    NotGit,
    /// The list is longer than what is read of it.
    Longer,
    Refused(String),
}

impl Polls {
    /// # Errors
    /// When the server doesn't tell. There is no deadline in here.
    pub(super) async fn tip(&self, key: &str, remote: &Remote) -> Result<Tip, Error> {
        let server = self.server(key, remote)?;
        let branch = format!("refs/heads/{}", remote.branch);
        if !server.is_old() {
            match server.ls_refs(remote, &branch, &branch).await? {
                Listed::At(id) => return commit(id),
                Listed::Absent { .. } => {
                    let repository_is_empty = match server.ls_refs(remote, "refs/heads/", &branch).await? {
                        // It was made between the two questions.
                        Listed::At(id) => return commit(id),
                        Listed::Absent { any } => !any,
                        Listed::NotGit | Listed::Longer | Listed::Refused(_) => false,
                    };
                    return Ok(Tip::Missing { repository_is_empty });
                }
                // Even a refusal may be one of the protocol.
                Listed::NotGit | Listed::Refused(_) => {}
                // The old list says whether the branch is there at all.
                Listed::Longer => return server.advertised(remote, &branch).await,
            }
        }
        let tip = server.advertised(remote, &branch).await?;
        server.set_old();
        Ok(tip)
    }

    pub(super) fn forget(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn server(&self, key: &str, remote: &Remote) -> Result<Arc<Server>, Error> {
        let ca = &remote.credentials.secret().ca;
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers
            .get(key)
            .filter(|server| server.url == remote.url && server.ca == *ca)
        {
            return Ok(Arc::clone(server));
        }
        let server = Arc::new(Server {
            client: client(ca.as_deref())?,
            url: remote.url.clone(),
            ca: ca.clone(),
            old_until: Mutex::new(None),
        });
        servers.insert(key.to_owned(), Arc::clone(&server));
        Ok(server)
    }
}

fn commit(id: String) -> Result<Tip, Error> {
    if id.len() == 40 {
        Ok(Tip::Commit(id))
    } else {
        Err(Error::sha256())
    }
}

/// A client that trusts the Secret's certificates, or else the system's.
fn client(ca: Option<&str>) -> Result<Client, Error> {
    let untrusted = |text: String| Error::new(ErrorKind::Untrusted, text);
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::worker(format!("TLS: {error}")))?;
    let config = if let Some(pem) = ca {
        let mut roots = RootCertStore::empty();
        for certificate in credentials::certificates(pem).map_err(untrusted)? {
            roots
                .add(certificate)
                .map_err(|error| untrusted(format!("key ca.crt holds a certificate that can't be used: {error}")))?;
        }
        config.with_root_certificates(roots)
    } else if let Ok(config) = config.clone().with_native_roots() {
        config
    } else {
        // An image without certificates can still poll over http://.
        config.with_root_certificates(RootCertStore::empty())
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config.with_no_client_auth())
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(1)
        .build(connector))
}

impl Server {
    fn is_old(&self) -> bool {
        let until = self.old_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn set_old(&self) {
        *self.old_until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(OLD_FOR);
    }

    /// The refs that begin with `prefix`; of which `branch` is wanted.
    async fn ls_refs(&self, remote: &Remote, prefix: &str, branch: &str) -> Result<Listed, Error> {
        // No `object-format`: servers before 2020 don't know it, and SHA-1 is what it means to leave it out.
        let body = format!(
            "{}0001{}0000",
            pkt::line("command=ls-refs"),
            pkt::line(&format!("ref-prefix {prefix}"))
        );
        let kind = "application/x-git-upload-pack-request";
        let request = self
            .request(remote, Method::POST, "git-upload-pack", "")?
            .header("git-protocol", "version=2")
            .header(header::CONTENT_TYPE, kind)
            .header(header::ACCEPT, "application/x-git-upload-pack-result");
        let response = self.send(request, body).await?;
        match response.status() {
            StatusCode::OK => {}
            // What servers without v2 may say to a question of v2.
            StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::NOT_IMPLEMENTED => return Ok(Listed::NotGit),
            _ => return Err(refused(&response, remote)),
        }
        // Any branch answers whether there are some.
        let enough = prefix != branch;
        listed(response, branch, 1, LS_REFS_CAP, enough).await
    }

    /// The branch in version 0's list of all refs.
    async fn advertised(&self, remote: &Remote, branch: &str) -> Result<Tip, Error> {
        let request = self.request(remote, Method::GET, "info/refs", "service=git-upload-pack")?;
        let response = self.send(request, String::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(refused(&response, remote));
        }
        match listed(response, branch, 2, ADVERTISEMENT_CAP, false).await? {
            Listed::At(id) => commit(id),
            Listed::Absent { any } => Ok(Tip::Missing {
                repository_is_empty: !any,
            }),
            Listed::Longer => Err(Error::new(
                ErrorKind::TooLarge,
                "the server's list of refs is larger than 16 MiB: use a repository with fewer, or a server with \
                 protocol v2",
            )),
            Listed::Refused(reason) => Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "the Git server refused: {}",
                    reason.chars().take(200).collect::<String>()
                ),
            )),
            Listed::NotGit => Err(Error::new(
                ErrorKind::Protocol,
                "what is at the URL doesn't answer as a Git server: check spec url",
            )),
        }
    }

    fn request(&self, remote: &Remote, method: Method, path: &str, query: &str) -> Result<Builder, Error> {
        let (_, mut url): (_, Url) = remote::parse(&self.url)?;
        let whole = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&whole);
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        let mut builder = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::USER_AGENT, USER_AGENT);
        if let Some(authorization) = remote.credentials.authorization() {
            let value = HeaderValue::from_str(&authorization).map_err(|_| {
                let text = "the Secret's username, password or bearerToken has characters that HTTP can't send";
                Error::new(ErrorKind::Credentials, text)
            })?;
            builder = builder.header(header::AUTHORIZATION, value);
        }
        Ok(builder)
    }

    /// Sends it, and once more if a kept connection turned out to be closed: to list twice does no harm.
    async fn send(&self, builder: Builder, body: String) -> Result<Response<Incoming>, Error> {
        let body = Bytes::from(body);
        let request = builder.body(Full::new(body)).map_err(|error| {
            let text = format!("the URL can't be asked: {error}");
            Error::new(ErrorKind::Unsupported, text)
        })?;
        let again = request.clone();
        match self.client.request(request).await {
            Err(error) if !error.is_connect() => self.client.request(again).await,
            outcome => outcome,
        }
        .map_err(|error| unreachable(&error))
    }
}

type Builder = axum::http::request::Builder;

/// Reads a list of refs that ends at its `ends`-th flush, until the branch is found or `cap` bytes have come.
/// If `any_will_do`, until any ref is found.
async fn listed(
    response: Response<Incoming>,
    branch: &str,
    ends: u32,
    cap: usize,
    any_will_do: bool,
) -> Result<Listed, Error> {
    let mut body = response.into_body();
    let (mut buffer, mut received, mut flushes, mut any, mut found) = (Vec::new(), 0, 0, false, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreachable(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        received += data.len();
        buffer.extend_from_slice(data);
        let mut used = 0;
        loop {
            let (packet, length) = match pkt::first(buffer.get(used..).unwrap_or_default()) {
                Ok(Some(first)) => first,
                Ok(None) => break,
                Err(pkt::Malformed) => return Ok(Listed::NotGit),
            };
            match packet {
                Packet::Flush => flushes += 1,
                Packet::Delimiter => {}
                Packet::Line(line) => match pkt::answer(line) {
                    Answer::Ref { id, name } => {
                        any = true;
                        if name == branch {
                            found = Some(id.to_owned());
                        }
                    }
                    Answer::Refusal(reason) => return Ok(Listed::Refused(reason.to_owned())),
                    Answer::Other => {}
                },
            }
            used += length;
        }
        buffer.drain(..used);
        if any_will_do && any && found.is_none() {
            return Ok(Listed::Absent { any });
        }
        // The rest is read only if it's little: then the connection can be kept.
        if received > if found.is_some() { SMALL } else { cap } {
            break;
        }
    }
    Ok(match found {
        Some(id) => Listed::At(id),
        None if flushes >= ends => Listed::Absent { any },
        None if received > cap => Listed::Longer,
        // It ended in the middle, which must not look like an answer.
        None => Listed::NotGit,
    })
}

/// What a status other than 200 means.
fn refused(response: &Response<Incoming>, remote: &Remote) -> Error {
    let status = response.status();
    let shown = remote.credentials.authorization().is_some();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if shown => Error::new(
            ErrorKind::Credentials,
            format!(
                "the Git server refused the Secret's credentials (status {}): renew them",
                status.as_u16()
            ),
        ),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::new(
            ErrorKind::Credentials,
            "the Git server wants credentials: name a Secret with username and password, or bearerToken",
        ),
        StatusCode::NOT_FOUND => Error::not_found(),
        _ if status.is_redirection() => {
            let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            // Only where to: the rest of it may hold a token.
            let to = to.and_then(|to| Url::parse(to).ok());
            let host = to.as_ref().and_then(Url::host_str).unwrap_or("another address");
            Error::new(
                ErrorKind::Protocol,
                format!("the Git server redirects to {host}, which isn't followed: put the new address into spec url"),
            )
        }
        _ => Error::new(
            ErrorKind::Unreachable,
            format!(
                "the Git server answered with status {}: it's tried again",
                status.as_u16()
            ),
        ),
    }
}

/// An error without an answer: no connection, or no trust.
fn unreachable(error: &(dyn StdError + 'static)) -> Error {
    if let Some(rustls::Error::InvalidCertificate(reason)) = tls_error(error) {
        let text = format!(
            "the Git server's certificate isn't trusted ({reason:?}): put the certificate of its authority into the \
             Secret's key ca.crt"
        );
        return Error::new(ErrorKind::Untrusted, text);
    }
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    Error::new(
        ErrorKind::Unreachable,
        format!("the Git server can't be reached: {innermost}"),
    )
}

/// rustls's own error in a chain; an `io::Error` doesn't give what it wraps as its source.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|wrapped| tls_error(wrapped)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}
