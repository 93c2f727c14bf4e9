//! What is known of the keys of Codis's and redis' configuration files.

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer in these bounds.
    Number(i64, i64),
    /// Bytes, like 128kb or 1048576.
    Bytes,
    /// A time, like 30s.
    Span,
    /// `yes` or `no`.
    YesNo,
    /// `true` or `false`.
    Bool,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Pairs of seconds and changes, or nothing.
    Save,
    /// Four words a class: name, hard limit, soft limit, seconds.
    OutputLimits,
    /// Anything.
    Text,
}

impl Kind {
    /// Whether a value is of this kind.
    ///
    /// # Errors
    /// What it must be instead.
    pub(super) fn check(self, value: &str) -> Result<(), String> {
        let number = |text: &str, min: i64, max: i64| text.parse().is_ok_and(|n: i64| (min..=max).contains(&n));
        let words: Vec<&str> = value.split_whitespace().collect();
        let (is_good, wanted) = match self {
            Self::Number(min, i64::MAX) => (number(value, min, i64::MAX), format!("must be an integer of at least {min}")),
            Self::Number(min, max) => (number(value, min, max), format!("must be an integer from {min} to {max}")),
            Self::Bytes => (bytes(value).is_some(), "must be a size like 64mb, 1gb or a number of bytes".to_owned()),
            Self::Span => (is_span(value), "must be a time like 500ms, 30s, 5m or 1h".to_owned()),
            Self::YesNo => (matches!(value, "yes" | "no"), "must be yes or no".to_owned()),
            Self::Bool => (matches!(value, "true" | "false"), "must be \"true\" or \"false\"".to_owned()),
            Self::OneOf(all) => (all.contains(&value), format!("must be one of {}", all.join(", "))),
            Self::Save => (
                words.len().is_multiple_of(2) && words.iter().all(|word| number(word, 0, i64::MAX)),
                "must be pairs of seconds and changes like `900 1 300 10`, or empty".to_owned(),
            ),
            Self::OutputLimits => (
                !words.is_empty() && words.len().is_multiple_of(4) && words.chunks(4).all(is_output_limit),
                "must be four words a class: normal, slave or pubsub, hard limit, soft limit and seconds, like `slave 256mb 64mb 60`".to_owned(),
            ),
            Self::Text => return Ok(()),
        };
        if is_good { Ok(()) } else { Err(wanted) }
    }
}

fn is_output_limit(words: &[&str]) -> bool {
    let [class, hard, soft, seconds] = words else {
        return false;
    };
    matches!(*class, "normal" | "slave" | "pubsub")
        && bytes(hard).is_some()
        && bytes(soft).is_some()
        && seconds.parse::<u32>().is_ok()
}

/// The bytes of a size as redis and Codis write it: kb, mb and gb are powers of 1024, redis' k, m and g of 1000.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn is_span(text: &str) -> bool {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    number.parse::<u32>().is_ok() && matches!(unit, "ms" | "s" | "m" | "h")
}

const POSITIVE: Kind = Kind::Number(1, i64::MAX);
const NATURAL: Kind = Kind::Number(0, i64::MAX);
const LOG_LEVEL: Kind = Kind::OneOf(&["debug", "verbose", "notice", "warning"]);

/// A parameter of redis that a running server can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its name.
    pub key: &'static str,
    /// Its value when the spec doesn't give it: the operator's where redis.conf has one, else redis' own.
    pub default: &'static str,
    /// What its values look like.
    pub kind: Kind,
}

const fn live_parameter(key: &'static str, default: &'static str, kind: Kind) -> Live {
    Live { key, default, kind }
}

