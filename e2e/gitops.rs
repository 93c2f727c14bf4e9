//! From `git push` to a cluster that is Ready, on a Git server in the cluster; and all that a repository can do wrong.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use codis_git_server::WorkTree;
use codis_operator::api::CodisGitSource;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, ResourceExt, api::ListParams};
use tokio::process::Command;

use crate::support::{
    cluster::Cluster,
    git::{Git, Source},
    lab,
    namespace::Namespace,
    runner::{Story, Told},
    wait::{secs, wait_for},
};

/// The repository with our clusters, and a second one that must not suffer from it.
const FLEET: &str = "fleet";
const OTHER: &str = "other";
/// The file of the example's cluster.
const FILE: &str = "clusters/sessions.yaml";

struct Fleet {
    git: Git,
    source: Source,
    other: Source,
    tree: WorkTree,
    other_tree: WorkTree,
    cluster: Cluster,
    _folder: Folder,
}

/// A folder that goes when the story ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub async fn story(story: &mut Story<'_>) -> Told {
    let namespace = story.namespace().await?;
    let beside = story.namespace().await?;
    let git = story
        .check(
            "a Git server runs in the cluster",
            Git::start(&namespace, &[FLEET, OTHER]),
        )
        .await?;
    let fleet = story
        .check("its sources are made", sources(&namespace, &beside, git))
        .await?;
    story
        .check("a pushed copy of gitops-example becomes Ready", first_push(&fleet))
        .await?;
    story
        .check("a push that adds a proxy and a group takes effect", second_push(&fleet))
        .await?;
    story
        .check("a broken push changes nothing and names its line", broken_push(&fleet))
        .await?;
    story.check("a revert works", revert(&fleet)).await?;
    let _: Told = story
        .check(
            "kubectl edit is put back, and the event says whose it was",
            hand_edit(&fleet),
        )
        .await;
    nothing_is_deleted(story, &fleet).await
}

async fn nothing_is_deleted(story: &mut Story<'_>, fleet: &Fleet) -> Told {
    story
        .check("a server that drips harms nobody else", drips(fleet))
        .await?;
    story
        .check("a deleted branch deletes nothing", branch_deleted(fleet))
        .await?;
    story
        .check("a removed path deletes nothing", path_removed(fleet))
        .await?;
    story
        .check(
            "a server that is gone, and comes back empty, deletes nothing",
            server_gone(fleet),
        )
        .await
}

