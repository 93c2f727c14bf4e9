//! What the operator relies on, seen on an image of Codis in containers, on each coordinator: `make contract`.
//!
//! `CODIS_IMAGE` names the image, by default our stand-in's; it must have the programs that Codis's images have on their
//! PATH. The operator's own door speaks with it, so that this shows that the door works, too. Servers and sentinels are
//! the image's, etcd and zookeeper are real ones. Each test has a network of its own, which it makes and removes.
//!
//! No Docker engine, or no image: skipped, loudly; `REQUIRE_CONTRACT=1` makes that a failure.

#[path = "../support/resp.rs"]
mod resp;
#[path = "../support/wait.rs"]
#[allow(dead_code, reason = "the other suites use more of it")]
mod wait;
#[path = "../support/writer.rs"]
#[allow(dead_code, reason = "the other suites use more of it")]
mod writer;

mod coordinator;
mod engine;
mod jodis;
mod locks;
mod masters;
mod restarts;
mod serving;
mod world;

use anyhow::{Context, Result, bail};
use coordinator::Kind;
use wait::secs;
use world::{World, step};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_operator_relies_on_holds_on_a_folder() -> Result<()> {
    holds_on(Kind::Filesystem).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_operator_relies_on_holds_on_etcd() -> Result<()> {
    holds_on(Kind::Etcd).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_operator_relies_on_holds_on_zookeeper() -> Result<()> {
    holds_on(Kind::Zookeeper).await
}

async fn holds_on(kind: Kind) -> Result<()> {
    let images: Vec<String> = std::iter::once(world::image()).chain(kind.image()).collect();
    if let Some(obstacle) = engine::obstacle(&images).await {
        if std::env::var("REQUIRE_CONTRACT").as_deref() == Ok("1") {
            bail!("REQUIRE_CONTRACT=1, but there is {obstacle}");
        }
        println!("\n!!!!!! SKIPPED: contract on {}: {obstacle} !!!!!!\n", kind.name());
        return Ok(());
    }
    let whole = tokio::time::timeout(secs(400), all(kind)).await;
    whole.context("the whole test took too long")?
}

async fn all(kind: Kind) -> Result<()> {
    let began = std::time::Instant::now();
    let mut world = World::start(kind).await?;
    let (name, took) = (kind.name(), began.elapsed().as_secs_f64());
    println!(
        "        {name}: machines of {} are up after {took:.1} s",
        world::image()
    );
    let outcome = steps(&mut world, kind).await;
    if outcome.is_err() {
        world.tell().await;
    }
    println!("        {name}: {:.1} s in all", began.elapsed().as_secs_f64());
    outcome
}

async fn steps(world: &mut World, kind: Kind) -> Result<()> {
    of_a_product(world, kind).await?;
    of_data(world, kind).await?;
    let name = "a second dashboard gives up by itself";
    step(kind, name, locks::gave_up(world)).await?;
    let name = "a killed dashboard's lock stays, and breaking it brings everything back";
    step(kind, name, locks::broken(world)).await?;
    let name = "a coordinator that crashes and comes back costs nothing";
    step(kind, name, restarts::without_coordinator(world)).await?;
    let name = "a proxy that ends or is killed goes from jodis";
    step(kind, name, jodis::unregistered(world)).await?;
    let name = "a dashboard that ends cleanly releases its lock";
    step(kind, name, locks::released(world)).await
}

async fn of_a_product(world: &World, kind: Kind) -> Result<()> {
    let name = "a dashboard takes the lock, which names it, and answers 200 then";
    step(kind, name, locks::taken(world)).await?;
    let name = "a second dashboard is refused, and answers 800";
    step(kind, name, locks::refused(world)).await?;
    let name = "groups, servers, slots and proxies are made";
    step(kind, name, serving::bootstrapped(world)).await?;
    let name = "clients write and read through both proxies, with their password";
    step(kind, name, serving::used(world)).await?;
    let name = "codis-admin dumps slots, groups and proxies";
    step(kind, name, serving::dumped(world)).await?;
    let name = "proxies register for jodis";
    step(kind, name, jodis::registered(world)).await?;
    let name = "replicas that are marked serve reads";
    step(kind, name, serving::read_from_replicas(world)).await
}

async fn of_data(world: &World, kind: Kind) -> Result<()> {
    let name = "slots move under a writer, and no key is lost";
    step(kind, name, masters::slots_move(world)).await?;
    let name = "a master that is fenced is handed over, and no write is lost";
    step(kind, name, masters::handed_over(world)).await?;
    let name = "sentinels watch every group";
    step(kind, name, masters::watched(world)).await?;
    let name = "a dead master is replaced by the sentinels, and a resync makes it official";
    step(kind, name, masters::replaced(world)).await
}
