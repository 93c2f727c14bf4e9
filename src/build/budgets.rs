//! PodDisruptionBudgets: which pods may be evicted at a time.
//!
//! A group has two, told apart by the role label, so that no pod ever matches two. Its master may never be evicted: a
//! drain waits until the operator has handed the group over and the pod is a replica's. Of its replicas one may go, but
//! only while the group is whole.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    Facts,
    meta::{self, Component},
};
use crate::{api::names::LABEL_ROLE, domain::GroupId, validate::ValidCluster};

/// The value of the role label of a group's master.
pub const MASTER: &str = "master";
/// The value of the role label of all other servers: new pods begin with it.
pub const REPLICA: &str = "replica";

pub(super) fn build(cluster: &ValidCluster, facts: &Facts) -> Vec<PodDisruptionBudget> {
    let one = Some(IntOrString::Int(1));
    let mut all = vec![budget(
        cluster,
        cluster.names.proxy(),
        Component::Proxy,
        None,
        None,
        one.clone(),
    )];
    // Only the dashboard can hand a group over: from a node that is emptied it goes after the masters.
    let may_go = IntOrString::Int(i32::from(facts.dashboard_may_go));
    let name = cluster.names.dashboard();
    all.push(budget(cluster, name, Component::Dashboard, None, None, Some(may_go)));
    if cluster.sentinel.is_some() {
        all.push(budget(
            cluster,
            cluster.names.sentinel(),
            Component::Sentinel,
            None,
            None,
            one,
        ));
    }
    for group in cluster.group_ids() {
        all.extend(of_group(cluster, facts, group));
    }
    all
}

fn of_group(cluster: &ValidCluster, facts: &Facts, group: GroupId) -> Vec<PodDisruptionBudget> {
    let (name, component) = (cluster.names.group(group), Component::Server(group));
    // Counted against the whole StatefulSet: never enough, so none may go.
    let none = Some(IntOrString::Int(0));
    let mut all = vec![budget(
        cluster,
        format!("{name}-master"),
        component,
        Some(MASTER),
        None,
        none,
    )];
    let replicas = i32::from(facts.group_size(cluster, group)) - 1;
    if replicas > 0 {
        // At least so many: the most that may be missing would be counted against the whole StatefulSet, of which this
        // selects a part.
        let needed = if facts.whole.contains(&group) {
            replicas - 1
        } else {
            replicas
        };
        let needed = Some(IntOrString::Int(needed));
        all.push(budget(
            cluster,
            format!("{name}-replicas"),
            component,
            Some(REPLICA),
            needed,
            None,
        ));
    }
    all
}

fn budget(
    cluster: &ValidCluster,
    name: String,
    component: Component,
    role: Option<&str>,
    min_available: Option<IntOrString>,
    max_unavailable: Option<IntOrString>,
) -> PodDisruptionBudget {
    let mut selector = meta::selector(&cluster.names, component);
    if let (Some(labels), Some(role)) = (&mut selector.match_labels, role) {
        labels.insert(LABEL_ROLE.to_owned(), role.to_owned());
    }
    PodDisruptionBudget {
        metadata: meta::object(cluster, name, component),
        spec: Some(PodDisruptionBudgetSpec {
            selector: Some(selector),
            min_available,
            max_unavailable,
            unhealthy_pod_eviction_policy: None,
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::names::LABEL_COMPONENT,
        build::tests::{built, facts, sample},
    };
    use std::collections::BTreeMap;

    fn budget_rules(cluster: &ValidCluster, facts: &Facts) -> BTreeMap<String, (Option<i32>, Option<i32>)> {
        let number = |value: &Option<IntOrString>| match value {
            Some(IntOrString::Int(number)) => Some(*number),
            _ => None,
        };
        let rules = |budget: PodDisruptionBudget| {
            let spec = budget.spec.unwrap();
            let rules = (number(&spec.min_available), number(&spec.max_unavailable));
            (budget.metadata.name.unwrap(), rules)
        };
        build(cluster, facts).into_iter().map(rules).collect()
    }

    #[test]
    fn no_master_may_be_evicted_and_one_replica_only_while_its_group_is_whole() {
        let cluster = sample(|c| {
            c["spec"]["codisServer"] = serde_json::json!({"image": "codis", "replicas": 6, "groupReplicas": 3})
        });
        let mut facts = facts(&cluster);
        facts.whole = cluster.group_ids().take(1).collect();
        let expected = [
            ("sample-g1-master", (None, Some(0))),
            ("sample-g1-replicas", (Some(1), None)),
            ("sample-g2-master", (None, Some(0))),
            ("sample-g2-replicas", (Some(2), None)),
            ("sample-proxy", (None, Some(1))),
            ("sample-sentinel", (None, Some(1))),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(name, rules)| (name.to_owned(), rules)).into();
        let mut rules = budget_rules(&cluster, &facts);
        rules.remove("sample-dashboard");
        assert_eq!(rules, expected);
    }

    #[test]
    fn a_group_of_one_has_a_budget_for_its_master_only() {
        let cluster = sample(|c| {
            c["spec"]["codisServer"] = serde_json::json!({"image": "codis", "replicas": 2, "groupReplicas": 1})
        });
        let rules = budget_rules(&cluster, &facts(&cluster));
        assert!(
            rules.contains_key("sample-g1-master") && !rules.contains_key("sample-g1-replicas"),
            "{rules:?}"
        );
    }

    #[test]
    fn no_pod_matches_two_budgets_and_no_selector_of_a_workload_asks_for_a_role() {
        let cluster = sample(|_| ());
        let facts = facts(&cluster);
        let selectors: Vec<BTreeMap<String, String>> = build(&cluster, &facts)
            .into_iter()
            .map(|budget| budget.spec.unwrap().selector.unwrap().match_labels.unwrap())
            .collect();
        let matching = |labels: &BTreeMap<String, String>| {
            let is_in = |selector: &&BTreeMap<String, String>| {
                selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            };
            selectors.iter().filter(is_in).count()
        };
        for set in built(&cluster).stateful_sets {
            let spec = set.spec.unwrap();
            let mut labels = spec.template.metadata.unwrap().labels.unwrap();
            assert!(
                matching(&labels) == 1 || labels[LABEL_COMPONENT] == "dashboard",
                "{labels:?}"
            );
            assert!(!spec.selector.match_labels.unwrap().contains_key(LABEL_ROLE));
            if labels[LABEL_COMPONENT] == "server" {
                assert_eq!(
                    labels.insert(LABEL_ROLE.into(), MASTER.into()).as_deref(),
                    Some(REPLICA)
                );
                assert_eq!(matching(&labels), 1, "{labels:?}");
            }
        }
    }
}
