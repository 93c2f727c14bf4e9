//! The health endpoints and the metrics, over HTTP.

use std::io;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};

use super::{Metrics, metrics::CONTENT_TYPE};

/// Serves /livez, /readyz and /metrics until `stop`, then finishes what it began.
///
/// `ready` becomes true when the caches are filled. It isn't about leading: every candidate is ready, or a rolling
/// update would wait for the second replica forever.
///
/// # Errors
/// When the listener can't be used.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    ready: watch::Receiver<bool>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/metrics", get(scrape).with_state(metrics));
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn readyz(State(ready): State<watch::Receiver<bool>>) -> Response {
    if *ready.borrow() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the caches aren't filled yet\n").into_response()
    }
}

async fn scrape(State(metrics): State<Metrics>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_process_is_alive_at_once_ready_with_its_caches_and_stops_when_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (filled, ready) = watch::channel(false);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, Metrics::default(), ready, async {
            stopped.await.ok();
        }));
        let ask = |path: &'static str| async move {
            let answer = reqwest::get(format!("http://{address}/{path}")).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        assert_eq!(ask("livez").await.0, 200);
        assert_eq!(ask("readyz").await.0, 503);
        filled.send_replace(true);
        assert_eq!(ask("readyz").await.0, 200);
        let (status, text) = ask("metrics").await;
        assert!(
            status == 200 && text.contains("codis_operator_leader 0") && text.ends_with("# EOF\n"),
            "{text}"
        );
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }
}
