//! The entry scripts, run by the machine's own sh, with stand-ins for what they start.
//!
//! Left out: codis-server and redis-cli themselves (the kind suite runs them).
#![allow(clippy::unwrap_used)]

#[path = "support/dashboard.rs"]
mod dashboard;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

const SERVER: &str = include_str!("../src/build/scripts/server.sh");
const SENTINEL: &str = include_str!("../src/build/scripts/sentinel.sh");
const DASHBOARD: &str = include_str!("../src/build/scripts/dashboard.sh");
const PROXY: &str = include_str!("../src/build/scripts/proxy.sh");
const DRAIN: &str = include_str!("../src/build/scripts/proxy-drain.sh");
const READY: &str = include_str!("../src/build/scripts/proxy-ready.sh");

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
    pod.file("secret/former-addresses", "10.0.0.9 10.0.0.2\n10.0.0.8 10.0.0.3\n");
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
fn a_dashboard_breaks_only_a_lock_that_is_its_own() {
    let pod = Pod::new("dashboard");
    pod.file("secret/lock-address", "c-dashboard-0a1b2c3d.ns.svc:18080");
    pod.program("codis-dashboard", "echo \"codis-dashboard $*\"");
    let start = |coordinator: &str, holders: &str| {
        pod.program("codis-admin", &format!("printf '%s' '{holders}'"));
        let environment = [
            ("COORDINATOR", coordinator),
            ("COORDINATOR_ADDR", "e:2379"),
            ("PRODUCT_NAME", "c"),
            ("NCPU", "2"),
        ];
        pod.run(DASHBOARD, &environment)
    };
    let own =
        "[\n    {\n        \"name\": \"c\",\n        \"dashboard\": \"c-dashboard-0a1b2c3d.ns.svc:18080\"\n    }\n]";
    let (output, ok) = start("filesystem", "");
    assert!(
        ok && output.contains("--host-admin=c-dashboard-0a1b2c3d.ns.svc:18080 --remove-lock"),
        "{output}"
    );
    let (output, ok) = start("etcd", own);
    assert!(ok && output.contains("--remove-lock"), "{output}");
    let turned =
        r#"[{"dashboard": "e:1", "name": "cc"}, {"dashboard": "c-dashboard-0a1b2c3d.ns.svc:18080", "name": "c"}]"#;
    let (output, ok) = start("etcd", turned);
    assert!(ok && output.contains("--remove-lock"), "{output}");
    let (output, ok) = start("etcd", "[]");
    assert!(ok && !output.contains("--remove-lock"), "{output}");
    let (output, ok) = start("etcd", &own.replace("0a1b2c3d", "ffffffff"));
    assert!(!ok && !output.contains("--host-admin"), "{output}");
}

/// What a dashboard's script does on etcd when codis-admin says this, in a pod that began with `data`: whether it starts
/// the dashboard, and its last word.
fn starts(test: &str, admin: &str, mark: &str, data: &[&str]) -> (bool, String) {
    let pod = Pod::new(&format!("product-{test}"));
    pod.file("secret/lock-address", "c-dashboard-0a1b2c3d.ns.svc:18080")
        .file("secret/product-claimed", mark)
        .program("codis-dashboard", "echo \"codis-dashboard $*\"")
        .program("codis-admin", admin);
    for file in data {
        pod.file(&format!("data/{file}"), "");
    }
    let environment = [
        ("COORDINATOR", "etcd"),
        ("COORDINATOR_ADDR", "e:2379"),
        ("PRODUCT_NAME", "c"),
        ("NCPU", "2"),
    ];
    let (output, ok) = pod.run(DASHBOARD, &environment);
    assert_eq!(ok, output.starts_with("codis-dashboard"), "{output}");
    assert_eq!(
        ok || !data.is_empty(),
        pod.0.join("data/product-ours").exists(),
        "{output}"
    );
    (ok, pod.read("termination-log"))
}

