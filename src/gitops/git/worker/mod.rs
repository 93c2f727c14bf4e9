//! The worker: one call of libgit2 in a process of its own. It reads a job from standard input and writes the answer
//! to standard output; errors are answers too.

mod connection;
mod read;
mod store;

use std::{
    fs, io,
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    process::ExitCode,
};

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use self::{connection::Connection, store::Store};
use super::{
    Error,
    job::{Answer, Done, Job, Task},
};

/// Memory, bytes. Packs are mapped from files and don't count; what they unpack to does.
const MEMORY: u64 = 192 << 20;
/// The largest file, bytes.
const FILE: u64 = 256 << 20;
/// The largest question, bytes.
const QUESTION_CAP: u64 = 16 << 20;

/// What `codis-operator git-worker` does. It fails only if it can't answer.
#[must_use]
pub fn worker() -> ExitCode {
    let answer = limit().map_err(Error::worker).and_then(|()| work());
    let written = serde_json::to_vec(&answer)
        .map_err(io::Error::other)
        .and_then(|answer| io::stdout().lock().write_all(&answer));
    if written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A hostile pack must not take the operator's container with it, and nothing must outlive the operator.
fn limit() -> io::Result<()> {
    let both = |limit| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    // The end of the thread that started it counts; the operator's runtime keeps its threads.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    setrlimit(Resource::Core, both(0))?;
    setrlimit(Resource::Data, both(MEMORY))?;
    setrlimit(Resource::Fsize, both(FILE))?;
    Ok(())
}

fn work() -> Answer {
    let mut question = Vec::new();
    io::stdin()
        .lock()
        .take(QUESTION_CAP)
        .read_to_end(&mut question)
        .map_err(Error::worker)?;
    let job: Job = serde_json::from_slice(&question).map_err(Error::worker)?;
    prepare(&job).map_err(|error| Error::worker(format!("{}: {error}", job.directory.display())))?;
    let connection = Connection::new(&job);
    match &job.task {
        Task::Tip => connection.tip().map(Done::Tip),
        Task::Fetch {
            tip,
            since,
            read,
            path,
            known,
        } => {
            let want = store::Want::new(tip, since.as_deref(), read)?;
            Store::new(&job)
                .and_then(|store| store.fetch(&connection, &want, path, known))
                .map(Done::Fetched)
        }
    }
}

/// Writes what libgit2 and OpenSSL take from files. It must be there before the first call into libgit2.
fn prepare(job: &Job) -> io::Result<()> {
    private_directory(&job.home().join(".ssh"))?;
    private_directory(&job.home().join("no-certificates"))?;
    if let Some(hosts) = &job.secret.known_hosts {
        private_file(&job.home().join(".ssh/known_hosts"), &with_end(hosts))?;
    }
    if let Some(ca) = &job.secret.ca {
        private_file(&job.ca_file(), &with_end(ca))?;
    }
    Ok(())
}

/// The last line must have an end, or it isn't read.
fn with_end(text: &str) -> String {
    format!("{}\n", text.trim_end())
}

fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn private_file(path: &Path, content: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content.as_bytes())
}
