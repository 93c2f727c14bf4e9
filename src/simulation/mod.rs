//! An in-process world: what Kubernetes and Codis do to a cluster, in one process, under one clock and one seed.
//!
//! [`World`] joins an API server ([`api`]), controllers and kubelets ([`kube`]), a network ([`fabric`]), machines with simulated
//! redis servers and sentinels and the stand-in's dashboards and proxies ([`pods`]), clients and an operator. [`run`] plays a
//! [`Scenario`] in one and checks what must hold; [`sweep`] plays many, [`shrink`] makes a failing one short. [`model`] is what the
//! rules alone are played in, quicker by far.
//!
//! May enter: everything, from outside. Stays out: being needed in production, wall clocks, sockets, threads within a world.

pub mod api;
mod clients;
mod coordinator;
mod crash;
pub mod fabric;
mod faults;
mod from_git;
mod git;
mod hands;
mod invariants;
pub mod kube;
mod lost;
mod model;
mod operator;
mod pods;
mod resolve;
mod run;
mod scenario;
mod sweep;
mod threads;
mod trace;
mod weather;
mod world;

pub use clients::Way;
pub use crash::{Crashed, OPERATIONS, Operation, crash_everywhere};
pub use model::Story;
#[cfg(test)]
pub(crate) use model::a_cluster;
pub use run::{Outcome, run};
pub use scenario::{NAMES as SCENARIOS, Scenario};
pub use sweep::{Swept, shrink, sweep};
pub use threads::on_a_deep_stack;
pub use world::{Plan, World};

#[cfg(test)]
mod tests;
