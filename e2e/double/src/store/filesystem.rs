//! Nodes as files: `<root>/data/<path>`, with one lock file for the whole root (§10).

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::Outcome;

/// A folder; relative roots are relative to the working directory.
#[derive(Debug)]
pub struct Filesystem {
    root: PathBuf,
}

impl Filesystem {
    /// The folder at a path; it need not exist.
    pub fn new(root: &str) -> Self {
        Self { root: root.into() }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.root.join("data").join(path.trim_start_matches('/'))
    }

    /// Holds the root's file lock for one operation; a second process fails at once, as with Codis.
    fn locked<T>(&self, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        fs::create_dir_all(&self.root)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join("data.lck"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => std::io::Error::other("resource temporarily unavailable"),
            TryLockError::Error(error) => error,
        })?;
        let done = work();
        // Closing is not enough: a child that is being forked at this moment holds the same lock until it execs.
        lock.unlock()?;
        done
    }

    /// Writes beside and renames, so that a crash leaves the old content or the new.
    fn replace(&self, path: &Path, text: &[u8]) -> Outcome<()> {
        let temp = self.root.join("temp");
        fs::create_dir_all(&temp)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let draft = temp.join(format!("draft-{}", std::process::id()));
        File::create(&draft)?.write_all(text)?;
        fs::rename(&draft, path)
    }

    /// Creates a node; an error if it exists.
    pub fn create(&self, path: &str, text: &[u8]) -> Outcome<()> {
        let file = self.file(path);
        self.locked(|| match fs::exists(&file)? {
            true => Err(ErrorKind::AlreadyExists.into()),
            false => self.replace(&file, text),
        })
    }

    /// Creates or replaces a node.
    pub fn write(&self, path: &str, text: &[u8]) -> Outcome<()> {
        self.locked(|| self.replace(&self.file(path), text))
    }

    /// Deletes a node, whether or not it exists.
    pub fn remove(&self, path: &str) -> Outcome<()> {
        self.locked(|| match fs::remove_file(self.file(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// A node's text.
    pub fn read(&self, path: &str) -> Outcome<Option<Vec<u8>>> {
        self.locked(|| match fs::read(self.file(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => text.map(Some),
        })
    }

    /// The texts of a node's children, sorted by name.
    pub fn read_all(&self, path: &str) -> Outcome<Vec<Vec<u8>>> {
        self.locked(|| self.children(path)?.iter().map(fs::read).collect())
    }

    /// The names of a node's children, sorted.
    pub fn names(&self, path: &str) -> Outcome<Vec<String>> {
        let name = |child: &PathBuf| child.file_name().map(|name| name.to_string_lossy().into_owned());
        self.locked(|| Ok(self.children(path)?.iter().filter_map(name).collect()))
    }

    fn children(&self, path: &str) -> Outcome<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.file(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Outcome<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }
}
