//! What happens to data under a writer: slots move, masters are handed over, masters die.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use codis_operator::domain::{Address, SlotId, Topology};

use crate::{
    serving::{all_there, follows},
    wait::{secs, wait_for},
    world::{SESSION, World, group, short},
    writer::{Writer, Written},
};

/// How long clients may wait while something is done to their group.
pub const PAUSE: Duration = secs(20);
/// How many slots move.
const MOVED: u64 = 32;

/// Begins to write to every group.
pub async fn writer(world: &World, run: &str) -> Result<Writer> {
    let topology = world.topology().await?;
    let owners = topology
        .slots
        .iter()
        .map(|slot| slot.group.map_or(0, |group| i64::from(group.get())));
    Writer::start(world.clients_of(0), SESSION, &owners.collect::<Vec<_>>(), run).await
}

/// What became of the writes, read back through the other proxy. None that was acknowledged may be lost.
pub async fn judged(world: &World, writer: Writer) -> Result<(String, Written)> {
    let written = writer.stop().await?;
    let lost = written.read_back(world.clients_of(1), SESSION).await?;
    let seen = format!(
        "{} acknowledged, {} lost, {} failed, {} unknown, longest pause {} ms",
        written.acknowledged.len(),
        lost.len(),
        written.failed,
        written.unknown,
        written.longest_gap.as_millis()
    );
    ensure!(lost.is_empty(), "{seen}: {lost:?} {:?}", written.errors);
    Ok((seen, written))
}

/// Slots move to another group under a writer.
pub async fn slots_move(world: &World) -> Result<String> {
    let writer = writer(world, "moves").await?;
    let (began, to) = (Instant::now(), group(2)?);
    for slot in 0..MOVED {
        world.door.move_slot(SlotId::try_from(slot)?, to).await?;
    }
    let topology = world
        .until("the slots to have moved", |topology| {
            let (moved, rest) = topology.slots.split_at(MOVED as usize);
            moved.iter().all(|slot| slot.group == Some(to))
                && rest.iter().chain(moved).all(|slot| slot.moving.is_none())
        })
        .await?;
    let took = began.elapsed().as_secs_f64();
    let (seen, written) = judged(world, writer).await?;
    ensure!(written.failed == 0, "clients saw errors: {:?}", written.errors);
    all_there(world).await?;
    Ok(format!("{MOVED} slots in {took:.1} s; {seen}; {}", short(&topology)))
}

/// A master is handed over as the operator does it: locked, fenced, in step, promoted, demoted.
pub async fn handed_over(world: &World) -> Result<String> {
    let (door, id) = (&world.door, group(2)?);
    let topology = world.topology().await?;
    let (from, to) = (world.server(2), world.server(3));
    let proxies: Vec<(Address, String)> = topology
        .proxies
        .iter()
        .map(|proxy| (proxy.admin.clone(), proxy.token.clone()))
        .collect();
    let writer = writer(world, "promote").await?;
    let in_step = async || {
        door.replication_offsets(&from, &to, (Instant::now() + secs(2)).into())
            .await
    };
    ensure!(in_step().await?, "the replica isn't in step");
    door.set_migrations(false).await?;
    door.listen(&proxies, &[]).await?;
    door.lock_group(&proxies, id).await?;
    door.fence(&from).await?;
    let caught_up = in_step().await;
    let promoted = door.promote(id, &to).await;
    door.demote(&from, &to, 0).await?;
    door.set_migrations(true).await?;
    ensure!(caught_up?, "the replica didn't catch up");
    promoted?;
    follows(world, 2, 3).await?;
    wait_for("writes in every group", PAUSE, async || {
        writer.all_since(Instant::now() - secs(1))
    })
    .await?;
    let (seen, written) = judged(world, writer).await?;
    ensure!(written.failed == 0, "clients saw errors: {:?}", written.errors);
    for (admin, token) in &proxies {
        let locked = door.locked_slots(admin, token).await?;
        ensure!(locked.is_empty(), "{} slots are still locked at {admin}", locked.len());
    }
    let topology = world
        .until("the new master", |now| master_of(now, 2).as_ref() == Some(&to))
        .await?;
    all_there(world).await?;
    Ok(format!("{seen}; {}", short(&topology)))
}

