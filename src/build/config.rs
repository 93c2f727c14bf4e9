//! The Secret: config files, entry scripts and passwords (design, decision 3).

use std::{collections::BTreeMap, fmt::Write};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use sha2::{Digest, Sha256};

use super::{
    Addresses, Facts,
    dashboard::lock_address,
    files::{dashboard_toml, proxy_toml, quoted, redis_conf, sentinel_conf},
    live, meta,
};
use crate::validate::ValidCluster;

/// The password of the servers, empty without one.
pub const KEY_PRODUCT_AUTH: &str = "product-auth";
/// The password of the proxies' clients, empty without one.
pub const KEY_SESSION_AUTH: &str = "session-auth";
/// The ids of the groups whose start gate is armed, one a line.
pub const KEY_BOOTSTRAPPED: &str = "bootstrapped";
/// The mark: the name of the product if it is this cluster's, empty before anything is written into it.
pub const KEY_PRODUCT_CLAIMED: &str = "product-claimed";
/// The parameters that servers were ever told live, one a line.
pub const KEY_LIVE_KEYS: &str = "live-keys";
/// The addresses that Services had and haven't any more, one a line: the address, the present one, and the Service's name.
pub const KEY_FORMER: &str = "former-addresses";
/// How often the password of the proxies' clients was changed.
pub const KEY_SESSION_ROTATIONS: &str = "session-auth-rotations";

pub(super) fn secret(cluster: &ValidCluster, facts: &Facts, addresses: &Addresses) -> Secret {
    let files: [(&str, String); 23] = [
        ("dashboard.sh", include_str!("scripts/dashboard.sh").to_owned()),
        ("fe.sh", include_str!("scripts/fe.sh").to_owned()),
        ("proxy.sh", include_str!("scripts/proxy.sh").to_owned()),
        ("proxy-drain.sh", include_str!("scripts/proxy-drain.sh").to_owned()),
        ("proxy-ready.sh", include_str!("scripts/proxy-ready.sh").to_owned()),
        ("sentinel.sh", include_str!("scripts/sentinel.sh").to_owned()),
        ("server.sh", include_str!("scripts/server.sh").to_owned()),
        ("dashboard.toml", dashboard_toml(cluster, facts)),
        ("dashboard-address", addresses.dashboard.to_string()),
        ("lock-address", lock_address(cluster, facts).to_string()),
        ("dashboards.json", dashboards(cluster, addresses)),
        ("proxy.toml", proxy_toml(cluster, facts)),
        ("redis.conf", redis_conf(cluster, facts)),
        ("sentinel.conf", sentinel_conf(cluster)),
        ("members", members(cluster, addresses)),
        (KEY_FORMER, former_addresses(facts)),
        ("sentinels", sentinels(cluster, addresses)),
        (KEY_PRODUCT_AUTH, facts.auth.product.clone().unwrap_or_default()),
        (KEY_SESSION_AUTH, facts.auth.session.clone().unwrap_or_default()),
        (KEY_BOOTSTRAPPED, lines(&facts.bootstrapped)),
        (KEY_PRODUCT_CLAIMED, lines(facts.claimed.then(|| cluster.product()))),
        (KEY_LIVE_KEYS, lines(live::live_keys(cluster, facts))),
        (KEY_SESSION_ROTATIONS, facts.session_rotations.to_string()),
    ];
    let data: BTreeMap<_, _> = files
        .into_iter()
        .map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())))
        .collect();
    Secret {
        metadata: meta::shared_object(&cluster.names, cluster.names.config()),
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Default::default()
    }
}

/// One item a line.
fn lines<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .fold(String::new(), |all, item| format!("{all}{item}\n"))
}

/// The id of a sentinel, 40 hexadecimal digits: fixed for a pod of a cluster, different between clusters.
#[must_use]
pub fn sentinel_id(cluster_uid: &str, pod: &str) -> String {
    let digest = Sha256::digest(format!("{cluster_uid}/{pod}"));
    digest.iter().take(20).fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// What the front end shows (contract §9).
fn dashboards(cluster: &ValidCluster, addresses: &Addresses) -> String {
    let (name, dashboard) = (quoted(cluster.product()), quoted(&addresses.dashboard.to_string()));
    format!("[{{\"name\":{name},\"dashboard\":{dashboard}}}]\n")
}

/// One server a line: pod, address, group.
fn members(cluster: &ValidCluster, addresses: &Addresses) -> String {
    let mut lines = String::new();
    for (group, servers) in &addresses.servers {
        let leaving = addresses.leaving.get(group).into_iter().flatten();
        for (ordinal, address) in (0..).zip(servers.iter().chain(leaving)) {
            let _ = writeln!(
                lines,
                "{} {} {group}",
                cluster.names.server_pod(*group, ordinal),
                address.host()
            );
        }
        // A new server without data starts as a replica of whoever is master, the predecessor's included.
        for (pod, address) in addresses.inherited.get(group).into_iter().flatten() {
            let _ = writeln!(lines, "{pod} {} {group}", address.host());
        }
    }
    lines
}

/// One former address a line: it, the present one, and whose it is. A replica's old configuration may name its master so.
fn former_addresses(facts: &Facts) -> String {
    let changed = facts.former.iter().filter_map(|(old, name)| {
        let now = facts.addresses.get(name)?;
        Some(format!("{old} {now} {name}"))
    });
    lines(changed)
}

/// One sentinel a line: pod, address, id.
fn sentinels(cluster: &ValidCluster, addresses: &Addresses) -> String {
    let mut lines = String::new();
    for (ordinal, address) in (0..).zip(&addresses.sentinels) {
        let pod = cluster.names.sentinel_pod(ordinal);
        let id = sentinel_id(&cluster.names.uid, &pod);
        let _ = writeln!(lines, "{pod} {} {id}", address.host());
    }
    lines
}
