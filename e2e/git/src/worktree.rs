//! A clone for tests, by the `git` command.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// No configuration but the repository's, one author, one time: the same commits give the same ids.
pub(crate) const QUIET: [(&str, &str); 12] = [
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_AUTHOR_NAME", "Tests"),
    ("GIT_AUTHOR_EMAIL", "tests@example.com"),
    ("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z"),
    ("GIT_COMMITTER_NAME", "Tests"),
    ("GIT_COMMITTER_EMAIL", "tests@example.com"),
    ("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z"),
    // A volume of a pod may belong to another user than the server.
    ("GIT_CONFIG_COUNT", "1"),
    ("GIT_CONFIG_KEY_0", "safe.directory"),
    ("GIT_CONFIG_VALUE_0", "*"),
];

/// A clone whose commits can be pushed. Methods wait for git; in tests of async code use a runtime of several threads.
pub struct WorkTree {
    path: PathBuf,
}

impl WorkTree {
    /// Clones a repository (a URL or a path) to `path`.
    ///
    /// # Errors
    /// When git fails.
    pub fn clone(source: &str, path: &Path) -> io::Result<Self> {
        let text = path.display().to_string();
        run(Command::new("git").args(["clone", "--quiet", source, &text]))?;
        let this = Self { path: path.to_owned() };
        // An empty repository's branch isn't cloned along by every version.
        if this.git(&["rev-parse", "HEAD"]).is_err() {
            this.git(&["symbolic-ref", "HEAD", "refs/heads/main"])?;
        }
        Ok(this)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, its directories included.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> io::Result<()> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)
    }

    /// Removes a file or a directory.
    ///
    /// # Errors
    /// When git doesn't know it.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.git(&["rm", "-r", "--quiet", name]).map(drop)
    }

    /// Commits everything that there is; the commit's id.
    ///
    /// # Errors
    /// When git fails.
    pub fn commit(&self, message: &str) -> io::Result<String> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message])?;
        self.head()
    }

    /// Writes a file, commits and pushes it to `main`; the commit's id.
    ///
    /// # Errors
    /// When git fails.
    pub fn publish(&self, name: &str, content: impl AsRef<[u8]>) -> io::Result<String> {
        self.write(name, content)?;
        let id = self.commit(&format!("change {name}"))?;
        self.push("main")?;
        Ok(id)
    }

    /// Pushes what is checked out to a branch.
    ///
    /// # Errors
    /// When git fails.
    pub fn push(&self, branch: &str) -> io::Result<()> {
        self.git(&["push", "--quiet", "origin", &format!("HEAD:refs/heads/{branch}")])
            .map(drop)
    }

    /// Makes a branch what is checked out, whatever it was.
    ///
    /// # Errors
    /// When git fails.
    pub fn force_push(&self, branch: &str) -> io::Result<()> {
        self.git(&["push", "--quiet", "origin", &format!("+HEAD:refs/heads/{branch}")])
            .map(drop)
    }

    /// Deletes a branch of the server.
    ///
    /// # Errors
    /// When git fails.
    pub fn delete_branch(&self, branch: &str) -> io::Result<()> {
        self.git(&["push", "--quiet", "origin", &format!(":refs/heads/{branch}")])
            .map(drop)
    }

    /// The commit that is checked out.
    ///
    /// # Errors
    /// When there is none.
    pub fn head(&self) -> io::Result<String> {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Any git command here; what it prints, without the last line's end.
    ///
    /// # Errors
    /// When it fails, with what it printed.
    pub fn git(&self, arguments: &[&str]) -> io::Result<String> {
        run(Command::new("git").arg("-C").arg(&self.path).args(arguments))
    }
}

/// Runs a git command without the configuration of whoever runs the tests.
pub(crate) fn run(command: &mut Command) -> io::Result<String> {
    let output = command.envs(QUIET).output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("{command:?}: {stderr}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
