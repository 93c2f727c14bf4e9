//! What is kept of a source: a bare repository that a fetch adds to.
//!
//! ```text
//! <directory>/home           the worker's HOME: known_hosts, ca.crt
//! <directory>/<url, branch>  gone when either changes
//!   repository               what is kept
//!   fresh                    a fetch from nothing, until it takes the place of what is kept
//!   rewound                  a verdict that took a fetch from nothing: `<since> <tip>`
//!   reading                  there while objects are read: if it's found, the last worker died of them
//! ```
//!
//! What is kept is mostly shallow. A shallow repository can say that a commit is an ancestor; that it is none is only
//! said by one whose history of the tip is complete, or if more of it can't be fetched.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
};

use git2::{ErrorCode, Oid, Repository, RepositoryInitOptions};

use super::{
    connection::{Connection, Failure, TIP},
    private_directory, read,
};
use crate::gitops::git::{DEPTH, Error, ErrorKind, Fetched, Relation, job::Job, short_hash};

/// libgit2 doesn't collect garbage: with more packs or bytes than these what is kept is dropped.
const PACKS: usize = 50;
const KEPT_BYTES: u64 = 128 << 20;

/// The commits of a job.
pub(super) struct Want {
    tip: Oid,
    since: Option<Oid>,
    read: Oid,
}

impl Want {
    pub(super) fn new(tip: &str, since: Option<&str>, read: &str) -> Result<Self, Error> {
        let id = |text: &str| {
            Some(text)
                .filter(|text| text.len() == 40)
                .and_then(|text| Oid::from_str(text).ok())
                .ok_or_else(|| Error::worker(format!("{text:?} isn't a commit's id")))
        };
        Ok(Self {
            tip: id(tip)?,
            since: since.map(id).transpose()?,
            read: id(read)?,
        })
    }
}

pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    /// The source's place. What was kept of another URL or branch is removed.
    pub(super) fn new(job: &Job) -> Result<Self, Error> {
        let name = short_hash(&[&job.url, &job.branch]);
        let place = || {
            for entry in fs::read_dir(&job.directory)? {
                let entry = entry?;
                if entry.file_name() != "home" && entry.file_name() != name.as_str() {
                    fs::remove_dir_all(entry.path())?;
                }
            }
            let directory = job.directory.join(&name);
            private_directory(&directory)?;
            Ok(Self { directory })
        };
        place().map_err(|error: io::Error| Error::worker(format!("{}: {error}", job.directory.display())))
    }

    /// Brings what is wanted and reads it. If what is kept is odd, once more from nothing.
    pub(super) fn fetch(
        &self,
        connection: &Connection<'_>,
        want: &Want,
        path: &str,
        known: &BTreeSet<String>,
    ) -> Result<Fetched, Error> {
        let attempt = || {
            self.tidy().map_err(Error::worker)?;
            let (repository, relation) = self.bring(connection, want)?;
            let _reading = self.reading()?;
            let tree = read::tree(&repository, want.read, path, known)?;
            Ok(Fetched { relation, tree })
        };
        let outcome = match attempt() {
            Err(Failure::Odd(_)) => {
                remove(&self.kept_path()).map_err(Error::worker)?;
                attempt()
            }
            outcome => outcome,
        };
        outcome.map_err(|failure| match failure {
            Failure::Told(error) => error,
            Failure::Odd(error) => Error::worker(error.message()),
        })
    }

    /// A repository with the tip in it, and how the tip follows the commit in force.
    fn bring(&self, connection: &Connection<'_>, want: &Want) -> Result<(Repository, Relation), Failure> {
        let Some(mut kept) = self.kept() else {
            let (relation, fresh) = self.afresh(connection, want)?;
            return self.keep(fresh).map(|repository| (repository, relation));
        };
        if !has(&kept, want.tip) {
            match connection.fetch(&kept, 0) {
                // Another history altogether, and large: its last commit will do to read from.
                Err(Failure::Told(error)) if error.kind == ErrorKind::TooLarge => connection.fetch(&kept, 1)?,
                outcome => outcome?,
            }
            arrived(&kept, want.tip)?;
            kept = reopened(&kept)?;
        }
        if let Some(relation) = self.relation(&kept, want)? {
            return Ok((kept, relation));
        }
        let (relation, fresh) = self.afresh(connection, want)?;
        // What is kept may be the only place that still has the commit in force.
        if relation == Relation::Rewound && want.since.is_some_and(|since| has(&kept, since)) {
            self.write_verdict(want)?;
            remove(&fresh).map_err(Error::worker)?;
            return Ok((kept, relation));
        }
        drop(kept);
        self.keep(fresh).map(|repository| (repository, relation))
    }

    /// Fetches from nothing, as little as it takes to tell how the tip follows; the directory where it is.
    fn afresh(&self, connection: &Connection<'_>, want: &Want) -> Result<(Relation, PathBuf), Failure> {
        let since_matters = want.since.is_some_and(|since| since != want.tip);
        let depths: &[(&str, i32)] = if since_matters {
            &[("fresh", DEPTH), ("whole", 0)]
        } else {
            &[("fresh", 1)]
        };
        let mut last = None;
        for (name, depth) in depths {
            match self.fresh(connection, want, name, *depth) {
                Ok(repository) => {
                    let path = repository.path().to_owned();
                    if let Some(relation) = self.relation(&repository, want)? {
                        return Ok((relation, path));
                    }
                    last = Some(path);
                }
                Err(Failure::Told(error)) if error.kind == ErrorKind::TooLarge && since_matters => break,
                Err(failure) => return Err(failure),
            }
        }
        // Not in what can be fetched: somebody must look at it, as at a rewind.
        let path = match last {
            Some(path) => path,
            None => self.fresh(connection, want, "fresh", 1)?.path().to_owned(),
        };
        self.write_verdict(want)?;
        Ok((Relation::Rewound, path))
    }

    fn fresh(&self, connection: &Connection<'_>, want: &Want, name: &str, depth: i32) -> Result<Repository, Failure> {
        let path = self.directory.join(name);
        remove(&path).map_err(Error::worker)?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false);
        let repository = Repository::init_opts(&path, &options)?;
        connection.fetch(&repository, depth)?;
        arrived(&repository, want.tip)?;
        Ok(reopened(&repository)?)
    }

    /// How the tip follows the commit in force, if this repository can tell.
    fn relation(&self, repository: &Repository, want: &Want) -> Result<Option<Relation>, Failure> {
        let Some(since) = want.since else {
            return Ok(Some(Relation::None));
        };
        if since == want.tip {
            return Ok(Some(Relation::Same));
        }
        let _reading = self.reading()?;
        Ok(match ancestry(repository, want.tip, since)? {
            Ancestry::Ancestor => Some(Relation::Descends),
            Ancestry::Stranger => Some(Relation::Rewound),
            Ancestry::CutOff if self.has_verdict(want) => Some(Relation::Rewound),
            Ancestry::CutOff => None,
        })
    }

    fn kept_path(&self) -> PathBuf {
        self.directory.join("repository")
    }

    fn kept(&self) -> Option<Repository> {
        Repository::open_bare(self.kept_path()).ok()
    }

    /// What is fresh takes the place of what is kept.
    fn keep(&self, fresh: PathBuf) -> Result<Repository, Failure> {
        let path = self.kept_path();
        remove(&path)
            .and_then(|()| fs::rename(fresh, &path))
            .map_err(Error::worker)?;
        Ok(Repository::open_bare(path)?)
    }

    /// Removes what the last worker left behind if it was killed, and what has grown too large.
    fn tidy(&self) -> io::Result<()> {
        remove(&self.directory.join("fresh"))?;
        remove(&self.directory.join("whole"))?;
        let kept = self.kept_path();
        if self.directory.join("reading").exists() {
            fs::remove_file(self.directory.join("reading"))?;
            return remove(&kept);
        }
        let (mut packs, mut bytes) = (0, 0);
        for (path, length) in files(&kept)? {
            let extension = path.extension().unwrap_or_default();
            let in_packs = path.parent().is_some_and(|parent| parent.ends_with("objects/pack"));
            if extension == "lock" || (in_packs && extension != "pack" && extension != "idx") {
                fs::remove_file(&path)?;
                continue;
            }
            packs += usize::from(extension == "pack");
            bytes += length;
        }
        if packs > PACKS || bytes > KEPT_BYTES {
            remove(&kept)?;
        }
        Ok(())
    }

    /// Says until it's dropped that objects are read.
    fn reading(&self) -> Result<Reading, Error> {
        let path = self.directory.join("reading");
        fs::write(&path, "").map_err(Error::worker)?;
        Ok(Reading(path))
    }

    fn write_verdict(&self, want: &Want) -> Result<(), Error> {
        fs::write(self.directory.join("rewound"), verdict(want)).map_err(Error::worker)
    }

    fn has_verdict(&self, want: &Want) -> bool {
        fs::read_to_string(self.directory.join("rewound")).is_ok_and(|text| text == verdict(want))
    }
}

