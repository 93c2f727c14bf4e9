//! What a server is shown and what it must show, from a Secret with Flux's keys.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::ByteString;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use super::{Error, remote, remote::Scheme};

/// What a server is shown, and what it must show. The default is nothing: a public repository over HTTP.
#[derive(Clone, Default)]
pub struct Credentials(Secret);

/// The keys of the Secret that count.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Secret {
    pub username: Option<String>,
    pub password: Option<String>,
    pub bearer_token: Option<String>,
    /// A private key; `password` is its passphrase.
    pub identity: Option<String>,
    pub known_hosts: Option<String>,
    pub ca: Option<String>,
}

/// Names what there is and shows nothing of it.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = &self.0;
        let there = [
            ("username", &secret.username),
            ("password", &secret.password),
            ("bearerToken", &secret.bearer_token),
            ("identity", &secret.identity),
            ("known_hosts", &secret.known_hosts),
            ("ca.crt", &secret.ca),
        ];
        let names = there.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name);
        f.write_str("Credentials ")?;
        f.debug_set().entries(names).finish()
    }
}

impl Credentials {
    /// The credentials in a Secret for this URL. Keys that mean nothing there are left alone, so that a Secret can
    /// serve several sources. The end of a line after a value is cut off: `echo` puts it there.
    ///
    /// # Errors
    /// When they can't be used; names the key and the fix.
    pub fn of_secret(url: &str, data: &BTreeMap<String, ByteString>) -> Result<Self, String> {
        let (scheme, _) = remote::parse(url).map_err(|error| error.message)?;
        let text = |key: &str| match data.get(key).map(|value| str::from_utf8(&value.0)) {
            None => Ok(None),
            Some(Err(_)) => Err(format!("key {key} isn't text: store it as it is, not encoded twice")),
            Some(Ok(value)) if value.trim().is_empty() => Err(format!("key {key} is empty: fill it or remove it")),
            Some(Ok(value)) => Ok(Some(value.to_owned())),
        };
        let line = |key: &str| match text(key)? {
            Some(value) => match value.trim_end_matches(['\r', '\n']) {
                value if value.contains(char::is_control) => {
                    Err(format!("key {key} has more than one line: store only the value"))
                }
                value => Ok(Some(value.to_owned())),
            },
            None => Ok(None),
        };
        let secret = match scheme {
            Scheme::Http => Secret {
                username: line("username")?,
                password: line("password")?,
                bearer_token: line("bearerToken")?,
                ca: text("ca.crt")?,
                ..Secret::default()
            },
            Scheme::Ssh => Secret {
                password: line("password")?,
                identity: text("identity")?,
                known_hosts: text("known_hosts")?,
                ..Secret::default()
            },
        };
        secret.check(scheme)?;
        Ok(Self(secret))
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.0
    }

    /// The header `Authorization`, if there is anything to show.
    pub(super) fn authorization(&self) -> Option<String> {
        let secret = &self.0;
        if let Some(token) = &secret.bearer_token {
            return Some(format!("Bearer {token}"));
        }
        let (user, password) = (secret.username.as_ref()?, secret.password.as_ref()?);
        Some(format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("{user}:{password}"))
        ))
    }

    /// The error without credentials that a server may have repeated.
    pub(super) fn scrub(&self, mut error: Error) -> Error {
        for secret in [&self.0.password, &self.0.bearer_token, &self.0.identity]
            .into_iter()
            .flatten()
        {
            error.message = error.message.replace(secret.as_str(), "***");
        }
        error
    }
}

impl Secret {
    fn check(&self, scheme: Scheme) -> Result<(), String> {
        match scheme {
            Scheme::Http => self.check_http(),
            Scheme::Ssh => self.check_ssh(),
        }
    }

    fn check_http(&self) -> Result<(), String> {
        match (&self.username, &self.password, &self.bearer_token) {
            (Some(_), None, _) => return Err("key password is missing: username needs one".to_owned()),
            (None, Some(_), _) => {
                return Err(
                    "key username is missing: password needs one (many servers take any with a token)".to_owned(),
                );
            }
            (Some(_), Some(_), Some(_)) => {
                return Err("key bearerToken: there are username and password too, keep one of both".to_owned());
            }
            (None, None, None) if self.ca.is_none() => {
                return Err("it has none of the keys username and password, bearerToken, ca.crt".to_owned());
            }
            _ => {}
        }
        match &self.ca {
            Some(ca) => certificates(ca).map(drop),
            None => Ok(()),
        }
    }

