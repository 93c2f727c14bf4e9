//! A planned change of a group's master that loses no acknowledged write (design, decision 4): have the proxies listen to
//! no sentinel, whose word may be older than the promotion; lock the group's slots at the proxies, so that clients wait
//! and get no error; fence the old master, so that nobody past the proxies writes either; wait until the new one has all;
//! promote it through the dashboard; have the old one follow it, and only then lift the fence. The rules of `plan` do the
//! rest: they re-point the others and restore the sentinels, which the proxies listen to again then.
//!
//! Codis's own promote compares no offsets: with a replica 0.7 s behind, a real one lost up to 458 acknowledged writes;
//! fenced, none (identity-experiment h).
//!
//! The intent stands in the status before the first lock. Whatever goes wrong, an operator that dies included, [`undo`]
//! ends in a group that works, unfenced and unlocked, with the old master or the new one.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use kube::ResourceExt;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Context, Error, Turn, memory::Key, observe, passwords, promotion};
use crate::{
    api::{CodisCluster, SwitchoverStatus, to_the_second},
    build::{Component, Facts},
    cluster::Live,
    codis::{self, Codis},
    domain::{Address, DashboardView, Group, GroupId, Intent, Observed, SlotId, Topology, ports},
    plan::Desired,
    seeded::{self, Bug},
};

/// How long the new master may take to have all that the old one has, while clients wait. Far less than the 5 s that
/// the lock may last in all: locking, promoting and undoing take their part.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How long the replica may take to be in step before anything is locked: one that stalls is found out at no cost.
const WARM_UP: Duration = Duration::from_millis(700);

/// How long the slots may be locked before it is given up. Undoing takes its part of the 5 s.
const LOCKED: Duration = Duration::from_secs(4);
/// How long the dashboard may take to say how far a switchover came, while clients wait.
const LOOK: Duration = Duration::from_millis(1500);
/// A promotion that nobody heard the end of may still be under way: it is looked for again after this.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// For how long a proxy may still do what it was told before: as long as its servers may take to answer
/// (`backend_recv_timeout`, contract §8.1), and some.
const LATE_LOCK: Duration = Duration::from_secs(40);

/// Why a switchover failed.
struct Failed {
    error: codis::Error,
    /// The dashboard was told to promote, and nobody knows what it does.
    promoting: bool,
}

impl From<codis::Error> for Failed {
    fn from(error: codis::Error) -> Self {
        let promoting = false;
        Self { error, promoting }
    }
}

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

/// The intent that the status has, if its servers are still known: by their Services, where they aren't wished any more.
pub(super) fn intent_of(cluster: &CodisCluster, desired: &Desired<'_>, facts: &Facts) -> Option<Intent> {
    let known = cluster.status.as_ref()?.switchover.as_ref()?;
    let of_service = |pod: &str| Some(Address::new(facts.addresses.get(pod)?.clone(), ports::SERVER));
    let address = |pod: &str| {
        let wished = desired.address_of(pod).or_else(|| of_service(pod));
        wished.or_else(|| pod.parse().ok())
    };
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
            promotion::conclude(turn, true, context.clock.now());
            Ok(())
        }
        Ended::Undone(error) | Ended::ToUndo(error) => {
            context.memory.move_failed(key, intent.group, context.clock.instant());
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
        started_at: to_the_second(context.clock.now()).to_string(),
    });
    if let Some(request) = desired.cluster.promotion.as_ref().filter(|_| {
        let wish = desired.promotion.as_ref();
        wish.is_some_and(|(group, to)| *group == intent.group && to.as_ref().is_none_or(|to| *to == intent.to))
    }) {
        turn.carried.promotion = Some(promotion::begun(&request.text, &pod(&intent.to), context.clock.now()));
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
        .move_failed(key_of(desired), intent.group, context.clock.instant());
    // Whoever began it may be dead since a moment, and its promotion under way.
    let done = undo(turn.codis, desired, &proxies, intent, true).await?;
    turn.carried.switchover = None;
    if done {
        turn.carried.handed_over = desired.pod_at(&intent.to).map(|pod| (intent.group, pod));
    }
    promotion::conclude(turn, done, context.clock.now());
    Ok(())
}

