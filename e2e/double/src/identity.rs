//! Who a process is: credentials, tokens, advertised addresses (§3, §8.5).

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use anyhow::{Context, Result, bail};
use md5::Md5;
use sha2::{Digest, Sha256};

use crate::host;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The path credential: no secret for a dashboard, `product_auth` and token for a proxy (§3).
pub fn xauth(parts: &[&str]) -> String {
    let mut text = String::from("Codis-XAuth");
    parts.iter().for_each(|part| text.push_str(&format!("-[{part}]")));
    hex(&Sha256::digest(text)[..16])
}

/// The identity of a process: its hardware addresses and where it listens (§3).
pub fn token(macs: &[String], parts: &[&str]) -> String {
    let mut text = format!("Codis-Token@[{}]", macs.join(" "));
    parts.iter().for_each(|part| text.push_str(&format!("-{{{part}}}")));
    hex(&Md5::digest(text))
}

/// All hardware addresses that are not empty or zero, sorted; the name of a made-up host in their place.
pub fn macs() -> Vec<String> {
    if let Some(host) = host::current() {
        return vec![host.name()];
    }
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut macs: Vec<String> = interfaces
        .filter_map(|interface| std::fs::read_to_string(interface.path().join("address")).ok())
        .map(|text| text.trim().to_lowercase())
        .filter(|mac| mac.chars().any(|c| c != '0' && c != ':'))
        .collect();
    macs.sort();
    macs
}

fn kernel(what: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/kernel/{what}"))
        .unwrap_or_default()
        .trim()
        .to_string()
}

/// The host's name.
pub fn hostname() -> String {
    host::current().map_or_else(|| kernel("hostname"), |host| host.name())
}

/// The process id; every process of a made-up host is its first.
pub fn pid() -> u32 {
    host::current().map_or_else(std::process::id, |_| 1)
}

/// `uname -a`.
pub fn sys() -> String {
    if let Some(host) = host::current() {
        return format!("Linux {} made-up x86_64 GNU/Linux", host.name());
    }
    let words = [kernel("ostype"), hostname(), kernel("osrelease"), kernel("version")];
    format!("{} {} GNU/Linux", words.join(" "), std::env::consts::ARCH)
}

/// The working directory.
pub fn pwd() -> String {
    if host::current().is_some() {
        return "/".into();
    }
    std::env::current_dir()
        .map(|path| path.display().to_string())
        .unwrap_or_default()
}

/// Go's print form of now.
pub fn start_time() -> String {
    host::now()
        .strftime("%Y-%m-%d %H:%M:%S.%9f +0000 UTC m=+0.01")
        .to_string()
}

/// The address to tell others: the flag if given, else what we listen on, else the host's name, else its address.
pub fn advertise(flag: Option<&str>, listen: SocketAddr) -> Result<String> {
    if let Some(host) = host::current() {
        return Ok(advertise_made_up(flag, listen, &host.name()));
    }
    if let Some(flag) = flag {
        let resolved = flag
            .to_socket_addrs()
            .with_context(|| format!("resolve {flag} failed"))?
            .next();
        let Some(address) = resolved else {
            bail!("resolve {flag} failed")
        };
        if address.port() == 0 || address.ip().is_unspecified() {
            bail!("invalid advertised address {flag}");
        }
        return Ok(flag.to_string());
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen.to_string());
    }
    let (name, port) = (hostname(), listen.port());
    let named = (name.as_str(), port)
        .to_socket_addrs()
        .into_iter()
        .flatten()
        .any(|address| global(address.ip()));
    if named {
        return Ok(format!("{name}:{port}"));
    }
    outbound()
        .map(|ip| SocketAddr::new(ip, port).to_string())
        .context("no address to advertise")
}

/// Nothing is looked up on a made-up host.
fn advertise_made_up(flag: Option<&str>, listen: SocketAddr, name: &str) -> String {
    match flag {
        Some(flag) => flag.to_string(),
        None if listen.ip().is_unspecified() => format!("{name}:{}", listen.port()),
        None => listen.to_string(),
    }
}

fn global(ip: IpAddr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast()
}

/// The address packets would leave from; nothing is sent to find it.
fn outbound() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|ip| global(*ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xauth_is_that_of_codis() {
        let table: [(&[&str], &str); 4] = [
            (&["codis-demo"], "95b62887719520f17e312eaa76d28f2b"),
            (&["demo"], "c32db19baf104a834a2d07a99c55a19a"),
            (
                &["demo", "pw", "addedb02cac051425e8ca7b838acbe13"],
                "2c0387db92c0a87441d84a17106631f9",
            ),
            (
                &["codis-demo", "", "addedb02cac051425e8ca7b838acbe13"],
                "6480e469daedad695584bc9d4cb01659",
            ),
        ];
        for (parts, expected) in table {
            assert_eq!(xauth(parts), expected, "{parts:?}");
        }
    }

    #[test]
    fn tokens_differ_by_address_and_by_hardware() {
        let macs = vec!["02:42:ac:11:00:02".to_string()];
        let one = token(&macs, &["demo", "0.0.0.0:19000", "0.0.0.0:11080"]);
        assert_eq!(one.len(), 32);
        assert_eq!(one, token(&macs, &["demo", "0.0.0.0:19000", "0.0.0.0:11080"]));
        assert_ne!(one, token(&macs, &["demo", "0.0.0.0:19001", "0.0.0.0:11080"]));
        assert_ne!(one, token(&[], &["demo", "0.0.0.0:19000", "0.0.0.0:11080"]));
    }

    #[test]
    fn the_flag_is_advertised_word_for_word() {
        let any = SocketAddr::from(([0, 0, 0, 0], 1));
        assert_eq!(
            advertise(Some("127.0.0.1:7"), any).ok(),
            Some("127.0.0.1:7".to_string())
        );
        assert!(advertise(Some("127.0.0.1:0"), any).is_err());
        assert!(advertise(Some("0.0.0.0:7"), any).is_err());
    }
}
