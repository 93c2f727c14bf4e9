//! Figures: what the operator itself takes.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::support::{
    cluster::Cluster,
    lab::OPERATOR_NAMESPACE,
    runner::{Story, Told},
    wait::{secs, wait_for},
};

/// Prints what the operator takes.
pub async fn checks(story: &mut Story<'_>, cluster: &Cluster) {
    let _: Told = story
        .check("the operator's memory and CPU can be told", print_usage(cluster))
        .await;
}

async fn print_usage(cluster: &Cluster) -> Result<()> {
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{OPERATOR_NAMESPACE}/pods");
    // The metrics server looks every 15 to 60 seconds.
    let usage = wait_for("the operator's usage", secs(120), async || {
        let all: Value = serde_json::from_str(&cluster.lab().raw(&path).await?)?;
        let container = all.pointer("/items/0/containers/0/usage").cloned();
        container.context("the metrics server has no figures of it yet")
    })
    .await?;
    let memory_mib = usage["memory"]
        .as_str()
        .and_then(|text| text.strip_suffix("Ki")?.parse::<u64>().ok());
    let cpu_milli = usage["cpu"]
        .as_str()
        .and_then(|text| text.strip_suffix('n')?.parse::<u64>().ok());
    match (memory_mib, cpu_milli) {
        (Some(memory), Some(cpu)) => {
            println!(
                "        operator: {} MiB, {} millicores",
                memory / 1024,
                cpu / 1_000_000
            );
        }
        _ => println!("        operator: {usage}"),
    }
    Ok(())
}