/// Lets clients go on where nothing else may be done: a person's mistake in the spec, or a brake, came after an operator
/// died in a switchover. The intent and the fence stay until it may be cleared away.
pub(super) async fn release(context: &Context, cluster: &CodisCluster, live: &Live) -> Result<(), Error> {
    let known = cluster.status.as_ref().and_then(|status| status.switchover.as_ref());
    let group = known.and_then(|known| GroupId::try_from(u64::try_from(known.group).ok()?).ok());
    let (Some(group), Some(secret)) = (group, live.secret.as_ref()) else {
        return Ok(());
    };
    let product = cluster.spec.product_name.clone().unwrap_or_else(|| cluster.name_any());
    let auth = passwords::in_force(secret).product;
    let nobody = Address::new(product.clone(), ports::DASHBOARD);
    let codis = context.codis(&product, auth.as_deref(), nobody)?;
    let pods = observe::of_component(live, Component::Proxy.name()).chain(live.predecessor.proxies());
    let ips = pods.filter_map(|pod| pod.status.as_ref()?.pod_ip.clone());
    let proxies = codis.tokens(ips.map(|ip| Address::new(ip, ports::PROXY_ADMIN))).await;
    codis.unlock_group(&proxies, group).await?;
    Ok(())
}

/// A proxy that was busy when it was to lock may do so long after everybody gave up, and with the master of then: for a
/// while after a switchover that failed, and after every start, locks that nobody wants are looked for, and the proxies
/// told anew. An intent whose servers aren't known any more is forgotten that way, too.
pub(super) async fn sweep(context: &Context, turn: &mut Turn<'_>, desired: &Desired<'_>) -> Result<(), Error> {
    let DashboardView::Online { topology, .. } = &turn.observed.dashboard else {
        return Ok(());
    };
    let is_lost = turn.carried.switchover.is_some() && turn.observed.intent.is_none();
    let unswept = context
        .memory
        .may_be_unswept(desired.cluster.names.key(), LATE_LOCK, context.clock.instant());
    if turn.observed.intent.is_some() || !(is_lost || unswept) {
        return Ok(());
    }
    let proxies = answering(topology);
    for group in locked_groups(turn.codis, &proxies, topology).await {
        tracing::warn!(%group, "a lock that nobody wants");
        if let Err(error) = turn.codis.resync_group(group).await {
            turn.codis.unlock_group(&proxies, group).await?;
            return Err(error.into());
        }
    }
    if is_lost {
        turn.carried.switchover = None;
    }
    Ok(())
}

/// Groups of which some slot is locked at a proxy, for no reason that the dashboard has.
async fn locked_groups(codis: &Codis, proxies: &Proxies, topology: &Topology) -> BTreeSet<GroupId> {
    let asked = proxies.iter().map(|(admin, token)| codis.locked_slots(admin, token));
    let is_quiet = |group: GroupId| {
        let group = topology.groups.get(&group);
        group.is_some_and(|group| group.promoting.is_none())
    };
    let is_moving = |slot: SlotId| {
        let known = topology.slots.get(usize::from(slot.get()));
        known.is_some_and(|known| known.moving.is_some())
    };
    // Who doesn't answer is asked again in the next pass.
    let locked = join_all(asked).await.into_iter().flatten().flatten();
    let locked = locked.filter(|(slot, _)| !is_moving(*slot));
    locked
        .filter_map(|(_, group)| group.filter(|group| is_quiet(*group)))
        .collect()
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
    desired.cluster.names.key()
}

/// Hands a group over. The intent must stand in the status.
async fn hand_over(codis: &Codis, desired: &Desired<'_>, topology: &Topology, intent: &Intent) -> Ended {
    let Failed { error, promoting } = match attempt(codis, topology, intent).await {
        Ok(()) => {
            // One that can't be reached now loses its fence with its process, or by the rule that lifts fences.
            if let Err(error) = retire(codis, intent, desired.cluster.good_replicas).await {
                tracing::warn!(server = %intent.from, %error, "the old master doesn't follow the new one yet");
            }
            return Ended::Done;
        }
        Err(failed) => failed,
    };
    tracing::warn!(group = %intent.group, %error, "a switchover failed");
    match undo(codis, desired, &proxies_of(topology), intent, promoting).await {
        Ok(true) => Ended::Done,
        Ok(false) => Ended::Undone(error),
        Err(left) => {
            tracing::warn!(group = %intent.group, %left, "a failed switchover isn't cleared away yet");
            Ended::ToUndo(error)
        }
    }
}

