//! A Kubernetes quantity that users may write as an integer or a string, like `1`, `500m` or `10Gi`.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// A quantity as it was written. [`Quantity::milli`] gives its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quantity(pub String);

/// A text that is no Kubernetes quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity: write a number with an optional suffix, like 500m, 2, 256Mi or 10Gi")]
pub struct ParseQuantityError(String);

impl Quantity {
    /// The value in thousandths: millicores for CPU, thousandths of bytes for memory and storage.
    ///
    /// # Errors
    /// When the text is no quantity or doesn't fit.
    pub fn milli(&self) -> Result<i128, ParseQuantityError> {
        let error = || ParseQuantityError(self.0.clone());
        let split = self
            .0
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
            .unwrap_or(self.0.len());
        let (number, suffix) = self.0.split_at(split);
        let scale = scale_of(suffix).ok_or_else(error)?;
        decimal_times(number, scale).ok_or_else(error)
    }

    /// The value rounded up to whole units: cores or bytes.
    ///
    /// # Errors
    /// As [`Quantity::milli`].
    pub fn units(&self) -> Result<i128, ParseQuantityError> {
        self.milli().map(|milli| (milli + 999).div_euclid(1000))
    }
}

/// How many thousandths one unit of `suffix` is, as (numerator, denominator).
fn scale_of(suffix: &str) -> Option<(i128, i128)> {
    let whole = |factor: i128| Some((factor * 1000, 1));
    match suffix {
        "" => whole(1),
        "n" => Some((1, 1_000_000)),
        "u" => Some((1, 1000)),
        "m" => Some((1, 1)),
        "k" => whole(1000),
        "M" => whole(1000i128.pow(2)),
        "G" => whole(1000i128.pow(3)),
        "T" => whole(1000i128.pow(4)),
        "P" => whole(1000i128.pow(5)),
        "E" => whole(1000i128.pow(6)),
        "Ki" => whole(1 << 10),
        "Mi" => whole(1 << 20),
        "Gi" => whole(1 << 30),
        "Ti" => whole(1 << 40),
        "Pi" => whole(1 << 50),
        "Ei" => whole(1 << 60),
        _ => exponent(suffix),
    }
}

/// The decimal exponent form, `e3` or `E-3`.
fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let magnitude = 10i128.checked_pow(power.unsigned_abs()).filter(|_| power.abs() <= 18)?;
    Some(if power < 0 {
        (1000, magnitude)
    } else {
        (1000 * magnitude, 1)
    })
}

/// `number` (decimal, optional sign and fraction) times a scale, rounded up.
fn decimal_times(number: &str, (numerator, denominator): (i128, i128)) -> Option<i128> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !is_number || whole.is_empty() && fraction.is_empty() || fraction.len() > 18 {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = denominator.checked_mul(10i128.pow(u32::try_from(fraction.len()).ok()?))?;
    let product = mantissa.checked_mul(numerator)?;
    let value = product.div_euclid(divisor) + i128::from(product.rem_euclid(divisor) != 0);
    Some(if negative { -value } else { value })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntOrString;
        impl de::Visitor<'_> for IntOrString {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity: an integer or a string like 500m or 10Gi")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
                Ok(Quantity(value.to_string()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
                Ok(Quantity(value.to_string()))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Quantity, E> {
                Ok(Quantity(value.to_owned()))
            }
        }
        deserializer.deserialize_any(IntOrString)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The pattern is the one that Kubernetes documents for resource.Quantity.
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_the_values_that_kubernetes_gives_them() {
        for (text, milli) in [
            ("0", 0),
            ("1", 1000),
            ("250m", 250),
            ("0.5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("200Mi", 209_715_200_000),
            ("1k", 1_000_000),
            ("1e3", 1_000_000),
            ("12E2", 1_200_000),
            ("1u", 1),
            ("-1", -1000),
        ] {
            assert_eq!(Quantity(text.into()).milli(), Ok(milli), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "m", "10Gb", "1..2", "ten", "1 Gi", "--1"] {
            assert!(Quantity(text.into()).milli().is_err(), "{text}");
        }
    }

    #[test]
    fn a_quantity_may_be_written_as_an_integer() {
        let read: Vec<Quantity> = serde_json::from_str(r#"[1, "500m"]"#).unwrap();
        assert_eq!(read, [Quantity("1".into()), Quantity("500m".into())]);
    }
}
