//! What happens in the demo, act by act.

use std::path::Path;

use anyhow::{Context as _, Result};
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::{
    origin::{self, Origin},
    stage::{Milestone, Stage},
    tell::{Style, Teller},
    view::View,
};
use crate::cli::plugin;

/// What this is, and what of it is real.
pub(super) fn introduction(teller: &mut Teller) {
    teller.say(
        Style::Head,
        "codis-operator demo: a Codis cluster from a Git repository, killed and healed.",
    );
    teller.say(
        Style::Plain,
        "\
Real: the operator, its Git source, the repository, the time. SIMULATED in this process: Kubernetes, its pods, the
network, and the redis servers, sentinels, proxies and dashboard in the pods. No Docker, no cluster, nothing to install.",
    );
}

/// The whole story of the example.
pub(super) async fn play(stage: &mut Stage, folder: &Path) -> Result<Origin> {
    let origin = stage.during(Origin::new(folder)).await?;
    if let Origin::Folder(specs) = &origin {
        let text = format!(
            "there is no git (with its http-backend) on the PATH: a plain folder, {}, and no commits",
            specs.display()
        );
        stage.teller.event(Style::Plain, "folder", &text);
    }
    begin(stage, &origin, folder).await?;
    stage.write().await?;
    stage.teller.event(
        Style::Plain,
        "client",
        "begins to write through the proxies, and goes on to the end",
    );
    let second = scale(stage, &origin).await?;
    accidents(stage).await?;
    if let Origin::Git { .. } = origin {
        mistake(stage, &origin, &second).await?;
    }
    end(stage).await?;
    next(&mut stage.teller);
    Ok(origin)
}

/// What to do after this.
fn next(teller: &mut Teller) {
    teller.head("What to try next");
    teller.say(
        Style::Plain,
        "\
codis-operator demo --serve          the same, and then your kubectl and kubectl codis on it
codis-operator demo --repo PATH      your own repository (or folder) of specs
codis-operator simulate              thousands of seeded disasters, in virtual time
make demo-kind                       a cluster on kind: real Kubernetes, real pods",
    );
}

/// How to look at it from another terminal.
pub(super) fn how_to_look(teller: &mut Teller, config: &Path) {
    teller.head("The embedded API server is on loopback, for kubectl in another terminal:");
    teller.say(Style::Plain, &format!("export KUBECONFIG={}", config.display()));
    teller.say(Style::Plain, "kubectl get codisclusters -w");
}

/// What can be done with it from another terminal.
pub(super) fn what_to_try(teller: &mut Teller, config: &Path, origin: &Origin) {
    teller.head("It goes on until Ctrl-C. In another terminal:");
    let (config, specs) = (config.display(), origin.path().display());
    let text = format!(
        "\
export KUBECONFIG={config}
kubectl get codisclusters,codisgitsources,pods
kubectl codis status                     (target/debug/kubectl-codis on the PATH)
kubectl codis promote sessions 1
kubectl delete pod sessions-g2-0         and see it come back with kubectl get pods -w
kubectl edit codiscluster sessions       Git has the last word: it is put back
$EDITOR {specs}/clusters/sessions.yaml   replicas: 9 of codisServer is a third group: slots move to it
git -C {specs} commit -am 'a third group' && git -C {specs} push origin HEAD:main"
    );
    teller.say(Style::Plain, &text);
    let not = "Pods are simulated: kubectl logs, exec and port-forward, and redis-cli, have nothing to talk to.";
    teller.say(Style::Plain, not);
}

/// The first commit becomes a cluster.
async fn begin(stage: &mut Stage, origin: &Origin, folder: &Path) -> Result<()> {
    stage.teller.head("A commit becomes a cluster");
    let commit = publish(stage, origin, origin::spec().to_owned(), "the cluster sessions").await?;
    let work = folder.join("fetched");
    match origin {
        Origin::Git { .. } => {
            stage.start_sources(work, None)?;
            let url = origin.url().context("no URL")?;
            stage.apply_source(&url, "main", Some("clusters")).await?;
            let text = format!("CodisGitSource fleet watches {url}");
            stage.teller.event(Style::Plain, "git", &text);
        }
        Origin::Folder(specs) => stage.start_sources(work, Some(specs.clone()))?,
    }
    let mut milestones = applied(origin, &commit);
    milestones.extend([
        milestone("dashboard", |view| {
            view.ready_pod("-dashboard-").map(|pod| format!("{} is up", name(pod)))
        }),
        milestone("groups", |view| groups(view, 2, 2)),
        milestone("slots", slots),
        milestone("proxies", |view| proxies(view, 2)),
        milestone("Ready", |view| ready(view, origin, &commit)),
    ]);
    stage.await_all(milestones).await?;
    Ok(())
}