    fn check_ssh(&self) -> Result<(), String> {
        let identity = self
            .identity
            .as_ref()
            .ok_or("key identity is missing: a private key without which ssh:// can't log in")?;
        if !identity.contains("PRIVATE KEY-----") {
            return Err("key identity isn't a private key: store the file without .pub".to_owned());
        }
        let hosts = self
            .known_hosts
            .as_ref()
            .ok_or("key known_hosts is missing: store what `ssh-keyscan <host>` prints, after checking it")?;
        let mut lines = hosts
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        if lines.clone().next().is_none() {
            return Err("key known_hosts lists no host: store what `ssh-keyscan <host>` prints".to_owned());
        }
        match lines.find(|line| line.starts_with('@') || line.split_whitespace().count() < 3) {
            Some(line) if line.starts_with('@') => Err(
                "key known_hosts: @cert-authority and @revoked aren't supported, list the hosts' own keys".to_owned(),
            ),
            Some(_) => Err("key known_hosts has a line that isn't `host type key`".to_owned()),
            None => Ok(()),
        }
    }
}

/// The certificates of `ca.crt`.
///
/// # Errors
/// When there are none.
pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err("key ca.crt holds no certificate: store PEM, -----BEGIN CERTIFICATE-----".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, data: &[(&str, &str)]) -> Result<Credentials, String> {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
            .collect();
        Credentials::of_secret(url, &data)
    }

    const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nxx\n-----END OPENSSH PRIVATE KEY-----\n";

    #[test]
    fn a_secret_that_can_not_be_used_names_the_key() {
        let https = "https://example.com/a.git";
        let ssh = "ssh://git@example.com/a.git";
        for (url, data, part) in [
            (https, vec![("username", "u")], "key password is missing"),
            (https, vec![("password", "p")], "key username is missing"),
            (https, vec![("identity", KEY)], "none of the keys"),
            (https, vec![("bearerToken", "\n")], "key bearerToken is empty"),
            (https, vec![("bearerToken", "a\nb")], "more than one line"),
            (https, vec![("ca.crt", "hello")], "key ca.crt holds no certificate"),
            (
                https,
                vec![("username", "u"), ("password", "p"), ("bearerToken", "t")],
                "key bearerToken",
            ),
            (ssh, vec![("known_hosts", "h t k")], "key identity is missing"),
            (ssh, vec![("identity", "ssh-ed25519 AAAA")], "isn't a private key"),
            (ssh, vec![("identity", KEY)], "key known_hosts is missing"),
            (ssh, vec![("identity", KEY), ("known_hosts", "# x\n")], "lists no host"),
            (
                ssh,
                vec![("identity", KEY), ("known_hosts", "@revoked h t k")],
                "@cert-authority",
            ),
        ] {
            let error = of(url, &data).unwrap_err();
            assert!(error.contains(part), "{data:?}: {error}");
        }
    }

    #[test]
    fn flux_s_keys_are_understood_and_never_shown() {
        let basic = of(
            "https://h/a",
            &[("username", "u\n"), ("password", "hush\n"), ("other", "x")],
        )
        .unwrap();
        assert_eq!(basic.authorization().unwrap(), "Basic dTpodXNo");
        assert_eq!(format!("{basic:?}"), r#"Credentials {"username", "password"}"#);
        let bearer = of("https://h/a", &[("bearerToken", "hush")]).unwrap();
        assert_eq!(bearer.authorization().unwrap(), "Bearer hush");
        let ssh = of("ssh://h/a", &[("identity", KEY), ("known_hosts", "h ssh-ed25519 AAAA")]).unwrap();
        assert!(ssh.authorization().is_none());
        assert!(!format!("{ssh:?}").contains("xx"));
        let error = Error::worker("the server said hush");
        assert!(!bearer.scrub(error).message.contains("hush"));
    }
}
