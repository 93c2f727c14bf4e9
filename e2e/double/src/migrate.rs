//! `MIGRATE`, which does here what `SLOTSMGRT*` do in Codis: both the dashboard and proxies move keys with it.
//!
//! It is said with `REPLACE`, and still no newer value is lost to an older one:
//! * while a slot is `migrating` nobody writes its keys at the source, so a key that has left does not come back;
//! * redis removes a key from the source only after the target has acknowledged it, and does nothing else meanwhile;
//!   whoever asks for the key next, the dashboard or a proxy, is told `NOKEY` and overwrites nothing;
//! * no proxy sends a command to the target before its own `MIGRATE` of the key was answered with `OK` or `NOKEY`.
//!   So after a `MIGRATE` that timed out although the target had taken the key, both copies are the same: nobody could
//!   write to either, and the next `MIGRATE` replaces a copy by its equal.
//!
//! What can break it breaks it in Codis too: a source that fails over and has not told its replica of keys that have
//! left brings them back, as old as they were; and a `RESTORE` that redis gave up on after its timeout may still be in
//! the target's socket while a second one is answered.
//!
//! Unlike Codis's asynchronous commands, `MIGRATE` holds up the whole source until the target answers, or the timeout
//! is over. Both users therefore first ask whether the target answers at all.

use std::time::Duration;

use bytes::Bytes;

use crate::redis::RedisError;

/// The words of a `MIGRATE` of keys of one database to the server at `target`.
pub fn command(
    target: &str,
    auth: &str,
    database: u32,
    timeout: Duration,
    keys: &[Bytes],
) -> Result<Vec<Bytes>, RedisError> {
    let Some((host, port)) = target.rsplit_once(':') else {
        return Err(RedisError(format!("invalid address {target}")));
    };
    let mut words = vec!["MIGRATE".into(), host.to_string(), port.into(), String::new()];
    words.extend([database.to_string(), timeout.as_millis().max(1).to_string()]);
    words.push("REPLACE".into());
    if !auth.is_empty() {
        words.extend(["AUTH".into(), auth.into()]);
    }
    words.push("KEYS".into());
    Ok(words.into_iter().map(Bytes::from).chain(keys.iter().cloned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(auth: &str) -> String {
        let keys = ["a".into(), "b".into()];
        let words = command("10.0.0.1:6379", auth, 3, Duration::from_secs(5), &keys).unwrap();
        let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        words.join(" ")
    }

    #[test]
    fn a_password_is_told_when_there_is_one() {
        assert_eq!(said("pw"), "MIGRATE 10.0.0.1 6379  3 5000 REPLACE AUTH pw KEYS a b");
        assert_eq!(said(""), "MIGRATE 10.0.0.1 6379  3 5000 REPLACE KEYS a b");
    }
}
