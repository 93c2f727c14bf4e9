//! The words of Codis as types: slots, groups, addresses, topology, and what was observed of the running parts.
//!
//! Pure. May enter: std. Stays out: kube, tokio, HTTP.

mod address;
mod dump;
mod observed;
mod predecessor;
mod slot;
mod topology;

pub use address::{Address, ParseAddressError};
pub use dump::{Dump, Evidence, Route};
pub use observed::{
    DashboardView, Intent, LostClaim, MemberPod, Memory, NodeView, Observed, ProxyPod, Replication, SentinelMaster,
    SentinelView, ServerView, StatelessPod,
};
pub use predecessor::Part;
pub use slot::{GroupId, OutOfRange, SLOT_COUNT, SlotId, even_layout, slot_of_key};
pub use topology::{ActionState, Group, ProxyRecord, Sentinels, Server, SlotMapping, SlotMove, Topology};

/// Ports of Codis's processes (contract §14).
pub mod ports {
    /// Dashboard, HTTP.
    pub const DASHBOARD: u16 = 18080;
    /// Proxy, HTTP (administration).
    pub const PROXY_ADMIN: u16 = 11080;
    /// Proxy, RESP (clients).
    pub const PROXY: u16 = 19000;
    /// codis-server, RESP.
    pub const SERVER: u16 = 6379;
    /// Sentinel, RESP.
    pub const SENTINEL: u16 = 26379;
    /// Front end, HTTP (the predecessor's choice, contract §18).
    pub const FE: u16 = 9090;
}
