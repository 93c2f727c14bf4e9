mod settings;

use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::util::intstr::IntOrString};

use super::*;
use crate::{api::CodisCluster, validate::validate};

pub(super) fn sample(change: impl Fn(&mut serde_json::Value)) -> ValidCluster {
    let mut json = serde_json::json!({
        "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster",
        "metadata": {"name": "sample", "namespace": "ns", "uid": "uid-1"},
        "spec": {
            "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
            "codisProxy": {"image": "codis", "replicas": 3, "sessionAuth": "session", "serviceType": "NodePort",
                           "limits": {"cpu": "250m", "memory": "250Mi"}},
            "codisServer": {"image": "codis", "replicas": 4, "groupReplicas": 2},
            "codisDashboard": {"image": "codis", "productAuth": "product"},
            "codisFe": {"image": "codis", "replicas": 2},
            "sentinel": {"image": "codis", "replicas": 5}
        }
    });
    change(&mut json);
    validate(&serde_json::from_value::<CodisCluster>(json).unwrap()).unwrap()
}

pub(super) fn facts(cluster: &ValidCluster) -> Facts {
    let names = services(cluster, &Facts::default())
        .into_iter()
        .filter_map(|service| service.metadata.name);
    let addresses = names.zip(1..).map(|(name, n)| (name, format!("10.96.0.{n}"))).collect();
    Facts {
        addresses,
        auth: Auth {
            product: Some("product".to_owned()),
            session: Some("session".to_owned()),
        },
        ..Facts::default()
    }
}

pub(super) fn built(cluster: &ValidCluster) -> Workloads {
    let facts = facts(cluster);
    workloads(cluster, &facts, &addresses(cluster, &facts).unwrap())
}

fn secret_text(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
}

fn text(workloads: &Workloads, key: &str) -> String {
    secret_text(&workloads.config, key)
}

fn configured(component: &'static str, config: serde_json::Value) -> ValidCluster {
    sample(move |c| c["spec"][component]["config"] = config.clone())
}

/// The annotation `codis.k8s.io/config` of the pods of a workload.
fn revision(workloads: &Workloads, name: &str) -> Option<String> {
    let sets = workloads
        .stateful_sets
        .iter()
        .map(|set| (&set.metadata, &set.spec.as_ref().unwrap().template));
    let deployments = workloads.deployments.iter();
    let deployments = deployments.map(|d| (&d.metadata, &d.spec.as_ref().unwrap().template));
    let (_, template) = sets
        .chain(deployments)
        .find(|(meta, _)| meta.name.as_deref() == Some(name))
        .unwrap();
    let annotations = template.metadata.as_ref().unwrap().annotations.as_ref()?;
    annotations.get("codis.k8s.io/config").cloned()
}

pub(super) fn pod_specs(workloads: &Workloads) -> Vec<PodSpec> {
    let sets = workloads
        .stateful_sets
        .iter()
        .map(|set| set.spec.as_ref().unwrap().template.spec.clone().unwrap());
    let deployments = workloads
        .deployments
        .iter()
        .map(|d| d.spec.as_ref().unwrap().template.spec.clone().unwrap());
    sets.chain(deployments).collect()
}

#[test]
fn every_member_has_an_address_of_its_own() {
    let cluster = sample(|_| ());
    let names: BTreeSet<_> = services(&cluster, &Facts::default())
        .into_iter()
        .filter_map(|s| s.metadata.name)
        .collect();
    for name in [
        "sample-dashboard",
        "sample-proxy",
        "sample-fe",
        "sample-g1",
        "sample-g1-0",
        "sample-g2-1",
        "sample-sentinel-4",
    ] {
        assert!(names.contains(name), "{name} in {names:?}");
    }
    assert_eq!(names.len(), 3 + 1 + 2 + 4 + 1 + 5);
}

