//! Nodes as keys of etcd's v2 API, over plain HTTP (§10).

use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, Method, Response};
use serde::Deserialize;

use super::{Outcome, credentials};

/// One request to one endpoint (§10).
const PATIENCE: Duration = Duration::from_secs(5);
/// etcd's codes for a key that is absent and one that is present.
const ABSENT: i64 = 100;
const PRESENT: i64 = 105;

/// A cluster; its endpoints are tried in order, the one that answered last first.
#[derive(Debug)]
pub struct Etcd {
    endpoints: Vec<String>,
    auth: Option<(String, String)>,
    http: Client,
    pinned: AtomicUsize,
}

/// A key, or a folder of keys.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    key: String,
    value: String,
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    node: Node,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    error_code: i64,
    message: String,
    #[serde(default)]
    cause: String,
}

/// What is asked of a key.
struct Ask<'a> {
    method: Method,
    path: &'a str,
    query: &'a str,
    form: &'a [(&'a str, &'a str)],
    /// Another endpoint must not be asked once this may have been done: it would answer as if someone else had done it.
    once: bool,
}

impl Etcd {
    /// A cluster at a comma-separated list; `http://` comes before whatever does not begin with it, as in Codis.
    pub fn new(addr: &str, auth: &str) -> anyhow::Result<Self> {
        let endpoint = |addr: &str| match addr.starts_with("http://") {
            true => addr.trim_end_matches('/').to_string(),
            false => format!("http://{addr}"),
        };
        let http = Client::builder().no_proxy().connect_timeout(PATIENCE).timeout(PATIENCE);
        Ok(Self {
            endpoints: addr.split(',').filter(|addr| !addr.is_empty()).map(endpoint).collect(),
            auth: credentials(auth)?,
            http: http.build()?,
            pinned: AtomicUsize::new(0),
        })
    }

    async fn ask(&self, ask: Ask<'_>) -> Outcome<Node> {
        let count = self.endpoints.len();
        let first = self.pinned.load(Ordering::Relaxed);
        let mut failed = Error::other("no endpoints");
        for index in (0..count).map(|turn| (first + turn) % count) {
            let endpoint = &self.endpoints[index];
            match self.request(endpoint, &ask).send().await {
                Ok(response) if response.status().is_server_error() && !ask.once => {
                    failed = Error::other(format!("{endpoint}: status {}", response.status()));
                }
                Ok(response) => {
                    self.pinned.store(index, Ordering::Relaxed);
                    return read(response).await;
                }
                Err(error) => {
                    let done_perhaps = !error.is_connect();
                    failed = Error::other(format!("{endpoint}: {:#}", anyhow::Error::from(error.without_url())));
                    if ask.once && done_perhaps {
                        break;
                    }
                }
            }
        }
        Err(failed)
    }

    fn request(&self, endpoint: &str, ask: &Ask<'_>) -> reqwest::RequestBuilder {
        let url = format!("{endpoint}/v2/keys{}{}", ask.path, ask.query);
        let mut request = self.http.request(ask.method.clone(), url);
        if let Some((user, password)) = &self.auth {
            request = request.basic_auth(user, Some(password));
        }
        if !ask.form.is_empty() {
            request = request.form(ask.form);
        }
        request
    }

    async fn put(&self, path: &str, once: bool, form: &[(&str, &str)]) -> Outcome<()> {
        let ask = Ask {
            method: Method::PUT,
            path,
            query: "",
            form,
            once,
        };
        self.ask(ask).await.map(drop)
    }

