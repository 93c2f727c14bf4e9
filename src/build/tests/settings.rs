//! Configuration files, live parameters and what restarts for them.

use super::*;

#[test]
fn without_passwords_redis_asks_for_none() {
    let cluster = sample(|_| ());
    let mut facts = facts(&cluster);
    facts.auth = Auth::default();
    let workloads = workloads(&cluster, &facts, &addresses(&cluster, &facts).unwrap());
    assert_eq!(
        secret_text(&workloads.connection, "uri"),
        "redis://sample-proxy.ns.svc:19000"
    );
    assert!(!text(&workloads, "redis.conf").contains("requirepass"));
    assert_eq!(text(&workloads, KEY_PRODUCT_AUTH), "");
}

#[test]
fn only_what_a_restart_can_change_is_in_the_pods_template() {
    let names = [
        "sample-dashboard",
        "sample-g1",
        "sample-sentinel",
        "sample-proxy",
        "sample-fe",
    ];
    let changed = |cluster: &ValidCluster| -> Vec<&str> {
        let workloads = built(cluster);
        names
            .into_iter()
            .filter(|name| revision(&workloads, name).is_some())
            .collect()
    };
    assert_eq!(changed(&sample(|_| ())), [""; 0], "defaults stay stable");
    let live = serde_json::json!({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru", "timeout": 10});
    assert_eq!(
        changed(&configured("codisServer", live)),
        [""; 0],
        "CONFIG SET can do that"
    );
    let at_start = serde_json::json!({"databases": 32});
    assert_eq!(changed(&configured("codisServer", at_start)), ["sample-g1"]);
    let proxy = serde_json::json!({"session_max_pipeline": 10});
    assert_eq!(changed(&configured("codisProxy", proxy)), ["sample-proxy"]);
    let jodis = sample(|c| c["spec"]["codisProxy"]["jodis"] = jodis());
    assert_eq!(changed(&jodis), ["sample-proxy"]);
    let tuning = serde_json::json!({"down-after-milliseconds": 2500});
    assert_eq!(changed(&configured("sentinel", tuning)), ["sample-dashboard"]);
    let process = serde_json::json!({"loglevel": "debug"});
    assert_eq!(changed(&configured("sentinel", process)), ["sample-sentinel"]);
}

fn jodis() -> serde_json::Value {
    serde_json::json!({"coordinatorName": "zookeeper", "coordinatorAddr": "zk-0:2181, zk-1:2181", "compatible": true})
}

#[test]
fn proxies_register_for_jodis_where_the_spec_says_and_nowhere_without_it() {
    let toml = text(
        &built(&sample(|c| c["spec"]["codisProxy"]["jodis"] = jodis())),
        "proxy.toml",
    );
    let lines = "jodis_name = \"zookeeper\"\njodis_addr = \"zk-0:2181,zk-1:2181\"\njodis_compatible = true\n";
    assert!(toml.contains(lines), "{toml}");
    let toml = text(&built(&sample(|_| ())), "proxy.toml");
    assert!(!toml.contains("jodis"), "{toml}");
}

#[test]
fn a_persons_values_take_the_place_of_the_operators() {
    let config =
        serde_json::json!({"proxy_max_offheap_size": "100mb", "backend_primary_only": "true", "proxy_max_clients": 5});
    let toml = text(&built(&configured("codisProxy", config)), "proxy.toml");
    assert_eq!(toml.matches("proxy_max_offheap_size").count(), 1, "{toml}");
    for line in [
        "proxy_max_offheap_size = \"100mb\"",
        "backend_primary_only = true",
        "proxy_max_clients = 5",
    ] {
        assert!(toml.lines().any(|known| known == line), "{line} in {toml}");
    }
    let config = serde_json::json!({"save": "900 1 300 10", "appendfsync": "always", "notify-keyspace-events": ""});
    let conf = text(&built(&configured("codisServer", config)), "redis.conf");
    assert!(
        conf.ends_with("appendfsync always\nnotify-keyspace-events \"\"\nsave 900 1\nsave 300 10\n"),
        "{conf}"
    );
    let config = serde_json::json!({"down-after-milliseconds": 2500, "failover-timeout": 60000});
    let workloads = built(&configured("sentinel", config));
    let toml = text(&workloads, "dashboard.toml");
    assert!(
        toml.contains("sentinel_down_after = \"2500ms\"\nsentinel_failover_timeout = \"60s\""),
        "{toml}"
    );
    assert!(
        !text(&workloads, "sentinel.conf").contains("down-after"),
        "it is told each sentinel of each master"
    );
}

#[test]
fn data_may_take_two_thirds_of_the_memory_limit_unless_a_person_says_otherwise() {
    let limited =
        |c: &mut serde_json::Value| c["spec"]["codisServer"]["limits"] = serde_json::json!({"memory": "1000Mi"});
    let maxmemory = |cluster: &ValidCluster| {
        let conf = text(&built(cluster), "redis.conf");
        let last = conf.lines().rfind(|line| line.starts_with("maxmemory "));
        last.map(str::to_owned)
    };
    assert_eq!(maxmemory(&sample(|_| ())), None);
    assert_eq!(maxmemory(&sample(limited)).as_deref(), Some("maxmemory 681574400"));
    let told = sample(|c| {
        limited(c);
        c["spec"]["codisServer"]["config"] = serde_json::json!({"maxmemory": "100mb"});
    });
    assert_eq!(maxmemory(&told).as_deref(), Some("maxmemory 100mb"));
    assert_eq!(live_settings(&told, &Facts::default())["maxmemory"], "100mb");
}

#[test]
fn a_parameter_that_left_the_spec_goes_back_to_its_default() {
    let cluster = configured("codisServer", serde_json::json!({"timeout": 10}));
    let mut facts = facts(&cluster);
    facts.live_keys = ["maxmemory-policy".to_owned(), "timeout".to_owned()].into();
    let settings = live_settings(&cluster, &facts);
    assert_eq!(
        (settings["timeout"].as_str(), settings["maxmemory-policy"].as_str()),
        ("10", "noeviction")
    );
    assert_eq!(live_settings(&sample(|_| ()), &Facts::default()), BTreeMap::new());
    let secret = workloads(&cluster, &facts, &addresses(&cluster, &facts).unwrap()).config;
    assert_eq!(secret_text(&secret, KEY_LIVE_KEYS), "maxmemory-policy\ntimeout\n");
}

#[test]
fn sizes_and_flags_are_equal_however_they_are_written() {
    for (key, wished, found, is_same) in [
        ("maxmemory", "100mb", "104857600", true),
        ("maxmemory", "100mb", "104857601", false),
        ("notify-keyspace-events", "KEx", "xKE", true),
        ("save", "900 1", "900 1", true),
        ("timeout", "10", "0", false),
        (
            "client-output-buffer-limit",
            "slave 256mb 64mb 60",
            "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
            true,
        ),
    ] {
        assert_eq!(has_setting(key, wished, found), is_same, "{key} {wished}");
    }
}

#[test]
fn bounded_durability_asks_for_a_replica_close_behind() {
    let conf = |durability: &'static str| {
        let cluster = sample(|c| c["spec"]["durability"] = durability.into());
        text(&built(&cluster), "redis.conf")
    };
    assert!(conf("bounded").contains("min-slaves-to-write 1\nmin-slaves-max-lag 10\n"));
    assert!(!conf("available").contains("min-slaves"));
}
