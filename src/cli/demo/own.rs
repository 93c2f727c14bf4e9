//! `--repo`: a person's own specs, watched until Ctrl-C.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use codis_git_server::{GitServer, Options, create_repository};
use kube::{Api, ResourceExt as _, api::ListParams};
use tokio::time::Instant;

use super::{
    origin,
    stage::Stage,
    tell::Style,
    view::{self, NAMESPACE, SOURCE},
};
use crate::api::{CodisCluster, CodisGitSource};

/// How often the repository is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the world is.
const LOOK: Duration = Duration::from_millis(200);

/// A repository of somebody. Only a copy of its branch is served: whoever reaches the server could push into the original.
#[derive(Clone)]
struct Repository {
    original: PathBuf,
    copy: PathBuf,
    branch: String,
    /// Where the specs are in it.
    path: Option<String>,
}

impl Repository {
    /// The one that this folder is in. None where it is in none.
    fn of(original: &Path, root: &Path) -> Result<Option<Self>> {
        if !origin::has_git() || git(original, &["rev-parse", "--git-dir"]).is_err() {
            return Ok(None);
        }
        let branch = git(original, &["symbolic-ref", "--short", "HEAD"]).context("--repo: no branch is checked out")?;
        // Nothing of a bare repository.
        let prefix = git(original, &["rev-parse", "--show-prefix"]).unwrap_or_default();
        let path = match prefix.trim_end_matches('/') {
            "" => git(original, &["cat-file", "-e", "HEAD:clusters"])
                .ok()
                .map(|_| "clusters".to_owned()),
            prefix => Some(prefix.to_owned()),
        };
        let copy = create_repository(root, SOURCE)?;
        // Of a linked work tree the repository that it belongs to: the branches are there.
        let original = git(original, &["rev-parse", "--path-format=absolute", "--git-common-dir"])?.into();
        Ok(Some(Self {
            original,
            copy,
            branch,
            path,
        }))
    }

    /// Fetches the branch into the copy. Its last commit, with the first line of its message.
    fn fetch(&self) -> io::Result<String> {
        let from = self.original.display().to_string();
        let branch = format!("+refs/heads/{0}:refs/heads/{0}", self.branch);
        git(&self.copy, &["fetch", "--quiet", "--no-tags", &from, &branch])?;
        git(
            &self.copy,
            &["log", "-1", "--format=%h %s", &format!("refs/heads/{}", self.branch)],
        )
    }
}

fn git(folder: &Path, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output()?;
    if !output.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Watches it for ever.
pub(super) async fn watch(stage: &mut Stage, original: &Path, folder: &Path) -> Result<()> {
    ensure!(
        original.is_dir(),
        "--repo {}: there is no such folder",
        original.display()
    );
    let root = folder.join("repositories");
    std::fs::create_dir(&root)?;
    let work = folder.join("fetched");
    stage.teller.head("Your specs (Ctrl-C ends it)");
    let Some(repository) = Repository::of(original, &root)? else {
        let text = format!(
            "{} is no Git repository, or there is no git (with its http-backend): watched as a folder",
            original.display()
        );
        stage.teller.event(Style::Plain, "folder", &text);
        stage.start_sources(work, Some(original.canonicalize()?))?;
        let mut told = Told::default();
        loop {
            told.look(stage).await?;
            stage.pass(LOOK).await;
        }
    };
    let server = GitServer::start("127.0.0.1:0", &root, Options::default()).await?;
    let place = repository.path.as_deref().unwrap_or("the whole repository");
    let text = format!(
        "branch {} of {}, {place}: commit, and it is applied",
        repository.branch,
        original.display()
    );
    stage.teller.event(Style::Plain, "git", &text);
    let mut told = Told::default();
    fetch(stage, &repository, &mut told).await?;
    stage.start_sources(work, None)?;
    stage
        .apply_source(&server.url(SOURCE), &repository.branch, repository.path.as_deref())
        .await?;
    loop {
        let next = Instant::now() + INTERVAL;
        while Instant::now() < next {
            told.look(stage).await?;
            stage.pass(LOOK).await;
        }
        if fetch(stage, &repository, &mut told).await? {
            stage.nudge().await?;
        }
    }
}

/// Whether there is a new commit.
async fn fetch(stage: &mut Stage, repository: &Repository, told: &mut Told) -> Result<bool> {
    let repository = repository.clone();
    let fetched = stage
        .during(tokio::task::spawn_blocking(move || repository.fetch()))
        .await?;
    let (style, text) = match fetched {
        Ok(head) => (Style::Plain, format!("commit {head}")),
        Err(error) => (Style::Bad, error.to_string()),
    };
    Ok(told.tell(stage, style, "git", text))
}

/// What was said last of each: only changes are told.
#[derive(Default)]
struct Told(BTreeMap<String, String>);

impl Told {
    fn tell(&mut self, stage: &mut Stage, style: Style, who: &str, text: String) -> bool {
        if self.0.get(who) == Some(&text) {
            return false;
        }
        stage.teller.event(style, who, &text);
        self.0.insert(who.to_owned(), text);
        true
    }

    async fn look(&mut self, stage: &mut Stage) -> Result<()> {
        let sources = Api::<CodisGitSource>::namespaced(stage.client.clone(), NAMESPACE);
        let status = sources.get_opt(SOURCE).await?.and_then(|source| source.status);
        let conditions = status.map(|status| status.conditions).unwrap_or_default();
        if let Some(ready) = conditions.iter().find(|condition| condition.type_ == "Ready") {
            let style = match ready.status.as_str() {
                "True" => Style::Good,
                "False" => Style::Bad,
                _ => Style::Plain,
            };
            self.tell(stage, style, "source", format!("{}: {}", ready.reason, ready.message));
        }
        let clusters = Api::<CodisCluster>::namespaced(stage.client.clone(), NAMESPACE);
        for cluster in clusters.list(&ListParams::default()).await? {
            let status = cluster.status.clone().unwrap_or_default();
            let style = if view::is_ready(&cluster) {
                Style::Good
            } else {
                Style::Plain
            };
            let phase = status.phase.unwrap_or_else(|| "new".to_owned());
            let text = format!("{phase}: {}", status.message.unwrap_or_default());
            self.tell(
                stage,
                style,
                &cluster.name_any(),
                text.trim_end_matches([' ', ':']).to_owned(),
            );
        }
        Ok(())
    }
}
