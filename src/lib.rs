//! codis-operator.