async fn sources(namespace: &Namespace, beside: &Namespace, git: Git) -> Result<Fleet> {
    let folder = std::env::temp_dir().join(format!("codis-e2e-git-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("gitops-example/source.yaml");
    let mut source: CodisGitSource = serde_yaml::from_str(&std::fs::read_to_string(example)?)?;
    source.spec.url = git.url(FLEET);
    let mut other = source.clone();
    other.spec.url = git.url(OTHER);
    other.spec.interval = Some("5s".to_owned());
    Ok(Fleet {
        source: Source::apply(namespace, source).await?,
        other: Source::apply(beside, other).await?,
        tree: git.clone(FLEET, &folder.join(FLEET))?,
        other_tree: git.clone(OTHER, &folder.join(OTHER))?,
        cluster: Cluster::new(namespace, "sessions"),
        git,
        _folder: Folder(folder),
    })
}

async fn first_push(fleet: &Fleet) -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("gitops-example/.");
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(example).arg(fleet.tree.path());
    lab::run(copy).await?;
    let commit = fleet.tree.commit("our fleet")?;
    let began = Instant::now();
    fleet.tree.push("main")?;
    let pushed = began.elapsed();
    // No poke: this is the source's own interval.
    fleet.source.applied(&commit).await?;
    let applied = began.elapsed();
    fleet.cluster.ready(secs(300)).await?;
    println!(
        "        git push {:.1} s → applied {:.1} s (interval 30 s) → Ready {:.1} s",
        pushed.as_secs_f64(),
        applied.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    let shown = fleet.cluster.namespace.kubectl(&["get", "codisgitsources"]).await?;
    shown.lines().for_each(|line| println!("        {line}"));
    let told = fleet.cluster.get().await?.status.and_then(|status| status.gitops);
    let told = told.context("no status.gitops")?;
    ensure!(
        told.source == "fleet" && told.path == FILE && told.revision == format!("main@sha1:{commit}"),
        "{told:?}"
    );
    Ok(())
}

/// Changes the cluster's file, pushes it, and pokes the source.
async fn push(fleet: &Fleet, from: &str, to: &str) -> Result<String> {
    let file = std::fs::read_to_string(fleet.tree.path().join(FILE))?;
    ensure!(file.contains(from), "{from:?} isn't in {FILE}");
    let commit = fleet.tree.publish(FILE, file.replacen(from, to, 1))?;
    fleet.source.poke().await?;
    Ok(commit)
}

async fn second_push(fleet: &Fleet) -> Result<()> {
    let file = std::fs::read_to_string(fleet.tree.path().join(FILE))?;
    fleet
        .tree
        .write(FILE, file.replacen("    replicas: 2\n", "    replicas: 3\n", 1))?;
    let began = Instant::now();
    let commit = push(fleet, "    replicas: 4 ", "    replicas: 6 ").await?;
    fleet.source.applied(&commit).await?;
    let applied = began.elapsed();
    // A new group has no slots yet: moving them is another step. It is there and follows its master.
    wait_for("three proxies and three groups", secs(180), async || {
        let status = fleet.cluster.get().await?.status.context("no status")?;
        let (proxies, servers) = (status.proxies.unwrap_or_default(), status.servers.unwrap_or_default());
        ensure!(
            proxies == "3/3" && servers == "6/6",
            "proxies {proxies}, servers {servers}"
        );
        let groups = fleet.cluster.topology().await?.groups.len();
        ensure!(groups == 3, "{groups} groups");
        Ok(())
    })
    .await?;
    println!(
        "        push → applied {:.1} s → three proxies and groups {:.1} s",
        applied.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn broken_push(fleet: &Fleet) -> Result<()> {
    let before = fleet.cluster.get().await?;
    push(fleet, "    groupReplicas: 2", "    groupReplica: 2").await?;
    let file = std::fs::read_to_string(fleet.tree.path().join(FILE))?;
    let line = 1 + file
        .lines()
        .position(|line| line.contains("groupReplica:"))
        .context("the line")?;
    let message = fleet.source.reason("CommitRejected").await?;
    ensure!(message.contains(&format!("{FILE}:{line}:")), "{message}");
    println!("        {message}");
    let after = fleet.cluster.get().await?;
    ensure!(
        after.metadata.generation == before.metadata.generation,
        "the spec was changed"
    );
    Ok(())
}

async fn revert(fleet: &Fleet) -> Result<()> {
    fleet.tree.git(&["revert", "--no-edit", "HEAD"])?;
    fleet.tree.push("main")?;
    fleet.source.poke().await?;
    fleet.source.applied(&fleet.tree.head()?).await
}

async fn hand_edit(fleet: &Fleet) -> Result<()> {
    let namespace = &fleet.cluster.namespace;
    let mut edit = Command::new("kubectl");
    edit.args(["--context", namespace.lab.context(), "-n", &namespace.name])
        .args(["edit", "codiscluster", "sessions"])
        // The first is that of the proxies.
        .env("KUBE_EDITOR", "sed -i '0,/replicas: 3/s//replicas: 1/'");
    let began = Instant::now();
    lab::run(edit).await?;
    wait_for("three proxies again", secs(30), async || {
        let proxies = fleet.cluster.get().await?.spec.codis_proxy.replicas;
        ensure!(proxies == 3, "{proxies} proxies");
        Ok(())
    })
    .await?;
    println!(
        "        put back after {:.1} s, kubectl's own time included",
        began.elapsed().as_secs_f64()
    );
    let events = Api::<Event>::namespaced(namespace.lab.client.clone(), &namespace.name);
    wait_for("the event", secs(10), async || {
        let events = events.list(&ListParams::default()).await?.items;
        let found = events
            .iter()
            .find(|event| event.reason.as_deref() == Some("HandEditReverted"));
        let note = found
            .and_then(|event| event.note.clone())
            .context("no event HandEditReverted")?;
        ensure!(note.contains("was changed by kubectl-edit at "), "{note}");
        println!("        {note}");
        Ok(())
    })
    .await
}

/// The cluster is there, unharmed, and still as the last good commit has it.
async fn unharmed(fleet: &Fleet) -> Result<()> {
    let cluster = fleet.cluster.get().await?;
    ensure!(cluster.metadata.deletion_timestamp.is_none(), "it is being deleted");
    ensure!(cluster.spec.codis_proxy.replicas == 3, "its spec was changed");
    ensure!(cluster.labels().contains_key("codis.k8s.io/source"), "it was let go");
    Ok(())
}

/// A push to the other repository is rejected for what it is (it has no cluster), within its own interval and no later.
async fn other_is_served(fleet: &Fleet, n: u32) -> Result<()> {
    let began = Instant::now();
    let commit = fleet
        .other_tree
        .publish("clusters/broken.yaml", format!("kind: Number{n}\n"))?;
    wait_for("the other source's commit", secs(20), async || {
        let message = fleet.other.reason("CommitRejected").await?;
        ensure!(message.contains(&commit), "{message}");
        Ok(())
    })
    .await?;
    println!(
        "        the other source (interval 5 s) saw its commit after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn drips(fleet: &Fleet) -> Result<()> {
    fleet.git.fault(FLEET, "drip").await?;
    fleet.source.poke().await?;
    other_is_served(fleet, 1).await?;
    println!("        {}", fleet.source.reason("Timeout").await?);
    unharmed(fleet).await?;
    fleet.git.fault(FLEET, "none").await?;
    fleet.source.poke().await?;
    fleet.source.applied(&fleet.tree.head()?).await
}

async fn branch_deleted(fleet: &Fleet) -> Result<()> {
    fleet
        .git
        .exec(&format!("git -C /srv/git/{FLEET}.git update-ref -d refs/heads/main"))
        .await?;
    fleet.source.poke().await?;
    println!("        {}", fleet.source.reason("RepositoryEmpty").await?);
    unharmed(fleet).await?;
    fleet.tree.push("main")?;
    fleet.tree.push("kept")?;
    fleet
        .git
        .exec(&format!("git -C /srv/git/{FLEET}.git update-ref -d refs/heads/main"))
        .await?;
    fleet.source.poke().await?;
    println!("        {}", fleet.source.reason("BranchMissing").await?);
    unharmed(fleet).await?;
    fleet.tree.push("main")?;
    fleet.source.poke().await?;
    fleet.source.applied(&fleet.tree.head()?).await
}

async fn path_removed(fleet: &Fleet) -> Result<()> {
    fleet.tree.remove("clusters")?;
    fleet.tree.commit("no clusters")?;
    fleet.tree.push("main")?;
    fleet.source.poke().await?;
    println!("        {}", fleet.source.reason("PathMissing").await?);
    unharmed(fleet).await?;
    fleet.tree.git(&["revert", "--no-edit", "HEAD"])?;
    fleet.tree.push("main")?;
    fleet.source.poke().await?;
    fleet.source.applied(&fleet.tree.head()?).await
}

async fn server_gone(fleet: &Fleet) -> Result<()> {
    fleet.git.stop().await?;
    fleet.source.poke().await?;
    println!("        {}", fleet.source.reason("Unreachable").await?);
    unharmed(fleet).await?;
    fleet.git.start_again(&[FLEET]).await?;
    fleet.source.poke().await?;
    println!("        {}", fleet.source.reason("RepositoryEmpty").await?);
    unharmed(fleet).await?;
    fleet.tree.push("main")?;
    fleet.source.poke().await?;
    fleet.source.applied(&fleet.tree.head()?).await
}
