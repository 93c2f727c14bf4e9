//! Where a source's specs are.

use reqwest::Url;

use super::{Credentials, Error, ErrorKind};

/// A directory on a branch of a repository.
#[derive(Clone, Debug)]
pub struct Remote {
    /// `https://`, `http://` or `ssh://`.
    pub url: String,
    /// The branch's short name, like `main`.
    pub branch: String,
    /// The directory from the repository's root; empty, `.` or `./` for the root itself.
    pub path: String,
    /// What the server is shown, and what it must show.
    pub credentials: Credentials,
}

/// Whose way a URL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Ssh,
}

/// The scheme of a URL, and the URL.
///
/// # Errors
/// When it can't be used, with the fix.
pub(super) fn parse(url: &str) -> Result<(Scheme, Url), Error> {
    // The URL itself isn't repeated: what is wrong with it may be a password in it.
    let unsupported = |text: &str| Error::new(ErrorKind::Unsupported, text);
    let schemes = "the URL must begin with https://, http:// or ssh:// (ssh://git@host/path instead of git@host:path)";
    let parsed = Url::parse(url).map_err(|_| unsupported(schemes))?;
    let scheme = match parsed.scheme() {
        "https" | "http" => Scheme::Http,
        "ssh" => Scheme::Ssh,
        _ => return Err(unsupported(schemes)),
    };
    if parsed.password().is_some() || (scheme == Scheme::Http && !parsed.username().is_empty()) {
        return Err(unsupported(
            "the URL must hold no credentials: put them into a Secret (username and password, or bearerToken)",
        ));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(unsupported("the URL must have no ? and no #"));
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(unsupported("the URL names no host"));
    }
    Ok((scheme, parsed))
}

impl Remote {
    /// # Errors
    /// When the URL, the branch or the path can't be used.
    pub(super) fn check(&self) -> Result<Scheme, Error> {
        let (scheme, _) = parse(&self.url)?;
        // As git-check-ref-format(1) has it. A branch like `+x:y` must not become another refspec.
        let branch = &self.branch;
        let bad = branch.is_empty()
            || branch.starts_with(['/', '-', '+'])
            || branch.ends_with(['/', '.'])
            || branch.contains(|c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c))
            || ["..", "@{", "//", "/."].iter().any(|part| branch.contains(part))
            || branch
                .split('/')
                .any(|part| part.starts_with('.') || part.ends_with(".lock"))
            || branch.len() > 255;
        if bad {
            let text = format!("{branch:?} can't be a branch: give its short name, like main");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        self.normal_path()?;
        Ok(scheme)
    }

    /// The path without needless parts; empty for the root.
    ///
    /// # Errors
    /// When it leads out of the repository.
    pub(super) fn normal_path(&self) -> Result<String, Error> {
        let parts: Vec<&str> = self
            .path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        if parts.contains(&"..") {
            let text = "the path must not contain ..: give the directory from the repository's root";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Ok(parts.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str, branch: &str, path: &str) -> Remote {
        Remote {
            url: url.to_owned(),
            branch: branch.to_owned(),
            path: path.to_owned(),
            credentials: Credentials::default(),
        }
    }

    #[test]
    fn only_https_http_and_ssh_without_credentials_are_urls() {
        for (url, good) in [
            ("https://example.com/a/b.git", true),
            ("http://127.0.0.1:8080/a.git", true),
            ("ssh://git@example.com:2222/a.git", true),
            ("ssh://example.com/a.git", true),
            ("git@example.com:a.git", false),
            ("file:///etc", false),
            ("git://example.com/a.git", false),
            ("/srv/git/a.git", false),
            ("https://user:token@example.com/a.git", false),
            ("https://token@example.com/a.git", false),
            ("ssh://git:password@example.com/a.git", false),
            ("https://example.com/a.git?x=y", false),
            ("ext::sh -c id", false),
            ("", false),
        ] {
            let checked = remote(url, "main", "").check();
            assert_eq!(checked.is_ok(), good, "{url}: {checked:?}");
            if let Err(error) = checked {
                assert_eq!(error.kind, ErrorKind::Unsupported);
                assert!(!error.message.contains("token@") && !error.message.contains("password@"));
            }
        }
    }

    #[test]
    fn a_branch_can_not_become_another_refspec() {
        for (branch, good) in [
            ("main", true),
            ("team/eu-west.1", true),
            ("", false),
            ("a:b", false),
            ("+main", false),
            ("*", false),
            ("a b", false),
            ("a\nb", false),
            ("../x", false),
            ("x.lock", false),
            (".x", false),
            ("a//b", false),
        ] {
            assert_eq!(remote("https://h/a", branch, "").check().is_ok(), good, "{branch:?}");
        }
    }

    #[test]
    fn a_path_stays_within_the_repository() {
        for (path, normal) in [
            ("", Some("")),
            (".", Some("")),
            ("./", Some("")),
            ("/", Some("")),
            ("./clusters//eu/", Some("clusters/eu")),
            ("clusters/..", None),
            ("../x", None),
            ("..a/b..", Some("..a/b..")),
        ] {
            assert_eq!(
                remote("https://h/a", "main", path).normal_path().ok().as_deref(),
                normal,
                "{path:?}"
            );
        }
    }
}
