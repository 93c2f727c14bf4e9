//! Nodes of zookeeper: persistent ones, with parents made as needed and a digest ACL when there is a password (§10).

use std::io::{self, ErrorKind};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::sync::Mutex;
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error, SessionState};

use super::{Outcome, credentials};

/// Connecting, or one operation.
const PATIENCE: Duration = Duration::from_secs(5);

/// An ensemble, and a session with it once there is something to do.
pub struct Zookeeper {
    cluster: String,
    /// `user:password`.
    auth: Option<String>,
    session: Duration,
    client: Mutex<Option<Client>>,
}

impl std::fmt::Debug for Zookeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zookeeper")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Zookeeper {
    /// An ensemble at a comma-separated list.
    pub fn new(addr: &str, auth: &str, session: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            cluster: addr.to_string(),
            auth: credentials(auth)?.map(|(user, password)| format!("{user}:{password}")),
            session,
            client: Mutex::default(),
        })
    }

    /// The client, if its session is usable now. Otherwise a new one is made instead of waiting for the old one, which
    /// would carry out what was given up long ago.
    async fn client(&self) -> Outcome<Client> {
        let mut held = self.client.lock().await;
        if let Some(client) = held
            .as_ref()
            .filter(|client| client.state() == SessionState::SyncConnected)
        {
            return Ok(client.clone());
        }
        *held = None;
        let mut connector = Client::connector()
            .with_session_timeout(self.session)
            .with_fail_eagerly();
        if let Some(auth) = &self.auth {
            connector = connector.with_auth("digest", auth.as_bytes());
        }
        // Boxed: connecting keeps much on the stack.
        let client = within(Box::pin(connector.connect(&self.cluster))).await?;
        *held = Some(client.clone());
        Ok(client)
    }

    fn options(&self, mode: CreateMode) -> CreateOptions<'static> {
        mode.with_acls(match self.auth {
            Some(_) => Acls::creator_all(),
            None => Acls::anyone_all(),
        })
    }

    async fn make(&self, client: &Client, path: &str, text: &[u8], mode: CreateMode) -> Result<(), Error> {
        let options = self.options(mode);
        match client.create(path, text, &options).await {
            Err(Error::NoNode) => {
                let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                client.mkdir(parent, &self.options(CreateMode::Persistent)).await?;
                client.create(path, text, &options).await.map(drop)
            }
            made => made.map(drop),
        }
    }

    /// Creates a node; an error if it exists.
    pub async fn create(&self, path: &str, text: &[u8]) -> Outcome<()> {
        let client = self.client().await?;
        within(self.make(&client, path, text, CreateMode::Persistent)).await
    }

    /// Makes a node that goes with the session; an error if it exists.
    pub async fn lend(&self, path: &str, text: &[u8]) -> Outcome<()> {
        let client = self.client().await?;
        within(self.make(&client, path, text, CreateMode::Ephemeral)).await
    }

    /// Ends when such a node is gone or its session is; a lost connection alone is no reason.
    pub async fn watch(&self, path: &str) {
        let Ok(client) = self.client().await else { return };
        while let Ok((Some(_), watcher)) = client.check_and_watch_stat(path).await {
            let event = watcher.changed().await;
            if event.session_state.is_terminated() {
                return;
            }
        }
    }

    /// Creates or replaces a node.
    pub async fn write(&self, path: &str, text: &[u8]) -> Outcome<()> {
        let client = self.client().await?;
        let write = async {
            match client.set_data(path, text, None).await {
                Err(Error::NoNode) => self.make(&client, path, text, CreateMode::Persistent).await,
                set => set.map(drop),
            }
        };
        within(write).await
    }

    /// Deletes a node, whether or not it exists.
    pub async fn remove(&self, path: &str) -> Outcome<()> {
        let client = self.client().await?;
        match within(client.delete(path, None)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A node's text.
    pub async fn read(&self, path: &str) -> Outcome<Option<Vec<u8>>> {
        let client = self.client().await?;
        match within(client.get_data(path)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(|(text, _)| Some(text)),
        }
    }

    /// The texts of a node's children, sorted by name.
    pub async fn read_all(&self, path: &str) -> Outcome<Vec<Vec<u8>>> {
        let names = self.names(path).await?;
        let client = self.client().await?;
        let read = |name| {
            let (client, path) = (&client, format!("{path}/{name}"));
            async move { client.get_data(&path).await.map(|(text, _)| text) }
        };
        within(try_join_all(names.into_iter().map(read))).await
    }

    /// The names of a node's children, sorted.
    pub async fn names(&self, path: &str) -> Outcome<Vec<String>> {
        let client = self.client().await?;
        let mut names = match within(client.list_children(path)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            names => names?,
        };
        names.sort();
        Ok(names)
    }
}

async fn within<T>(work: impl Future<Output = Result<T, Error>>) -> Outcome<T> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.map_err(|_| io::Error::from(ErrorKind::TimedOut))?
        .map_err(|error| {
            let kind = match error {
                Error::NoNode => ErrorKind::NotFound,
                Error::NodeExists => ErrorKind::AlreadyExists,
                _ => ErrorKind::Other,
            };
            io::Error::new(kind, error)
        })
}
