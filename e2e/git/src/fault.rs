//! What can be wrong with a Git server.

use std::{io, str::FromStr, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};

use crate::{Shared, cgi};

/// How long after a byte the next one follows.
const DRIP: Duration = Duration::from_millis(200);

/// How a server fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// It doesn't.
    #[default]
    None,
    /// It drops the connection.
    Refuse,
    /// It never answers.
    BlackHole,
    /// It answers a byte every 200 ms, to anything, without end.
    Drip,
    /// Only packs come like that.
    DripPack,
    /// It answers this status.
    Status(u16),
    /// It says that it has no refs.
    Truncated,
    /// It doesn't know protocol v2.
    Old,
    /// It answers 302 to this server (`http://host:port`), the path kept.
    Redirect(String),
}

/// `none`, `refuse`, `black-hole`, `drip`, `drip-pack`, `truncated`, `old`, or a status like `404`.
impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "none" => Self::None,
            "refuse" => Self::Refuse,
            "black-hole" => Self::BlackHole,
            "drip" => Self::Drip,
            "drip-pack" => Self::DripPack,
            "truncated" => Self::Truncated,
            "old" => Self::Old,
            _ => {
                let status = name.parse().ok().filter(|status| (200..600).contains(status));
                Self::Status(status.ok_or_else(|| format!("no fault is called {name:?}"))?)
            }
        })
    }
}

/// What a request is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    Advertisement,
    LsRefs,
    Pack,
    Other,
}

fn ask(parts: &Parts, body: &[u8]) -> Ask {
    let path = parts.uri.path();
    if path.ends_with("/info/refs") {
        Ask::Advertisement
    } else if !path.ends_with("/git-upload-pack") {
        Ask::Other
    } else if body.get(4..).is_some_and(|body| body.starts_with(b"command=ls-refs")) {
        Ask::LsRefs
    } else {
        Ask::Pack
    }
}

/// What git answers, or what the fault makes of it.
pub(crate) async fn answer(shared: &Shared, fault: &Fault, parts: &Parts, body: Bytes) -> Response {
    let ask = ask(parts, &body);
    let kind = match ask {
        Ask::Advertisement => "application/x-git-upload-pack-advertisement",
        Ask::LsRefs | Ask::Pack | Ask::Other => "application/x-git-upload-pack-result",
    };
    let as_git = |body: Body| ([(header::CONTENT_TYPE, kind)], body).into_response();
    match (fault, ask) {
        (Fault::Refuse, _) => {
            Body::from_stream(stream::once(async { Err::<Bytes, _>(io::Error::other("refused")) })).into_response()
        }
        (Fault::BlackHole, _) => std::future::pending().await,
        // The beginning of a packet that would be large.
        (Fault::Drip, _) => as_git(dripping(Bytes::from_static(b"ff00"))),
        (Fault::DripPack, Ask::Pack) => {
            let response = cgi::answer(&shared.root, parts, body).await;
            let whole = axum::body::to_bytes(response.into_body(), usize::MAX).await;
            let whole = whole.unwrap_or_default();
            as_git(dripping(whole.slice(..whole.len() / 2)))
        }
        (Fault::Status(status), _) => StatusCode::from_u16(*status)
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response(),
        (Fault::Truncated, Ask::Advertisement) => as_git(Body::from("001e# service=git-upload-pack\n00000000")),
        (Fault::Truncated, Ask::LsRefs) => as_git(Body::from("0000")),
        (Fault::Redirect(server), _) => {
            let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            (StatusCode::FOUND, [(header::LOCATION, format!("{server}{path}"))]).into_response()
        }
        (Fault::Old, _) => {
            let mut parts = parts.clone();
            parts.headers.remove("git-protocol");
            cgi::answer(&shared.root, &parts, body).await
        }
        (Fault::None | Fault::DripPack | Fault::Truncated, _) => cgi::answer(&shared.root, parts, body).await,
    }
}

/// The beginning at once, then a byte every [`DRIP`] without end.
fn dripping(beginning: Bytes) -> Body {
    let drops = stream::repeat(()).then(|()| async {
        tokio::time::sleep(DRIP).await;
        Ok::<_, io::Error>(Bytes::from_static(b"0"))
    });
    Body::from_stream(stream::once(async { Ok(beginning) }).chain(drops))
}