/// The parameters that `CONFIG SET` changes at once and completely in redis 3.2 and every later version, with the
/// defaults that are the same in all of them. Source: `configSetCommand` and the `CONFIG_DEFAULT_*` of redis 3.2.11's
/// config.c and server.h; redis 7.2's config.c has each without IMMUTABLE_CONFIG, some as an alias.
/// What isn't here takes a restart: rolled out pod by pod, that is never wrong.
pub const LIVE: [Live; 40] = [
    live_parameter("activerehashing", "yes", Kind::YesNo),
    live_parameter("aof-load-truncated", "yes", Kind::YesNo),
    live_parameter("aof-rewrite-incremental-fsync", "yes", Kind::YesNo),
    live_parameter("appendfsync", "everysec", Kind::OneOf(&["always", "everysec", "no"])),
    live_parameter("auto-aof-rewrite-min-size", "64mb", Kind::Bytes),
    live_parameter("auto-aof-rewrite-percentage", "100", NATURAL),
    live_parameter(
        "client-output-buffer-limit",
        "normal 0 0 0 slave 256mb 64mb 60 pubsub 32mb 8mb 60",
        Kind::OutputLimits,
    ),
    live_parameter("hash-max-ziplist-entries", "512", NATURAL),
    live_parameter("hash-max-ziplist-value", "64", NATURAL),
    live_parameter("hll-sparse-max-bytes", "3000", NATURAL),
    live_parameter("hz", "10", Kind::Number(1, 500)),
    live_parameter("latency-monitor-threshold", "0", NATURAL),
    live_parameter("list-compress-depth", "0", NATURAL),
    live_parameter("list-max-ziplist-size", "-2", Kind::Number(-5, i64::MAX)),
    live_parameter("loglevel", "notice", LOG_LEVEL),
    live_parameter("lua-time-limit", "5000", NATURAL),
    live_parameter("maxclients", "10000", POSITIVE),
    live_parameter("maxmemory", "0", Kind::Bytes),
    live_parameter(
        "maxmemory-policy",
        "noeviction",
        Kind::OneOf(&[
            "noeviction",
            "allkeys-lru",
            "allkeys-lfu",
            "allkeys-random",
            "volatile-lru",
            "volatile-lfu",
            "volatile-random",
            "volatile-ttl",
        ]),
    ),
    live_parameter("maxmemory-samples", "5", POSITIVE),
    live_parameter("no-appendfsync-on-rewrite", "no", Kind::YesNo),
    live_parameter("notify-keyspace-events", "", Kind::Text),
    live_parameter("rdbcompression", "yes", Kind::YesNo),
    live_parameter("repl-backlog-size", "32mb", Kind::Bytes),
    live_parameter("repl-backlog-ttl", "3600", NATURAL),
    live_parameter("repl-disable-tcp-nodelay", "no", Kind::YesNo),
    live_parameter("repl-diskless-sync", "no", Kind::YesNo),
    live_parameter("repl-diskless-sync-delay", "5", NATURAL),
    live_parameter("repl-ping-slave-period", "5", POSITIVE),
    live_parameter("repl-timeout", "12", POSITIVE),
    live_parameter("save", "", Kind::Save),
    live_parameter("set-max-intset-entries", "512", NATURAL),
    live_parameter("slave-serve-stale-data", "yes", Kind::YesNo),
    live_parameter("slowlog-log-slower-than", "10000", Kind::Number(-1, i64::MAX)),
    live_parameter("slowlog-max-len", "128", NATURAL),
    live_parameter("stop-writes-on-bgsave-error", "yes", Kind::YesNo),
    live_parameter("tcp-keepalive", "60", NATURAL),
    live_parameter("timeout", "0", NATURAL),
    live_parameter("zset-max-ziplist-entries", "128", NATURAL),
    live_parameter("zset-max-ziplist-value", "64", NATURAL),
];

/// The parameter of this name, if a running server can be told it.
#[must_use]
pub fn live(key: &str) -> Option<&'static Live> {
    LIVE.iter().find(|live| live.key == key)
}

/// Keys that aren't a person's to set (`*`: all that begin so), and why.
type Refused = (&'static [&'static str], &'static str);

const OPERATORS: &str = "is the operator's own: remove it";

pub(super) const REDIS_REFUSED: [Refused; 5] = [
    (
        &["requirepass", "masterauth"],
        "is the operator's own: set spec.codisDashboard.productAuth or productAuthSecretRef instead",
    ),
    (
        &["min-slaves-*", "min-replicas-*"],
        "is the operator's own: set spec.durability instead",
    ),
    (
        &["slave-priority", "replica-priority"],
        "is the operator's own: every server must be able to become master",
    ),
    (
        &["appendonly", "appendfilename", "appenddirname", "dbfilename"],
        "is the operator's own: by these files it knows whether a server holds data",
    ),
    (
        &[
            "port",
            "bind",
            "bind-source-addr",
            "protected-mode",
            "daemonize",
            "dir",
            "logfile",
            "pidfile",
            "syslog-*",
            "supervised",
            "unixsocket*",
            "slaveof",
            "replicaof",
            "slave-announce-*",
            "replica-announce-*",
            "slave-announced",
            "replica-announced",
            "slave-read-only",
            "replica-read-only",
            "masteruser",
            "user",
            "aclfile",
            "rename-command",
            "include",
            "loadmodule",
            "cluster-*",
            "sentinel*",
            "tls-*",
        ],
        OPERATORS,
    ),
];

