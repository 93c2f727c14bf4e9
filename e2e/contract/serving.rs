//! A product is made and used: groups, slots, proxies, clients, dumps, reads from replicas.

use anyhow::{Context, Result, ensure};
use codis_operator::domain::{Replication, ServerView, even_layout, slot_of_key};
use serde_json::Value;

use crate::{
    engine::Machine,
    resp::{Connection, Reply},
    wait::{secs, wait_for},
    world::{AUTH, SESSION, World, group, short},
};

/// How many keys are there before anything happens to them.
pub const KEYS: usize = 2_000;

/// Two groups of two, all slots, two proxies that register themselves.
pub async fn bootstrapped(world: &World) -> Result<String> {
    let door = &world.door;
    for number in [1, 2] {
        let id = group(number)?;
        door.create_group(id).await?;
        let first = usize::try_from(number - 1)? * 2;
        for server in [first, first + 1] {
            // A server that is still starting refuses the dashboard.
            wait_for("the server to be added", secs(30), async || {
                Ok(door.add_server(id, &world.server(server), None).await?)
            })
            .await?;
        }
        door.sync_server(&world.server(first + 1)).await?;
    }
    for (master, replica) in [(0, 1), (2, 3)] {
        follows(world, replica, master).await?;
    }
    door.assign_slots(&even_layout(&[group(1)?, group(2)?])).await?;
    door.resync_groups().await?;
    for number in 0..world.proxies.len() {
        world.start_proxy(number).await?;
    }
    let topology = world
        .until("all slots, settled groups and proxies", |topology| {
            topology.slots.iter().all(|slot| slot.group.is_some())
                && topology.groups.values().all(codis_operator::domain::Group::is_settled)
                && topology.proxies.iter().filter(|proxy| proxy.online).count() == 2
        })
        .await?;
    // Idempotent: the operator may say so again.
    for proxy in &topology.proxies {
        door.online_proxy(&proxy.admin).await?;
    }
    Ok(short(&world.topology().await?))
}

/// Waits until one server follows another with its link up.
pub async fn follows(world: &World, replica: usize, master: usize) -> Result<()> {
    let (replica, wished) = (world.server(replica), world.server(master));
    wait_for("the replica's link", secs(60), async || {
        match world.door.server(&replica).await {
            ServerView::Up {
                replication: Replication::Replica { master, link_up: true },
                ..
            } if master == wished => Ok(()),
            other => anyhow::bail!("{replica} says {other:?}"),
        }
    })
    .await
}

/// Clients write through one proxy and read through the other; the passwords are asked for, at proxies and servers.
pub async fn used(world: &World) -> Result<String> {
    let wrong = Connection::open(world.clients_of(0), "wrong", secs(5)).await;
    let wrong = wrong.err().context("a wrong password is taken")?;
    let server = std::net::SocketAddr::new(world.servers[0].ip, 6379);
    ensure!(
        Connection::open(server, SESSION, secs(5)).await.is_err(),
        "servers take the clients' password"
    );
    Connection::open(server, AUTH, secs(5)).await?;

    let mut client = world.client(0).await?;
    let keys = keys();
    for some in keys.chunks(500) {
        let commands: Vec<Vec<&[u8]>> = some
            .iter()
            .map(|key| vec![b"SET".as_slice(), key.as_bytes(), key.as_bytes()])
            .collect();
        let replies = client.pipeline(&commands).await?;
        let refused = replies.iter().find(|reply| !matches!(reply, Reply::Status(_)));
        ensure!(refused.is_none(), "{refused:?}");
    }
    all_there(world).await?;
    let mut counts = Vec::new();
    for master in [0, 2] {
        counts.push(count(world, master).await?);
    }
    ensure!(
        counts.iter().sum::<u64>() == KEYS as u64,
        "the masters have {counts:?} keys"
    );
    Ok(format!(
        "{KEYS} keys, {counts:?} at the masters; a wrong password: {wrong:#}"
    ))
}

fn keys() -> Vec<String> {
    (0..KEYS).map(|number| format!("bulk:{number}")).collect()
}

/// Every key is there, read through the other proxy.
pub async fn all_there(world: &World) -> Result<()> {
    let mut client = world.client(1).await?;
    let keys = keys();
    for some in keys.chunks(500) {
        let commands: Vec<Vec<&[u8]>> = some.iter().map(|key| vec![b"GET".as_slice(), key.as_bytes()]).collect();
        for (key, reply) in some.iter().zip(client.pipeline(&commands).await?) {
            let value = reply.into_text()?;
            ensure!(value.as_ref() == Some(key), "{key} is {value:?}");
        }
    }
    Ok(())
}

async fn count(world: &World, server: usize) -> Result<u64> {
    match world.door.server(&world.server(server)).await {
        ServerView::Up { keys, .. } => Ok(keys),
        other => anyhow::bail!("{other:?}"),
    }
}

/// What the operator keeps of the topology, as codis-admin gives it.
pub async fn dumped(world: &World) -> Result<String> {
    // A folder is shared with the dashboard, whose short locks on it make others fail (contract §10).
    let dump = wait_for("the dump", secs(30), async || {
        world.admin(&format!("--config-dump {}", world.in_store())).await
    })
    .await?;
    let dump: Value = serde_json::from_str(&dump).with_context(|| dump.clone())?;
    let count = |part: &str| dump[part].as_array().map_or(0, Vec::len);
    let counts = [count("slots"), count("group"), count("proxy")];
    ensure!(counts == [1024, 2, 2], "slots, group, proxy: {counts:?}");
    let (group, slot) = (&dump["group"][0], &dump["slots"][1023]);
    ensure!(group["servers"][0]["server"] == world.server(0).to_string(), "{group}");
    ensure!(slot["id"] == 1023 && slot["group_id"] == 2, "{slot}");
    Ok(format!("slots, groups, proxies: {counts:?}; the last slot is {slot}"))
}

/// Reads of a group go to its replica once that is marked, and to the master again when it isn't.
pub async fn read_from_replicas(world: &World) -> Result<String> {
    let (id, replica) = (group(1)?, world.server(1));
    world.door.mark_replica(id, &replica, true).await?;
    world.door.resync_group(id).await?;
    let before = gets(&world.servers[1]).await?;
    read_group_1(world).await?;
    let with = gets(&world.servers[1]).await? - before;
    world.door.mark_replica(id, &replica, false).await?;
    world.door.resync_group(id).await?;
    let before = gets(&world.servers[1]).await?;
    read_group_1(world).await?;
    let without = gets(&world.servers[1]).await? - before;
    ensure!(
        with > 0 && without == 0,
        "the replica served {with} reads, then {without}"
    );
    Ok(format!(
        "of 200 reads the replica served {with}, and {without} when it wasn't marked any more"
    ))
}

async fn read_group_1(world: &World) -> Result<()> {
    let mut client = world.client(0).await?;
    let keys = keys();
    let of_group_1 = keys.iter().filter(|key| slot_of_key(key.as_bytes()).get() < 512);
    for key in of_group_1.take(200) {
        let value = client.call(&[b"GET", key.as_bytes()]).await?.into_text()?;
        ensure!(value.as_ref() == Some(key), "{key} is {value:?}");
    }
    Ok(())
}

/// How many GETs a server has had.
async fn gets(machine: &Machine) -> Result<u64> {
    let stats = machine
        .sh(&format!("redis-cli -a {AUTH} info commandstats 2>/dev/null"))
        .await?;
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
    let count = line.and_then(|rest| rest.split(',').next()).unwrap_or("0");
    Ok(count.parse()?)
}
