//! Figures: what the operator itself takes.

use anyhow::{Result, ensure};
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
    let usages = wait_for("the operator's usage", secs(120), async || {
        let all: Value = serde_json::from_str(&cluster.lab().raw(&path).await?)?;
        let pods = all["items"].as_array().cloned().unwrap_or_default();
        ensure!(!pods.is_empty(), "the metrics server has no figures of it yet");
        Ok(pods)
    })
    .await?;
    for pod in usages {
        let usage = &pod["containers"][0]["usage"];
        let number = |key: &str, unit: &str| usage[key].as_str()?.strip_suffix(unit)?.parse::<u64>().ok();
        let name = pod["metadata"]["name"].as_str().unwrap_or("?");
        match (number("memory", "Ki"), number("cpu", "n")) {
            (Some(memory), Some(cpu)) => {
                println!("        {name}: {} MiB, {} millicores", memory / 1024, cpu / 1_000_000)
            }
            _ => println!("        {name}: {usage}"),
        }
    }
    Ok(())
}
