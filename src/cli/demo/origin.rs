//! Where the demo's specs are: a real Git repository on loopback, or a plain folder where there is no git.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use codis_git_server::{GitServer, Options, WorkTree, create_repository};

/// What is in the repository at first: `gitops-example/`, so that the binary alone is enough.
const FILES: [(&str, &str); 2] = [
    ("README.md", include_str!("../../../gitops-example/README.md")),
    (SPEC, include_str!("../../../gitops-example/clusters/sessions.yaml")),
];
/// The source's own file, which isn't in the repository.
pub(super) const SOURCE: &str = include_str!("../../../gitops-example/source.yaml");
/// The one spec.
pub(super) const SPEC: &str = "clusters/sessions.yaml";
/// The cluster in it.
pub(super) const CLUSTER: &str = "sessions";

/// Where the specs are.
pub(super) enum Origin {
    /// A repository, and who serves it.
    Git {
        /// Serves it until it is dropped.
        server: GitServer,
        /// A clone.
        tree: Arc<WorkTree>,
    },
    /// A folder.
    Folder(PathBuf),
}

impl Origin {
    /// An empty one.
    pub(super) async fn new(folder: &Path) -> Result<Self> {
        if !has_git() {
            let specs = folder.join("specs");
            fs::create_dir(&specs)?;
            return Ok(Self::Folder(specs));
        }
        let root = folder.join("repositories");
        let (bare, work) = (root.clone(), folder.join("work"));
        let tree = tokio::task::spawn_blocking(move || {
            let bare = create_repository(&bare, "fleet")?;
            WorkTree::clone(&bare.display().to_string(), &work)
        });
        let server = GitServer::start("127.0.0.1:0", &root, Options::default()).await?;
        let tree = Arc::new(tree.await?.context("a repository")?);
        Ok(Self::Git { server, tree })
    }

    /// Its URL, if it has one.
    pub(super) fn url(&self) -> Option<String> {
        match self {
            Self::Git { server, .. } => Some(server.url("fleet")),
            Self::Folder(_) => None,
        }
    }

    /// Where a person can change it.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Git { tree, .. } => tree.path(),
            Self::Folder(folder) => folder,
        }
    }

    /// Writes the spec and what belongs to it, commits and pushes. The commit's id; nothing of a folder.
    pub(super) async fn publish(&self, spec: String, message: &'static str) -> Result<String> {
        match self {
            Self::Git { tree, .. } => {
                let tree = Arc::clone(tree);
                let commit = tokio::task::spawn_blocking(move || {
                    FILES.iter().try_for_each(|(name, content)| tree.write(name, content))?;
                    tree.write(SPEC, spec)?;
                    let id = tree.commit(message)?;
                    tree.push("main")?;
                    std::io::Result::Ok(id)
                });
                Ok(commit.await??)
            }
            Self::Folder(folder) => {
                // Renamed into place: a half-written file isn't looked at.
                fs::write(folder.join(".new"), spec)?;
                fs::rename(folder.join(".new"), folder.join("sessions.yaml"))?;
                Ok(String::new())
            }
        }
    }
}

/// Whether there is a `git` on the PATH that can serve: some systems have its `http-backend` in a package of its own.
pub(super) fn has_git() -> bool {
    let asked = Command::new("git").arg("--exec-path").output();
    asked.is_ok_and(|output| {
        let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&folder).join("git-http-backend").exists()
    })
}

/// The spec of the example.
pub(super) fn spec() -> &'static str {
    FILES[1].1
}

/// The spec with a third server in each group, and a third proxy.
pub(super) fn scaled() -> Result<String> {
    let (before, after) = spec().split_once("codisProxy:").context("no proxies in the example")?;
    let mut after = after.to_owned();
    for (from, to) in [
        ("replicas: 2\n", "replicas: 3\n"),
        ("replicas: 4 ", "replicas: 6 "),
        ("groupReplicas: 2 ", "groupReplicas: 3 "),
        ("and one replica\n", "and two replicas\n"),
    ] {
        after = change(&after, from, to)?;
    }
    Ok(format!("{before}codisProxy:{after}"))
}

/// The scaled spec with a mistake.
pub(super) fn mistaken() -> Result<String> {
    change(&scaled()?, "groupReplicas:", "groupReplica:")
}

fn change(text: &str, from: &str, to: &str) -> Result<String> {
    let (before, after) = text
        .split_once(from)
        .with_context(|| format!("the example has no {from:?}"))?;
    Ok(format!("{before}{to}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CodisCluster;

    #[test]
    fn the_example_can_be_scaled_and_broken() {
        let cluster = |text: &str| serde_yaml::from_str::<CodisCluster>(text).unwrap();
        let (first, second) = (cluster(spec()), cluster(&scaled().unwrap()));
        assert_eq!(first.metadata.name.as_deref(), Some(CLUSTER));
        assert_eq!(
            (first.spec.codis_proxy.replicas, second.spec.codis_proxy.replicas),
            (2, 3)
        );
        assert_eq!(
            (first.spec.codis_server.replicas, second.spec.codis_server.replicas),
            (4, 6)
        );
        assert_eq!(second.spec.codis_server.group_replicas, 3);
        assert!(mistaken().unwrap().contains("    groupReplica: 3 "));
    }
}
