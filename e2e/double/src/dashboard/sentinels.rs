//! Sentinels (§5.6, §11): configuring them, and following what they decide.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;

use super::Dashboard;
use super::state::State;
use crate::http::Refusal;
use crate::redis::{Connection, RedisError};
use crate::sentinel::watch::{Learnt, Masters, Watch};
use crate::sentinel::{Client, Policy, Row, master_name, numeric};
use crate::wire::{Group, Monitored, Sentinel};

type Done = Result<(), Refusal>;

/// A look at one address for the API (§5.1).
const LOOK: Duration = Duration::from_secs(1);

impl Dashboard {
    fn budget(&self) -> Duration {
        self.config.sentinel_client_timeout.0
    }

    async fn sentinel(&self, addr: &str, timeout: Duration) -> Result<Client, RedisError> {
        Client::open(addr, &self.config.product_name, timeout).await
    }

    pub(crate) async fn redis_info(&self, addr: &str) -> Result<Row, Refusal> {
        Ok(Connection::open(addr, &self.config.product_auth, LOOK)
            .await?
            .info()
            .await?)
    }

    pub(crate) async fn sentinel_info(&self, addr: &str) -> Result<Row, Refusal> {
        Ok(self.sentinel(addr, LOOK).await?.info().await?)
    }

    pub(crate) async fn monitored(&self, addr: &str) -> Result<BTreeMap<String, Monitored>, Refusal> {
        Ok(self.sentinel(addr, LOOK).await?.monitored().await?)
    }

    async fn save_sentinel(&self, state: &mut State, sentinel: Sentinel) -> Done {
        self.store.put_sentinel(&sentinel).await?;
        state.sentinel = sentinel;
        Ok(())
    }

    pub(crate) async fn add_sentinel(&self, addr: &str) -> Done {
        let mut state = self.open().await?;
        let mut sentinel = state.sentinel.clone();
        if sentinel.servers.iter().any(|server| server == addr) {
            return Err(format!("sentinel-[{addr}] already exists").into());
        }
        self.sentinel(addr, self.budget()).await?.flush_config().await?;
        sentinel.servers.push(addr.to_string());
        sentinel.out_of_sync = true;
        self.save_sentinel(&mut state, sentinel).await
    }

    pub(crate) async fn del_sentinel(&self, addr: &str, force: bool) -> Done {
        let mut state = self.open().await?;
        if !state.sentinel.servers.iter().any(|server| server == addr) {
            return Err(format!("sentinel-[{addr}] not found").into());
        }
        self.distrust_sentinels(&mut state).await?;
        if let Err(error) = self.forget(addr, None).await {
            tracing::warn!("remove sentinel {addr} failed, force = {force}: {error}");
            if !force {
                return Err(format!("remove sentinel {addr} failed").into());
            }
        }
        let mut sentinel = state.sentinel.clone();
        sentinel.servers.retain(|server| server != addr);
        sentinel.out_of_sync = true;
        self.save_sentinel(&mut state, sentinel).await
    }

    /// Makes one sentinel forget a group's master, or all of the product's.
    async fn forget(&self, addr: &str, gid: Option<i64>) -> Result<(), RedisError> {
        let work = async {
            let mut client = self.sentinel(addr, self.budget()).await?;
            match gid {
                Some(gid) => client.remove(&master_name(&self.config.product_name, gid)).await,
                None => client.remove_all().await,
            }
        };
        self.in_budget(addr, work).await
    }

    async fn in_budget(
        &self,
        addr: &str,
        work: impl Future<Output = Result<(), RedisError>>,
    ) -> Result<(), RedisError> {
        let done = tokio::time::timeout(self.budget(), work).await;
        done.unwrap_or_else(|_| Err(RedisError(format!("dial tcp {addr}: i/o timeout"))))
    }

    /// Makes every sentinel forget, as far as it can be reached.
    pub(crate) async fn unwatch(&self, state: &State, gid: Option<i64>) {
        let forgets = state.sentinel.servers.iter().map(|addr| async move {
            if let Err(error) = self.forget(addr, gid).await {
                tracing::warn!("sentinel-[{addr}] remove failed: {error}");
            }
        });
        join_all(forgets).await;
    }