/// The second commit makes it greater, under its clients.
async fn scale(stage: &mut Stage, origin: &Origin) -> Result<String> {
    stage
        .teller
        .head("A second commit scales it: a third server in each group, a third proxy");
    let before = stage.writes();
    let commit = publish(stage, origin, origin::scaled()?, "more servers and proxies").await?;
    if origin.url().is_some() {
        stage.nudge().await?;
    }
    let mut milestones = applied(origin, &commit);
    milestones.extend([
        milestone("proxies", |view| proxies(view, 3)),
        milestone("groups", |view| groups(view, 2, 3)),
        milestone("Ready", |view| {
            groups(view, 2, 3).and_then(|_| ready(view, origin, &commit))
        }),
    ]);
    stage.await_all(milestones).await?;
    meanwhile(stage, before);
    Ok(commit)
}

/// A dashboard, a proxy and a master are killed, one after the other.
async fn accidents(stage: &mut Stage) -> Result<()> {
    stage.teller.head("Accidents: each pod is killed without a warning");
    accident(stage, "dashboard", "the dashboard", "-dashboard-").await?;
    accident(stage, "proxy", "a proxy", "-proxy-").await?;
    let master = stage.look().await?.master(1).context("group 1 has no master")?;
    accident(stage, "master", "the master of group 1", &master).await
}

async fn accident(stage: &mut Stage, who: &'static str, what: &str, part: &str) -> Result<()> {
    let before = stage.look().await?;
    let victim = before
        .ready_pod(part)
        .with_context(|| format!("no pod {part}"))?
        .clone();
    let (began, victims_name) = (Instant::now(), name(&victim));
    let writes = stage.writes();
    let proxies = before.ready_pods("-proxy-");
    stage.kill(&victims_name).await?;
    let text = format!("{victims_name} is killed: {what}");
    stage.teller.event(Style::Bad, who, &text);
    let was_master = |view: &View| view.master(1).as_deref() == Some(&victims_name);
    let is_master = was_master(&before);
    let healed = |view: &View| {
        let is_new = match who {
            "proxy" => view.ready_pod(&victims_name).is_none() && view.ready_pods("-proxy-") == proxies,
            _ => view.ready_pod(&victims_name).is_some_and(|pod| pod.uid != victim.uid),
        };
        is_new && view.is_ready() && !(is_master && was_master(view))
    };
    let view = stage.until(&text, healed).await?;
    let seconds = began.elapsed().as_secs_f64();
    let how = match who {
        "dashboard" => "it started again and has its lock back".to_owned(),
        "proxy" => "its record was removed, a new proxy has registered".to_owned(),
        _ => {
            let now = view.master(1).unwrap_or_default();
            format!("{now} is master now, {victims_name} came back as its replica")
        }
    };
    stage
        .teller
        .event(Style::Good, who, &format!("healed after {seconds:.1} s: {how}"));
    meanwhile(stage, writes);
    Ok(())
}

/// A commit with a mistake is refused, and one without it is applied.
async fn mistake(stage: &mut Stage, origin: &Origin, good: &str) -> Result<()> {
    stage.teller.head("A commit with a mistake changes nothing");
    let bad = publish(stage, origin, origin::mistaken()?, "a typing mistake").await?;
    stage.nudge().await?;
    let seen = |view: &View| {
        let status = view.of_source()?;
        let attempted = status.last_attempted_revision.as_ref()?;
        let problem = status.problems.first().filter(|_| attempted.ends_with(&bad))?;
        let (line, column) = (problem.line.unwrap_or_default(), problem.column.unwrap_or_default());
        let place = format!("{}:{line}:{column}", problem.file);
        let field = problem.field.as_deref().unwrap_or_default();
        Some(format!(
            "{} is refused: {place}: {field}: {}",
            short(&bad),
            problem.message
        ))
    };
    stage.await_all(vec![("git", Box::new(seen))]).await?;
    let view = stage.look().await?;
    let is_same = view.has_applied(good) && view.is_ready();
    let text = format!(
        "{} stays in force; the cluster is {}",
        short(good),
        if is_same { "Ready" } else { "not Ready" }
    );
    stage.teller.event(Style::Plain, "git", &text);
    let mended = publish(stage, origin, origin::scaled()?, "the mistake is mended").await?;
    stage.nudge().await?;
    let mut milestones = applied(origin, &mended);
    milestones.push(milestone("Ready", |view| ready(view, origin, &mended)));
    stage.await_all(milestones).await?;
    Ok(())
}

