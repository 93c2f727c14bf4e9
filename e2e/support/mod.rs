//! What the suites on a real Kubernetes cluster share: the runner, namespaces, clusters, the clients.
//!
//! It knows the operator as its users do: custom resources, objects by their documented names, and what answers on
//! the wire. Nothing here waits a fixed time to be sure; everything waits for a condition, with a limit.
#![allow(dead_code, reason = "each suite uses its part")]

pub mod cluster;
pub mod coordinator;
pub mod git;
pub mod hands;
pub mod health;
pub mod lab;
pub mod ledger;
pub mod load;
pub mod namespace;
pub mod nodes;
pub mod predecessor;
pub mod processes;
pub mod resp;
pub mod runner;
pub mod spec;
pub mod topology;
pub mod verdict;
pub mod wait;
pub mod writer;
