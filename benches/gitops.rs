//! What Git sources cost, on a real API server and a real Git server: `make bench`.
//!
//! It prints: for 200 and 1,000 specs in one repository the time from a request for a look to one changed object, and the
//! requests of an idle source; and file descriptors and memory over 300 pushes. It is built as the images are, with
//! cargo's one profile: optimised libraries, our own code as it is.

// The lint's own exception for tests doesn't reach benchmarks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/gitops/world.rs"]
mod world;

use std::{fs, time::Duration};

use codis_operator::api::CodisCluster;
use futures::TryStreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use support::apiserver::User;
use tokio::time::{Instant, timeout};
use world::{World, eventually, file, proxies};

/// Single changes that are timed for each size.
const ROUNDS: u32 = 15;
/// Pushes in a row.
const PUSHES: u32 = 300;
/// Polls of an idle source that are waited for.
const IDLE_POLLS: u64 = 6;

#[tokio::main]
async fn main() {
    println!(
        "{:>6} {:>12} {:>34} {:>22}",
        "specs", "first apply", "poke → changed object (s)", "idle: polls, requests"
    );
    for specs in [200, 1_000] {
        // Said by the harness.
        let Some(world) = World::new().await else { return };
        size(&world, specs).await;
    }
    let Some(world) = World::new().await else { return };
    pushes(&world).await;
}

async fn size(world: &World, specs: u32) {
    for n in 0..specs {
        world
            .tree
            .write(&format!("clusters/c{n:04}.yaml"), file(&format!("c{n:04}"), 1))
            .unwrap();
    }
    world.tree.commit("all of them").unwrap();
    world.tree.push("main").unwrap();
    let began = Instant::now();
    world.source_with("fleet", json!({ "interval": "5s" })).await;
    timeout(Duration::from_secs(300), async {
        eventually("all to be applied", async || {
            let status = world.sources().get("fleet").await.unwrap().status.unwrap_or_default();
            status.last_applied_revision.ok_or_else(String::new)
        })
        .await
    })
    .await
    .unwrap();
    let first = began.elapsed();
    // The last of it: what the watch tells about the objects.
    world.poke("fleet").await;
    let idle = idle(world).await;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        times.push(one_change(world, round * specs / ROUNDS, i32::try_from(round).unwrap() + 2).await);
    }
    times.sort();
    let at = |share: u32| times[(share * (ROUNDS - 1) / 100) as usize].as_secs_f64();
    println!(
        "{specs:>6} {:>10.1} s {:>34} {:>22}",
        first.as_secs_f64(),
        format!("p0 {:.2}  p50 {:.2}  p100 {:.2}", at(0), at(50), at(100)),
        format!("{IDLE_POLLS}, {idle}")
    );
}

/// From the request for a look to the changed object, as a watch sees it.
async fn one_change(world: &World, number: u32, wanted: i32) -> Duration {
    let name = format!("c{number:04}");
    world
        .tree
        .publish(&format!("clusters/{name}.yaml"), file(&name, wanted.unsigned_abs()))
        .unwrap();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let changes = watcher(world.clusters(), config).applied_objects();
    let mut changes = Box::pin(changes);
    let is = |cluster: &CodisCluster| proxies(cluster) == wanted;
    // The watch is there before the clock starts.
    assert!(
        !is(&changes.try_next().await.unwrap().unwrap()),
        "it came by its own poll"
    );
    let began = Instant::now();
    world
        .annotate("fleet", "codis.k8s.io/requestedAt", &format!("{name}-{wanted}"))
        .await;
    while !is(&changes.try_next().await.unwrap().unwrap()) {}
    let took = began.elapsed();
    world
        .status("fleet", "it to be told", |s| {
            s.last_applied_revision == s.last_attempted_revision
        })
        .await;
    took
}

/// Requests to the API server while a source polls and nothing moves.
async fn idle(world: &World) -> usize {
    let requests = || world.server.requests(User::Operator, &world.namespace).len();
    // What follows an apply is over when a poll passes without a request.
    let mut before = requests();
    loop {
        polls(world, 1).await;
        let now = requests();
        if now == before {
            break;
        }
        before = now;
    }
    polls(world, IDLE_POLLS).await;
    requests() - before
}

/// Waits until the source has polled so often.
async fn polls(world: &World, count: u64) {
    let end = world.git.requests() + count;
    eventually("polls", async || {
        (world.git.requests() >= end).then_some(()).ok_or_else(String::new)
    })
    .await;
}

async fn pushes(world: &World) {
    world.source().await;
    println!(
        "\n{:>6} {:>17} {:>10} {:>12}",
        "pushes", "file descriptors", "RSS (KiB)", "kept (KiB)"
    );
    for push in 0..=PUSHES {
        world.tree.publish("clusters/a.yaml", file("a", push + 1)).unwrap();
        world.poke("fleet").await;
        let wanted = i32::try_from(push).unwrap() + 1;
        world.cluster("a", "the push", |c| proxies(c) == wanted).await;
        if push % 50 == 0 {
            let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
            println!(
                "{push:>6} {descriptors:>17} {:>10} {:>12}",
                resident(),
                kept(&world.root.join("work")) / 1024
            );
        }
    }
}

/// The resident memory of this process, which is engine, Git server and test in one.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Bytes of files below a folder.
fn kept(folder: &std::path::Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => kept(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
