//! Pods near each other and apart, and spread over domains.

use serde_json::Value;

use super::{
    cache::Pod,
    object::{list, selects, text},
    schedule::{Placement, is_about},
};

const REQUIRED: &str = "/requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "/preferredDuringSchedulingIgnoredDuringExecution";

/// The part of the world that a node is in.
fn domain<'n>(node: &'n Value, key: &str) -> Option<&'n Value> {
    node["metadata"]["labels"].get(key)
}

impl Placement<'_> {
    fn node_of(&self, pod: &Pod) -> Option<&Value> {
        let mut nodes = self.nodes.iter();
        nodes
            .find(|node| text(node, "/metadata/name") == pod.node)
            .map(|node| &**node)
    }

    /// How many placed pods that a term is about are in the same domain as a node.
    fn count_near(&self, term: &Value, node: &Value) -> usize {
        let key = text(term, "/topologyKey");
        let Some(here) = domain(node, key) else { return 0 };
        let about = self.placed.iter().filter(|pod| is_about(term, &self.pod.name.0, pod));
        about
            .filter(|pod| self.node_of(pod).and_then(|of| domain(of, key)) == Some(here))
            .count()
    }

    /// Whether what must be near is, and what must not be isn't: by this pod's terms, and those of the others.
    pub(super) fn may_be_near(&self, node: &Value) -> bool {
        let affinity = &self.pod.raw["spec"]["affinity"];
        let apart = list(&affinity["podAntiAffinity"], REQUIRED).iter();
        let mut together = list(&affinity["podAffinity"], REQUIRED).iter();
        // The first of its kind may be anywhere.
        let is_first = |term: &Value| {
            let nobody = !self.placed.iter().any(|pod| is_about(term, &self.pod.name.0, pod));
            nobody && is_about(term, &self.pod.name.0, self.pod)
        };
        let minds = |other: &Pod| {
            let mut terms = list(&other.raw["spec"]["affinity"]["podAntiAffinity"], REQUIRED).iter();
            terms.any(|term| {
                let key = text(term, "/topologyKey");
                let place = self.node_of(other).and_then(|of| domain(of, key));
                is_about(term, &other.name.0, self.pod) && place.is_some() && place == domain(node, key)
            })
        };
        { apart }.all(|term| self.count_near(term, node) == 0)
            && together.all(|term| self.count_near(term, node) > 0 || is_first(term))
            && !self.placed.iter().any(minds)
    }

    /// What the preferred terms make of a node.
    pub(super) fn near_wished(&self, node: &Value) -> i64 {
        let affinity = &self.pod.raw["spec"]["affinity"];
        let sum = |kind: &str| -> i64 {
            let wishes = list(&affinity[kind], PREFERRED).iter();
            let weights = wishes.map(|wish| {
                let count = i64::try_from(self.count_near(&wish["podAffinityTerm"], node)).unwrap_or(0);
                wish["weight"].as_i64().unwrap_or(0) * count
            });
            weights.sum()
        };
        sum("podAffinity") - sum("podAntiAffinity")
    }

    fn constraints(&self, when: &str) -> impl Iterator<Item = &Value> {
        let all = list(&self.pod.raw, "/spec/topologySpreadConstraints").iter();
        all.filter(move |constraint| text(constraint, "/whenUnsatisfiable") == when)
    }

    /// The pods of a constraint in the domain of a node.
    fn selected_in(&self, constraint: &Value, node: &Value) -> i64 {
        let key = text(constraint, "/topologyKey");
        let place = domain(node, key);
        let selected = self.placed.iter().filter(|pod| {
            !pod.is_going && pod.name.0 == self.pod.name.0 && selects(&constraint["labelSelector"], pod.labels())
        });
        let here = selected.filter(|pod| self.node_of(pod).and_then(|of| domain(of, key)) == place);
        i64::try_from(here.count()).unwrap_or(i64::MAX)
    }

    /// Whether no domain would have too many more than another.
    pub(super) fn spreads(&self, node: &Value) -> bool {
        self.constraints("DoNotSchedule").all(|constraint| {
            let key = text(constraint, "/topologyKey");
            let domains = self.nodes.iter().filter(|other| domain(other, key).is_some());
            let least = domains
                .map(|other| self.selected_in(constraint, other))
                .min()
                .unwrap_or(0);
            let itself = i64::from(selects(&constraint["labelSelector"], self.pod.labels()));
            let most = constraint["maxSkew"].as_i64().unwrap_or(1);
            domain(node, key).is_some() && self.selected_in(constraint, node) + itself - least <= most
        })
    }

    /// How many are in the domains of a node that needn't, but should, be spread.
    pub(super) fn crowd(&self, node: &Value) -> i64 {
        let constraints = self.constraints("ScheduleAnyway");
        constraints.map(|constraint| self.selected_in(constraint, node)).sum()
    }
}
