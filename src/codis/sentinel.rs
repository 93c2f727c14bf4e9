//! A sentinel, asked directly, without AUTH (contract §3, §11).

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::future::join_all;
use redis::{Cmd, RedisError, cmd};

use super::{Codis, Error, names, redis::Connection};
use crate::domain::{Address, GroupId, SentinelMaster, SentinelView};

/// How a sentinel is to watch a master (contract §13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentinelSettings {
    /// How many sentinels must agree that a master is down.
    pub quorum: u32,
    /// How many replicas may be re-pointed at a time after a failover.
    pub parallel_syncs: u32,
    /// How long a master must be silent to be down.
    pub down_after: Duration,
    /// How long a failover may take.
    pub failover_timeout: Duration,
}

/// A row of a sentinel's answer: names and values.
type Row = HashMap<String, String>;

impl Codis {
    /// What several sentinels watch, asked at once: `SENTINEL masters`, whoever's they are. The error of a sentinel
    /// is a text.
    pub async fn sentinels(
        &self,
        addresses: impl IntoIterator<Item = Address>,
    ) -> BTreeMap<Address, Result<SentinelView, String>> {
        let ask = async |address| (self.sentinel(&address).await, address);
        let views = join_all(addresses.into_iter().map(ask)).await;
        views.into_iter().map(|(view, address)| (address, view)).collect()
    }

    async fn sentinel(&self, address: &Address) -> Result<SentinelView, String> {
        let rows = self.converse(address, async {
            let mut connection = self.connect(address).await?;
            let masters: Vec<Row> = sentinel("masters").query_async(&mut connection).await?;
            let mut all = Vec::with_capacity(masters.len());
            for master in masters {
                let name = master.get("name").cloned().unwrap_or_default();
                // Redis 7 still knows the command by this name, which is the only one in 3.2.
                let replicas: Vec<Row> = sentinel("slaves").arg(name).query_async(&mut connection).await?;
                all.push((master, replicas));
            }
            let info: String = redis::cmd("INFO").arg("sentinel").query_async(&mut connection).await?;
            Ok((all, info.lines().any(|line| line.trim() == "sentinel_tilt:1")))
        });
        match rows.await {
            Ok((rows, in_tilt)) => {
                let masters = rows.iter().map(|(master, replicas)| parse_master(master, replicas));
                Ok(SentinelView {
                    masters: masters.collect::<Result<_, _>>()?,
                    in_tilt,
                })
            }
            Err(Error::Refused { cause, .. }) => Err(cause),
            Err(error) => Err(error.to_string()),
        }
    }

    /// How one sentinel watches a group's master.
    ///
    /// # Errors
    /// Any [`Error`]; it is no effect.
    pub async fn sentinel_settings(&self, address: &Address, group: GroupId) -> Result<SentinelSettings, Error> {
        let name = format!("{}-{group}", self.0.product);
        let row = self.converse(address, async {
            let mut connection = self.connect(address).await?;
            sentinel("master").arg(name).query_async::<Row>(&mut connection).await
        });
        let row = row.await?;
        let millis = |field: &str| Duration::from_millis(number_or_zero(&row, field));
        let count = |field: &str| u32::try_from(number_or_zero(&row, field)).unwrap_or(u32::MAX);
        Ok(SentinelSettings {
            quorum: count("quorum"),
            parallel_syncs: count("parallel-syncs"),
            down_after: millis("down-after-milliseconds"),
            failover_timeout: millis("failover-timeout"),
        })
    }

