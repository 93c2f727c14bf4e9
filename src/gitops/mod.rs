//! Specs from Git and from directories.

pub mod git;
