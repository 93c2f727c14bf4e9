//! Reads that replicas may serve (§6.5): which commands they are, and which servers are fit for them.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::redis::flatten;
use crate::resp::Value;

/// Commands that only read and do not go on where an earlier one ended: the cursors of `HSCAN` and its kin mean nothing
/// to another server. Whatever is not here goes to the master, unknown commands with it.
const READS: &[&str] = &[
    "BITCOUNT",
    "BITPOS",
    "DUMP",
    "EXISTS",
    "GEODIST",
    "GEOHASH",
    "GEOPOS",
    "GET",
    "GETBIT",
    "GETRANGE",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HSTRLEN",
    "HVALS",
    "LINDEX",
    "LLEN",
    "LRANGE",
    "MGET",
    "PFCOUNT",
    "PTTL",
    "SCARD",
    "SDIFF",
    "SINTER",
    "SISMEMBER",
    "SMEMBERS",
    "SRANDMEMBER",
    "STRLEN",
    "SUBSTR",
    "SUNION",
    "TTL",
    "TYPE",
    "ZCARD",
    "ZCOUNT",
    "ZLEXCOUNT",
    "ZRANGE",
    "ZRANGEBYLEX",
    "ZRANGEBYSCORE",
    "ZRANK",
    "ZREVRANGE",
    "ZREVRANGEBYLEX",
    "ZREVRANGEBYSCORE",
    "ZREVRANK",
    "ZSCORE",
];

/// Whether a replica may serve a command; `name` is its first word in upper case.
pub fn is_read(name: &str) -> bool {
    READS.binary_search(&name).is_ok()
}

/// Nothing is known: not connected, or not asked yet.
const UNKNOWN: u8 = 0;
/// It answers.
const FIT: u8 = 1;
/// It has said that what it holds is not what its master holds.
const STALE: u8 = 2;

/// Whether the server at the end of a connection is fit for reads.
#[derive(Debug)]
pub struct Health {
    state: AtomicU8,
    next_question: Mutex<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(UNKNOWN),
            next_question: Mutex::new(Instant::now()),
        }
    }
}

impl Health {
    /// Whether reads may go there now.
    pub fn is_fit(&self) -> bool {
        self.state.load(Ordering::Acquire) == FIT
    }

    /// Whether it is time to ask the server again how it is.
    pub fn asks(&self, pause: Duration) -> bool {
        let mut next = self.next_question.lock().unwrap_or_else(PoisonError::into_inner);
        let due = *next <= Instant::now();
        if due {
            *next = Instant::now() + pause;
        }
        due
    }

    /// The connection is gone.
    pub fn lose(&self) {
        self.state.store(UNKNOWN, Ordering::Release);
    }

    /// Takes note of a reply to anything.
    pub fn hear(&self, reply: &Value) {
        if let Value::Error(text) = reply
            && (text.starts_with("MASTERDOWN") || text.starts_with("LOADING"))
        {
            self.state.store(STALE, Ordering::Release);
        }
    }

    /// Takes note of the reply to `INFO`: any will do at first, but one that was stale has to be in step again.
    pub fn learn(&self, reply: &Value) {
        // An error has no text.
        let Some(info) = reply.text().map(|text| flatten(&text)) else {
            return;
        };
        let says = |key: &str, value: &str| info.get(key).is_some_and(|told| told == value);
        let in_step = !says("master_link_status", "down") && !says("loading", "1");
        if in_step || self.state.load(Ordering::Acquire) == UNKNOWN {
            self.state.store(FIT, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_sorted_and_nothing_else_is_one() {
        assert!(READS.is_sorted());
        assert!(is_read("GET") && is_read("ZSCORE"));
        for command in ["SET", "HSCAN", "SORT", "EVAL", "PING", "GEORADIUS", "UNHEARDOF"] {
            assert!(!is_read(command), "{command}");
        }
    }

    #[test]
    fn a_stale_server_is_fit_again_when_it_is_in_step() {
        let health = Health::default();
        assert!(!health.is_fit());
        health.learn(&Value::bulk("role:slave\r\nmaster_link_status:down\r\nloading:0\r\n"));
        assert!(health.is_fit(), "Codis asks no more than an answer of a new connection");
        health.hear(&Value::error("ERR unknown command"));
        assert!(health.is_fit());
        health.hear(&Value::error("MASTERDOWN Link with MASTER is down"));
        assert!(!health.is_fit());
        health.learn(&Value::bulk("master_link_status:down\r\nloading:0\r\n"));
        health.learn(&Value::bulk("master_link_status:up\r\nloading:1\r\n"));
        health.learn(&Value::error("LOADING Redis is loading the dataset in memory"));
        assert!(!health.is_fit());
        health.learn(&Value::bulk("master_link_status:up\r\nloading:0\r\n"));
        assert!(health.is_fit());
        health.lose();
        assert!(!health.is_fit());
    }

    #[test]
    fn questions_are_not_asked_all_the_time() {
        let health = Health::default();
        assert!(health.asks(Duration::from_secs(60)));
        assert!(!health.asks(Duration::from_secs(60)));
    }
}