    /// Has one sentinel that lacks a group's master watch it: what `sentinels/resync-all` does to one sentinel and
    /// one group (contract §11), without what it makes all of them forget. `master` must be an IP: sentinel 3.2 knows
    /// no names. A sentinel that has the master keeps the address it has and gets the settings; since redis 6.2 it also
    /// makes its connections to the master anew when it is told the password.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn monitor(
        &self,
        sentinel: &Address,
        group: GroupId,
        master: &Address,
        settings: &SentinelSettings,
    ) -> Result<(), Error> {
        self.watch(sentinel, group, master, settings, false).await
    }

    /// The same where the sentinel watches the master at an address that it had: it forgets that one first, with a
    /// failover that it may have begun.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn redirect(
        &self,
        sentinel: &Address,
        group: GroupId,
        master: &Address,
        settings: &SentinelSettings,
    ) -> Result<(), Error> {
        self.watch(sentinel, group, master, settings, true).await
    }

    async fn watch(
        &self,
        address: &Address,
        group: GroupId,
        master: &Address,
        settings: &SentinelSettings,
        forgets_first: bool,
    ) -> Result<(), Error> {
        let name = format!("{}-{group}", self.0.product);
        let monitor = monitor_command(&name, master, settings.quorum);
        let set = set_command(&name, settings, self.0.product_auth.as_deref());
        self.before(names::MONITOR)?;
        let conversation = async {
            let mut connection = self.connect(address).await?;
            if forgets_first {
                // One that has forgotten it meanwhile refuses this.
                let _: Result<(), RedisError> = sentinel("remove").arg(&name).query_async(&mut connection).await;
            }
            introduce(&mut connection, &name, &monitor, &set).await
        };
        self.converse(address, conversation).await
    }
}

/// Sends both commands at once, so that no crash of ours comes between them. A master without its settings would
/// look watched but couldn't be asked for want of its password: it is taken back.
async fn introduce(connection: &mut Connection, name: &str, monitor: &Cmd, set: &Cmd) -> Result<(), RedisError> {
    let mut both = redis::pipe();
    both.add_command(monitor.clone())
        .add_command(set.clone())
        .ignore_errors();
    let (added, configured): (Result<(), RedisError>, Result<(), RedisError>) = both.query_async(connection).await?;
    match added {
        Err(error) if !is_duplicate(&error) => Err(error),
        Ok(()) if configured.is_err() => {
            let () = sentinel("remove").arg(name).query_async(connection).await?;
            configured
        }
        Ok(()) | Err(_) => configured,
    }
}

fn sentinel(command: &str) -> Cmd {
    let mut sentinel = cmd("SENTINEL");
    sentinel.arg(command);
    sentinel
}

fn monitor_command(name: &str, master: &Address, quorum: u32) -> Cmd {
    let mut monitor = sentinel("monitor");
    monitor.arg(name).arg(master.host()).arg(master.port()).arg(quorum);
    monitor
}

fn set_command(name: &str, settings: &SentinelSettings, password: Option<&str>) -> Cmd {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut set = sentinel("set");
    set.arg(name)
        .arg("quorum")
        .arg(settings.quorum)
        .arg("parallel-syncs")
        .arg(settings.parallel_syncs)
        .arg("down-after-milliseconds")
        .arg(millis(settings.down_after))
        .arg("failover-timeout")
        .arg(millis(settings.failover_timeout));
    if let Some(password) = password {
        set.arg("auth-pass").arg(password);
    }
    set
}

/// `Duplicated master name` in 3.2, `Duplicate master name` since 6.2.
fn is_duplicate(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.starts_with("Duplicate"))
}

/// A replica, and for how many milliseconds it hasn't answered. One without an address isn't known well enough.
fn silence(row: &Row) -> Option<(Address, u64)> {
    let address = Address::new(row.get("ip")?, row.get("port")?.parse().ok()?);
    Some((address, number_or_zero(row, "last-ok-ping-reply")))
}

/// A figure that older sentinels may not tell.
fn number_or_zero(row: &Row, field: &str) -> u64 {
    row.get(field).and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn parse_master(row: &Row, replicas: &[Row]) -> Result<(String, SentinelMaster), String> {
    let text = |field: &str| row.get(field).ok_or_else(|| format!("a master has no {field}"));
    let number = |field: &str| {
        let value = text(field)?;
        value.parse().map_err(|_| format!("a master has {field} {value:?}"))
    };
    let port = text("port")?;
    let port = port.parse().map_err(|_| format!("a master has port {port:?}"))?;
    let master = SentinelMaster {
        address: Address::new(text("ip")?, port),
        replicas: number("num-slaves")?,
        other_sentinels: number("num-other-sentinels")?,
        flags: text("flags")?.clone(),
        silent_ms: number_or_zero(row, "last-ok-ping-reply"),
        replica_silence: replicas.iter().filter_map(silence).collect(),
    };
    Ok((text("name")?.clone(), master))
}
