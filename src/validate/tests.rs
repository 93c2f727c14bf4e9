use super::*;

fn cluster(change: impl Fn(&mut serde_json::Value)) -> CodisCluster {
    let mut json = serde_json::json!({
        "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster",
        "metadata": { "name": "sample", "namespace": "default", "uid": "u" },
        "spec": {
            "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
            "codisProxy": { "image": "codis", "replicas": 3, "sessionAuth": "session" },
            "codisServer": { "image": "codis", "replicas": 4, "groupReplicas": 2 },
            "codisDashboard": { "image": "codis", "replicas": 1, "productAuth": "product" },
            "sentinel": { "image": "codis", "replicas": 5 }
        }
    });
    change(&mut json);
    serde_json::from_value(json).unwrap()
}

fn fields_refused(change: impl Fn(&mut serde_json::Value)) -> Vec<String> {
    validate(&cluster(change))
        .unwrap_err()
        .into_iter()
        .map(|error| error.field)
        .collect()
}

#[test]
fn four_servers_in_groups_of_two_are_two_groups() {
    let valid = validate(&cluster(|_| ())).unwrap();
    assert_eq!((valid.groups, valid.group_size, valid.quorum()), (2, 2, 3));
    assert_eq!(valid.volume, None, "without a size or a class data is on an emptyDir");
}

#[test]
fn each_bad_field_is_named() {
    type Change = fn(&mut serde_json::Value);
    let table: [(&str, Change); 19] = [
        ("metadata.name", |c| c["metadata"]["name"] = "Sample".into()),
        ("metadata.name", |c| c["metadata"]["name"] = "a".repeat(41).into()),
        ("metadata.name", |c| c["metadata"]["name"] = "1a".into()),
        ("spec.coordinatorName", |c| {
            c["spec"]["coordinatorName"] = "consul".into()
        }),
        ("spec.coordinatorAddr", |c| {
            c["spec"]["coordinatorName"] = "etcd".into();
            c["spec"]["coordinatorAddr"] = "YOUR_ETCD_SERVICE_IP:2379".into();
        }),
        ("spec.codisServer.replicas", |c| {
            c["spec"]["codisServer"]["replicas"] = 3.into()
        }),
        ("spec.codisServer.groupReplicas", |c| {
            c["spec"]["codisServer"]["groupReplicas"] = 0.into()
        }),
        ("spec.codisDashboard.replicas", |c| {
            c["spec"]["codisDashboard"]["replicas"] = 2.into()
        }),
        ("spec.codisDashboard.productAuth", |c| {
            c["spec"]["codisDashboard"]["productAuth"] = "a b".into()
        }),
        ("spec.codisProxy.hpaSpec.minReplicas", |c| {
            c["spec"]["codisProxy"]["hpaSpec"] =
                serde_json::json!({"minReplicas": 3, "maxReplicas": 2, "cpuUsedThreshold": 50});
        }),
        ("spec.codisProxy.drainSeconds", |c| {
            c["spec"]["codisProxy"]["drainSeconds"] = 4.into()
        }),
        ("spec.codisProxy.drainSeconds", |c| {
            c["spec"]["codisProxy"]["drainSeconds"] = 3601.into()
        }),
        ("spec.codisProxy.jodis.coordinatorName", |c| {
            c["spec"]["codisProxy"]["jodis"] =
                serde_json::json!({"coordinatorName": "filesystem", "coordinatorAddr": "/tmp"});
        }),
        ("spec.codisProxy.jodis.coordinatorAddr", |c| {
            c["spec"]["codisProxy"]["jodis"] = serde_json::json!({"coordinatorName": "etcd", "coordinatorAddr": ""});
        }),
        ("spec.codisProxy.jodis.coordinatorAddr", |c| {
            c["spec"]["codisProxy"]["jodis"] =
                serde_json::json!({"coordinatorName": "zookeeper", "coordinatorAddr": "zk-0:2181,zk_1:2181"});
        }),
        ("spec.codisProxy.serviceType", |c| {
            c["spec"]["codisProxy"]["serviceType"] = "External".into()
        }),
        ("spec.codisProxy.imagePullPolicy", |c| {
            c["spec"]["codisProxy"]["imagePullPolicy"] = "Sometimes".into()
        }),
        ("spec.codisServer.limits.memory", |c| {
            c["spec"]["codisServer"]["limits"] = serde_json::json!({"memory": "1 Gi"});
        }),
        ("spec.codisServer.requests.cpu", |c| {
            c["spec"]["codisServer"]["requests"] = serde_json::json!({"cpu": 1});
            c["spec"]["codisServer"]["limits"] = serde_json::json!({"cpu": "500m"});
        }),
    ];
    for (field, change) in table {
        assert_eq!(fields_refused(change), [field]);
    }
}

#[test]
fn every_error_is_told_at_once() {
    let fields = fields_refused(|c| {
        c["spec"]["coordinatorName"] = "consul".into();
        c["spec"]["codisServer"]["replicas"] = 3.into();
    });
    assert_eq!(fields, ["spec.coordinatorName", "spec.codisServer.replicas"]);
}

