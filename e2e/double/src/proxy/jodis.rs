//! jodis (§8.7): a node in a coordinator tells clients that this proxy is online; it goes with the proxy.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::config::ProxyConfig;
use crate::http::pretty;
use crate::stop::Stop;
use crate::store::Coordinator;
use crate::wire::Proxy;

/// The longest pause between two tries to make the node.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A proxy's node.
#[derive(Debug)]
pub struct Jodis {
    coordinator: Coordinator,
    path: String,
    text: Vec<u8>,
    lifetime: Duration,
    pause: Duration,
}

/// Where the node of a proxy is; empty without `jodis_addr`.
pub fn path(config: &ProxyConfig, token: &str) -> String {
    let product = &config.product_name;
    match (config.jodis_addr.as_str(), config.jodis_compatible) {
        ("", _) => String::new(),
        (_, true) => format!("/zk/codis/db_{product}/proxy/{token}"),
        (_, false) => format!("/jodis/{product}/proxy-{token}"),
    }
}

impl Jodis {
    /// The node of a proxy, if it is configured to have one; nothing is connected to yet.
    pub fn of(config: &ProxyConfig, model: &Proxy, pause: Duration) -> Result<Option<Self>> {
        if config.jodis_addr.is_empty() {
            return Ok(None);
        }
        let lifetime = config.jodis_timeout.0;
        let (name, addr, auth) = (&config.jodis_name, &config.jodis_addr, &config.jodis_auth);
        let told = json!({
            "addr": model.proxy_addr,
            "admin": model.admin_addr,
            "start": model.start_time,
            "state": "online",
            "token": model.token,
        });
        Ok(Some(Self {
            coordinator: Coordinator::open_for(name, addr, auth, lifetime)?,
            path: model.jodis_path.clone(),
            text: pretty(&told)?,
            lifetime,
            pause,
        }))
    }

    /// Makes the node, again whenever it is lost, and deletes it in the end. A node that another process has made is
    /// left alone until it has expired.
    pub async fn keep(&self, stop: &Stop) {
        let mut pause = self.pause;
        while !stop.is_raised() {
            // Never cut off: a node that was made unnoticed would not be deleted.
            let made = self.coordinator.lend(&self.path, &self.text, self.lifetime).await;
            if let Err(error) = made {
                tracing::warn!("jodis create node {} failed: {error}", self.path);
                stop.unless(tokio::time::sleep(pause)).await;
                pause = LONGEST_PAUSE.min(2 * pause);
                continue;
            }
            tracing::warn!("jodis create node {}", self.path);
            pause = self.pause;
            match stop.unless(self.coordinator.renew(&self.path, self.lifetime)).await {
                Some(()) => tracing::warn!("jodis lost node {}", self.path),
                None => self.remove().await,
            }
        }
    }

    async fn remove(&self) {
        if let Err(error) = self.coordinator.delete(&self.path).await {
            tracing::warn!("jodis remove node {} failed: {error}", self.path);
        }
    }
}
