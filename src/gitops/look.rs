//! One look at an origin: what is there now, read if it is new. It changes nothing, and it may take its time: the source
//! goes on putting hand edits back meanwhile.

use std::{path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::Secret;

use super::{
    Blob, Held, directory,
    git::{Credentials, Error, ErrorKind, Fetch, Git, Relation, Remote, Tip, Tree},
    library::{Library, Reading},
};
use crate::{api::CodisGitSourceSpec, cluster::Cluster};

/// Where the specs are.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// A branch.
    Git(Box<Branch>),
    /// A folder on this machine.
    Directory(PathBuf),
}

/// A branch of a repository.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub spec: CodisGitSourceSpec,
    pub namespace: String,
    /// None: they are to be read (again).
    pub credentials: Option<Arc<Credentials>>,
    /// The commit that may be gone back to.
    pub accept_rewind: Option<String>,
}

/// What to look at, and what is known.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The source's namespace and name: what is kept of a repository is kept under it.
    pub key: String,
    pub origin: Origin,
    /// The state of the origin that was dealt with.
    pub seen: Option<String>,
    /// The commit that was applied last: the next one is to build on it.
    pub applied: Option<String>,
    /// The commit whose files are wanted too: a process that has just begun knows only its name.
    pub resumes: Option<String>,
    /// The commit in force, begun or whole: what was accepted once isn't asked about again.
    pub holds: Option<String>,
    /// Files that are known.
    pub library: Arc<Library>,
}

/// What a look found.
#[derive(Debug)]
pub(super) struct Looked {
    /// The credentials that worked, or none if they must be read again.
    pub credentials: Option<Arc<Credentials>>,
    pub found: Found,
    /// The files of the commit in force, if they were wanted and could be had.
    pub in_force: Option<Reading>,
    /// Whether they were wanted and couldn't be had.
    pub is_incomplete: bool,
}

/// What was found, and the files of the commit in force: none if they aren't wanted, an error if they can't be had.
type Read = (Found, Option<Result<Reading, Error>>);

/// What is there.
#[derive(Debug)]
pub(super) enum Found {
    /// The same as was seen.
    Same,
    /// Something new, read.
    Revision {
        tip: String,
        revision: String,
        files: Reading,
    },
    /// Something new that isn't to be applied: what is in force stays.
    Held { tip: String, revision: String, why: Held },
    /// It can't be looked at, or there is nothing to look at.
    Trouble(Held),
}

impl Found {
    /// A word of a fixed set, for a metric.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Revision { .. } => "new",
            Self::Held { .. } => "held",
            Self::Trouble(_) => "failed",
        }
    }
}

impl Looked {
    fn trouble(reason: &'static str, message: String, is_stalled: bool) -> Self {
        Self {
            credentials: None,
            in_force: None,
            is_incomplete: false,
            found: Found::Trouble(Held {
                reason,
                message,
                is_stalled,
            }),
        }
    }
}

/// Looks. Every failure is part of the answer.
pub(super) async fn look(door: &Cluster, git: &Git, order: Order) -> Looked {
    match &order.origin {
        Origin::Directory(folder) => directory(git, folder.clone(), &order).await,
        Origin::Git(branch) => match credentials(door, branch).await {
            Ok(credentials) => branch_tip(git, &order, branch, credentials).await,
            Err(looked) => looked,
        },
    }
}

async fn directory(git: &Git, folder: PathBuf, order: &Order) -> Looked {
    let listed = tokio::task::spawn_blocking(move || directory::list(&folder)).await;
    let unreadable = |error: String| Looked::trouble("DirectoryUnreadable", error, false);
    let listing = match listed {
        Ok(Ok(listing)) => listing,
        Ok(Err(error)) => return unreadable(error.to_string()),
        Err(error) => return unreadable(error.to_string()),
    };
    let (tip, revision) = (listing.revision.clone(), listing.revision);
    let found = match listing.files {
        _ if order.seen.as_deref() == Some(tip.as_str()) => Found::Same,
        files if files.is_empty() => Found::Held {
            why: path_empty("the folder"),
            tip,
            revision,
        },
        files => Found::Revision {
            files: parse(git, order, files).await,
            tip,
            revision,
        },
    };
    Looked {
        credentials: None,
        found,
        in_force: None,
        is_incomplete: false,
    }
}

/// Not on a thread that others need: a hostile file takes a while.
async fn parse(git: &Git, order: &Order, files: Vec<Blob>) -> Reading {
    let library = Arc::clone(&order.library);
    git.aside(move || library.read(files)).await
}

/// What the Secret holds. It is read once, and again after it was of no use: an idle source asks the API server nothing.
async fn credentials(door: &Cluster, branch: &Branch) -> Result<Arc<Credentials>, Looked> {
    if let Some(known) = &branch.credentials {
        return Ok(Arc::clone(known));
    }
    let Some(reference) = &branch.spec.secret_ref else {
        return Ok(Arc::default());
    };
    let data = match door.read::<Secret>(&branch.namespace, &reference.name).await {
        Ok(Some(secret)) => secret.data.unwrap_or_default(),
        Ok(None) => {
            let message = format!(
                "spec.secretRef: there is no Secret {} in {}",
                reference.name, branch.namespace
            );
            return Err(Looked::trouble("SecretMissing", message, true));
        }
        Err(error) => return Err(Looked::trouble("SecretUnreadable", error.to_string(), false)),
    };
    Credentials::of_secret(&branch.spec.url, &data)
        .map(Arc::new)
        .map_err(|why| {
            let message = format!("Secret {} of spec.secretRef: {why}", reference.name);
            Looked::trouble("SecretInvalid", message, true)
        })
}

