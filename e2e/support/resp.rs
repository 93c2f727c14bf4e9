//! As much of RESP as a client needs that must know what became of each write.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::timeout,
};

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`, or an integer as text.
    Status(String),
    /// `-ERR …`: the server says that it did not do it.
    Error(String),
    /// A value, or none.
    Value(Option<Vec<u8>>),
}

impl Reply {
    /// The value of a key as text, or none.
    pub fn into_text(self) -> Result<Option<String>> {
        match self {
            Self::Value(value) => Ok(value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())),
            other => bail!("{other:?}"),
        }
    }
}

/// A connection that has given its password.
pub struct Connection {
    stream: BufStream<TcpStream>,
    patience: Duration,
}

impl Connection {
    /// Connects and authenticates.
    pub async fn open(address: SocketAddr, password: &str, patience: Duration) -> Result<Self> {
        let stream = timeout(patience, TcpStream::connect(address))
            .await
            .context("connecting took too long")??;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream: BufStream::new(stream),
            patience,
        };
        match connection.call(&[b"AUTH", password.as_bytes()]).await? {
            Reply::Status(_) => Ok(connection),
            other => bail!("AUTH: {other:?}"),
        }
    }

    /// Sends a command and reads its reply. After an error the connection is of no more use.
    pub async fn call(&mut self, command: &[&[u8]]) -> Result<Reply> {
        let mut replies = self.pipeline(&[command.to_vec()]).await?;
        replies.pop().context("no reply")
    }

    /// Sends commands at once and reads a reply for each.
    pub async fn pipeline(&mut self, commands: &[Vec<&[u8]>]) -> Result<Vec<Reply>> {
        timeout(self.patience, async {
            for command in commands {
                self.stream.write_all(&encode(command)).await?;
            }
            self.stream.flush().await?;
            let mut replies = Vec::with_capacity(commands.len());
            for _ in commands {
                replies.push(self.read().await?);
            }
            Ok(replies)
        })
        .await
        .context("no reply in time")?
    }

    async fn read(&mut self) -> Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            bail!("the connection was closed");
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).context("an empty reply")?;
        Ok(match kind {
            "+" | ":" => Reply::Status(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            "$" if rest == "-1" => Reply::Value(None),
            "$" => {
                let mut value = vec![0; rest.parse::<usize>()? + 2];
                self.stream.read_exact(&mut value).await?;
                value.truncate(value.len() - 2);
                Reply::Value(Some(value))
            }
            _ => bail!("not understood: {line}"),
        })
    }
}

fn encode(command: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
