//! Nodes that go, what is kept on them, and what goes with its owner.

use super::*;

#[test]
fn a_node_that_dies_loses_its_pods_once_they_tolerate_it_no_longer_and_a_stateful_pod_waits_for_it() {
    let mut world = World::new(1);
    world.make("Deployment", deployment());
    world.make("StatefulSet", stateful_set(|spec| spec["replicas"] = json!(1)));
    world.pass(30);
    let pod = world.get("Pod", "s-0");
    let node = text(&pod, "/spec/nodeName").to_owned();
    world.kube.node_down(&node, true);
    world.pass(35);
    assert_eq!(condition(&world.get("Pod", "s-0"), "Ready"), "True");
    world.pass(10);
    assert_eq!(condition(&world.get("Pod", "s-0"), "Ready"), "False");
    let ready = Value::clone(&world.api.find("Node", "", &node).unwrap());
    assert_eq!(condition(&ready, "Ready"), "Unknown");
    world.pass(290);
    assert!(world.get("Pod", "s-0")["metadata"]["deletionTimestamp"].is_null());
    world.pass(60);
    assert!(!world.get("Pod", "s-0")["metadata"]["deletionTimestamp"].is_null());
    assert_eq!(world.get("Deployment", "d")["status"]["availableReplicas"], 3);
    world.delete("Pod", "s-0", json!({"gracePeriodSeconds": 0}));
    world.pass(30);
    let new = world.get("Pod", "s-0");
    assert_ne!(text(&new, "/spec/nodeName"), node);
    assert_ne!(new["metadata"]["uid"], pod["metadata"]["uid"]);
    world.kube.node_down(&node, false);
    world.pass(30);
    let ready = Value::clone(&world.api.find("Node", "", &node).unwrap());
    assert_eq!(
        (condition(&ready, "Ready"), ready["spec"].get("taints")),
        ("True", None)
    );
    assert!(
        world
            .pods()
            .iter()
            .all(|pod| pod["metadata"]["deletionTimestamp"].is_null())
    );
}

#[test]
fn a_frozen_kubelets_processes_run_on_and_those_that_were_deleted_by_force_end_when_it_thaws() {
    let mut world = World::new(1);
    world.make("StatefulSet", stateful_set(|spec| spec["replicas"] = json!(1)));
    world.pass(30);
    let node = text(&world.get("Pod", "s-0"), "/spec/nodeName").to_owned();
    let uid = text(&world.get("Pod", "s-0"), "/metadata/uid").to_owned();
    world.kube.kubelet_frozen(&node, true);
    world.delete("Pod", "s-0", json!({"gracePeriodSeconds": 0}));
    world.pass(60);
    assert!(world.kube.sandboxes[&uid].containers[0].is_running());
    world.kube.kubelet_frozen(&node, false);
    world.pass(5);
    assert!(!world.kube.sandboxes.contains_key(&uid));
}

#[test]
fn a_claim_keeps_its_volume_and_a_local_one_its_node() {
    for class in ["disk", "net"] {
        let mut world = World::new(1);
        world.make(
            "StatefulSet",
            stateful_set(|spec| {
                spec["template"]["spec"]["containers"][0]["volumeMounts"] =
                    json!([{"name": "data", "mountPath": "/data"}]);
                spec["volumeClaimTemplates"] = json!([{
                    "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
                        "resources": {"requests": {"storage": "1Gi"}}},
                }]);
            }),
        );
        world.pass(60);
        assert_eq!(world.ready(), 3, "{class}");
        let node = text(&world.get("Pod", "s-0"), "/spec/nodeName").to_owned();
        let volume = text(&world.get("PersistentVolumeClaim", "data-s-0"), "/spec/volumeName").to_owned();
        world.kube.cordon(&node, true);
        world.delete("Pod", "s-0", Value::Null);
        world.pass(60);
        let pod = world.get("Pod", "s-0");
        assert_eq!(
            condition(&pod, "PodScheduled"),
            if class == "disk" { "False" } else { "True" },
            "{class}"
        );
        world.kube.cordon(&node, false);
        world.pass(60);
        assert_eq!(
            text(&world.get("Pod", "s-0"), "/spec/nodeName") == node,
            class == "disk"
        );
        let launches = world.toy.0.lock().unwrap().launches.clone();
        let last = launches.iter().rfind(|launch| launch.pod == "s-0").unwrap();
        assert_eq!(last.volume.as_deref(), Some(volume.as_str()));
        world.delete("StatefulSet", "s", Value::Null);
        world.pass(60);
        world.delete("PersistentVolumeClaim", "data-s-0", Value::Null);
        world.pass(1);
        assert_eq!(world.toy.0.lock().unwrap().deleted.as_slice(), [volume], "{class}");
    }
}

