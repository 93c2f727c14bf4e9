//! The background loops (§6): looks, moves, sync actions, and following the sentinels.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::Dashboard;
use crate::host;
use crate::sentinel::watch::Learnt;

impl Dashboard {
    /// Starts them; if the first load of the store fails, none runs although all seems well (§6.7).
    pub(crate) async fn start_loops(self: Arc<Self>, learnt: Learnt) -> JoinSet<()> {
        let mut loops = JoinSet::new();
        let sentinels = match self.open().await {
            Ok(state) => state.sentinel.servers.clone(),
            Err(error) => {
                tracing::error!("dashboard load failed, no background loop runs: {error}");
                return loops;
            }
        };
        let dashboard = self.clone();
        host::join_in(&mut loops, async move { dashboard.follow(learnt).await });
        let dashboard = self.clone();
        host::join_in(&mut loops, async move {
            loop {
                dashboard.look_at_redis().await;
                tokio::time::sleep(dashboard.timings.loop_pause).await;
            }
        });
        let dashboard = self.clone();
        host::join_in(&mut loops, async move {
            loop {
                dashboard.look_at_proxies().await;
                tokio::time::sleep(dashboard.timings.loop_pause).await;
            }
        });
        let dashboard = self.clone();
        host::join_in(&mut loops, async move { dashboard.move_slots().await });
        let dashboard = self.clone();
        host::join_in(&mut loops, async move { dashboard.sync_servers().await });
        self.watch(&sentinels);
        loops
    }

    async fn sync_servers(&self) {
        loop {
            match self.sync_one().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::warn!("sync action failed: {error}"),
            }
            tokio::time::sleep(self.timings.loop_pause).await;
        }
    }
}
