//! One step → its effects, through the doors.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;

use super::{Context, Error, Requeue, Turn, dump, event, live, switchover, takeover};
use crate::{
    api::names::LABEL_GROUP,
    build::{self, Facts},
    cluster::{EventKind, Propagation},
    codis,
    domain::{GroupId, Intent},
    plan::{Decision, Desired, Step, reason},
};

/// Does the step that was decided. When Codis refuses, the decision waits for it to say yes instead: the status tells.
/// Returns when to look again, where it isn't for the decision to say.
pub(super) async fn act(
    context: &Context,
    desired: &Desired<'_>,
    turn: &mut Turn<'_>,
    decision: &mut Decision,
) -> Result<Option<Requeue>, Error> {
    let Some(step) = decision.step.clone() else {
        return Ok(None);
    };
    let name = turn.cluster.name_any();
    tracing::info!(cluster = name, step = step.name(), "{step}");
    match Box::pin(effect(context, desired, turn, &step)).await {
        Ok(()) => {
            event(
                context,
                &turn.cluster,
                kind(&step),
                step.name(),
                &action(&step),
                &step.to_string(),
            )
            .await;
            // Who connects anew needs a moment.
            let moment = matches!(step, Step::Relink { .. } | Step::Announce { .. });
            Ok(Some(if moment { Requeue::SOON } else { Requeue::NOW }))
        }
        Err(Error::Codis(error)) => {
            tracing::warn!(cluster = name, step = step.name(), %error, "the step failed");
            decision.waits.insert(
                0,
                crate::plan::Note {
                    reason: reason::STEP_FAILED,
                    message: format!("{step}: {error}"),
                },
            );
            Ok(Some(if error.is_retryable() {
                Requeue::SOON
            } else {
                Requeue::After(Duration::from_secs(3))
            }))
        }
        Err(error) => Err(error),
    }
}

fn kind(step: &Step) -> EventKind {
    match step {
        Step::StartEmpty { .. } | Step::Undo(_) | Step::ForgetVolume { .. } | Step::RestoreSlots(_) => {
            EventKind::Warning
        }
        _ => EventKind::Normal,
    }
}

/// The event's action. Events of one reason and one action are counted as one: it tells groups and servers apart.
/// Kubernetes takes at most 128 characters.
fn action(step: &Step) -> String {
    step.to_string().chars().take(128).collect()
}

type Armed = std::collections::BTreeSet<GroupId>;

async fn effect(context: &Context, desired: &Desired<'_>, turn: &mut Turn<'_>, step: &Step) -> Result<(), Error> {
    let codis = turn.codis;
    match step {
        Step::ClaimProduct => {
            let facts = Facts {
                claimed: true,
                ..turn.facts.clone()
            };
            set_facts(context, desired, turn, facts).await?;
        }
        Step::RemoveProxy { token, .. } => codis.remove_proxy(token).await?,
        Step::CreateGroup(group) => codis.create_group(*group).await?,
        Step::AddServer { group, server, zone } => codis.add_server(*group, server, zone.as_deref()).await?,
        Step::MarkReplicas { group, servers, reads } => {
            for server in servers {
                codis.mark_replica(*group, server, *reads).await?;
            }
            codis.resync_group(*group).await?;
        }
        Step::RemoveServer { group, server } => {
            if turn.addresses.is_inherited(server) {
                Box::pin(takeover::detach(codis, server)).await?;
            }
            codis.remove_server(*group, server).await?;
        }
        Step::RemoveGroup(group) => codis.remove_group(*group).await?,
        Step::ForgetGroup(group) => forget_group(context, desired, turn, *group).await?,
        Step::MoveSlots(moves) => {
            dump::foresee(context, desired, turn, moves).await?;
            for (slot, to) in moves {
                codis.move_slot(*slot, *to).await?;
            }
        }
        Step::CancelMoves(slots) => {
            for slot in slots {
                codis.cancel_move(*slot).await?;
            }
        }
        Step::ResumeMoves => codis.set_migrations(true).await?,
        Step::HaltMoves => codis.set_migrations(false).await?,
        Step::PaceMoves(interval) => codis.set_migration_interval(*interval).await?,
        Step::Promote { group, server } => codis.promote(*group, server).await?,
        Step::ResyncGroup(group) => codis.resync_group(*group).await?,
        Step::ResyncGroups => codis.resync_groups().await?,
        Step::Listen { proxies, sentinels } => codis.listen(proxies, sentinels).await?,
        Step::Attach { server, .. } => codis.sync_server(server).await?,
        Step::Announce { server, .. } => codis.announce(server).await?,
        Step::Unfence(server) => codis.unfence(server, desired.cluster.good_replicas).await?,
        Step::AddSentinel(sentinel) => codis.add_sentinel(sentinel).await?,
        // The old address isn't its any more: nobody answers there, or somebody else does.
        Step::RemoveSentinel(sentinel) => codis.remove_sentinel(sentinel, true).await?,
        Step::ResyncSentinels => {
            // With the quorum that the dashboard was started with: sentinels may have been added since.
            context.verified.forget(&live::key(desired.cluster));
            codis.resync_sentinels().await?;
        }
        Step::Redirect {
            sentinels,
            group,
            master,
        } => {
            let settings = live::settings(desired.cluster);
            let told = sentinels
                .iter()
                .map(|sentinel| codis.redirect(sentinel, *group, master, &settings));
            join_all(told).await.into_iter().collect::<Result<(), _>>()?;
        }
        Step::Monitor {
            sentinel,
            group,
            master,
        }
        | Step::Relink {
            sentinel,
            group,
            master,
        } => {
            codis
                .monitor(sentinel, *group, master, &live::settings(desired.cluster))
                .await?;
        }
        Step::AssignSlots(slots) => codis.assign_slots(slots).await?,
        Step::RestoreSlots(slots) => {
            dump::restoring(context, desired, turn, slots).await?;
            let owners: Vec<_> = slots.iter().filter_map(|slot| Some((slot.id, slot.group?))).collect();
            codis.assign_slots(&owners).await?;
        }
        Step::OnlineProxy(admin) => codis.online_proxy(admin).await?,
        Step::ArmGate(groups) => {
            let mut armed = turn.facts.bootstrapped.clone();
            armed.extend(groups);
            set_gates(context, desired, turn, armed).await?;
        }
        Step::StartEmpty { group, pods } => start_empty(context, desired, turn, *group, pods).await?,
        Step::Switchover { group, from, to, why } => {
            let intent = Intent {
                group: *group,
                from: from.clone(),
                to: to.clone(),
            };
            Box::pin(switchover::run(context, desired, turn, &intent, why)).await?;
        }
        Step::Undo(intent) => switchover::clear(context, desired, turn, intent).await?,
        Step::RemovePod { pod, uid, .. } => {
            let namespace = &desired.cluster.names.namespace;
            context
                .cluster
                .delete::<Pod>(namespace, pod, uid, Propagation::Now)
                .await?;
        }
        Step::ForgetVolume { claim, uid, .. } => {
            let namespace = &desired.cluster.names.namespace;
            let deleted =
                context
                    .cluster
                    .delete::<PersistentVolumeClaim>(namespace, claim, uid, Propagation::Background);
            deleted.await?;
        }
        Step::Restart { pod, uid, .. } => delete_pod(context, turn, pod, uid).await?,
        Step::Retire(part) => Box::pin(takeover::retire(context, desired, turn, *part)).await?,
    }
    Ok(())
}

