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

#[cfg(test)]
mod tests {
    use super::*;

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
