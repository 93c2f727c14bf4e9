//! The three coordinators: a folder of the dashboard's machine, and containers with etcd and zookeeper.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use zookeeper_client::Client;

use crate::{
    engine::Machine,
    wait::{secs, wait_for},
};

/// The folder on the dashboard's machine.
const FOLDER: &str = "/data/codis";

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Filesystem,
    /// etcd, by its v2 keys API.
    Etcd,
    /// zookeeper.
    Zookeeper,
}

impl Kind {
    /// `coordinator_name`, and the flag.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::Etcd => "etcd",
            Self::Zookeeper => "zookeeper",
        }
    }

    /// The image of its server.
    pub fn image(self) -> Option<String> {
        let given = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        match self {
            Self::Filesystem => None,
            Self::Etcd => Some(given("ETCD_IMAGE", "codis-etcd:dev")),
            Self::Zookeeper => Some(given("ZOOKEEPER_IMAGE", "codis-zookeeper:dev")),
        }
    }

    fn port(self) -> u16 {
        if self == Self::Etcd { 2379 } else { 2181 }
    }
}

/// A coordinator.
pub struct Coordinator {
    /// Which one.
    pub kind: Kind,
    /// What Codis is told: by name, because an address may change when a container starts again.
    pub address: String,
    /// Its server.
    pub server: Option<Machine>,
}

impl Coordinator {
    /// Starts a server where there is one, and waits until it answers.
    pub async fn start(kind: Kind, network: &str) -> Result<Self> {
        let Some(image) = kind.image() else {
            return Ok(Self {
                kind,
                address: FOLDER.to_owned(),
                server: None,
            });
        };
        let server = Machine::of_image(&image, network, kind.name()).await?;
        let coordinator = Self {
            kind,
            address: format!("{network}-{}:{}", kind.name(), kind.port()),
            server: Some(server),
        };
        coordinator.answers().await?;
        Ok(coordinator)
    }

    /// Waits until it answers.
    pub async fn answers(&self) -> Result<()> {
        wait_for("the coordinator to answer", secs(60), async || self.probe().await).await
    }

    async fn probe(&self) -> Result<()> {
        match self.kind {
            Kind::Filesystem => {}
            Kind::Etcd => {
                let health: Value = get(&self.url("/health")?).await?.error_for_status()?.json().await?;
                anyhow::ensure!(health["health"] == "true", "{health}");
            }
            Kind::Zookeeper => drop(self.zookeeper().await?),
        }
        Ok(())
    }

    /// `--etcd=host:port`.
    pub fn flag(&self) -> String {
        format!("--{}={}", self.kind.name(), self.address)
    }

    /// What a node holds, asked past Codis; none: there is no such node. `dashboard` has the folder.
    pub async fn text(&self, dashboard: &Machine, path: &str) -> Result<Option<String>> {
        match self.kind {
            Kind::Filesystem => {
                let file = format!("{FOLDER}/data{path}");
                let text = dashboard.sh(&format!("if [ -e {file} ]; then cat {file}; fi")).await?;
                Ok(Some(text).filter(|text| !text.is_empty()))
            }
            Kind::Etcd => {
                let answer = get(&self.url(&format!("/v2/keys{path}"))?).await?;
                if answer.status() == 404 {
                    return Ok(None);
                }
                let answer: Value = answer.error_for_status()?.json().await?;
                Ok(answer["node"]["value"].as_str().map(str::to_owned))
            }
            Kind::Zookeeper => match self.zookeeper().await?.get_data(path).await {
                Ok((data, _)) => Ok(Some(String::from_utf8(data)?)),
                Err(zookeeper_client::Error::NoNode) => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    fn url(&self, path: &str) -> Result<String> {
        Ok(format!("http://{}{path}", self.reachable()?))
    }

    fn reachable(&self) -> Result<String> {
        let server = self.server.as_ref().context("a folder has no address")?;
        Ok(format!("{}:{}", server.ip, self.kind.port()))
    }

    async fn zookeeper(&self) -> Result<Client> {
        let address = self.reachable()?;
        let connecting = Client::connector().with_fail_eagerly().connect(&address);
        Ok(tokio::time::timeout(secs(5), connecting).await??)
    }
}

async fn get(url: &str) -> Result<reqwest::Response> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5));
    Ok(client.build()?.get(url).send().await?)
}
