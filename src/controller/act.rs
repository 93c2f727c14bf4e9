//! One step → its effects, through the doors.

use kube::ResourceExt;
use std::time::Duration;

use super::{Context, Error, Known, Requeue, event, live};
use crate::{
    api::CodisCluster,
    build::{self, Facts},
    cluster::{EventKind, Live, Propagation},
    codis::{self, Codis},
    domain::GroupId,
    plan::{Decision, Desired, Step, reason},
};

/// Does the step that was decided. When Codis refuses, the decision waits for it to say yes instead: the status tells.
/// Returns when to look again, where it isn't for the decision to say.
pub(super) async fn act(
    context: &Context,
    cluster: &CodisCluster,
    codis: &Codis,
    desired: &Desired<'_>,
    live: &Live,
    facts: &mut Facts,
    decision: &mut Decision,
) -> Result<Option<Requeue>, Error> {
    let Some(step) = decision.step.clone() else {
        return Ok(None);
    };
    let name = cluster.name_any();
    tracing::info!(cluster = name, step = step.name(), "{step}");
    let known = Known {
        cluster,
        valid: desired.cluster,
        live,
        facts,
        addresses: desired.addresses,
    };
    match effect(context, codis, &known, &step).await {
        Ok(armed) => {
            if let Some(armed) = armed {
                facts.bootstrapped = armed;
            }
            let kind = if matches!(step, Step::StartEmpty { .. }) {
                EventKind::Warning
            } else {
                EventKind::Normal
            };
            event(context, cluster, kind, step.name(), &action(&step), &step.to_string()).await;
            // A sentinel needs a moment to connect anew.
            let moment = matches!(step, Step::Relink { .. });
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

/// The event's action. Events of one reason and one action are counted as one: it tells groups and servers apart.
/// Kubernetes takes at most 128 characters.
fn action(step: &Step) -> String {
    step.to_string().chars().take(128).collect()
}

type Armed = std::collections::BTreeSet<GroupId>;

/// The gates that are armed afterwards, where the step changed that.
async fn effect(context: &Context, codis: &Codis, known: &Known<'_>, step: &Step) -> Result<Option<Armed>, Error> {
    match step {
        Step::RemoveProxy { token, .. } => codis.remove_proxy(token).await?,
        Step::CreateGroup(group) => codis.create_group(*group).await?,
        Step::AddServer { group, server } => codis.add_server(*group, server).await?,
        Step::Promote { group, server } => codis.promote(*group, server).await?,
        Step::ResyncGroup(group) => codis.resync_group(*group).await?,
        Step::Attach { server, .. } => codis.sync_server(server).await?,
        Step::Unfence(server) => codis.unfence(server, known.valid.good_replicas).await?,
        Step::AddSentinel(sentinel) => codis.add_sentinel(sentinel).await?,
        Step::ResyncSentinels => codis.resync_sentinels().await?,
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
                .monitor(sentinel, *group, master, &live::settings(known.valid))
                .await?;
        }
        Step::AssignSlots(slots) => codis.assign_slots(slots).await?,
        Step::OnlineProxy(admin) => codis.online_proxy(admin).await?,
        Step::ArmGate(groups) => {
            let mut armed = known.facts.bootstrapped.clone();
            armed.extend(groups);
            return set_gates(context, known, armed).await.map(Some);
        }
        Step::Switchover { .. } | Step::Undo(_) | Step::Restart { .. } => {}
        Step::StartEmpty { group, pods } => return start_empty(context, known, *group, pods).await.map(Some),
    }
    Ok(None)
}

/// Writes the gates to the Secret that the servers' entry script reads.
async fn set_gates(context: &Context, known: &Known<'_>, armed: Armed) -> Result<Armed, Error> {
    let facts = Facts {
        bootstrapped: armed,
        ..known.facts.clone()
    };
    let config = build::workloads(known.valid, &facts, known.addresses).config;
    context.cluster.apply(known.live.secret.as_ref(), &config).await?;
    Ok(facts.bootstrapped)
}

/// Disarms a group's gate and makes its pods anew: new ones read the Secret as it is now, old ones as it was.
async fn start_empty(
    context: &Context,
    known: &Known<'_>,
    group: GroupId,
    pods: &[(String, String)],
) -> Result<Armed, Error> {
    let mut armed = known.facts.bootstrapped.clone();
    armed.remove(&group);
    let armed = set_gates(context, known, armed).await?;
    let namespace = known.cluster.namespace().unwrap_or_default();
    for (name, uid) in pods {
        let pods =
            context
                .cluster
                .delete::<k8s_openapi::api::core::v1::Pod>(&namespace, name, uid, Propagation::Background);
        pods.await?;
    }
    context.metrics.group_started_empty();
    Ok(armed)
}

/// So that `?` works on the door's errors here.
impl From<codis::Error> for Error {
    fn from(error: codis::Error) -> Self {
        Self::Codis(error)
    }
}
