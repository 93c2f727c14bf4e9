//! RESP, redis's protocol: values, a codec, and the slot of a key.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::SLOTS;

/// A RESP value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `+OK`
    Simple(String),
    /// `-ERR ...`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3 foo`, or nil
    Bulk(Option<Bytes>),
    /// `*2 ...`, or nil
    Array(Option<Vec<Value>>),
}

/// The peer did not speak RESP.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("ERR Protocol error: {0}")]
pub struct Malformed(pub &'static str);

const MAX_DEPTH: usize = 32;
const MAX_BULK: i64 = 512 << 20;
const MAX_ARRAY: i64 = 1 << 20;

impl Value {
    /// `+OK`
    pub fn ok() -> Self {
        Self::Simple("OK".into())
    }

    /// An error with this text.
    pub fn error(text: impl Into<String>) -> Self {
        Self::Error(text.into())
    }

    /// A bulk string.
    pub fn bulk(text: impl Into<Bytes>) -> Self {
        Self::Bulk(Some(text.into()))
    }

    /// The text of a string value.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Simple(text) => Some(text.clone()),
            Self::Bulk(Some(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The items of an array; empty for anything else.
    pub fn items(&self) -> &[Value] {
        match self {
            Self::Array(Some(items)) => items,
            _ => &[],
        }
    }

    /// Appends the encoding.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Simple(text) => line(out, b'+', text.as_bytes()),
            Self::Error(text) => line(out, b'-', text.as_bytes()),
            Self::Integer(number) => line(out, b':', number.to_string().as_bytes()),
            Self::Bulk(None) => line(out, b'$', b"-1"),
            Self::Array(None) => line(out, b'*', b"-1"),
            Self::Bulk(Some(bytes)) => bulk(out, bytes),
            Self::Array(Some(items)) => {
                line(out, b'*', items.len().to_string().as_bytes());
                items.iter().for_each(|item| item.encode(out));
            }
        }
    }
}

fn line(out: &mut BytesMut, kind: u8, text: &[u8]) {
    out.put_u8(kind);
    out.put_slice(text);
    out.put_slice(b"\r\n");
}

fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    line(out, b'$', bytes.len().to_string().as_bytes());
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

/// Appends a command as an array of bulk strings.
pub fn encode_command<T: AsRef<[u8]>>(words: &[T], out: &mut BytesMut) {
    line(out, b'*', words.len().to_string().as_bytes());
    words.iter().for_each(|word| bulk(out, word.as_ref()));
}

/// Takes one whole value off the buffer; `None` when more bytes are needed.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Value>, Malformed> {
    let Some(length) = measure(buffer, 0, MAX_DEPTH)? else {
        return Ok(None);
    };
    let mut whole = buffer.split_to(length).freeze();
    Ok(Some(read(&mut whole)?))
}

/// Where the value that starts at `at` ends, if it is all there. Cheap, so that a long reply that arrives in many
/// pieces is built once.
fn measure(buffer: &[u8], at: usize, depth: usize) -> Result<Option<usize>, Malformed> {
    let Some(end) = line_end(buffer, at) else {
        return Ok(None);
    };
    let next = end + 2;
    match buffer[at] {
        b'+' | b'-' | b':' => Ok(Some(next)),
        b'$' => {
            let length = number(&buffer[at + 1..end], MAX_BULK)?;
            let whole = if length < 0 { next } else { next + length as usize + 2 };
            Ok((buffer.len() >= whole).then_some(whole))
        }
        b'*' if depth > 0 => {
            let mut position = next;
            for _ in 0..number(&buffer[at + 1..end], MAX_ARRAY)?.max(0) {
                match measure(buffer, position, depth - 1)? {
                    Some(after) => position = after,
                    None => return Ok(None),
                }
            }
            Ok(Some(position))
        }
        _ => Err(Malformed("unknown type")),
    }
}

fn line_end(buffer: &[u8], at: usize) -> Option<usize> {
    let rest = buffer.get(at..)?;
    if rest.is_empty() {
        return None;
    }
    rest.windows(2)
        .position(|pair| pair == b"\r\n")
        .map(|offset| at + offset)
}

fn number(digits: &[u8], limit: i64) -> Result<i64, Malformed> {
    let parsed = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse::<i64>().ok());
    parsed
        .filter(|number| (-1..=limit).contains(number))
        .ok_or(Malformed("invalid length"))
}

