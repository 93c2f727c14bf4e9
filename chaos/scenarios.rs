//! The scenarios: which fault, on which storage, and what must hold after it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::Api;

use crate::{
    faults::{Fault, Injected, Target, switches},
    invariants::{self as must, Invariant},
    outcome::Outcome,
    report::{Line, Report},
    support::{
        cluster::Cluster,
        health::Snapshot,
        runner::{Story, Told},
        spec::{SESSION, SMALL},
        wait::{secs, wait_for},
        writer::Writer,
    },
};

/// Where the servers keep their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// On PersistentVolumeClaims.
    Volumes,
    /// In the pod: gone with it.
    EmptyDir,
}

/// A scenario.
struct Row {
    name: &'static str,
    fault: Fault,
    on_volumes: &'static [Invariant],
    on_empty_dir: &'static [Invariant],
}

/// Within this the cluster must be healthy again, counted from the fault.
const HEAL_WITHIN: Duration = secs(180);
/// Health that lasts less than this was luck, or a picture of the time before.
const STEADY: Duration = secs(6);
/// Less time than this before the deadline is too little to begin a row.
const ROW_TAKES: u64 = 120;

const PROMOTED: &[Invariant] = &[
    must::a_sentinel_promoted_a_replica,
    must::the_old_master_returned_as_a_replica,
    must::only_the_replication_lag_is_lost,
];
const SHORTLY: &[Invariant] = &[
    must::a_short_absence_changes_no_master,
    must::only_the_tail_of_the_dead_master_is_lost,
];
const UNNOTICED: &[Invariant] = &[must::no_master_changed, must::nothing_is_lost, must::writes_went_on];

/// What proves most comes first: a deadline cuts the end.
const ROWS: [Row; 11] = [
    Row {
        name: "a master, shortly",
        fault: Fault::Kill(Target::Master),
        on_volumes: SHORTLY,
        // An emptied master isn't copied from: its replica is promoted instead.
        on_empty_dir: PROMOTED,
    },
    row("a master, for long", Fault::KillForLong(Target::Master), PROMOTED),
    Row {
        name: "all pods at once",
        fault: Fault::Kill(Target::All),
        on_volumes: &[must::only_unwritten_tails_are_lost],
        on_empty_dir: &[must::the_loss_was_told],
    },
    row("a proxy", Fault::Kill(Target::One("proxy")), UNNOTICED),
    row(
        "the dashboard's process",
        Fault::KillProcess(Target::One("dashboard")),
        UNNOTICED,
    ),
    row("a sentinel", Fault::Kill(Target::One("sentinel")), UNNOTICED),
    row("a replica", Fault::Kill(Target::Replica), UNNOTICED),
    row(
        "a master for long, and the operator",
        Fault::KillForLongWithOperator(Target::Master),
        PROMOTED,
    ),
    row("the dashboard's pod", Fault::Kill(Target::One("dashboard")), UNNOTICED),
    row("a front end", Fault::Kill(Target::One("fe")), UNNOTICED),
    row("a master's process", Fault::KillProcess(Target::Master), SHORTLY),
];

const fn row(name: &'static str, fault: Fault, invariants: &'static [Invariant]) -> Row {
    Row {
        name,
        fault,
        on_volumes: invariants,
        on_empty_dir: invariants,
    }
}

impl Storage {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Volumes => "volumes",
            Self::EmptyDir => "emptyDir",
        }
    }
}

/// Plays all rows on one cluster. `CHAOS_ROW` chooses rows by parts of their names, between commas.
pub async fn run(story: &mut Story<'_>, storage: Storage, report: &mut Report) -> Told {
    let wanted = std::env::var("CHAOS_ROW").unwrap_or_default();
    let rows: Vec<&Row> = ROWS
        .iter()
        .filter(|row| wanted.split(',').any(|part| row.name.contains(part)))
        .collect();
    if past_deadline() {
        skip(story, &rows, "the deadline has passed");
        return Ok(());
    }
    let namespace = story.namespace().await?;
    let cluster = Cluster::new(&namespace, "c");
    story
        .check("a small cluster becomes Ready", make(&cluster, storage))
        .await?;
    for (number, row) in rows.iter().enumerate() {
        if past_deadline() {
            skip(story, &rows[number..], "the deadline has passed");
            break;
        }
        let held = story
            .check(row.name, play(&cluster, row, storage, report))
            .await
            .is_ok();
        // A row that left the cluster ill can't be followed by another one.
        if !held
            && wait_for("health", secs(30), async || Snapshot::healthy(&cluster).await)
                .await
                .is_err()
        {
            skip(story, &rows[number + 1..], "the cluster did not heal");
            break;
        }
    }
    // Whatever happened: no node stays closed.
    story
        .check("every node takes pods again", story.lab.clone().schedulable(true))
        .await
}

async fn make(cluster: &Cluster, storage: Storage) -> Result<()> {
    cluster
        .apply(&SMALL.volumes(storage == Storage::Volumes).cluster(&cluster.name))
        .await?;
    cluster.ready(secs(300)).await?;
    wait_for("a healthy cluster", secs(60), async || {
        Snapshot::healthy(cluster).await.map(drop)
    })
    .await
}

