//! Logs as Codis writes them (§14): `2026/11/22 16:02:37 file.rs:78: [WARN] text`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The level of a process's log; `loglevel` calls change it.
#[derive(Debug, Clone)]
pub struct LogLevel(Arc<AtomicU8>);

impl Default for LogLevel {
    fn default() -> Self {
        Self(Arc::new(AtomicU8::new(3)))
    }
}

impl LogLevel {
    /// Sets it by Codis's name for it, in any case; tells whether there is such a level.
    pub fn set(&self, name: &str) -> bool {
        let level = match name.to_uppercase().as_str() {
            "NONE" => 0,
            "ERROR" => 1,
            "WARN" | "WARNING" => 2,
            "INFO" => 3,
            "DEBUG" => 4,
            _ => return false,
        };
        self.0.store(level, Ordering::Relaxed);
        true
    }

    fn allows(&self, level: &Level) -> bool {
        let rank = match *level {
            Level::ERROR => 1,
            Level::WARN => 2,
            Level::INFO => 3,
            Level::DEBUG => 4,
            Level::TRACE => 5,
        };
        rank <= self.0.load(Ordering::Relaxed)
    }
}

struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let (meta, now) = (event.metadata(), jiff::Zoned::now());
        let file = meta.file().and_then(|path| path.rsplit('/').next()).unwrap_or("?");
        write!(
            out,
            "{} {file}:{}: [{}] ",
            now.strftime("%Y/%m/%d %H:%M:%S"),
            meta.line().unwrap_or(0),
            meta.level()
        )?;
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// Opens `<file>.YYYY-MM-DD` for every line, so that the log rolls at midnight.
struct Daily(PathBuf);

impl<'a> MakeWriter<'a> for Daily {
    type Writer = Box<dyn Write>;

    fn make_writer(&'a self) -> Self::Writer {
        match self.today() {
            Ok(file) => Box::new(file),
            Err(_) => Box::new(io::stderr()),
        }
    }
}

impl Daily {
    fn today(&self) -> io::Result<File> {
        if let Some(folder) = self.0.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let path = format!("{}.{}", self.0.display(), jiff::Zoned::now().strftime("%Y-%m-%d"));
        OpenOptions::new().create(true).append(true).open(path)
    }
}

/// Starts the log of this process, to stderr or to daily files.
pub fn start(file: Option<&str>, level: &LogLevel) {
    let allowed = level.clone();
    let filter = tracing_subscriber::filter::dynamic_filter_fn(move |meta, _| {
        allowed.allows(meta.level()) && meta.target().starts_with("codis_double")
    });
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).event_format(Lines);
    let started = match file {
        Some(file) => tracing_subscriber::registry()
            .with(filter)
            .with(lines.with_writer(Daily(file.into())))
            .try_init(),
        None => tracing_subscriber::registry()
            .with(filter)
            .with(lines.with_writer(io::stderr))
            .try_init(),
    };
    if started.is_err() {
        eprintln!("a log had been started before");
    }
}
