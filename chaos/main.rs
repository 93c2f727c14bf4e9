//! The chaos suite: parts of a Codis cluster are killed under a writer, and it heals by itself.
//!
//! A fault is a type (`faults`), an invariant a function (`invariants`), a scenario a row (`scenarios`); the report is a
//! table. One cluster for each kind of storage is reused by all its rows. `make chaos ONLY=volumes` runs one of them;
//! past `CHAOS_DEADLINE_EPOCH` (seconds since 1970) the rest of the rows is skipped, loudly.

mod faults;
mod invariants;
mod outcome;
mod report;
mod scenarios;
#[path = "../e2e/support/mod.rs"]
mod support;

use std::process::ExitCode;

use anyhow::Result;
use support::runner::Runner;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut runner = Runner::new("chaos").await?;
    let mut report = report::Report::default();
    for storage in [scenarios::Storage::Volumes, scenarios::Storage::EmptyDir] {
        let name = format!("kills, data on {}", storage.name());
        runner
            .story(&name, async |story| scenarios::run(story, storage, &mut report).await)
            .await;
    }
    report.print();
    Ok(runner.finish())
}
