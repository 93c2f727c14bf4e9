//! The operator dies at every single effect of an operation on a real API server: before it, after it, when the answer is on
//! its way; or only the answer is lost. The next process knows nothing, and goes on until nothing more is written. What exists
//! then is what exists without a death.
//!
//! There are no controllers and no kubelets on this API server: what they have to do with an operation the steps do
//! (`operations`), and what needs pods that run, everything at Codis, is the simulation's part (`src/simulation/crash.rs`):
//! switchovers, slots that move, groups that leave, the roll of servers.

mod from_git;
mod operations;
mod operator;
mod state;

use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::future::join_all;
use kube::Client;

use self::{
    operations::{Operation, Step},
    operator::{Done, Hook, MOMENTS, Moment, Process},
    state::{State, collect, difference, state},
};
use crate::{
    support::apiserver::{ApiServer, User, server},
    world::World,
};

/// More passes than any operation needs.
const PASSES: usize = 40;
/// Namespaces in which one operation is tried at the same time.
const SIDE_BY_SIDE: usize = 2;

/// A namespace with an operator.
struct Stage {
    world: World,
    client: Client,
    hook: Hook,
    process: Process,
}

impl Stage {
    async fn new(server: &'static ApiServer) -> Self {
        let (hook, client) = (Hook::default(), server.client(User::Operator));
        Self {
            world: World::of(server, server.namespace().await),
            process: Process::start(client.clone(), &hook),
            client,
            hook,
        }
    }

    /// Makes what is there before an operation.
    async fn prepare(&mut self, operation: &Operation) -> Result<(), String> {
        self.play(&operation.before).await?;
        if operation.is_round {
            // The first round may leave something that the others find.
            self.play(&operation.steps).await?;
        }
        Ok(())
    }

    /// Has the steps done. What exists after each.
    async fn play(&mut self, steps: &[Vec<Step>]) -> Result<Vec<State>, String> {
        let mut states = Vec::new();
        for at_once in steps {
            for step in at_once {
                step.take(&self.world).await;
            }
            self.settle().await?;
            states.push(state(&self.world).await);
        }
        Ok(states)
    }

    /// Works until nothing is written any more; where somebody died, not by who knows nothing either.
    async fn settle(&mut self) -> Result<(), String> {
        let (mut is_quiet, mut died, mut last) = (false, false, String::new());
        for _ in 0..PASSES {
            let sent = self.hook.sent();
            let done = self.process.pass(&self.world.namespace, "c").await;
            match &done {
                Done::Ended(Ok(_)) if self.hook.sent() == sent && (is_quiet || !died) => return Ok(()),
                Done::Ended(Ok(_)) => is_quiet = self.hook.sent() == sent,
                Done::Ended(Err(error)) => (is_quiet, died, last) = (false, true, error.to_string()),
                Done::Died => (is_quiet, died) = (false, true),
            }
            if is_quiet || matches!(done, Done::Died) {
                self.process = Process::start(self.client.clone(), &self.hook);
            }
        }
        let names = self.hook.names_since(self.hook.sent().saturating_sub(5));
        Err(format!("never quiet: {names:?} {last}"))
    }
}

/// What crashes at every effect of an operation came to.
struct Outcome {
    points: usize,
    failed: Vec<String>,
}

impl Outcome {
    /// Tells it, and insists on it.
    fn tell(&self, name: &str, at_least: usize) {
        let good = self.points - self.failed.len();
        // Not eprintln!, which the test runner swallows.
        writeln!(
            io::stderr(),
            "{name}: {good} of {} crashes end as without one",
            self.points
        )
        .ok();
        assert!(self.failed.is_empty(), "{}", self.failed.join("\n"));
        assert!(self.points >= at_least, "only {} points", self.points);
    }
}

