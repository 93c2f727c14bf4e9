//! The credential in the paths of dashboards and proxies.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The xauth of some parts: the product for a dashboard; product, `product_auth` (may be empty) and token for a
/// proxy (contract §3).
#[must_use]
pub fn xauth(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    hash.update("Codis-XAuth");
    for part in parts {
        hash.update("-[");
        hash.update(part);
        hash.update("]");
    }
    hash.finalize()[..16].iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A text of Codis as it may be told: without xauths, and without the ports that a connection had at its own end
/// (`10.0.0.1:41234->10.0.0.2:6379`): with those the same trouble would be another one each time.
pub(super) fn to_be_told(text: &str) -> String {
    let mut ends = without_xauths(text);
    while let Some((at, length)) = own_port(&ends) {
        ends.replace_range(at..at + length, "");
    }
    ends
}

/// Where the first `:<port>` before an arrow is, and how long it is.
fn own_port(text: &str) -> Option<(usize, usize)> {
    let before = text.match_indices("->").map(|(arrow, _)| &text[..arrow]);
    let ports = before.filter_map(|before| {
        let digits = before.bytes().rev().take_while(u8::is_ascii_digit).count();
        let at = before.len().checked_sub(digits + 1)?;
        (digits > 0 && before.as_bytes()[at] == b':').then_some((at, digits + 1))
    });
    { ports }.next()
}

/// A text from the dashboard without the xauths of proxies: its HTTP client's errors quote whole URLs. A segment of a
/// path that begins with 32 hexadecimal digits is taken for one.
fn without_xauths(text: &str) -> String {
    let mut segments = text.split('/');
    let mut clean = segments.next().unwrap_or_default().to_owned();
    for segment in segments {
        let digits = segment.bytes().take_while(u8::is_ascii_hexdigit).count();
        clean.push('/');
        clean.push_str(if digits == 32 { "***" } else { &segment[..digits] });
        clean.push_str(&segment[digits..]);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xauths_are_taken_out_of_texts_and_tokens_are_not() {
        let xauth = xauth(&["demo"]);
        let url =
            |xauth: &str| format!(r#"Get "http://10.0.0.1:11080/api/proxy/stats/{xauth}": dial tcp: i/o timeout"#);
        assert_eq!(without_xauths(&url(&xauth)), url("***"));
        let other = format!("proxy-[{xauth}] doesn't exist, see /abc/");
        assert_eq!(without_xauths(&other), other);
    }

    #[test]
    fn the_same_trouble_has_the_same_text_whatever_port_a_connection_had() {
        let text = |port: &str| format!("read tcp 10.0.0.1{port}->10.0.0.2:26379: EOF, and tcp [::1]{port}->[::2]:1");
        assert_eq!(to_be_told(&text(":59526")), text(""));
        for same in ["a->b", "->", "10.0.0.1:80: refused", "", "5->6"] {
            assert_eq!(to_be_told(same), same);
        }
    }

    #[test]
    fn an_xauth_is_the_one_that_codis_computes() {
        let token = "addedb02cac051425e8ca7b838acbe13";
        for (parts, expected) in [
            (vec!["codis-demo"], "95b62887719520f17e312eaa76d28f2b"),
            (vec!["demo"], "c32db19baf104a834a2d07a99c55a19a"),
            (vec!["demo", "pw", token], "2c0387db92c0a87441d84a17106631f9"),
            (vec!["codis-demo", "", token], "6480e469daedad695584bc9d4cb01659"),
        ] {
            assert_eq!(xauth(&parts), expected, "{parts:?}");
        }
    }
}
