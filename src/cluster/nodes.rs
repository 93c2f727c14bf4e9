//! The nodes of Kubernetes, read once for all clusters.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::{Api, ResourceExt, api::ListParams};
use tokio::{sync::Mutex, time::Instant};

use super::{CALL_TIMEOUT, Call, Cluster, Error, bounded};

/// A picture of the nodes is good for this long.
const FRESH: Duration = Duration::from_secs(2);

/// Nodes by name.
pub type Nodes = Arc<BTreeMap<String, Node>>;

/// The last picture of the nodes, and when it was taken.
pub(super) type LastNodes = Arc<Mutex<Option<(Instant, Nodes)>>>;

impl Cluster {
    /// The nodes: at most two seconds old, so that many clusters cost one LIST, and that one from the API server's own
    /// cache. Nodes that can't be seen (an operator of one namespace may not) are no nodes: nothing is known then.
    pub async fn nodes(&self) -> Nodes {
        let mut last = self.nodes.lock().await;
        if let Some((_, nodes)) = last.as_ref().filter(|(taken, _)| taken.elapsed() < FRESH) {
            return Arc::clone(nodes);
        }
        let nodes = match self.list_nodes().await {
            Ok(nodes) => Arc::new(nodes),
            Err(error) => {
                tracing::warn!(%error, "the nodes can't be seen: drains and lost nodes go unnoticed");
                Nodes::default()
            }
        };
        *last = Some((Instant::now(), Arc::clone(&nodes)));
        nodes
    }

    /// A volume, by its name.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub async fn volume(&self, name: &str) -> Result<Option<PersistentVolume>, Error> {
        let api = Api::<PersistentVolume>::all(self.client.clone());
        bounded(
            CALL_TIMEOUT,
            Call::new("get", "PersistentVolume", name),
            api.get_opt(name),
        )
        .await
    }

    async fn list_nodes(&self) -> Result<BTreeMap<String, Node>, Error> {
        let api = Api::<Node>::all(self.client.clone());
        let from_cache = ListParams::default().match_any();
        let call = Call::new("list", "Node", "");
        let found = bounded(CALL_TIMEOUT, call, api.list(&from_cache)).await?;
        Ok(found.items.into_iter().map(|node| (node.name_any(), node)).collect())
    }
}
