//! The loop: fetch → validate → build → apply → observe → plan → act → status, for one cluster at a time. A plain async
//! function of a key and the doors: it needs no kube runtime.
//!
//! May enter: every room above. Stays out: building objects, deciding steps. What is kept between two passes is only
//! what may be forgotten: since when a server has been silent.

mod act;
mod adoption;
mod apply;
mod dump;
mod error;
mod facts;
mod hibernate;
mod live;
mod memory;
mod nodes;
mod observe;
mod passwords;
mod promotion;
mod rivals;
mod roles;
mod run;
mod status;
mod storage;
mod switchover;
mod takeover;
mod teardown;
mod vacate;
mod volumes;

use std::{sync::Arc, time::Duration};

use kube::ResourceExt;

pub use error::Error;
pub use run::{Settings, run};

use crate::{
    api::{CodisCluster, PromotionStatus, SwitchoverStatus},
    build::{self, Facts},
    cluster::{Cluster, EventKind, Live},
    codis::{self, Codis, Link},
    domain::{Address, GroupId, Observed},
    plan::{self, Decision, Desired, Health, reason},
    telemetry::{Clock, Effects, Metrics},
    validate::{ValidCluster, validate},
};
use memory::Memory;
use passwords::Wished;

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// Only when something changes: it is gone.
    Never,
    /// After this time.
    After(Duration),
}

impl Requeue {
    /// A step was done: what it changed is looked at right away.
    const NOW: Self = Self::After(Duration::from_millis(200));
    /// Something is waited for.
    const SOON: Self = Self::After(Duration::from_secs(1));
    /// All is well. Codis's own changes (a failover) send no event, so it is looked at.
    const SETTLED: Self = Self::After(Duration::from_secs(5));
    /// It is a person's turn.
    const BLOCKED: Self = Self::After(Duration::from_secs(10));
}

/// The doors and what the loop needs besides.
pub struct Context {
    /// The door to Kubernetes.
    pub cluster: Cluster,
    /// What is asked before each effect on Codis.
    pub effects: Effects,
    /// Counts.
    pub metrics: Metrics,
    /// Whether the stand-in for Codis may be run.
    pub allow_stand_in: bool,
    /// What time it is.
    pub clock: Clock,
    /// How Codis is reached.
    pub link: Link,
    memory: Memory,
    verified: live::Verified,
}

impl Context {
    /// A context without memory, by the machine's clock and over its sockets.
    #[must_use]
    pub fn new(cluster: Cluster, effects: Effects, metrics: Metrics, allow_stand_in: bool) -> Arc<Self> {
        let (clock, link) = (Clock::default(), Link::default());
        Self::within(cluster, effects, metrics, allow_stand_in, clock, link)
    }

    /// The same in another world: by its clock and over its network.
    #[must_use]
    pub fn within(
        cluster: Cluster,
        effects: Effects,
        metrics: Metrics,
        allow_stand_in: bool,
        clock: Clock,
        link: Link,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            effects,
            metrics,
            allow_stand_in,
            clock,
            link,
            memory: Memory::default(),
            verified: live::Verified::default(),
        })
    }

    /// The door to a product, as [`Codis::new`] has it.
    fn codis(&self, product: &str, product_auth: Option<&str>, dashboard: Address) -> Result<Codis, codis::Error> {
        let timeouts = codis::Timeouts::default();
        let door = Codis::new(product, product_auth, dashboard, self.effects.clone(), timeouts)?;
        Ok(door.over(self.link.clone()))
    }
}

/// One pass for one cluster.
///
/// # Errors
/// When a door fails; [`Error::requeue`] says when to try again. What Codis refuses is in the status instead.
pub async fn reconcile(context: &Context, namespace: &str, name: &str) -> Result<Requeue, Error> {
    let Some(cluster) = context.cluster.get(namespace, name).await? else {
        context.memory.forget(namespace, name);
        context.verified.forget(&format!("{namespace}/{name}"));
        context.metrics.forget(&format!("{namespace}/{name}"));
        return Ok(Requeue::Never);
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        return teardown::tear_down(context, &cluster).await;
    }
    // On the heap, here and below: a pass is deep, and the stacks of worker threads are small.
    let outcome = Box::pin(pass(context, &cluster)).await;
    if let Err(error) = &outcome
        && error.is_refusal()
    {
        // What the API server refuses it will refuse again: the status tells, not only the log.
        let decision = status::refused(error);
        let status = status::of_blocked(&cluster, &decision, context.clock.now());
        report(context, &cluster, &status, &decision).await?;
    }
    outcome
}

