//! Which arguments of a command are keys: what has to be at the target before the command may go there.
//!
//! Left out, because the proxy routes them by an argument that is no key or because clients of Codis 3.2 do not use
//! them: commands whose first argument is a number of keys (`ZUNION`, `SINTERCARD`, `LMPOP`, ...), `XREAD` and its
//! kin, and keys that `SORT` reaches by patterns. Keys of another slot than that of the first are the client's mistake,
//! as in Codis.

use bytes::Bytes;

/// The keys of a command; `name` is its first word in upper case.
pub fn keys_of(name: &str, words: &[Bytes]) -> Vec<Bytes> {
    let from = |start: usize| words.get(start..).unwrap_or_default();
    match name {
        "PING" | "INFO" => Vec::new(),
        "EVAL" | "EVALSHA" | "EVAL_RO" | "EVALSHA_RO" => counted(words),
        "ZUNIONSTORE" | "ZINTERSTORE" | "ZDIFFSTORE" => {
            let mut keys = counted(words);
            keys.extend(words.get(1).cloned());
            keys
        }
        "SUNION" | "SINTER" | "SDIFF" | "SUNIONSTORE" | "SINTERSTORE" | "SDIFFSTORE" | "PFCOUNT" | "PFMERGE"
        | "MGET" | "DEL" | "EXISTS" | "UNLINK" | "TOUCH" => from(1).to_vec(),
        "RPOPLPUSH" | "SMOVE" | "LMOVE" | "COPY" | "LCS" | "ZRANGESTORE" | "GEOSEARCHSTORE" => {
            from(1).iter().take(2).cloned().collect()
        }
        "SORT" | "GEORADIUS" | "GEORADIUSBYMEMBER" => stored(words),
        _ => from(1).iter().take(1).cloned().collect(),
    }
}

/// Keys from the fourth word on, as many as the third says.
fn counted(words: &[Bytes]) -> Vec<Bytes> {
    let told = words.get(2).and_then(|word| std::str::from_utf8(word).ok());
    let count = told.and_then(|text| text.parse().ok()).unwrap_or(0);
    words.iter().skip(3).take(count).cloned().collect()
}

/// The first argument, and whatever follows `STORE` or `STOREDIST`.
fn stored(words: &[Bytes]) -> Vec<Bytes> {
    let is_store = |word: &Bytes| word.eq_ignore_ascii_case(b"STORE") || word.eq_ignore_ascii_case(b"STOREDIST");
    let targets = words.windows(2).skip(1).filter(|pair| is_store(&pair[0]));
    words
        .get(1)
        .cloned()
        .into_iter()
        .chain(targets.map(|pair| pair[1].clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_command_is_known() {
        for (command, keys) in [
            ("GET a", "a"),
            ("SET a 1 EX 5", "a"),
            ("DEL a b", "a b"),
            ("EVAL return 2 a b c", "a b"),
            ("EVALSHA abc 0 c", ""),
            ("EVAL return", ""),
            ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "a b d"),
            ("SINTERSTORE d a b", "d a b"),
            ("PFCOUNT a b", "a b"),
            ("SMOVE a b member", "a b"),
            ("LMOVE a b LEFT RIGHT", "a b"),
            ("SORT a ALPHA store d", "a d"),
            ("GEORADIUS a 1 2 3 m STORE d STOREDIST e", "a d e"),
            ("GET", ""),
            ("PING", ""),
        ] {
            let words: Vec<_> = command.split(' ').map(Bytes::from).collect();
            let expected: Vec<_> = keys.split_whitespace().map(Bytes::from).collect();
            assert_eq!(
                keys_of(command.split(' ').next().unwrap(), &words),
                expected,
                "{command}"
            );
        }
    }
}
