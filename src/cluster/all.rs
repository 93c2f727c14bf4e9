//! All CodisClusters: what tells that two mean the same.

use std::{sync::Arc, time::Duration};

use kube::{Api, api::ListParams};
use tokio::{sync::Mutex, time::Instant};

use super::{CALL_TIMEOUT, Call, Cluster, Error, bounded};
use crate::api::CodisCluster;

/// A picture of them is good for this long.
const FRESH: Duration = Duration::from_secs(2);

/// The last picture, and when it was taken.
pub(super) type LastClusters = Arc<Mutex<Option<(Instant, Arc<Vec<CodisCluster>>)>>>;

impl Cluster {
    /// All CodisClusters, at most two seconds old, so that many clusters cost one LIST; or as they are now.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub async fn clusters(&self, now: bool) -> Result<Arc<Vec<CodisCluster>>, Error> {
        let mut last = self.clusters.lock().await;
        let is_fresh = |taken: &Instant| !now && taken.elapsed() < FRESH;
        if let Some((_, clusters)) = last.as_ref().filter(|(taken, _)| is_fresh(taken)) {
            return Ok(Arc::clone(clusters));
        }
        let api = Api::<CodisCluster>::all(self.client.clone());
        let call = Call::new("list", "CodisCluster", "");
        let asked = Instant::now();
        let found = bounded(CALL_TIMEOUT, call, api.list(&ListParams::default())).await?;
        let clusters = Arc::new(found.items);
        *last = Some((asked, Arc::clone(&clusters)));
        Ok(clusters)
    }
}
