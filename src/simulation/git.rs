//! A Git server in a world, with one repository, and the people who push to it. It keeps what they mean: the specs that are
//! wished, whatever becomes of the branch meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::gitops::{
    Blob, Content,
    git::{Error, ErrorKind, Fetch, Fetched, Relation, Remote, Repositories, Tip, Tree},
};

/// Its one branch that is followed.
pub const BRANCH: &str = "main";
/// An answer takes so long.
const ANSWER: Duration = Duration::from_millis(40);

/// Files by their paths from the root.
pub type Files = BTreeMap<String, String>;

/// A repository. Cheap to clone: all clones are the same one.
#[derive(Clone, Default)]
pub struct Repository(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    commits: BTreeMap<String, Commit>,
    /// Where the branch is, if there is one.
    tip: Option<String>,
    /// There is another branch.
    has_another: bool,
    /// The newest commit that people made; those before it are its ancestors.
    newest: Option<String>,
    /// Nobody answers.
    is_down: bool,
    /// What an answer takes beyond the usual.
    delay: Duration,
}

#[derive(Clone, Default)]
struct Commit {
    parent: Option<String>,
    files: Files,
    /// It may be applied.
    is_good: bool,
}

impl Repository {
    /// A commit upon the newest one, pushed: the branch is at it, wherever it was. Gives its name.
    pub fn push(&self, files: Files, is_good: bool) -> String {
        let mut inner = self.open();
        let parent = inner.newest.clone();
        let id = name_of(&[
            parent.as_deref().unwrap_or_default(),
            &format!("{files:?} {}", inner.commits.len()),
        ]);
        let commit = Commit { parent, files, is_good };
        inner.commits.insert(id.clone(), commit);
        (inner.newest, inner.tip, inner.has_another) = (Some(id.clone()), Some(id.clone()), true);
        id
    }

    /// The branch is at this commit, or gone.
    pub fn set_tip(&self, tip: Option<String>) {
        self.open().tip = tip;
    }

    /// There is no branch any more, not even another one.
    pub fn wipe(&self) {
        let mut inner = self.open();
        (inner.tip, inner.has_another) = (None, false);
    }

    /// All is as people have it.
    pub fn put_right(&self) {
        let mut inner = self.open();
        (inner.tip, inner.has_another) = (inner.newest.clone(), true);
    }

    /// Whether nobody answers.
    pub fn set_down(&self, is_down: bool) {
        self.open().is_down = is_down;
    }

    /// What an answer takes beyond the usual.
    pub fn set_delay(&self, delay: Duration) {
        self.open().delay = delay;
    }

    /// The newest commit that people made.
    #[must_use]
    pub fn newest(&self) -> Option<String> {
        self.open().newest.clone()
    }

    /// The files of a commit that may be applied; `None` for any other one.
    #[must_use]
    pub fn good(&self, commit: &str) -> Option<Files> {
        let inner = self.open();
        let found = inner.commits.get(commit).filter(|commit| commit.is_good);
        found.map(|commit| commit.files.clone())
    }

    /// The good commits from the newest one back.
    #[must_use]
    pub fn good_ones(&self) -> Vec<String> {
        let inner = self.open();
        let line = inner.line(inner.newest.as_deref());
        let is_good = |id: &String| inner.commits.get(id).is_some_and(|commit| commit.is_good);
        line.into_iter().filter(is_good).collect()
    }

    fn open(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A commit and its ancestors, the newest first.
    fn line(&self, from: Option<&str>) -> Vec<String> {
        let next = |id: &String| self.commits.get(id).and_then(|commit| commit.parent.clone());
        std::iter::successors(from.map(str::to_owned), next).collect()
    }

    fn where_it_is(&self, remote: &Remote) -> Tip {
        match self.tip.clone().filter(|_| remote.branch == BRANCH) {
            Some(tip) => Tip::Commit(tip),
            None => Tip::Missing {
                repository_is_empty: self.tip.is_none() && !self.has_another,
            },
        }
    }

    /// Only what the branch leads to can be had: nobody keeps what it left behind.
    fn fetched(&self, asked: &Asked) -> Result<Fetched, Error> {
        let gone = || {
            failed(
                ErrorKind::Gone,
                "the branch moved meanwhile, or the commit isn't to be had",
            )
        };
        let line = self.line(self.tip.as_deref());
        if line.first() != Some(&asked.tip) || !line.contains(&asked.read) {
            return Err(gone());
        }
        let relation = match &asked.since {
            None => Relation::None,
            Some(since) if *since == asked.tip => Relation::Same,
            Some(since) if line.contains(since) => Relation::Descends,
            Some(_) => Relation::Rewound,
        };
        let files = &self.commits.get(&asked.read).ok_or_else(gone)?.files;
        let tree = tree(files, &asked.path, &asked.known);
        Ok(Fetched { relation, tree })
    }
}

/// What a fetch asks for.
struct Asked {
    tip: String,
    since: Option<String>,
    read: String,
    path: String,
    known: BTreeSet<String>,
}

impl Repositories for Repository {
    fn tip(&self, remote: &Remote) -> BoxFuture<'static, Result<Tip, Error>> {
        let remote = remote.clone();
        self.answer(move |inner| Ok(inner.where_it_is(&remote)))
    }

