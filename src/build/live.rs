//! What running servers are told by `CONFIG SET`, so that no restart is needed.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Facts,
    files::{MAX_LAG, max_memory},
};
use crate::validate::{Kind, ValidCluster, bytes, live};

/// The parameters that servers were or are to be told live: those of the spec, and those that it gave once. The latter
/// go back to their default live too, which is why they are remembered (in the Secret).
pub(super) fn live_keys(cluster: &ValidCluster, facts: &Facts) -> BTreeSet<String> {
    let given = cluster.server.config.keys().filter(|key| live(key).is_some());
    given.chain(&facts.live_keys).cloned().collect()
}

/// What a running server's parameters are to be, where `CONFIG SET` can change them. Without overrides, a memory limit
/// and bounded durability there is nothing to set.
#[must_use]
pub fn live_settings(cluster: &ValidCluster, facts: &Facts) -> BTreeMap<String, String> {
    let derived = max_memory(cluster).map(|bytes| bytes.to_string());
    let mut settings: BTreeMap<String, String> = BTreeMap::new();
    for key in live_keys(cluster, facts) {
        let default = live(&key).map(|live| live.default.to_owned());
        if let Some(value) = cluster.server.config.get(&key).cloned().or(default) {
            settings.insert(key, value);
        }
    }
    if let Some(derived) = derived.filter(|_| !cluster.server.config.contains_key("maxmemory")) {
        settings.insert("maxmemory".to_owned(), derived);
    }
    if cluster.good_replicas > 0 {
        settings.insert("min-slaves-to-write".to_owned(), cluster.good_replicas.to_string());
        settings.insert("min-slaves-max-lag".to_owned(), MAX_LAG.to_string());
    }
    settings
}

/// Whether a server has a parameter as wished, by what `CONFIG GET` says: it has sizes in bytes, all classes of output
/// limits, and flags in an order of its own.
#[must_use]
pub fn has_setting(key: &str, wished: &str, found: &str) -> bool {
    let size = |text: &str| bytes(text).map_or_else(|| text.to_owned(), |bytes| bytes.to_string());
    match live(key).map(|live| live.kind) {
        Some(Kind::Bytes) => size(wished) == size(found),
        Some(Kind::OutputLimits) => {
            let classes = |text: &str| -> BTreeMap<String, Vec<String>> {
                let words: Vec<String> = text.split_whitespace().map(size).collect();
                let classes = words.chunks(4).filter_map(|class| class.split_first());
                classes.map(|(name, limits)| (name.clone(), limits.to_vec())).collect()
            };
            let found = classes(found);
            classes(wished)
                .iter()
                .all(|(name, limits)| found.get(name) == Some(limits))
        }
        _ if key == "notify-keyspace-events" => {
            let flags = |text: &str| text.chars().collect::<BTreeSet<char>>();
            flags(wished) == flags(found)
        }
        _ => wished.split_whitespace().eq(found.split_whitespace()),
    }
}
