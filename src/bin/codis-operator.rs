//! codis-operator
fn main() {}
