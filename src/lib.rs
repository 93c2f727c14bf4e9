//! codis-operator: runs Codis clusters (sharded Redis behind proxies) on Kubernetes.
//!
//! Data flows one way through the rooms below: spec → [`validate`] → [`build`] → objects applied by [`cluster`];
//! (observed, desired, now) → [`plan`] → a step → an effect through [`codis`] or [`cluster`] → status.
//! Two rooms decide and have no I/O (`build`, `plan`); two do I/O and decide nothing (`codis`, `cluster`).

pub mod api;
pub mod build;
pub mod cli;
pub mod cluster;
pub mod codis;
pub mod controller;
pub mod domain;
pub mod gitops;
pub mod plan;
pub mod seeded;
pub mod simulation;
pub mod telemetry;
pub mod validate;
