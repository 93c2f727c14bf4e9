//! The entry scripts, run by the machine's own sh, with stand-ins for what they start.
//!
//! Left out: codis-server and redis-cli themselves (the kind suite runs them).
#![allow(clippy::unwrap_used)]

#[path = "../support/dashboard.rs"]
mod dashboard;
mod dashboards;
mod proxies;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

const SERVER: &str = include_str!("../../src/build/scripts/server.sh");
const SENTINEL: &str = include_str!("../../src/build/scripts/sentinel.sh");

/// A folder with a Secret, a data volume and programs that tell what they were called with.
struct Pod(PathBuf);

impl Pod {
    fn new(test: &str) -> Self {
        let root = std::env::temp_dir().join(format!("entry-scripts-{}-{test}", std::process::id()));
        for folder in ["secret", "data", "bin", "proc/net"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let pod = Self(root);
        pod.file(
            "secret/members",
            "c-g1-0 10.0.0.1 1\nc-g1-1 10.0.0.2 1\nc-g2-0 10.0.0.3 2\n",
        );
        pod.file("secret/redis.conf", "port 6379\nrequirepass \"pw\"\n");
        pod.file("secret/product-auth", "pw");
        pod.file("secret/bootstrapped", "");
        pod.file("secret/former-addresses", "");
        pod.program("codis-server", "echo \"codis-server $*\"");
        pod.program("sleep", ":");
        pod.program("redis-cli", "cat >/dev/null; echo 'Could not connect'");
        pod
    }

    fn file(&self, path: &str, text: &str) -> &Self {
        fs::write(self.0.join(path), text).unwrap();
        self
    }

    fn program(&self, name: &str, body: &str) -> &Self {
        let path = self.0.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_default()
    }

    /// Runs a script with its paths moved here. Its output, and whether it ended well.
    fn run(&self, script: &str, environment: &[(&str, &str)]) -> (String, bool) {
        let at = |path: &str| self.0.join(path).display().to_string();
        let script = script
            .replace("/etc/codis", &at("secret"))
            .replace("data=/data", &format!("data={}", at("data")))
            .replace("/data/sentinel", &at("data/sentinel"))
            .replace("/data/proxy", &at("data/proxy"))
            .replace("/proc/", &at("proc/"))
            .replace("/dev/termination-log", &at("termination-log"));
        let path = format!("{}:{}", at("bin"), std::env::var("PATH").unwrap());
        let output = Command::new("sh")
            .args(["-c", &script])
            .env("PATH", path)
            .env("POD_NAME", "c-g1-0")
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.success())
    }

    fn role(&self) -> Option<String> {
        self.read("data/redis.conf")
            .lines()
            .find(|line| line.starts_with("slaveof"))
            .map(str::to_owned)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Path::new(&self.0));
    }
}

/// A redis-cli that says of one address that it is a master, and keeps what it was told.
fn master_at(pod: &Pod, address: &str) {
    let log = pod.0.join("asked").display().to_string();
    pod.program(
        "redis-cli",
        &format!("cat >>{log}; case $2 in {address}) printf 'role:master\\r\\n' ;; esac"),
    );
}

#[test]
fn a_new_server_starts_as_a_master_and_announces_its_service() {
    let pod = Pod::new("new");
    let (output, ok) = pod.run(SERVER, &[]);
    assert!(
        ok && output.starts_with("codis-server") && output.trim().ends_with("data/redis.conf"),
        "{output}"
    );
    let conf = pod.read("data/redis.conf");
    assert!(
        conf.contains("slave-announce-ip 10.0.0.1\nslave-announce-port 6379"),
        "{conf}"
    );
    assert_eq!(pod.role(), None);
}

#[test]
fn a_replica_keeps_its_master_and_takes_everything_else_from_the_secret() {
    for (test, old) in [
        ("slaveof", "slaveof 10.0.0.2 6379"),
        ("replicaof", "replicaof 10.0.0.2 6379"),
    ] {
        let pod = Pod::new(test);
        pod.file(
            "data/redis.conf",
            &format!("min-slaves-to-write 100\nrequirepass \"old\"\n{old}\n"),
        );
        assert!(pod.run(SERVER, &[]).1);
        assert_eq!(pod.role().as_deref(), Some("slaveof 10.0.0.2 6379"));
        let conf = pod.read("data/redis.conf");
        assert!(
            !conf.contains("min-slaves") && !conf.contains("old"),
            "a forgotten fence goes: {conf}"
        );
    }
}

#[test]
fn a_master_that_comes_back_takes_no_write_without_a_replica() {
    let fence = "min-slaves-to-write 1\nmin-slaves-max-lag 5\n";
    let conf = |test: &str, bootstrapped: &str, pod_name: &str, role: &str| {
        let pod = Pod::new(test);
        pod.file("secret/bootstrapped", bootstrapped)
            .file("data/appendonly.aof", "x")
            .file("data/redis.conf", role);
        assert!(pod.run(SERVER, &[("POD_NAME", pod_name)]).1, "{test}");
        pod.read("data/redis.conf")
    };
    assert!(conf("back", "1\n2\n", "c-g1-0", "").contains(fence));
    assert!(!conf("first", "", "c-g1-0", "").contains(fence), "its group is new");
    assert!(
        !conf("alone", "1\n2\n", "c-g2-0", "").contains(fence),
        "its group has no other server"
    );
    assert!(!conf("replica", "1\n2\n", "c-g1-0", "slaveof 10.0.0.2 6379\n").contains(fence));
}

