//! The JSON shapes of §4; field order is that of Codis.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

fn zero(number: &i64) -> bool {
    *number == 0
}

/// A dashboard; also the content of the lock node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Topom {
    /// Identity (§3).
    pub token: String,
    /// Go's print form of a time; opaque.
    pub start_time: String,
    /// Advertised admin address.
    pub admin_addr: String,
    /// Product it serves.
    pub product_name: String,
    /// Process id.
    pub pid: u32,
    /// Working directory.
    pub pwd: String,
    /// `uname -a`.
    pub sys: String,
}

/// A proxy as stored and as it tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxy {
    /// Given by the dashboard; a proxy itself reports none.
    #[serde(skip_serializing_if = "zero")]
    pub id: i64,
    /// Identity (§3).
    pub token: String,
    /// Go's print form of a time; opaque.
    pub start_time: String,
    /// Advertised admin address.
    pub admin_addr: String,
    /// `tcp4`.
    pub proto_type: String,
    /// Advertised RESP address.
    pub proxy_addr: String,
    /// Its node for clients (§8.7), if it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jodis_path: String,
    /// Product it serves.
    pub product_name: String,
    /// Process id.
    pub pid: u32,
    /// Working directory.
    pub pwd: String,
    /// `uname -a`.
    pub sys: String,
    /// Host name.
    pub hostname: String,
    /// `proxy_datacenter`.
    pub datacenter: String,
}

/// A sync action's or promotion's place in its state machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Action {
    /// Order among actions, or the index of the server that is being promoted.
    #[serde(skip_serializing_if = "zero")]
    pub index: i64,
    /// §6.2, §6.3.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
}

/// A server of a group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupServer {
    /// `host:port`.
    #[serde(rename = "server")]
    pub addr: String,
    /// For replica affinity (§6.5).
    pub datacenter: String,
    /// Its sync action.
    pub action: Action,
    /// Whether it serves replica reads.
    pub replica_group: bool,
}

/// A replication group; `servers[0]` is its master.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// 1..=9999.
    pub id: i64,
    /// Master first.
    pub servers: Vec<GroupServer>,
    /// A promotion that has not ended.
    pub promoting: Action,
    /// Proxies may see something else.
    pub out_of_sync: bool,
}

impl Group {
    /// The master's address, empty in an empty group.
    pub fn master(&self) -> &str {
        self.servers.first().map_or("", |server| server.addr.as_str())
    }
}

/// A slot's move.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotAction {
    /// Order among actions.
    #[serde(skip_serializing_if = "zero")]
    pub index: i64,
    /// §6.1.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// The group it goes to.
    #[serde(skip_serializing_if = "zero")]
    pub target_id: i64,
}

/// Where a slot belongs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotMapping {
    /// 0..1024.
    pub id: i64,
    /// Its group, 0 when offline.
    pub group_id: i64,
    /// Its move.
    pub action: SlotAction,
}

/// What a proxy is told of a slot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slot {
    /// 0..1024.
    pub id: i64,
    /// Commands of a locked slot wait.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// Where its commands go.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backend_addr: String,
    /// Group of that address.
    #[serde(skip_serializing_if = "zero")]
    pub backend_addr_group_id: i64,
    /// Where its keys come from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub migrate_from: String,
    /// Group of that address.
    #[serde(skip_serializing_if = "zero")]
    pub migrate_from_group_id: i64,
    /// 0 sync, 1 semi-async.
    #[serde(skip_serializing_if = "zero")]
    pub forward_method: i64,
    /// Buckets of addresses for replica reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replica_groups: Vec<Vec<String>>,
}

/// The sentinels of a product.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sentinel {
    /// `host:port` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Their masters may not match the groups.
    pub out_of_sync: bool,
}

/// An error as Codis tells it, with status 800.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RemoteError {
    /// The text.
    #[serde(rename = "Cause")]
    pub cause: String,
    /// Go frames; the stand-in has none.
    #[serde(rename = "Stack")]
    pub stack: Option<Value>,
}

/// What sentinel knows of one master: rows of `SENTINEL masters` and `SENTINEL slaves`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Monitored {
    /// The master's row.
    pub master: BTreeMap<String, String>,
    /// Its slaves' rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slaves: Vec<BTreeMap<String, String>>,
}

/// The last look at a redis or sentinel: exactly one of stats, error, timeout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RedisStats {
    /// Flattened `INFO`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<BTreeMap<String, String>>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RemoteError>,
    /// Only of sentinels: this product's masters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<BTreeMap<String, Monitored>>,
    /// When.
    pub unixtime: i64,
    /// It took too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timeout: bool,
}

/// The last look at a proxy: exactly one of stats, error, timeout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProxyStats {
    /// As the proxy told them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<Value>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RemoteError>,
    /// When.
    pub unixtime: i64,
    /// It took too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timeout: bool,
}
