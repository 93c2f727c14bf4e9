//! Signals and wires, from the node that a pod is on: what no API of Kubernetes can do to a process.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::{health::PodView, lab::run};

/// Signals the main process of each pod's container; no handler of the container's runs for SIGKILL.
pub async fn signal(pods: impl IntoIterator<Item = &PodView>, name: &str) -> Result<()> {
    let mut by_node: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for pod in pods.into_iter().filter(|pod| !pod.container.is_empty()) {
        by_node.entry(&pod.node).or_default().push(&pod.container);
    }
    let kills = by_node.into_iter().map(|(node, containers)| {
        let kill = "signal=$1; shift; for id in \"$@\"; do ctr --namespace k8s.io task kill --signal \"$signal\" \"$id\" & done; wait";
        let mut command = Command::new("docker");
        command.args(["exec", node, "sh", "-c", kill, "kill", name]).args(containers);
        run(command)
    });
    futures::future::try_join_all(kills).await.map(drop)
}

/// Runs a shell command on a node.
pub async fn on_node(node: &str, script: &str) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(["exec", node, "sh", "-c", script]);
    run(command).await
}

/// Cuts a pod off the network, or connects it again. Its processes go on, and only the kubelet beside it reaches them,
/// whose probes would start them anew otherwise.
pub async fn connected(pod: &PodView, connected: bool) -> Result<()> {
    ensure!(!pod.ip.is_empty(), "the pod has no address");
    let verb = if connected { "-D" } else { "-I" };
    // The network is found by the address: containers may come and go in it.
    let script = format!(
        "for net in /var/run/netns/*; do \
           nsenter --net=$net ip -4 address show eth0 2>/dev/null | grep -qF 'inet {}/' || continue; \
           gateway=$(nsenter --net=$net ip route | awk '/^default/ {{ print $3 }}'); \
           nsenter --net=$net iptables {verb} INPUT -i eth0 ! -s $gateway -j DROP && \
           nsenter --net=$net iptables {verb} OUTPUT -o eth0 ! -d $gateway -j DROP && exit 0; \
         done; exit 1",
        pod.ip
    );
    let done = on_node(&pod.node, &script).await;
    done.map(drop).context("iptables in the pod's network")
}

/// How many processes of a node have this in their command line. (Zombies have none.)
pub async fn count(node: &str, part: &str) -> Result<usize> {
    // The search itself must not be counted: grep has the part in its own command line.
    let script = "for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <\"$file\" 2>/dev/null; echo; done | grep -v -e '^sh -c' -e '^grep ' | grep -cF -- \"$part\" || true";
    let mut command = Command::new("docker");
    command.args(["exec", "-e", &format!("part={part}"), node, "sh", "-c", script]);
    Ok(run(command).await?.trim().parse()?)
}