async fn pass(context: &Context, cluster: &CodisCluster) -> Result<Requeue, Error> {
    let mut valid = match validate(cluster) {
        Ok(valid) => valid,
        Err(errors) => return blocked(context, cluster, status::invalid(&errors)).await,
    };
    let live = Box::pin(context.cluster.fetch(cluster)).await?;
    if let Some(decision) = Box::pin(apply::refusal(context, cluster, &valid, &live)).await? {
        return blocked(context, cluster, decision).await;
    }
    let wished = Box::pin(passwords::wished(context, &valid, &live)).await?;
    let are_told = live.secret.as_ref().is_some_and(passwords::has_passwords);
    if !are_told && !wished.objections.is_empty() {
        let decision = status::objections(&wished.objections);
        return blocked(context, cluster, decision).await;
    }
    facts::scaled(&mut valid, &live);
    facts::leaving(&mut valid, cluster, &live);
    if !valid.brakes.observe {
        context.cluster.add_finalizer(cluster).await?;
    }
    Box::pin(settle(context, cluster, &valid, &live, wished)).await
}

/// Everything that is wished, applied; then one step towards it.
async fn settle(
    context: &Context,
    cluster: &CodisCluster,
    valid: &ValidCluster,
    live: &Live,
    wished: Wished,
) -> Result<Requeue, Error> {
    let nodes = context.cluster.nodes().await;
    let mut facts = facts::facts(cluster, valid, live, &nodes, &wished.auth, context.clock.now());
    facts.kubernetes_uid = context.cluster.kubernetes_uid().await?;
    if let Some(decision) = Box::pin(takeover::look(context, valid, live, &mut facts)).await? {
        return blocked(context, cluster, decision).await;
    }
    Box::pin(storage::remember(context, cluster, valid, &mut facts)).await?;
    let mut outcome = Applied::of(valid, &wished, &facts);
    let applied = Box::pin(everything(context, cluster, valid, live, &facts, &mut outcome)).await;
    let addresses = match applied {
        Ok(Some(addresses)) => addresses,
        Ok(None) if valid.brakes.observe => {
            let decision = status::objections(&["nothing of the cluster exists, and management is Observe".to_owned()]);
            return blocked(context, cluster, decision).await;
        }
        Ok(None) => return Ok(Requeue::NOW),
        Err(error) => return taken_or(context, cluster, error).await,
    };
    if let Some(asleep) = &outcome.asleep {
        let status = status::of_hibernating(cluster, valid, asleep, context.clock.now());
        report(context, cluster, &status, &Decision::default()).await?;
        return Ok(if asleep.is_empty() {
            Requeue::BLOCKED
        } else {
            Requeue::SOON
        });
    }
    let mut desired = Desired {
        cluster: valid,
        addresses: &addresses,
        former: facts.former.clone(),
        known_hosts: facts.known_hosts(),
        persistent: facts::persistent(valid, &facts),
        has_password: facts.auth.product.is_some(),
        now: context.clock.now(),
        // What was read before a change says nothing of what comes of it.
        stopped: (outcome.changed)
            .then(|| "a change was just applied".to_owned())
            .or_else(|| context.memory.stopped(context.clock.instant())),
        promotion: None,
        allow_stand_in: context.allow_stand_in,
    };
    let codis = context.codis(
        valid.product(),
        facts.auth.product.as_deref(),
        addresses.dashboard.clone(),
    )?;
    let observed = Box::pin(observe::observe(context, &codis, &desired, live, &facts, cluster)).await;
    let mut turn = Turn {
        cluster: cluster.clone(),
        codis: &codis,
        observed: &observed,
        live,
        facts,
        addresses: &addresses,
        carried: Carried::of(cluster),
    };
    if !valid.brakes.observe {
        if plan::owns_product(&desired, &observed)
            && let Err(error) = Box::pin(switchover::sweep(context, &mut turn, &desired)).await
        {
            tracing::warn!(%error, "locks of a failed switchover may be left");
        }
        roles::label(context, &desired, &turn).await?;
    }
    if crate::seeded::has(crate::seeded::Bug::SentinelsReset) {
        // Whatever comes of it: that is the mistake.
        let _ = codis.resync_sentinels().await;
    }
    promotion::weigh(&mut desired, &mut turn, context.clock.now());
    let mut decision = plan::decide(&desired, &observed);
    outcome.object(&mut decision);
    let next_look = if valid.brakes.observe {
        Box::pin(switchover::release(context, &turn.cluster, live)).await?;
        status::only_told(&mut decision);
        None
    } else {
        Box::pin(dump::keep(context, &desired, &turn, &mut decision)).await?;
        let done = Box::pin(act::act(context, &desired, &mut turn, &mut decision)).await?;
        if !outcome.changed && observed.rolling.is_empty() {
            Box::pin(live::tune(
                &context.verified,
                &codis,
                &desired,
                &observed,
                &turn.facts,
                &mut decision,
            ))
            .await;
        }
        done
    };
    let health = plan::health(&desired, &observed);
    let view = status::View {
        cluster: &turn.cluster,
        desired: &desired,
        observed: turn.observed,
        facts: &turn.facts,
        carried: &turn.carried,
        without_effect: &outcome.without_effect,
    };
    context.memory.fares(
        valid.names.key(),
        decision.is_voluntary,
        health.is_serving(),
        context.clock.instant(),
    );
    let told = status::of(&view, &health, &mut decision, context.clock.now());
    report(context, &turn.cluster, &told, &decision).await?;
    Ok(next_look.unwrap_or_else(|| next(&health, &decision)))
}

