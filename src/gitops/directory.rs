//! A plain directory as a source: for development, mounted ConfigMaps and sites without Git.
//!
//! Its revision is a hash of what is in it. A directory is no commit: it is read until two readings agree, so that what
//! is applied was there as a whole, and not half of an old and half of a new state.

mod watch;

use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

pub use watch::{Watch, watch};

use super::{Blob, Content, FILE_CAP, FILES_CAP, TOTAL_CAP};

/// Names of any kind: somebody may have mounted `/`.
const MAX_NAMES: usize = 20_000;
/// Readings until two in a row must agree.
const MAX_READINGS: usize = 10;

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// `dir@sha256:` and 64 hexadecimal digits: equal only if all paths and contents are.
    pub revision: String,
    /// The files `*.yaml` and `*.yml`, in the order of their paths.
    pub files: Vec<Blob>,
}

/// Why a directory can't be listed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It, or something in it, can't be read.
    #[error("{path} can't be read: {error}")]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// There is more than a source may have.
    #[error("the directory has more than {0}")]
    TooMuch(String),
    /// It changes faster than it can be read.
    #[error("the directory changed during each of {MAX_READINGS} readings")]
    Unsettled,
    /// It can't be watched.
    #[error("the directory can't be watched: {0}")]
    Watch(#[from] notify::Error),
}

impl DirectoryError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Read { path, error }
    }
}

/// Lists a directory. Names that begin with a dot are left out; directories below it are listed, too. Blocks.
///
/// # Errors
/// When it can't be read, has too much, or never holds still.
pub fn list(directory: &Path) -> Result<Listing, DirectoryError> {
    until_two_agree(|| read_all(directory))
}

fn until_two_agree<T: PartialEq>(mut read: impl FnMut() -> Result<T, DirectoryError>) -> Result<T, DirectoryError> {
    let (mut last, mut vanished) = (None, None);
    for _ in 0..MAX_READINGS {
        match read() {
            Ok(result) if last.as_ref() == Some(&result) => return Ok(result),
            Ok(result) => (last, vanished) = (Some(result), None),
            // In the middle of a swap, unless it goes on.
            Err(DirectoryError::Read { path, error }) if error.kind() == io::ErrorKind::NotFound => {
                (last, vanished) = (None, Some(DirectoryError::Read { path, error }));
            }
            Err(error) => return Err(error),
        }
    }
    Err(vanished.unwrap_or(DirectoryError::Unsettled))
}

fn read_all(directory: &Path) -> Result<Listing, DirectoryError> {
    // The top may be a link. What is below must not lead out of where it leads to.
    let top = directory.canonicalize().map_err(DirectoryError::read(directory))?;
    let mut files = Vec::new();
    let mut bytes = 0;
    for (path, found) in Scan::of(&top)? {
        let (content, hash) = match found.read(&top)? {
            Ok(text) => {
                bytes += text.len();
                let hash = hex(&Sha256::digest(&text));
                (Content::Text(text), hash)
            }
            Err(reason) => {
                let hash = hex(&Sha256::digest(format!("refused: {reason}")));
                (Content::Refused(reason), hash)
            }
        };
        if bytes > TOTAL_CAP {
            return Err(DirectoryError::TooMuch(format!("{} MiB of files", TOTAL_CAP >> 20)));
        }
        files.push(Blob {
            path,
            id: hash,
            content,
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Listing {
        revision: revision(&files),
        files,
    })
}

/// Paths have no NUL and ids one length, so that no two listings give the same input.
fn revision(files: &[Blob]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(&file.path);
        hash.update([0]);
        hash.update(&file.id);
    }
    format!("dir@sha256:{}", hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name that a spec may have.
struct Found {
    path: PathBuf,
    readable_name: bool,
    kind: fs::FileType,
}

/// The files below a directory whose names are those of specs.
struct Scan {
    top: PathBuf,
    names: usize,
    files: Vec<(String, Found)>,
}

impl Scan {
    fn of(top: &Path) -> Result<Vec<(String, Found)>, DirectoryError> {
        let mut scan = Self {
            top: top.to_owned(),
            names: 0,
            files: Vec::new(),
        };
        let mut left = vec![top.to_owned()];
        while let Some(directory) = left.pop() {
            let entries = fs::read_dir(&directory).map_err(DirectoryError::read(&directory))?;
            for entry in entries {
                let entry = entry.map_err(DirectoryError::read(&directory))?;
                left.extend(scan.entry(&entry)?);
            }
        }
        Ok(scan.files)
    }

    /// Notes a file; a directory is still to be read.
    fn entry(&mut self, entry: &fs::DirEntry) -> Result<Option<PathBuf>, DirectoryError> {
        self.names += 1;
        if self.names > MAX_NAMES {
            return Err(DirectoryError::TooMuch(format!("{MAX_NAMES} names")));
        }
        let (path, name) = (entry.path(), entry.file_name());
        if name.as_encoded_bytes().starts_with(b".") {
            return Ok(None);
        }
        let kind = entry.file_type().map_err(DirectoryError::read(&path))?;
        if kind.is_dir() {
            return Ok(Some(path));
        }
        let spec = matches!(
            path.extension().and_then(|extension| extension.to_str()),
            Some("yaml" | "yml")
        );
        // Specs behind a link to a directory aren't read; to leave them out silently would look like their removal.
        let hidden = || kind.is_symlink() && fs::metadata(&path).is_ok_and(|target| target.is_dir());
        if spec || hidden() {
            let below = path.strip_prefix(&self.top).unwrap_or(&path);
            let readable_name = below.to_str().is_some();
            let below = below.to_string_lossy().into_owned();
            self.files.push((
                below,
                Found {
                    path,
                    readable_name,
                    kind,
                },
            ));
        }
        if self.files.len() > FILES_CAP {
            return Err(DirectoryError::TooMuch(format!("{FILES_CAP} files")));
        }
        Ok(None)
    }
}

impl Found {
    /// The text, or why it isn't read.
    fn read(&self, top: &Path) -> Result<Result<String, String>, DirectoryError> {
        let refused = |reason: &str| Ok(Err(reason.to_owned()));
        if !self.readable_name {
            return refused("its name is not UTF-8");
        }
        let mut path = self.path.clone();
        if self.kind.is_symlink() {
            path = match path.canonicalize() {
                Ok(target) if target.starts_with(top) => target,
                Ok(_) => return refused("is a link that leaves the directory: put the file itself here"),
                Err(_) => return refused("is a link that leads nowhere"),
            };
        }
        let about = fs::metadata(&path).map_err(DirectoryError::read(&self.path))?;
        if about.is_dir() {
            return refused("is a link to a directory, which isn't followed: put the directory itself here");
        }
        if !about.is_file() {
            return refused("is not a file");
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).map_err(DirectoryError::read(&self.path))?;
        let read = file.take(FILE_CAP as u64 + 1).read_to_end(&mut bytes);
        if read.map_err(DirectoryError::read(&self.path))? > FILE_CAP {
            return Ok(Err(format!("is larger than {} KiB", FILE_CAP >> 10)));
        }
        Ok(String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned()))
    }
}

#[cfg(test)]
mod tests;
