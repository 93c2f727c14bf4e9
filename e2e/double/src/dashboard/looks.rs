//! The last look at every server, sentinel and proxy (§6.7): a pass, each target at most a second, then a rest.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::Dashboard;
use crate::host;
use crate::sentinel::watch::Masters;
use crate::wire::{Proxy, ProxyStats, RedisStats, RemoteError};

/// What was seen; it lags the models.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    pub(crate) servers: BTreeMap<String, RedisStats>,
    pub(crate) sentinels: BTreeMap<String, RedisStats>,
    pub(crate) proxies: BTreeMap<String, ProxyStats>,
    pub(crate) masters: Masters,
}

impl Dashboard {
    /// Looks at all servers and sentinels.
    pub(crate) async fn look_at_redis(&self) {
        let Ok(state) = self.open().await else { return };
        let servers = state
            .groups
            .values()
            .flat_map(|group| &group.servers)
            .map(|server| server.addr.clone());
        let (servers, sentinels): (Vec<_>, _) = (servers.collect(), state.sentinel.servers.clone());
        drop(state);
        let server_looks = join_all(servers.iter().map(|addr| self.look_at_server(addr))).await;
        let sentinel_looks = join_all(sentinels.iter().map(|addr| self.look_at_sentinel(addr))).await;
        let mut looks = self.looks();
        looks.servers = servers.into_iter().zip(server_looks).collect();
        looks.sentinels = sentinels.into_iter().zip(sentinel_looks).collect();
    }

    async fn look_at_server(&self, addr: &str) -> RedisStats {
        let look = tokio::time::timeout(self.timings.stats_timeout, self.redis_info(addr)).await;
        let mut stats = RedisStats {
            unixtime: now(),
            ..Default::default()
        };
        match look {
            Ok(Ok(info)) => stats.stats = Some(info),
            Ok(Err(refusal)) => stats.error = Some(refusal.into()),
            Err(_) => stats.timeout = true,
        }
        stats
    }

    async fn look_at_sentinel(&self, addr: &str) -> RedisStats {
        let both = async { Ok((self.sentinel_info(addr).await?, self.monitored(addr).await?)) };
        let look = tokio::time::timeout(self.timings.stats_timeout, both).await;
        let mut stats = RedisStats {
            unixtime: now(),
            ..Default::default()
        };
        match look {
            Ok(Ok((info, monitored))) => {
                stats.stats = Some(info);
                stats.sentinel = Some(monitored);
            }
            Ok(Err::<_, crate::http::Refusal>(refusal)) => stats.error = Some(refusal.into()),
            Err(_) => stats.timeout = true,
        }
        stats
    }

    /// Looks at all proxies, and brings registered ones that wait online again (§8.3).
    pub(crate) async fn look_at_proxies(&self) {
        let Ok(state) = self.open().await else { return };
        let proxies: Vec<Proxy> = state.proxies.values().cloned().collect();
        drop(state);
        let looks = join_all(proxies.iter().map(|proxy| self.look_at_proxy(proxy))).await;
        let waiting = proxies
            .iter()
            .zip(&looks)
            .filter(|(_, look)| waits(look))
            .map(|(proxy, _)| proxy.clone());
        let waiting: Vec<_> = waiting.collect();
        self.looks().proxies = proxies.into_iter().map(|proxy| proxy.token).zip(looks).collect();
        for proxy in waiting {
            tracing::warn!("proxy-[{}] waits at {}, auto online", proxy.token, proxy.admin_addr);
            if let Err(error) = self.register_proxy(&proxy.admin_addr, false).await {
                tracing::warn!("auto online proxy-[{}] failed: {error}", proxy.token);
            }
        }
    }

    async fn look_at_proxy(&self, proxy: &Proxy) -> ProxyStats {
        let look = self.client(proxy).stats(self.timings.stats_timeout).await;
        let mut stats = ProxyStats {
            unixtime: now(),
            ..Default::default()
        };
        match look {
            Some(Ok(told)) => stats.stats = Some(told),
            Some(Err(error)) => {
                stats.error = Some(RemoteError {
                    cause: error.to_string(),
                    stack: None,
                })
            }
            None => stats.timeout = true,
        }
        stats
    }
}

fn waits(look: &ProxyStats) -> bool {
    let flag = |name: &str| {
        look.stats
            .as_ref()
            .and_then(|stats| stats.get(name))
            .and_then(|flag| flag.as_bool())
    };
    flag("online") == Some(false) && flag("closed") == Some(false)
}

fn now() -> i64 {
    host::now().as_second()
}