/// A codis-admin that lists these dashboards and dumps this content.
fn admin(dashboards: &str, content: &str) -> String {
    format!(
        "case $* in *--dashboard-list*) echo '{dashboards}' ;; *--config-dump*--product=c*) echo '{content}' ;; *) exit 1 ;; esac"
    )
}

const OWN_LOCK: &str = r#"[{"name": "c", "dashboard": "c-dashboard-0a1b2c3d.ns.svc:18080"}]"#;
const GROUPS: &str = r#"{"group": [{"id": 1, "servers": [{"server": "10.0.0.1:6379"}]}]}"#;

#[test]
fn a_dashboard_starts_on_a_product_that_is_empty_or_marked() {
    let empty = r#"{"slots": [{"id": 0, "group_id": 0, "action": {}}], "group": [], "proxy": null}"#;
    for (test, content, mark) in [("none", "{}", ""), ("empty", empty, ""), ("marked", GROUPS, "c\n")] {
        let (ok, word) = starts(test, &admin("null", content), mark, &[]);
        assert!(ok, "{test}: {word}");
    }
}

#[test]
fn a_dashboard_does_not_start_on_content_without_a_mark() {
    let proxies = r#"{"proxy": [{"token": "t"}], "group": []}"#;
    let slots = r#"{"slots": [{"id": 7, "group_id": 12, "action": {}}]}"#;
    for (test, content, found) in [
        (
            "groups",
            GROUPS,
            "has groups, like the server 10.0.0.1:6379, and isn't marked",
        ),
        ("proxies", proxies, "has proxies, and isn't marked"),
        ("slots", slots, "has assigned slots, and isn't marked"),
    ] {
        // Neither an own lock nor what a pod remembers is enough alone.
        for (number, (list, data)) in [("[]", &[][..]), (OWN_LOCK, &[]), ("[]", &["product-ours"])]
            .into_iter()
            .enumerate()
        {
            let (ok, word) = starts(&format!("{test}-{number}"), &admin(list, content), "", data);
            assert!(
                !ok && word.starts_with("ProductOwnedElsewhere: the product c on the etcd e:2379"),
                "{word}"
            );
            assert!(word.contains(found) && word.contains("spec.productName"), "{word}");
        }
    }
}

#[test]
fn a_dashboard_that_starts_again_in_its_pod_needs_no_mark_that_it_can_not_see_yet() {
    let (ok, word) = starts("again", &admin(OWN_LOCK, GROUPS), "", &["product-ours"]);
    assert!(ok, "{word}");
}

#[test]
fn a_dashboard_does_not_start_while_nobody_knows_whose_the_product_is() {
    let broken = [
        (
            "away",
            "exit 1".to_owned(),
            "can't be read (codis-admin --dashboard-list)",
        ),
        ("strange", "echo hello".to_owned(), "isn't understood"),
        ("mute", ":".to_owned(), "isn't understood"),
        (
            "half",
            "case $* in *list*) echo '[]' ;; *) exit 1 ;; esac".to_owned(),
            "can't be read (codis-admin --config-dump)",
        ),
    ];
    for (test, admin, why) in broken {
        // A mark says whose the product was, not who holds it now.
        let mark = if test == "half" { "" } else { "c\n" };
        let (ok, word) = starts(test, &admin, mark, &[]);
        assert!(!ok && word.contains(why), "{test}: {word}");
        assert!(!word.starts_with("ProductOwnedElsewhere"), "{test}: {word}");
    }
}

mod on_etcd {
    use crate::dashboard::{DashboardPod, Etcd};

