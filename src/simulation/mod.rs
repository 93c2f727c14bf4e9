//! An in-process world: what Kubernetes and Codis do to a cluster, in one process, under one clock and one seed.
//!
//! May enter: everything, from outside. Stays out: being needed in production.

pub mod api;
pub mod kube;

#[cfg(test)]
mod tests;
