//! The names of the effects. [`Effects`](crate::telemetry::Effects) counts them and, in tests, makes them fail.

/// The name of this door.
pub const DOOR: &str = "codis";

/// The names of the effects.
pub mod names {
    /// Dashboard: make a group.
    pub const CREATE_GROUP: &str = "create_group";
    /// Dashboard: add a server to a group.
    pub const ADD_SERVER: &str = "add_server";
    /// Dashboard: have proxies read from a server, or not.
    pub const MARK_REPLICA: &str = "mark_replica";
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
    /// Dashboard: start or pause migrations.
    pub const SET_MIGRATIONS: &str = "set_migrations";
    /// Dashboard: queue a slot's migration.
    pub const MOVE_SLOT: &str = "move_slot";
    /// Dashboard: cancel a slot's migration that hasn't begun.
    pub const CANCEL_MOVE: &str = "cancel_move";
    /// Dashboard: remove a server from its group.
    pub const REMOVE_SERVER: &str = "remove_server";
    /// Dashboard: remove an empty group.
    pub const REMOVE_GROUP: &str = "remove_group";
    /// Dashboard: remove a sentinel.
    pub const REMOVE_SENTINEL: &str = "remove_sentinel";
    /// Proxy: have the commands of a group's slots wait.
    pub const LOCK_SLOTS: &str = "lock_slots";
    /// Proxy: let the commands of a group's slots go on.
    pub const UNLOCK_SLOTS: &str = "unlock_slots";
    /// Server: refuse writes.
    pub const FENCE: &str = "fence";
    /// Server: take writes again.
    pub const UNFENCE: &str = "unfence";
    /// Server: follow the new master of its group.
    pub const DEMOTE: &str = "demote";
    /// Server: connect to the master anew, under its present address.
    pub const ANNOUNCE: &str = "announce";
    /// Server: follow nobody.
    pub const DETACH: &str = "detach";
    /// Proxy: listen to these sentinels, or to none.
    pub const LISTEN: &str = "listen";
    /// Server: set a parameter of its configuration.
    pub const SET_CONFIG: &str = "set_config";
    /// Sentinel: watch a group's master.
    pub const MONITOR: &str = "monitor";
}
