//! A planned change of a group's master that loses no acknowledged write (design, decision 4): lock the group's slots at
//! the proxies, so that clients wait and get no error; fence the old master, so that nobody past the proxies writes
//! either; wait until the new one has all; promote it through the dashboard; lift the fence. The rules of `plan` do the
//! rest: they attach the old master, re-point the others and restore the sentinels.
//!
//! Codis's own promote compares no offsets: with a replica 0.7 s behind, a real one lost up to 458 acknowledged writes;
//! fenced, none (identity-experiment h).
//!
//! The intent stands in the status before the first lock. Whatever goes wrong, an operator that dies included, [`undo`]
//! ends in a group that works, unfenced and unlocked, with the old master or the new one.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{Context, Error, Turn, memory::Key, promotion};
use crate::{
    api::{CodisCluster, SwitchoverStatus, to_the_second},
    codis::{self, Codis},
    domain::{Address, DashboardView, Intent, Observed, Topology, ports},
    plan::Desired,
};

/// How long the new master may take to have all that the old one has, while clients wait. Far less than the 5 s that
/// the lock may last in all: locking, promoting and undoing take their part.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How long the replica may take to be in step before anything is locked: one that stalls is found out at no cost.
const WARM_UP: Duration = Duration::from_millis(700);

/// For how many seconds a proxy may still do what it was told before: as long as its servers may take to answer
/// (`backend_recv_timeout`, contract §8.1), and some.
const LATE_LOCK: u64 = 40;

/// How a switchover went.
enum Ended {
    /// The new master is in office.
    Done,
    /// It failed and left no trace.
    Undone(codis::Error),
    /// It failed, and what it left behind is still to be cleared away.
    ToUndo(codis::Error),
}

/// The proxies that the dashboard pushes to: where they are administered, and their tokens.
type Proxies = Vec<(Address, String)>;

fn proxies_of(topology: &Topology) -> Proxies {
    let proxies = topology.proxies.iter();
    proxies
        .map(|proxy| (proxy.admin.clone(), proxy.token.clone()))
        .collect()
}

/// The intent that the status has, if its servers are still known.
pub(super) fn intent_of(cluster: &CodisCluster, desired: &Desired<'_>) -> Option<Intent> {
    let known = cluster.status.as_ref()?.switchover.as_ref()?;
    let address = |pod: &str| desired.address_of(pod).or_else(|| pod.parse().ok());
    Some(Intent {
        group: u64::try_from(known.group).ok()?.try_into().ok()?,
        from: address(&known.from)?,
        to: address(&known.to)?,
    })
}

/// A whole switchover: the intent to the status, the attempt, and its end.
pub(super) async fn run(
    context: &Context,
    desired: &Desired<'_>,
    turn: &mut Turn<'_>,
    intent: &Intent,
    why: &str,
) -> Result<(), Error> {
    let DashboardView::Online { topology, .. } = &turn.observed.dashboard else {
        return Ok(());
    };
    announce(context, desired, turn, intent, why).await?;
    let key = key_of(desired);
    let ended = hand_over(turn.codis, desired, topology, intent).await;
    context.metrics.switched_over(matches!(ended, Ended::Done));
    if !matches!(ended, Ended::ToUndo(_)) {
        turn.carried.switchover = None;
    }
    match ended {
        Ended::Done => {
            context.memory.moved(key, intent.group);
            turn.carried.handed_over = desired.pod_at(&intent.to).map(|pod| (intent.group, pod));
            promotion::conclude(turn, true);
            Ok(())
        }
        Ended::Undone(error) | Ended::ToUndo(error) => {
            context.memory.move_failed(key, intent.group, std::time::Instant::now());
            Err(error.into())
        }
    }
}

