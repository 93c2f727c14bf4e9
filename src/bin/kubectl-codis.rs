//! kubectl-codis
fn main() {}