/// What became of the wish besides what exists now.
struct Applied {
    without_effect: Vec<String>,
    /// What a person must mend; everything else goes on.
    objections: Vec<String>,
    /// What the API server refuses: everything else goes on.
    refusals: Vec<String>,
    /// Something that runs was just changed: what was read of it is old.
    changed: bool,
    /// No pods are wished; the pods that are waited for, if any.
    asleep: Option<String>,
}

impl Applied {
    fn of(valid: &ValidCluster, wished: &Wished, facts: &Facts) -> Self {
        Self {
            without_effect: facts::without_effect(valid, &wished.auth, facts),
            objections: wished.objections.clone(),
            refusals: Vec::new(),
            changed: false,
            asleep: None,
        }
    }

    /// What a part came to. A refusal is told, and stops nothing else: healing least of all.
    fn take<T: Default>(&mut self, done: Result<T, Error>) -> Result<T, Error> {
        match done {
            Err(error) if error.is_refusal() => {
                self.refusals.push(error.to_string());
                Ok(T::default())
            }
            done => done,
        }
    }

    fn object(&self, decision: &mut Decision) {
        for objection in &self.objections {
            decision.block(reason::INVALID_SPEC, objection.clone());
        }
        for refusal in &self.refusals {
            decision.block(reason::API_REFUSED, refusal.clone());
        }
        if self.changed {
            decision.wait(reason::ROLLING, "a change was just applied".to_owned());
        }
    }
}

/// Applies everything that is wished. The members' addresses, or none when they aren't known yet.
async fn everything(
    context: &Context,
    cluster: &CodisCluster,
    valid: &ValidCluster,
    live: &Live,
    facts: &Facts,
    outcome: &mut Applied,
) -> Result<Option<build::Addresses>, Error> {
    if valid.brakes.observe {
        return Ok(build::addresses(valid, facts).ok());
    }
    let addresses = match Box::pin(apply::services(context, valid, live, facts)).await {
        Ok(Some(addresses)) => addresses,
        Ok(None) => return Ok(None),
        // Where every address is known, the rest goes on.
        Err(error) if error.is_refusal() => match build::addresses(valid, facts) {
            Ok(addresses) => outcome.take(Err(error)).map(|()| addresses)?,
            Err(_) => return Err(error),
        },
        Err(error) => return Err(error),
    };
    let mut workloads = build::workloads(valid, facts, &addresses);
    if valid.brakes.hibernate {
        let objection = hibernate::objection(valid, facts).or_else(|| apply::anything_held(valid, context.clock.now()));
        match objection {
            Some(objection) => outcome.objections.push(objection),
            None => {
                let waits = hibernate::send_to_sleep(&mut workloads, live, cluster);
                outcome.asleep = Some(waits.unwrap_or_default());
            }
        }
    }
    outcome.changed = outcome.take(Box::pin(apply::workloads(context, valid, live, workloads)).await)?;
    outcome.take(Box::pin(apply::budgets(context, valid, live, facts)).await)?;
    if valid.brakes.stops("server", context.clock.now()).is_none() {
        let notes = outcome.take(Box::pin(storage::settle(context, cluster, valid, live, facts)).await)?;
        outcome.without_effect.extend(notes);
    }
    Ok(Some(addresses))
}