#[test]
fn a_size_or_a_class_asks_for_a_volume() {
    let volume = |server: serde_json::Value| {
        let change = |c: &mut serde_json::Value| {
            let fields = c["spec"]["codisServer"].as_object_mut().unwrap();
            fields.extend(server.as_object().unwrap().clone());
        };
        validate(&cluster(change)).unwrap().volume.unwrap()
    };
    let sized = volume(serde_json::json!({"requests": {"storage": "2Gi"}}));
    assert_eq!(
        sized,
        Volume {
            class: None,
            size: "2Gi".into()
        }
    );
    let classed = volume(serde_json::json!({"storageClassName": "fast"}));
    assert_eq!(
        classed,
        Volume {
            class: Some("fast".into()),
            size: "10Gi".into()
        }
    );
}

#[test]
fn a_proxy_is_sized_by_its_limits() {
    let small = |c: &mut serde_json::Value| {
        c["spec"]["codisProxy"]["limits"] = serde_json::json!({"cpu": "250m", "memory": "250Mi"});
    };
    let sizing = validate(&cluster(small)).unwrap().proxy_sizing;
    assert_eq!(
        sizing,
        ProxySizing {
            ncpu: 1,
            offheap_mb: Some(62),
            placeholder_mb: Some(15)
        }
    );
}

#[test]
fn storage_is_no_container_resource() {
    let stored = |c: &mut serde_json::Value| {
        c["spec"]["codisServer"]["requests"] = serde_json::json!({"cpu": 1, "storage": "2Gi"});
    };
    let requests = validate(&cluster(stored)).unwrap().server.resources.requests.unwrap();
    assert_eq!(requests.keys().collect::<Vec<_>>(), ["cpu"]);
}

#[test]
fn passwords_never_show_in_debug_output() {
    let text = format!("{:?}", validate(&cluster(|_| ())).unwrap());
    assert!(!text.contains("\"product\"") && !text.contains("\"session\""), "{text}");
}

/// The fields that are refused when one field of the spec is this.
fn refused(pointer: &str, value: serde_json::Value) -> Vec<String> {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    fields_refused(|c| c["spec"].pointer_mut(parent).unwrap()[field] = value.clone())
}

#[test]
fn the_operators_own_keys_and_senseless_values_are_refused_by_name() {
    for (component, key, value) in [
        ("codisServer", "port", "1"),
        ("codisServer", "requirepass", "x"),
        ("codisServer", "replicaof", "10.0.0.1 6379"),
        ("codisServer", "min-replicas-to-write", "1"),
        ("codisServer", "appendonly", "no"),
        ("codisServer", "cluster-enabled", "yes"),
        ("codisServer", "tls-port", "1"),
        ("codisServer", "slave-announce-ip", "10.0.0.1"),
        ("codisServer", "Timeout", "1"),
        ("codisServer", "timeout", "soon"),
        ("codisServer", "maxmemory", "lots"),
        ("codisServer", "maxmemory-policy", "allkeys"),
        ("codisServer", "save", "900"),
        ("codisServer", "client-output-buffer-limit", "slave 256mb"),
        ("codisServer", "oom-score-adj-values", "1\nport 2"),
        ("codisServer", "oom-score-adj-values", "\"1\""),
        ("codisProxy", "session_auth", "x"),
        ("codisProxy", "jodis_addr", "etcd:2379"),
        ("codisProxy", "jodis_timeout", "1s"),
        ("codisProxy", "proxy_max_client", "1"),
        ("codisProxy", "session_recv_timeout", "30"),
        ("codisDashboard", "coordinator_auth", "a:b"),
        ("codisDashboard", "sentinel_quorum", "1"),
        ("codisDashboard", "sentinel_down_after", "5s"),
        ("codisDashboard", "migration_method", "async"),
        ("sentinel", "down-after-milliseconds", "999"),
        ("sentinel", "port", "1"),
        ("sentinel", "parallel-syncs", "0"),
    ] {
        let fields = refused(&format!("/{component}/config"), serde_json::json!({ key: value }));
        assert_eq!(fields, [format!("spec.{component}.config.{key}")], "{value}");
    }
}

#[test]
fn a_refusal_says_what_to_set_instead() {
    let change = |c: &mut serde_json::Value| {
        c["spec"]["codisServer"]["config"] = serde_json::json!({"min-slaves-to-write": 1});
    };
    let error = validate(&cluster(change)).unwrap_err().remove(0).to_string();
    assert!(error.contains("spec.durability"), "{error}");
}

#[test]
fn settings_are_taken_as_they_are_written() {
    let valid = validate(&cluster(|c| {
        c["spec"]["codisServer"]["config"] = serde_json::json!({"maxmemory-policy": "allkeys-lru", "timeout": 300});
        c["spec"]["sentinel"]["config"] = serde_json::json!({"down-after-milliseconds": 3000});
    }))
    .unwrap();
    assert_eq!(valid.server.config["timeout"], "300");
    assert_eq!(valid.sentinel_tuning.down_after_ms, 3000);
    assert_eq!(valid.sentinel_tuning.failover_timeout_ms, 10_000);
}

