//! The door to Git against git's own server, over HTTP, HTTPS and SSH, on loopback.
//!
//! Without `sshd` the tests of SSH are skipped, loudly; with `REQUIRE_SSHD=1` they fail.
#![allow(
    clippy::unwrap_used,
    reason = "the lint's exception for tests doesn't know helpers of tests"
)]

mod fetch;
mod history;
mod ssh;
mod support;
mod tip;
mod tls;
mod trouble;