#[test]
fn a_lock_tells_kubernetes_namespace_and_cluster() {
    let lock = |name: &str, namespace: &str, uid: &str| {
        let cluster = sample(|c| {
            c["metadata"]["name"] = name.into();
            c["metadata"]["namespace"] = namespace.into();
        });
        let facts = Facts {
            kubernetes_uid: uid.into(),
            ..facts(&cluster)
        };
        // Their Services come under the names that they get in this Kubernetes.
        let address = secret_text(
            &workloads(&cluster, &facts, &addresses(&cluster, &facts).unwrap()).config,
            "lock-address",
        );
        let (service, _) = address.split_once('.').unwrap();
        let services = services(&cluster, &facts);
        let made = services
            .iter()
            .find(|made| made.metadata.name.as_deref() == Some(service));
        let made = made.unwrap_or_else(|| panic!("no Service {service}"));
        let reach = |service: &Service| {
            let spec = service.spec.clone().unwrap();
            (spec.selector, spec.ports, spec.publish_not_ready_addresses)
        };
        assert_eq!(reach(made), reach(&services[0]), "it leads to the dashboard");
        address
    };
    let address = lock("sample", "ns", "one");
    assert_eq!(address, "sample-dashboard-7692c3ad.ns.svc:18080");
    assert_eq!(lock("sample", "ns", "one"), address, "the same when it is made anew");
    for other in [
        lock("other", "ns", "one"),
        lock("sample", "other", "one"),
        lock("sample", "ns", "two"),
    ] {
        assert_ne!(other, address);
    }
    let longest = lock(&"a".repeat(40), "ns", "one");
    assert!(longest.split('.').next().unwrap().len() <= 63, "{longest}");
}

#[test]
fn workloads_need_every_address() {
    let cluster = sample(|_| ());
    let mut facts = facts(&cluster);
    facts.addresses.remove("sample-g2-0");
    assert_eq!(addresses(&cluster, &facts), Err(MissingAddress("sample-g2-0".into())));
}

#[test]
fn no_pod_matches_two_budgets_and_no_master_may_be_evicted() {
    let cluster = sample(|_| ());
    let mut facts = facts(&cluster);
    facts.whole = [GroupId::try_from(1).unwrap()].into();
    let budgets: BTreeMap<String, _> = budgets(&cluster, &facts)
        .into_iter()
        .map(|budget| (budget.metadata.name.unwrap(), budget.spec.unwrap()))
        .collect();
    let min = |name: &str| budgets[name].min_available.clone();
    let max = |name: &str| budgets[name].max_unavailable.clone();
    assert_eq!(max("sample-g1-master"), Some(IntOrString::Int(0)));
    assert_eq!(
        (min("sample-g1-replicas"), min("sample-g2-replicas")),
        (Some(IntOrString::Int(0)), Some(IntOrString::Int(1)))
    );
    assert_eq!(
        max("sample-dashboard"),
        Some(IntOrString::Int(0)),
        "a master may be on its node"
    );
    let selectors: BTreeSet<_> = budgets
        .values()
        .map(|spec| spec.selector.clone().unwrap().match_labels.unwrap())
        .collect();
    assert_eq!(selectors.len(), budgets.len(), "each selects other pods");
}

#[test]
fn a_service_that_is_made_anew_asks_for_its_old_address_and_headless_ones_for_none() {
    let cluster = sample(|_| ());
    let facts = facts(&cluster);
    let recorded = &facts.addresses;
    for service in services(&cluster, &facts) {
        let name = service.metadata.name.unwrap();
        let address = service.spec.unwrap().cluster_ip;
        let is_headless = ["sample-g1", "sample-g2", "sample-sentinel"].contains(&name.as_str());
        let expected = if is_headless {
            "None".to_owned()
        } else {
            recorded[&name].clone()
        };
        assert_eq!(address, Some(expected), "{name}");
    }
}