fn next(health: &Health, decision: &Decision) -> Requeue {
    match decision {
        _ if decision.step.is_some() || !decision.waits.is_empty() => Requeue::SOON,
        _ if !decision.blocked.is_empty() => Requeue::BLOCKED,
        _ if health.is_serving() => Requeue::SETTLED,
        _ => Requeue::SOON,
    }
}

/// A name that is taken blocks this cluster; any other error is the caller's.
async fn taken_or(context: &Context, cluster: &CodisCluster, error: Error) -> Result<Requeue, Error> {
    let Some(what) = error.name_taken() else {
        return Err(error);
    };
    let mut decision = Decision::default();
    decision.block(
        reason::NAME_TAKEN,
        format!("{what}; delete it, or give the cluster another name"),
    );
    blocked(context, cluster, decision).await
}

/// Reports why nothing is done.
async fn blocked(context: &Context, cluster: &CodisCluster, decision: Decision) -> Result<Requeue, Error> {
    if cluster
        .status
        .as_ref()
        .is_some_and(|status| status.switchover.is_some())
    {
        let live = Box::pin(context.cluster.fetch(cluster)).await?;
        Box::pin(switchover::release(context, cluster, &live)).await?;
    }
    let status = status::of_blocked(cluster, &decision, context.clock.now());
    report(context, cluster, &status, &decision).await?;
    Ok(Requeue::BLOCKED)
}

/// Writes the status if it changed, and an event when something new is in the way.
async fn report(
    context: &Context,
    cluster: &CodisCluster,
    status: &crate::api::CodisClusterStatus,
    decision: &Decision,
) -> Result<(), Error> {
    let key = format!("{}/{}", cluster.namespace().unwrap_or_default(), cluster.name_any());
    let conditions = status.conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str()));
    context.metrics.cluster(&key, conditions);
    let is_new = context.cluster.patch_status(cluster, status).await?;
    if !is_new || cluster.spec.management.as_deref() == Some("Observe") {
        return Ok(());
    }
    for note in status::news(cluster, decision) {
        event(
            context,
            cluster,
            EventKind::Warning,
            note.reason,
            "Reconcile",
            &note.message,
        )
        .await;
    }
    Ok(())
}

/// An event is an aid: without it everything goes on.
async fn event(context: &Context, cluster: &CodisCluster, kind: EventKind, reason: &str, action: &str, note: &str) {
    if let Err(error) = context.cluster.event(cluster, kind, reason, action, note).await {
        tracing::warn!(cluster = cluster.name_any(), %error, "an event was lost");
    }
}

/// What a step may need: everything that this pass knows.
struct Turn<'a> {
    /// The cluster as the API server has it: an intent that was written in this pass is in it.
    cluster: CodisCluster,
    codis: &'a Codis,
    observed: &'a Observed,
    live: &'a Live,
    facts: Facts,
    addresses: &'a build::Addresses,
    carried: Carried,
}

/// What the status keeps from pass to pass, as it is to be after this one.
#[derive(Clone, Debug, Default)]
struct Carried {
    switchover: Option<SwitchoverStatus>,
    promotion: Option<PromotionStatus>,
    /// A group that was handed over in this pass, and to whom: what was observed is from before.
    handed_over: Option<(GroupId, String)>,
}

impl Carried {
    fn of(cluster: &CodisCluster) -> Self {
        let status = cluster.status.clone().unwrap_or_default();
        Self {
            switchover: status.switchover,
            promotion: status.promotion,
            handed_over: None,
        }
    }

    /// The new master of a group that was handed over in this pass.
    fn master_of(&self, group: GroupId) -> Option<String> {
        let (of, pod) = self.handed_over.as_ref()?;
        (*of == group).then(|| pod.clone())
    }
}