fn master_of(topology: &Topology, number: u64) -> Option<Address> {
    topology.groups.get(&group(number).ok()?)?.master().cloned()
}

/// Three sentinels are told, and know masters, replicas and one another.
pub async fn watched(world: &World) -> Result<String> {
    for number in 0..world.sentinels.len() {
        world.door.add_sentinel(&world.sentinel(number)).await?;
    }
    world.door.resync_sentinels().await?;
    let all = || (0..world.sentinels.len()).map(|number| world.sentinel(number));
    wait_for("every sentinel to know all", secs(60), async || {
        for (address, view) in world.door.sentinels(all()).await {
            let view = view.map_err(|why| anyhow::anyhow!("{address}: {why}"))?;
            let knows = |master: &codis_operator::domain::SentinelMaster| {
                master.replicas == 1 && master.other_sentinels == 2 && master.flags == "master"
            };
            ensure!(
                view.masters.len() == 2 && view.masters.values().all(knows),
                "{address}: {view:?}"
            );
        }
        Ok(())
    })
    .await?;
    let topology = world
        .until("the sentinels' word at the dashboard and the proxies", |topology| {
            let listening = |sentinels: &Vec<String>| sentinels.len() == 3;
            !topology.sentinels.out_of_sync
                && topology.sentinels.masters.len() == 2
                && topology.proxies.iter().all(|proxy| listening(&proxy.sentinels))
        })
        .await?;
    Ok(format!(
        "three sentinels agree: {:?}",
        topology
            .sentinels
            .masters
            .values()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    ))
}

/// A master dies: the sentinels replace it, proxies and dashboard follow, a resync makes it official, and the old master
/// follows the new one when it is back.
pub async fn replaced(world: &World) -> Result<String> {
    let (door, id) = (&world.door, group(1)?);
    let (old, new) = (world.server(0), world.server(1));
    let writer = writer(world, "failover").await?;
    // Replication is asynchronous: what is in step now is what may be asked for afterwards.
    ensure!(
        door.replication_offsets(&old, &new, (Instant::now() + secs(5)).into())
            .await?,
        "the replica isn't in step"
    );
    let machine = world.machine_of(&old)?;
    let began = Instant::now();
    machine.signal("server", "KILL").await?;
    wait_for("writes in every group", secs(60), async || {
        writer.all_since(began + secs(1))
    })
    .await?;
    let written_after = began.elapsed().as_secs_f64();
    let topology = world
        .until("the dashboard's new order", |now| {
            master_of(now, 1).as_ref() == Some(&new)
        })
        .await?;
    let was_out_of_sync = topology.groups.get(&id).is_some_and(|group| group.out_of_sync);
    door.resync_group(id).await?;
    machine.run("server", "codis-server /contract/redis.conf").await?;
    wait_for("the old master to answer", secs(30), async || {
        Ok(door.sync_server(&old).await?)
    })
    .await?;
    follows(world, 0, 1).await?;
    let topology = world
        .until("a settled group", |now| {
            now.groups.values().all(codis_operator::domain::Group::is_settled)
                && now.proxies.iter().all(|proxy| proxy.online && !proxy.switched)
        })
        .await?;
    let written = writer.stop().await?;
    let lost = written.read_back(world.clients_of(1), SESSION).await?;
    all_there(world).await.context("keys from before")?;
    // The writes of the last moments before the kill may be lost, as with any redis.
    ensure!(
        lost.len() <= 50,
        "{} of {} are lost",
        lost.len(),
        written.acknowledged.len()
    );
    Ok(format!(
        "writes again after {written_after:.1} s, out of sync: {was_out_of_sync}; of {} acknowledged writes {} that weren't \
         replicated yet are lost; {}",
        written.acknowledged.len(),
        lost.len(),
        short(&topology)
    ))
}
