//! `codis-operator`: run, manifests, and the worker it starts itself.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use super::{demo::Demo, manifests, simulate::Simulate};
use crate::{
    controller::{self, Settings},
    gitops::{self, git},
    telemetry::LogOptions,
};

/// The stacks of the worker threads, in bytes. A pass is deep, and so are its frames in a build without optimizations.
const STACK: usize = 8 << 20;

/// Runs Codis clusters on Kubernetes.
#[derive(Parser)]
#[command(name = "codis-operator", version)]
struct Arguments {
    #[command(flatten)]
    logs: LogOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    Run {
        /// Where health and metrics are served.
        #[arg(long, default_value = "0.0.0.0:8080")]
        listen: String,
        /// The namespace of the Lease.
        #[arg(long, env = "POD_NAMESPACE", default_value = "codis-system")]
        namespace: String,
        /// This process among the candidates for the Lease.
        #[arg(long, env = "POD_NAME")]
        identity: Option<String>,
        /// Run the stand-in for Codis too. For tests and demonstrations: it keeps no promise of Codis's.
        #[arg(long)]
        allow_stand_in: bool,
        /// A folder of cluster specs that is a source like a Git repository: applied, and applied again when it changes.
        #[arg(long, value_name = "DIR")]
        watch_dir: Option<PathBuf>,
        /// The namespace of the clusters of --watch-dir.
        #[arg(long, value_name = "NAMESPACE", default_value = "default")]
        watch_dir_namespace: String,
    },
    /// Write the generated part of deploy/.
    Manifests {
        /// The folder.
        #[arg(long, default_value = "deploy")]
        out: PathBuf,
    },
    /// Play seeded disasters in simulated worlds, and check that nothing is lost.
    Simulate(Simulate),
    /// Show a cluster that comes from Git, is killed and heals: in this process, without Docker or Kubernetes.
    Demo(Demo),
    /// One call of libgit2, from standard input to standard output. The operator starts it for itself.
    #[command(hide = true)]
    GitWorker,
}

/// The program `codis-operator`.
///
/// # Errors
/// What makes it end with a failure.
pub fn operator() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    match &arguments.command {
        // A worker has no runtime: the stacks of its threads would count towards the limit on memory.
        Command::GitWorker => return Ok(git::worker()),
        // Each world has one of its own.
        Command::Simulate(simulate) => return simulate.run(),
        Command::Demo(demo) => return demo.run(),
        _ => {}
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_stack_size(STACK).build()?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Run {
            listen,
            namespace,
            identity,
            allow_stand_in,
            watch_dir,
            watch_dir_namespace,
        } => {
            arguments.logs.start()?;
            let identity = identity.unwrap_or_else(|| format!("codis-operator-{}", std::process::id()));
            let gitops = gitops::Settings {
                program: std::env::current_exe().context("the path of this program")?,
                root: std::env::temp_dir().join(format!("codis-operator-{identity}")),
                watch_dir: watch_dir.map(|folder| (folder, watch_dir_namespace)),
            };
            controller::run(Settings {
                listen,
                namespace,
                identity,
                allow_stand_in,
                gitops,
            })
            .await?;
        }
        Command::Manifests { out } => manifests::write(&out)?,
        Command::GitWorker => return Ok(git::worker()),
        Command::Simulate(simulate) => return simulate.run(),
        Command::Demo(demo) => return demo.run(),
    }
    Ok(ExitCode::SUCCESS)
}
