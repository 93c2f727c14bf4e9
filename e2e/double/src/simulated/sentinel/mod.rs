//! A sentinel in memory: it watches masters, agrees with others and fails over, as redis's own does.
//!
//! Left out: TILT, notification scripts, `SENTINEL SIMULATE-FAILURE`, ACLs, name resolution.

mod answers;
mod failover;
mod links;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use super::disk::Disk;
use crate::host::{self, Files as _, Socket};
use crate::resp;
use state::State;

/// Between two thoughts, in milliseconds: never the same for all sentinels, or all would stand for election at once.
const TICK: std::ops::Range<u64> = 60..200;

/// A running sentinel. Cheap to clone: all clones are the same one.
#[derive(Clone)]
pub struct Sentinel(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    ended: Notify,
}

/// Starts a sentinel, as `codis-server <conf_path> --sentinel` does. To be called on its machine.
pub fn start(disk: Disk, conf_path: &str) -> Sentinel {
    let text = disk.read(conf_path).ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let told = |key: &str| {
        let line = text.lines().rev().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim().to_owned()).unwrap_or_default()
    };
    let state = State::new(&told("sentinel myid "), &told("sentinel announce-ip "));
    let sentinel = Sentinel(Arc::new(Inner {
        state: Mutex::new(state),
        ended: Notify::new(),
    }));
    host::spawn(listen(sentinel.clone()));
    host::spawn(think(sentinel.clone()));
    sentinel
}

impl Sentinel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.state().exit = Some(0);
        self.0.ended.notify_waiters();
        self.0.ended.notify_one();
    }

    /// Ends when it has ended by itself; with what it exits.
    pub async fn ended(&self) -> i32 {
        loop {
            let notified = self.0.ended.notified();
            if let Some(code) = self.state().exit {
                return code;
            }
            notified.await;
        }
    }

    /// What it watches, in one line.
    pub fn summary(&self) -> String {
        let state = self.state();
        let masters = state.masters.iter().map(|(name, master)| {
            let mark = match (master.is_objectively_down, master.instance.is_down) {
                (true, _) => "!!",
                (_, true) => "!",
                _ => "",
            };
            let (replicas, peers) = (master.replicas.len(), master.peers.len());
            format!(
                "{name}={}{mark}+{replicas}r{peers}s e{}",
                master.address, master.config_epoch
            )
        });
        masters.collect::<Vec<_>>().join(" ")
    }
}

async fn think(sentinel: Sentinel) {
    loop {
        let pause = Duration::from_millis(sentinel.state().chance.u64(TICK));
        tokio::time::sleep(pause).await;
        let tasks = {
            let mut state = sentinel.state();
            state.tick()
        };
        for task in tasks {
            links::run(&sentinel, task);
        }
    }
}

async fn listen(sentinel: Sentinel) {
    let Ok(mut listener) = host::listen("0.0.0.0:26379").await else {
        return sentinel.terminate();
    };
    loop {
        tokio::select! {
            biased;
            _ = sentinel.ended() => return,
            accepted = listener.accept() => match accepted {
                Ok(socket) => drop(host::spawn(serve(sentinel.clone(), socket))),
                Err(_) => return,
            },
        }
    }
}

async fn serve(sentinel: Sentinel, mut socket: Socket) {
    let (out, mut outbox) = mpsc::unbounded_channel::<Bytes>();
    let mut buffer = BytesMut::new();
    loop {
        let mut replies = BytesMut::new();
        tokio::select! {
            biased;
            Some(bytes) = outbox.recv() => replies.extend_from_slice(&bytes),
            read = socket.stream.read_buf(&mut buffer) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                loop {
                    match resp::decode_command(&mut buffer) {
                        Ok(Some(words)) if words.is_empty() => {}
                        Ok(Some(words)) => {
                            if let Some(reply) = sentinel.state().answer(&words, &out) {
                                reply.encode(&mut replies);
                            }
                        }
                        Ok(None) => break,
                        Err(_) => return,
                    }
                }
            }
        }
        if socket.stream.write_all(&replies).await.is_err() {
            return;
        }
    }
}
