//! Redis servers, sentinels and volumes that exist in memory only, for worlds in which nothing is real: they run on made-up
//! machines ([`crate::host`]), in virtual time.
//!
//! Left out: every type but strings, expiry, eviction, scripts, transactions with `WATCH`, clusters, real RDB and AOF formats.

pub mod disk;
pub mod redis;
pub mod sentinel;
