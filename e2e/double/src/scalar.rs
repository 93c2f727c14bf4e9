//! Byte sizes and durations as Codis reads them from TOML and writes them to JSON (§2).

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const SIZES: [(&str, u64); 5] = [
    ("pb", 1 << 50),
    ("tb", 1 << 40),
    ("gb", 1 << 30),
    ("mb", 1 << 20),
    ("kb", 1 << 10),
];
const SPANS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A number of bytes, written with the largest exact unit (`"32mb"`, `"0"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A duration, written with the largest exact unit (`"30s"`, `"5m"`, `"0"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// What TOML may hold for either.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Whole(u64),
    Fraction(f64),
    Text(String),
}

impl Bytes {
    fn parse(text: &str) -> Option<Self> {
        let unit = SIZES
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
        let (digits, factor) = unit.unwrap_or((text.strip_suffix('b').unwrap_or(text), 1));
        digits.trim().parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match SIZES
            .iter()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
        {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Span {
    /// Reads a Go duration (`1m30s`, `1.5h`) or a bare number of seconds.
    fn parse(text: &str) -> Option<Self> {
        if let Ok(seconds) = text.parse::<f64>() {
            return Duration::try_from_secs_f64(seconds).ok().map(Self);
        }
        let (mut rest, mut nanos) = (text, 0.0);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let number = rest[..digits].parse::<f64>().ok()?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let factor = SPANS.iter().find(|(unit, _)| *unit == &rest[..letters])?.1;
            nanos += number * factor as f64;
            rest = &rest[letters..];
        }
        Some(Self(Duration::from_nanos(nanos as u64)))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = self.0.as_nanos();
        match SPANS
            .iter()
            .find(|(_, factor)| nanos != 0 && nanos.is_multiple_of(u128::from(*factor)))
        {
            Some((unit, factor)) => write!(f, "{}{unit}", nanos / u128::from(*factor)),
            None => write!(f, "0"),
        }
    }
}

macro_rules! as_text {
    ($kind:ty, $what:literal, $whole:expr) => {
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let parsed = match Scalar::deserialize(deserializer)? {
                    Scalar::Whole(number) => Some($whole(number)),
                    Scalar::Fraction(number) => Self::parse(&number.to_string()),
                    Scalar::Text(text) => Self::parse(&text),
                };
                parsed.ok_or_else(|| serde::de::Error::custom(concat!("invalid ", $what)))
            }
        }
    };
}

as_text!(Bytes, "byte size", Bytes);
as_text!(Span, "duration", |seconds| Span(Duration::from_secs(seconds)));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_the_largest_exact_unit() {
        let table = [
            (0, "0"),
            (128 << 10, "128kb"),
            (32 << 20, "32mb"),
            (1 << 30, "1gb"),
            (1025, "1025"),
        ];
        for (bytes, text) in table {
            assert_eq!(Bytes(bytes).to_string(), text);
            assert_eq!(Bytes::parse(text), Some(Bytes(bytes)));
        }
        assert_eq!(Bytes::parse("1024mb").map(|size| size.to_string()), Some("1gb".into()));
        assert_eq!(Bytes::parse("much"), None);
    }

    #[test]
    fn durations_take_the_largest_exact_unit() {
        for (seconds, text) in [
            (0, "0"),
            (30, "30s"),
            (300, "5m"),
            (1800, "30m"),
            (3600, "1h"),
            (90, "90s"),
        ] {
            assert_eq!(Span(Duration::from_secs(seconds)).to_string(), text);
            assert_eq!(Span::parse(text), Some(Span(Duration::from_secs(seconds))));
        }
        assert_eq!(Span::parse("1m30s"), Some(Span(Duration::from_secs(90))));
        assert_eq!(Span::parse("7"), Some(Span(Duration::from_secs(7))));
        assert_eq!(Span::parse("100ms").map(|span| span.to_string()), Some("100ms".into()));
        assert_eq!(Span::parse("soon"), None);
    }
}
