//! The table at the end.

use std::time::Duration;

/// One scenario's figures.
pub struct Line {
    /// The row's name.
    pub name: String,
    /// The kind of storage.
    pub storage: &'static str,
    /// From the fault to a healthy cluster that takes writes; none when it didn't heal.
    pub healed: Option<Duration>,
    /// The longest time without an acknowledged write in some group.
    pub gap: Duration,
    /// Writes by what became of them.
    pub acknowledged: usize,
    pub failed: usize,
    pub unknown: usize,
    pub lost: usize,
    /// Whether every invariant held.
    pub passed: bool,
}

/// All lines.
#[derive(Default)]
pub struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Adds a line, and prints it at once.
    pub fn add(&mut self, line: Line) {
        println!("        {}", figures(&line));
        self.lines.push(line);
    }

    /// Prints the table.
    pub fn print(&self) {
        if self.lines.is_empty() {
            return;
        }
        println!("\n| kill | storage | healed (s) | longest gap (s) | acknowledged | failed | unknown | lost | held |");
        println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |");
        for line in &self.lines {
            let held = if line.passed { "yes" } else { "NO" };
            println!(
                "| {} | {} | {} | {:.1} | {} | {} | {} | {} | {held} |",
                line.name,
                line.storage,
                seconds(line.healed),
                line.gap.as_secs_f64(),
                line.acknowledged,
                line.failed,
                line.unknown,
                line.lost,
            );
        }
    }
}

fn figures(line: &Line) -> String {
    format!(
        "healed {} s, longest gap {:.1} s, writes: {} acknowledged, {} failed, {} unknown, {} lost",
        seconds(line.healed),
        line.gap.as_secs_f64(),
        line.acknowledged,
        line.failed,
        line.unknown,
        line.lost
    )
}

fn seconds(duration: Option<Duration>) -> String {
    duration.map_or_else(
        || "never".to_owned(),
        |duration| format!("{:.1}", duration.as_secs_f64()),
    )
}
