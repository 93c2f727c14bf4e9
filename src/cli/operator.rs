//! `codis-operator`: run, manifests.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::manifests;
use crate::{
    controller::{self, Settings},
    telemetry::LogOptions,
};

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
    },
    /// Write the generated part of deploy/.
    Manifests {
        /// The folder.
        #[arg(long, default_value = "deploy")]
        out: PathBuf,
    },
}

/// The program `codis-operator`.
///
/// # Errors
/// What makes it end with a failure.
pub async fn operator() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Run {
            listen,
            namespace,
            identity,
            allow_stand_in,
        } => {
            arguments.logs.start()?;
            let identity = identity.unwrap_or_else(|| format!("codis-operator-{}", std::process::id()));
            controller::run(Settings {
                listen,
                namespace,
                identity,
                allow_stand_in,
            })
            .await
        }
        Command::Manifests { out } => manifests::write(&out),
    }
}