/// Plays one row and holds it against its invariants.
async fn play(cluster: &Cluster, row: &Row, storage: Storage, report: &mut Report) -> Result<()> {
    let before = wait_for("a healthy cluster", secs(60), async || Snapshot::healthy(cluster).await).await?;
    let (told, events) = (switches(cluster, &before).await, events_of(cluster).await?);
    let address = cluster.client_address().await?;
    let run = format!("{}:{}", row.name, unix_seconds());
    let writer = Writer::start(address, SESSION, &before.topology.slots, &run).await?;
    let injected = row.fault.inject(cluster, &before, &told).await;
    let healed = match &injected {
        Ok(injected) => heal(cluster, &before, injected, &writer).await,
        Err(error) => Err(anyhow::anyhow!("the fault could not be done: {error:#}")),
    };
    let written = writer.stop().await?;
    for (error, count) in written.errors.iter().take(6) {
        println!("        {count} × {error}");
    }
    let mut line = Line {
        name: row.name.to_owned(),
        storage: storage.name(),
        healed: healed.as_ref().ok().map(|(after, _)| *after),
        gap: written.longest_gap,
        acknowledged: written.acknowledged.len(),
        failed: written.failed,
        unknown: written.unknown,
        lost: 0,
        passed: false,
    };
    let (Ok(injected), Ok((_, after))) = (injected, &healed) else {
        report.add(line);
        return healed.map(drop);
    };
    let lost = written.read_back(address, SESSION).await?;
    line.lost = lost.len();
    let outcome = Outcome {
        switches: switches(cluster, &before).await.difference(&told).cloned().collect(),
        events: events_of(cluster).await?.difference(&events).cloned().collect(),
        after: after.clone(),
        before,
        at: injected.at,
        dead: injected.dead,
        killed: injected.killed,
        away: injected.away,
        written,
        lost,
    };
    let verdict = judge(&outcome, row, storage);
    line.passed = verdict.is_ok();
    report.add(line);
    verdict
}

fn judge(outcome: &Outcome, row: &Row, storage: Storage) -> Result<()> {
    let own = match storage {
        Storage::Volumes => row.on_volumes,
        Storage::EmptyDir => row.on_empty_dir,
    };
    let common: [Invariant; 1] = [must::addresses_and_slots_stayed];
    let broken = common
        .iter()
        .chain(own)
        .filter_map(|invariant| invariant(outcome).err());
    let broken: Vec<String> = broken.map(|error| format!("{error:#}")).collect();
    ensure!(broken.is_empty(), "{}", broken.join("; "));
    Ok(())
}

/// Waits until the killed pods are replaced, the cluster is healthy and all groups take writes, and stays so.
async fn heal(
    cluster: &Cluster,
    before: &Snapshot,
    injected: &Injected,
    writer: &Writer,
) -> Result<(Duration, Snapshot)> {
    let limit = HEAL_WITHIN.saturating_sub(injected.at.elapsed());
    let mut since: Option<Instant> = None;
    wait_for("the cluster to heal", limit, async || {
        let looked = Instant::now();
        let looked_well = async {
            let now = Snapshot::healthy(cluster).await?;
            replaced(before, &now, &injected.killed)?;
            writer.all_since(looked.checked_sub(secs(2)).unwrap_or(looked).max(injected.at))?;
            Ok(now)
        };
        match looked_well.await {
            Ok(now) => {
                let well_since = *since.get_or_insert(looked);
                ensure!(well_since.elapsed() >= STEADY, "healthy, but not for long");
                Ok((well_since - injected.at, now))
            }
            Err(error) => {
                since = None;
                Err(error)
            }
        }
    })
    .await
}

/// Whether every killed pod, or the container in it, is another one: the fault really happened, and is over.
fn replaced(before: &Snapshot, now: &Snapshot, killed: &BTreeSet<String>) -> Result<()> {
    for name in killed {
        let container = |snapshot: &Snapshot| snapshot.pods.get(name).map(|pod| pod.container.clone());
        ensure!(
            container(before) != container(now),
            "{name} is as it was before the kill"
        );
    }
    Ok(())
}

/// Events on the custom resource, each with its version, so that one more of the same is another one.
async fn events_of(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let api = Api::<Event>::namespaced(cluster.lab().client.clone(), &cluster.namespace.name);
    let events = api
        .list(&Default::default())
        .await
        .context("the events")?
        .items
        .into_iter();
    let ours = events.filter(|event| event.involved_object.kind.as_deref() == Some("CodisCluster"));
    let told = ours.map(|event| {
        let version = event.metadata.resource_version.unwrap_or_default();
        format!(
            "{}: {} [{version}]",
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default()
        )
    });
    Ok(told.collect())
}

fn skip(story: &mut Story<'_>, rows: &[&Row], why: &str) {
    for row in rows {
        story.skip(row.name, why);
    }
}

fn past_deadline() -> bool {
    let deadline = std::env::var("CHAOS_DEADLINE_EPOCH")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    deadline.is_some_and(|deadline| unix_seconds() + ROW_TAKES > deadline)
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
