//! What exists of a kind, kept up to date: a cache and the names of what changed.

use std::{fmt, hash::Hash};

use futures::{Stream, StreamExt};
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, reflector, watcher},
};

use super::{Cluster, Object};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object of this namespace and name is new, changed or gone: the cache knows.
    Of(String, String),
    /// Everything was listed, for the first time or after a break: anything may have changed.
    All,
}

/// A cache of a kind, over all namespaces.
pub type Cache<K> = reflector::Store<K>;

impl Cluster {
    /// Watches a kind in all namespaces, as far as `selector` (labels) goes. The cache is kept by polling the stream.
    pub fn watch<K: Object + Send + Sync + 'static>(
        &self,
        selector: Option<&str>,
    ) -> (Cache<K>, impl Stream<Item = Change> + Send + 'static)
    where
        K::DynamicType: Hash + Eq + Clone + Default + fmt::Debug,
    {
        let (cache, writer) = reflector::store();
        let config = selector.map_or_else(watcher::Config::default, |labels| {
            watcher::Config::default().labels(labels)
        });
        let events = watcher(Api::<K>::all(self.client.clone()), config)
            .default_backoff()
            .reflect(writer)
            .scan(String::new(), |told, event| {
                // Once, not at each try: without rights, or without the CRD, nothing else would tell.
                match &event {
                    Err(error) if *told != error.to_string() => {
                        *told = error.to_string();
                        tracing::warn!(kind = %K::kind(&()), error = told, "can't be watched");
                    }
                    Ok(_) => told.clear(),
                    Err(_) => (),
                }
                std::future::ready(Some(event))
            })
            .filter_map(|event| async move {
                let of = |object: K| Change::Of(object.namespace().unwrap_or_default(), object.name_any());
                match event {
                    Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => Some(of(object)),
                    Ok(watcher::Event::InitDone) => Some(Change::All),
                    Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
                    Err(_) => None,
                }
            });
        (cache, events)
    }
}
