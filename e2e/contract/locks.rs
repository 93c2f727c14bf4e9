//! The lock: who holds it, who is refused, and how it is broken (contract §10).

use anyhow::{Context, Result, ensure};
use codis_operator::domain::DashboardView;
use serde_json::Value;

use crate::{
    engine::FOLDER,
    wait::{secs, wait_for},
    world::{PRODUCT, World},
};

/// The port of a second dashboard on the same machine.
const RIVAL: u16 = 18_081;

/// A dashboard takes the lock, which tells where it is, and answers 200 then.
pub async fn taken(world: &World) -> Result<String> {
    ensure!(
        world.lock().await?.is_none(),
        "there is a lock before the first dashboard"
    );
    world.start_dashboard("").await?;
    world.until("the dashboard to hold its lock", |_| true).await?;
    let lock: Value = serde_json::from_str(&world.lock().await?.context("no lock")?)?;
    let own = world.door.peer().to_string();
    ensure!(lock["admin_addr"] == own, "the lock names {}", lock["admin_addr"]);
    // A product with neither groups nor proxies doesn't exist for codis-admin, lock or no lock.
    let unknown = wait_for("codis-admin's word on an empty product", secs(30), async || {
        let dump = world.admin(&format!("--config-dump {}", world.in_store())).await;
        let why = dump.err().context("an empty product is dumped")?.to_string();
        ensure!(why.contains(&format!("cann't find product = {PRODUCT} ")), "{why}");
        Ok(why)
    })
    .await?;
    let listed = listed(world, &own).await?;
    let unknown = unknown
        .lines()
        .find(|line| line.contains("cann't find"))
        .unwrap_or_default();
    Ok(format!(
        "the lock names {own}; --dashboard-list: {listed}; --config-dump: {}",
        unknown.trim()
    ))
}

/// What `codis-admin --dashboard-list` says, which the operator's entry script reads; the product must have this holder.
async fn listed(world: &World, holder: &str) -> Result<String> {
    // A folder is shared with the dashboard, whose short locks on it make others fail (contract §10).
    wait_for("the product and its holder in the list", secs(30), async || {
        let flag = world.coordinator.flag();
        let listed = world.admin(&format!("--dashboard-list {flag}")).await?;
        let listed: String = listed.split_whitespace().collect();
        let row = format!("{{\"name\":\"{PRODUCT}\",\"dashboard\":\"{holder}\"}}");
        ensure!(listed.contains(&row), "--dashboard-list says {listed}");
        Ok(listed)
    })
    .await
}

/// A second dashboard answers 800 and never gets the lock. It goes on trying while the next steps run.
pub async fn refused(world: &World) -> Result<String> {
    let host = format!("{}:{RIVAL}", world.dashboard.ip);
    let command = format!("codis-dashboard --ncpu=1 -c {FOLDER}/rival.toml --host-admin={host}");
    world.dashboard.run("rival", &command).await?;
    let seen = wait_for("the rival to answer", secs(30), async || {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client.get(format!("http://{host}/topom")).send().await?;
        let (status, body) = (answer.status().as_u16(), answer.text().await?);
        Ok(format!(
            "{status} {}",
            body.split_whitespace().collect::<Vec<_>>().join(" ")
        ))
    })
    .await?;
    ensure!(
        seen.starts_with("800 ") && seen.contains("topom is not online"),
        "the second dashboard answers {seen}"
    );
    world.topology().await?;
    Ok(format!(
        "the second dashboard: {}",
        seen.chars().take(70).collect::<String>()
    ))
}

/// The second dashboard has given up by itself; the first one never noticed.
pub async fn gave_up(world: &World) -> Result<String> {
    let code = world.dashboard.ended("rival", secs(60)).await?;
    ensure!(code == "1", "the second dashboard ended with {code}");
    world.topology().await?;
    let lock = world.lock().await?.context("no lock")?;
    ensure!(lock.contains(&world.door.peer().to_string()), "the lock is {lock}");
    Ok(format!(
        "exit code {code}; it said: {}",
        world.dashboard.log("rival", 1).await.trim()
    ))
}

/// A killed dashboard leaves its lock, and waits for it when it starts again, until `codis-admin --remove-lock`; one that
/// is started with `--remove-lock` waits for nobody. Either way it finds everything again.
pub async fn broken(world: &World) -> Result<String> {
    let before = world.topology().await?;
    world.dashboard.signal("dashboard", "KILL").await?;
    ensure!(world.lock().await?.is_some(), "a kill released the lock");
    world.start_dashboard("").await?;
    wait_for(
        "the dashboard to wait for its old lock",
        secs(30),
        async || match world.door.dashboard().await {
            DashboardView::Unavailable(why) if why == "waits for its lock" => Ok(()),
            other => anyhow::bail!("{other:?}"),
        },
    )
    .await?;
    world.admin(&format!("--remove-lock {}", world.in_store())).await?;
    world
        .until("the dashboard after its lock was removed", |_| true)
        .await?;

    world.dashboard.signal("dashboard", "KILL").await?;
    world.start_dashboard("--remove-lock").await?;
    let after = world
        .until("the same topology", |now| {
            now.groups == before.groups && now.slots == before.slots
        })
        .await?;
    let tokens = |topology: &codis_operator::domain::Topology| {
        let mut all: Vec<String> = topology.proxies.iter().map(|proxy| proxy.token.clone()).collect();
        all.sort();
        all
    };
    ensure!(tokens(&after) == tokens(&before), "other proxies: {:?}", after.proxies);
    ensure!(
        after.sentinels.servers == before.sentinels.servers,
        "other sentinels: {:?}",
        after.sentinels
    );
    Ok(format!(
        "killed twice, and each time the same: {}",
        crate::world::short(&after)
    ))
}

/// A clean end releases the lock.
pub async fn released(world: &World) -> Result<String> {
    world
        .admin(&format!("--dashboard={} --shutdown", world.door.peer()))
        .await?;
    let code = world.dashboard.ended("dashboard", secs(30)).await?;
    ensure!(code == "0", "it ended with {code}");
    ensure!(world.lock().await?.is_none(), "the lock is still there");
    // The product stays in the list, with nobody as its holder.
    let listed = listed(world, "").await?;
    Ok(format!("exit code {code}, no lock; --dashboard-list: {listed}"))
}
