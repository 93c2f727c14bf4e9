//! The commands on keys.

use bytes::{BufMut, Bytes, BytesMut};

use super::super::clients::glob;
use super::super::hash;
use super::core::{Redis, text, upper};
use crate::resp::Value;

const SYNTAX: &str = "ERR syntax error";
const NO_INTEGER: &str = "ERR value is not an integer or out of range";

type Reply = Result<Value, String>;

fn number<T: std::str::FromStr>(word: &[u8]) -> Result<T, String> {
    text(word).parse().map_err(|_| NO_INTEGER.to_owned())
}

fn count(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// What `DUMP` makes of a value: a mark, the value, and their checksum. Not redis's own form.
fn dump(value: &[u8]) -> Bytes {
    let mut dumped = BytesMut::from(&b"\0sim"[..]);
    dumped.put_slice(value);
    let sum = crc32fast::hash(&dumped);
    dumped.put_u32(sum);
    dumped.freeze()
}

fn undump(dumped: &[u8]) -> Option<Bytes> {
    let (body, sum) = dumped.split_last_chunk::<4>()?;
    let value = body.strip_prefix(b"\0sim")?;
    (crc32fast::hash(body).to_be_bytes() == *sum).then(|| Bytes::copy_from_slice(value))
}

impl Redis {
    /// Does a command on keys; on a replica only because its master says so, or for reading.
    pub(super) fn data(&mut self, database: u32, name: &str, words: &[Bytes]) -> Value {
        let args = &words[1..];
        let done = match name {
            "SET" | "SETNX" | "SETEX" | "PSETEX" | "MSET" => self.assign(database, name, args),
            "INCR" | "DECR" | "INCRBY" | "DECRBY" | "APPEND" => self.change(database, name, words),
            "DEL" | "UNLINK" => Ok(count(self.delete(database, args))),
            "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" | "PERSIST" => self.end_at(database, name, args),
            "FLUSHALL" | "FLUSHDB" => Ok(self.flush_keys(database, name)),
            "RESTORE" => self.restore(database, args),
            "GET" | "MGET" | "EXISTS" | "STRLEN" | "DUMP" | "TTL" | "PTTL" | "TYPE" => {
                Ok(self.read(database, name, args))
            }
            "SCAN" => self.scan(database, args),
            "DBSIZE" => Ok(count(self.keys.database(database).map_or(0, |keys| keys.len()))),
            "RANDOMKEY" => Ok(self.some_key(database)),
            _ => Err(format!("ERR '{name}' isn't simulated")),
        };
        done.unwrap_or_else(Value::error)
    }

    /// A value whose time isn't over. A master removes one whose time is.
    pub(super) fn live(&mut self, database: u32, key: &[u8]) -> Option<(Bytes, Option<i64>)> {
        let now = self.clock.ms();
        let entry = self.keys.get(database, key)?;
        match entry.until {
            Some(until) if until <= now => {
                if self.is_master() {
                    self.expire(database, key);
                }
                None
            }
            until => Some((entry.value.clone(), until)),
        }
    }

    fn expire(&mut self, database: u32, key: &[u8]) {
        self.keys.remove(database, key);
        self.propagate(database, &[&b"DEL"[..], key]);
    }

    /// Removes all keys whose time is over, as a master does now and then.
    pub(super) fn expire_all(&mut self) {
        let now = self.clock.ms();
        while let Some((database, key)) = self.keys.over(now) {
            self.expire(database, &key);
        }
    }

    fn put(&mut self, database: u32, key: &[u8], value: &[u8], until: Option<i64>) {
        self.keys.put(database, key, Bytes::copy_from_slice(value), until);
        self.propagate(database, &[&b"SET"[..], key, value]);
        if let Some(until) = until {
            let until = until.to_string();
            self.propagate(database, &[&b"PEXPIREAT"[..], key, until.as_bytes()]);
        }
    }

    fn assign(&mut self, database: u32, name: &str, args: &[Bytes]) -> Reply {
        let now = self.clock.ms();
        match name {
            "MSET" => {
                if !args.len().is_multiple_of(2) {
                    return Err("ERR wrong number of arguments for 'mset' command".into());
                }
                args.chunks_exact(2)
                    .for_each(|pair| self.put(database, &pair[0], &pair[1], None));
                Ok(Value::ok())
            }
            "SETNX" => {
                let is_new = self.live(database, &args[0]).is_none();
                if is_new {
                    self.put(database, &args[0], &args[1], None);
                }
                Ok(Value::Integer(i64::from(is_new)))
            }
            "SETEX" | "PSETEX" => {
                let unit = if name == "SETEX" { 1000 } else { 1 };
                let until = now + positive(&args[1], name)? * unit;
                self.put(database, &args[0], &args[2], Some(until));
                Ok(Value::ok())
            }
            _ => self.set(database, args, now),
        }
    }

    fn set(&mut self, database: u32, args: &[Bytes], now: i64) -> Reply {
        let (mut until, mut wanted, mut keeps) = (None, None, false);
        let mut options = args[2..].iter();
        while let Some(option) = options.next() {
            match upper(option).as_str() {
                "NX" if wanted.is_none() => wanted = Some(false),
                "XX" if wanted.is_none() => wanted = Some(true),
                "KEEPTTL" => keeps = true,
                "EX" => until = Some(now + positive(options.next().ok_or(SYNTAX)?, "SET")? * 1000),
                "PX" => until = Some(now + positive(options.next().ok_or(SYNTAX)?, "SET")?),
                "PXAT" => until = Some(positive(options.next().ok_or(SYNTAX)?, "SET")?),
                _ => return Err(SYNTAX.into()),
            }
        }
        let old = self.live(database, &args[0]);
        if wanted.is_some_and(|wanted| wanted != old.is_some()) {
            return Ok(Value::Bulk(None));
        }
        let until = if keeps { old.and_then(|(_, until)| until) } else { until };
        self.put(database, &args[0], &args[1], until);
        Ok(Value::ok())
    }

    fn change(&mut self, database: u32, name: &str, words: &[Bytes]) -> Reply {
        let key = &words[1];
        let (old, until) = self.live(database, key).unwrap_or_default();
        if name == "APPEND" {
            let value = [&old[..], &words[2][..]].concat();
            let length = value.len();
            self.keys.put(database, key, value.into(), until);
            self.propagate(database, words);
            return Ok(count(length));
        }
        let by: i64 = words.get(2).map_or(Ok(1), |by| number(by))?;
        let by = if name.starts_with("DECR") {
            by.checked_neg()
        } else {
            Some(by)
        };
        let old: i64 = if old.is_empty() { 0 } else { number(&old)? };
        let sum = by.and_then(|by| old.checked_add(by));
        let sum = sum.ok_or("ERR increment or decrement would overflow")?;
        self.keys.put(database, key, sum.to_string().into(), until);
        self.propagate(database, words);
        Ok(Value::Integer(sum))
    }

    /// Removes keys; how many there were.
    pub(super) fn delete(&mut self, database: u32, keys: &[Bytes]) -> usize {
        let mut gone = Vec::new();
        for key in keys {
            let is_live = self.live(database, key).is_some();
            if self.keys.remove(database, key).is_some() && is_live {
                gone.push(key.clone());
            }
        }
        if !gone.is_empty() {
            let words: Vec<Bytes> = std::iter::once("DEL".into()).chain(gone.iter().cloned()).collect();
            self.propagate(database, &words);
        }
        gone.len()
    }

    fn end_at(&mut self, database: u32, name: &str, args: &[Bytes]) -> Reply {
        let Some((value, old)) = self.live(database, &args[0]) else {
            return Ok(Value::Integer(0));
        };
        if name == "PERSIST" {
            if old.is_some() {
                self.keys.put(database, &args[0], value, None);
                self.propagate(database, &[&b"PERSIST"[..], &args[0]]);
            }
            return Ok(Value::Integer(i64::from(old.is_some())));
        }
        let now = self.clock.ms();
        let given: i64 = number(&args[1])?;
        let until = match name {
            "EXPIRE" => now + given * 1000,
            "PEXPIRE" => now + given,
            "EXPIREAT" => given * 1000,
            _ => given,
        };
        // A replica never removes a key by itself.
        if until <= now && self.is_master() {
            self.expire(database, &args[0]);
        } else {
            self.keys.put(database, &args[0], value, Some(until));
            let until = until.to_string();
            self.propagate(database, &[&b"PEXPIREAT"[..], &args[0], until.as_bytes()]);
        }
        Ok(Value::Integer(1))
    }

    fn flush_keys(&mut self, database: u32, name: &str) -> Value {
        if name == "FLUSHALL" {
            self.keys = super::keys::Keys::default();
        } else {
            self.keys.clear(database);
        }
        self.propagate(database, &[name]);
        Value::ok()
    }

    fn restore(&mut self, database: u32, args: &[Bytes]) -> Reply {
        let ttl: i64 = number(&args[1])?;
        let flags: Vec<String> = args[3..].iter().map(|flag| upper(flag)).collect();
        let has = |flag: &str| flags.iter().any(|given| given == flag);
        if !has("REPLACE") && self.live(database, &args[0]).is_some() {
            return Err("BUSYKEY Target key name already exists.".into());
        }
        let value = undump(&args[2]).ok_or("ERR DUMP payload version or checksum are wrong")?;
        let until = match (ttl, has("ABSTTL")) {
            (0, _) => None,
            (ttl, true) => Some(ttl),
            (ttl, false) => Some(self.clock.ms() + ttl),
        };
        self.put(database, &args[0], &value, until);
        Ok(Value::ok())
    }

    fn read(&mut self, database: u32, name: &str, args: &[Bytes]) -> Value {
        let now = self.clock.ms();
        match name {
            "MGET" => {
                let found = args
                    .iter()
                    .map(|key| Value::Bulk(self.live(database, key).map(|found| found.0)));
                return Value::Array(Some(found.collect()));
            }
            "EXISTS" => return count(args.iter().filter(|key| self.live(database, key).is_some()).count()),
            _ => {}
        }
        let found = self.live(database, &args[0]);
        match (name, found) {
            ("GET", found) => Value::Bulk(found.map(|(value, _)| value)),
            ("DUMP", found) => Value::Bulk(found.map(|(value, _)| dump(&value))),
            ("STRLEN", found) => count(found.map_or(0, |(value, _)| value.len())),
            ("TYPE", found) => Value::Simple(if found.is_some() { "string" } else { "none" }.into()),
            (_, None) => Value::Integer(-2),
            (_, Some((_, None))) => Value::Integer(-1),
            ("TTL", Some((_, Some(until)))) => Value::Integer((until - now + 500) / 1000),
            (_, Some((_, Some(until)))) => Value::Integer(until - now),
        }
    }

    fn scan(&mut self, database: u32, args: &[Bytes]) -> Reply {
        let cursor: u64 = text(&args[0]).parse().map_err(|_| "ERR invalid cursor")?;
        let (mut wanted, mut pattern) = (10, None);
        for option in args[1..].chunks(2) {
            match (upper(&option[0]).as_str(), option.get(1)) {
                ("COUNT", Some(given)) => wanted = number(given)?,
                ("MATCH", Some(given)) => pattern = Some(given.clone()),
                _ => return Err(SYNTAX.into()),
            }
        }
        let now = self.clock.ms();
        let (next, page) = match self.keys.database(database) {
            Some(keys) => keys.scan(cursor, wanted),
            None => (0, Vec::new()),
        };
        let told = page.into_iter().filter(|(key, entry)| {
            entry.until.is_none_or(|until| until > now) && pattern.as_ref().is_none_or(|pattern| glob(pattern, key))
        });
        let keys = told.map(|(key, _)| Value::bulk(key.clone())).collect();
        Ok(Value::Array(Some(vec![
            Value::bulk(next.to_string()),
            Value::Array(Some(keys)),
        ])))
    }

    fn some_key(&self, database: u32) -> Value {
        let seed = hash(&self.commands.to_be_bytes()) >> 1;
        let Some(keys) = self.keys.database(database) else {
            return Value::Bulk(None);
        };
        let first = |cursor| keys.scan(cursor, 1).1.first().map(|(key, _)| (*key).clone());
        Value::Bulk(first(seed).or_else(|| first(0)))
    }

    /// What a key takes to be moved: how long it still has (0: for ever) and its dump.
    pub(super) fn packed(&mut self, database: u32, key: &[u8]) -> Option<(i64, Bytes)> {
        let now = self.clock.ms();
        let (value, until) = self.live(database, key)?;
        Some((until.map_or(0, |until| (until - now).max(1)), dump(&value)))
    }
}

fn positive(word: &[u8], name: &str) -> Result<i64, String> {
    let given: i64 = number(word)?;
    let name = name.to_ascii_lowercase();
    (given > 0)
        .then_some(given)
        .ok_or_else(|| format!("ERR invalid expire time in '{name}' command"))
}
