//! A stand-in for Codis 3.2: dashboard, proxy, fe and admin over real redis and sentinel processes.
//!
//! It answers as the wire contract of Codis 3.2 (`codis-contract.md`, cited here as "§n") says and as recorded
//! exchanges of a real Codis show. Everything can be started in-process: nothing here is global and nothing exits the
//! process; a start function gives a handle with the local addresses, a shutdown and a wait.
//!
//! Keys move between groups with redis's own `MIGRATE`; [`migrate`] and `dashboard/moves.rs` say how that differs from
//! Codis.
//!
//! Left out: metrics reports, gzip, pprof, `codis-ha`, `session_break_on_failure`, and Go's stacks in errors.

pub mod admin;
pub mod config;
pub mod dashboard;
pub mod fe;
pub mod flags;
pub mod host;
pub mod http;
pub mod identity;
pub mod logging;
pub mod migrate;
pub mod proxy;
pub mod redis;
pub mod resp;
pub mod rpc;
pub mod scalar;
pub mod sentinel;
pub mod simulated;
pub mod stop;
pub mod store;
pub mod timings;
pub mod wire;

/// What `version` says wherever Codis would tell its own.
pub const VERSION: &str = "codis-double 3.2.2";
/// What `compile` says; it names the stand-in, so that no one takes it for the real thing.
pub const COMPILE: &str = "stand-in for Codis 3.2.2, not Codis";
/// Slots of a product (§1).
pub const SLOTS: usize = 1024;
