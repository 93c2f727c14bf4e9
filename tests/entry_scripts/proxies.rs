//! The proxy's scripts: its start, its readiness and its end.

use crate::Pod;

const PROXY: &str = include_str!("../../src/build/scripts/proxy.sh");
const DRAIN: &str = include_str!("../../src/build/scripts/proxy-drain.sh");
const READY: &str = include_str!("../../src/build/scripts/proxy-ready.sh");

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
