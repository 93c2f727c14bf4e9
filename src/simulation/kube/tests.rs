//! The simulated Kubernetes, with processes that do nothing but run.

mod clients;
mod nodes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Exit, Kubernetes, Launch, Node, Process, Runtime,
    object::{after, after_millis, condition, list, number, text},
};
use crate::simulation::api::ApiServer;

/// What the toy's processes were told, and what they got.
#[derive(Default)]
struct Told {
    launches: Vec<Launch>,
    deleted: Vec<String>,
    /// Pods whose processes ignore SIGTERM.
    stubborn: BTreeSet<String>,
    /// Pods that aren't ready.
    unready: BTreeSet<String>,
}

#[derive(Clone, Default)]
struct Toy(Arc<Mutex<Told>>);

struct Program {
    pod: String,
    exit: Option<Exit>,
    told: Toy,
}

impl Runtime for Toy {
    fn start(&mut self, launch: Launch) -> Box<dyn Process> {
        let pod = launch.pod.clone();
        self.0.lock().unwrap().launches.push(launch);
        let (exit, told) = (None, self.clone());
        Box::new(Program { pod, exit, told })
    }

    fn delete_volume(&mut self, volume: &str) {
        self.0.lock().unwrap().deleted.push(volume.to_owned());
    }
}

impl Process for Program {
    fn ended(&self) -> Option<Exit> {
        self.exit.clone()
    }

    fn probe(&self, _: &Value) -> bool {
        self.exit.is_none() && !self.told.0.lock().unwrap().unready.contains(&self.pod)
    }

    fn terminate(&mut self, _: Option<&Value>) {
        if !self.told.0.lock().unwrap().stubborn.contains(&self.pod) {
            let message = "told to".to_owned();
            self.exit.get_or_insert(Exit { code: 0, message });
        }
    }

    fn kill(&mut self) {
        let message = String::new();
        self.exit.get_or_insert(Exit { code: 137, message });
    }
}

/// A Kubernetes with its clock.
struct World {
    api: ApiServer,
    kube: Kubernetes,
    toy: Toy,
    now: Arc<Mutex<Timestamp>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let now = Arc::new(Mutex::new(now));
        let clock = now.clone();
        let api = ApiServer::new(move || *clock.lock().unwrap());
        let toy = Toy::default();
        let nodes = ["n1", "n2", "n3", "n4"].map(|name| Node {
            name: name.to_owned(),
            zone: if name < "n3" { "z1" } else { "z2" }.to_owned(),
        });
        let kube = Kubernetes::new(api.clone(), &nodes, Box::new(toy.clone()), seed);
        let mut world = Self { api, kube, toy, now };
        for (name, provisioner, mode) in [
            ("net", "csi", "Immediate"),
            ("disk", "local-path", "WaitForFirstConsumer"),
        ] {
            world.make(
                "StorageClass",
                json!({
                    "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": (name == "net").to_string()}},
                    "provisioner": provisioner, "volumeBindingMode": mode,
                }),
            );
        }
        world
    }

    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    fn make(&mut self, kind: &str, mut object: Value) -> Value {
        if !["StorageClass"].contains(&kind) {
            object["metadata"]["namespace"] = json!("default");
        }
        let made = self.api.make(kind, object).unwrap();
        self.kube.step(self.now());
        made
    }

    fn change(&mut self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = Value::clone(&self.api.find(kind, "default", name).unwrap());
        change(&mut object);
        assert!(self.api.replace(object));
        self.kube.step(self.now());
    }

    /// Lets so many seconds pass; `check` sees every state on the way.
    fn pass_checked(&mut self, seconds: i64, mut check: impl FnMut(&Self)) {
        let end = after(self.now(), seconds);
        loop {
            let next = self.kube.step(self.now());
            check(self);
            match next.filter(|next| *next <= end) {
                Some(next) => *self.now.lock().unwrap() = next,
                None => break,
            }
        }
        *self.now.lock().unwrap() = end;
        self.kube.step(end);
        check(self);
    }

    fn pass(&mut self, seconds: i64) {
        self.pass_checked(seconds, |_| ());
    }

    fn pods(&self) -> Vec<Value> {
        let all = self.api.snapshot().into_iter();
        all.filter(|object| object["kind"] == "Pod").collect()
    }

    fn names(&self) -> Vec<String> {
        self.pods()
            .iter()
            .map(|pod| text(pod, "/metadata/name").to_owned())
            .collect()
    }

    fn ready(&self) -> usize {
        let pods = self.pods();
        pods.iter()
            .filter(|pod| condition(pod, "Ready") == "True" && pod["metadata"]["deletionTimestamp"].is_null())
            .count()
    }

    fn get(&self, kind: &str, name: &str) -> Value {
        Value::clone(&self.api.find(kind, "default", name).unwrap())
    }

    fn has(&self, kind: &str, name: &str) -> bool {
        self.api.find(kind, "default", name).is_some()
    }

    fn delete(&mut self, kind: &str, name: &str, options: Value) {
        self.api.delete(kind, "default", name, options);
        self.kube.step(self.now());
    }
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [{
            "name": "main", "image": image, "ports": [{"name": "redis", "containerPort": 6379}],
            "readinessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 5},
        }]},
    })
}

