//! Bringing keys of a slot that moves: before a command goes to the target, its keys are moved there.
//!
//! Every command does so on its own, even if another has just moved the same key: redis answers `NOKEY` then, and only
//! that answer tells that the key is not on its way. Why nothing newer is overwritten: [`crate::migrate`]. Both forward
//! methods (§4) do the same here; Codis's semi-async one lets the source serve reads of keys it has begun to move.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::backend::Backend;
use crate::http::Refusal;
use crate::migrate;
use crate::resp::{self, Value};

/// What Codis's proxy gives `SLOTSMGRTTAGONE`.
const PATIENCE: Duration = Duration::from_secs(3);

/// Moves keys of a database from the source to the target; after an error the command must not be sent.
pub async fn pull(source: &Backend, target: &Backend, database: u32, keys: &[Bytes]) -> Result<(), Refusal> {
    if keys.is_empty() {
        return Ok(());
    }
    let failed = |what: String| {
        let (from, to) = (source.addr(), target.addr());
        tracing::warn!("move of keys from {from} to {to} failed: {what}");
        Refusal(format!(
            "ERR handle request, move of keys from {from} to {to} failed: {what}"
        ))
    };
    let settings = source.settings();
    // Less than what the connection to the source waits: other commands wait there too.
    let patience = PATIENCE.min(settings.recv_timeout / 2);
    // A target that does not answer would hold up the source, and with it slots that do not move.
    let asked = tokio::time::timeout(patience, ask(target, database, &["PING".into()])).await;
    asked
        .unwrap_or_else(|_| Err("target: i/o timeout".into()))
        .map_err(failed)?;
    let words = migrate::command(target.addr(), &settings.auth, database, patience, keys);
    let words = words.map_err(|error| failed(error.0))?;
    ask(source, database, &words).await.map_err(failed)
}

async fn ask(backend: &Backend, database: u32, words: &[Bytes]) -> Result<(), String> {
    let mut bytes = BytesMut::new();
    resp::encode_command(words, &mut bytes);
    match backend.send(database, bytes.freeze(), None).await.await {
        Ok(Value::Simple(_)) => Ok(()),
        Ok(Value::Error(text)) => Err(text),
        Ok(_) => Err("unexpected reply".into()),
        Err(_) => Err("backend conn reset".into()),
    }
}
