//! The answer to `GET /topom` (contract §4), parsed leniently: fields may be absent, null or unknown.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::xauth::to_be_told;
use crate::domain::{
    ActionState, Address, DashboardView, Group, GroupId, ProxyRecord, SLOT_COUNT, Sentinels, Server, SlotId,
    SlotMapping, SlotMove, Topology,
};

#[derive(Deserialize)]
struct Overview {
    #[serde(default, deserialize_with = "lenient")]
    version: String,
    #[serde(default, deserialize_with = "lenient")]
    model: Model,
    stats: Stats,
}

#[derive(Default, Deserialize)]
struct Model {
    product_name: Option<String>,
}

#[derive(Deserialize)]
struct Stats {
    slots: Vec<Slot>,
    group: Groups,
    #[serde(default, deserialize_with = "lenient")]
    proxy: Proxies,
    #[serde(default, deserialize_with = "lenient")]
    sentinels: SentinelsPart,
    #[serde(default, deserialize_with = "lenient")]
    slot_action: SlotAction,
}

/// The migrations of all slots.
#[derive(Default, Deserialize)]
struct SlotAction {
    #[serde(default, deserialize_with = "lenient")]
    disabled: bool,
    /// Microseconds.
    #[serde(default, deserialize_with = "lenient")]
    interval: u32,
    /// How many steps run.
    #[serde(default, deserialize_with = "lenient")]
    executor: i64,
}

#[derive(Deserialize)]
struct Slot {
    id: u64,
    #[serde(default, deserialize_with = "lenient")]
    group_id: u64,
    #[serde(default, deserialize_with = "lenient")]
    action: SlotState,
}

/// A slot's `action`.
#[derive(Default, Deserialize)]
struct SlotState {
    #[serde(default, deserialize_with = "lenient")]
    state: String,
    #[serde(default, deserialize_with = "lenient")]
    target_id: u64,
}

/// A server's `action`, a group's `promoting`.
#[derive(Default, Deserialize)]
struct State {
    #[serde(default, deserialize_with = "lenient")]
    index: usize,
    #[serde(default, deserialize_with = "lenient")]
    state: String,
}

#[derive(Deserialize)]
struct Groups {
    #[serde(default, deserialize_with = "lenient")]
    models: Vec<GroupModel>,
}

#[derive(Deserialize)]
struct GroupModel {
    id: u64,
    #[serde(default, deserialize_with = "lenient")]
    servers: Vec<ServerModel>,
    #[serde(default, deserialize_with = "lenient")]
    promoting: State,
    #[serde(default, deserialize_with = "lenient")]
    out_of_sync: bool,
}

#[derive(Deserialize)]
struct ServerModel {
    server: String,
    #[serde(default, deserialize_with = "lenient")]
    action: State,
    #[serde(default, deserialize_with = "lenient")]
    replica_group: bool,
}

#[derive(Default, Deserialize)]
struct Proxies {
    #[serde(default, deserialize_with = "lenient")]
    models: Vec<ProxyModel>,
    #[serde(default, deserialize_with = "lenient")]
    stats: HashMap<String, ProxyStats>,
}

#[derive(Deserialize)]
struct ProxyModel {
    token: String,
    admin_addr: String,
}

#[derive(Default, Deserialize)]
struct ProxyStats {
    stats: Option<ProxyStatsBody>,
    error: Option<RemoteError>,
    #[serde(default, deserialize_with = "lenient")]
    timeout: bool,
}

#[derive(Default, Deserialize)]
struct ProxyStatsBody {
    #[serde(default, deserialize_with = "lenient")]
    online: bool,
    #[serde(default, deserialize_with = "lenient")]
    closed: bool,
    #[serde(default, deserialize_with = "lenient")]
    sentinels: ProxySentinels,
}

