//! What left a repository. Nothing is deleted: it goes on running, and the status lists it as held.

use kube::ResourceExt;

use super::{
    keeper::{Keeper, keeper},
    look::Found,
    source::Source,
};
use crate::{
    api::{CodisCluster, names},
    cluster::Propagation,
};

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

    /// The mistake that tests build in ([`Bug::PruneOnEmpty`](crate::seeded::Bug)): what isn't there is taken for what
    /// isn't wanted.
    pub(super) async fn prune_if_empty(&self, found: &Found) {
        let (Found::Held { why, .. } | Found::Trouble(why)) = found else {
            return;
        };
        if !["PathEmpty", "PathMissing", "RepositoryEmpty"].contains(&why.reason) {
            return;
        }
        for live in self.hub.live.state() {
            let (name, uid) = (live.name_any(), live.uid().unwrap_or_default());
            let door = &self.hub.door;
            // Whatever comes of it: that is the mistake.
            let _ = door
                .delete::<CodisCluster>(&self.namespace, &name, &uid, Propagation::Background)
                .await;
        }
    }
}