    /// The stand-in resolves what it advertises, as Codis does.
    const OURS: &str = "127.0.0.1:18080";
    const THEIRS: &str = "127.0.0.2:18080";

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lock_of_another_is_left_alone_and_an_own_one_is_broken() {
        let Some(etcd) = Etcd::start().await else { return };
        let (ours, theirs) = (
            DashboardPod::with_address(&etcd, "c", OURS),
            DashboardPod::with_address(&etcd, "c", THEIRS),
        );
        let (dashboard, before) = (theirs.start().await, etcd.dump().await);
        let word = ours.refused();
        let held = "held by the dashboard 127.0.0.2:18080";
        assert!(
            word.starts_with("ProductOwnedElsewhere: ") && word.contains(held),
            "{word}"
        );
        assert_eq!(etcd.dump().await, before);
        // Nobody but its owner breaks the lock that a killed one leaves.
        dashboard.kill();
        assert!(ours.refused().contains(held));
        assert_eq!(etcd.dump().await, before);
        let again = theirs.start().await;
        assert_eq!(etcd.holder("c").await.as_deref(), Some(THEIRS));
        again.stop();
        assert_eq!(etcd.holder("c").await, None);
        ours.start().await.stop();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn content_of_another_is_left_alone_and_marked_content_is_ours() {
        let Some(etcd) = Etcd::start().await else { return };
        let theirs = DashboardPod::with_address(&etcd, "c", THEIRS).start().await;
        theirs.create_group("c", 1).await;
        theirs.stop();
        let before = etcd.dump().await;
        let ours = DashboardPod::with_address(&etcd, "c", OURS);
        let word = ours.refused();
        assert!(
            word.starts_with("ProductOwnedElsewhere: ") && word.contains("has groups"),
            "{word}"
        );
        assert_eq!(etcd.dump().await, before);
        ours.file("product-claimed", "c\n");
        ours.start().await.stop();
        DashboardPod::with_address(&etcd, "another", OURS).start().await.stop();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_killed_dashboard_goes_on_in_its_pod_before_the_mark_has_arrived_there() {
        let Some(etcd) = Etcd::start().await else { return };
        let pod = DashboardPod::with_address(&etcd, "c", OURS);
        let dashboard = pod.start().await;
        dashboard.create_group("c", 1).await;
        dashboard.kill();
        assert_eq!(etcd.holder("c").await.as_deref(), Some(OURS));
        let before = etcd.dump().await;
        DashboardPod::with_address(&etcd, "c", OURS).refused();
        assert_eq!(etcd.dump().await, before, "a pod that is new reads the Secret as it is");
        pod.start().await.kill();
    }
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

#[test]
fn a_proxy_is_ready_when_it_answers_anything_but_that_it_is_not_online() {
    let pod = Pod::new("ready");
    let answers = [
        ("PONG", true),
        ("NOAUTH Authentication required", true),
        ("ERR handle response, backend conn reset", true),
        ("ERR router is not online", false),
        (
            "Could not connect to Redis at 127.0.0.1:19000: Connection refused",
            false,
        ),
        ("", false),
    ];
    for (answer, ready) in answers {
        pod.program("redis-cli", &format!("echo '{answer}'"));
        assert_eq!(pod.run(READY, &[]).1, ready, "{answer:?}");
    }
}

#[test]
fn a_proxy_starts_once_the_dashboard_holds_its_lock() {
    let pod = Pod::new("proxy");
    pod.file("secret/dashboard-address", "10.0.2.1:18080");
    pod.program("codis-proxy", "echo \"codis-proxy $*\"");
    let tries = pod.0.join("tries").display().to_string();
    pod.program(
        "codis-admin",
        &format!("echo \"$*\" >>{tries}; [ \"$(wc -l <{tries})\" -ge 3 ]"),
    );
    let (output, ok) = pod.run(PROXY, &[("NCPU", "1"), ("POD_IP", "10.1.0.1")]);
    assert!(
        ok && output.contains("--host-admin=10.1.0.1:11080 --host-proxy=10.1.0.1:19000"),
        "{output}"
    );
    assert_eq!(pod.read("tries").lines().count(), 3);
    assert!(
        pod.read("tries").starts_with("--dashboard=10.0.2.1:18080 config"),
        "{}",
        pod.read("tries")
    );
}

#[test]
fn a_proxy_tells_its_zone_unless_a_person_did() {
    let pod = Pod::new("zone");
    pod.file("secret/dashboard-address", "10.0.2.1:18080");
    pod.program("codis-admin", ":").program("codis-proxy", "cat $4");
    let start = |toml: &str, zone: &str| {
        pod.file("secret/proxy.toml", toml);
        pod.run(PROXY, &[("NCPU", "1"), ("POD_IP", "10.1.0.1"), ("ZONE", zone)])
    };
    let toml = "product_name = \"c\"\nbackend_primary_only = false\n";
    let with_zone = format!("{toml}proxy_datacenter = \"eu-1b\"\n");
    assert_eq!(start(toml, "eu-1b"), (with_zone, true));
    assert_eq!(start(toml, ""), (toml.to_owned(), true), "Kubernetes doesn't tell it");
    let told = format!("{toml}proxy_datacenter = \"here\"\n");
    assert_eq!(start(&told, "eu-1b"), (told, true));
}

#[test]
fn a_proxy_that_waits_for_the_dashboard_ends_when_it_is_told_to() {
    let pod = Pod::new("proxy-term");
    pod.file("secret/dashboard-address", "10.0.2.1:18080");
    // The shell's own process, as the kubelet would tell it: the script's shell is told by what it runs.
    pod.program("codis-admin", "kill -TERM $PPID; exit 1")
        .program("sleep", "exec /bin/sleep 60");
    let began = std::time::Instant::now();
    let (output, ok) = pod.run(PROXY, &[("NCPU", "1"), ("POD_IP", "10.1.0.1")]);
    assert!(ok && output.is_empty(), "{output}");
    assert!(began.elapsed().as_secs() < 30, "it slept through the signal");
}

/// How long a proxy with these connections stays, in seconds, when it is to wait for 30 s at most. After 3 s its first
/// client goes.
fn stays(test: &str, connections: &[&str], ready: &str) -> u64 {
    let pod = Pod::new(test);
    pod.file("proc/uptime", "1000.50 900.25\n")
        .file(
            "proc/net/tcp",
            &format!("  sl  local_address rem_address   st\n{}\n", connections.join("\n")),
        )
        .file("secret/proxy-ready.sh", ready);
    let at = |path: &str| pod.0.join(path).display().to_string();
    let (uptime, tcp) = (at("proc/uptime"), at("proc/net/tcp"));
    let sleep = format!(
        "read -r now _ <{uptime}; now=$((${{now%.*}} + $1)); echo \"$now.50 900.25\" >{uptime}\n\
         [ $now -lt 1008 ] || sed -i '/^ *0: /d' {tcp}"
    );
    pod.program("sleep", &sleep);
    let (output, ok) = pod.run(&format!("set -- 5 30\n{DRAIN}"), &[]);
    assert!(ok && output.is_empty(), "{output}");
    let now: u64 = pod.read("proc/uptime").split('.').next().unwrap().parse().unwrap();
    now - 1000
}

#[test]
fn a_proxy_that_leaves_stays_until_its_clients_are_gone_for_as_long_as_it_may() {
    let client = |number: u8| format!("   {number}: 0100F40A:4A38 0200F40A:C350 01 00000000:00000000 00:00000000");
    let (first, second) = (client(0), client(1));
    let others = [
        "   2: 00000000:4A38 00000000:0000 0A 00000000:00000000 00:00000000", // it listens
        "   3: 0100F40A:4A38 0200F40A:C351 06 00000000:00000000 00:00000000", // TIME_WAIT
        "   4: 0100F40A:2B48 0200F40A:C352 01 00000000:00000000 00:00000000", // its administrative port
        "   5: 0100F40A:C353 0300F40A:4A38 01 00000000:00000000 00:00000000", // a connection of its own
    ];
    assert_eq!(stays("nobody", &others, "exit 0"), 5);
    assert_eq!(stays("one", &[&first, others[0]], "exit 0"), 5 + 3);
    assert_eq!(stays("faithful", &[&first, &second], "exit 0"), 5 + 30);
}

#[test]
fn a_proxy_that_leaves_and_answers_nobody_keeps_nobody_waiting() {
    let client = "   1: 0100F40A:4A38 0200F40A:C350 01 00000000:00000000 00:00000000";
    assert_eq!(stays("mute", &[client], "exit 1"), 5 + 3);
}