async fn branch_tip(git: &Git, order: &Order, branch: &Branch, credentials: Arc<Credentials>) -> Looked {
    let remote = Remote {
        url: branch.spec.url.clone(),
        branch: branch.spec.branch().to_owned(),
        path: branch.spec.path.clone().unwrap_or_default(),
        credentials: Credentials::clone(&credentials),
    };
    let looked = async {
        let commit = match git.tip(&order.key, &remote).await? {
            Tip::Commit(commit) => commit,
            Tip::Missing { repository_is_empty } => return Ok(no_branch(&remote, repository_is_empty)),
        };
        if order.seen.as_deref() == Some(commit.as_str()) {
            let found = Found::Same;
            return Ok((found, None));
        }
        read(git, order, branch, &remote, commit).await
    };
    match looked.await {
        Ok((found, in_force)) => {
            if let Some(Err(error)) = &in_force {
                tracing::warn!(source = order.key, %error, "the commit in force can't be read");
            }
            Looked {
                credentials: Some(credentials),
                found,
                is_incomplete: matches!(in_force, Some(Err(_))),
                in_force: in_force.and_then(Result::ok),
            }
        }
        Err(error) => trouble(&error, credentials),
    }
}

fn no_branch(remote: &Remote, repository_is_empty: bool) -> Read {
    let (reason, message) = if repository_is_empty {
        ("RepositoryEmpty", format!("{} has no branches", remote.url))
    } else {
        (
            "BranchMissing",
            format!("{} has no branch {}", remote.url, remote.branch),
        )
    };
    let message = format!("{message}; nothing is changed or deleted for that");
    (
        Found::Trouble(Held {
            reason,
            message,
            is_stalled: true,
        }),
        None,
    )
}

async fn read(git: &Git, order: &Order, branch: &Branch, remote: &Remote, commit: String) -> Result<Read, Error> {
    let fetch = async |since, read| {
        let fetch = Fetch {
            tip: &commit,
            since,
            read,
            known: &order.library.ids,
        };
        git.fetch(&order.key, remote, &fetch, branch.spec.timeout()).await
    };
    let fetched = fetch(order.applied.as_deref(), &commit).await?;
    let in_force = match order.resumes.as_deref().filter(|resumes| *resumes != commit) {
        Some(resumes) => match fetch(Some(resumes), resumes).await.map(|fetched| fetched.tree) {
            Ok(Tree::Files(files)) => Some(Ok(parse(git, order, files).await)),
            Ok(Tree::NoPath) => None,
            Err(error) => Some(Err(error)),
        },
        None => None,
    };
    let accepted = branch.accept_rewind.as_deref();
    let is_rewound = fetched.relation == Relation::Rewound
        && order.holds.as_ref() != Some(&commit)
        && !accepted.is_some_and(|by| by.ends_with(&commit));
    let found = found(git, order, remote, commit, fetched.tree, is_rewound).await;
    Ok((found, in_force))
}

/// What a new commit means.
async fn found(git: &Git, order: &Order, remote: &Remote, tip: String, tree: Tree, is_rewound: bool) -> Found {
    let revision = format!("{}@sha1:{tip}", remote.branch);
    let why = match tree {
        _ if is_rewound => rewound(order, remote, &tip),
        Tree::NoPath => Held {
            reason: "PathMissing",
            message: format!(
                "{revision} has no folder {:?}; nothing is changed or deleted for that",
                remote.path
            ),
            is_stalled: true,
        },
        Tree::Files(files) if files.is_empty() => path_empty(&revision),
        Tree::Files(files) => {
            let files = parse(git, order, files).await;
            return Found::Revision { tip, revision, files };
        }
    };
    Found::Held { tip, revision, why }
}

fn path_empty(what: &str) -> Held {
    Held {
        reason: "PathEmpty",
        message: format!("{what} has no specs (*.yaml, *.yml) under its path; nothing is changed or deleted for that"),
        is_stalled: true,
    }
}

fn rewound(order: &Order, remote: &Remote, commit: &str) -> Held {
    let (namespace, name) = order.key.split_once('/').unwrap_or_default();
    let applied = order.applied.as_deref().unwrap_or_default();
    Held {
        reason: "Rewound",
        message: format!(
            "{} went back to {commit}, which doesn't build on {applied}. Push a commit that does, or accept it: \
             kubectl annotate -n {namespace} codisgitsource {name} codis.k8s.io/accept-rewind={commit} --overwrite",
            remote.branch
        ),
        is_stalled: true,
    }
}

fn trouble(error: &Error, credentials: Arc<Credentials>) -> Looked {
    let (reason, is_stalled) = match error.kind {
        ErrorKind::Credentials => ("CredentialsRefused", true),
        ErrorKind::Untrusted => ("Untrusted", true),
        ErrorKind::NotFound => ("RepositoryMissing", true),
        ErrorKind::Unsupported => ("Unsupported", true),
        ErrorKind::TooLarge => ("TooLarge", true),
        ErrorKind::Unreachable => ("Unreachable", false),
        ErrorKind::Timeout => ("Timeout", false),
        ErrorKind::Gone => ("MovedMeanwhile", false),
        ErrorKind::Protocol => ("ProtocolError", false),
        ErrorKind::Worker => ("WorkerFailed", false),
    };
    let mut looked = Looked::trouble(reason, error.to_string(), is_stalled);
    // Anything else may be for want of the right Secret, a 404 too: it is read again.
    let isnt_about_them = [
        ErrorKind::Unreachable,
        ErrorKind::Timeout,
        ErrorKind::Gone,
        ErrorKind::TooLarge,
        ErrorKind::Worker,
    ];
    if isnt_about_them.contains(&error.kind) {
        looked.credentials = Some(credentials);
    }
    looked
}
