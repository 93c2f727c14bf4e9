//! Reads the spec files of a commit from its tree: no checkout, nothing that isn't a spec file.

use std::collections::BTreeSet;

use git2::{ErrorCode, ObjectType, Odb, Oid, Repository, TreeEntry};

use super::connection::Failure;
use crate::gitops::{
    FILE_CAP, FILES_CAP, TOTAL_CAP,
    git::{Blob, Content, Error, ErrorKind, Tree},
};

/// The most entries of trees that are looked at: trees can contain one another in vast numbers.
const ENTRIES_CAP: usize = 200_000;
/// The deepest directory under the path.
const LEVELS_CAP: usize = 32;

const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Modes of entries that are files.
const FILE: i32 = 0o100_644;
const EXECUTABLE: i32 = 0o100_755;
const SYMLINK: i32 = 0o120_000;
const SUBMODULE: i32 = 0o160_000;

/// The spec files of a commit under a path.
pub(super) fn tree(
    repository: &Repository,
    commit: Oid,
    path: &str,
    known: &BTreeSet<String>,
) -> Result<Tree, Failure> {
    let commit = match repository.find_commit(commit) {
        Err(error) if error.code() == ErrorCode::NotFound => {
            let text = format!("commit {commit} isn't to be had any more: it isn't in the branch's history");
            return Err(Error::new(ErrorKind::Gone, text).into());
        }
        commit => commit?,
    };
    let mut tree = commit.tree()?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let id = match tree.get_name(part) {
            Some(entry) if entry.kind() == Some(ObjectType::Tree) => entry.id(),
            _ => return Ok(Tree::NoPath),
        };
        tree = repository.find_tree(id)?;
    }
    let mut reader = Reader {
        repository,
        odb: repository.odb()?,
        known,
        files: Vec::new(),
        total: 0,
        entries: 0,
    };
    let prefix = if path.is_empty() {
        String::new()
    } else {
        format!("{path}/")
    };
    reader.directory(&tree, &prefix, 0)?;
    let mut files = reader.files;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Tree::Files(files))
}

struct Reader<'a> {
    repository: &'a Repository,
    odb: Odb<'a>,
    known: &'a BTreeSet<String>,
    files: Vec<Blob>,
    total: usize,
    entries: usize,
}

impl Reader<'_> {
    fn directory(&mut self, tree: &git2::Tree<'_>, prefix: &str, level: usize) -> Result<(), Failure> {
        if level > LEVELS_CAP {
            return Err(too_large("more than 32 directories in one another"));
        }
        for entry in tree {
            self.entries += 1;
            if self.entries > ENTRIES_CAP {
                return Err(too_large("more than 200,000 files and directories"));
            }
            let name = String::from_utf8_lossy(entry.name_bytes());
            if name.starts_with('.') {
                continue;
            }
            let path = format!("{prefix}{name}");
            if entry.kind() == Some(ObjectType::Tree) {
                let tree = self.repository.find_tree(entry.id())?;
                self.directory(&tree, &format!("{path}/"), level + 1)?;
            } else if name.ends_with(".yaml") || name.ends_with(".yml") {
                self.file(path, &entry)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: String, entry: &TreeEntry<'_>) -> Result<(), Failure> {
        if self.files.len() == FILES_CAP {
            return Err(too_large("more than 2,000 spec files"));
        }
        let content = self.content(entry)?;
        self.files.push(Blob {
            path,
            id: entry.id().to_string(),
            content,
        });
        Ok(())
    }

    fn content(&mut self, entry: &TreeEntry<'_>) -> Result<Content, Failure> {
        let refused = |text: &str| Ok(Content::Refused(text.to_owned()));
        match entry.filemode() {
            FILE | EXECUTABLE => {}
            SYMLINK => return refused("is a symbolic link, which isn't followed: put the file itself here"),
            SUBMODULE => return refused("is a submodule, which isn't fetched: put the file itself here"),
            _ => return refused("isn't a regular file: put a file here"),
        }
        if entry.name().is_err() {
            return refused("has a name that isn't UTF-8: rename it");
        }
        let (size, _) = self.odb.read_header(entry.id())?;
        if size > FILE_CAP {
            return refused("is larger than 256 KiB: split it");
        }
        self.total += size;
        if self.total > TOTAL_CAP {
            return Err(too_large("more than 16 MiB of spec files"));
        }
        if self.known.contains(&entry.id().to_string()) {
            return Ok(Content::Known);
        }
        let object = self.odb.read(entry.id())?;
        let bytes = object.data();
        if bytes.starts_with(LFS_POINTER) {
            return refused("is a pointer of Git LFS, which isn't fetched: keep the file in Git itself");
        }
        let control = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r');
        match str::from_utf8(bytes) {
            Err(_) => refused("isn't UTF-8: save it as UTF-8"),
            Ok(_) if bytes.iter().any(control) => refused("has control characters, which YAML forbids: remove them"),
            Ok(text) => Ok(Content::Text(text.to_owned())),
        }
    }
}

fn too_large(what: &str) -> Failure {
    let text = format!("under the path are {what}: give a path with fewer");
    Failure::Told(Error::new(ErrorKind::TooLarge, text))
}
