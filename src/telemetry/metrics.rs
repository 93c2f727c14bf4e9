//! Metrics, in the OpenMetrics text format.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::{Effects, process::ProcessCollector};

/// The content type of what [`Metrics::encode`] writes.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EffectLabels {
    door: &'static str,
    effect: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    condition: String,
    status: String,
}

/// The operator's metrics. A clone shows the same numbers.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    effects: Family<EffectLabels, Counter>,
    reconciles: Family<ResultLabels, Counter>,
    duration: Histogram,
    leader: Gauge,
    groups_started_empty: Counter,
    switchovers: Family<ResultLabels, Counter>,
    git_looks: Family<ResultLabels, Counter>,
    git_revisions: Family<ResultLabels, Counter>,
    git_repairs: Counter,
    clusters: Family<ConditionLabels, Gauge>,
    /// The conditions of each cluster (type to status), so that a change moves it from one number to another.
    conditions: Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        // 5 ms to 41 s: a turn ends when its calls time out.
        let duration = Histogram::new(exponential_buckets(0.005, 2.0, 14));
        let mut metrics = Self {
            registry: Arc::default(),
            effects: Family::default(),
            reconciles: Family::default(),
            duration,
            leader: Gauge::default(),
            groups_started_empty: Counter::default(),
            switchovers: Family::default(),
            git_looks: Family::default(),
            git_revisions: Family::default(),
            git_repairs: Counter::default(),
            clusters: Family::default(),
            conditions: Arc::default(),
        };
        metrics.registry = Arc::new(metrics.registered());
        metrics
    }
}

impl Metrics {
    fn registered(&self) -> Registry {
        let mut all = Registry::with_prefix("codis_operator");
        let r = &mut all;
        r.register(
            "effects",
            "Calls that change the outside world, by door and effect",
            self.effects.clone(),
        );
        r.register("reconciles", "Turns of the loop, by result", self.reconciles.clone());
        r.register(
            "reconcile_duration_seconds",
            "How long a turn of the loop took",
            self.duration.clone(),
        );
        r.register("leader", "Whether this process holds the lease", self.leader.clone());
        r.register(
            "clusters",
            "Clusters, by condition and its status",
            self.clusters.clone(),
        );
        r.register(
            "groups_started_empty",
            "Groups whose members all lost their data and that were started empty",
            self.groups_started_empty.clone(),
        );
        r.register(
            "switchovers",
            "Planned changes of a group's master, by result",
            self.switchovers.clone(),
        );
        r.register(
            "git_looks",
            "Looks at the branches and folders of Git sources, by result",
            self.git_looks.clone(),
        );
        r.register(
            "git_revisions",
            "Revisions of Git sources that were applied, rejected, or failed and are tried again",
            self.git_revisions.clone(),
        );
        r.register(
            "git_repairs",
            "Hand edits of clusters of Git sources that were put back",
            self.git_repairs.clone(),
        );
        r.register_collector(Box::new(ProcessCollector));
        all
    }

    /// A hook that counts every effect, and then asks `inner`.
    pub fn effects(&self, inner: Effects) -> Effects {
        let family = self.effects.clone();
        Effects::new(move |door, effect| {
            inner.allow(door, effect)?;
            family.get_or_create(&EffectLabels { door, effect }).inc();
            Ok(())
        })
    }

    /// A turn of the loop ended. `result` is a word of a fixed set: `ok`, or an error's category.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ResultLabels { result }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Whether this process holds the lease.
    pub fn leading(&self, leading: bool) {
        self.leader.set(i64::from(leading));
    }

    /// A group whose members all lost their data was started empty.
    pub fn group_started_empty(&self) {
        self.groups_started_empty.inc();
    }

    /// A planned change of a group's master ended.
    pub fn switched_over(&self, done: bool) {
        let result = if done { "done" } else { "failed" };
        self.switchovers.get_or_create(&ResultLabels { result }).inc();
    }

    /// A source was looked at. `result` is same, new, held or failed.
    pub fn git_looked(&self, result: &'static str) {
        self.git_looks.get_or_create(&ResultLabels { result }).inc();
    }

    /// A revision came to an end, or to a stop. `result` is applied, rejected or failed.
    pub fn git_revision(&self, result: &'static str) {
        self.git_revisions.get_or_create(&ResultLabels { result }).inc();
    }

    /// A hand edit was put back.
    pub fn git_repaired(&self) {
        self.git_repairs.inc();
    }

    /// The conditions (type, status) of a cluster (`namespace/name`) are these now.
    pub fn cluster<'a>(&self, key: &str, conditions: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let now = conditions
            .into_iter()
            .map(|(kind, status)| (kind.to_owned(), status.to_owned()))
            .collect();
        self.replace(key, now);
    }

    /// A cluster is gone.
    pub fn forget(&self, key: &str) {
        self.replace(key, BTreeMap::new());
    }

    fn replace(&self, key: &str, now: BTreeMap<String, String>) {
        let mut all = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let gauge = |(condition, status): (&String, &String)| {
            let labels = ConditionLabels {
                condition: condition.clone(),
                status: status.clone(),
            };
            self.clusters.get_or_create_owned(&labels)
        };
        for (kind, status) in all.remove(key).iter().flatten() {
            gauge((kind, status)).dec();
        }
        for (kind, status) in &now {
            gauge((kind, status)).inc();
        }
        if !now.is_empty() {
            all.insert(key.to_owned(), now);
        }
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// When a number can't be written.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_count_what_happened() {
        let metrics = Metrics::default();
        let effects = metrics.effects(Effects::new(|_, effect| match effect {
            "delete" => Err("no".to_owned()),
            _ => Ok(()),
        }));
        assert_eq!(effects.allow("kubernetes", "apply"), Ok(()));
        assert_eq!(effects.allow("kubernetes", "delete"), Err("no".to_owned()));
        metrics.reconciled("ok", Duration::from_millis(20));
        metrics.leading(true);
        metrics.group_started_empty();
        metrics.cluster("ns/a", [("Ready", "False")]);
        metrics.cluster("ns/b", [("Ready", "True")]);
        metrics.cluster("ns/a", [("Ready", "True")]);
        metrics.forget("ns/b");
        let text = metrics.encode().unwrap();
        for line in [
            r#"codis_operator_effects_total{door="kubernetes",effect="apply"} 1"#,
            r#"codis_operator_reconciles_total{result="ok"} 1"#,
            r#"codis_operator_reconcile_duration_seconds_bucket{le="0.02"} 1"#,
            "codis_operator_leader 1",
            "codis_operator_groups_started_empty_total 1",
            r#"codis_operator_clusters{condition="Ready",status="True"} 1"#,
            r#"codis_operator_clusters{condition="Ready",status="False"} 0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} isn't in\n{text}");
        }
        assert!(!text.contains(r#"effect="delete""#), "what isn't sent isn't counted");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.contains("process_cpu_seconds_total "), "{text}");
    }
}
