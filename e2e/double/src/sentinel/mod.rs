//! What Codis does with sentinels (§11): the exact commands, never with a password.

pub mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::redis::{Connection, RedisError, resolve};
use crate::resp::Value;
use crate::wire::Monitored;

/// A row of `SENTINEL masters` or `SENTINEL slaves`.
pub type Row = BTreeMap<String, String>;

/// How a master is to be watched.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Sentinels that must agree.
    pub quorum: i64,
    /// Replicas re-pointed at a time.
    pub parallel_syncs: i64,
    /// Silence that counts as death.
    pub down_after: Duration,
    /// Longest failover.
    pub failover_timeout: Duration,
    /// `auth-pass`, none when empty.
    pub auth: String,
    /// A path on the sentinel's host, none when empty.
    pub notification_script: String,
    /// A path on the sentinel's host, none when empty.
    pub client_reconfig_script: String,
}

/// The name of a group's master.
pub fn master_name(product: &str, gid: i64) -> String {
    format!("{product}-{gid}")
}

/// The group a master's name means, if it belongs to the product.
pub fn group_of(product: &str, name: &str) -> Option<i64> {
    name.strip_prefix(product)?.strip_prefix('-')?.parse().ok()
}

/// One connection to a sentinel.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    product: String,
}

impl Client {
    /// Connects.
    pub async fn open(addr: &str, product: &str, timeout: Duration) -> Result<Self, RedisError> {
        Ok(Self {
            connection: Connection::open(addr, "", timeout).await?,
            product: product.to_string(),
        })
    }

    async fn sentinel(&mut self, words: &[&str]) -> Result<Value, RedisError> {
        let command: Vec<&str> = std::iter::once("SENTINEL").chain(words.iter().copied()).collect();
        self.connection.command(&command).await
    }

    /// Proves that it is a sentinel that can write its configuration.
    pub async fn flush_config(&mut self) -> Result<(), RedisError> {
        self.sentinel(&["flushconfig"]).await.map(drop)
    }

    /// Its `INFO`.
    pub async fn info(&mut self) -> Result<Row, RedisError> {
        self.connection.plain_info().await
    }

    /// The product's masters by name.
    pub async fn masters(&mut self) -> Result<BTreeMap<String, Row>, RedisError> {
        let rows = self.sentinel(&["masters"]).await?;
        let named = rows
            .items()
            .iter()
            .map(row)
            .filter_map(|row| Some((row.get("name")?.clone(), row)));
        Ok(named
            .filter(|(name, _)| group_of(&self.product, name).is_some())
            .collect())
    }

    /// The product's masters with their slaves.
    pub async fn monitored(&mut self) -> Result<BTreeMap<String, Monitored>, RedisError> {
        let mut all = BTreeMap::new();
        for (name, master) in self.masters().await? {
            let slaves = self
                .sentinel(&["slaves", &name])
                .await?
                .items()
                .iter()
                .map(row)
                .collect();
            all.insert(name, Monitored { master, slaves });
        }
        Ok(all)
    }

    /// Forgets one group's master, if it knows it.
    pub async fn remove(&mut self, name: &str) -> Result<(), RedisError> {
        match self.sentinel(&["get-master-addr-by-name", name]).await? {
            Value::Array(None) | Value::Bulk(None) => Ok(()),
            _ => self.sentinel(&["remove", name]).await.map(drop),
        }
    }

    /// Forgets all of the product's masters.
    pub async fn remove_all(&mut self) -> Result<(), RedisError> {
        for name in self.masters().await?.into_keys() {
            self.remove(&name).await?;
        }
        Ok(())
    }

    /// Watches a group's master from scratch: the epoch and the replicas known before are forgotten.
    pub async fn monitor(&mut self, gid: i64, ip: &str, port: &str, policy: &Policy) -> Result<(), RedisError> {
        let name = master_name(&self.product, gid);
        self.remove(&name).await?;
        self.sentinel(&["monitor", &name, ip, port, &policy.quorum.to_string()])
            .await?;
        let numbers = [
            ("parallel-syncs", policy.parallel_syncs.to_string()),
            ("down-after-milliseconds", policy.down_after.as_millis().to_string()),
            ("failover-timeout", policy.failover_timeout.as_millis().to_string()),
        ];
        let texts = [
            ("auth-pass", policy.auth.clone()),
            ("notification-script", policy.notification_script.clone()),
            ("client-reconfig-script", policy.client_reconfig_script.clone()),
        ];
        let mut words = vec!["set".to_string(), name];
        for (option, value) in numbers.into_iter().chain(texts).filter(|(_, value)| !value.is_empty()) {
            words.extend([option.to_string(), value]);
        }
        self.sentinel(&words.iter().map(String::as_str).collect::<Vec<_>>())
            .await
            .map(drop)
    }
}

/// The IP and port of a master: sentinel 3.2 knows no names.
pub async fn numeric(addr: &str) -> Result<(String, String), RedisError> {
    let resolved = resolve(addr).await?;
    Ok((resolved.ip().to_string(), resolved.port().to_string()))
}

fn row(value: &Value) -> Row {
    let pairs = value.items().chunks_exact(2);
    pairs
        .filter_map(|pair| Some((pair[0].text()?, pair[1].text()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_belongs_to_the_product_that_its_name_spells() {
        assert_eq!(group_of("demo", "demo-12"), Some(12));
        assert_eq!(group_of("demo", "demo-2-12"), None);
        assert_eq!(group_of("demo", "demo2-12"), None);
        assert_eq!(group_of("demo", "demo-x"), None);
        assert_eq!(group_of("demo", &master_name("demo", 3)), Some(3));
    }
}
