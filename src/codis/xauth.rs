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

/// A text from the dashboard without the xauths of proxies: its HTTP client's errors quote whole URLs. A segment of a
/// path that begins with 32 hexadecimal digits is taken for one.
pub(super) fn without_xauths(text: &str) -> String {
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
