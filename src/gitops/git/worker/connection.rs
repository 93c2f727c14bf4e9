//! libgit2 and the network: one credential once, no redirects, a cap on what comes in, and errors that say the fix.

use std::cell::{Cell, RefCell};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use git2::{
    AutotagOption, Cred, CredentialType, Direction, ErrorClass, ErrorCode, FetchOptions, RemoteCallbacks,
    RemoteRedirect, Repository, cert::Cert,
};

use crate::gitops::git::{Error, ErrorKind, Tip, job::Job};

/// The most that a fetch may receive, bytes.
const RECEIVED_CAP: usize = 64 << 20;
/// The most objects that a fetch may bring.
const OBJECTS_CAP: usize = 500_000;

/// Where the branch's tip is kept.
pub(super) const TIP: &str = "refs/codis/tip";

/// Why a call into libgit2 failed.
pub(super) enum Failure {
    /// It's the server's or the network's, or the caller's.
    Told(Error),
    /// What is kept here is odd.
    Odd(git2::Error),
}

impl From<git2::Error> for Failure {
    fn from(error: git2::Error) -> Self {
        Self::Odd(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

pub(super) struct Connection<'a> {
    job: &'a Job,
}

/// What callbacks have seen. libgit2's errors say less.
#[derive(Default)]
struct Seen {
    asked: Cell<bool>,
    refused: Cell<bool>,
    too_large: Cell<bool>,
    /// The host key that the server has: its type and SHA-256.
    host_key: RefCell<Option<String>>,
    /// What the server printed, its end.
    said: RefCell<String>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(job: &'a Job) -> Self {
        Self { job }
    }

    /// Which commit the branch is at, from a list of all refs.
    pub(super) fn tip(&self) -> Result<Tip, Error> {
        let seen = Seen::default();
        let listed = (|| {
            let mut remote = git2::Remote::create_detached(self.job.url.as_str())?;
            let connected = remote.connect_auth(Direction::Fetch, Some(self.callbacks(&seen)), None)?;
            let branch = format!("refs/heads/{}", self.job.branch);
            let heads = connected.list()?;
            let found = heads.iter().find(|head| head.name() == branch);
            Ok(match found {
                Some(head) => Tip::Commit(head.oid().to_string()),
                None => Tip::Missing {
                    repository_is_empty: !heads.iter().any(|head| head.name().starts_with("refs/heads/")),
                },
            })
        })();
        listed.map_err(|error| self.explain(&error, &seen))
    }

    /// Fetches the branch to [`TIP`]: `depth` commits of it, or with 0 what isn't there yet.
    pub(super) fn fetch(&self, repository: &Repository, depth: i32) -> Result<(), Failure> {
        let seen = Seen::default();
        let bearer = self.job.secret.bearer_token.as_ref();
        let headers: Vec<String> = bearer
            .map(|token| format!("Authorization: Bearer {token}"))
            .into_iter()
            .collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(self.callbacks(&seen))
            .download_tags(AutotagOption::None)
            .update_fetchhead(false)
            .follow_redirects(RemoteRedirect::None)
            .custom_headers(&headers)
            .depth(depth);
        // Without the + a branch that was rewound would stay where it was, and libgit2 would call that fine.
        let refspec = format!("+refs/heads/{}:{TIP}", self.job.branch);
        let fetched = repository
            .remote_anonymous(&self.job.url)?
            .fetch(&[refspec], Some(&mut options), None);
        fetched.map_err(|error| match error.class() {
            _ if seen.too_large.get() || seen.refused.get() => Failure::Told(self.explain(&error, &seen)),
            ErrorClass::Odb
            | ErrorClass::Object
            | ErrorClass::Reference
            | ErrorClass::Repository
            | ErrorClass::Filesystem
            | ErrorClass::Config => Failure::Odd(error),
            _ => Failure::Told(self.explain(&error, &seen)),
        })
    }

    fn callbacks<'s>(&'s self, seen: &'s Seen) -> RemoteCallbacks<'s> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks.credentials(|_, user, allowed| self.credential(user, allowed, seen));
        callbacks.certificate_check(|certificate, _| {
            *seen.host_key.borrow_mut() = host_key(certificate);
            // libgit2's own verdict counts: the host's key is in known_hosts, the chain ends at a trusted authority.
            Ok(git2::CertificateCheckStatus::CertificatePassthrough)
        });
        callbacks.transfer_progress(|progress| {
            let large = progress.received_bytes() > RECEIVED_CAP || progress.total_objects() > OBJECTS_CAP;
            seen.too_large.set(large);
            !large
        });
        callbacks.sideband_progress(|text| {
            let mut said = seen.said.borrow_mut();
            if said.len() < 1024 {
                said.push_str(&String::from_utf8_lossy(text));
            }
            true
        });
        callbacks
    }

    /// The credential, once. libgit2 asks again for as long as it's given something.
    fn credential(&self, user: Option<&str>, allowed: CredentialType, seen: &Seen) -> Result<Cred, git2::Error> {
        let secret = &self.job.secret;
        let user = user.unwrap_or("git");
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(user);
        }
        if seen.asked.replace(true) {
            seen.refused.set(true);
            return Err(git2::Error::from_str("the credentials were refused"));
        }
        if allowed.contains(CredentialType::SSH_MEMORY)
            && let Some(identity) = &secret.identity
        {
            let identity = format!("{}\n", identity.trim());
            return Cred::ssh_key_from_memory(user, None, &identity, secret.password.as_deref());
        }
        if allowed.contains(CredentialType::USER_PASS_PLAINTEXT)
            && let (Some(user), Some(password)) = (&secret.username, &secret.password)
        {
            return Cred::userpass_plaintext(user, password);
        }
        seen.refused.set(true);
        Err(git2::Error::from_str("there are no credentials"))
    }