#[test]
fn what_an_owner_owned_goes_with_it_unless_it_is_orphaned() {
    for (policy, is_left) in [("Background", false), ("Foreground", false), ("Orphan", true)] {
        let mut world = World::new(1);
        world.make("Deployment", deployment());
        world.pass(30);
        world.delete("Deployment", "d", json!({"propagationPolicy": policy}));
        world.pass(60);
        assert!(!world.has("Deployment", "d"), "{policy}");
        assert_eq!(world.names().len(), if is_left { 3 } else { 0 }, "{policy}");
    }
}

#[test]
fn a_set_takes_the_pods_that_one_of_its_name_left_and_makes_them_anew_when_they_go() {
    let mut world = World::new(1);
    let set = || stateful_set(|spec| spec["replicas"] = json!(2));
    world.make("StatefulSet", set());
    world.pass(30);
    world.delete("StatefulSet", "s", json!({"propagationPolicy": "Orphan"}));
    world.pass(10);
    assert_eq!(world.names(), ["s-0", "s-1"]);
    world.make("StatefulSet", set());
    world.pass(10);
    world.delete("Pod", "s-0", Value::Null);
    world.pass(60);
    assert_eq!(world.names(), ["s-0", "s-1"]);
    world.delete("StatefulSet", "s", Value::Null);
    world.pass(60);
    assert!(world.names().is_empty(), "{:?}", world.names());
}

#[test]
fn a_restart_in_place_sees_a_secret_of_a_minute_ago_and_a_new_pod_the_present_one() {
    let mut world = World::new(1);
    let secret = |text: &str| json!({"metadata": {"name": "c"}, "data": {"file": text}});
    world.make("Secret", secret("b25l"));
    world.make(
        "StatefulSet",
        stateful_set(|spec| {
            spec["replicas"] = json!(1);
            spec["template"]["spec"]["volumes"] = json!([{"name": "config", "secret": {"secretName": "c"}}]);
            spec["template"]["spec"]["containers"][0]["volumeMounts"] =
                json!([{"name": "config", "mountPath": "/etc/c"}]);
        }),
    );
    world.pass(20);
    let sees = |world: &World| {
        let told = world.toy.0.lock().unwrap();
        String::from_utf8(told.launches.last().unwrap().files["/etc/c/file"].clone()).unwrap()
    };
    assert_eq!(sees(&world), "one");
    world.change("Secret", "c", |s| s["data"]["file"] = json!("dHdv"));
    world.kube.kill_process("default", "s-0");
    world.pass(5);
    assert_eq!(
        (sees(&world), world.toy.0.lock().unwrap().launches.len()),
        ("one".to_owned(), 2)
    );
    world.delete("Pod", "s-0", Value::Null);
    world.pass(10);
    assert_eq!(sees(&world), "two");
    world.change("Secret", "c", |s| s["data"]["file"] = json!("b25l"));
    world.pass(70);
    world.kube.kill_process("default", "s-0");
    world.pass(5);
    assert_eq!(sees(&world), "one");
}

#[test]
fn a_pod_with_a_finalizer_stays_until_that_is_gone_though_its_processes_are() {
    let mut world = World::new(1);
    world.make("StatefulSet", stateful_set(|spec| spec["replicas"] = json!(1)));
    world.pass(30);
    world.change("Pod", "s-0", |pod| {
        pod["metadata"]["finalizers"] = json!(["codis.k8s.io/one"])
    });
    let uid = world.get("Pod", "s-0")["metadata"]["uid"].clone();
    world.delete("Pod", "s-0", Value::Null);
    world.pass(60);
    let pod = world.get("Pod", "s-0");
    assert_eq!(
        (&pod["metadata"]["uid"], text(&pod, "/status/phase")),
        (&uid, "Succeeded")
    );
    assert_eq!(world.toy.0.lock().unwrap().launches.len(), 1);
    world.change("Pod", "s-0", |pod| pod["metadata"]["finalizers"] = json!([]));
    world.pass(30);
    assert_ne!(world.get("Pod", "s-0")["metadata"]["uid"], uid);
    assert_eq!(world.ready(), 1);
}

#[test]
fn a_node_that_gets_its_power_back_runs_its_pods_again_in_place_with_what_was_on_disk() {
    let mut world = World::new(1);
    world.make(
        "StatefulSet",
        stateful_set(|spec| {
            spec["replicas"] = json!(1);
            spec["template"]["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
            spec["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        }),
    );
    world.pass(30);
    let pod = world.get("Pod", "s-0");
    let node = text(&pod, "/spec/nodeName").to_owned();
    world.kube.node_down(&node, true);
    world.pass(60);
    world.kube.node_down(&node, false);
    world.pass(30);
    let again = world.get("Pod", "s-0");
    assert_eq!(
        (again["metadata"]["uid"] == pod["metadata"]["uid"], world.ready()),
        (true, 1)
    );
    assert_ne!(again["status"]["podIP"], pod["status"]["podIP"]);
    let told = world.toy.0.lock().unwrap();
    let [first, second] = told.launches.as_slice() else {
        panic!("{:?}", told.launches)
    };
    assert_eq!((&first.volume, second.restarts), (&second.volume, 1));
    assert!(told.deleted.is_empty());
}
