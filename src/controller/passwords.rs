//! The passwords that are wished: from the spec, from a Secret, or made up once.

use std::io::Read;

use k8s_openapi::api::core::v1::Secret;

use super::{Context, Error};
use crate::{
    build::{KEY_PRODUCT_AUTH, KEY_SESSION_AUTH},
    cluster::Live,
    domain::{Address, ServerView, ports},
    validate::{Auth, Password, ValidCluster, password},
};

/// Characters of a generated password: 62 to the power of 32 possibilities.
const LENGTH: usize = 32;

/// How redis, of any version, says that a password is wrong or missing, or that it has none.
const REFUSALS: [&str; 5] = [
    "NOAUTH",
    "WRONGPASS",
    "ERR invalid password",
    "ERR Client sent AUTH",
    "ERR AUTH",
];

/// Wished passwords. Where one can't be known, the one in force stays, and `objections` tell why.
pub(super) struct Wished {
    pub auth: Auth,
    pub objections: Vec<String>,
}

/// Finds out the wished passwords.
pub(super) async fn wished(context: &Context, valid: &ValidCluster, live: &Live) -> Result<Wished, Error> {
    // A Secret that somebody took the key out of tells nothing: no password would be another one.
    let told = live.secret.as_ref().filter(|secret| has_passwords(secret));
    let in_force = told.map(in_force);
    let mut objections = Vec::new();
    let namespace = &valid.names.namespace;
    let mut auth = Auth::default();
    let product = Wish {
        field: "spec.codisDashboard.productAuth",
        password: &valid.passwords.product,
        in_force: in_force.as_ref().map(|auth| auth.product.clone()),
    };
    auth.product = take(product.value(context, namespace).await?, &mut objections);
    if in_force.is_none() && valid.passwords.product == Password::Unsaid && has_servers(valid, live) {
        // Servers ask for one that nobody knows any more: another would part them from proxies and dashboard.
        objections.push(format!(
            "spec.codisDashboard.productAuth: the Secret {} is gone, and with it the generated password of the servers: put it back with its ownerReferences, or give the password here that a server has in its /data/redis.conf",
            valid.names.config()
        ));
    }
    let is_unknown = in_force.is_none() && objections.is_empty() && has_servers(valid, live);
    if is_unknown && is_refused(context, valid, live, auth.product.as_deref()).await? {
        objections.push(format!(
            "spec.codisDashboard.productAuth: the Secret {} is gone, and the servers run with another password than this one: put the Secret back with its ownerReferences, or give the password here that a server has in its /data/redis.conf",
            valid.names.config()
        ));
    }
    let session = Wish {
        field: "spec.codisProxy.sessionAuth",
        password: &valid.passwords.session,
        in_force: in_force
            .map(|auth| auth.session)
            .or_else(|| live.connection.as_ref().map(|secret| text(secret, "password"))),
    };
    auth.session = take(session.value(context, namespace).await?, &mut objections);
    Ok(Wished { auth, objections })
}

fn has_servers(valid: &ValidCluster, live: &Live) -> bool {
    valid
        .group_ids()
        .any(|group| live.stateful_sets.contains_key(&valid.names.group(group)))
}

/// Whether a server doesn't take the password.
async fn is_refused(
    context: &Context,
    valid: &ValidCluster,
    live: &Live,
    product: Option<&str>,
) -> Result<bool, Error> {
    let names = &valid.names;
    let pods = valid
        .group_ids()
        .flat_map(|group| (0..valid.group_size).map(move |of| names.server_pod(group, of)));
    let address = |pod: String| {
        let service = live.services.get(&pod)?.spec.as_ref()?;
        Some(Address::new(service.cluster_ip.clone()?, ports::SERVER))
    };
    let nobody = Address::new(names.dashboard(), ports::DASHBOARD);
    let codis = context.codis(valid.product(), product, nobody)?;
    let views = codis.servers(pods.filter_map(address)).await;
    let refuses = |view: &ServerView| match view {
        ServerView::Unreachable(why) => REFUSALS.iter().any(|word| why.starts_with(word)),
        _ => false,
    };
    Ok(views.values().any(refuses))
}

fn take(value: (Option<String>, Option<String>), objections: &mut Vec<String>) -> Option<String> {
    let (password, objection) = value;
    objections.extend(objection);
    password
}

struct Wish<'a> {
    field: &'static str,
    password: &'a Password,
    /// None where nothing is in force yet.
    in_force: Option<Option<String>>,
}

