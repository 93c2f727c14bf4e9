//! `git http-backend` as a CGI program (RFC 3875, git-http-backend(1)).

use std::{io, path::Path, process::Stdio};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use tokio::{io::AsyncWriteExt, process::Command};

/// What git answers to this request.
pub(crate) async fn answer(root: &Path, parts: &Parts, body: Bytes) -> Response {
    match run(root, parts, body).await {
        Ok(output) => response(output)
            .unwrap_or_else(|| (StatusCode::BAD_GATEWAY, "git answered without headers\n").into_response()),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("git http-backend: {error}\n")).into_response(),
    }
}

async fn run(root: &Path, parts: &Parts, body: Bytes) -> io::Result<Vec<u8>> {
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let mut child = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(crate::worktree::QUIET)
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        // Without a user git refuses pushes.
        .env("REMOTE_USER", "tests")
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // git may have enough before the end; then its answer is what counts.
            let _ = stdin.write_all(&body).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    Ok(output?.stdout)
}

/// Headers, an empty line, the body; the status is a header.
fn response(mut output: Vec<u8>) -> Option<Response> {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n")?;
    let body = output.split_off(end + 4);
    let mut headers = HeaderMap::new();
    let mut status = StatusCode::OK;
    for line in str::from_utf8(&output).ok()?.lines().filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            status = value.split(' ').next()?.parse().ok()?;
        } else {
            headers.append(name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?);
        }
    }
    Some((status, headers, Body::from(body)).into_response())
}
