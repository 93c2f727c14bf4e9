//! `codis-git-server`: Git repositories over HTTP, for tests in a cluster. Faults by `POST /-/fault/<name>/<fault>`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use codis_git_server::{GitServer, Options, create_repository};
use tokio::signal::unix::{SignalKind, signal};

/// A Git server for tests. Everybody may push, and everybody may make it fail.
#[derive(Parser)]
#[command(name = "codis-git-server", version)]
struct Arguments {
    /// Where it listens.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: String,
    /// The directory of the repositories; it must be writable.
    #[arg(long)]
    root: PathBuf,
    /// Makes this repository unless it's there.
    #[arg(long)]
    repo: Vec<String>,
    /// USER:PASSWORD that requests must have.
    #[arg(long, env = "BASIC_AUTH")]
    basic_auth: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    for name in &arguments.repo {
        create_repository(&arguments.root, name).with_context(|| format!("repository {name}"))?;
    }
    let basic_auth = match &arguments.basic_auth {
        None => None,
        Some(text) => {
            let (user, password) = text.split_once(':').context("--basic-auth isn't USER:PASSWORD")?;
            Some((user.to_owned(), password.to_owned()))
        }
    };
    let options = Options {
        basic_auth,
        ..Options::default()
    };
    let server = GitServer::start(&arguments.listen, &arguments.root, options).await?;
    println!("listening on {}", server.address());
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
