//! Where effects are named, counted and, in tests, made to fail.

use std::sync::Arc;

/// The name of this door.
pub const DOOR: &str = "codis";

/// The names of the effects.
pub mod names {
    /// Dashboard: make a group.
    pub const CREATE_GROUP: &str = "create_group";
    /// Dashboard: add a server to a group.
    pub const ADD_SERVER: &str = "add_server";
    /// Dashboard: queue a server's sync action.
    pub const SYNC_SERVER: &str = "sync_server";
    /// Dashboard: make a server its group's master.
    pub const PROMOTE: &str = "promote";
    /// Dashboard: push a group's slots to all proxies.
    pub const RESYNC_GROUP: &str = "resync_group";
    /// Dashboard: map slots to groups, without their data.
    pub const ASSIGN_SLOTS: &str = "assign_slots";
    /// Dashboard: add a sentinel.
    pub const ADD_SENTINEL: &str = "add_sentinel";
    /// Dashboard: have all sentinels forget and watch anew.
    pub const RESYNC_SENTINELS: &str = "resync_sentinels";
    /// Dashboard: register a proxy and bring it online.
    pub const ONLINE_PROXY: &str = "online_proxy";
    /// Dashboard: remove a proxy's record.
    pub const REMOVE_PROXY: &str = "remove_proxy";
    /// Sentinel: watch a group's master.
    pub const MONITOR: &str = "monitor";
}

type Before = dyn Fn(&'static str, &'static str) -> Result<(), String> + Send + Sync;

/// What is asked right before each effect: a closure of the door's and the effect's names. When it returns an error,
/// the effect isn't sent. Reads aren't asked about.
#[derive(Clone)]
pub struct Effects(Arc<Before>);

impl Effects {
    /// Asks `before`.
    pub fn new(before: impl Fn(&'static str, &'static str) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(before))
    }

    /// To be called once right before each effect.
    ///
    /// # Errors
    /// Why the effect isn't to be sent.
    pub fn before(&self, door: &'static str, effect: &'static str) -> Result<(), String> {
        (self.0)(door, effect)
    }
}

/// Lets every effect pass, uncounted.
impl Default for Effects {
    fn default() -> Self {
        Self::new(|_, _| Ok(()))
    }
}
