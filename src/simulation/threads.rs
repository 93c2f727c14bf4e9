//! Threads around worlds: each world has one, with time of its own.

use std::thread;

use anyhow::{Context as _, Result};

/// A pass of an unoptimized build is deep.
const STACK: usize = 16 << 20;

/// Does the same work on so many threads (one at least) whose stacks hold a world, and waits for all of them.
///
/// # Errors
/// The work's first, or that it panicked.
pub(super) fn on_threads(count: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..count.max(1))
            .map(|_| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, &work))
            .collect();
        for worker in workers {
            let done = worker.context("no thread")?.join();
            done.map_err(|_| anyhow::anyhow!("a world panicked"))??;
        }
        Ok(())
    })
}

/// Does something once, on a thread whose stack holds a world.
///
/// # Errors
/// The work's, or that it panicked.
pub fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work)?;
        worker.join().map_err(|_| anyhow::anyhow!("a world panicked"))?
    })
}

/// Runs a world in virtual time, without sockets.
///
/// # Errors
/// The world's, or that there is no runtime.
pub(super) fn in_virtual_time<T>(world: impl Future<Output = Result<T>>) -> Result<T> {
    // kube's watchers draw their pauses after errors from the thread's chance.
    fastrand::seed(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    runtime.block_on(world)
}
