//! The two configuration files (§13.1, §13.2): TOML merged over defaults, unknown keys ignored.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::scalar::{Bytes, Span};

/// `dashboard.toml`; as JSON it leaves out `product_auth` (§3).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are Codis's own configuration keys, §13.1")]
pub struct DashboardConfig {
    pub coordinator_name: String,
    pub coordinator_addr: String,
    pub coordinator_auth: String,
    pub admin_addr: String,
    pub product_name: String,
    #[serde(skip_serializing)]
    pub product_auth: String,
    pub migration_method: String,
    pub migration_parallel_slots: i64,
    pub migration_async_maxbulks: i64,
    pub migration_async_maxbytes: Bytes,
    pub migration_async_numkeys: i64,
    pub migration_timeout: Span,
    pub sentinel_client_timeout: Span,
    pub sentinel_quorum: i64,
    pub sentinel_parallel_syncs: i64,
    pub sentinel_down_after: Span,
    pub sentinel_failover_timeout: Span,
    pub sentinel_notification_script: String,
    pub sentinel_client_reconfig_script: String,
}

impl Default for DashboardConfig {
    fn default() -> Self {
        Self {
            coordinator_name: "filesystem".into(),
            coordinator_addr: "/tmp/codis".into(),
            coordinator_auth: String::new(),
            admin_addr: "0.0.0.0:18080".into(),
            product_name: "codis-demo".into(),
            product_auth: String::new(),
            migration_method: "semi-async".into(),
            migration_parallel_slots: 100,
            migration_async_maxbulks: 200,
            migration_async_maxbytes: Bytes(32 << 20),
            migration_async_numkeys: 500,
            migration_timeout: seconds(30),
            sentinel_client_timeout: seconds(10),
            sentinel_quorum: 2,
            sentinel_parallel_syncs: 1,
            sentinel_down_after: seconds(30),
            sentinel_failover_timeout: seconds(300),
            sentinel_notification_script: String::new(),
            sentinel_client_reconfig_script: String::new(),
        }
    }
}

impl DashboardConfig {
    /// Refuses values that Codis refuses.
    pub fn validate(&self) -> Result<()> {
        product_name(&self.product_name)?;
        ensure!(!self.coordinator_name.is_empty(), "invalid coordinator_name");
        ensure!(!self.coordinator_addr.is_empty(), "invalid coordinator_addr");
        ensure!(!self.admin_addr.is_empty(), "invalid admin_addr");
        ensure!(
            matches!(self.migration_method.as_str(), "sync" | "semi-async"),
            "invalid migration_method"
        );
        let numbers = [
            ("migration_parallel_slots", self.migration_parallel_slots),
            ("migration_async_maxbulks", self.migration_async_maxbulks),
            ("migration_async_maxbytes", self.migration_async_maxbytes.0 as i64),
            ("migration_async_numkeys", self.migration_async_numkeys),
            ("sentinel_quorum", self.sentinel_quorum),
            ("sentinel_parallel_syncs", self.sentinel_parallel_syncs),
        ];
        for (key, number) in numbers {
            ensure!(number > 0, "invalid {key}");
        }
        let spans = [
            ("migration_timeout", self.migration_timeout),
            ("sentinel_client_timeout", self.sentinel_client_timeout),
            ("sentinel_down_after", self.sentinel_down_after),
            ("sentinel_failover_timeout", self.sentinel_failover_timeout),
        ];
        spans.iter().try_for_each(|(key, span)| positive(key, *span))
    }

    /// 0 for `sync`, 1 for `semi-async` (§4).
    pub fn forward_method(&self) -> i64 {
        i64::from(self.migration_method == "semi-async")
    }
}