struct Reading(PathBuf);

impl Drop for Reading {
    fn drop(&mut self) {
        // If it stays, the next worker starts from nothing: slower, not wrong.
        let _ = fs::remove_file(&self.0);
    }
}

fn verdict(want: &Want) -> String {
    format!(
        "{} {}",
        want.since.map(|since| since.to_string()).unwrap_or_default(),
        want.tip
    )
}

/// What a repository's history says of two commits.
enum Ancestry {
    Ancestor,
    /// The later one's history is complete, and the earlier one isn't in it.
    Stranger,
    /// The later one's history is cut off before the earlier one is found.
    CutOff,
}

/// Looks for a commit among another's ancestors. libgit2's own functions for this fail where a history is cut off.
fn ancestry(repository: &Repository, of: Oid, wanted: Oid) -> Result<Ancestry, Failure> {
    let shallow = fs::read_to_string(repository.path().join("shallow")).unwrap_or_default();
    let ends: HashSet<&str> = shallow.lines().collect();
    let (mut seen, mut next) = (HashSet::from([of]), VecDeque::from([of]));
    let mut cut_off = false;
    while let Some(id) = next.pop_front() {
        if id == wanted {
            return Ok(Ancestry::Ancestor);
        }
        if ends.contains(id.to_string().as_str()) {
            cut_off = true;
            continue;
        }
        next.extend(
            repository
                .find_commit(id)?
                .parent_ids()
                .filter(|parent| seen.insert(*parent)),
        );
    }
    Ok(if cut_off { Ancestry::CutOff } else { Ancestry::Stranger })
}

/// The repository as it is now: libgit2 reads only once which commits have no parents here.
fn reopened(repository: &Repository) -> Result<Repository, git2::Error> {
    Repository::open_bare(repository.path())
}

/// Whether a commit is there. That it can be read shows when it is.
fn has(repository: &Repository, commit: Oid) -> bool {
    repository.find_commit(commit).is_ok()
}

/// libgit2 calls a fetch fine that brought nothing: the branch is gone, or its list of refs was cut off.
fn arrived(repository: &Repository, tip: Oid) -> Result<(), Failure> {
    match repository.refname_to_id(TIP) {
        Ok(at) if at == tip => Ok(()),
        Ok(_) => Err(Error::new(
            ErrorKind::Gone,
            "the branch moved while it was fetched: it's polled again",
        )
        .into()),
        Err(error) if error.code() == ErrorCode::NotFound => {
            let text = "the server didn't show the branch while it was fetched: it's polled again";
            Err(Error::new(ErrorKind::Gone, text).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes a directory that may not be there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Files under a directory that may not be there, and their lengths.
fn files(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                directories.push(entry.path());
            } else {
                found.push((entry.path(), meta.len()));
            }
        }
    }
    Ok(found)
}
