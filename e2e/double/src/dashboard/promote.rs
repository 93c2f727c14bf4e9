//! Promotion (§6.2): one call drives it as far as it gets; the same call again goes on. No offsets are compared.

use std::time::Duration;

use super::Dashboard;
use super::groups::member;
use super::state::State;
use crate::http::Refusal;
use crate::wire::{Action, Group};

type Done = Result<(), Refusal>;

/// How long the new master may take for the SetMaster transaction.
const TAKE_OVER: Duration = Duration::from_secs(5);

impl Dashboard {
    pub(crate) async fn promote(&self, gid: i64, addr: &str) -> Done {
        let mut state = self.open().await?;
        self.admit(&mut state, gid, addr).await?;
        loop {
            let group = state.group(gid)?.clone();
            match group.promoting.state.as_str() {
                "preparing" => self.lock_group(&mut state, group).await?,
                "prepared" => self.reorder(&mut state, group).await?,
                _ => return self.unlock_group(&mut state, group).await,
            }
        }
    }

    /// The guard, and the first step when nothing was begun.
    async fn admit(&self, state: &mut State, gid: i64, addr: &str) -> Done {
        let mut group = state.group(gid)?.clone();
        let index = member(&group, addr)? as i64;
        if !group.promoting.state.is_empty() {
            let begun = group.promoting.index;
            let same = index == begun;
            return if same {
                Ok(())
            } else {
                Err(format!("group-[{gid}] is promoting index = {begun}").into())
            };
        }
        if index == 0 {
            return Err(format!("group-[{gid}] can't promote master").into());
        }
        let running = self.mover.executor();
        if running != 0 {
            return Err(format!("slots-migration is running = {running}").into());
        }
        group.promoting = Action {
            index,
            state: "preparing".into(),
        };
        self.save_group(state, group).await
    }

    /// Locks the group's slots in every proxy; when one fails the promotion stays where it was.
    async fn lock_group(&self, state: &mut State, group: Group) -> Done {
        let gid = group.id;
        let mut prepared = group.clone();
        prepared.promoting.state = "prepared".into();
        state.groups.insert(gid, prepared.clone());
        let pushed = self.push(state, &state.slots_of(gid)).await;
        let locked = match pushed {
            Ok(()) => self.store.put_group("update", &prepared).await,
            failed => failed,
        };
        if locked.is_err() {
            state.groups.insert(gid, group);
            // Best effort: the proxies that did lock must not keep their clients waiting.
            let _ = self.push(state, &state.slots_of(gid)).await;
        }
        locked
    }

    /// Makes the promoted server the first, and a master.
    async fn reorder(&self, state: &mut State, mut group: Group) -> Done {
        let gid = group.id;
        if !state.sentinel.servers.is_empty() {
            self.distrust_sentinels(state).await?;
            self.unwatch(state, Some(gid)).await;
        }
        let index = usize::try_from(group.promoting.index).unwrap_or(0);
        if index == 0 || index >= group.servers.len() {
            return Err(format!("group-[{gid}] invalid promoting index = {index}").into());
        }
        let promoted = group.servers.remove(index);
        let old = std::mem::replace(&mut group.servers[0], promoted);
        group.servers.push(old);
        group
            .servers
            .iter_mut()
            .for_each(|server| server.action = Action::default());
        group.promoting = Action {
            index: 0,
            state: "finished".into(),
        };
        let master = group.master().to_string();
        self.save_group(state, group).await?;
        if let Err(error) = self.set_master(&master, None, TAKE_OVER).await {
            tracing::warn!("group-[{gid}] promote {master} to master failed: {error}");
        }
        Ok(())
    }

    async fn unlock_group(&self, state: &mut State, mut group: Group) -> Done {
        self.push(state, &state.slots_of(group.id)).await?;
        group.promoting = Action::default();
        group.out_of_sync = false;
        self.save_group(state, group).await
    }
}
