//! The operator's side of a worker: start it, ask, and have it gone at the deadline.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

use super::{
    Error, ErrorKind,
    job::{Answer, Done, Job},
};

/// The most that a worker may answer: 16 MiB of text twice over, and 2,000 names.
const ANSWER_CAP: u64 = 48 << 20;
/// The most that is read of a worker's complaints.
const COMPLAINT_CAP: u64 = 4 << 10;

/// Starts a worker, asks it, and waits until it's gone.
///
/// # Errors
/// The worker's own, or why it gave no answer.
pub(super) async fn run(program: &Path, job: &Job, timeout: Duration) -> Result<Done, Error> {
    let question = serde_json::to_vec(job).map_err(Error::worker)?;
    let mut child = command(program, job)
        .spawn()
        .map_err(|error| Error::worker(format!("{}: {error}", program.display())))?;
    let exchange = tokio::time::timeout(timeout, exchange(&mut child, &question)).await;
    // After its answer it has nothing left to do; before it, it's late. Either way nothing of it stays.
    let _ = child.start_kill();
    let status = child.wait().await;
    let (answer, complaint) = exchange.map_err(|_| late(timeout))?;
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| {
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let complaint = String::from_utf8_lossy(&complaint).trim().replace('\n', " ");
        Error::worker(format!("it gave no answer ({status}) {complaint}"))
    })?;
    answer
}

/// Nothing of the operator's environment, which may hold credentials and settings of OpenSSL and proxies.
fn command(program: &Path, job: &Job) -> Command {
    let mut command = Command::new(program);
    command
        .arg("git-worker")
        .env_clear()
        .env("HOME", job.home())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if job.secret.ca.is_some() {
        // Only those: an empty directory instead of the system's.
        command.env("SSL_CERT_FILE", job.ca_file());
        command.env("SSL_CERT_DIR", job.home().join("no-certificates"));
    } else {
        for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
    }
    command
}

/// The worker's answer and its complaints.
async fn exchange(child: &mut Child, question: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let ask = async {
        if let Some(mut stdin) = stdin {
            // If it's gone already, its answer is missing too, and that is said.
            let _ = stdin.write_all(question).await;
        }
    };
    let ((), answer, complaint) = tokio::join!(ask, read(stdout, ANSWER_CAP), read(stderr, COMPLAINT_CAP));
    (answer, complaint)
}

/// What comes until the end, or until there's too much.
async fn read(pipe: Option<impl AsyncRead + Unpin>, cap: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What an error cut off isn't JSON any more.
        let _ = pipe.take(cap).read_to_end(&mut bytes).await;
    }
    bytes
}

fn late(after: Duration) -> Error {
    let text = format!(
        "Git took longer than {} s and was stopped: check the server and the network, or make the repository smaller",
        after.as_secs_f32()
    );
    Error::new(ErrorKind::Timeout, text)
}
