//! The connections of a server: commands come, replies and the replication stream go.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Abandoned, Client, Out, Server};
use crate::host::{self, Socket};
use crate::resp::{self, Value};

/// What a connection has told of itself.
pub(super) struct Session {
    pub id: u64,
    pub peer: String,
    pub is_authorized: bool,
    pub database: u32,
    pub queued: Option<Vec<Vec<Bytes>>>,
    /// What REPLCONF told.
    pub announced: (Option<String>, Option<String>),
    pub is_over: bool,
}

/// Accepts connections for as long as the process runs.
pub(super) async fn listen(server: Server, _left: Abandoned) {
    let port = server.state().conf("port").unwrap_or("6379").to_owned();
    let Ok(mut listener) = host::listen(&format!("0.0.0.0:{port}")).await else {
        return server.exit(1);
    };
    host::spawn(beat(server.clone()));
    loop {
        tokio::select! {
            biased;
            _ = server.ended() => return,
            accepted = listener.accept() => match accepted {
                Ok(socket) => drop(host::spawn(serve(server.clone(), socket))),
                Err(_) => return server.exit(1),
            },
        }
    }
}

/// Pings replicas, and gives up those that are silent.
async fn beat(server: Server) {
    let mut number = 0_i64;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        number += 1;
        let mut state = server.state();
        let patience = Duration::from_secs(u64::try_from(state.number("repl-timeout", 60)).unwrap_or(60));
        let silent = |client: &&Client| {
            client
                .replica
                .as_ref()
                .is_some_and(|replica| replica.heard.elapsed() > patience)
        };
        for client in state.clients.values().filter(silent) {
            let _ = client.out.send(Out::Close);
        }
        let period = state.number("repl-ping-slave-period", 10).max(1);
        let has_replicas = state.clients.values().any(|client| client.replica.is_some());
        if state.master.is_none() && has_replicas && number % period == 0 {
            let mut ping = BytesMut::new();
            resp::encode_command(&["PING"], &mut ping);
            state.feed(&ping.freeze());
        }
    }
}

async fn serve(server: Server, mut socket: Socket) {
    let (out, mut outbox) = mpsc::unbounded_channel();
    let mut session = {
        let mut state = server.state();
        state.next_client += 1;
        let id = state.next_client;
        let client = Client {
            out,
            channels: Vec::new(),
            replica: None,
        };
        state.clients.insert(id, client);
        Session {
            id,
            peer: socket.peer.ip().to_string(),
            is_authorized: state.conf("requirepass").is_none_or(str::is_empty),
            database: 0,
            queued: None,
            announced: (None, None),
            is_over: false,
        }
    };
    let mut buffer = BytesMut::new();
    while !session.is_over {
        let mut replies = BytesMut::new();
        tokio::select! {
            biased;
            out = outbox.recv() => match out {
                Some(Out::Bytes(bytes)) => replies.extend_from_slice(&bytes),
                Some(Out::Close) | None => break,
            },
            read = socket.stream.read_buf(&mut buffer) => {
                if !matches!(read, Ok(1..)) || !answer(&server, &mut session, &mut buffer, &mut replies).await {
                    break;
                }
            }
        }
        if socket.stream.write_all(&replies).await.is_err() {
            break;
        }
    }
    server.state().clients.remove(&session.id);
}

/// Runs all whole commands of the buffer. False when the peer doesn't speak redis.
async fn answer(server: &Server, session: &mut Session, buffer: &mut BytesMut, replies: &mut BytesMut) -> bool {
    loop {
        match resp::decode_command(buffer) {
            Ok(None) => return true,
            Ok(Some(words)) if words.is_empty() => {}
            Ok(Some(words)) => {
                if let Some(reply) = run(server, session, words).await {
                    reply.encode(replies);
                }
            }
            Err(_) => return false,
        }
    }
}

async fn run(server: &Server, session: &mut Session, words: Vec<Bytes>) -> Option<Value> {
    let name = String::from_utf8_lossy(&words[0]).to_uppercase();
    // Redis does one thing at a time.
    loop {
        let free = server.0.free.notified();
        if !server.state().migrating {
            break;
        }
        free.await;
    }
    if name == "MIGRATE" && session.is_authorized && session.queued.is_none() {
        return Some(server.migrate(session.database, &words).await);
    }
    server.command(session, &name, words)
}
