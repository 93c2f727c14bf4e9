//! The HTTP conventions of dashboard and proxy (§2): path segments, `"OK"`, status 800, 404 for the rest.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use tokio::task::{JoinHandle, JoinSet};

use crate::host::{self, Listener, Socket};
use crate::stop::Stop;
use crate::wire::RemoteError;

/// How long open answers may take when the server is to end.
const GRACE: Duration = Duration::from_millis(500);
/// The status of every application error (§2).
const APPLICATION_ERROR: u16 = 800;

/// A request, taken apart.
#[derive(Debug)]
pub struct Call {
    /// HEAD arrives as GET.
    pub method: Method,
    /// Decoded segments of the path; one trailing slash is dropped.
    pub path: Vec<String>,
    /// The whole body.
    pub body: Bytes,
}

impl Call {
    /// The body as JSON; a malformed one counts as empty, as in Codis.
    pub fn json<T: serde::de::DeserializeOwned + Default>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// An application error: status 800 and its cause.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl From<&str> for Refusal {
    fn from(cause: &str) -> Self {
        Self(cause.to_string())
    }
}

impl From<String> for Refusal {
    fn from(cause: String) -> Self {
        Self(cause)
    }
}

impl From<Refusal> for RemoteError {
    fn from(refusal: Refusal) -> Self {
        Self {
            cause: refusal.0,
            stack: None,
        }
    }
}

/// What a handler answers.
#[derive(Debug)]
pub enum Answer {
    /// 200 and this JSON text.
    Json(Bytes),
    /// 302 to this path.
    Redirect(&'static str),
    /// 404, text.
    NotFound,
}

impl Answer {
    /// 4-space indented JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, Refusal> {
        pretty(value)
            .map(|text| Self::Json(text.into()))
            .map_err(|error| Refusal(error.to_string()))
    }

    /// The JSON string `"OK"`.
    pub fn ok() -> Result<Self, Refusal> {
        Self::json(&"OK")
    }
}

/// JSON with the indentation of Codis, for answers and for the store.
pub fn pretty(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer)?;
    Ok(text)
}

/// Parses a path parameter; the error names it (§2).
pub fn integer(name: &str, text: &str) -> Result<i64, Refusal> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    digits.parse().map_err(|_| Refusal(format!("invalid {name}")))
}

/// Something that answers calls.
pub trait Handler: Send + Sync + 'static {
    /// Answers one call.
    fn call(self: Arc<Self>, call: Call) -> impl Future<Output = Result<Answer, Refusal>> + Send;
}

/// Serves a handler until the signal is raised; open answers get half a second to end.
pub fn serve<H: Handler>(listener: Box<dyn Listener>, handler: Arc<H>, stop: Stop) -> JoinHandle<()> {
    serve_with(listener, stop, move |peer, request| {
        answer(handler.clone(), peer, request)
    })
}

/// The same for what is no [`Handler`].
pub(crate) fn serve_with<S, F>(mut listener: Box<dyn Listener>, stop: Stop, respond: S) -> JoinHandle<()>
where
    S: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    host::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.raised() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok(socket) => host::join_in(&mut connections, converse(socket, stop.clone(), respond.clone())),
                    // Out of descriptors, most likely: some connection has to end first.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        // Connections that take longer go with the set.
        let _ = tokio::time::timeout(GRACE, drained).await;
    })
}

async fn converse<S, F>(socket: Socket, stop: Stop, respond: S)
where
    S: Fn(SocketAddr, Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let peer = socket.peer;
    let service = service_fn(|request| {
        let answered = respond(peer, request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let mut server = http1::Builder::new();
    // The date would come from the wall clock.
    server.auto_date_header(host::current().is_none());
    let mut connection = pin!(server.serve_connection(TokioIo::new(socket.stream), service));
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = stop.raised() => {}
    }
    connection.as_mut().graceful_shutdown();
    // The client may have gone, and then no one is left to be told.
    let _ = connection.await;
}

async fn answer<H: Handler>(handler: Arc<H>, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::PUT {
        // The suites count mutations by this line; like Codis's own it tells the whole path.
        tracing::warn!("API call {} from {peer} []", parts.uri.path());
    }
    let Some(path) = segments(parts.uri.path()) else {
        return respond(Ok(Answer::NotFound));
    };
    let body = whole(body).await;
    let method = if parts.method == Method::HEAD {
        Method::GET
    } else {
        parts.method
    };
    // A task of its own: what a handler began is finished even if the caller hangs up.
    let answered = host::spawn(handler.call(Call { method, path, body })).await;
    respond(answered.unwrap_or_else(|_| Err("handler ended".into())))
}

/// All of a body; nothing if it breaks off.
pub(crate) async fn whole(body: Incoming) -> Bytes {
    body.collect().await.map(|body| body.to_bytes()).unwrap_or_default()
}

fn segments(path: &str) -> Option<Vec<String>> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() {
        return Some(Vec::new());
    }
    let decoded: Vec<String> = inner.split('/').map(decode).collect();
    let good = |segment: &String| !segment.is_empty() && !segment.contains(['/', '#', '?']);
    decoded.iter().all(good).then_some(decoded)
}

fn decode(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                decoded.push(byte);
                at += 3;
            }
            _ => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn respond(answered: Result<Answer, Refusal>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match answered {
        Ok(Answer::Json(text)) => (200, "application/json; charset=utf-8", text),
        Ok(Answer::Redirect(path)) => return redirect(path),
        Ok(Answer::NotFound) => (404, "text/plain", Bytes::from_static(b"404 page not found")),
        Err(refusal) => {
            let text = pretty(&RemoteError::from(refusal)).unwrap_or_default().into();
            (APPLICATION_ERROR, "application/json; charset=utf-8", text)
        }
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn redirect(path: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::FOUND;
    response
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::from_static(path));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_its_segments_with_one_trailing_slash_dropped() {
        let some = |path| segments(path).map(|parts| parts.join("|"));
        assert_eq!(some("/topom"), Some("topom".into()));
        assert_eq!(some("/topom/"), Some("topom".into()));
        assert_eq!(some("/"), Some(String::new()));
        assert_eq!(some("/a/%5B::1%5D:80"), Some("a|[::1]:80".into()));
        assert_eq!(some("/a//b"), None);
        assert_eq!(some("/a%2Fb"), None);
    }

    #[test]
    fn a_bad_integer_names_its_parameter() {
        assert_eq!(integer("gid", "12"), Ok(12));
        assert_eq!(integer("gid", "x"), Err("invalid gid".into()));
        assert_eq!(integer("value", ""), Err("invalid value".into()));
    }
}