/// `proxy.toml`; as JSON it leaves out the passwords (§3).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are Codis's own configuration keys, §13.2")]
pub struct ProxyConfig {
    pub proto_type: String,
    pub proxy_addr: String,
    pub admin_addr: String,
    pub jodis_name: String,
    pub jodis_addr: String,
    pub jodis_auth: String,
    pub jodis_timeout: Span,
    pub jodis_compatible: bool,
    pub product_name: String,
    #[serde(skip_serializing)]
    pub product_auth: String,
    #[serde(skip_serializing)]
    pub session_auth: String,
    pub proxy_datacenter: String,
    pub proxy_max_clients: i64,
    pub proxy_max_offheap_size: Bytes,
    pub proxy_heap_placeholder: Bytes,
    pub backend_ping_period: Span,
    pub backend_recv_bufsize: Bytes,
    pub backend_recv_timeout: Span,
    pub backend_send_bufsize: Bytes,
    pub backend_send_timeout: Span,
    pub backend_max_pipeline: i64,
    pub backend_primary_only: bool,
    pub backend_primary_parallel: i64,
    pub backend_replica_parallel: i64,
    pub backend_keepalive_period: Span,
    pub backend_number_databases: i64,
    pub session_recv_bufsize: Bytes,
    pub session_recv_timeout: Span,
    pub session_send_bufsize: Bytes,
    pub session_send_timeout: Span,
    pub session_max_pipeline: i64,
    pub session_keepalive_period: Span,
    pub session_break_on_failure: bool,
    pub metrics_report_server: String,
    pub metrics_report_period: Span,
    pub metrics_report_influxdb_server: String,
    pub metrics_report_influxdb_period: Span,
    pub metrics_report_influxdb_username: String,
    #[serde(skip_serializing)]
    pub metrics_report_influxdb_password: String,
    pub metrics_report_influxdb_database: String,
    pub metrics_report_statsd_server: String,
    pub metrics_report_statsd_period: Span,
    pub metrics_report_statsd_prefix: String,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            proto_type: "tcp4".into(),
            proxy_addr: "0.0.0.0:19000".into(),
            admin_addr: "0.0.0.0:11080".into(),
            jodis_name: String::new(),
            jodis_addr: String::new(),
            jodis_auth: String::new(),
            jodis_timeout: seconds(20),
            jodis_compatible: false,
            product_name: "codis-demo".into(),
            product_auth: String::new(),
            session_auth: String::new(),
            proxy_datacenter: String::new(),
            proxy_max_clients: 1000,
            proxy_max_offheap_size: Bytes(1024 << 20),
            proxy_heap_placeholder: Bytes(256 << 20),
            backend_ping_period: seconds(5),
            backend_recv_bufsize: Bytes(128 << 10),
            backend_recv_timeout: seconds(30),
            backend_send_bufsize: Bytes(128 << 10),
            backend_send_timeout: seconds(30),
            backend_max_pipeline: 20480,
            backend_primary_only: false,
            backend_primary_parallel: 1,
            backend_replica_parallel: 1,
            backend_keepalive_period: seconds(75),
            backend_number_databases: 16,
            session_recv_bufsize: Bytes(128 << 10),
            session_recv_timeout: seconds(1800),
            session_send_bufsize: Bytes(64 << 10),
            session_send_timeout: seconds(30),
            session_max_pipeline: 10000,
            session_keepalive_period: seconds(75),
            session_break_on_failure: false,
            metrics_report_server: String::new(),
            metrics_report_period: seconds(1),
            metrics_report_influxdb_server: String::new(),
            metrics_report_influxdb_period: seconds(1),
            metrics_report_influxdb_username: String::new(),
            metrics_report_influxdb_password: String::new(),
            metrics_report_influxdb_database: String::new(),
            metrics_report_statsd_server: String::new(),
            metrics_report_statsd_period: seconds(1),
            metrics_report_statsd_prefix: String::new(),
        }
    }
}

impl ProxyConfig {
    /// Refuses values that Codis refuses.
    pub fn validate(&self) -> Result<()> {
        product_name(&self.product_name)?;
        ensure!(!self.proto_type.is_empty(), "invalid proto_type");
        ensure!(!self.proxy_addr.is_empty(), "invalid proxy_addr");
        ensure!(!self.admin_addr.is_empty(), "invalid admin_addr");
        let numbers = [
            ("proxy_max_clients", self.proxy_max_clients),
            ("backend_max_pipeline", self.backend_max_pipeline),
            ("backend_number_databases", self.backend_number_databases),
            ("session_max_pipeline", self.session_max_pipeline),
        ];
        for (key, number) in numbers {
            ensure!(number > 0, "invalid {key}");
        }
        Ok(())
    }
}

/// Reads a file over the defaults.
pub fn load<T: DeserializeOwned + Default>(file: Option<&str>) -> Result<T> {
    let Some(file) = file else { return Ok(T::default()) };
    let text = std::fs::read_to_string(Path::new(file)).with_context(|| format!("load config {file} failed"))?;
    parse(&text).with_context(|| format!("load config {file} failed"))
}

/// Reads a file's text over the defaults.
pub fn parse<T: DeserializeOwned + Default>(text: &str) -> Result<T> {
    // The parser's message quotes the line it stumbles over, and that may be the one with the password.
    toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.message()))
}

fn product_name(name: &str) -> Result<()> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = name.starts_with(word) && name.chars().all(|c| word(c) || c == '.' || c == '-');
    if !good {
        bail!("bad product name = {name}");
    }
    Ok(())
}

fn positive(key: &str, span: Span) -> Result<()> {
    ensure!(!span.0.is_zero(), "invalid {key}");
    Ok(())
}

const fn seconds(count: u64) -> Span {
    Span(Duration::from_secs(count))
}