fn read(whole: &mut Bytes) -> Result<Value, Malformed> {
    let end = line_end(whole, 0).ok_or(Malformed("no line"))?;
    let head = whole.split_to(end);
    whole.advance(2);
    let text = || String::from_utf8_lossy(&head[1..]).into_owned();
    match head[0] {
        b'+' => Ok(Value::Simple(text())),
        b'-' => Ok(Value::Error(text())),
        b':' => text()
            .parse()
            .map(Value::Integer)
            .map_err(|_| Malformed("invalid integer")),
        b'$' => {
            let length = number(&head[1..], MAX_BULK)?;
            if length < 0 {
                return Ok(Value::Bulk(None));
            }
            let bytes = whole.split_to(length as usize);
            whole.advance(2);
            Ok(Value::Bulk(Some(bytes)))
        }
        _ => {
            let length = number(&head[1..], MAX_ARRAY)?;
            let items = (0..length.max(0)).map(|_| read(whole)).collect::<Result<_, _>>()?;
            Ok(Value::Array((length >= 0).then_some(items)))
        }
    }
}

/// Takes one command off a client's buffer: an array of bulk strings, or words on a line.
pub fn decode_command(buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, Malformed> {
    match buffer.first() {
        None => Ok(None),
        Some(b'*') => match decode(buffer)? {
            None => Ok(None),
            Some(value) => value.items().iter().map(word).collect::<Result<_, _>>().map(Some),
        },
        Some(_) => Ok(inline(buffer)),
    }
}

fn word(value: &Value) -> Result<Bytes, Malformed> {
    match value {
        Value::Bulk(Some(bytes)) => Ok(bytes.clone()),
        _ => Err(Malformed("expected a bulk string")),
    }
}

fn inline(buffer: &mut BytesMut) -> Option<Vec<Bytes>> {
    let end = buffer.iter().position(|byte| *byte == b'\n')?;
    let line = buffer.split_to(end + 1).freeze();
    let words = line
        .split(|byte| byte.is_ascii_whitespace())
        .filter(|word| !word.is_empty());
    Some(words.map(Bytes::copy_from_slice).collect())
}

/// The slot of a key: the crc32 of its tag, or of all of it when it has none (§1).
pub fn slot_of(key: &[u8]) -> usize {
    let open = key.iter().position(|byte| *byte == b'{').map(|at| at + 1);
    let tag = open.and_then(|at| {
        key[at..]
            .iter()
            .position(|byte| *byte == b'}')
            .map(|length| &key[at..at + length])
    });
    crc32fast::hash(tag.unwrap_or(key)) as usize & (SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_to_the_slots_of_codis() {
        for (key, slot) in [
            ("a", 579),
            ("foo", 289),
            ("{}x", 0),
            ("{a}b", 579),
            ("a{", 173),
            ("x{a}y{b}", 579),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn every_value_survives_encoding_and_waits_for_its_last_byte() {
        let values = [
            Value::ok(),
            Value::error("ERR no"),
            Value::Integer(-3),
            Value::Bulk(None),
            Value::bulk("a\r\nb"),
            Value::Array(None),
            Value::Array(Some(vec![
                Value::bulk("x"),
                Value::Array(Some(vec![])),
                Value::Integer(1),
            ])),
        ];
        for value in values {
            let mut whole = BytesMut::new();
            value.encode(&mut whole);
            for cut in 0..whole.len() {
                assert_eq!(
                    decode(&mut BytesMut::from(&whole[..cut])),
                    Ok(None),
                    "{value:?} cut at {cut}"
                );
            }
            assert_eq!(decode(&mut whole), Ok(Some(value)));
            assert!(whole.is_empty());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["?1\r\n", "$x\r\n", "*2000000\r\n", "$999999999999\r\n"] {
            assert!(decode(&mut BytesMut::from(text)).is_err(), "{text}");
        }
        assert!(decode(&mut BytesMut::from("*1\r\n".repeat(100).as_str())).is_err());
    }

    #[test]
    fn commands_come_as_arrays_or_as_words() {
        let mut buffer = BytesMut::from("*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING  x\r\nPI");
        assert_eq!(decode_command(&mut buffer), Ok(Some(vec!["GET".into(), "a".into()])));
        assert_eq!(decode_command(&mut buffer), Ok(Some(vec!["PING".into(), "x".into()])));
        assert_eq!(decode_command(&mut buffer), Ok(None));
    }
}
