//! Proxies, told directly (contract §8.1): which slots' commands wait. The xauth of a proxy is in every path.

use std::{borrow::Cow, str::FromStr};

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Codis, Error, names, wire::Call, xauth};
use crate::domain::{Address, GroupId, Route, SLOT_COUNT, SlotId};

/// What a proxy has of one slot (contract §4). It is sent back as it came but for `locked`, because a fill replaces
/// the whole slot: its backend, what it migrates from, its replicas.
type Entry = Map<String, Value>;

/// The same to look at only: a table is read in every pass.
#[derive(Deserialize)]
struct Slot<'a> {
    id: u64,
    #[serde(borrow, default)]
    backend_addr: Cow<'a, str>,
    /// Go leaves 0 and false out.
    #[serde(default)]
    backend_addr_group_id: u64,
    #[serde(default)]
    migrate_from_group_id: u64,
    #[serde(default)]
    locked: bool,
}

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
        let body = table_of(&call, &self.proxy_xauth(token)).await?;
        parse(&body).and_then(locked).map_err(|cause| call.unexpected(cause))
    }

    /// Where a proxy sends the commands of each slot, in the slots' order.
    ///
    /// # Errors
    /// Any [`Error`]; it is no effect.
    pub async fn routes(&self, admin: &Address, token: &str) -> Result<Vec<Route>, Error> {
        let call = self.call_proxy(admin);
        let body = table_of(&call, &self.proxy_xauth(token)).await?;
        parse(&body).and_then(routes).map_err(|cause| call.unexpected(cause))
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
        let body = table_of(&call, &xauth).await?;
        let entries = parse(&body).map_err(|cause| call.unexpected(cause))?;
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

async fn table_of(call: &Call<'_>, xauth: &str) -> Result<Vec<u8>, Error> {
    call.get(&["api", "proxy", "slots", xauth]).await
}

/// A proxy's whole table. One that lacks slots could be locked by halves only.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<Vec<T>, String> {
    let entries: Vec<T> = serde_json::from_slice(body).map_err(|e| format!("its answer is no slots: {e}"))?;
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

fn locked(table: Vec<Slot<'_>>) -> Result<Vec<(SlotId, Option<GroupId>)>, String> {
    let locked = table.into_iter().filter(|slot| slot.locked);
    let named = locked.map(|slot| {
        let id = SlotId::try_from(slot.id).map_err(|e| format!("slot id {e}"))?;
        Ok((id, group(slot.backend_addr_group_id)?))
    });
    named.collect()
}

fn routes(mut table: Vec<Slot<'_>>) -> Result<Vec<Route>, String> {
    table.sort_by_key(|slot| slot.id);
    table.iter().map(route).collect()
}

fn route(slot: &Slot<'_>) -> Result<Route, String> {
    let master = Some(&slot.backend_addr).filter(|text| !text.is_empty());
    Ok(Route {
        group: group(slot.backend_addr_group_id)?,
        master: master
            .map(|text| text.parse())
            .transpose()
            .map_err(|e: <Address as FromStr>::Err| e.to_string())?,
        from: group(slot.migrate_from_group_id)?,
        locked: slot.locked,
    })
}

/// None for an offline slot.
fn group(id: u64) -> Result<Option<GroupId>, String> {
    match id {
        0 => Ok(None),
        group => GroupId::try_from(group).map(Some).map_err(|e| format!("group id {e}")),
    }
}

fn number(entry: &Entry, field: &str) -> Option<u64> {
    entry.get(field).and_then(Value::as_u64)
}

#[cfg(test)]
mod tests;
