//! What can be seen of a cluster and its source at one moment, by everybody who can ask the API server.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, ObjectMeta},
};

use crate::api::{CodisCluster, CodisClusterStatus, CodisGitSource, CodisGitSourceStatus, condition};

/// The namespace of the demo.
pub(super) const NAMESPACE: &str = "default";
/// The source.
pub(super) const SOURCE: &str = "fleet";

/// One look.
pub(super) struct View {
    /// The cluster.
    pub cluster: Option<CodisCluster>,
    /// Its source.
    pub source: Option<CodisGitSource>,
    /// All pods.
    pub pods: Vec<Pod>,
}

impl View {
    /// Asks the API server.
    pub(super) async fn of(client: &kube::Client, cluster: &str) -> kube::Result<Self> {
        let sources = Api::<CodisGitSource>::namespaced(client.clone(), NAMESPACE);
        let clusters = Api::<CodisCluster>::namespaced(client.clone(), NAMESPACE);
        let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
        Ok(Self {
            cluster: clusters.get_opt(cluster).await?,
            source: sources.get_opt(SOURCE).await?,
            pods: pods.list(&ListParams::default()).await?.items,
        })
    }

    /// What the cluster says of itself.
    pub(super) fn status(&self) -> Option<&CodisClusterStatus> {
        self.cluster.as_ref()?.status.as_ref()
    }

    /// What the source says of itself.
    pub(super) fn of_source(&self) -> Option<&CodisGitSourceStatus> {
        self.source.as_ref()?.status.as_ref()
    }

    /// Whether this commit was applied, all of it.
    pub(super) fn has_applied(&self, commit: &str) -> bool {
        let folder = self.status().and_then(|status| status.gitops.as_ref());
        let source = self
            .of_source()
            .and_then(|status| status.last_applied_revision.as_ref());
        let applied = source.or(folder.map(|gitops| &gitops.revision));
        applied.is_some_and(|revision| revision.ends_with(commit))
    }

    /// Whether all is as wished.
    pub(super) fn is_ready(&self) -> bool {
        self.cluster.as_ref().is_some_and(is_ready)
    }

    /// A pod that is ready.
    pub(super) fn ready_pod(&self, part: &str) -> Option<&ObjectMeta> {
        let mut named = self.pods.iter().filter(|pod| pod.name_any().contains(part));
        named.find(|pod| is_up(pod)).map(|pod| &pod.metadata)
    }

    /// How many pods of this name are ready.
    pub(super) fn ready_pods(&self, part: &str) -> usize {
        let named = self.pods.iter().filter(|pod| pod.name_any().contains(part));
        named.filter(|pod| is_up(pod)).count()
    }

    /// Who is master of a group.
    pub(super) fn master(&self, group: i32) -> Option<String> {
        let groups = &self.status()?.groups;
        groups.iter().find(|known| known.id == group)?.master.clone()
    }

    /// What it waits for.
    pub(super) fn waits_for(&self) -> String {
        let status = self.status().and_then(|status| status.message.clone());
        status.unwrap_or_else(|| "the source is being looked at".to_owned())
    }
}

/// Whether all is as wished, by a status that knows the present wish.
pub(super) fn is_ready(cluster: &CodisCluster) -> bool {
    let Some(status) = &cluster.status else {
        return false;
    };
    let is_true = |condition: &Condition| condition.type_ == condition::READY && condition.status == "True";
    status.observed_generation == cluster.metadata.generation && status.conditions.iter().any(is_true)
}

fn is_up(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is_going = pod.metadata.deletion_timestamp.is_some();
    let mut all = conditions.into_iter().flatten();
    !is_going && all.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
