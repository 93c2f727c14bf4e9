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
    let table: [(&str, Change); 14] = [
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
