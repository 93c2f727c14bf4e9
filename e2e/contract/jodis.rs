//! Where Java clients look for proxies: nodes of the coordinator (contract §8.7).

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    coordinator::Kind,
    wait::{secs, wait_for},
    world::{PRODUCT, World},
};

/// Every proxy that is online has its node for clients that know jodis.
pub async fn registered(world: &World) -> Result<String> {
    if world.coordinator.kind == Kind::Filesystem {
        return Ok("a folder has no jodis".to_owned());
    }
    let mut seen = Vec::new();
    for proxy in world.topology().await?.proxies {
        let path = node_of(&proxy.token);
        let text = wait_for("the node of jodis", secs(30), async || {
            world.stored(&path).await?.with_context(|| format!("no {path}"))
        })
        .await?;
        let node: Value = serde_json::from_str(&text)?;
        let clients = format!("{}:19000", proxy.admin.host());
        ensure!(
            node["addr"] == clients && node["state"] == "online" && node["token"] == proxy.token,
            "{path}: {text}"
        );
        seen.push(clients);
    }
    ensure!(seen.len() == 2, "{seen:?}");
    Ok(format!("nodes with the addresses {seen:?}"))
}

/// The node goes with its proxy: at once when it ends, after its time when it is killed.
pub async fn unregistered(world: &World) -> Result<String> {
    let topology = world.topology().await?;
    let mut took = Vec::new();
    for (number, signal) in [(0, "KILL"), (1, "TERM")] {
        let ip = world.proxies[number].ip.to_string();
        let record = topology.proxies.iter().find(|proxy| proxy.admin.host() == ip);
        let record = record.context("no record")?;
        world.proxies[number].signal("proxy", signal).await?;
        let began = std::time::Instant::now();
        if world.coordinator.kind != Kind::Filesystem {
            wait_for("the node to go", secs(60), async || {
                let left = world.stored(&node_of(&record.token)).await?;
                ensure!(left.is_none(), "{left:?}");
                Ok(())
            })
            .await?;
        }
        took.push(format!("{signal}: {:.1} s", began.elapsed().as_secs_f64()));
        // It would block whatever the dashboard does next.
        world.door.remove_proxy(&record.token).await?;
    }
    world
        .until("no records", |topology| topology.proxies.is_empty())
        .await?;
    Ok(format!("gone after {took:?}, and so are their records"))
}

fn node_of(token: &str) -> String {
    format!("/jodis/{PRODUCT}/proxy-{token}")
}