impl Wish<'_> {
    /// The password, and why it isn't the wished one.
    async fn value(self, context: &Context, namespace: &str) -> Result<(Option<String>, Option<String>), Error> {
        match self.password {
            Password::None => Ok((None, None)),
            Password::Given(password) => Ok((Some(password.clone()), None)),
            Password::Unsaid => Ok(match self.in_force {
                Some(in_force) => (in_force, None),
                None => match generated() {
                    Ok(password) => (Some(password), None),
                    Err(error) => (
                        None,
                        Some(format!("{}: no randomness for a password: {error}", self.field)),
                    ),
                },
            }),
            Password::InSecret { name, key } => {
                let found: Option<Secret> = context.cluster.read(namespace, name).await?;
                Ok(match from_secret(self.field, found.as_ref(), name, key) {
                    Ok(password) => (Some(password), None),
                    Err(why) => (self.in_force.flatten(), Some(why)),
                })
            }
        }
    }
}

fn from_secret(field: &str, secret: Option<&Secret>, name: &str, key: &str) -> Result<String, String> {
    let field = format!("{field}SecretRef");
    let Some(secret) = secret else {
        return Err(format!(
            "{field}: there is no Secret {name}: create it with the key {key}"
        ));
    };
    let Some(value) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Err(format!(
            "{field}: the Secret {name} has no key {key}: add it, or name another in `key`"
        ));
    };
    // A file that became a Secret often ends in a line's end.
    let value = String::from_utf8_lossy(&value.0);
    password(&field, value.trim_end_matches(['\r', '\n']))
        .map_err(|invalid| format!("{field}: the key {key} of the Secret {name} {}", invalid.problem))
}

/// Whether the Secret tells which passwords are in force.
pub(super) fn has_passwords(secret: &Secret) -> bool {
    let data = secret.data.as_ref();
    data.is_some_and(|data| data.contains_key(KEY_PRODUCT_AUTH) && data.contains_key(KEY_SESSION_AUTH))
}

/// The passwords that processes were started with.
pub(super) fn in_force(secret: &Secret) -> Auth {
    Auth {
        product: text(secret, KEY_PRODUCT_AUTH),
        session: text(secret, KEY_SESSION_AUTH),
    }
}

/// What a Secret has under a key, if anything.
pub(super) fn text(secret: &Secret, key: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(key)?;
    String::from_utf8(value.0.clone()).ok().filter(|text| !text.is_empty())
}

/// Letters and digits from the system's randomness.
fn generated() -> std::io::Result<String> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = std::fs::File::open("/dev/urandom")?;
    let mut password = String::with_capacity(LENGTH);
    let mut bytes = [0; 64];
    while password.len() < LENGTH {
        random.read_exact(&mut bytes)?;
        // 248 is four times 62: the rest would make some characters likelier.
        let fair = bytes.iter().filter(|byte| **byte < 248);
        let chars = fair.map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        password.extend(chars.take(LENGTH - password.len()));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn a_generated_password_is_long_and_never_the_same() {
        let (one, other) = (generated().unwrap(), generated().unwrap());
        assert_ne!(one, other);
        assert!(
            one.len() == LENGTH && one.chars().all(|c| c.is_ascii_alphanumeric()),
            "{one}"
        );
    }

    #[test]
    fn a_password_that_is_not_there_names_field_secret_and_key() {
        const FIELD: &str = "spec.codisProxy.sessionAuth";
        let why = from_secret(FIELD, None, "auth", "password").unwrap_err();
        assert!(why.contains("sessionAuthSecretRef") && why.contains("Secret auth") && why.contains("password"));
        let mut secret = Secret::default();
        let why = from_secret(FIELD, Some(&secret), "auth", "word").unwrap_err();
        assert!(why.contains("auth has no key word"), "{why}");
        secret.data = Some([("word".to_owned(), ByteString(b"s3cret\n".to_vec()))].into());
        assert_eq!(
            from_secret(FIELD, Some(&secret), "auth", "word"),
            Ok("s3cret".to_owned())
        );
        secret.data = Some([("word".to_owned(), ByteString(b"top secret".to_vec()))].into());
        let why = from_secret(FIELD, Some(&secret), "auth", "word").unwrap_err();
        assert!(!why.contains("top secret") && why.contains("without spaces"), "{why}");
    }
}
