//! What people and machines see of the operator itself: logs, metrics, health endpoints, and the hook on effects.
//!
//! May enter: tracing, prometheus-client, axum, clap's derive. Stays out: every other room, decisions.

mod effects;
mod logs;
mod metrics;
mod process;
mod server;

pub use self::{
    effects::Effects,
    logs::{LogError, LogFormat, LogOptions},
    metrics::Metrics,
    server::serve,
};
