//! An API server in process: a `tower` Service under kube's client. It answers what the operator and its command line ask,
//! and refuses loudly what nobody asked before. `tests/apiserver/differential` holds its answers against the real one's.
//!
//! What it doesn't do yet: watches, scales, evictions, garbage collection, the rules of the CRDs (schema and CEL). What it won't:
//! authentication and authorization (everybody may do everything), admission but that of pods and claims, protobuf and tables,
//! strategic merge and JSON patches, pagination (a list is one page), field selectors other than `metadata.name`,
//! `fieldValidation`, conversion between versions of a kind. Defaults are those of the fields that the operator leaves out
//! (`defaults`); claims aren't compared with the real one's.

mod answer;
mod apply;
mod defaults;
mod fields;
mod inside;
mod kinds;
mod objects;
mod request;
mod store;
mod write;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::client::Body;

use answer::{Answer, Refusal};
pub(in crate::simulation) use inside::Change;
pub(in crate::simulation) use objects::{is_going, text, texts};
use request::Request;
use serde_json::Value;
use store::Store;
pub(in crate::simulation) use store::seconds;

/// The server. Cheap to clone: all clones are the same one.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    store: Mutex<Store>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl ApiServer {
    /// A server that knows the operator's own kinds and has the namespaces `default` and `kube-system`. `now` is its clock.
    #[must_use]
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let store = Mutex::new(Store::new(now()));
        let now = Box::new(now);
        Self(Arc::new(Inner { store, now }))
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
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

    fn answer(&self, request: &Request) -> Result<Answer, Refusal> {
        self.store().answer(request, (self.0.now)())
    }
}

impl tower::Service<http::Request<Body>> for ApiServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let answer = Request::read(&head, &body).and_then(|request| server.answer(&request));
            Ok(answer::response(answer))
        })
    }
}
