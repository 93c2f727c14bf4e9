//! The dashboard: one read and the effects (contract §5). Its xauth is in every path of an effect.

use std::time::Duration;

use serde::Serialize;

use super::{Codis, Error, names, topom, wire::Call};
use crate::domain::{Address, DashboardView, GroupId, SlotId};

/// How often `sentinels/resync-all` is sent at most. 8 of 11 calls failed with all parties healthy, up to 3 in a row,
/// each within 0.2 s (identity experiment, S3).
const RESYNC_ATTEMPTS: usize = 8;

#[derive(Serialize)]
struct Offline {
    id: u16,
}

/// A slot and its group, as `slots/assign` wants them (contract §5.5).
#[derive(Serialize)]
struct Assignment {
    id: u16,
    group_id: u16,
}

impl Codis {
    /// What the dashboard says: `GET /topom` (contract §5.1).
    pub async fn dashboard(&self) -> DashboardView {
        match self.call(self.0.timeouts.read).get(&["topom"]).await {
            Ok(body) => topom::parse(&body, &self.0.product).unwrap_or_else(DashboardView::Unavailable),
            Err(Error::Refused { cause, .. }) if cause == "topom is not online" => {
                DashboardView::Unavailable("waits for its lock".to_owned())
            }
            Err(error) => DashboardView::Unavailable(error.to_string()),
        }
    }

