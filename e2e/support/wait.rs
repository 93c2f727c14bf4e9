//! Waiting for a condition.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::time::Instant;

/// Seconds, in fewer letters.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Asks `probe` again and again until it is content, and gives what it found.
///
/// An error of the probe means "not yet", and why; the last one is told when the limit is over.
pub async fn wait_for<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let reason = match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(reason)) => format!("{reason:#}"),
            Err(_) => "the last look did not end".to_owned(),
        };
        if Instant::now() + Duration::from_millis(500) >= deadline {
            return Err(anyhow!("waited {} s for {what}: {reason}", limit.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Looks again and again for a while, and is content when `probe` always was: for what must not happen.
pub async fn stays(what: &str, span: Duration, mut probe: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < span {
        let look = probe().await;
        look.with_context(|| format!("{what}, after {:.1} s", began.elapsed().as_secs_f64()))?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}
