//! The operator killed at every single effect of an operation: before it, after it, and while it is under way.

use std::{
    collections::BTreeMap,
    fmt,
    net::Ipv4Addr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    invariants::Watch,
    operator::Moment,
    scenario::Wish,
    threads::{in_virtual_time, on_a_deep_stack, on_threads},
    world::{CLUSTER, NAMESPACE, Plan, World},
};

/// An operation is over within this, crash or not.
const WITHIN: Duration = Duration::from_secs(600);
/// Then nothing is sent for so long.
const QUIET: Duration = Duration::from_secs(12);
const LOOK: Duration = Duration::from_millis(500);

/// Something that a person asks for, and that takes many effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A new cluster.
    Create,
    /// The cluster goes.
    Delete,
    /// One group becomes two.
    ScaleOut,
    /// Two groups become one.
    ScaleIn,
    /// Another master.
    Switchover,
    /// All servers are replaced.
    Roll,
    /// Another password of the clients.
    Rotate,
    /// All pods go, and come back.
    Hibernate,
    /// A commit that changes the cluster and adds another one.
    Sync,
    /// A commit without a cluster that exists: it is held, and nothing is deleted.
    Prune,
}

/// All of them.
pub const OPERATIONS: [Operation; 10] = [
    Operation::Create,
    Operation::Delete,
    Operation::ScaleOut,
    Operation::ScaleIn,
    Operation::Switchover,
    Operation::Roll,
    Operation::Rotate,
    Operation::Hibernate,
    Operation::Sync,
    Operation::Prune,
];

/// What crashes at every effect of an operation came to.
#[derive(Clone, Debug, Default)]
pub struct Crashed {
    /// Effects of the operation without a crash.
    pub effects: usize,
    /// Points that were tried.
    pub points: usize,
    /// Crashes that happened: an effect may be there no more when it is asked for.
    pub happened: usize,
    /// What didn't end as without a crash: where, and how.
    pub failed: Vec<(String, String)>,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::ScaleOut => "scale out",
            Self::ScaleIn => "scale in",
            Self::Switchover => "switchover",
            Self::Roll => "rolling change",
            Self::Rotate => "password rotation",
            Self::Hibernate => "hibernate",
            Self::Sync => "Git sync",
            Self::Prune => "prune",
        })
    }
}

impl Operation {
    fn wishes(self) -> &'static [Wish] {
        match self {
            Self::Create | Self::Sync | Self::Prune => &[],
            Self::Delete => &[Wish::Delete],
            Self::ScaleOut => &[Wish::Groups(2)],
            Self::ScaleIn => &[Wish::Groups(1)],
            Self::Switchover => &[Wish::Switchover(1)],
            Self::Roll => &[Wish::Roll(1)],
            Self::Rotate => &[Wish::Rotate],
            Self::Hibernate => &[Wish::Hibernate(true), Wish::Hibernate(false)],
        }
    }

    fn plan(self) -> Plan {
        Plan {
            seed: 1,
            on_volumes: true,
            groups: if self == Self::ScaleIn { 2 } else { 1 },
            replicas: 2,
            rivals: false,
            skew: 0,
            outside: false,
            from_git: matches!(self, Self::Sync | Self::Prune),
            bug: None,
        }
    }
}

/// Kills the operator at the effects of an operation, in a world of its own each, on `threads` threads: at every single one,
/// or, of many equal ones in a row (the moves of slots), at the first, the middle and the last ones only.
///
/// # Errors
/// When the operation fails without any crash, or a world can't be made.
pub fn crash_everywhere(operation: Operation, every: bool, threads: usize) -> Result<Crashed> {
    let calm = on_a_deep_stack(|| play(operation, None))?;
    let points: Vec<(usize, Moment)> = chosen(&calm.names, every)
        .into_iter()
        .flat_map(|number| [Moment::Before, Moment::After, Moment::Lost].map(|moment| (number, moment)))
        .collect();
    let (next, crashed) = (AtomicUsize::new(0), Mutex::new(Crashed::default()));
    on_threads(threads, || {
        while let Some((number, moment)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ended = play(operation, Some((*number, *moment)));
            let mut crashed = crashed.lock().unwrap_or_else(PoisonError::into_inner);
            crashed.points += 1;
            let what = match ended {
                Ok(ended) if ended.state == calm.state => {
                    crashed.happened += usize::from(ended.crashed);
                    continue;
                }
                Ok(ended) => difference(&calm.state, &ended.state),
                Err(error) => format!("{error:#}"),
            };
            let effect = calm.names.get(*number).copied().unwrap_or_default();
            crashed
                .failed
                .push((format!("{moment:?} effect {number} ({effect})"), what));
        }
        Ok(())
    })?;
    let mut crashed = crashed.into_inner().unwrap_or_else(PoisonError::into_inner);
    crashed.effects = calm.effects;
    crashed.failed.sort();
    Ok(crashed)
}

