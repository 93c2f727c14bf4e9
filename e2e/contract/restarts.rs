//! The coordinator is away for a while.

use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::{
    masters::{PAUSE, judged, writer},
    wait::{secs, wait_for},
    world::{World, group, short},
};

/// The coordinator crashes: traffic and reads go on, writes of the topology are refused; afterwards all is as before.
pub async fn without_coordinator(world: &mut World) -> Result<String> {
    let Some(server) = &world.coordinator.server else {
        return Ok("a folder is no server".to_owned());
    };
    let writer = writer(world, "coordinator").await?;
    let before = world.topology().await?;
    server.crash().await?;
    let (spare, began) = (group(9)?, Instant::now());
    let refused = world.door.create_group(spare).await;
    let Err(refused) = refused else {
        bail!("a group was made without a coordinator");
    };
    let during = world.topology().await?;
    ensure!(
        during.groups == before.groups && during.slots == before.slots,
        "{}",
        short(&during)
    );
    wait_for("writes in every group", PAUSE, async || writer.all_since(began)).await?;

    if let Some(server) = &mut world.coordinator.server {
        server.revive().await?;
    }
    world.coordinator.answers().await?;
    wait_for("the dashboard to write again", secs(60), async || {
        Ok(world.door.create_group(spare).await?)
    })
    .await?;
    let away = began.elapsed().as_secs_f64();
    world.door.remove_group(spare).await?;
    ensure!(world.lock().await?.is_some(), "the lock is gone");
    let after = world
        .until("the same topology", |now| {
            now.groups == before.groups && now.slots == before.slots
        })
        .await?;
    let (seen, written) = judged(world, writer).await?;
    ensure!(written.failed == 0, "clients saw errors: {:?}", written.errors);
    Ok(format!(
        "meanwhile: {refused}; the dashboard wrote again after {away:.1} s; {seen}; {}",
        short(&after)
    ))
}
