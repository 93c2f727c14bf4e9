//! What the suites share.

pub mod apiserver;