/// Writes the intent, and what was asked for, before anything is locked.
async fn announce(
    context: &Context,
    desired: &Desired<'_>,
    turn: &mut Turn<'_>,
    intent: &Intent,
    why: &str,
) -> Result<(), Error> {
    let pod = |address: &Address| desired.pod_at(address).unwrap_or_else(|| address.to_string());
    turn.carried.switchover = Some(SwitchoverStatus {
        group: intent.group.get().into(),
        from: pod(&intent.from),
        to: pod(&intent.to),
        phase: "Locking".to_owned(),
        reason: why.to_owned(),
        started_at: to_the_second(Timestamp::now()).to_string(),
    });
    if let Some(request) = desired.cluster.promotion.as_ref().filter(|_| {
        let wish = desired.promotion.as_ref();
        wish.is_some_and(|(group, to)| *group == intent.group && to.as_ref().is_none_or(|to| *to == intent.to))
    }) {
        turn.carried.promotion = Some(promotion::begun(&request.text, &pod(&intent.to)));
    }
    let mut status = turn.cluster.status.clone().unwrap_or_default();
    status.switchover.clone_from(&turn.carried.switchover);
    status.promotion.clone_from(&turn.carried.promotion);
    context.cluster.patch_status(&turn.cluster, &status).await?;
    turn.cluster.status = Some(status);
    Ok(())
}

/// Clears away what a switchover of another pass, or of another operator, left.
pub(super) async fn clear(
    context: &Context,
    desired: &Desired<'_>,
    turn: &mut Turn<'_>,
    intent: &Intent,
) -> Result<(), Error> {
    let proxies = match &turn.observed.dashboard {
        DashboardView::Online { topology, .. } => proxies_of(topology),
        DashboardView::Unavailable(_) => turn.codis.tokens(admin_addresses(turn.observed)).await,
    };
    // Whatever the end: a lock of the dead operator may still come true (see `sweep`).
    context
        .memory
        .move_failed(key_of(desired), intent.group, std::time::Instant::now());
    let done = undo(turn.codis, desired, &proxies, intent).await?;
    turn.carried.switchover = None;
    if done {
        turn.carried.handed_over = desired.pod_at(&intent.to).map(|pod| (intent.group, pod));
    }
    promotion::conclude(turn, done);
    Ok(())
}

/// A proxy that was busy when it was to lock may do so long after everybody gave up: for a while after a switchover
/// that failed, locks that nobody wants are looked for, and lifted.
pub(super) async fn sweep(turn: &Turn<'_>) -> Result<(), Error> {
    let DashboardView::Online { topology, .. } = &turn.observed.dashboard else {
        return Ok(());
    };
    let failed = turn.observed.failed_moves.iter();
    for (group, _) in failed.filter(|(_, (_, ago))| *ago < LATE_LOCK) {
        let is_quiet = topology
            .groups
            .get(group)
            .is_some_and(|group| group.promoting.is_none());
        if is_quiet && turn.carried.switchover.is_none() {
            turn.codis.unlock_group(&answering(topology), *group).await?;
        }
    }
    Ok(())
}

/// The proxies that the dashboard reaches.
fn answering(topology: &Topology) -> Proxies {
    let proxies = topology.proxies.iter().filter(|proxy| proxy.error.is_none());
    proxies
        .map(|proxy| (proxy.admin.clone(), proxy.token.clone()))
        .collect()
}

fn admin_addresses(observed: &Observed) -> impl Iterator<Item = Address> {
    let pods = observed.proxy_pods.iter().filter_map(|pod| pod.ip.clone());
    pods.map(|ip| Address::new(ip, ports::PROXY_ADMIN))
}

fn key_of(desired: &Desired<'_>) -> Key {
    let names = &desired.cluster.names;
    (names.namespace.clone(), names.cluster.clone())
}