#[test]
fn all_pods_run_restricted() {
    for pod in pod_specs(&built(&sample(|_| ()))) {
        let security = pod.security_context.unwrap();
        assert_eq!(
            (security.run_as_non_root, security.run_as_user, security.fs_group),
            (Some(true), Some(1000), Some(1000))
        );
        assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
        assert_eq!(
            (pod.automount_service_account_token, pod.enable_service_links),
            (Some(false), Some(false))
        );
        let container = pod.containers[0].security_context.clone().unwrap();
        assert_eq!(container.allow_privilege_escalation, Some(false));
        assert_eq!(container.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
    }
}

#[test]
fn no_password_is_an_argument_or_in_the_environment() {
    for pod in pod_specs(&built(&sample(|_| ()))) {
        let container = serde_json::to_string(&pod.containers[0]).unwrap();
        for password in ["\"product\"", "\"session\""] {
            assert!(!container.contains(password), "{container}");
        }
    }
}

#[test]
fn a_pod_sees_only_the_files_that_it_reads() {
    let workloads = built(&sample(|_| ()));
    for pod in pod_specs(&workloads) {
        let (name, files) = (
            pod.containers[0].name.clone(),
            pod.volumes.unwrap()[0].secret.clone().unwrap().items.unwrap(),
        );
        let keys: Vec<_> = files.into_iter().map(|item| item.key).collect();
        for key in &keys {
            assert!(
                workloads.config.data.as_ref().unwrap().contains_key(key),
                "{name} reads {key}, which isn't there"
            );
        }
        let knows_product_auth = keys.iter().any(|key| key == KEY_PRODUCT_AUTH || key == "redis.conf");
        assert_eq!(knows_product_auth, name == "server", "{name}: {keys:?}");
    }
}

#[test]
fn data_is_on_a_claim_only_where_one_is_wished() {
    let claim_of = |cluster: &ValidCluster| {
        let workloads = built(cluster);
        let set = workloads
            .stateful_sets
            .iter()
            .find(|s| s.metadata.name.as_deref() == Some("sample-g1"))
            .unwrap();
        set.spec.as_ref().unwrap().volume_claim_templates.clone()
    };
    assert_eq!(claim_of(&sample(|_| ())), None);
    let sized = sample(|c| c["spec"]["codisServer"]["requests"] = serde_json::json!({"storage": "2Gi"}));
    let spec = claim_of(&sized).unwrap()[0].spec.clone().unwrap();
    assert_eq!(spec.resources.unwrap().requests.unwrap()["storage"].0, "2Gi");
    assert_eq!(spec.storage_class_name, None, "the default class");
}

#[test]
fn a_claim_template_that_exists_is_kept_whatever_the_spec_says() {
    let cluster = sample(|c| c["spec"]["codisServer"]["requests"] = serde_json::json!({"storage": "9Gi"}));
    let mut facts = facts(&cluster);
    facts.volumes.insert(
        "sample-g1".into(),
        Some(Volume {
            class: Some("old".into()),
            size: "2Gi".into(),
        }),
    );
    facts.volumes.insert("sample-g2".into(), None);
    let workloads = workloads(&cluster, &facts, &addresses(&cluster, &facts).unwrap());
    let claims: BTreeMap<_, _> = workloads
        .stateful_sets
        .into_iter()
        .map(|set| (set.metadata.name.unwrap(), set.spec.unwrap().volume_claim_templates))
        .collect();
    let kept = claims["sample-g1"].as_ref().unwrap()[0].spec.clone().unwrap();
    assert_eq!(kept.storage_class_name.as_deref(), Some("old"));
    assert_eq!(claims["sample-g2"], None);
}

#[test]
fn the_dashboard_is_one_and_keeps_its_store_on_a_claim() {
    let workloads = built(&sample(|_| ()));
    let spec = workloads.stateful_sets[0].spec.clone().unwrap();
    assert_eq!(spec.replicas, Some(1));
    let claim = spec.volume_claim_templates.unwrap()[0].spec.clone().unwrap();
    assert_eq!(claim.resources.unwrap().requests.unwrap()["storage"].0, "1Gi");
    let toml = text(&workloads, "dashboard.toml");
    assert!(
        toml.contains("coordinator_name = \"filesystem\"\ncoordinator_addr = \"/data/codis\""),
        "{toml}"
    );
    assert!(toml.contains("sentinel_quorum = 3"), "{toml}");
}

#[test]
fn servers_and_sentinels_are_told_who_they_are() {
    let workloads = built(&sample(|_| ()));
    let members = text(&workloads, "members");
    assert_eq!(members.lines().count(), 4);
    assert!(
        members
            .lines()
            .any(|line| line.starts_with("sample-g2-1 10.96.0.") && line.ends_with(" 2")),
        "{members}"
    );
    let ids: BTreeSet<String> = text(&workloads, "sentinels")
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap().to_owned())
        .collect();
    assert!(ids.len() == 5 && ids.iter().all(|id| id.len() == 40), "{ids:?}");
}

