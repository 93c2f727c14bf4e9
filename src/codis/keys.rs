//! Which slots a server holds keys of: what a topology that is restored must agree with.

use std::collections::BTreeSet;

use futures::future::join_all;
use redis::{ErrorKind, RedisError, ServerErrorKind, cmd};

use super::{Codis, Error, redis::Connection};
use crate::domain::{Address, SlotId, slot_of_key};

/// Keys that are asked for at once where a server doesn't know slots.
const SCANNED: usize = 1000;

impl Codis {
    /// The slots of which a server holds keys, over all of its databases. A codis-server knows them by itself (contract
    /// §12.2); of any other redis the keys are listed, which takes its time with the number of keys. Each command has
    /// [`Timeouts::redis`](super::Timeouts::redis).
    ///
    /// # Errors
    /// Any [`Error`]; it is no effect.
    pub async fn slots_with_keys(&self, address: &Address) -> Result<BTreeSet<SlotId>, Error> {
        let mut connection = self.converse(address, self.open(address)).await?;
        let info: String = self
            .converse(address, async {
                cmd("INFO").arg("keyspace").query_async(&mut connection).await
            })
            .await?;
        let mut slots = BTreeSet::new();
        for database in databases(&info) {
            let select = async { cmd("SELECT").arg(database).query_async(&mut connection).await };
            let () = self.converse(address, select).await?;
            match self.converse(address, known_slots(&mut connection)).await? {
                Some(known) => slots.extend(known),
                None => self.scan(address, &mut connection, &mut slots).await?,
            }
        }
        Ok(slots)
    }

    /// The same of several servers, asked at once; an error text where one doesn't say.
    pub async fn slots_with_keys_of(
        &self,
        servers: impl IntoIterator<Item = Address>,
    ) -> Vec<(Address, Result<BTreeSet<SlotId>, String>)> {
        let ask = async |server: Address| {
            let slots = self.slots_with_keys(&server).await;
            (server, slots.map_err(|error| error.to_string()))
        };
        join_all(servers.into_iter().map(ask)).await
    }

    async fn scan(
        &self,
        address: &Address,
        connection: &mut Connection,
        slots: &mut BTreeSet<SlotId>,
    ) -> Result<(), Error> {
        let mut cursor: u64 = 0;
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("COUNT").arg(SCANNED);
            let page = async { scan.query_async::<(u64, Vec<Vec<u8>>)>(connection).await };
            let (next, keys) = self.converse(address, page).await?;
            slots.extend(keys.iter().map(|key| slot_of_key(key)));
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

/// The databases that hold keys, by `INFO keyspace`: lines like `db0:keys=5,…`.
fn databases(info: &str) -> Vec<u64> {
    let lines = info.lines().filter_map(|line| line.strip_prefix("db")?.split_once(':'));
    lines.filter_map(|(number, _)| number.parse().ok()).collect()
}

/// What a codis-server says; none when it isn't one.
async fn known_slots(connection: &mut Connection) -> Result<Option<Vec<SlotId>>, RedisError> {
    let told: Result<Vec<(u64, u64)>, RedisError> = cmd("SLOTSINFO").query_async(connection).await;
    match told {
        Ok(told) => Ok(Some(
            told.into_iter()
                .filter(|(_, keys)| *keys > 0)
                .filter_map(|(slot, _)| SlotId::try_from(slot).ok())
                .collect(),
        )),
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::databases;

    #[test]
    fn databases_with_keys_are_read_from_info() {
        let info = "# Keyspace\r\ndb0:keys=5,expires=0,avg_ttl=0\r\ndb12:keys=1,expires=0,avg_ttl=0\r\n";
        assert_eq!(databases(info), [0, 12]);
        assert_eq!(databases("# Keyspace\r\n"), [] as [u64; 0]);
    }
}
