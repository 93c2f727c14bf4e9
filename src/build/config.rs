//! The Secret: config files, entry scripts and passwords (design, decision 3).

use std::{collections::BTreeMap, fmt::Write};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use sha2::{Digest, Sha256};

use super::{
    Addresses, Facts, meta,
    sentinel::{DOWN_AFTER_MS, FAILOVER_TIMEOUT_MS, PARALLEL_SYNCS},
};
use crate::{
    domain::ports,
    validate::{Coordinator, ValidCluster},
};

/// The password of the servers, empty without one.
pub const KEY_PRODUCT_AUTH: &str = "product-auth";
/// The password of the proxies' clients, empty without one.
pub const KEY_SESSION_AUTH: &str = "session-auth";
/// The ids of the groups whose start gate is armed, one a line.
pub const KEY_BOOTSTRAPPED: &str = "bootstrapped";

pub(super) fn secret(cluster: &ValidCluster, facts: &Facts, addresses: &Addresses) -> Secret {
    let files: [(&str, String); 17] = [
        ("dashboard.sh", include_str!("scripts/dashboard.sh").to_owned()),
        ("fe.sh", include_str!("scripts/fe.sh").to_owned()),
        ("proxy.sh", include_str!("scripts/proxy.sh").to_owned()),
        ("proxy-ready.sh", include_str!("scripts/proxy-ready.sh").to_owned()),
        ("sentinel.sh", include_str!("scripts/sentinel.sh").to_owned()),
        ("server.sh", include_str!("scripts/server.sh").to_owned()),
        ("dashboard.toml", dashboard_toml(cluster, facts)),
        ("dashboard-address", addresses.dashboard.to_string()),
        ("dashboards.json", dashboards(cluster, addresses)),
        ("proxy.toml", proxy_toml(cluster, facts)),
        ("redis.conf", redis_conf(facts)),
        ("sentinel.conf", sentinel_conf()),
        ("members", members(cluster, addresses)),
        ("sentinels", sentinels(cluster, addresses)),
        (KEY_PRODUCT_AUTH, facts.auth.product.clone().unwrap_or_default()),
        (KEY_SESSION_AUTH, facts.auth.session.clone().unwrap_or_default()),
        (
            KEY_BOOTSTRAPPED,
            facts
                .bootstrapped
                .iter()
                .fold(String::new(), |all, group| format!("{all}{group}\n")),
        ),
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

/// The id of a sentinel, 40 hexadecimal digits: fixed for a pod of a cluster, different between clusters.
#[must_use]
pub fn sentinel_id(cluster_uid: &str, pod: &str) -> String {
    let digest = Sha256::digest(format!("{cluster_uid}/{pod}"));
    digest.iter().take(20).fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// A TOML (and JSON) string. `validate` lets no character through that would need more than this.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn dashboard_toml(cluster: &ValidCluster, facts: &Facts) -> String {
    let join = |all: &[crate::domain::Address]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let (coordinator, address) = match &cluster.coordinator {
        Coordinator::Filesystem => ("filesystem", "/data/codis".to_owned()),
        Coordinator::Etcd(addresses) => ("etcd", join(addresses)),
        Coordinator::Zookeeper(addresses) => ("zookeeper", join(addresses)),
    };
    format!(
        "coordinator_name = {}\ncoordinator_addr = {}\nproduct_name = {}\nproduct_auth = {}\nadmin_addr = {}\n\
         sentinel_quorum = {}\nsentinel_parallel_syncs = {PARALLEL_SYNCS}\nsentinel_down_after = \"{}s\"\n\
         sentinel_failover_timeout = \"{}s\"\n",
        quoted(coordinator),
        quoted(&address),
        quoted(&cluster.names.cluster),
        quoted(facts.auth.product.as_deref().unwrap_or_default()),
        quoted(&format!("0.0.0.0:{}", ports::DASHBOARD)),
        cluster.quorum(),
        DOWN_AFTER_MS / 1000,
        FAILOVER_TIMEOUT_MS / 1000,
    )
}

/// What the front end shows (contract §9).
fn dashboards(cluster: &ValidCluster, addresses: &Addresses) -> String {
    let (name, dashboard) = (quoted(&cluster.names.cluster), quoted(&addresses.dashboard.to_string()));
    format!("[{{\"name\":{name},\"dashboard\":{dashboard}}}]\n")
}

fn proxy_toml(cluster: &ValidCluster, facts: &Facts) -> String {
    let mut toml = format!(
        "product_name = {}\nproduct_auth = {}\nsession_auth = {}\nadmin_addr = {}\nproto_type = \"tcp4\"\nproxy_addr = {}\n",
        quoted(&cluster.names.cluster),
        quoted(facts.auth.product.as_deref().unwrap_or_default()),
        quoted(facts.auth.session.as_deref().unwrap_or_default()),
        quoted(&format!("0.0.0.0:{}", ports::PROXY_ADMIN)),
        quoted(&format!("0.0.0.0:{}", ports::PROXY)),
    );
    let sizes = [
        ("proxy_max_offheap_size", cluster.proxy_sizing.offheap_mb),
        ("proxy_heap_placeholder", cluster.proxy_sizing.placeholder_mb),
    ];
    for (key, size) in sizes {
        if let Some(size) = size {
            let _ = writeln!(toml, "{key} = \"{size}mb\"");
        }
    }
    toml
}

/// Spoken by redis 3.2 and by 7. AOF is on (decision 3); `repl-timeout` is low because a reconnect can fall into a
/// black hole for that long (identity-experiment S4), but longer than two pings.
fn redis_conf(facts: &Facts) -> String {
    let mut conf = format!(
        "bind 0.0.0.0\nprotected-mode no\nport {}\ndaemonize no\ndir /data\nlogfile \"\"\npidfile /tmp/redis.pid\n\
         appendonly yes\nappendfsync everysec\nsave \"\"\ntcp-keepalive 60\nrepl-ping-slave-period 5\nrepl-timeout 12\n\
         repl-diskless-sync no\nrepl-backlog-size 32mb\nclient-output-buffer-limit slave 256mb 64mb 60\n",
        ports::SERVER
    );
    if let Some(password) = &facts.auth.product {
        let _ = write!(
            conf,
            "requirepass {}\nmasterauth {}\n",
            quoted(password),
            quoted(password)
        );
    }
    conf
}

fn sentinel_conf() -> String {
    format!(
        "port {}\nbind 0.0.0.0\nprotected-mode no\ndaemonize no\nlogfile \"\"\npidfile /tmp/sentinel.pid\ndir /data\n",
        ports::SENTINEL
    )
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
    }
    lines
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
