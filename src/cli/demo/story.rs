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
pub(super) async fn play(stage: &mut Stage, folder: &Path) -> Result<()> {
    let origin = stage.during(Origin::new(folder)).await?;
    let first = begin(stage, &origin, folder).await?;
    stage.write().await?;
    stage.teller.event(
        Style::Plain,
        "client",
        "begins to write through the proxies, and never stops",
    );
    let second = scale(stage, &origin).await?;
    accidents(stage).await?;
    if let Origin::Git { .. } = origin {
        mistake(stage, &origin, &second).await?;
    }
    end(stage).await?;
    drop(first);
    Ok(())
}

/// The first commit becomes a cluster.
async fn begin(stage: &mut Stage, origin: &Origin, folder: &Path) -> Result<String> {
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
        milestone("groups", |view| groups(view, 2)),
        milestone("slots", |view| slots(view, 2)),
        milestone("proxies", |view| proxies(view, 2)),
        milestone("Ready", |view| ready(view, origin, &commit)),
    ]);
    stage.await_all(milestones).await?;
    Ok(commit)
}

/// The second commit makes it greater, under its clients.
async fn scale(stage: &mut Stage, origin: &Origin) -> Result<String> {
    stage
        .teller
        .head("A second commit scales it: a third group, a third proxy");
    let began = Instant::now();
    let commit = publish(stage, origin, origin::scaled()?, "a third group and a third proxy").await?;
    if origin.url().is_some() {
        stage.nudge().await?;
    }
    let mut milestones = applied(origin, &commit);
    milestones.extend([
        milestone("groups", |view| groups(view, 3)),
        milestone("proxies", |view| proxies(view, 3)),
        milestone("slots", |view| slots(view, 3)),
        milestone("Ready", |view| {
            (view.slots().len() == 3)
                .then(|| ready(view, origin, &commit))
                .flatten()
        }),
    ]);
    stage.await_all(milestones).await?;
    pause(stage, began);
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
    pause(stage, began);
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
        let place = format!("{}:{}", problem.file, problem.line.unwrap_or_default());
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
    let text = match origin {
        Origin::Git { .. } => format!("commit {} is pushed: {message}", short(&commit)),
        Origin::Folder(_) => format!("{} is written: {message}", origin::SPEC),
    };
    stage.teller.event(Style::Plain, "git", &text);
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

fn groups(view: &View, wanted: usize) -> Option<String> {
    let groups = &view.status()?.groups;
    let is_whole = groups.iter().all(|group| group.master.is_some() && group.bootstrapped);
    let servers: usize = groups.iter().map(|group| group.servers.len()).sum();
    (groups.len() == wanted && is_whole).then(|| format!("{wanted} groups with {servers} servers are made"))
}

fn slots(view: &View, wanted: usize) -> Option<String> {
    let slots = view.slots();
    let is_even = slots.len() == wanted && slots.iter().all(|of_group| *of_group >= 1024 / wanted as i32);
    let all = slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
    (is_even && slots.iter().sum::<i32>() == 1024).then(|| format!("1024 slots are served: {all}"))
}

fn proxies(view: &View, wanted: usize) -> Option<String> {
    (view.ready_pods("-proxy-") == wanted).then(|| format!("{wanted} proxies are online"))
}

fn ready(view: &View, origin: &Origin, commit: &str) -> Option<String> {
    let is_known = matches!(origin, Origin::Folder(_)) || view.has_applied(commit);
    (is_known && view.is_ready()).then(|| "all is as wished".to_owned())
}

fn pause(stage: &mut Stage, since: Instant) {
    let pause = stage.longest_pause(since).as_secs_f64();
    let text = format!("its longest wait between two writes meanwhile: {pause:.1} s");
    stage.teller.event(Style::Plain, "client", &text);
}

fn name(pod: &kube::api::ObjectMeta) -> String {
    pod.name.clone().unwrap_or_default()
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}