    /// Makes a group. One that exists is a success.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn create_group(&self, group: GroupId) -> Result<(), Error> {
        let done = self
            .put(names::CREATE_GROUP, &["group", "create"], &[&group.to_string()])
            .await;
        forgive(done, &format!("group-[{group}] already exists"))
    }

    /// Adds a server at the end of a group; the first is its master. The server must answer the dashboard. `zone` is what
    /// proxies of the same datacenter know to be near (contract §6.5); nothing changes it later. A server that exists is
    /// a success, though it may be in another group: the next observation tells.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn add_server(&self, group: GroupId, server: &Address, zone: Option<&str>) -> Result<(), Error> {
        let (group, address) = (group.to_string(), server.to_string());
        let parameters: Vec<&str> = [&*group, &address].into_iter().chain(zone).collect();
        let done = self.put(names::ADD_SERVER, &["group", "add"], &parameters).await;
        forgive(done, &format!("server-[{server}] already exists"))
    }

    /// Has proxies send read-only commands to a server, too, or not any more: its `replica_group`. They hear of it by
    /// [`resync_group`](Self::resync_group): the group may be out of sync until then (contract §5.4).
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn mark_replica(&self, group: GroupId, server: &Address, reads: bool) -> Result<(), Error> {
        let value = if reads { "1" } else { "0" };
        let parameters = [&*group.to_string(), &server.to_string(), value];
        self.put(names::MARK_REPLICA, &["group", "replica-groups"], &parameters)
            .await
    }

    /// Queues a server's sync action, which makes it follow its group's master (contract §6.3). One that is queued
    /// already is a success.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn sync_server(&self, server: &Address) -> Result<(), Error> {
        let path = ["group", "action", "create"];
        let done = self.put(names::SYNC_SERVER, &path, &[&server.to_string()]).await;
        forgive(done, &format!("server-[{server}] action already exist")) // sic
    }

    /// Makes a server its group's master. It is to be repeated with the same server until it succeeds
    /// (contract §6.2).
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn promote(&self, group: GroupId, server: &Address) -> Result<(), Error> {
        let parameters = [&*group.to_string(), &server.to_string()];
        self.put(names::PROMOTE, &["group", "promote"], &parameters).await
    }

    /// Pushes a group's slots to all proxies and clears its `out_of_sync` (contract §6.4).
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn resync_group(&self, group: GroupId) -> Result<(), Error> {
        self.put(names::RESYNC_GROUP, &["group", "resync"], &[&group.to_string()])
            .await
    }

    /// The same for all groups; stops at the first that fails.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn resync_groups(&self) -> Result<(), Error> {
        self.put(names::RESYNC_GROUP, &["group", "resync-all"], &[]).await
    }

    /// Maps slots to groups at once and without their data; sets the groups' `out_of_sync` (contract §5.5). A refusal
    /// doesn't mean that nothing was mapped (contract §7).
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn assign_slots(&self, slots: &[(SlotId, GroupId)]) -> Result<(), Error> {
        let body: Vec<_> = slots
            .iter()
            .map(|(slot, group)| Assignment {
                id: slot.get(),
                group_id: group.get(),
            })
            .collect();
        self.put_body(names::ASSIGN_SLOTS, &["slots", "assign"], &[], Some(&body))
            .await
    }

    /// Takes slots from their groups at once, whatever keys these hold (contract §5.5).
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn take_offline(&self, slots: impl Iterator<Item = SlotId>) -> Result<(), Error> {
        let body: Vec<_> = slots.map(|slot| Offline { id: slot.get() }).collect();
        if body.is_empty() {
            return Ok(());
        }
        self.put_body(names::ASSIGN_SLOTS, &["slots", "assign"], &["offline"], Some(&body))
            .await
    }

    /// Adds a sentinel; it watches nothing yet (contract §5.6). One that exists is a success.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn add_sentinel(&self, sentinel: &Address) -> Result<(), Error> {
        let path = ["sentinels", "add"];
        let done = self.put(names::ADD_SENTINEL, &path, &[&sentinel.to_string()]).await;
        forgive(done, &format!("sentinel-[{sentinel}] already exists"))
    }

    /// Has every sentinel forget the product's masters and watch them anew (contract §11). A refusal leaves sentinels
    /// that watch nothing, and refusals without a reason are common, so a refused call is repeated at once, a few
    /// times; each is an effect of its own.
    ///
    /// # Errors
    /// Any [`Error`]; a refusal is the last one.
    pub async fn resync_sentinels(&self) -> Result<(), Error> {
        let path = ["sentinels", "resync-all"];
        for _ in 1..RESYNC_ATTEMPTS {
            match self.put(names::RESYNC_SENTINELS, &path, &[]).await {
                Err(Error::Refused { .. }) => {}
                done => return done,
            }
        }
        self.put(names::RESYNC_SENTINELS, &path, &[]).await
    }

    /// Registers a proxy, by its administrative address, and brings it online; idempotent (contract §5.3). A refusal
    /// may leave it registered.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn online_proxy(&self, admin: &Address) -> Result<(), Error> {
        self.put(names::ONLINE_PROXY, &["proxy", "online"], &[&admin.to_string()])
            .await
    }

    /// Removes a proxy's record, whether or not the proxy can be shut down (contract §5.3). No such record is a
    /// success.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn remove_proxy(&self, token: &str) -> Result<(), Error> {
        let done = self.put(names::REMOVE_PROXY, &["proxy", "remove"], &[token, "1"]).await;
        forgive(done, &format!("proxy-[{token}] doesn't exist"))
    }

    /// Queues a slot's migration, with its data (contract §5.5, §6.1). One that is queued already, or has arrived, is a
    /// success.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn move_slot(&self, slot: SlotId, to: GroupId) -> Result<(), Error> {
        let parameters = [&*slot.to_string(), &to.to_string()];
        let done = self
            .put(names::MOVE_SLOT, &["slots", "action", "create"], &parameters)
            .await;
        let done = forgive(done, &format!("slot-[{slot}] action already exists"));
        forgive(done, &format!("slot-[{slot}] already in group-[{to}]"))
    }

    /// Cancels a slot's migration. One that has begun can't be cancelled, and is a success like one that is done: the
    /// next observation tells.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn cancel_move(&self, slot: SlotId) -> Result<(), Error> {
        let path = ["slots", "action", "remove"];
        let done = self.put(names::CANCEL_MOVE, &path, &[&slot.to_string()]).await;
        let done = forgive(done, &format!("slot-[{slot}] action isn't pending"));
        forgive(done, &format!("slot-[{slot}] action doesn't exist"))
    }

    /// Starts or pauses migrations. A pause keeps pending ones from starting and halts the one that runs; it ends with
    /// the dashboard's process (contract §5.5), and a step that runs may outlast it:
    /// [`migration_running`](crate::domain::Topology::migration_running) tells.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn set_migrations(&self, enabled: bool) -> Result<(), Error> {
        let disabled = if enabled { "0" } else { "1" };
        self.put(names::SET_MIGRATIONS, &["slots", "action", "disabled"], &[disabled])
            .await
    }

    /// Sets the pause between two steps of a migration, in microseconds; a restarted dashboard has none (contract §5.5).
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn set_migration_interval(&self, microseconds: u32) -> Result<(), Error> {
        let path = ["slots", "action", "interval"];
        self.put(names::SET_MIGRATIONS, &path, &[&microseconds.to_string()])
            .await
    }

    /// Removes a server from its group; it may be dead. Its replication is left as it is. A master leaves only as the
    /// last one of a group without slots (contract §7). No such server, or no such group, is a success.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn remove_server(&self, group: GroupId, server: &Address) -> Result<(), Error> {
        let parameters = [&*group.to_string(), &server.to_string()];
        let done = self.put(names::REMOVE_SERVER, &["group", "del"], &parameters).await;
        let done = forgive(done, &format!("group-[{group}] doesn't have server-[{server}]"));
        forgive(done, &format!("group-[{group}] doesn't exist"))
    }

    /// Removes a group without servers. No such group is a success.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn remove_group(&self, group: GroupId) -> Result<(), Error> {
        let done = self
            .put(names::REMOVE_GROUP, &["group", "remove"], &[&group.to_string()])
            .await;
        forgive(done, &format!("group-[{group}] doesn't exist"))
    }

    /// Has a sentinel forget the product's masters and removes it; `force` removes one that doesn't answer, too. Sets
    /// the sentinels' `out_of_sync` (contract §5.6). No such sentinel is a success.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn remove_sentinel(&self, sentinel: &Address, force: bool) -> Result<(), Error> {
        let parameters = [&*sentinel.to_string(), if force { "1" } else { "0" }];
        let done = self
            .put(names::REMOVE_SENTINEL, &["sentinels", "del"], &parameters)
            .await;
        forgive(done, &format!("sentinel-[{sentinel}] not found"))
    }

    async fn put(&self, effect: &'static str, path: &[&str], parameters: &[&str]) -> Result<(), Error> {
        self.put_body(effect, path, parameters, None::<&()>).await
    }

    /// PUTs to `/api/topom/<path>/<xauth>/<parameters>`.
    async fn put_body(
        &self,
        effect: &'static str,
        path: &[&str],
        parameters: &[&str],
        body: Option<&impl Serialize>,
    ) -> Result<(), Error> {
        let path = [&["api", "topom"], path, &[&self.0.xauth], parameters].concat();
        self.before(effect)?;
        self.call(self.0.timeouts.write).put(&path, body).await
    }

    fn call(&self, timeout: Duration) -> Call<'_> {
        Call {
            client: &self.0.http,
            link: &self.0.link,
            peer: &self.0.dashboard,
            timeout,
        }
    }
}

/// Takes the refusal that says that the wished state is there already for a success (contract §19).
fn forgive(done: Result<(), Error>, already: &str) -> Result<(), Error> {
    match done {
        Err(Error::Refused { cause, .. }) if cause == already => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests;
