//! The end-to-end suite: the operator on a real Kubernetes cluster, over the stand-in for Codis.
//!
//! Stories run one after another, each in namespaces of its own: two cores carry one Codis cluster well, not five.
//! `make e2e ONLY=sample-1` runs those whose name has that in it; `CODIS_E2E_KEEP=1` keeps their namespaces.

mod bad_input;
mod figures;
mod foreign;
mod gitops;
mod idle;
mod losses;
mod serving;
mod support;
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
    runner
        .story("bad input is refused by the API server", bad_input::story)
        .await;
    runner.story("what isn't ours is never touched", foreign::story).await;
    runner.story("sample-1, unchanged", sample_1).await;
    runner
        .story("sample-1 with volumes, in bad company", volumes::story)
        .await;
    runner.story("gitops: from a commit to a cluster", gitops::story).await;
    runner
        .story("losses that are a person's to decide", losses::story)
        .await;
    Ok(runner.finish())
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