fn stateful_set(change: impl FnOnce(&mut Value)) -> Value {
    let mut set = json!({
        "metadata": {"name": "s"},
        "spec": {"replicas": 3, "serviceName": "s", "selector": {"matchLabels": {"app": "a"}}, "template": template("one")},
    });
    change(&mut set["spec"]);
    set
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": template("one"),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        },
    })
}

fn image(pod: &Value) -> &str {
    text(pod, "/spec/containers/0/image")
}

#[test]
fn a_deployment_rolls_without_going_below_its_minimum_or_above_its_maximum() {
    let mut world = World::new(1);
    world.make("Deployment", deployment());
    world.pass(30);
    assert_eq!(world.ready(), 3);
    world.change("Deployment", "d", |d| d["spec"]["template"] = template("two"));
    world.pass_checked(120, |world| {
        let active = world
            .pods()
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .count();
        assert!(world.ready() >= 3 && active <= 4, "{:?}", world.names());
    });
    assert!(world.pods().iter().all(|pod| image(pod) == "two"));
    let status = world.get("Deployment", "d")["status"].clone();
    assert_eq!(
        (&status["updatedReplicas"], &status["replicas"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(status["observedGeneration"], 2);
    assert_eq!(world.ready(), 3);
}

#[test]
fn a_stateful_set_starts_and_rolls_in_order() {
    let mut world = World::new(1);
    world.make("StatefulSet", stateful_set(|_| ()));
    world.pass_checked(60, |world| {
        let unready = world
            .pods()
            .iter()
            .filter(|pod| condition(pod, "Ready") != "True")
            .count();
        assert!(unready <= 1, "{:?}", world.names());
    });
    assert_eq!(world.names(), ["s-0", "s-1", "s-2"]);
    let before = world.get("StatefulSet", "s")["status"]["currentRevision"].clone();
    world.change("StatefulSet", "s", |s| s["spec"]["template"] = template("two"));
    let mut order = Vec::new();
    world.pass_checked(120, |world| {
        let new = world.pods().into_iter().filter(|pod| image(pod) == "two");
        order.extend(new.map(|pod| text(&pod, "/metadata/name").to_owned()));
        order.dedup();
        let mut seen = BTreeSet::new();
        order.retain(|name| seen.insert(name.clone()));
    });
    assert_eq!(order, ["s-2", "s-1", "s-0"]);
    let status = world.get("StatefulSet", "s")["status"].clone();
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    assert_ne!(status["currentRevision"], before);
    assert_eq!(
        (&status["readyReplicas"], &status["updatedReplicas"]),
        (&json!(3), &json!(3))
    );
}

#[test]
fn a_parallel_stateful_set_that_is_changed_on_delete_waits_for_deletes() {
    let mut world = World::new(1);
    world.make(
        "StatefulSet",
        stateful_set(|spec| {
            spec["podManagementPolicy"] = json!("Parallel");
            spec["updateStrategy"] = json!({"type": "OnDelete"});
        }),
    );
    assert_eq!(world.names().len(), 3);
    world.pass(30);
    world.change("StatefulSet", "s", |s| s["spec"]["template"] = template("two"));
    world.pass(60);
    assert!(world.pods().iter().all(|pod| image(pod) == "one"));
    world.delete("Pod", "s-1", Value::Null);
    world.pass(30);
    assert_eq!(image(&world.get("Pod", "s-1")), "two");
    assert_eq!(image(&world.get("Pod", "s-2")), "one");
    assert_eq!(world.get("StatefulSet", "s")["status"]["updatedReplicas"], 1);
    world.change("StatefulSet", "s", |s| s["spec"]["replicas"] = json!(1));
    world.pass(30);
    assert_eq!(world.names(), ["s-0"]);
}

#[test]
fn a_pod_that_dies_restarts_in_place_after_waits_that_grow() {
    let mut world = World::new(1);
    world.make("StatefulSet", stateful_set(|spec| spec["replicas"] = json!(1)));
    world.pass(30);
    let (ip, mut waits) = (world.get("Pod", "s-0")["status"]["podIP"].clone(), Vec::new());
    for _ in 0..4 {
        let started = world.toy.0.lock().unwrap().launches.len();
        world.kube.kill_process("default", "s-0");
        let mut waited = 0;
        while world.toy.0.lock().unwrap().launches.len() == started {
            world.pass(1);
            waited += 1;
        }
        waits.push(waited);
    }
    assert_eq!(waits, [1, 10, 20, 40]);
    let status = world.get("Pod", "s-0")["status"].clone();
    assert_eq!(status["podIP"], ip);
    let container = &status["containerStatuses"][0];
    assert_eq!(
        (
            &container["restartCount"],
            &container["lastState"]["terminated"]["exitCode"]
        ),
        (&json!(4), &json!(137))
    );
    assert_eq!(world.toy.0.lock().unwrap().launches.last().unwrap().restarts, 4);
}

#[test]
fn a_process_that_ignores_its_end_is_killed_when_its_time_is_over() {
    let mut world = World::new(1);
    world.make("StatefulSet", stateful_set(|spec| spec["replicas"] = json!(1)));
    world.pass(30);
    world.toy.0.lock().unwrap().stubborn.insert("s-0".to_owned());
    let uid = world.get("Pod", "s-0")["metadata"]["uid"].clone();
    world.delete("Pod", "s-0", Value::Null);
    world.pass(29);
    assert_eq!(world.get("Pod", "s-0")["metadata"]["uid"], uid);
    world.pass(2);
    assert_ne!(world.get("Pod", "s-0")["metadata"]["uid"], uid);
}

#[test]
fn a_service_leads_to_ready_pods_or_to_all_where_it_says_so() {
    let mut world = World::new(1);
    world.toy.0.lock().unwrap().unready.insert("s-0".to_owned());
    for (name, published) in [("ready", false), ("all", true)] {
        world.make(
            "Service",
            json!({
                "metadata": {"name": name},
                "spec": {"selector": {"app": "a"}, "publishNotReadyAddresses": published,
                    "ports": [{"name": "redis", "port": 80, "targetPort": "redis"}]},
            }),
        );
    }
    world.make(
        "StatefulSet",
        stateful_set(|spec| spec["podManagementPolicy"] = json!("Parallel")),
    );
    world.pass(30);
    assert_eq!(world.kube.endpoints("default", "ready").len(), 2);
    assert_eq!(world.kube.endpoints("default", "all").len(), 3);
    let address = text(&world.get("Service", "ready"), "/spec/clusterIP").parse().unwrap();
    assert_eq!(world.kube.behind(address, 80), world.kube.endpoints("default", "ready"));
    assert!(world.kube.behind(address, 81).is_empty());
    assert_eq!(world.kube.endpoints("default", "all")[0].1, 6379);
    world.toy.0.lock().unwrap().unready.clear();
    world.pass(10);
    assert_eq!(world.kube.endpoints("default", "ready").len(), 3);
}

#[test]
fn an_autoscaler_keeps_to_its_bounds() {
    let mut world = World::new(1);
    world.make("Deployment", deployment());
    world.make("HorizontalPodAutoscaler", json!({
        "metadata": {"name": "h"},
        "spec": {"minReplicas": 2, "maxReplicas": 4, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}},
    }));
    world.pass(30);
    for (wish, gets) in [(9, 4), (1, 2), (3, 3)] {
        world.kube.hpa_wish("default", "h", wish);
        world.pass(60);
        assert_eq!(world.ready(), gets);
        assert_eq!(
            number(&world.get("HorizontalPodAutoscaler", "h"), "/status/currentReplicas"),
            Some(gets as i64)
        );
    }
}

#[test]
fn the_same_seed_twice_makes_the_same_objects_to_the_byte_and_another_one_others() {
    let run = |seed: u64| {
        let mut world = World::new(seed);
        world.make("Deployment", deployment());
        world.make("StatefulSet", stateful_set(|_| ()));
        world.pass(40);
        world.kube.node_down("n2", true);
        world.pass(400);
        world.kube.node_down("n2", false);
        world.pass(60);
        json!(world.api.snapshot()).to_string()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn nothing_is_due_between_the_times_that_are_told() {
    let mut world = World::new(1);
    world.make("StatefulSet", stateful_set(|_| ()));
    for _ in 0..200 {
        let now = world.now();
        let next = world.kube.step(now).unwrap();
        let version = world.api.version();
        let before = after_millis(next, -1);
        if before > now {
            *world.now.lock().unwrap() = before;
            assert_eq!(world.kube.step(before), Some(next));
            assert_eq!(world.api.version(), version);
        }
        *world.now.lock().unwrap() = next;
    }
}

#[test]
fn pods_that_must_be_apart_are_on_different_nodes_and_one_too_many_waits() {
    let mut world = World::new(1);
    world.make(
        "StatefulSet",
        stateful_set(|spec| {
            (spec["replicas"], spec["podManagementPolicy"]) = (json!(5), json!("Parallel"));
            let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}});
            spec["template"]["spec"]["affinity"] =
                json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        }),
    );
    world.pass(30);
    let pods = world.pods();
    let nodes: BTreeMap<&str, &Value> = pods.iter().map(|pod| (text(pod, "/spec/nodeName"), pod)).collect();
    assert_eq!(nodes.len(), 5);
    let waiting = list(nodes[""], "/status/conditions");
    assert_eq!(waiting[0]["reason"], "Unschedulable");
}
