//! `codis-operator demo`: the operator and its Git sources on a simulated Kubernetes, in real time and in this process.

mod origin;
mod own;
mod picture;
mod serve;
mod stage;
mod story;
mod tell;
mod temporary;
mod view;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::{stage::Stage, tell::Teller, temporary::Temporary};
use crate::simulation::on_a_deep_stack;

/// What is shown.
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Watch your own repository (or a plain folder) of specs instead of the example, until Ctrl-C.
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// Go on until Ctrl-C, and serve the embedded API server on loopback, for kubectl.
    #[arg(long)]
    serve: bool,
    /// Where it is served: an address of loopback. A free port by default.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: String,
    /// Write what was said to demo.txt and demo.svg in this folder.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
}

impl Demo {
    /// Shows it. A failure when the cluster didn't become healthy.
    pub(super) fn run(&self) -> Result<ExitCode> {
        on_a_deep_stack(|| self.within_a_runtime())?;
        Ok(ExitCode::SUCCESS)
    }

    fn within_a_runtime(&self) -> Result<()> {
        // The world has one thread.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let folder = Temporary::new()?;
        let done = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hang_up = signal(SignalKind::hangup())?;
            tokio::select! {
                done = self.all(&folder) => done,
                _ = terminate.recv() => Ok(()),
                _ = hang_up.recv() => Ok(()),
                told = tokio::signal::ctrl_c() => Ok(told?),
            }
        });
        // What still runs may use the folder: it ends first.
        drop(runtime);
        drop(folder);
        done
    }

    async fn all(&self, folder: &Temporary) -> Result<()> {
        let mut stage = Stage::new(Teller::new())?;
        story::introduction(&mut stage.teller);
        let config = match self.serve {
            true => Some(serve::serve(stage.world.api.clone(), &self.listen, folder.path()).await?),
            false => None,
        };
        if let Some(config) = &config {
            story::how_to_look(&mut stage.teller, config);
        }
        if let Some(repo) = &self.repo {
            return own::watch(&mut stage, repo, folder.path()).await;
        }
        let origin = story::play(&mut stage, folder.path()).await?;
        if let Some(folder) = &self.record {
            picture::write(folder, stage.teller.said())?;
        }
        if let Some(config) = &config {
            story::what_to_try(&mut stage.teller, config, &origin);
            // Commits that are pushed from now on are applied, too: the origin is still served.
            loop {
                stage.pass(Duration::from_secs(1)).await;
            }
        }
        Ok(())
    }
}
