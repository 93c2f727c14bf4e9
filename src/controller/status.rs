//! The status: a pure fold of what was seen and decided. An unchanged cluster gives an equal status.

use k8s_openapi::jiff::Timestamp;

use super::Carried;
use crate::{
    api::{
        CodisCluster, CodisClusterStatus, GroupStatus, ServerStatus, SlotMovesStatus, condition, condition_at,
        to_the_second,
    },
    build::Facts,
    domain::{Address, DashboardView, Group, Observed, Replication, ServerView},
    plan::{self, Decision, Desired, Health, Note, reason},
    validate::{Invalid, ValidCluster},
};

/// A group's failovers are counted over so many seconds.
const FLAPPING_WITHIN: i64 = 600;
/// So many of them are too many.
const FLAPPING_AT: usize = 3;

/// What a pass has seen.
pub(super) struct View<'a> {
    pub cluster: &'a CodisCluster,
    pub desired: &'a Desired<'a>,
    pub observed: &'a Observed,
    pub facts: &'a Facts,
    pub carried: &'a Carried,
    pub without_effect: &'a [String],
}

/// A spec that makes no sense.
pub(super) fn invalid(errors: &[Invalid]) -> Decision {
    let mut decision = Decision::default();
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    decision.block(reason::INVALID_SPEC, all.join("; "));
    decision
}

/// What a person must mend before anything is done.
pub(super) fn objections(all: &[String]) -> Decision {
    let mut decision = Decision::default();
    decision.block(reason::INVALID_SPEC, all.join("; "));
    decision
}

/// A step that isn't taken, because only the status is written.
pub(super) fn only_told(decision: &mut Decision) {
    if let Some(step) = decision.step.take() {
        let note = Note {
            reason: step.name(),
            message: format!("would: {step}"),
        };
        decision.waits.insert(0, note);
    }
}

/// The status of a cluster without pods. `waits` is what still has to end, or empty.
pub(super) fn of_hibernating(
    cluster: &CodisCluster,
    valid: &ValidCluster,
    waits: &str,
    now: Timestamp,
) -> CodisClusterStatus {
    let mut status = cluster.status.clone().unwrap_or_default();
    let mut decision = Decision::default();
    decision.waits.push(Note {
        reason: "Hibernating",
        message: if waits.is_empty() {
            "spec.hibernate is true: no pods run; volumes and topology are kept".to_owned()
        } else {
            waits.to_owned()
        },
    });
    let truth = Truth {
        ready: false,
        serving: Some(false),
        degraded: false,
    };
    conclude(cluster, &mut status, &truth, &decision, now);
    status.phase = Some("Hibernating".to_owned());
    status.brakes = valid.brakes.told(now);
    status
}

/// What the API server refuses.
pub(super) fn refused(error: &super::Error) -> Decision {
    let mut decision = Decision::default();
    decision.block(reason::API_REFUSED, error.to_string());
    decision
}

/// The status of a cluster for which nothing is done. What was known about it stays.
pub(super) fn of_blocked(cluster: &CodisCluster, decision: &Decision, now: Timestamp) -> CodisClusterStatus {
    let mut status = cluster.status.clone().unwrap_or_default();
    let truth = Truth {
        ready: false,
        serving: None,
        degraded: false,
    };
    conclude(cluster, &mut status, &truth, decision, now);
    status
}

/// The status of a cluster that is being deleted.
pub(super) fn of_deleting(cluster: &CodisCluster, what: String, now: Timestamp) -> CodisClusterStatus {
    let mut status = cluster.status.clone().unwrap_or_default();
    let mut decision = Decision::default();
    decision.waits.push(Note {
        reason: "Deleting",
        message: what,
    });
    conclude(
        cluster,
        &mut status,
        &Truth {
            ready: false,
            serving: None,
            degraded: false,
        },
        &decision,
        now,
    );
    status.phase = Some("Deleting".to_owned());
    status
}

