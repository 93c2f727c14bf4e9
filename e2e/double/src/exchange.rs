//! One HTTP request over a made-up host's network; real ones are reqwest's business.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::host::{self, Stream};
use crate::redis::go;

/// Sends a request on a connection of its own and reads the whole answer; an error is what the network said, in Go's
/// words.
pub async fn exchange(
    addr: &str,
    mut request: Request<Full<Bytes>>,
    dial: Duration,
) -> Result<Response<Bytes>, String> {
    let opened = tokio::time::timeout(dial, host::connect(addr)).await;
    let socket = opened.map_err(|_| "i/o timeout")?.map_err(|error| go(&error))?;
    let named = HeaderValue::try_from(addr).map_err(|error| error.to_string())?;
    request.headers_mut().insert(header::HOST, named);
    converse(socket.stream, request)
        .await
        .map_err(|error| innermost(&error))
}

async fn converse(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> hyper::Result<Response<Bytes>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection.fuse());
    let mut answered = pin!(async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    });
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            done = &mut answered => return done,
            // What it has read before its end is still on its way to the answer.
            _ = &mut connection, if open => open = false,
        }
    }
}

/// The text of an error's first cause.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