/// Has the operator die at every effect of an operation.
async fn crash_everywhere(operation: Operation, at_least: usize) {
    let Some(server) = server().await else { return };
    let mut stage = Stage::new(server).await;
    stage.prepare(&operation).await.unwrap();
    let first = stage.hook.sent();
    let calm = stage.play(&operation.steps).await.unwrap();
    let names = stage.hook.names_since(first);
    assert_eq!(stage.hook.requests(), stage.hook.sent(), "every write is an effect");

    let ways =
        |number: usize| (0..operation.ways).map(move |way| MOMENTS[(number * operation.ways + way) % MOMENTS.len()]);
    let points: Vec<(usize, Moment)> = (0..names.len())
        .flat_map(|number| ways(number).map(move |moment| (number, moment)))
        .collect();
    let next = AtomicUsize::new(0);
    let worker = async || {
        let (mut failed, mut kept) = (Vec::new(), None);
        while let Some((number, moment)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            match try_one(server, &operation, &calm, (*number, *moment), kept.take()).await {
                Ok(stage) => kept = Some(stage),
                Err(why) => failed.push(format!(
                    "{}: {moment:?} effect {number} ({}): {why}",
                    operation.name, names[*number]
                )),
            }
        }
        failed
    };
    let failed = join_all((0..SIDE_BY_SIDE).map(|_| worker())).await.concat();
    let outcome = Outcome {
        points: points.len(),
        failed,
    };
    outcome.tell(operation.name, at_least);
}

/// Has the operator die at one effect, in a namespace that was used before, if there is one. That namespace.
async fn try_one(
    server: &'static ApiServer,
    operation: &Operation,
    calm: &[State],
    (number, moment): (usize, Moment),
    kept: Option<Stage>,
) -> Result<Stage, String> {
    let mut stage = match kept {
        Some(stage) if operation.is_round => stage,
        Some(mut stage) => {
            collect(&stage.world).await;
            stage.prepare(operation).await?;
            stage
        }
        None => {
            let mut stage = Stage::new(server).await;
            stage.prepare(operation).await?;
            stage
        }
    };
    stage.hook.crash_at(number, moment);
    let states = stage.play(&operation.steps).await?;
    ends_the_same(&stage.hook, calm, &states)?;
    Ok(stage)
}

/// Whether somebody died as planned, and what exists after each step is what exists without a death.
fn ends_the_same(hook: &Hook, calm: &[State], states: &[State]) -> Result<(), String> {
    if hook.is_armed() {
        return Err("there is no such effect".to_owned());
    }
    for (step, (expected, found)) in calm.iter().zip(states).enumerate() {
        if let Some(difference) = difference(expected, found) {
            return Err(format!("after step {step}:\n  {difference}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_on_volumes_comes_the_same_wherever_the_operator_dies() {
    crash_everywhere(operations::creation(), 80).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_with_its_volumes_wherever_the_operator_dies() {
    crash_everywhere(operations::deletion(), 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_in_memory_comes_the_same_wherever_the_operator_dies() {
    crash_everywhere(operations::creation_in_memory(), 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_sentinels_come_the_same_wherever_the_operator_dies() {
    crash_everywhere(operations::growth(), 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_come_and_go_the_same_wherever_the_operator_dies() {
    crash_everywhere(operations::scaling(), 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_comes_and_goes_the_same_wherever_the_operator_dies() {
    crash_everywhere(operations::autoscaling(), 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_and_its_taking_back_end_the_same_wherever_the_operator_dies() {
    crash_everywhere(operations::change(), 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_change_the_same_wherever_the_operator_dies() {
    crash_everywhere(operations::rotation(), 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_sleeps_and_wakes_the_same_wherever_the_operator_dies() {
    crash_everywhere(operations::hibernation(), 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hands_did_is_mended_the_same_wherever_the_operator_dies() {
    crash_everywhere(operations::hands(), 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_grow_the_same_wherever_the_operator_dies() {
    crash_everywhere(operations::larger_volumes(), 4).await;
}