#[test]
fn a_sentinels_id_is_its_own_and_stays() {
    assert_eq!(sentinel_id("u", "c-sentinel-0"), sentinel_id("u", "c-sentinel-0"));
    assert_ne!(sentinel_id("u", "c-sentinel-0"), sentinel_id("v", "c-sentinel-0"));
}

#[test]
fn a_small_proxy_stays_small() {
    let toml = text(&built(&sample(|_| ())), "proxy.toml");
    assert!(
        toml.contains("proxy_max_offheap_size = \"62mb\"\nproxy_heap_placeholder = \"15mb\""),
        "{toml}"
    );
}

#[test]
fn a_proxy_that_leaves_has_time_for_its_clients_and_for_its_stop() {
    let of = |cluster: &ValidCluster| {
        let pods = pod_specs(&built(cluster));
        let proxy = pods.into_iter().find(|pod| pod.containers[0].name == "proxy").unwrap();
        let hook = proxy.containers[0].lifecycle.clone().unwrap().pre_stop.unwrap();
        (
            proxy.termination_grace_period_seconds,
            hook.exec.unwrap().command.unwrap().join(" "),
        )
    };
    let expected = |grace: i64, drain: u16| (Some(grace), format!("sh /etc/codis/proxy-drain.sh 5 {drain}"));
    assert_eq!(of(&sample(|_| ())), expected(45, 30));
    let patient = sample(|c| c["spec"]["codisProxy"]["drainSeconds"] = 3600.into());
    assert_eq!(of(&patient), expected(3615, 3600));
}

#[test]
fn armed_gates_are_listed_for_the_entry_script() {
    let cluster = sample(|_| ());
    let mut facts = facts(&cluster);
    facts.bootstrapped.extend(cluster.group_ids());
    let workloads = workloads(&cluster, &facts, &addresses(&cluster, &facts).unwrap());
    assert_eq!(text(&workloads, KEY_BOOTSTRAPPED), "1\n2\n");
}

#[test]
fn applications_find_how_to_connect() {
    let cluster = sample(|_| ());
    let mut facts = facts(&cluster);
    facts.auth.session = Some("p@ss:w/rd".to_owned());
    let connection = workloads(&cluster, &facts, &addresses(&cluster, &facts).unwrap()).connection;
    assert_eq!(connection.metadata.name.as_deref(), Some("sample-connection"));
    let text = |key: &str| secret_text(&connection, key);
    assert_eq!(
        (text("host"), text("port")),
        ("sample-proxy.ns.svc".into(), "19000".into())
    );
    assert_eq!(text("password"), "p@ss:w/rd");
    assert_eq!(text("uri"), "redis://:p%40ss%3Aw%2Frd@sample-proxy.ns.svc:19000");
}

#[test]
fn a_new_session_password_rolls_the_proxies_and_nothing_else() {
    let cluster = sample(|_| ());
    let mut facts = facts(&cluster);
    facts.session_rotations = 1;
    let workloads = workloads(&cluster, &facts, &addresses(&cluster, &facts).unwrap());
    assert!(revision(&workloads, "sample-proxy").is_some());
    assert_eq!(revision(&workloads, "sample-dashboard"), None);
}

