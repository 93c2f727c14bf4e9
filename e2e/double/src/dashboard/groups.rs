//! Groups and sync actions (§5.4, §6.3, §6.4, §7).

use std::time::Duration;

use super::Dashboard;
use super::state::{State, index_of};
use crate::http::Refusal;
use crate::redis::Connection;
use crate::wire::{Action, Group, GroupServer};

type Done = Result<(), Refusal>;

/// How long a server may take to prove itself (§5.4).
const PROBE: Duration = Duration::from_secs(1);
/// A first full synchronisation may hold `SLAVEOF`'s connection for long (§6.3).
const SYNC: Duration = Duration::from_secs(30 * 60);

impl Dashboard {
    /// Writes a group to the store, then to the cache.
    pub(crate) async fn save_group(&self, state: &mut State, group: Group) -> Done {
        self.store.put_group("update", &group).await?;
        state.groups.insert(group.id, group);
        Ok(())
    }

    pub(crate) async fn create_group(&self, gid: i64) -> Done {
        let mut state = self.open().await?;
        if !(1..=9999).contains(&gid) {
            return Err(format!("invalid group id = {gid}, out of range").into());
        }
        if state.groups.contains_key(&gid) {
            return Err(format!("group-[{gid}] already exists").into());
        }
        let group = Group {
            id: gid,
            ..Default::default()
        };
        self.store.put_group("create", &group).await?;
        state.groups.insert(gid, group);
        Ok(())
    }

    pub(crate) async fn remove_group(&self, gid: i64) -> Done {
        let mut state = self.open().await?;
        if !state.group(gid)?.servers.is_empty() {
            return Err(format!("group-[{gid}] isn't empty").into());
        }
        self.store.remove_group(gid).await?;
        state.groups.remove(&gid);
        Ok(())
    }

    pub(crate) async fn add_server(&self, gid: i64, addr: &str, datacenter: &str) -> Done {
        self.probe(addr).await?;
        let mut state = self.open().await?;
        if state.server(addr).is_some() {
            return Err(format!("server-[{addr}] already exists").into());
        }
        let mut group = state.settled(gid)?;
        self.distrust_sentinels(&mut state).await?;
        group.servers.push(GroupServer {
            addr: addr.into(),
            datacenter: datacenter.into(),
            ..Default::default()
        });
        self.save_group(&mut state, group).await
    }

    /// Stands in for `SLOTSINFO`, which plain redis lacks: reachable, the right password, and no sentinel.
    async fn probe(&self, addr: &str) -> Done {
        let auth = self.config.product_auth.as_str();
        let mut connection = Connection::open(addr, "", PROBE).await?;
        let admitted = if auth.is_empty() {
            Ok(())
        } else {
            connection.command(&["AUTH", auth]).await.map(drop)
        };
        let mode = connection
            .plain_info()
            .await
            .map(|info| info.get("redis_mode").cloned());
        if matches!(&mode, Ok(Some(mode)) if mode == "sentinel") {
            let command = if auth.is_empty() { "SLOTSINFO" } else { "AUTH" };
            return Err(format!("ERR unknown command '{command}'").into());
        }
        admitted?;
        mode?;
        connection.command(&["PING"]).await?;
        Ok(())
    }

    pub(crate) async fn del_server(&self, gid: i64, addr: &str) -> Done {
        let mut state = self.open().await?;
        let mut group = state.group(gid)?.clone();
        let index = member(&group, addr)?;
        state.settled(gid)?;
        let in_use = group.servers.len() > 1 || !state.slots_of(gid).is_empty();
        if index == 0 && in_use {
            return Err(format!("group-[{gid}] can't remove master, still in use").into());
        }
        self.distrust_sentinels(&mut state).await?;
        let removed = group.servers.remove(index);
        group.out_of_sync = (group.out_of_sync || removed.replica_group) && !group.servers.is_empty();
        self.save_group(&mut state, group).await
    }

    /// With any sentinel configured, changed groups mean that sentinels may watch the wrong masters (§6.4).
    pub(crate) async fn distrust_sentinels(&self, state: &mut State) -> Done {
        if state.sentinel.servers.is_empty() || state.sentinel.out_of_sync {
            return Ok(());
        }
        let mut sentinel = state.sentinel.clone();
        sentinel.out_of_sync = true;
        self.store.put_sentinel(&sentinel).await?;
        state.sentinel = sentinel;
        Ok(())
    }

    pub(crate) async fn resync_group(&self, gid: i64) -> Done {
        let mut state = self.open().await?;
        self.resync(&mut state, gid).await
    }

    pub(crate) async fn resync_all_groups(&self) -> Done {
        let mut state = self.open().await?;
        for gid in state.groups.keys().copied().collect::<Vec<_>>() {
            self.resync(&mut state, gid).await?;
        }
        Ok(())
    }