/// Hands a group over. The intent must stand in the status.
async fn hand_over(codis: &Codis, desired: &Desired<'_>, topology: &Topology, intent: &Intent) -> Ended {
    let error = match attempt(codis, topology, intent).await {
        Ok(()) => {
            // Before its sync action, whose CONFIG REWRITE would keep the fence (contract §12.3). One that can't be
            // reached now loses it with its process, or by the rule that lifts fences.
            let lifted = codis.unfence(&intent.from, desired.cluster.good_replicas).await;
            if let Err(error) = lifted {
                tracing::warn!(server = %intent.from, %error, "the fence of the old master stays for now");
            }
            return Ended::Done;
        }
        Err(error) => error,
    };
    tracing::warn!(group = %intent.group, %error, "a switchover failed");
    match undo(codis, desired, &proxies_of(topology), intent).await {
        Ok(true) => Ended::Done,
        Ok(false) => Ended::Undone(error),
        Err(left) => {
            tracing::warn!(group = %intent.group, %left, "a failed switchover isn't cleared away yet");
            Ended::ToUndo(error)
        }
    }
}

async fn attempt(codis: &Codis, topology: &Topology, intent: &Intent) -> Result<(), codis::Error> {
    let Intent { group, from, to } = intent;
    let behind = |limit: Duration| codis::Error::Timeout {
        peer: to.clone(),
        after: limit,
    };
    if !codis.replication_offsets(from, to, Instant::now() + WARM_UP).await? {
        return Err(behind(WARM_UP));
    }
    codis.lock_group(&proxies_of(topology), *group).await?;
    codis.fence(from).await?;
    if !codis.replication_offsets(from, to, Instant::now() + CATCH_UP).await? {
        return Err(behind(CATCH_UP));
    }
    codis.promote(*group, to).await
}

/// Clears away what a switchover left: no lock, no fence. Says whether the new master is in office after all.
///
/// What the dashboard says is the truth. While it says nothing, a promotion may be half done: the fence stays then, so
/// that the old master acknowledges nothing that would be lost, and clients get its errors instead of silence.
async fn undo(
    codis: &Codis,
    desired: &Desired<'_>,
    proxies: &[(Address, String)],
    intent: &Intent,
) -> Result<bool, codis::Error> {
    let Intent { group, from, to } = intent;
    let topology = match codis.dashboard().await {
        DashboardView::Online { topology, .. } => topology,
        DashboardView::Unavailable(why) => {
            codis.unlock_group(proxies, *group).await?;
            return Err(codis::Error::Unexpected {
                peer: desired.addresses.dashboard.clone(),
                cause: format!("it can't say how far the switchover came: {why}"),
            });
        }
    };
    let known = topology.groups.get(group);
    let official = known.and_then(|group| group.master());
    let is_done = official == Some(to);
    let is_promoting = known.is_some_and(|group| group.promoting.is_some());
    let is_still_master = official == Some(from);
    if is_still_master {
        lift(codis, from, desired.cluster.good_replicas).await?;
    }
    let told = match (is_promoting, is_done) {
        // Its order is turned, and not every proxy knows: only the promotion itself tells them.
        (true, true) => codis.promote(*group, to).await,
        // One that was begun can't be taken back, and a resync would do its locking: until it is begun anew the group
        // works as it is.
        (true, false) => Ok(()),
        (false, _) => codis.resync_group(*group).await,
    };
    // Proxies that weren't told would send to the old master: its fence and their locks stay until they were.
    if !is_still_master {
        told.clone()?;
    }
    // One that the dashboard doesn't reach either is dead, or is swept later.
    let unlocked = codis.unlock_group(&answering(&topology), *group).await;
    if !is_still_master {
        lift(codis, from, desired.cluster.good_replicas).await?;
    }
    unlocked?;
    told?;
    Ok(is_done)
}

/// Lifts the fence of a switchover, and no other: that of a restart is lifted once the sentinels have heard it. One whose
/// process can't be reached goes with it: the entry script writes the configuration anew.
async fn lift(codis: &Codis, server: &Address, good_replicas: u32) -> Result<(), codis::Error> {
    let fence = match codis.config_of(server, &["min-slaves-to-write"]).await {
        Err(codis::Error::Unreachable { .. } | codis::Error::Timeout { .. }) => return Ok(()),
        found => found?.remove("min-slaves-to-write"),
    };
    if fence.as_deref() != Some("100") {
        return Ok(());
    }
    match codis.unfence(server, good_replicas).await {
        Err(codis::Error::Unreachable { .. } | codis::Error::Timeout { .. }) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}
