//! Watches: answers that don't end.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use futures::Stream;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::{
    sync::watch::Receiver,
    time::{Instant, sleep_until},
};

use super::{
    ApiServer,
    answer::{self, Refusal},
    inside::Change,
    objects::text,
    request::Request,
    store::{Store, Wanted},
};

/// The body of every answer.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A watch.
struct Watch {
    server: ApiServer,
    request: Request,
    wanted: Wanted,
    /// What is told up to this version.
    version: u64,
    told: VecDeque<Value>,
    news: Receiver<u64>,
    ends: Option<Instant>,
    /// Watches of another epoch are broken.
    epoch: u64,
    is_over: bool,
}

impl ApiServer {
    /// Breaks all watches that are open.
    pub fn break_watches(&self) {
        let mut store = self.store();
        store.epoch += 1;
        store.ring();
    }

    /// The answer to a request for a watch.
    pub(super) fn watch(&self, request: Request) -> Result<http::Response<Body>, Refusal> {
        let wanted = Wanted::of(&request)?;
        let asked = request.query.get("resourceVersion").map_or("", String::as_str);
        let store = self.store();
        let mut told = VecDeque::new();
        let version = match asked {
            "" | "0" => {
                let all = store.objects.iter().filter(|(key, object)| wanted.has(key, object));
                told.extend(all.map(|(_, object)| event("ADDED", object)));
                if request.has("sendInitialEvents") {
                    told.push_back(bookmark(&request, store.version, true));
                }
                store.version
            }
            asked => asked
                .parse()
                .map_err(|_| Refusal::bad_request("invalid resource version"))?,
        };
        let seconds = request.query.get("timeoutSeconds").and_then(|text| text.parse().ok());
        let watch = Watch {
            server: self.clone(),
            wanted,
            version,
            told,
            news: store.bell.subscribe(),
            ends: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
            epoch: store.epoch,
            is_over: false,
            request,
        };
        drop(store);
        let body = StreamBody::new(watch.lines()).boxed_unsync();
        Ok(answer::json(http::Response::new(body)))
    }
}

impl Watch {
    fn lines(self) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
        futures::stream::unfold(self, |mut watch| async move {
            let event = watch.next().await?;
            let line = format!("{event}\n").into_bytes();
            Some((Ok(Frame::data(Bytes::from(line))), watch))
        })
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            self.news.mark_unchanged();
            self.collect();
            if !self.told.is_empty() || self.is_over {
                continue;
            }
            let is_late = tokio::select! {
                biased;
                changed = self.news.changed() => changed.is_err(),
                () = at(self.ends) => true,
            };
            if is_late {
                self.is_over = true;
                if self.request.has("allowWatchBookmarks") {
                    return Some(bookmark(&self.request, self.version, false));
                }
            }
        }
    }

    /// Takes what changed since it was told the last time.
    fn collect(&mut self) {
        let (now, epoch) = {
            let store = self.server.store();
            (store.version, store.epoch)
        };
        if epoch != self.epoch {
            self.is_over = true;
            return;
        }
        match self.server.changes_since(self.version) {
            Some(changes) => self
                .told
                .extend(changes.iter().filter_map(|change| told_of(&self.wanted, change))),
            None => {
                let expired = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired",
                    "code": 410, "message": format!("too old resource version: {} ({now})", self.version),
                });
                self.told.push_back(json!({"type": "ERROR", "object": expired}));
                self.is_over = true;
            }
        }
        self.version = now;
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What a watch tells of a change: what it doesn't want any more is deleted for it.
fn told_of(wanted: &Wanted, change: &Change) -> Option<Value> {
    let has = |object: &Option<Arc<Value>>| {
        object
            .as_ref()
            .filter(|object| wanted.has(&change.key, object))
            .cloned()
    };
    match (has(&change.old), has(&change.new)) {
        (None, Some(new)) => Some(event("ADDED", &new)),
        (Some(_), Some(new)) => Some(event("MODIFIED", &new)),
        (Some(old), None) => {
            let mut gone = Value::clone(change.new.as_ref().unwrap_or(&old));
            gone["metadata"]["resourceVersion"] = json!(change.version.to_string());
            Some(json!({"type": "DELETED", "object": gone}))
        }
        (None, None) => None,
    }
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(request: &Request, version: u64, is_initial: bool) -> Value {
    let mut object = json!({
        "kind": request.kind.kind, "apiVersion": request.kind.api_version(),
        "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null},
    });
    if is_initial {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    json!({"type": "BOOKMARK", "object": object})
}

impl Store {
    /// Wakes all watches.
    pub(super) fn ring(&self) {
        self.bell.send_replace(self.version);
    }

    /// The objects as they were at a version, as far as that is remembered.
    pub(super) fn at(&self, version: u64) -> std::collections::BTreeMap<super::store::Key, Arc<Value>> {
        let mut objects = self.objects.clone();
        for change in self.history.iter().rev().take_while(|change| change.version > version) {
            match &change.old {
                Some(old) => drop(objects.insert(change.key.clone(), old.clone())),
                None => drop(objects.remove(&change.key)),
            }
        }
        objects
    }

    /// Answers a list or a get from the state of so many versions ago.
    pub(super) fn answer_stale(&mut self, request: &Request, age: u64) -> Result<answer::Answer, Refusal> {
        let version = self.version;
        let then = version
            .saturating_sub(age)
            .max(self.history.front().map_or(0, |first| first.version));
        let old = self.at(then);
        let present = std::mem::replace(&mut self.objects, old);
        self.version = then;
        let answer = match request.name.as_str() {
            "" => self.list(request),
            _ => self
                .existing(request)
                .map(|found| answer::Answer::ok(Value::clone(found))),
        };
        (self.objects, self.version) = (present, version);
        answer
    }
}

impl Request {
    /// The request, in short.
    pub(super) fn in_short(&self, who: &'static str) -> super::Asked {
        use super::request::{Subresource, Verb};
        super::Asked {
            who,
            verb: match self.verb {
                Verb::Get => "get",
                Verb::List => "list",
                Verb::Watch => "watch",
                Verb::Create => "create",
                Verb::Update => "update",
                Verb::MergePatch => "patch",
                Verb::Apply => "apply",
                Verb::Delete => "delete",
            },
            kind: self.kind.kind,
            subresource: match self.subresource {
                None => "",
                Some(Subresource::Status) => "status",
                Some(Subresource::Scale) => "scale",
                Some(Subresource::Eviction) => "eviction",
            },
            namespace: self.namespace.clone(),
            name: match self.name.as_str() {
                "" => text(&self.body, "/metadata/name").to_owned(),
                name => name.to_owned(),
            },
        }
    }
}
