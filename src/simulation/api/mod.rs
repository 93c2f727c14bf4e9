//! An API server in process: a `tower` Service under kube's client. It answers what the operator and its command line ask,
//! and refuses loudly what nobody asked before. `tests/apiserver/differential` holds its answers against the real one's.
//!
//! What goes wrong between it and its clients is decided from outside (`faults`). Garbage is collected by `simulation::kube`.
//!
//! What it doesn't do yet: the rules of the CRDs in CEL (their schemas it does). What it won't: authentication and
//! authorization (everybody may do everything), admission but that of pods and claims, protobuf and tables, strategic merge and JSON patches, pagination (a list is one page), field selectors other than `metadata.name`,
//! `fieldValidation`, conversion between versions of a kind. Defaults are those of the fields that the operator leaves out
//! (`defaults`); claims aren't compared with the real one's.

mod answer;
mod apply;
mod defaults;
mod faults;
mod fields;
mod inside;
mod kinds;
mod objects;
mod parts;
mod request;
mod schema;
mod store;
mod watch;
mod write;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use k8s_openapi::jiff::Timestamp;

use answer::{Answer, Refusal};
pub use faults::{Asked, Fault};
pub(in crate::simulation) use inside::Change;
pub use kinds::Served;
pub(in crate::simulation) use objects::{is_going, merge_patch, text, texts};
use request::{Request, Verb};
use serde_json::Value;
use store::Store;
pub(in crate::simulation) use store::seconds;

/// The server. Cheap to clone: all clones are the same one; each knows in whose name it asks.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>, &'static str);

struct Inner {
    store: Mutex<Store>,
    faults: Mutex<Option<faults::Faults>>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl ApiServer {
    /// A server that knows the operator's own kinds and has the namespaces `default` and `kube-system`. `now` is its clock.
    #[must_use]
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let store = Mutex::new(Store::new(now()));
        let now = Box::new(now);
        let faults = Mutex::new(None);
        Self(Arc::new(Inner { store, faults, now }), "somebody")
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// A client of it that asks in somebody's name: faults can be for some only.
    #[must_use]
    pub fn client_of(&self, who: &'static str) -> kube::Client {
        kube::Client::new(Self(self.0.clone(), who), "default")
    }

    /// The kinds that it serves.
    #[must_use]
    pub fn kinds(&self) -> Vec<Served> {
        kinds::served()
    }

    /// Everything that exists, by kind, namespace and name.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Value> {
        let store = self.store();
        store.objects.values().map(|object| Value::clone(object)).collect()
    }

    /// The time by its clock.
    pub(in crate::simulation) fn now(&self) -> Timestamp {
        (self.0.now)()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Option<faults::Faults>> {
        self.0.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request) -> Result<Answer, Refusal> {
        self.store().answer(request, (self.0.now)())
    }
}

impl tower::Service<http::Request<kube::client::Body>> for ApiServer {
    type Response = http::Response<watch::Body>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<kube::client::Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            match Request::read(&head, &body) {
                Ok(request) => server.serve(request).await,
                Err(refusal) => Ok(answer::response(Err(refusal))),
            }
        })
    }
}

impl ApiServer {
    /// Answers a client, unless something goes wrong.
    async fn serve(&self, request: Request) -> io::Result<http::Response<watch::Body>> {
        let fate = self.fate(&request);
        match fate {
            Some(Fault::Refuse(code)) => return Ok(answer::response(Err(Refusal::trouble(code)))),
            Some(Fault::Break) => return Err(faults::broken()),
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            _ => {}
        }
        let answer = match (request.verb, fate) {
            (Verb::Watch, Some(Fault::LoseReply)) => return Err(faults::broken()),
            (Verb::Watch, _) => {
                return self
                    .watch(request)
                    .or_else(|refusal| Ok(answer::response(Err(refusal))));
            }
            (Verb::List | Verb::Get, Some(Fault::StaleList(age))) => self.store().answer_stale(&request, age),
            _ => self.answer(&request),
        };
        match fate {
            Some(Fault::LoseReply) => Err(faults::broken()),
            _ => Ok(answer::response(answer)),
        }
    }
}
