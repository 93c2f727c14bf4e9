//! What left a repository. Nothing is deleted: it goes on running, and the status lists it as held.

use kube::ResourceExt;

use super::{
    keeper::{Keeper, keeper},
    source::Source,
};
use crate::api::{CodisCluster, names};

impl Source {
    /// What isn't as the repository says and is left so: clusters that left it, and edits that can't be put back.
    pub(super) fn held(&self) -> Vec<String> {
        let Some(in_force) = &self.in_force else {
            return Vec::new();
        };
        // The label first: this is asked often, and there may be a thousand clusters.
        let is_ours = |live: &CodisCluster| {
            live.labels().get(names::LABEL_SOURCE) == Some(&self.name)
                && live.metadata.namespace.as_ref() == Some(&self.namespace)
                && !in_force.documents.contains_key(&live.name_any())
                && keeper(live, &self.name) == Keeper::Us
        };
        let all = self.hub.live.state();
        let mut left: Vec<String> = all
            .iter()
            .filter(|live| is_ours(live))
            .map(|live| format!("{} is no longer in the repository; it isn't deleted", live.name_any()))
            .collect();
        left.sort();
        left.extend(self.repairs.stuck());
        left
    }
}