    /// The error in words that say the fix.
    fn explain(&self, error: &git2::Error, seen: &Seen) -> Error {
        let text = error.message();
        let status = |status: &str| text.contains("http status code") && text.contains(status);
        if seen.too_large.get() {
            let text = "the fetch is larger than 64 MiB: keep specs in a repository without large files";
            return Error::new(ErrorKind::TooLarge, text);
        }
        if error.code() == ErrorCode::Certificate {
            return untrusted(seen);
        }
        if seen.refused.get() || error.code() == ErrorCode::Auth || status("401") || status("403") {
            return self.refused(text);
        }
        if status("404") {
            return Error::not_found();
        }
        if text.contains("redirect") || status(": 30") {
            let text = "the Git server redirects, which isn't followed: put the new address into spec url";
            return Error::new(ErrorKind::Protocol, text);
        }
        if text.contains("object format") {
            return Error::sha256();
        }
        if error.class() == ErrorClass::NoMemory {
            let text =
                "the repository needs more than 192 MiB of memory: keep specs in a repository without large files";
            return Error::new(ErrorKind::TooLarge, text);
        }
        let said = seen.said.borrow();
        let words = match said.trim() {
            "" => text.to_owned(),
            said => format!("{text}; it said: {said}"),
        };
        match error.class() {
            ErrorClass::Ssl if text.contains("certificate") => untrusted(seen),
            // An unreadable key, or a wrong passphrase, comes to light only when the key is used.
            ErrorClass::Ssh if seen.asked.get() && is_about_the_key(text) => self.refused(text),
            ErrorClass::Ssh if looks_missing(&words) => Error::not_found(),
            ErrorClass::Net | ErrorClass::Os | ErrorClass::Ssh | ErrorClass::Http | ErrorClass::Ssl => {
                let text = format!("the Git server can't be reached: {words}");
                Error::new(ErrorKind::Unreachable, text)
            }
            _ => {
                let text = format!("the Git server answered unexpectedly: {words}");
                Error::new(ErrorKind::Protocol, text)
            }
        }
    }

    fn refused(&self, text: &str) -> Error {
        let secret = &self.job.secret;
        let text = if secret.identity.is_some() {
            format!(
                "the Git server refused the Secret's key identity (or its passphrase, key password, is wrong): {text}; \
                 add its public half on the server"
            )
        } else if secret.username.is_some() || secret.bearer_token.is_some() {
            "the Git server refused the Secret's credentials: renew them".to_owned()
        } else {
            "the Git server wants credentials: name a Secret with username and password, bearerToken, or identity"
                .to_owned()
        };
        Error::new(ErrorKind::Credentials, text)
    }
}

/// A host key as `ssh-keygen -l` shows it; none of a TLS certificate.
fn host_key(certificate: &Cert<'_>) -> Option<String> {
    let key = certificate.as_hostkey()?;
    let kind = key.hostkey_type().map_or("unknown", |kind| kind.name());
    let hash = key.hash_sha256().map(|hash| BASE64_STANDARD_NO_PAD.encode(hash))?;
    Some(format!("{kind} SHA256:{hash}"))
}

fn untrusted(seen: &Seen) -> Error {
    let text = match &*seen.host_key.borrow() {
        Some(key) => format!(
            "the server's host key {key} isn't in the Secret's key known_hosts: if it's the server's, add the line that \
             `ssh-keyscan` prints"
        ),
        None => {
            "the Git server's certificate isn't trusted: put the certificate of its authority into the Secret's key \
                 ca.crt"
                .to_owned()
        }
    };
    Error::new(ErrorKind::Untrusted, text)
}

/// Over SSH a server that has no such repository says so in words, or only closes the channel.
fn looks_missing(text: &str) -> bool {
    [
        "does not appear to be a git repository",
        "not found",
        "does not exist",
        "early EOF",
        "Could not read",
    ]
    .iter()
    .any(|part| text.contains(part))
}

/// libssh2's words when it can't use a key.
fn is_about_the_key(text: &str) -> bool {
    ["key", "authenticat", "passphrase", "PEM"]
        .iter()
        .any(|part| text.contains(part))
}
