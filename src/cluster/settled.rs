//! What was found to be as it is wanted: an object that nobody touched since needs no comparison. In a cluster at rest
//! that is all of them, in every pass.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Object;

/// What nobody asked for in this time is forgotten: its cluster is gone.
const KEPT: Duration = Duration::from_mins(30);

/// A memory of comparisons, by uid. A clone shares it.
#[derive(Clone, Default)]
pub(super) struct Settled(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    known: HashMap<String, Known>,
    /// How many there were after those of old were forgotten.
    kept: usize,
}

struct Known {
    version: String,
    wish: Box<dyn Any + Send + Sync>,
    asked: Instant,
}

impl Settled {
    /// Whether this very object, in the version that it has, was compared with this very wish, and nothing was to be written.
    pub(super) fn is<K: Object + PartialEq + 'static>(&self, live: &K, wish: &K) -> bool {
        let (Some(uid), Some(version)) = (&live.meta().uid, &live.meta().resource_version) else {
            return false;
        };
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = memory.known.get_mut(uid).filter(|known| known.version == *version) else {
            return false;
        };
        known.asked = Instant::now();
        known.wish.downcast_ref::<K>() == Some(wish)
    }

    /// Remembers that it was.
    pub(super) fn remember<K: Object + Send + Sync + 'static>(&self, live: &K, wish: &K) {
        let (Some(uid), Some(version)) = (live.meta().uid.clone(), live.meta().resource_version.clone()) else {
            return;
        };
        let known = Known {
            version,
            wish: Box::new(wish.clone()),
            asked: Instant::now(),
        };
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.known.insert(uid, known);
        if memory.known.len() > 2 * memory.kept + 100 {
            memory.known.retain(|_, known| known.asked.elapsed() < KEPT);
            memory.kept = memory.known.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn map(version: &str, value: &str) -> ConfigMap {
        let json = serde_json::json!({
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": version}, "data": {"key": value},
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn an_object_is_settled_until_it_or_the_wish_changes() {
        let settled = Settled::default();
        let wish = map("", "x");
        assert!(!settled.is(&map("1", "x"), &wish), "nobody compared them");
        settled.remember(&map("1", "x"), &wish);
        assert!(settled.is(&map("1", "x"), &wish));
        assert!(!settled.is(&map("2", "x"), &wish), "somebody wrote it");
        assert!(!settled.is(&map("1", "x"), &map("", "y")), "something else is wanted");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_any_more_is_forgotten() {
        let settled = Settled::default();
        let of = |number: usize| {
            let mut object = map("1", "x");
            object.metadata.uid = Some(number.to_string());
            object
        };
        (0..100).for_each(|number| settled.remember(&of(number), &map("", "x")));
        tokio::time::advance(KEPT).await;
        assert!(settled.is(&of(7), &map("", "x")));
        settled.remember(&of(100), &map("", "x"));
        assert!(settled.is(&of(7), &map("", "x")) && settled.is(&of(100), &map("", "x")));
        assert!(!settled.is(&of(8), &map("", "x")));
    }
}
