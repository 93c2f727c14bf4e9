//! Containers, by the crate testcontainers: made from images that are on the machine, removed with their owner.
//!
//! A container is a machine here, on which programs are started, killed and started again: its address and its files
//! stay. Its first process only waits.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{CmdWaitFor, ExecCommand, client::docker_client_instance},
    runners::AsyncRunner,
};

use crate::wait::{secs, wait_for};

/// Where files of ours are, and what programs print.
pub const FOLDER: &str = "/contract";
/// A shell as process 1 ignores SIGTERM unless told otherwise. It ends by itself one day: nobody needs a machine for
/// longer, not even a test that was killed.
const IDLE: &str = "trap 'exit 0' TERM; sleep 1200 & wait $!";
/// How long a command may take.
const PATIENCE: Duration = secs(60);

/// A container.
pub struct Machine {
    container: ContainerAsync<GenericImage>,
    /// Its address in the private network, which this machine reaches, too.
    pub ip: IpAddr,
}

/// Why nothing can be tested: no engine, or images that aren't there. Nothing is pulled.
pub async fn obstacle(images: &[String]) -> Option<String> {
    let engine = match docker_client_instance().await {
        Ok(engine) => engine,
        Err(error) => return Some(format!("no Docker engine: {error}")),
    };
    if let Err(error) = engine.ping().await {
        return Some(format!("no Docker engine answers: {error}"));
    }
    for image in images {
        if let Err(error) = engine.inspect_image(image).await {
            return Some(format!("no image {image} (`make images` makes ours): {error}"));
        }
    }
    None
}

impl Machine {
    /// A machine that does nothing yet.
    pub async fn idle(image: &str, network: &str, name: &str, files: &[(&str, String)]) -> Result<Self> {
        let request = request(image, network, name).with_cmd(["sh", "-c", IDLE]);
        let request = files.iter().fold(request, |request, (file, text)| {
            request.with_copy_to(format!("{FOLDER}/{file}"), text.clone().into_bytes())
        });
        Self::up(request.start().await.context(name.to_owned())?).await
    }

    /// A container that does what its image is for.
    pub async fn of_image(image: &str, network: &str, name: &str) -> Result<Self> {
        Self::up(request(image, network, name).start().await.context(name.to_owned())?).await
    }

    async fn up(container: ContainerAsync<GenericImage>) -> Result<Self> {
        let ip = container.get_bridge_ip_address().await?;
        Ok(Self { container, ip })
    }

    /// Starts a program in the background, under a name that [`Self::signal`] takes.
    pub async fn run(&self, name: &str, command: &str) -> Result<()> {
        let script = format!(
            "cd {FOLDER}; rm -f {name}.code; \
             (sh -c 'echo $$ >{name}.pid; exec {command}'; echo $? >{name}.code) >>{name}.log 2>&1 </dev/null &"
        );
        self.sh(&script).await.map(drop)
    }

    /// Signals a program and, where that ends it, waits for its end.
    pub async fn signal(&self, name: &str, signal: &str) -> Result<()> {
        self.sh(&format!("kill -{signal} $(cat {FOLDER}/{name}.pid)")).await?;
        self.ended(name, secs(20)).await.map(drop)
    }

    /// The exit code of a program, once it has ended.
    pub async fn ended(&self, name: &str, limit: Duration) -> Result<String> {
        wait_for(&format!("the end of {name}"), limit, async || {
            let code = self.sh(&format!("cat {FOLDER}/{name}.code")).await?;
            Ok(code.trim().to_owned())
        })
        .await
    }

    /// The last lines that a program printed.
    pub async fn log(&self, name: &str, lines: usize) -> String {
        let tail = self.sh(&format!("tail -n {lines} {FOLDER}/{name}.log")).await;
        tail.unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Runs a shell command to its end and gives what it printed.
    pub async fn sh(&self, script: &str) -> Result<String> {
        let done = tokio::time::timeout(PATIENCE, self.exec(script)).await;
        done.with_context(|| format!("{script}: no end after {} s", PATIENCE.as_secs()))?
    }

    async fn exec(&self, script: &str) -> Result<String> {
        let command = ExecCommand::new(["sh", "-c", script]).with_cmd_ready_condition(CmdWaitFor::exit());
        let mut done = self.container.exec(command).await?;
        let printed = String::from_utf8_lossy(&done.stdout_to_vec().await?).into_owned();
        let complaints = String::from_utf8_lossy(&done.stderr_to_vec().await?).into_owned();
        let code = done.exit_code().await?;
        ensure!(
            code == Some(0),
            "{script}: {code:?} {} {}",
            printed.trim(),
            complaints.trim()
        );
        Ok(printed)
    }

    /// Stops the whole container as a crash would.
    pub async fn crash(&self) -> Result<()> {
        Ok(self.container.stop_with_timeout(Some(0)).await?)
    }

    /// Starts it again, with the files that it had.
    pub async fn revive(&mut self) -> Result<()> {
        self.container.start().await?;
        self.ip = self.container.get_bridge_ip_address().await?;
        Ok(())
    }
}

fn request(image: &str, network: &str, name: &str) -> testcontainers::ContainerRequest<GenericImage> {
    // The tag is after the last colon that is no registry's port.
    let (repository, tag) = match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (image, "latest"),
    };
    GenericImage::new(repository, tag)
        .with_network(network)
        .with_container_name(format!("{network}-{name}"))
        .with_startup_timeout(PATIENCE)
        .with_label("codis.k8s.io/suite", "contract")
}