    async fn resync(&self, state: &mut State, gid: i64) -> Done {
        let mut group = state.group(gid)?.clone();
        self.push(state, &state.slots_of(gid)).await?;
        group.out_of_sync = false;
        self.save_group(state, group).await
    }

    pub(crate) async fn replica_group(&self, gid: i64, addr: &str, value: bool) -> Done {
        let mut state = self.open().await?;
        let index = member(state.group(gid)?, addr)?;
        let mut group = state.settled(gid)?;
        group.servers[index].replica_group = value;
        self.save_replica_groups(&mut state, group).await
    }

    pub(crate) async fn all_replica_groups(&self, value: bool) -> Done {
        let mut state = self.open().await?;
        for gid in state.groups.keys().copied().collect::<Vec<_>>() {
            let mut group = state.settled(gid)?;
            group.servers.iter_mut().for_each(|server| server.replica_group = value);
            self.save_replica_groups(&mut state, group).await?;
        }
        Ok(())
    }

    async fn save_replica_groups(&self, state: &mut State, mut group: Group) -> Done {
        group.out_of_sync |= group.servers.len() > 1 && !state.slots_of(group.id).is_empty();
        self.save_group(state, group).await
    }

    /// Queues or clears the sync action of a server.
    pub(crate) async fn change_sync(&self, addr: &str, create: bool) -> Done {
        let mut state = self.open().await?;
        let Some((gid, index)) = state.server(addr) else {
            return Err(format!("server-[{addr}] doesn't exist").into());
        };
        let mut group = state.settled(gid)?;
        let next = state.next_sync_index();
        let action = &mut group.servers[index].action;
        match (create, action.state.as_str()) {
            (true, "pending") => return Err(format!("server-[{addr}] action already exist").into()),
            (true, _) => {
                *action = Action {
                    index: next,
                    state: "pending".into(),
                }
            }
            (false, "") => return Err(format!("server-[{addr}] action doesn't exist").into()),
            (false, _) => *action = Action::default(),
        }
        self.save_group(&mut state, group).await
    }

    /// Runs the first pending sync action, if any; tells whether there was one.
    pub(crate) async fn sync_one(&self) -> Result<bool, Refusal> {
        let Some((addr, master)) = self.begin_sync().await? else {
            return Ok(false);
        };
        tracing::warn!("sync-[{addr}] begins, master = {master:?}");
        let synced = self.set_master(&addr, master.as_deref(), SYNC).await;
        if let Err(error) = &synced {
            tracing::warn!("sync-[{addr}] failed: {error}");
        }
        self.end_sync(&addr, synced.is_ok()).await?;
        Ok(true)
    }

    pub(crate) async fn set_master(&self, addr: &str, master: Option<&str>, timeout: Duration) -> Done {
        let auth = self.config.product_auth.as_str();
        let dialed = tokio::time::timeout(Duration::from_secs(5), Connection::open(addr, auth, timeout)).await;
        let mut connection = dialed.map_err(|_| Refusal(format!("dial tcp {addr}: i/o timeout")))??;
        Ok(connection.set_master(auth, master).await?)
    }

    async fn begin_sync(&self) -> Result<Option<(String, Option<String>)>, Refusal> {
        let mut state = self.open().await?;
        let pending = |group: &Group, index: usize| group.servers[index].action.state == "pending";
        let queued = state
            .groups
            .values()
            .flat_map(|group| (0..group.servers.len()).map(move |index| (group, index)));
        let first = queued
            .filter(|(group, index)| pending(group, *index))
            .min_by_key(|(group, index)| group.servers[*index].action.index);
        let Some((group, index)) = first.map(|(group, index)| (group.clone(), index)) else {
            return Ok(None);
        };
        // A promotion at the head of the queue holds the whole queue (§6.3).
        if !group.promoting.state.is_empty() {
            return Ok(None);
        }
        let mut group = group;
        group.servers[index].action.state = "syncing".into();
        let addr = group.servers[index].addr.clone();
        let master = (index > 0).then(|| group.master().to_string());
        self.save_group(&mut state, group).await?;
        Ok(Some((addr, master)))
    }

    async fn end_sync(&self, addr: &str, synced: bool) -> Done {
        let mut state = self.open().await?;
        let Some((gid, index)) = state.server(addr) else {
            return Ok(());
        };
        let mut group = state.group(gid)?.clone();
        if group.servers[index].action.state != "syncing" {
            return Ok(());
        }
        let outcome = if synced { "synced" } else { "synced_failed" };
        group.servers[index].action = Action {
            index: 0,
            state: outcome.into(),
        };
        self.save_group(&mut state, group).await
    }
}

/// The index of a member; the error of everyone else.
pub(crate) fn member(group: &Group, addr: &str) -> Result<usize, Refusal> {
    index_of(group, addr).ok_or_else(|| format!("group-[{}] doesn't have server-[{addr}]", group.id).into())
}
