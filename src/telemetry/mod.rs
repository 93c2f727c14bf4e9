//! What people and machines see of the operator itself: logs, metrics, health endpoints; the hook on
//! effects, and the clock.
//!
//! May enter: tracing, prometheus-client, axum, clap's derive, jiff, tokio. Stays out: every other room, decisions.

mod clock;
mod effects;
mod logs;
mod metrics;
mod process;
mod server;

pub use self::{
    clock::Clock,
    effects::Effects,
    logs::{LogError, LogFormat, LogOptions},
    metrics::Metrics,
    server::serve,
};
