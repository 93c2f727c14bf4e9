//! Leader election over a real Lease.

use std::time::Duration;

use codis_operator::{
    api::{CodisCluster, CodisClusterStatus},
    cluster::{Candidate, Cluster, Election, Error, Timing, WriteGate},
    telemetry::Effects,
};
use k8s_openapi::api::coordination::v1::Lease;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{support::apiserver::User, world::World};

/// Short, but long enough for a loaded machine to renew in time.
const TIMING: Timing = Timing {
    duration: Duration::from_secs(4),
    renew_deadline: Duration::from_secs(3),
    retry: Duration::from_millis(300),
};

const LIMIT: Duration = Duration::from_secs(30);

struct Running {
    gate: WriteGate,
    leading: watch::Receiver<bool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn run(world: &World, identity: &str) -> Running {
    let candidate = Candidate {
        namespace: world.namespace.clone(),
        lease: "codis-operator".into(),
        identity: identity.into(),
    };
    let (election, gate, leading) =
        Election::new(world.server.client(User::Operator), candidate, TIMING, Effects::none());
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(election.run(async {
        stopped.await.ok();
    }));
    Running {
        gate,
        leading,
        stop,
        task,
    }
}

impl Running {
    async fn becomes(&mut self, leading: bool) {
        timeout(LIMIT, self.leading.wait_for(|now| *now == leading))
            .await
            .expect("in time")
            .expect("it runs");
    }
}

fn status(phase: &str) -> CodisClusterStatus {
    CodisClusterStatus {
        phase: Some(phase.into()),
        ..CodisClusterStatus::default()
    }
}

async fn write(world: &World, gate: &WriteGate, cluster: &CodisCluster, phase: &str) -> Result<bool, Error> {
    let door = Cluster::new(
        world.server.client(User::Operator),
        gate.clone(),
        Effects::none(),
        "test",
    );
    door.patch_status(cluster, &status(phase)).await
}

#[tokio::test]
async fn of_two_candidates_one_leads_and_only_its_writes_pass() {
    let Some(world) = World::new().await else { return };
    let cluster = world.cluster("gated").await;
    let mut first = run(&world, "first");
    first.becomes(true).await;
    let second = run(&world, "second");
    // The second looks at least twice while the first leads.
    let looked = || {
        let requests = world.server.requests(User::Operator, &world.namespace);
        requests
            .iter()
            .filter(|r| r.resource == "leases" && r.verb == "get")
            .count()
    };
    let before = looked();
    timeout(LIMIT, async {
        while looked() < before + 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the second looks");
    assert!(*first.leading.borrow() && !*second.leading.borrow());
    assert_eq!(
        write(&world, &second.gate, &cluster, "Second").await,
        Err(Error::NotLeader)
    );
    assert_eq!(write(&world, &first.gate, &cluster, "First").await, Ok(true));
    let writes = world.writes();
    assert_eq!(
        writes
            .iter()
            .filter(|write| write.resource == "codisclusters/status")
            .count(),
        1,
        "{writes:?}"
    );
}

#[tokio::test]
async fn a_leader_that_dies_is_followed_after_its_lease_expired() {
    let Some(world) = World::new().await else { return };
    let cluster = world.cluster("deposed").await;
    let mut first = run(&world, "first");
    first.becomes(true).await;
    let mut second = run(&world, "second");
    // As dead as a killed process: nothing is given back.
    first.task.abort();
    let died = Instant::now();
    second.becomes(true).await;
    let took = died.elapsed();
    assert!(
        took >= TIMING.duration - TIMING.retry * 2,
        "{took:?}: the last renewal was {:?} ago at most",
        TIMING.retry
    );
    assert_eq!(
        write(&world, &first.gate, &cluster, "Deposed").await,
        Err(Error::NotLeader)
    );
    assert_eq!(write(&world, &second.gate, &cluster, "Leading").await, Ok(true));
    let lease = world.api::<Lease>().get("codis-operator").await.unwrap().spec.unwrap();
    assert_eq!(
        (lease.holder_identity.as_deref(), lease.lease_transitions),
        (Some("second"), Some(1))
    );
}

#[tokio::test]
async fn a_leader_whose_lease_was_taken_steps_down_at_its_next_renewal() {
    let Some(world) = World::new().await else { return };
    let mut first = run(&world, "first");
    first.becomes(true).await;
    let taken = serde_json::json!({ "spec": { "holderIdentity": "somebody", "leaseDurationSeconds": 3600 } });
    let patch = kube::api::Patch::Merge(taken);
    world
        .api::<Lease>()
        .patch("codis-operator", &kube::api::PatchParams::default(), &patch)
        .await
        .unwrap();
    first.becomes(false).await;
    assert!(!first.gate.is_open());
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_at_once() {
    let Some(world) = World::new().await else { return };
    let mut first = run(&world, "first");
    first.becomes(true).await;
    let mut second = run(&world, "second");
    let asked = Instant::now();
    first.stop.send(()).unwrap();
    timeout(LIMIT, first.task).await.expect("in time").expect("no panic");
    assert!(!first.gate.is_open());
    second.becomes(true).await;
    assert!(
        asked.elapsed() < TIMING.duration - TIMING.retry * 2,
        "{:?}: it waited for the expiry",
        asked.elapsed()
    );
}

#[tokio::test]
async fn a_leader_that_cannot_renew_stops_writing_before_its_lease_expires() {
    let Some(world) = World::new().await else { return };
    let allowed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let network = allowed.clone();
    let effects = Effects::new(move |_, _| {
        let up = network.load(std::sync::atomic::Ordering::SeqCst);
        if up {
            Ok(())
        } else {
            Err("the network is down".to_owned())
        }
    });
    let candidate = Candidate {
        namespace: world.namespace.clone(),
        lease: "codis-operator".into(),
        identity: "cut-off".into(),
    };
    let (election, gate, mut leading) = Election::new(world.server.client(User::Operator), candidate, TIMING, effects);
    let task = tokio::spawn(election.run(std::future::pending()));
    timeout(LIMIT, leading.wait_for(|leading| *leading))
        .await
        .expect("in time")
        .expect("it runs");
    allowed.store(false, std::sync::atomic::Ordering::SeqCst);
    let cut = Instant::now();
    timeout(LIMIT, leading.wait_for(|leading| !*leading))
        .await
        .expect("in time")
        .expect("it runs");
    assert!(
        cut.elapsed() <= TIMING.duration && !gate.is_open(),
        "{:?}",
        cut.elapsed()
    );
    allowed.store(true, std::sync::atomic::Ordering::SeqCst);
    timeout(LIMIT, leading.wait_for(|leading| *leading))
        .await
        .expect("it leads again")
        .expect("it runs");
    assert!(gate.is_open());
    task.abort();
}
