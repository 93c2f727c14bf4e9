//! The commands and their output. No decisions of their own.
//!
//! May enter: the library. `codis-operator` runs the operator and prints its manifests; `kubectl-codis` shows clusters.

mod demo;
mod manifests;
mod operator;
mod plugin;
mod simulate;

pub use operator::operator;
pub use plugin::plugin;
