//! Proxies, told directly (contract §8.1): which slots' commands wait. The xauth of a proxy is in every path.

use futures::future::join_all;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Codis, Error, names, wire::Call, xauth};
use crate::domain::{Address, GroupId, Route, SLOT_COUNT, SlotId};

/// What a proxy has of one slot (contract §4). It is sent back as it came but for `locked`, because a fill replaces
/// the whole slot: its backend, what it migrates from, its replicas.
type Entry = Map<String, Value>;

/// Whom a proxy listens to (contract §4).
#[derive(Serialize)]
struct Sentinels {
    servers: Vec<String>,
    out_of_sync: bool,
}

impl Codis {
    /// Has the commands of a group's slots wait, at all `proxies` (their administrative addresses and tokens) at once:
    /// clients get no error and no answer until the slots are unlocked. When a proxy has answered, no command of its
    /// clients is on its way to the group's servers. Slots that migrate into the group or out of it are among them, as
    /// when a dashboard promotes (contract §6.1).
    ///
    /// # Errors
    /// The first proxy's [`Error`], after all were tried; the others may be locked, so the caller unlocks after an
    /// error, too. A lock that got no answer within [`Timeouts::lock`](super::Timeouts::lock) may still come true later:
    /// only [`locked_slots`](Self::locked_slots) tells that nothing is left of it.
    pub async fn lock_group(&self, proxies: &[(Address, String)], group: GroupId) -> Result<(), Error> {
        self.at_each(proxies, group, true).await
    }

    /// Lets the commands of a group's slots go on, at all `proxies`. It sends what each proxy has *now*, not what it
    /// had before the lock: a failover of the sentinels may have switched a locked slot to another backend in between,
    /// and the old one would serve stale data.
    ///
    /// It unlocks what a dashboard locked as well: not to be called while a slot of the group is stuck in a migration
    /// that is `prepared` (contract §6.1), whose proxies may not agree yet.
    ///
    /// # Errors
    /// The first proxy's [`Error`], after all were tried.
    pub async fn unlock_group(&self, proxies: &[(Address, String)], group: GroupId) -> Result<(), Error> {
        self.at_each(proxies, group, false).await
    }

    /// The slots whose commands wait at a proxy, and their groups, for whoever has to undo a lock that was left.
    ///
    /// # Errors
    /// Any [`Error`]; it is no effect.
    pub async fn locked_slots(&self, admin: &Address, token: &str) -> Result<Vec<(SlotId, Option<GroupId>)>, Error> {
        let call = self.call_proxy(admin);
        let entries = slots_at(&call, &self.proxy_xauth(token)).await?;
        let locked = entries.iter().filter(|entry| is_locked(entry));
        let named: Result<_, String> = locked.map(|entry| Ok((slot_of(entry)?, group_of(entry)?))).collect();
        named.map_err(|cause| call.unexpected(cause))
    }

    /// Where a proxy sends the commands of each slot, in the slots' order.
    ///
    /// # Errors
    /// Any [`Error`]; it is no effect.
    pub async fn routes(&self, admin: &Address, token: &str) -> Result<Vec<Route>, Error> {
        let call = self.call_proxy(admin);
        let mut entries = slots_at(&call, &self.proxy_xauth(token)).await?;
        entries.sort_by_key(|entry| number(entry, "id"));
        let routes: Result<_, String> = entries.iter().map(route_of).collect();
        routes.map_err(|cause| call.unexpected(cause))
    }