#[test]
fn an_autoscalers_number_of_proxies_is_never_applied() {
    let scaled = sample(|c| {
        c["spec"]["codisProxy"]["hpaSpec"] =
            serde_json::json!({"minReplicas": 2, "maxReplicas": 5, "cpuUsedThreshold": 60});
    });
    let of = |proxies: Option<i32>| {
        let mut facts = facts(&scaled);
        facts.proxies = proxies;
        let workloads = workloads(&scaled, &facts, &addresses(&scaled, &facts).unwrap());
        (
            workloads.deployments.last().unwrap().spec.as_ref().unwrap().replicas,
            workloads.autoscaler,
        )
    };
    let (replicas, scaler) = of(Some(4));
    assert_eq!(replicas, None);
    let spec = scaler.unwrap().spec.unwrap();
    assert_eq!(
        (
            spec.min_replicas,
            spec.max_replicas,
            spec.scale_target_ref.name.as_str()
        ),
        (Some(2), 5, "sample-proxy")
    );
    assert_eq!(of(None).0, Some(3), "a new Deployment begins with some");
    assert_eq!(of(Some(0)).0, Some(3), "an autoscaler never wakes it");
    assert_eq!(built(&sample(|_| ())).autoscaler, None);
}

#[test]
fn a_persons_wishes_for_pods_are_added_to_the_operators() {
    let cluster = sample(|c| {
        c["spec"]["codisServer"]["pod"] = serde_json::json!({
            "labels": {"team": "cache"},
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "noisy"}}}]}},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
        });
    });
    let workloads = built(&cluster);
    let set = workloads
        .stateful_sets
        .iter()
        .find(|s| s.metadata.name.as_deref() == Some("sample-g1"))
        .unwrap();
    let template = set.spec.as_ref().unwrap().template.clone();
    let labels = template.metadata.unwrap().labels.unwrap();
    assert_eq!(
        (labels["team"].as_str(), labels["codis.k8s.io/group"].as_str()),
        ("cache", "1")
    );
    let pod = template.spec.unwrap();
    let apart = pod.affinity.unwrap().pod_anti_affinity.unwrap();
    assert_eq!(
        apart.required_during_scheduling_ignored_during_execution.unwrap().len(),
        1
    );
    assert_eq!(
        apart
            .preferred_during_scheduling_ignored_during_execution
            .unwrap()
            .len(),
        2
    );
    let selector = pod.topology_spread_constraints.unwrap()[0]
        .label_selector
        .clone()
        .unwrap();
    assert_eq!(selector.match_labels.unwrap()["codis.k8s.io/component"], "server");
}

#[test]
fn codis_knows_the_product_and_kubernetes_the_object() {
    let cluster = sample(|c| c["spec"]["productName"] = "cache_prod".into());
    let workloads = built(&cluster);
    for file in ["dashboard.toml", "proxy.toml"] {
        let line = "product_name = \"cache_prod\"\n";
        assert!(text(&workloads, file).contains(line), "{file}");
    }
    assert!(text(&workloads, "dashboards.json").contains("{\"name\":\"cache_prod\","));
    let env = pod_specs(&workloads)[0].containers[0].env.clone().unwrap_or_default();
    let product = env
        .into_iter()
        .find(|variable| variable.name == "PRODUCT_NAME")
        .unwrap();
    assert_eq!(product.value.as_deref(), Some("cache_prod"));
    let of_plain = built(&sample(|_| ()));
    let names = |all: &Workloads| {
        all.stateful_sets
            .iter()
            .map(|set| set.metadata.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&workloads), names(&of_plain));
}

#[test]
fn a_marked_product_is_told_to_the_dashboards_script_and_restarts_nothing() {
    let cluster = sample(|c| {
        c["spec"]["coordinatorName"] = "etcd".into();
        c["spec"]["coordinatorAddr"] = "etcd:2379".into();
        c["spec"]["productName"] = "cache".into();
    });
    let with = |claimed: bool| {
        let facts = Facts {
            claimed,
            ..facts(&cluster)
        };
        workloads(&cluster, &facts, &addresses(&cluster, &facts).unwrap())
    };
    let (before, after) = (with(false), with(true));
    assert_eq!(text(&before, "product-claimed"), "");
    assert_eq!(text(&after, "product-claimed"), "cache\n");
    assert_eq!(before.stateful_sets, after.stateful_sets);
    assert_eq!(before.deployments, after.deployments);
    let script = text(&before, "dashboard.sh");
    assert!(
        script.contains(&format!("\"{OWNED_ELSEWHERE}")),
        "the operator looks for these words"
    );
}
