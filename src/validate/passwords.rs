//! The passwords: as they are wished, and as they are in force.

use super::{Errors, Invalid};
use crate::api::{CodisClusterSpec, SecretKeyReference};

/// The passwords in force. None where none is asked for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// Of the servers.
    pub product: Option<String>,
    /// Of the proxies' clients.
    pub session: Option<String>,
}

// By hand, so that no log ever shows a password.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Auth {{ product: {}, session: {} }}",
            self.product.is_some(),
            self.session.is_some()
        )
    }
}

/// How a password is wished.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Password {
    /// Not at all: one that is in force stays, a new cluster gets a generated one.
    #[default]
    Unsaid,
    /// An empty text: there is to be none.
    None,
    /// In the spec.
    Given(String),
    /// In a Secret of the same namespace.
    InSecret {
        /// Its name.
        name: String,
        /// Its key.
        key: String,
    },
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsaid => f.write_str("Unsaid"),
            Self::None => f.write_str("None"),
            Self::Given(_) => f.write_str("Given"),
            Self::InSecret { name, key } => write!(f, "InSecret {{ {name}, {key} }}"),
        }
    }
}

/// The wished passwords.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passwords {
    /// Of the servers.
    pub product: Password,
    /// Of the proxies' clients.
    pub session: Password,
}

impl Passwords {
    pub(super) fn of(spec: &CodisClusterSpec, errors: &mut Errors) -> Self {
        let (dashboard, proxy) = (&spec.codis_dashboard, &spec.codis_proxy);
        Self {
            product: errors.take(wish(
                "spec.codisDashboard.productAuth",
                dashboard.product_auth.as_deref(),
                dashboard.product_auth_secret_ref.as_ref(),
            )),
            session: errors.take(wish(
                "spec.codisProxy.sessionAuth",
                proxy.session_auth.as_deref(),
                proxy.session_auth_secret_ref.as_ref(),
            )),
        }
    }
}

fn wish(field: &str, value: Option<&str>, reference: Option<&SecretKeyReference>) -> Result<Password, Invalid> {
    match (value, reference) {
        (None | Some(""), Some(reference)) => Ok(Password::InSecret {
            name: reference.name.clone(),
            key: reference.key.clone().unwrap_or_else(|| "password".to_owned()),
        }),
        (Some(_), Some(_)) => Err(Invalid::new(field, format!("give either this or {field}SecretRef"))),
        (None, None) => Ok(Password::Unsaid),
        (Some(""), None) => Ok(Password::None),
        (Some(value), None) => password(field, value).map(Password::Given),
    }
}

/// A password, checked. They go through redis.conf, TOML and redis-cli's input, whose quoting rules differ: no
/// character that any of them treats in its own way.
///
/// # Errors
/// What is wrong with it, without it.
pub fn password(field: &str, value: &str) -> Result<String, Invalid> {
    let is_good = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '#');
    if value.is_empty() || value.len() > 128 || !value.chars().all(is_good) {
        return Err(Invalid::new(
            field,
            "must be 1 to 128 printable ASCII characters without spaces, quotes, backslashes and #",
        ));
    }
    Ok(value.to_owned())
}