#[test]
fn what_is_wrong_in_a_pods_options_is_named_to_the_field() {
    let rows = [
        (
            serde_json::json!({"labels": {"codis.k8s.io/group": "9"}}),
            "labels.codis.k8s.io/group",
        ),
        (
            serde_json::json!({"labels": {"app.kubernetes.io/name": "x"}}),
            "labels.app.kubernetes.io/name",
        ),
        (serde_json::json!({"labels": {"team": "a b"}}), "labels.team"),
        (serde_json::json!({"labels": {"a b": ""}}), "labels.a b"),
        (
            serde_json::json!({"annotations": {"codis.k8s.io/config": "x"}}),
            "annotations.codis.k8s.io/config",
        ),
        (
            serde_json::json!({"affinity": {"nodeAfinity": {}}}),
            "affinity.nodeAfinity",
        ),
        (serde_json::json!({"affinity": {"nodeAffinity": 1}}), "affinity"),
        (
            serde_json::json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}}),
            "affinity.podAntiAffinity",
        ),
        (
            serde_json::json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
            "topologySpreadConstraints[0].maxSkew",
        ),
        (
            serde_json::json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "Never"}]}),
            "topologySpreadConstraints[0].whenUnsatisfiable",
        ),
    ];
    for (pod, field) in rows {
        assert_eq!(
            refused("/codisServer/pod", pod),
            [format!("spec.codisServer.pod.{field}")]
        );
    }
}

#[test]
fn a_password_is_unsaid_none_given_or_in_a_secret() {
    let product = |change: fn(&mut serde_json::Value)| validate(&cluster(change)).unwrap().passwords.product;
    assert_eq!(product(|_| ()), Password::Given("product".into()));
    assert_eq!(
        product(|c| c["spec"]["codisDashboard"]["productAuth"] = "".into()),
        Password::None
    );
    assert_eq!(
        product(|c| c["spec"]["codisDashboard"] = serde_json::json!({"image": "codis"})),
        Password::Unsaid
    );
    let in_secret = |c: &mut serde_json::Value| {
        c["spec"]["codisDashboard"] = serde_json::json!({"image": "codis", "productAuthSecretRef": {"name": "auth"}});
    };
    let expected = Password::InSecret {
        name: "auth".into(),
        key: "password".into(),
    };
    assert_eq!(product(in_secret), expected);
    let both = serde_json::json!({"name": "auth"});
    assert_eq!(
        refused("/codisProxy/sessionAuthSecretRef", both),
        ["spec.codisProxy.sessionAuth"]
    );
}

#[test]
fn bounded_durability_without_replicas_makes_no_sense() {
    let fields = fields_refused(|c| {
        c["spec"]["durability"] = "bounded".into();
        c["spec"]["codisServer"]["groupReplicas"] = 1.into();
    });
    assert_eq!(fields, ["spec.durability"]);
}

#[test]
fn proxies_are_scaled_by_the_cpu_that_they_request() {
    let hpa = serde_json::json!({"minReplicas": 2, "maxReplicas": 4, "cpuUsedThreshold": 60});
    let mut valid = validate(&cluster(|c| c["spec"]["codisProxy"]["hpaSpec"] = hpa.clone())).unwrap();
    assert_eq!(valid.proxy_scaling, None);
    assert!(
        valid.without_effect[0].contains("requests.cpu"),
        "{:?}",
        valid.without_effect
    );
    let asking = |c: &mut serde_json::Value| {
        c["spec"]["codisProxy"]["hpaSpec"] = hpa.clone();
        c["spec"]["codisProxy"]["requests"] = serde_json::json!({"cpu": "100m"});
    };
    valid = validate(&cluster(asking)).unwrap();
    assert_eq!(
        valid.proxy_scaling.map(|scaling| (scaling.min, scaling.max)),
        Some((2, 4))
    );
    assert_eq!(valid.without_effect, [""; 0]);
}

#[test]
fn the_product_is_named_like_the_object_unless_the_spec_says_another_name() {
    assert_eq!(validate(&cluster(|_| ())).unwrap().product(), "sample");
    for name in ["cache_Prod-2", "0", &"a".repeat(63)] {
        let valid = validate(&cluster(|c| c["spec"]["productName"] = name.into())).unwrap();
        assert_eq!((valid.product(), &*valid.names.cluster), (name, "sample"));
    }
}

#[test]
fn a_product_name_that_codis_or_a_path_would_not_take_is_refused() {
    for name in [
        "",
        "a b",
        "a/b",
        "..",
        "a.b",
        "-a",
        "_a",
        "a\"b",
        "café",
        &"a".repeat(64),
    ] {
        let refused = fields_refused(|c| c["spec"]["productName"] = name.into());
        assert_eq!(refused, ["spec.productName"], "{name:?}");
    }
}
