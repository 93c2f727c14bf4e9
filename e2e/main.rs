//! The end-to-end suite: the operator on a real Kubernetes cluster, over the stand-in for Codis.
//!
//! Stories run one after another, each in namespaces of its own: two cores carry one Codis cluster well, not five.
//! `make e2e TEST=switchovers` runs those whose name has that in it; `CODIS_E2E_KEEP=1` keeps their namespaces.
//! What proves most comes first, what harms the lab most comes last: `E2E_DEADLINE_EPOCH` cuts the end, loudly.
//! `CODIS_E2E_TIMES` says how often something is repeated; the issue asks for 30 switchovers and 20 kills.

mod bad_input;
mod coordinators;
mod counts;
mod crash;
mod dashboards;
mod deeds;
mod drain;
mod emptied;
mod fields;
mod figures;
mod foreign;
mod gitops;
mod idle;
mod losses;
mod masters;
mod node_lost;
mod restore;
mod roll;
mod scale;
mod sentinels;
mod serving;
mod sizes;
mod support;
mod switchovers;
mod takeover;
mod teardown;
mod volumes;

use std::process::ExitCode;

use anyhow::Result;
use support::{
    cluster::Cluster,
    runner::{Runner, Story, Told},
    spec::sample,
    wait::secs,
};

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut runner = Runner::new("e2e").await?;
    of_a_cluster(&mut runner).await;
    of_changes(&mut runner).await;
    of_faults(&mut runner).await;
    Ok(runner.finish())
}

/// That there is one, and what it refuses.
async fn of_a_cluster(runner: &mut Runner) {
    runner
        .story_of(1, "bad-input: refused by the API server", bad_input::story)
        .await;
    runner
        .story_of(2, "foreign: what isn't ours is never touched", foreign::story)
        .await;
    runner.story_of(3, "sample-1: unchanged, idle", sample_1).await;
    runner
        .story_of(3, "ledger: the suite's own count notices what is lost", counts::story)
        .await;
}

/// Changes that a person asks for.
async fn of_changes(runner: &mut Runner) {
    runner
        .story_of(6, "switchovers: by request, under clients", switchovers::story)
        .await;
    runner
        .story_of(6, "roll: another image, a bad one, and back", roll::story)
        .await;
    runner.story_of(8, "drain: every node in turn", drain::story).await;
    runner
        .story_of(4, "scale: groups come and go, slots move", scale::story)
        .await;
    runner
        .story_of(
            5,
            "takeover: what the predecessor deployed, its topology in its own files",
            takeover::on_its_own_files,
        )
        .await;
    runner
        .story_of(
            6,
            "takeover: what the predecessor deployed, on etcd and volumes",
            takeover::on_etcd,
        )
        .await;
    runner.story_of(3, "coordinators: on etcd", coordinators::on_etcd).await;
    runner
        .story_of(3, "coordinators: on zookeeper", coordinators::on_zookeeper)
        .await;
}

/// What breaks.
async fn of_faults(runner: &mut Runner) {
    runner
        .story_of(5, "sentinels: away, cut off, forgetful, restarted", sentinels::story)
        .await;
    runner
        .story_of(8, "emptied: a master without data is never copied from", emptied::story)
        .await;
    runner
        .story_of(5, "masters: gone, killed, on a lost node", masters::story)
        .await;
    runner
        .story_of(12, "crash: the operator dies in a switchover", crash::story)
        .await;
    runner
        .story_of(4, "dashboard: killed, and never two", dashboards::story)
        .await;
    runner
        .story_of(4, "hibernate: without a pod, and awake again", sizes::hibernate)
        .await;
    runner
        .story_of(5, "size: groups of two, of three, of two", sizes::group_size)
        .await;
    runner
        .story_of(4, "volumes: sample-1 with volumes, in bad company", volumes::story)
        .await;
    runner
        .story_of(
            4,
            "restore: a lost topology, taken addresses, old volumes",
            restore::story,
        )
        .await;
    runner.story_of(4, "losses: a person's to decide", losses::story).await;
    runner
        .story_of(8, "gitops: from a commit to a cluster", gitops::story)
        .await;
    runner
        .story_of(4, "node-lost: removed for good", node_lost::story)
        .await;
    runner
        .story_of(8, "fields: each of the spec, and back", fields::story)
        .await;
}

async fn sample_1(story: &mut Story<'_>) -> Told {
    let namespace = story.namespace().await?;
    let cluster = Cluster::new(&namespace, "sample");
    story
        .check("it is admitted", async {
            namespace.kubectl(&["apply", "-f", &sample(1)]).await
        })
        .await?;
    let took = story.check("it becomes Ready", cluster.ready(secs(300))).await?;
    println!("        kubectl apply → Ready: {:.1} s", took.as_secs_f64());
    serving::checks(story, &cluster).await?;
    figures::checks(story, &cluster).await;
    let _: Told = story
        .check(
            "nothing is written while nothing changes",
            idle::writes_nothing(&cluster),
        )
        .await;
    teardown::checks(story, &cluster).await
}