#[derive(Default, Deserialize)]
struct ProxySentinels {
    #[serde(default, deserialize_with = "lenient")]
    servers: Vec<String>,
    #[serde(default, deserialize_with = "lenient")]
    switched: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RemoteError {
    #[serde(default, deserialize_with = "lenient")]
    cause: String,
}

#[derive(Default, Deserialize)]
struct SentinelsPart {
    #[serde(default, deserialize_with = "lenient")]
    model: SentinelModel,
    #[serde(default, deserialize_with = "lenient")]
    masters: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct SentinelModel {
    #[serde(default, deserialize_with = "lenient")]
    servers: Vec<String>,
    #[serde(default, deserialize_with = "lenient")]
    out_of_sync: bool,
}

/// Null is the default: Go writes it for an empty slice or map.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// The view of an online dashboard of `product`, or what is wrong with its answer.
pub(super) fn parse(body: &[u8], product: &str) -> Result<DashboardView, String> {
    let overview: Overview = serde_json::from_slice(body).map_err(|e| format!("its answer is no overview: {e}"))?;
    match overview.model.product_name {
        Some(name) if name != product => return Err(format!("it is the dashboard of another product, {name:?}")),
        Some(_) | None => {}
    }
    Ok(DashboardView::Online {
        version: overview.version,
        topology: Box::new(Topology {
            slots: slots(overview.stats.slots)?,
            groups: groups(overview.stats.group)?,
            sentinels: sentinels(overview.stats.sentinels)?,
            proxies: proxies(overview.stats.proxy)?,
            migrations_disabled: overview.stats.slot_action.disabled,
            migration_interval: overview.stats.slot_action.interval,
            migration_running: overview.stats.slot_action.executor != 0,
        }),
    })
}

fn slots(slots: Vec<Slot>) -> Result<Vec<SlotMapping>, String> {
    let slots: BTreeMap<SlotId, SlotMapping> = slots.into_iter().map(slot).collect::<Result<_, _>>()?;
    // A slot that isn't listed must not look like an offline one.
    if slots.len() != usize::from(SLOT_COUNT) {
        return Err(format!("it lists {} slots, not {SLOT_COUNT}", slots.len()));
    }
    Ok(slots.into_values().collect())
}

fn slot(slot: Slot) -> Result<(SlotId, SlotMapping), String> {
    let id = SlotId::try_from(slot.id).map_err(|e| format!("slot id {e}"))?;
    let group = match slot.group_id {
        0 => None,
        group => Some(group_id(group)?),
    };
    let moving = match slot.action.state.as_str() {
        "" => None,
        state => Some(SlotMove {
            to: group_id(slot.action.target_id)?,
            pending: state == "pending",
        }),
    };
    Ok((id, SlotMapping { id, group, moving }))
}

fn groups(groups: Groups) -> Result<BTreeMap<GroupId, Group>, String> {
    groups.models.into_iter().map(group).collect()
}

fn group(model: GroupModel) -> Result<(GroupId, Group), String> {
    let id = group_id(model.id)?;
    let group = Group {
        id,
        servers: model.servers.into_iter().map(server).collect::<Result<_, _>>()?,
        promoting: (!model.promoting.state.is_empty()).then_some(model.promoting.index),
        out_of_sync: model.out_of_sync,
    };
    Ok((id, group))
}

fn server(model: ServerModel) -> Result<Server, String> {
    let action = match model.action.state.as_str() {
        // A stale `syncing` outlives its dashboard and never ends by itself, but may be made anew (contract §6.3).
        "pending" => ActionState::Running,
        "synced_failed" => ActionState::Failed,
        _ => ActionState::Idle, // none or `synced` (contract §6.3)
    };
    Ok(Server {
        address: address(&model.server)?,
        action,
        is_read: model.replica_group,
    })
}

fn sentinels(part: SentinelsPart) -> Result<Sentinels, String> {
    let master = |(id, master): (&String, &String)| {
        let number: u64 = id.parse().map_err(|_| format!("group id {id:?} is no number"))?;
        Ok((group_id(number)?, address(master)?))
    };
    Ok(Sentinels {
        servers: part
            .model
            .servers
            .iter()
            .map(|s| address(s))
            .collect::<Result<_, _>>()?,
        out_of_sync: part.model.out_of_sync,
        masters: part.masters.iter().map(master).collect::<Result<_, String>>()?,
    })
}

fn proxies(proxies: Proxies) -> Result<Vec<ProxyRecord>, String> {
    let Proxies { models, mut stats } = proxies;
    models
        .into_iter()
        .map(|model| {
            let stats = stats.remove(&model.token).unwrap_or_default();
            proxy(model, stats)
        })
        .collect()
}

/// Without stats a proxy is neither online nor in error: nobody asked it yet.
fn proxy(model: ProxyModel, stats: ProxyStats) -> Result<ProxyRecord, String> {
    let error = match stats.error {
        Some(error) => Some(to_be_told(&error.cause)),
        None => stats.timeout.then(|| "timeout".to_owned()),
    };
    let body = stats.stats.unwrap_or_default();
    Ok(ProxyRecord {
        admin: address(&model.admin_addr)?,
        token: model.token,
        online: body.online && !body.closed,
        switched: body.sentinels.switched,
        sentinels: body.sentinels.servers,
        error,
    })
}

fn group_id(number: u64) -> Result<GroupId, String> {
    GroupId::try_from(number).map_err(|e| format!("group id {e}"))
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|e| format!("address {e}"))
}

#[cfg(test)]
mod tests;