    /// The tokens of proxies, by their administrative addresses: for when the dashboard can't be asked. Proxies that
    /// don't answer are left out.
    pub async fn tokens(&self, proxies: impl IntoIterator<Item = Address>) -> Vec<(Address, String)> {
        let ask = async |admin: Address| {
            let body = self.call_proxy(&admin).get(&["proxy", "model"]).await.ok()?;
            let model: Value = serde_json::from_slice(&body).ok()?;
            Some((admin, model.get("token")?.as_str()?.to_owned()))
        };
        join_all(proxies.into_iter().map(ask))
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// Has proxies listen to these sentinels from now on, or to none. Each takes the word of a majority of them for who
    /// is master (contract §11), also a word that was asked for before a promotion and arrives after it.
    ///
    /// # Errors
    /// The first proxy's [`Error`], after all were tried.
    pub async fn listen(&self, proxies: &[(Address, String)], sentinels: &[Address]) -> Result<(), Error> {
        let body = Sentinels {
            servers: sentinels.iter().map(Address::to_string).collect(),
            out_of_sync: false,
        };
        let tell = async |(admin, token): &(Address, String)| {
            self.before(names::LISTEN)?;
            let path = ["api", "proxy", "sentinels", &*self.proxy_xauth(token)];
            self.call_proxy(admin).put(&path, Some(&body)).await
        };
        join_all(proxies.iter().map(tell)).await.into_iter().collect()
    }

    async fn at_each(&self, proxies: &[(Address, String)], group: GroupId, locked: bool) -> Result<(), Error> {
        let each = proxies
            .iter()
            .map(|(admin, token)| self.set_locked(admin, token, group, locked));
        join_all(each).await.into_iter().collect()
    }

    /// Locks or unlocks a group's slots at one proxy. Those that are so already aren't sent. A switch by the
    /// sentinels between the read and the write is undone by it, but the dashboard sees it as well, and the group is
    /// out of sync until it is pushed again (contract §11).
    async fn set_locked(&self, admin: &Address, token: &str, group: GroupId, locked: bool) -> Result<(), Error> {
        let (call, xauth) = (self.call_proxy(admin), self.proxy_xauth(token));
        let entries = slots_at(&call, &xauth).await?;
        let changed = with_locked(entries, group, locked);
        if changed.is_empty() {
            return Ok(());
        }
        self.before(if locked { names::LOCK_SLOTS } else { names::UNLOCK_SLOTS })?;
        call.put(&["api", "proxy", "fillslots", &xauth], Some(&changed)).await
    }

    fn call_proxy<'a>(&'a self, admin: &'a Address) -> Call<'a> {
        Call {
            client: &self.0.http,
            link: &self.0.link,
            peer: admin,
            timeout: self.0.timeouts.lock,
        }
    }

    /// Contract §3.
    fn proxy_xauth(&self, token: &str) -> String {
        xauth(&[&self.0.product, self.0.product_auth.as_deref().unwrap_or(""), token])
    }
}

async fn slots_at(call: &Call<'_>, xauth: &str) -> Result<Vec<Entry>, Error> {
    let body = call.get(&["api", "proxy", "slots", xauth]).await?;
    parse(&body).map_err(|cause| call.unexpected(cause))
}

/// A proxy's whole table. One that lacks slots could be locked by halves only.
fn parse(body: &[u8]) -> Result<Vec<Entry>, String> {
    let entries: Vec<Entry> = serde_json::from_slice(body).map_err(|e| format!("its answer is no slots: {e}"))?;
    if entries.len() != usize::from(SLOT_COUNT) {
        return Err(format!("it lists {} slots, not {SLOT_COUNT}", entries.len()));
    }
    Ok(entries)
}

/// The entries of a group's slots that aren't `locked` as wished, so changed.
fn with_locked(entries: Vec<Entry>, group: GroupId, locked: bool) -> Vec<Entry> {
    let others = entries
        .into_iter()
        .filter(|entry| concerns(entry, group) && is_locked(entry) != locked);
    others
        .map(|mut entry| {
            entry.insert("locked".to_owned(), Value::Bool(locked));
            entry
        })
        .collect()
}

/// Whether a slot's commands may reach a group's servers: the group has it, or it migrates from there.
fn concerns(entry: &Entry, group: GroupId) -> bool {
    let is_the_group = |field| number(entry, field) == Some(u64::from(group.get()));
    is_the_group("backend_addr_group_id") || is_the_group("migrate_from_group_id")
}

/// Go leaves `false` out (contract §4).
fn is_locked(entry: &Entry) -> bool {
    entry.get("locked").and_then(Value::as_bool).unwrap_or_default()
}

fn slot_of(entry: &Entry) -> Result<SlotId, String> {
    let id = number(entry, "id").ok_or("a slot has no id")?;
    SlotId::try_from(id).map_err(|e| format!("slot id {e}"))
}

fn route_of(entry: &Entry) -> Result<Route, String> {
    let master = entry.get("backend_addr").and_then(Value::as_str);
    let master = master.filter(|text| !text.is_empty()).map(str::parse::<Address>);
    Ok(Route {
        group: group_of(entry)?,
        master: master.transpose().map_err(|e| e.to_string())?,
        from: group_in(entry, "migrate_from_group_id")?,
    })
}

/// None for an offline slot.
fn group_of(entry: &Entry) -> Result<Option<GroupId>, String> {
    group_in(entry, "backend_addr_group_id")
}

/// Go leaves 0 out.
fn group_in(entry: &Entry, field: &str) -> Result<Option<GroupId>, String> {
    match number(entry, field) {
        None | Some(0) => Ok(None),
        Some(group) => GroupId::try_from(group).map(Some).map_err(|e| format!("group id {e}")),
    }
}

fn number(entry: &Entry, field: &str) -> Option<u64> {
    entry.get(field).and_then(Value::as_u64)
}

#[cfg(test)]
mod tests;
