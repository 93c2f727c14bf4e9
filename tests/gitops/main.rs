//! Git sources on a real API server and a real Git server: from a commit to applied objects.
//!
//! One engine serves the sources of all tests, as it does in production; each test has a namespace and a repository.

// The lint's own exception for tests doesn't reach their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod commits;
mod drift;
mod held;
mod owners;
#[path = "../support/mod.rs"]
mod support;
mod world;