#[test]
fn a_master_outside_the_group_is_forgotten() {
    for (test, master) in [
        ("other-group", "10.0.0.3"),
        ("foreign", "10.9.9.9"),
        ("itself", "10.0.0.1"),
    ] {
        let pod = Pod::new(test);
        pod.file("data/redis.conf", &format!("slaveof {master} 6379\n"));
        assert!(pod.run(SERVER, &[]).1);
        assert_eq!(pod.role(), None, "{master}");
    }
}

#[test]
fn a_master_is_known_by_the_address_that_it_had() {
    let pod = Pod::new("former");
    pod.file(
        "secret/former-addresses",
        "10.0.0.9 10.0.0.2 c-g1-1\n10.0.0.8 10.0.0.3 c-g2-0\n",
    );
    for (former, role) in [("10.0.0.9", Some("slaveof 10.0.0.2 6379")), ("10.0.0.8", None)] {
        pod.file("data/redis.conf", &format!("slaveof {former} 6379\n"));
        assert!(pod.run(SERVER, &[]).1);
        assert_eq!(pod.role().as_deref(), role, "{former}");
    }
}

#[test]
fn an_emptied_server_of_a_group_with_data_starts_as_a_replica_of_the_master() {
    let pod = Pod::new("emptied");
    pod.file("secret/bootstrapped", "1\n");
    master_at(&pod, "10.0.0.2");
    assert!(pod.run(SERVER, &[]).1);
    assert_eq!(pod.role().as_deref(), Some("slaveof 10.0.0.2 6379"));
    assert!(
        pod.read("asked").starts_with("AUTH pw\nINFO replication"),
        "{}",
        pod.read("asked")
    );
}

#[test]
fn an_emptied_server_does_not_start_while_nobody_is_master() {
    let pod = Pod::new("nobody");
    pod.file("secret/bootstrapped", "1\n2\n");
    let (output, ok) = pod.run(SERVER, &[]);
    assert!(!ok && !output.contains("codis-server"), "{output}");
    assert_eq!(pod.read("termination-log").trim(), codis_operator::build::GATE_MESSAGE);
}

#[test]
fn the_gate_is_open_for_servers_with_data_and_for_new_groups() {
    for (test, file) in [("aof", "data/appendonly.aof"), ("rdb", "data/dump.rdb")] {
        let pod = Pod::new(test);
        pod.file("secret/bootstrapped", "1\n").file(file, "x");
        assert!(pod.run(SERVER, &[]).1, "{file}");
        assert_eq!(pod.role(), None);
    }
    let pod = Pod::new("aof7");
    pod.file("secret/bootstrapped", "1\n");
    fs::create_dir(pod.0.join("data/appendonlydir")).unwrap();
    assert!(pod.run(SERVER, &[]).1);
    let pod = Pod::new("other");
    pod.file("secret/bootstrapped", "2\n");
    assert!(pod.run(SERVER, &[]).1, "another group's gate");
}

#[test]
fn a_pod_that_is_no_member_does_not_start() {
    let (output, ok) = Pod::new("stranger").run(SERVER, &[("POD_NAME", "c-g7-0")]);
    assert!(!ok && output.is_empty(), "{output}");
}

#[test]
fn a_sentinel_starts_without_masters_and_with_its_own_id() {
    let pod = Pod::new("sentinel");
    pod.file(
        "secret/sentinels",
        "c-sentinel-0 10.0.1.1 aaaa\nc-sentinel-1 10.0.1.2 bbbb\n",
    );
    pod.file("secret/sentinel.conf", "port 26379\n");
    pod.file("data/sentinel.conf", "sentinel monitor c-1 10.0.0.1 6379 2\n");
    let (output, ok) = pod.run(SENTINEL, &[("POD_NAME", "c-sentinel-1")]);
    assert!(ok && output.contains("--sentinel"), "{output}");
    let conf = pod.read("data/sentinel.conf");
    assert_eq!(
        conf,
        "port 26379\nsentinel myid bbbb\nsentinel announce-ip 10.0.1.2\nsentinel announce-port 26379\n"
    );
}

#[test]
fn a_restarted_masters_fence_comes_after_what_durability_and_a_person_wrote() {
    let pod = Pod::new("durability");
    let lines = "min-slaves-to-write 1\nmin-slaves-max-lag 10\nmaxmemory 100mb\n";
    pod.file("secret/redis.conf", lines)
        .file("secret/bootstrapped", "1\n")
        .file("data/appendonly.aof", "data");
    let (output, ok) = pod.run(SERVER, &[]);
    assert!(ok, "{output}");
    let conf = pod.read("data/redis.conf");
    let last = |key: &str| conf.lines().rfind(|line| line.starts_with(key)).map(str::to_owned);
    assert_eq!(
        last("min-slaves-max-lag").as_deref(),
        Some("min-slaves-max-lag 5"),
        "{conf}"
    );
    // At the next start all of it is made anew.
    pod.file("secret/redis.conf", "maxmemory 50mb\n")
        .file("secret/bootstrapped", "");
    pod.run(SERVER, &[]);
    let conf = pod.read("data/redis.conf");
    assert!(
        conf.starts_with("maxmemory 50mb\n") && !conf.contains("min-slaves"),
        "{conf}"
    );
}