/// Which effects are crashed at.
fn chosen(names: &[&'static str], every: bool) -> Vec<usize> {
    let mut chosen = Vec::new();
    let mut first = 0;
    while first < names.len() {
        let row = names[first..].iter().take_while(|name| **name == names[first]).count();
        let is_near = |index: usize| index < 2 || index.abs_diff(row / 2) < 1 || row - index <= 2;
        chosen.extend(
            (0..row)
                .filter(|index| every || row <= 6 || is_near(*index))
                .map(|index| first + index),
        );
        first += row;
    }
    chosen
}

/// How an operation ended.
struct Ended {
    effects: usize,
    names: Vec<&'static str>,
    state: BTreeMap<String, String>,
    crashed: bool,
}

fn play(operation: Operation, crash: Option<(usize, Moment)>) -> Result<Ended> {
    in_virtual_time(async {
        let world = World::new(operation.plan()).await?;
        let mut play = Play {
            world,
            watch: Watch::default(),
            has_servers: !matches!(operation, Operation::Delete | Operation::Hibernate),
        };
        play.all(operation, crash).await.map_err(anyhow::Error::msg)
    })
}

struct Play {
    world: World,
    watch: Watch,
    /// Nobody wants servers away.
    has_servers: bool,
}

impl Play {
    async fn all(&mut self, operation: Operation, crash: Option<(usize, Moment)>) -> Result<Ended, String> {
        let hook = self.world.operator.hook();
        if operation != Operation::Create {
            self.until(World::ready).await?;
            if operation == Operation::Prune {
                // What is to leave the repository has to be in it.
                self.push(World::push_much).await?;
            }
            self.world.client(Duration::from_millis(300));
            // Nothing of the making of it is left to do.
            self.quiet(operation).await?;
        }
        let first = hook.sent();
        if let Some((number, moment)) = crash {
            hook.crash_at(first + number, moment);
        }
        let deaths = self.world.operator.deaths();
        for wish in operation.wishes() {
            self.ask(*wish).await?;
            let wish = *wish;
            self.until(|world| is_done(world, wish)).await?;
        }
        match operation {
            Operation::Sync => self.push(World::push_much).await?,
            Operation::Prune => self.push(World::push_removal).await?,
            _ => (),
        }
        self.until(|world| {
            if operation == Operation::Delete {
                Ok(())
            } else {
                world.ready()
            }
        })
        .await?;
        self.quiet(operation).await?;
        let sent = hook.names();
        let ended = Ended {
            effects: sent.len() - first,
            names: sent[first..].to_vec(),
            state: state(&self.world),
            crashed: self.world.operator.deaths() > deaths,
        };
        if !matches!(operation, Operation::Delete | Operation::Rotate) {
            self.read_back().await?;
        }
        match self.watch.violations().first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(ended),
        }
    }

    async fn ask(&mut self, wish: Wish) -> Result<(), String> {
        if wish == Wish::Delete {
            self.world.api.delete("CodisCluster", NAMESPACE, CLUSTER, json!({}));
            return Ok(());
        }
        let patch = wish.patch(&self.world.plan);
        self.world
            .wish(patch)
            .await
            .map_err(|error| format!("{wish:?}: {error:#}"))
    }

    async fn push(&mut self, push: impl Fn(&World) -> Result<()>) -> Result<(), String> {
        push(&self.world).map_err(|error| error.to_string())?;
        self.until(World::ready).await
    }

    async fn until(&mut self, is_so: impl Fn(&World) -> Result<(), String>) -> Result<(), String> {
        let end = Instant::now() + WITHIN;
        loop {
            let said = is_so(&self.world);
            if said.is_ok() {
                return said;
            }
            if Instant::now() >= end {
                return said.map_err(|said| format!("not within {} s: {said}", WITHIN.as_secs()));
            }
            self.pass().await;
        }
    }

    async fn pass(&mut self) {
        self.watch.look(&self.world, self.has_servers);
        self.world.run_until(Instant::now() + LOOK).await;
    }

    /// Waits until nothing is sent any more, and is still done then.
    async fn quiet(&mut self, operation: Operation) -> Result<(), String> {
        let hook = self.world.operator.hook();
        let (mut sent, mut since, began) = (hook.sent(), Instant::now(), Instant::now());
        while since.elapsed() < QUIET || !self.world.operator.is_up() {
            if began.elapsed() > WITHIN {
                return Err(format!("never quiet: {:?}", hook.names().last()));
            }
            self.pass().await;
            if hook.sent() != sent {
                (sent, since) = (hook.sent(), Instant::now());
            }
        }
        if operation == Operation::Delete && self.world.cluster().is_none() {
            return Ok(());
        }
        self.world.ready()
    }

    async fn read_back(&mut self) -> Result<(), String> {
        self.world.ledger.close();
        let (way, writes) = (self.world.way(), self.world.ledger.acknowledged());
        let reading = way.missing(Ipv4Addr::new(10, 246, 1, 1), writes);
        let missing = self.world.during(reading).await?;
        match missing.first() {
            Some(lost) => Err(format!(
                "{} acknowledged writes are lost, {} first",
                missing.len(),
                lost.key
            )),
            None => Ok(()),
        }
    }
}

