//! A coordinator that isn't ours: whether anybody answers there at all.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use super::Link;
use crate::domain::Address;

/// How long one address may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether at least one of a coordinator's addresses takes a connection over `link`. Nothing is sent.
///
/// # Errors
/// Why none does, address by address.
pub async fn coordinator_reachable(link: &Link, addresses: &[Address]) -> Result<(), String> {
    let attempts = addresses.iter().map(|address| async move {
        match timeout(PATIENCE, link.connect(address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("{address}: {error}")),
            Err(_) => Err(format!("{address}: no answer within {} s", PATIENCE.as_secs())),
        }
    });
    let outcomes = join_all(attempts).await;
    if outcomes.iter().any(Result::is_ok) {
        return Ok(());
    }
    Err(outcomes
        .into_iter()
        .filter_map(Result::err)
        .collect::<Vec<_>>()
        .join("; "))
}
