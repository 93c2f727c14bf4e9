//! The Secret that applications read to connect: host, port, password, uri.

use std::{collections::BTreeMap, fmt::Write};

use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{Facts, meta};
use crate::{domain::ports, validate::ValidCluster};

pub(super) fn secret(cluster: &ValidCluster, facts: &Facts) -> Secret {
    let names = &cluster.names;
    let host = format!("{}.{}.svc", names.proxy(), names.namespace);
    let password = facts.auth.session.clone().unwrap_or_default();
    let login = if password.is_empty() {
        String::new()
    } else {
        format!(":{}@", encoded(&password))
    };
    let uri = format!("redis://{login}{host}:{}", ports::PROXY);
    let data: BTreeMap<_, _> = [
        ("host", host),
        ("port", ports::PROXY.to_string()),
        ("password", password),
        ("uri", uri),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
    .collect();
    Secret {
        metadata: meta::shared_object(names, names.connection()),
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Default::default()
    }
}

/// Percent-encoded: everything but what RFC 3986 leaves unreserved.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            all.push(char::from(byte));
        } else {
            let _ = write!(all, "%{byte:02X}");
        }
        all
    })
}
