//! What the stand-in does, seen from outside: over HTTP, RESP and real redis processes.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod contract;
mod coordinator;
mod failover;
mod jodis;
mod load;
mod moving;
mod programs;
mod reads;
mod routing;
mod simulated;
mod simulated_host;
mod simulated_redis;
mod simulated_sentinel;
mod state_machines;
mod stores;
mod support;