/// Writes the gates to the Secret that the servers' entry script reads.
async fn set_gates(context: &Context, desired: &Desired<'_>, turn: &mut Turn<'_>, armed: Armed) -> Result<(), Error> {
    let facts = Facts {
        bootstrapped: armed,
        ..turn.facts.clone()
    };
    set_facts(context, desired, turn, facts).await
}

/// Writes to the Secret what the entry scripts go by.
async fn set_facts(context: &Context, desired: &Desired<'_>, turn: &mut Turn<'_>, facts: Facts) -> Result<(), Error> {
    let config = build::workloads(desired.cluster, &facts, turn.addresses).config;
    context.cluster.apply(turn.live.secret.as_ref(), &config).await?;
    turn.facts = facts;
    Ok(())
}

/// Deletes what ran a group; its StatefulSet as the last, because that is what tells that there is something left to do.
/// The gate is disarmed before: a group of this number that is made later starts empty.
async fn forget_group(
    context: &Context,
    desired: &Desired<'_>,
    turn: &mut Turn<'_>,
    group: GroupId,
) -> Result<(), Error> {
    let mut armed = turn.facts.bootstrapped.clone();
    armed.remove(&group);
    set_gates(context, desired, turn, armed).await?;
    let label = group.to_string();
    let is_its_own = |labels: &BTreeMap<String, String>| labels.get(LABEL_GROUP) == Some(&label);
    for service in turn
        .live
        .services
        .values()
        .filter(|service| is_its_own(service.labels()))
    {
        context.cluster.remove(service).await?;
    }
    for budget in turn.live.budgets.values().filter(|budget| is_its_own(budget.labels())) {
        context.cluster.remove(budget).await?;
    }
    if let Some(set) = turn.live.stateful_sets.get(&desired.cluster.names.group(group)) {
        context.cluster.remove(set).await?;
    }
    Ok(())
}

/// Disarms a group's gate and makes its pods anew: new ones read the Secret as it is now, old ones as it was.
async fn start_empty(
    context: &Context,
    desired: &Desired<'_>,
    turn: &mut Turn<'_>,
    group: GroupId,
    pods: &[(String, String)],
) -> Result<(), Error> {
    let mut armed = turn.facts.bootstrapped.clone();
    armed.remove(&group);
    set_gates(context, desired, turn, armed).await?;
    for (name, uid) in pods {
        delete_pod(context, turn, name, uid).await?;
    }
    context.metrics.group_started_empty();
    Ok(())
}

/// Gracefully: what is written is kept. But a proxy that is made anew because it doesn't answer waits for no client.
async fn delete_pod(context: &Context, turn: &Turn<'_>, name: &str, uid: &str) -> Result<(), Error> {
    let namespace = turn.cluster.namespace().unwrap_or_default();
    context
        .cluster
        .delete::<Pod>(&namespace, name, uid, Propagation::Soon)
        .await?;
    Ok(())
}

/// So that `?` works on the door's errors here.
impl From<codis::Error> for Error {
    fn from(error: codis::Error) -> Self {
        Self::Codis(error)
    }
}
