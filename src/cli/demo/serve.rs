//! The API server of the world on loopback, for kubectl: what it has no answer for itself is answered here.

mod discovery;
mod table;

use std::{
    convert::Infallible,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode, uri::Authority};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::Service as _;

use super::view::NAMESPACE;
use crate::simulation::api::ApiServer;

/// The most that kubectl may send.
const MOST: usize = 4 << 20;

/// Serves until the runtime ends. Where the kubeconfig is.
pub(super) async fn serve(api: ApiServer, listen: &str, folder: &Path) -> Result<PathBuf> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("--listen {listen}"))?;
    let address = listener.local_addr()?;
    // Everybody who reaches it may do anything, Secrets included.
    anyhow::ensure!(address.ip().is_loopback(), "--listen {listen}: it must be on loopback");
    let config = folder.join("kubeconfig");
    std::fs::write(&config, kubeconfig(&format!("http://{address}")))?;
    let router = Router::new().fallback(answer).with_state(api);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            eprintln!("the API server can't be reached any more: {error}");
        }
    });
    Ok(config)
}

fn kubeconfig(server: &str) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "demo",
        "clusters": [{"name": "demo", "cluster": {"server": server}}],
        "users": [{"name": "demo", "user": {}}],
        "contexts": [{"name": "demo", "context": {"cluster": "demo", "user": "demo", "namespace": NAMESPACE}}],
    });
    format!("{config:#}\n")
}

async fn answer(State(mut api): State<ApiServer>, request: Request) -> Response {
    if !is_local(request.headers()) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let (mut head, body) = request.into_parts();
    if let Some(known) = discovery::answer(&api, head.uri.path()) {
        return json_response(&known);
    }
    let accept = head.headers.get(http::header::ACCEPT);
    let wants_a_table = accept
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("as=Table"));
    let of = table::Columns::of(head.uri.path()).filter(|_| wants_a_table && head.method == http::Method::GET);
    let Ok(body) = axum::body::to_bytes(body, MOST).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    // Fields that aren't known are dropped, as the API server in process does, whatever is asked for.
    head.extensions.clear();
    let request = http::Request::from_parts(head, kube::client::Body::from(body));
    match api.call(request).await {
        Ok(response) => match of {
            Some(columns) if response.status().is_success() => as_table(response, columns),
            _ if response.status() == StatusCode::UNPROCESSABLE_ENTITY => with_cause(response).await,
            _ => response.map(Body::new),
        },
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// Whether it was asked by its address: a page of the web must not reach it, nor by a name of its own that leads here.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(http::header::HOST).and_then(|value| value.to_str().ok());
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    let is_local = authority.is_some_and(|authority| match authority.host().trim_matches(['[', ']']) {
        "localhost" => true,
        address => address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    });
    is_local && !headers.contains_key(http::header::ORIGIN)
}

/// What is invalid, where kubectl looks for it: it doesn't show the message.
async fn with_cause<B>(response: http::Response<B>) -> Response
where
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let (mut head, body) = response.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let Ok(mut status) = serde_json::from_slice::<Value>(&body) else {
        return Response::from_parts(head, Body::from(body));
    };
    if status["details"].get("causes").is_none() {
        let message = status["message"].as_str().unwrap_or_default();
        let what = message.split_once(" is invalid: ").map_or(message, |(_, what)| what);
        // Of several, each names its field.
        let (field, what) = what
            .split_once(": ")
            .filter(|_| !what.starts_with('['))
            .unwrap_or(("object", what));
        status["details"]["causes"] = json!([{"field": field, "message": what}]);
    }
    head.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(status.to_string()))
}

/// Each piece of the answer, a list or an event of a watch, as a table.
fn as_table<B>(response: http::Response<B>, columns: table::Columns) -> Response
where
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    response.map(|body| {
        let pieces = body.into_data_stream().map(move |piece| {
            let bytes = piece.unwrap_or_default();
            let made = serde_json::from_slice::<Value>(&bytes).map(|value| columns.table(&value));
            let bytes = made.map_or(bytes, |table| Bytes::from(format!("{table}\n")));
            std::io::Result::Ok(Frame::data(bytes))
        });
        Body::new(StreamBody::new(pieces))
    })
}

fn json_response(value: &Value) -> Response {
    let json = [(http::header::CONTENT_TYPE, "application/json")];
    (json, value.to_string()).into_response()
}