/// The status after a whole pass.
pub(super) fn of(view: &View<'_>, health: &Health, decision: &mut Decision, now: Timestamp) -> CodisClusterStatus {
    let wished = view.desired.cluster;
    let servers = usize::from(wished.groups) * usize::from(wished.group_size) + leaving_servers(view);
    let sentinels = usize::from(wished.sentinel_count());
    let is_whole = health.servers_in_role >= servers
        && health.sentinels_watching >= sentinels
        && health.proxies_online >= usize::from(wished.proxy.replicas);
    let knows = matches!(view.observed.dashboard, DashboardView::Online { .. });
    let mut status = view.cluster.status.clone().unwrap_or_default();
    if knows {
        status.proxies = Some(format!("{}/{}", health.proxies_online, wished.proxy.replicas));
        status.servers = Some(format!("{}/{servers}", health.servers_in_role));
        status.sentinels = Some(format!("{}/{sentinels}", health.sentinels_watching));
        status.slots_served = Some(health.slots_served.into());
        status.groups = groups(view);
        decision.alarms.extend(flapping(&status.groups));
        let pods = view.observed.server_pods.values();
        let updated = pods.filter(|pod| !pod.outdated && pod.ready).count();
        status.updated = Some(format!("{updated}/{servers}"));
    }
    let balanced = plan::balanced(view.desired, view.observed);
    if wished.rebalance.is_some() && wished.wished_groups().all(|group| balanced.contains(&group)) {
        status.rebalanced.clone_from(&wished.rebalance);
    }
    status.balanced = Some(balanced.into_iter().map(|group| group.get().into()).collect());
    status.slot_moves = slot_moves(view, status.slot_moves.take());
    status.switchover = view.carried.switchover.clone();
    status.promotion = view.carried.promotion.clone();
    status.nodes.clone_from(&decision.nodes);
    status.brakes = wished.brakes.told(view.desired.now);
    status.addresses = view.facts.addresses.clone();
    status.product = view.facts.claimed.then(|| wished.product().to_owned());
    status.without_effect = view.without_effect.to_vec();
    let truth = Truth {
        ready: decision.is_settled() && decision.alarms.is_empty() && health.is_serving() && is_whole,
        serving: knows.then(|| health.is_serving()),
        degraded: !is_whole && health.is_serving() || !decision.alarms.is_empty(),
    };
    conclude(view.cluster, &mut status, &truth, decision, now);
    status
}

/// Servers of groups that aren't wished any more and are still in the topology.
fn leaving_servers(view: &View<'_>) -> usize {
    let DashboardView::Online { topology, .. } = &view.observed.dashboard else {
        return 0;
    };
    let leaving = view.desired.cluster.leaving_groups.iter();
    let groups = leaving.filter_map(|group| topology.groups.get(group));
    groups.map(|group| group.servers.len()).sum()
}

/// How far the slots have come that are to move, and how long the rest will take at this pace.
fn slot_moves(view: &View<'_>, known: Option<SlotMovesStatus>) -> Option<SlotMovesStatus> {
    let left = i32::try_from(plan::slots_to_move(view.desired, view.observed)).unwrap_or(i32::MAX);
    if !matches!(view.observed.dashboard, DashboardView::Online { .. }) {
        return known;
    }
    if left == 0 {
        return None;
    }
    let now = to_the_second(view.desired.now);
    let started_at = known
        .as_ref()
        .map_or_else(|| now.to_string(), |known| known.started_at.clone());
    let total = known.map_or(left, |known| known.total.max(left));
    let began: Option<Timestamp> = started_at.parse().ok();
    let spent = began.map_or(0, |began| now.duration_since(began).as_secs());
    let arrived = i64::from(total - left);
    Some(SlotMovesStatus {
        left,
        total,
        started_at,
        seconds_left: (arrived > 0).then(|| spent * i64::from(left) / arrived),
    })
}

struct Truth {
    ready: bool,
    serving: Option<bool>,
    degraded: bool,
}

/// Conditions, phase and message.
fn conclude(
    cluster: &CodisCluster,
    status: &mut CodisClusterStatus,
    truth: &Truth,
    decision: &Decision,
    now: Timestamp,
) {
    let doing = doing(decision);
    let blocked = decision.blocked.first();
    let first = blocked
        .cloned()
        .or_else(|| doing.clone())
        .or_else(|| decision.alarms.first().cloned());
    let (reason, message) = first.map_or(("", String::new()), |note| (note.reason, note.message));
    let or = |reason: &str, otherwise: &str| {
        if reason.is_empty() {
            otherwise.to_owned()
        } else {
            reason.to_owned()
        }
    };
    let serving = match truth.serving {
        Some(true) => ("True", "AllSlotsServed"),
        Some(false) => ("False", "NotAllSlotsServed"),
        None => ("Unknown", "NotObserved"),
    };
    let yes = |is: bool| if is { "True" } else { "False" };
    let of = |note: Option<&Note>, none: &str| {
        note.map_or((none.to_owned(), String::new()), |note| {
            (note.reason.to_owned(), note.message.clone())
        })
    };
    let ready = if truth.ready {
        ("Ready".to_owned(), String::new())
    } else {
        (or(reason, "NotReady"), message.clone())
    };
    let rows = [
        (condition::READY, yes(truth.ready), ready),
        (condition::SERVING, serving.0, (serving.1.to_owned(), String::new())),
        (
            condition::PROGRESSING,
            yes(doing.is_some()),
            of(doing.as_ref(), "Settled"),
        ),
        (condition::BLOCKED, yes(blocked.is_some()), of(blocked, "NotBlocked")),
        (
            condition::DEGRADED,
            yes(truth.degraded),
            of(
                decision.alarms.first(),
                if truth.degraded { "NotWhole" } else { "Whole" },
            ),
        ),
        (condition::STALLED, yes(blocked.is_some()), of(blocked, "NotStalled")),
    ];
    status.conditions = rows
        .into_iter()
        .map(|(type_, value, (reason, message))| {
            condition_at(
                now,
                &status.conditions,
                type_,
                value,
                reason,
                message,
                cluster.metadata.generation,
            )
        })
        .collect();
    status.observed_generation = cluster.metadata.generation;
    status.message = (!message.is_empty()).then_some(message);
    status.phase = Some(phase(truth, decision).to_owned());
}