async fn attempt(codis: &Codis, topology: &Topology, intent: &Intent) -> Result<(), Failed> {
    let Intent { group, from, to } = intent;
    let timeout = |peer: &Address, after: Duration| codis::Error::Timeout {
        peer: peer.clone(),
        after,
    };
    if !codis.replication_offsets(from, to, Instant::now() + WARM_UP).await? {
        return Err(timeout(to, WARM_UP).into());
    }
    if topology.slots.iter().any(|slot| slot.moving.is_some()) {
        pause_moves(codis).await?;
    }
    let proxies = proxies_of(topology);
    codis.listen(&proxies, &[]).await?;
    let end = Instant::now() + LOCKED;
    codis.lock_group(&proxies, *group).await?;
    if !seeded::has(Bug::NoFence) {
        codis.fence(from).await?;
    }
    if !seeded::has(Bug::NoFence) && !codis.replication_offsets(from, to, Instant::now() + CATCH_UP).await? {
        return Err(timeout(to, CATCH_UP).into());
    }
    let promoted = timeout_at(end, codis.promote(*group, to)).await;
    let promoted = promoted.unwrap_or_else(|_| Err(timeout(codis.peer(), LOCKED)));
    promoted.map_err(|error| {
        let promoting = matches!(error, codis::Error::Unreachable { .. } | codis::Error::Timeout { .. });
        Failed { error, promoting }
    })
}

/// Keeps slots of other groups from moving: the dashboard promotes nobody meanwhile (contract §6.2). `plan` lets them go on.
async fn pause_moves(codis: &Codis) -> Result<(), codis::Error> {
    codis.set_migrations(false).await?;
    let until = Instant::now() + CATCH_UP;
    while Instant::now() < until {
        match codis.dashboard().await {
            DashboardView::Online { topology, .. } if !topology.migration_running => return Ok(()),
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
    Err(codis::Error::Timeout {
        peer: codis.peer().clone(),
        after: CATCH_UP,
    })
}

/// Has the old master follow the new one, and lifts its fence. In this order: a proxy that wasn't told of the change, or
/// believed a sentinel that wasn't, would have its writes acknowledged by the old one, and they'd be lost.
async fn retire(codis: &Codis, intent: &Intent, good_replicas: u32) -> Result<(), codis::Error> {
    codis.demote(&intent.from, &intent.to, good_replicas).await
}

/// Clears away what a switchover left: no lock, no fence, proxies that listen. Says whether the new master is in office
/// after all. `promoting`: a promotion may still be under way.
///
/// What the dashboard says is the truth. While it says nothing, a promotion may be half done: the fence stays then, so
/// that the old master acknowledges nothing that would be lost, and clients get its errors instead of silence.
async fn undo(
    codis: &Codis,
    desired: &Desired<'_>,
    proxies: &[(Address, String)],
    intent: &Intent,
    promoting: bool,
) -> Result<bool, codis::Error> {
    let Intent { group, from, to } = intent;
    let mut topology = look(codis, desired, proxies, *group).await?;
    let is_still_master = |topology: &Topology| topology.groups.get(group).and_then(Group::master) == Some(from);
    if promoting && is_still_master(&topology) {
        codis.unlock_group(&answering(&topology), *group).await?;
        sleep(SECOND_LOOK).await;
        topology = look(codis, desired, proxies, *group).await?;
    }
    let known = topology.groups.get(group);
    let is_done = known.and_then(Group::master) == Some(to);
    let is_promoting = known.is_some_and(|group| group.promoting.is_some());
    let is_still_master = is_still_master(&topology);
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
    if is_done {
        // Where it doesn't answer, its fence goes with its process: the entry script writes the configuration anew.
        unless_away(retire(codis, intent, desired.cluster.good_replicas).await)?;
    } else if !is_still_master {
        lift(codis, from, desired.cluster.good_replicas).await?;
    }
    unlocked?;
    told?;
    // Where the dashboard is to configure the sentinels anew, it tells the proxies, too.
    if !topology.sentinels.out_of_sync {
        codis.listen(&answering(&topology), &topology.sentinels.servers).await?;
    }
    Ok(is_done)
}

/// What the dashboard says now. While it can't say, clients are let go on: the fence stands.
async fn look(
    codis: &Codis,
    desired: &Desired<'_>,
    proxies: &[(Address, String)],
    group: GroupId,
) -> Result<Box<Topology>, codis::Error> {
    let why = match timeout(LOOK, codis.dashboard()).await {
        Ok(DashboardView::Online { topology, .. }) => return Ok(topology),
        Ok(DashboardView::Unavailable(why)) => why,
        Err(_) => "it didn't answer in time".to_owned(),
    };
    codis.unlock_group(proxies, group).await?;
    Err(codis::Error::Unexpected {
        peer: desired.addresses.dashboard.clone(),
        cause: format!("it can't say how far the switchover came: {why}"),
    })
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
    unless_away(codis.unfence(server, good_replicas).await)
}

/// Whoever doesn't answer is left alone.
fn unless_away(done: Result<(), codis::Error>) -> Result<(), codis::Error> {
    match done {
        Err(codis::Error::Unreachable { .. } | codis::Error::Timeout { .. }) => Ok(()),
        done => done,
    }
}
