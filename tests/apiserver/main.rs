//! What only a real API server can prove: the CRD and its rules, server-side apply, the lease.

mod apply;
mod crd;
mod lease;
mod objects;
mod own;
#[path = "../support/mod.rs"]
mod support;
mod world;