    async fn get(&self, path: &str, query: &str) -> Outcome<Option<Node>> {
        let ask = Ask {
            method: Method::GET,
            path,
            query,
            form: &[],
            once: false,
        };
        match self.ask(ask).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            node => node.map(Some),
        }
    }

    /// Creates a node; an error if it exists.
    pub async fn create(&self, path: &str, text: &[u8]) -> Outcome<()> {
        let value = utf8(text)?;
        self.put(path, true, &[("value", value), ("prevExist", "false")]).await
    }

    /// Makes a node that lives for a while; an error if it exists.
    pub async fn lend(&self, path: &str, text: &[u8], lifetime: Duration) -> Outcome<()> {
        let (value, ttl) = (utf8(text)?, ttl(lifetime));
        let form = [("value", value), ("prevExist", "false"), ("ttl", &ttl)];
        self.put(path, true, &form).await
    }

    /// Lets a node live on, every half of its lifetime, until that fails.
    pub async fn renew(&self, path: &str, lifetime: Duration) {
        let ttl = ttl(lifetime);
        let form = [("prevExist", "true"), ("refresh", "true"), ("ttl", &ttl)];
        loop {
            tokio::time::sleep(lifetime / 2).await;
            if let Err(error) = self.put(path, false, &form).await {
                tracing::warn!("etcd refresh node {path} failed: {error}");
                return;
            }
        }
    }

    /// Creates or replaces a node.
    pub async fn write(&self, path: &str, text: &[u8]) -> Outcome<()> {
        self.put(path, false, &[("value", utf8(text)?)]).await
    }

    /// Deletes a node, whether or not it exists.
    pub async fn remove(&self, path: &str) -> Outcome<()> {
        let ask = Ask {
            method: Method::DELETE,
            path,
            query: "",
            form: &[],
            once: false,
        };
        match self.ask(ask).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A node's text.
    pub async fn read(&self, path: &str) -> Outcome<Option<Vec<u8>>> {
        let node = self.get(path, "?quorum=true").await?;
        Ok(node.map(|node| node.value.into_bytes()))
    }

    /// The texts of a node's children, sorted by name.
    pub async fn read_all(&self, path: &str) -> Outcome<Vec<Vec<u8>>> {
        let children = self.children(path).await?;
        Ok(children.into_iter().map(|node| node.value.into_bytes()).collect())
    }

    /// The names of a node's children, sorted.
    pub async fn names(&self, path: &str) -> Outcome<Vec<String>> {
        let name = |node: Node| node.key.rsplit('/').next().unwrap_or_default().to_string();
        Ok(self.children(path).await?.into_iter().map(name).collect())
    }

    async fn children(&self, path: &str) -> Outcome<Vec<Node>> {
        let node = self.get(path, "?quorum=true&sorted=true").await?;
        Ok(node.unwrap_or_default().nodes)
    }
}

async fn read(response: Response) -> Outcome<Node> {
    let status = response.status();
    let text = response
        .bytes()
        .await
        .map_err(|error| Error::other(error.without_url()))?;
    if status.is_success() {
        return Ok(serde_json::from_slice::<Answer>(&text)?.node);
    }
    let Ok(failure) = serde_json::from_slice::<Failure>(&text) else {
        // Not etcd's v2 API, most likely: it has to be enabled, and 3.6 has none.
        let text = String::from_utf8_lossy(&text);
        return Err(Error::other(format!("status {status}: {}", text.trim())));
    };
    let told = format!("{}: {} ({})", failure.error_code, failure.message, failure.cause);
    Err(match failure.error_code {
        ABSENT => Error::new(ErrorKind::NotFound, told),
        PRESENT => Error::new(ErrorKind::AlreadyExists, told),
        _ => Error::other(told),
    })
}

/// Whole seconds, and not 0, which means for ever.
fn ttl(lifetime: Duration) -> String {
    lifetime.as_secs().max(1).to_string()
}

fn utf8(text: &[u8]) -> Outcome<&str> {
    std::str::from_utf8(text).map_err(Error::other)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const STORED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 22\r\n\r\n{\"node\":{\"key\":\"/a\"}} ";
    const NO_SUCH_API: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 18\r\n\r\n404 page not found";

    /// A server that answers every request with this text, or hangs up when there is none.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        addr
    }

    #[test]
    fn whatever_is_not_plain_http_is_made_to_look_like_it() {
        let etcd = Etcd::new("a:1,http://b:2/,https://c:3", "").unwrap();
        assert_eq!(etcd.endpoints, ["http://a:1", "http://b:2", "http://https://c:3"]);
    }

    #[tokio::test]
    async fn a_server_without_the_v2_api_is_not_an_empty_one() {
        let etcd = Etcd::new(&server(NO_SUCH_API).await, "").unwrap();
        let error = etcd.read("/a").await.unwrap_err();
        assert_eq!(error.to_string(), "status 404 Not Found: 404 page not found");
        assert!(etcd.remove("/a").await.is_err());
    }

    #[tokio::test]
    async fn what_may_have_been_created_is_not_created_elsewhere() {
        let addr = format!("{},{}", server("").await, server(STORED).await);
        let etcd = Etcd::new(&addr, "").unwrap();
        assert!(etcd.create("/a", b"1").await.is_err(), "the first one hung up");
        etcd.write("/a", b"1").await.unwrap();
        etcd.create("/a", b"1").await.unwrap();
    }
}
