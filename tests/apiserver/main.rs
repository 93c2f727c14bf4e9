//! What only a real API server can prove: the CRD and its rules, server-side apply, the lease.

// The lint's own exception for tests doesn't reach their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod apply;
mod budgets;
mod crashes;
mod crd;
#[path = "../support/dashboard.rs"]
mod dashboard;
mod differential;
mod lease;
mod objects;
mod own;
mod product;
#[path = "../support/mod.rs"]
mod support;
mod whole_spec;
mod world;