fn is_done(world: &World, wish: Wish) -> Result<(), String> {
    let none = Value::Null;
    let cluster = world.cluster();
    let status = cluster.as_ref().map_or(&none, |cluster| &cluster["status"]);
    let holds = match wish {
        Wish::Delete => cluster.is_none() && world.pods.all().is_empty(),
        Wish::Hibernate(true) => status["phase"] == "Hibernating" && world.pods.all().is_empty(),
        Wish::Switchover(_) => status["promotion"]["outcome"] == "Done",
        _ => return world.ready(),
    };
    if holds {
        Ok(())
    } else {
        Err(format!("{wish:?}: {} {}", status["phase"], status["message"]))
    }
}

/// What is the same however often somebody began anew: objects, specs of workloads, the shape of the topology.
fn state(world: &World) -> BTreeMap<String, String> {
    const PASSING: [&str; 6] = ["Pod", "ReplicaSet", "Event", "EndpointSlice", "Node", "Lease"];
    let mut state = world.state_of_git();
    for object in world.api.snapshot() {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if PASSING.contains(&kind.as_str()) {
            continue;
        }
        let is_workload = matches!(kind.as_str(), "StatefulSet" | "Deployment");
        let spec = if is_workload {
            object["spec"].to_string()
        } else {
            String::new()
        };
        // A volume's name is made of its claim's uid.
        if kind != "PersistentVolume" {
            state.insert(format!("{kind} {}", object["metadata"]["name"]), spec);
        }
    }
    for (_, dashboard) in world.pods_like("-dashboard-") {
        let Some(view) = dashboard.serves.as_dashboard() else {
            continue;
        };
        for group in view.groups().unwrap_or_default() {
            let slots = view.slot_owners().unwrap_or_default();
            let slots = slots.iter().filter(|owner| **owner == group.id).count();
            let shape = format!("{} servers, {slots} slots, {}", group.servers.len(), group.out_of_sync);
            state.insert(format!("group {}", group.id), shape);
        }
    }
    state
}

fn difference(calm: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> String {
    let keys: std::collections::BTreeSet<&String> = calm.keys().chain(other.keys()).collect();
    let differ = keys.into_iter().filter(|key| calm.get(*key) != other.get(*key));
    let told: Vec<String> = differ
        .take(3)
        .map(|key| format!("{key}: {:?} instead of {:?}", other.get(key), calm.get(key)))
        .collect();
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_equal_effects_in_a_row_the_ends_and_the_middle_are_chosen() {
        let mut names = vec!["a", "b"];
        names.extend(["move"; 9]);
        names.push("c");
        assert_eq!(chosen(&names, false), [0, 1, 2, 3, 6, 9, 10, 11]);
        assert_eq!(chosen(&names, true).len(), names.len());
    }
}
