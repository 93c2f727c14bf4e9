//! codis