pub(super) const PROXY_REFUSED: [Refused; 4] = [
    (
        &["session_auth"],
        "is the operator's own: set spec.codisProxy.sessionAuth or sessionAuthSecretRef instead",
    ),
    (
        &["product_auth"],
        "is the operator's own: set spec.codisDashboard.productAuth or productAuthSecretRef instead",
    ),
    (
        &["jodis_name", "jodis_addr", "jodis_compatible"],
        "is the operator's own: set spec.codisProxy.jodis instead",
    ),
    (
        &["product_name", "admin_addr", "proxy_addr", "proto_type", "jodis_*"],
        OPERATORS,
    ),
];

pub(super) const DASHBOARD_REFUSED: [Refused; 4] = [
    (
        &["product_auth"],
        "is the operator's own: set spec.codisDashboard.productAuth or productAuthSecretRef instead",
    ),
    (
        &[
            "sentinel_down_after",
            "sentinel_failover_timeout",
            "sentinel_parallel_syncs",
        ],
        "set down-after-milliseconds, failover-timeout or parallel-syncs in spec.sentinel.config instead: it goes to the dashboard too",
    ),
    (
        &["sentinel_quorum"],
        "is the operator's own: a majority of spec.sentinel.replicas",
    ),
    (
        &[
            "coordinator_*",
            "product_name",
            "admin_addr",
            "sentinel_notification_script",
            "sentinel_client_reconfig_script",
        ],
        OPERATORS,
    ),
];

/// proxy.toml of Codis 3.2 (contract §13.2), without what is refused.
pub(super) const PROXY: [(&str, Kind); 32] = [
    ("proxy_datacenter", Kind::Text),
    ("proxy_max_clients", POSITIVE),
    ("proxy_max_offheap_size", Kind::Bytes),
    ("proxy_heap_placeholder", Kind::Bytes),
    ("backend_ping_period", Kind::Span),
    ("backend_recv_bufsize", Kind::Bytes),
    ("backend_recv_timeout", Kind::Span),
    ("backend_send_bufsize", Kind::Bytes),
    ("backend_send_timeout", Kind::Span),
    ("backend_max_pipeline", POSITIVE),
    ("backend_primary_only", Kind::Bool),
    ("backend_primary_parallel", POSITIVE),
    ("backend_replica_parallel", POSITIVE),
    ("backend_keepalive_period", Kind::Span),
    ("backend_number_databases", POSITIVE),
    ("session_recv_bufsize", Kind::Bytes),
    ("session_recv_timeout", Kind::Span),
    ("session_send_bufsize", Kind::Bytes),
    ("session_send_timeout", Kind::Span),
    ("session_max_pipeline", POSITIVE),
    ("session_keepalive_period", Kind::Span),
    ("session_break_on_failure", Kind::Bool),
    ("metrics_report_server", Kind::Text),
    ("metrics_report_period", Kind::Span),
    ("metrics_report_influxdb_server", Kind::Text),
    ("metrics_report_influxdb_period", Kind::Span),
    ("metrics_report_influxdb_username", Kind::Text),
    ("metrics_report_influxdb_password", Kind::Text),
    ("metrics_report_influxdb_database", Kind::Text),
    ("metrics_report_statsd_server", Kind::Text),
    ("metrics_report_statsd_period", Kind::Span),
    ("metrics_report_statsd_prefix", Kind::Text),
];

/// dashboard.toml of Codis 3.2 (contract §13.1), without what is refused.
pub(super) const DASHBOARD: [(&str, Kind); 7] = [
    ("migration_method", Kind::OneOf(&["semi-async", "sync"])),
    ("migration_parallel_slots", POSITIVE),
    ("migration_async_maxbulks", POSITIVE),
    ("migration_async_maxbytes", Kind::Bytes),
    ("migration_async_numkeys", POSITIVE),
    ("migration_timeout", Kind::Span),
    ("sentinel_client_timeout", Kind::Span),
];

/// Whether a value of dashboard.toml or proxy.toml is written without quotes: Codis reads no text into such fields, and
/// nothing else into the others.
#[must_use]
pub fn is_bare(key: &str) -> bool {
    let mut all = PROXY.iter().chain(&DASHBOARD);
    all.any(|(known, kind)| *known == key && matches!(kind, Kind::Number(..) | Kind::Bool))
}

/// What of a sentinel can be tuned: the first three for each master, live; the rest for the process. Less than a second
/// of silence is a garbage collection or a slow command, no death.
pub(super) const SENTINEL: [(&str, Kind); 7] = [
    ("down-after-milliseconds", Kind::Number(1000, 600_000)),
    ("failover-timeout", Kind::Number(1000, 3_600_000)),
    ("parallel-syncs", Kind::Number(1, 1024)),
    ("loglevel", LOG_LEVEL),
    ("maxclients", POSITIVE),
    ("tcp-backlog", POSITIVE),
    ("tcp-keepalive", NATURAL),
];
