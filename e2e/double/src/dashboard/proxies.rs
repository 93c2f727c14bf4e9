//! Proxies (§5.3): their records, and the pushes that one dead record blocks.

use bytes::Bytes;
use futures::future::join_all;

use super::Dashboard;
use super::state::State;
use super::viewer::Viewer;
use crate::http::Refusal;
use crate::identity;
use crate::rpc::ProxyClient;
use crate::wire::{Proxy, SlotMapping};

type Done = Result<(), Refusal>;

impl Dashboard {
    pub(crate) fn client(&self, proxy: &Proxy) -> ProxyClient {
        let xauth = identity::xauth(&[&self.config.product_name, &self.config.product_auth, &proxy.token]);
        ProxyClient::new(&self.rpc, &proxy.admin_addr, xauth)
    }

    /// Tells every registered proxy what these slots are; one failing proxy fails the push.
    pub(crate) async fn push(&self, state: &State, slots: &[SlotMapping]) -> Done {
        if slots.is_empty() {
            return Ok(());
        }
        let viewers = join_all(state.proxies.values().map(|proxy| Viewer::of(state, proxy))).await;
        // Proxies that see the same are told the same text; to render it costs more than all the rest.
        let mut texts: Vec<(&Viewer, Bytes)> = Vec::new();
        for viewer in &viewers {
            if !texts.iter().any(|(known, _)| *known == viewer) {
                texts.push((viewer, self.views(state, viewer, slots)?));
            }
        }
        let text = |viewer| {
            texts
                .iter()
                .find(|(known, _)| *known == viewer)
                .map(|(_, text)| text.clone())
        };
        let pushes = state.proxies.values().zip(&viewers).map(|(proxy, viewer)| {
            let text = text(viewer).unwrap_or_default();
            async move {
                let outcome = self.client(proxy).fill_slots(text).await;
                outcome.map_err(|error| {
                    tracing::warn!("proxy-[{}] resync slots failed: {error}", proxy.token);
                    Refusal(format!("proxy-[{}] resync slots failed", proxy.token))
                })
            }
        });
        join_all(pushes).await.into_iter().collect()
    }

    /// What a proxy is told of slots.
    fn views(&self, state: &State, viewer: &Viewer, slots: &[SlotMapping]) -> Result<Bytes, Refusal> {
        let method = self.config.forward_method();
        let view = |slot| state.view(slot, method, Some(viewer));
        let views: Vec<_> = slots.iter().map(view).collect();
        let text = serde_json::to_vec(&views).map_err(|error| Refusal(error.to_string()))?;
        Ok(text.into())
    }

    /// `proxy/create` and `proxy/online`: the record is stored before reinit, so a failing reinit leaves it behind.
    pub(crate) async fn register_proxy(&self, addr: &str, create: bool) -> Done {
        let mut state = self.open().await?;
        let failed = |what: &str, at: &str, error: crate::rpc::RpcError| {
            tracing::warn!("proxy@{at} {what} failed: {error}");
            let detail = if create { format!(", {error}") } else { String::new() };
            Refusal(format!("proxy@{at} {what} failed{detail}"))
        };
        let told = ProxyClient::model(&self.rpc, addr).await;
        let mut proxy = told.map_err(|error| failed("fetch model", addr, error))?;
        let checked = self.client(&proxy).xping().await;
        checked.map_err(|error| failed("check xauth", &proxy.admin_addr, error))?;
        let known = state.proxies.get(&proxy.token).map(|known| known.id);
        if create && known.is_some() {
            return Err(format!("proxy-[{}] already exists", proxy.token).into());
        }
        proxy.id = known.unwrap_or_else(|| state.proxies.values().map(|proxy| proxy.id).max().unwrap_or(0) + 1);
        self.store
            .put_proxy(if known.is_some() { "update" } else { "create" }, &proxy)
            .await?;
        state.proxies.insert(proxy.token.clone(), proxy.clone());
        self.reinit(&state, &proxy).await
    }

    pub(crate) async fn reinit_proxy(&self, token: &str) -> Done {
        let state = self.open().await?;
        let proxy = known(&state, token)?;
        self.reinit(&state, proxy).await
    }

    /// All slots, then start, then the sentinels (§5.3).
    async fn reinit(&self, state: &State, proxy: &Proxy) -> Done {
        let client = self.client(proxy);
        let failed = |what: &str, error: crate::rpc::RpcError| {
            tracing::warn!("proxy-[{}] {what} failed: {error}", proxy.token);
            Refusal(format!("proxy-[{}] {what} failed", proxy.token))
        };
        let viewer = Viewer::of(state, proxy).await;
        let told = client.fill_slots(self.views(state, &viewer, &state.slots)?).await;
        told.map_err(|error| failed("fillslots", error))?;
        client.start().await.map_err(|error| failed("start", error))?;
        client
            .set_sentinels(&state.sentinel)
            .await
            .map_err(|error| failed("set sentinels", error))
    }

    pub(crate) async fn remove_proxy(&self, token: &str, force: bool) -> Done {
        let mut state = self.open().await?;
        let proxy = known(&state, token)?.clone();
        if let Err(error) = self.client(&proxy).shutdown().await {
            tracing::warn!("proxy-[{token}] shutdown failed, force remove = {force}: {error}");
            if !force {
                return Err(format!("proxy-[{token}] shutdown failed").into());
            }
        }
        self.store.remove_proxy(token).await?;
        state.proxies.remove(token);
        Ok(())
    }

    /// Tells every proxy which sentinels to watch.
    pub(crate) async fn push_sentinels(&self, state: &State) -> Done {
        let pushes = state.proxies.values().map(|proxy| async move {
            let outcome = self.client(proxy).set_sentinels(&state.sentinel).await;
            outcome.map_err(|error| {
                tracing::warn!("proxy-[{}] sentinel failed: {error}", proxy.token);
                Refusal(format!("proxy-[{}] sentinel failed", proxy.token))
            })
        });
        join_all(pushes).await.into_iter().collect()
    }
}

fn known<'a>(state: &'a State, token: &str) -> Result<&'a Proxy, Refusal> {
    state
        .proxies
        .get(token)
        .ok_or_else(|| format!("proxy-[{token}] doesn't exist").into())
}
