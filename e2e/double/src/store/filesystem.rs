//! Nodes as files: `<root>/data/<path>`, with one lock file for the whole root (§10).

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::Outcome;
use crate::host::{self, Files};

/// A folder; relative roots are relative to the working directory.
#[derive(Debug)]
pub struct Filesystem {
    root: String,
}

impl Filesystem {
    /// The folder at a path; it need not exist.
    pub fn new(root: &str) -> Self {
        Self { root: root.into() }
    }

    fn file(&self, path: &str) -> String {
        format!(
            "{}/data/{}",
            self.root.trim_end_matches('/'),
            path.trim_start_matches('/')
        )
    }

    /// The files of the current task's host, for one operation; real ones under the root's file lock.
    fn files<T>(&self, work: impl FnOnce(&dyn Files) -> Outcome<T>) -> Outcome<T> {
        match host::current() {
            Some(host) => work(&*host.files()),
            None => Disk(Path::new(&self.root)).locked(work),
        }
    }

    /// Creates a node; an error if it exists.
    pub fn create(&self, path: &str, text: &[u8]) -> Outcome<()> {
        let file = self.file(path);
        self.files(|files| match files.read(&file)? {
            Some(_) => Err(ErrorKind::AlreadyExists.into()),
            None => files.write(&file, text),
        })
    }

    /// Creates or replaces a node.
    pub fn write(&self, path: &str, text: &[u8]) -> Outcome<()> {
        self.files(|files| files.write(&self.file(path), text))
    }

    /// Deletes a node, whether or not it exists.
    pub fn remove(&self, path: &str) -> Outcome<()> {
        self.files(|files| files.remove(&self.file(path)))
    }

    /// A node's text.
    pub fn read(&self, path: &str) -> Outcome<Option<Vec<u8>>> {
        self.files(|files| files.read(&self.file(path)))
    }

    /// The texts of a node's children, sorted by name.
    pub fn read_all(&self, path: &str) -> Outcome<Vec<Vec<u8>>> {
        let folder = self.file(path);
        self.files(|files| {
            let names = files.names(&folder)?.into_iter();
            let texts = names.map(|name| files.read(&format!("{folder}/{name}")));
            texts.filter_map(Result::transpose).collect()
        })
    }

    /// The names of a node's children, sorted.
    pub fn names(&self, path: &str) -> Outcome<Vec<String>> {
        self.files(|files| files.names(&self.file(path)))
    }
}

/// A root on a real disk.
struct Disk<'a>(&'a Path);

impl Disk<'_> {
    /// Holds the root's file lock for one operation; a second process fails at once, as with Codis.
    fn locked<T>(&self, work: impl FnOnce(&dyn Files) -> Outcome<T>) -> Outcome<T> {
        fs::create_dir_all(self.0)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.0.join("data.lck"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => std::io::Error::other("resource temporarily unavailable"),
            TryLockError::Error(error) => error,
        })?;
        let done = work(self);
        // Closing is not enough: a child that is being forked at this moment holds the same lock until it execs.
        lock.unlock()?;
        done
    }
}

impl Files for Disk<'_> {
    fn read(&self, path: &str) -> Outcome<Option<Vec<u8>>> {
        match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => text.map(Some),
        }
    }

    /// Writes beside and renames, so that a crash leaves the old content or the new.
    fn write(&self, path: &str, content: &[u8]) -> Outcome<()> {
        let temp = self.0.join("temp");
        fs::create_dir_all(&temp)?;
        if let Some(parent) = Path::new(path).parent() {
            fs::create_dir_all(parent)?;
        }
        let draft = temp.join(format!("draft-{}", std::process::id()));
        File::create(&draft)?.write_all(content)?;
        fs::rename(&draft, path)
    }

    fn remove(&self, path: &str) -> Outcome<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn names(&self, folder: &str) -> Outcome<Vec<String>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let paths = entries.map(|entry| Ok(entry?.path()));
        let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let names = paths.map(|path| path.map(name)).filter_map(Result::transpose);
        let mut names = names.collect::<Outcome<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }
}
