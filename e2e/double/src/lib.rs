//! A stand-in for Codis 3.2.
