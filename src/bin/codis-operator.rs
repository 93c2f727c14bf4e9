//! The operator.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    codis_operator::cli::operator()
}