/// What was written is read, and the cluster shown.
async fn end(stage: &mut Stage) -> Result<()> {
    stage.teller.head("What is left of it");
    let (count, missing) = stage.read_back().await?;
    let text = format!(
        "{count} writes were acknowledged; {} can be read back",
        if missing == 0 {
            "all of them".to_owned()
        } else {
            format!("{} of them", count - missing)
        }
    );
    let style = if missing == 0 { Style::Good } else { Style::Bad };
    stage.teller.event(style, "client", &text);
    if missing > 0 {
        let why = "redis replicates asynchronously: a master's last moment may be lost with its pod";
        stage.teller.event(Style::Plain, "client", why);
    }
    let view = stage.look().await?;
    let cluster = view.cluster.context("the cluster is gone")?;
    stage
        .teller
        .head(&format!("kubectl codis status {}", cluster.name_any()));
    stage.teller.say(Style::Plain, &plugin::describe(&cluster));
    Ok(())
}

/// Writes, commits and pushes, and tells of it.
async fn publish(stage: &mut Stage, origin: &Origin, spec: String, message: &'static str) -> Result<String> {
    let commit = stage.during(origin.publish(spec, message)).await?;
    let (who, text) = match origin {
        Origin::Git { .. } => ("git", format!("commit {} is pushed: {message}", short(&commit))),
        Origin::Folder(_) => ("folder", format!("sessions.yaml is written: {message}")),
    };
    stage.teller.event(Style::Plain, who, &text);
    Ok(commit)
}

/// What is seen of every good commit.
fn applied<'a>(origin: &Origin, commit: &'a str) -> Vec<Milestone<'a>> {
    if let Origin::Folder(_) = origin {
        return vec![milestone("applied", |view| {
            view.cluster.as_ref().map(|_| "the folder is applied".to_owned())
        })];
    }
    vec![
        milestone("admitted", move |view| {
            let status = view.of_source()?;
            let attempted = status.last_attempted_revision.as_ref()?;
            let is_good = attempted.ends_with(commit) && status.problems.is_empty();
            is_good.then(|| format!("{} is fetched and without mistakes", short(commit)))
        }),
        milestone("applied", move |view| {
            view.has_applied(commit)
                .then(|| format!("{} is in force", short(commit)))
        }),
    ]
}

fn milestone<'a>(who: &'static str, seen: impl Fn(&View) -> Option<String> + 'a) -> Milestone<'a> {
    (who, Box::new(seen))
}

fn groups(view: &View, wanted: usize, servers: usize) -> Option<String> {
    let groups = &view.status()?.groups;
    let is_whole = groups.iter().all(|group| {
        let is_linked = group.servers.iter().all(|server| server.link_up != Some(false));
        group.bootstrapped && group.master.is_some() && group.servers.len() == servers && is_linked
    });
    (groups.len() == wanted && is_whole).then(|| format!("{wanted} groups of {servers} servers each"))
}

fn slots(view: &View) -> Option<String> {
    let all: Vec<i32> = view.status()?.groups.iter().map(|group| group.slots).collect();
    let told = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
    (all.iter().sum::<i32>() == 1024).then(|| format!("all 1024 slots are served: {told}"))
}

fn proxies(view: &View, wanted: usize) -> Option<String> {
    (view.ready_pods("-proxy-") == wanted).then(|| format!("{wanted} proxies are online"))
}

fn ready(view: &View, origin: &Origin, commit: &str) -> Option<String> {
    let is_known = matches!(origin, Origin::Folder(_)) || view.has_applied(commit);
    (is_known && view.is_ready()).then(|| "all is as wished".to_owned())
}

/// What the client saw since then.
fn meanwhile(stage: &mut Stage, (acknowledged, failed): (usize, u32)) {
    let now = stage.writes();
    let (acknowledged, failed) = (now.0 - acknowledged, now.1 - failed);
    let text = match failed {
        0 => format!("{acknowledged} writes acknowledged meanwhile, none failed"),
        failed => format!("{acknowledged} writes acknowledged meanwhile, {failed} failed"),
    };
    stage.teller.event(Style::Plain, "client", &text);
}

fn name(pod: &kube::api::ObjectMeta) -> String {
    pod.name.clone().unwrap_or_default()
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}