    fn fetch(&self, remote: &Remote, fetch: &Fetch<'_>) -> BoxFuture<'static, Result<Fetched, Error>> {
        let asked = Asked {
            tip: fetch.tip.to_owned(),
            since: fetch.since.map(str::to_owned),
            read: fetch.read.to_owned(),
            path: remote.path.clone(),
            known: fetch.known.clone(),
        };
        self.answer(move |inner| inner.fetched(&asked))
    }
}

impl Repository {
    /// The answer of the state that is there when it is given.
    fn answer<T: Send + 'static>(
        &self,
        answer: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Error>> {
        let repository = self.clone();
        let delay = ANSWER + repository.open().delay;
        async move {
            sleep(delay).await;
            let inner = repository.open();
            if inner.is_down {
                return Err(failed(ErrorKind::Unreachable, "nobody answers"));
            }
            answer(&inner)
        }
        .boxed()
    }
}

fn tree(files: &Files, path: &str, known: &BTreeSet<String>) -> Tree {
    let folder = format!("{}/", path.trim_end_matches('/'));
    let below: Vec<_> = files.iter().filter(|(path, _)| path.starts_with(&folder)).collect();
    if below.is_empty() {
        return Tree::NoPath;
    }
    let is_spec = |path: &str| path.ends_with(".yaml") || path.ends_with(".yml");
    let blob = |(path, text): (&String, &String)| {
        let id = name_of(&[text]);
        let content = if known.contains(&id) {
            Content::Known
        } else {
            Content::Text(text.clone())
        };
        Blob {
            path: path.clone(),
            id,
            content,
        }
    };
    Tree::Files(below.into_iter().filter(|(path, _)| is_spec(path)).map(blob).collect())
}

fn failed(kind: ErrorKind, message: &str) -> Error {
    Error {
        kind,
        message: message.to_owned(),
    }
}

/// Forty hexadecimal digits.
fn name_of(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize()[..20]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gitops::git::{Credentials, Git};

    const LIMIT: Duration = Duration::from_secs(5);

    fn files(path: &str, text: &str) -> Files {
        [(path.to_owned(), text.to_owned())].into()
    }

    fn remote() -> Remote {
        Remote {
            url: "https://git/fleet.git".to_owned(),
            branch: BRANCH.to_owned(),
            path: "clusters".to_owned(),
            credentials: Credentials::default(),
        }
    }

    async fn fetched(git: &Git, tip: &str, since: Option<&str>) -> Result<Fetched, Error> {
        let known = BTreeSet::new();
        let fetch = Fetch {
            tip,
            since,
            read: tip,
            known: &known,
        };
        git.fetch("ns/fleet", &remote(), &fetch, LIMIT).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_builds_on_those_before_it_and_not_on_those_that_the_branch_left() {
        let repository = Repository::default();
        let git = Git::over(Arc::new(repository.clone()));
        let missing = |repository_is_empty| Ok(Tip::Missing { repository_is_empty });
        assert_eq!(git.tip("ns/fleet", &remote()).await, missing(true));
        let one = repository.push(files("clusters/a.yaml", "one"), true);
        let two = repository.push(files("clusters/a.yaml", "two"), true);
        assert_eq!(git.tip("ns/fleet", &remote()).await, Ok(Tip::Commit(two.clone())));
        let of_two = fetched(&git, &two, Some(&one)).await.unwrap();
        assert_eq!(of_two.relation, Relation::Descends);
        assert!(matches!(&of_two.tree, Tree::Files(files) if files[0].content == Content::Text("two".into())));
        repository.set_tip(Some(one.clone()));
        assert_eq!(
            fetched(&git, &one, Some(&two)).await.unwrap().relation,
            Relation::Rewound
        );
        assert_eq!(fetched(&git, &two, None).await.unwrap_err().kind, ErrorKind::Gone);
        repository.set_tip(None);
        assert_eq!(git.tip("ns/fleet", &remote()).await, missing(false));
        let elsewhere = repository.push(files("README.md", "no specs"), false);
        assert_eq!(fetched(&git, &elsewhere, None).await.unwrap().tree, Tree::NoPath);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_and_who_answers_too_late_are_told_apart() {
        let repository = Repository::default();
        let git = Git::over(Arc::new(repository.clone()));
        repository.set_down(true);
        let kind = |answer: Result<Tip, Error>| answer.unwrap_err().kind;
        assert_eq!(kind(git.tip("ns/fleet", &remote()).await), ErrorKind::Unreachable);
        repository.set_down(false);
        repository.set_delay(Duration::from_secs(11));
        assert_eq!(kind(git.tip("ns/fleet", &remote()).await), ErrorKind::Timeout);
    }
}
