//! The keys of a slot on their way: found by scanning the source's master, moved in batches with `MIGRATE`.
//!
//! Scans begin when all proxies know that the slot is `migrating`, so from then on no key of it appears at the source,
//! and a scan that finds none proves that there are none: `SCAN` tells every key that is there all the time.

use std::time::Duration;

use bytes::Bytes;

use super::Dashboard;
use super::moves::Leg;
use crate::http::Refusal;
use crate::migrate;
use crate::redis::Connection;
use crate::resp::{Value, slot_of};

/// Keys that a `SCAN` looks at in one go.
const PAGE: &str = "1000";
/// Keys that move in one step.
const BATCH: usize = 100;
/// What Codis gives an asynchronous step at most (§12.2).
const LONGEST_STEP: Duration = Duration::from_secs(5);

impl Dashboard {
    /// Moves all keys of a leg; tells whether it was still held when the last one left.
    pub(super) async fn empty(&self, leg: &Leg) -> Result<bool, Refusal> {
        // A group without servers, or that nobody knows, has no keys for Codis either.
        let Some(source) = leg.source.as_ref().filter(|source| !source.is_empty()) else {
            return Ok(true);
        };
        // `MIGRATE` may wait for the target several times before it answers.
        let patience = self.step_timeout() * 2 + Duration::from_secs(1);
        let mut from = Connection::open(source, &self.config.product_auth, patience).await?;
        // The first one in any case, as Codis does it: a source that is loading says LOADING to that, and not that it is empty.
        let mut next = Some(0);
        while let Some(database) = next {
            from.command(&["SELECT", &database.to_string()]).await?;
            loop {
                let keys = scan(&mut from, leg.slot.id).await?;
                if keys.is_empty() {
                    break;
                }
                if !self.haul(leg, &mut from, database, &keys).await? {
                    return Ok(false);
                }
            }
            next = database_after(&mut from, database).await?;
        }
        Ok(true)
    }

    async fn haul(&self, leg: &Leg, from: &mut Connection, database: u32, keys: &[Bytes]) -> Result<bool, Refusal> {
        let mut left = keys.len();
        for batch in keys.chunks(BATCH) {
            let Some(step) = self.begin_step(leg).await? else {
                return Ok(false);
            };
            self.move_keys(leg, from, database, batch).await?;
            drop(step);
            left -= batch.len();
            let sid = leg.slot.id;
            self.mover.tell(format!("[OK] Slot[{sid:04}]@DB[{database}]={left}"));
            let pause = self.mover.pause();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(true)
    }

    async fn move_keys(&self, leg: &Leg, from: &mut Connection, database: u32, keys: &[Bytes]) -> Result<(), Refusal> {
        let (auth, timeout) = (self.config.product_auth.as_str(), self.step_timeout());
        // A target that does not answer would hold up the source.
        let mut target = Connection::open(&leg.target, auth, timeout).await?;
        target.command(&["PING"]).await?;
        let words = migrate::command(&leg.target, auth, database, timeout, keys)?;
        from.command(&words).await?;
        Ok(())
    }

    fn step_timeout(&self) -> Duration {
        let timeout = self.config.migration_timeout.0;
        if self.config.forward_method() == 1 {
            timeout.min(LONGEST_STEP)
        } else {
            timeout
        }
    }
}

/// The next database that holds keys.
async fn database_after(connection: &mut Connection, database: u32) -> Result<Option<u32>, Refusal> {
    let info = connection.plain_info().await?;
    let number = |key: &String| key.strip_prefix("db")?.parse().ok();
    Ok(info.keys().filter_map(number).filter(|next| *next > database).min())
}

/// The keys of a slot in the selected database.
async fn scan(connection: &mut Connection, sid: i64) -> Result<Vec<Bytes>, Refusal> {
    let mut found = Vec::new();
    let mut cursor = "0".to_string();
    loop {
        let page = connection.command(&["SCAN", &cursor, "COUNT", PAGE]).await?;
        let [next, keys] = page.items() else {
            return Err("invalid response of scan".into());
        };
        found.extend(keys.items().iter().filter_map(|key| match key {
            Value::Bulk(Some(key)) if slot_of(key) as i64 == sid => Some(key.clone()),
            _ => None,
        }));
        cursor = next.text().unwrap_or_default();
        if cursor == "0" {
            // The same key may be told more than once.
            found.sort_unstable();
            found.dedup();
            return Ok(found);
        }
    }
}