    /// Forgets everything everywhere first, then configures anew: what fails in between leaves groups unwatched.
    pub(crate) async fn resync_sentinels(&self) -> Done {
        let mut state = self.open().await?;
        let mut sentinel = state.sentinel.clone();
        sentinel.out_of_sync = true;
        self.save_sentinel(&mut state, sentinel).await?;
        self.unwatch(&state, None).await;
        let mut masters = BTreeMap::new();
        for group in state.groups.values().filter(|group| !group.servers.is_empty()) {
            masters.insert(group.id, numeric(group.master()).await?);
        }
        let monitors = state.sentinel.servers.iter().map(|addr| self.monitor(addr, &masters));
        join_all(monitors)
            .await
            .into_iter()
            .collect::<Result<(), RedisError>>()?;
        self.watch(&state.sentinel.servers);
        self.push_sentinels(&state).await?;
        let mut sentinel = state.sentinel.clone();
        sentinel.out_of_sync = false;
        self.save_sentinel(&mut state, sentinel).await
    }

    async fn monitor(&self, addr: &str, masters: &BTreeMap<i64, (String, String)>) -> Result<(), RedisError> {
        let config = &self.config;
        let policy = Policy {
            quorum: config.sentinel_quorum,
            parallel_syncs: config.sentinel_parallel_syncs,
            down_after: config.sentinel_down_after.0,
            failover_timeout: config.sentinel_failover_timeout.0,
            auth: config.product_auth.clone(),
            notification_script: config.sentinel_notification_script.clone(),
            client_reconfig_script: config.sentinel_client_reconfig_script.clone(),
        };
        let work = async {
            let mut client = self.sentinel(addr, self.budget()).await?;
            for (gid, (ip, port)) in masters {
                client.monitor(*gid, ip, port, &policy).await?;
            }
            Ok(())
        };
        let done = self.in_budget(addr, work).await;
        done.inspect_err(|error| tracing::warn!("sentinel-[{addr}] monitor failed: {error}"))
    }

    /// (Re)starts the subscription; what an older one learnt is dropped.
    pub(crate) fn watch(&self, servers: &[String]) {
        self.looks().masters.clear();
        let (product, timings) = (self.config.product_name.clone(), self.timings.clone());
        self.watcher.restart(
            Watch {
                servers: servers.to_vec(),
                product,
                timings,
            },
            &self.stop,
        );
    }

    /// Follows the subscriptions until the dashboard ends.
    pub(crate) async fn follow(&self, mut learnt: Learnt) {
        while let Some(masters) = learnt.next().await {
            self.switch(masters).await;
        }
    }

    async fn switch(&self, masters: Masters) {
        self.looks().masters.clone_from(&masters);
        let Ok(mut state) = self.open().await else { return };
        for (gid, master) in &masters {
            if let Err(error) = self.make_first(&mut state, *gid, master).await {
                tracing::warn!("group-[{gid}] switch to {master} failed: {error}");
            }
        }
    }

    /// Swaps sentinel's master with `servers[0]`; it is known by its address or by its run id.
    async fn make_first(&self, state: &mut State, gid: i64, master: &str) -> Done {
        let Some(mut group) = state.groups.get(&gid).cloned() else {
            return Ok(());
        };
        let by_addr = super::state::index_of(&group, master);
        let found = match by_addr {
            Some(index) => Some(index),
            None => self.by_run_id(&group, master).await,
        };
        match found {
            None => tracing::warn!("group-[{gid}] has no server {master} that sentinels call its master"),
            Some(0) => {}
            Some(index) => {
                tracing::warn!("group-[{gid}] will switch master to {master}");
                group.servers.swap(0, index);
                group.out_of_sync = true;
                self.save_group(state, group).await?;
            }
        }
        Ok(())
    }

    async fn by_run_id(&self, group: &Group, master: &str) -> Option<usize> {
        let wanted = self.run_id(master).await?;
        let ids = join_all(group.servers.iter().map(|server| self.run_id(&server.addr))).await;
        ids.iter().position(|id| id.as_deref() == Some(wanted.as_str()))
    }

    async fn run_id(&self, addr: &str) -> Option<String> {
        crate::redis::run_id(addr, &self.config.product_auth, self.timings.run_id_timeout).await
    }
}