/// The step, or what is waited for.
fn doing(decision: &Decision) -> Option<Note> {
    let failed = decision
        .waits
        .first()
        .filter(|note| note.reason == reason::STEP_FAILED)
        .cloned();
    let step = decision.step.as_ref().map(|step| Note {
        reason: step.name(),
        message: step.to_string(),
    });
    failed.or(step).or_else(|| decision.waits.first().cloned())
}

fn phase(truth: &Truth, decision: &Decision) -> &'static str {
    match truth {
        _ if !decision.blocked.is_empty() => "Blocked",
        Truth { ready: true, .. } => "Ready",
        Truth {
            serving: Some(true), ..
        } => "Degraded",
        _ => "Progressing",
    }
}

/// What is in the way now and wasn't in the status before.
pub(super) fn news<'a>(cluster: &CodisCluster, decision: &'a Decision) -> Vec<&'a Note> {
    let old = cluster
        .status
        .iter()
        .flat_map(|status| &status.conditions)
        .find(|old| old.type_ == condition::BLOCKED);
    let known = old
        .filter(|old| old.status == "True")
        .map(|old| (old.reason.as_str(), old.message.as_str()));
    decision
        .blocked
        .iter()
        .filter(|note| known != Some((note.reason, note.message.as_str())))
        .take(1)
        .collect()
}

fn groups(view: &View<'_>) -> Vec<GroupStatus> {
    let DashboardView::Online { topology, .. } = &view.observed.dashboard else {
        return Vec::new();
    };
    let name = |address: &Address| {
        // One that isn't wished any more, or not yet by this pass, still has its Service, of the same name.
        let of_service = || view.facts.addresses.iter().find(|(_, ip)| *ip == address.host());
        let wished = view.desired.pod_at(address);
        wished.or_else(|| of_service().map(|(name, _)| name.clone()))
    };
    let known = view.cluster.status.as_ref().map_or(&[][..], |status| &status.groups);
    let status_of = |group: &Group| GroupStatus {
        id: group.id.get().into(),
        slots: i32::try_from(topology.slots_of(group.id)).unwrap_or(i32::MAX),
        master: view
            .carried
            .master_of(group.id)
            .or_else(|| group.master().and_then(name)),
        anti_affinity: Some(
            if view.facts.strict.contains(&group.id) {
                "required"
            } else {
                "preferred"
            }
            .to_owned(),
        ),
        failovers: failovers(view, known, group, name),
        bootstrapped: view.facts.bootstrapped.contains(&group.id),
        servers: group
            .servers
            .iter()
            .map(|server| {
                let name = name(&server.address).unwrap_or_else(|| server.address.to_string());
                server_status(name, view.observed.servers.get(&server.address))
            })
            .collect(),
    };
    topology.groups.values().map(status_of).collect()
}

/// When a group's master was replaced and no switchover of ours did it, as far as that is still news.
fn failovers(
    view: &View<'_>,
    known: &[GroupStatus],
    group: &Group,
    name: impl Fn(&Address) -> Option<String>,
) -> Vec<String> {
    let Some(known) = known.iter().find(|known| known.id == i32::from(group.id.get())) else {
        return Vec::new();
    };
    let is_recent = |time: &&String| {
        let time: Option<Timestamp> = time.parse().ok();
        time.is_some_and(|time| view.desired.now.duration_since(time).as_secs() < FLAPPING_WITHIN)
    };
    let mut all: Vec<String> = known.failovers.iter().filter(is_recent).cloned().collect();
    let is_planned = view.carried.switchover.is_some() || view.carried.master_of(group.id).is_some();
    let master = group.master().and_then(name);
    if !is_planned && known.master.is_some() && master.is_some() && known.master != master {
        all.push(to_the_second(view.desired.now).to_string());
    }
    all
}

/// Groups whose master was replaced too often lately: a person should know why.
fn flapping(groups: &[GroupStatus]) -> Option<Note> {
    let group = groups.iter().find(|group| group.failovers.len() >= FLAPPING_AT)?;
    let message = format!(
        "the master of group {} was replaced {} times within {} min: look at its servers' nodes, memory and network",
        group.id,
        group.failovers.len(),
        FLAPPING_WITHIN / 60
    );
    Some(Note {
        reason: reason::FLAPPING,
        message,
    })
}

fn server_status(name: String, view: Option<&ServerView>) -> ServerStatus {
    let (role, link_up) = match view {
        Some(ServerView::Up {
            replication: Replication::Master,
            ..
        }) => ("master", None),
        Some(ServerView::Up {
            replication: Replication::Replica { link_up, .. },
            ..
        }) => ("replica", Some(*link_up)),
        Some(ServerView::Loading) => ("loading", None),
        Some(ServerView::Unreachable(_)) | None => ("unreachable", None),
    };
    ServerStatus {
        name,
        role: role.to_owned(),
        link_up,
    }
}

#[cfg(test)]
mod tests;
