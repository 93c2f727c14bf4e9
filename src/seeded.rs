//! Mistakes that the library's own tests build into the operator, to see whether the simulation finds them out. In every other
//! build [`has`] is false, and what depends on it is gone.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// An emptied server starts as a master.
    NoStartGate,
    /// A switchover promotes without a fence, whatever the replica has.
    NoFence,
    /// Records of dead proxies stay.
    DeadProxiesStay,
    /// Every pass has all sentinels forget and watch anew.
    SentinelsReset,
    /// A rolling change waits for nothing.
    RolledAtOnce,
    /// Lists are answered from an older state.
    StaleLists,
    /// A group's pods go before its slots do.
    GroupGoesFirst,
    /// A dashboard on a node that isn't heard is replaced without proof that it is gone: the new one breaks its lock.
    LockBrokenWithoutProof,
    /// Clusters are deleted when their specs are gone.
    PruneOnEmpty,
}

#[cfg(test)]
thread_local! {
    /// Of the world on this thread.
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Builds a mistake into everything on this thread.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this mistake is built in.
#[cfg(test)]
pub(crate) fn has(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this mistake is built in: never.
#[cfg(not(test))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}
