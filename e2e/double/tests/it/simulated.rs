//! A product on made-up machines, in virtual time and in one thread: nothing here opens a socket or a file.

mod machines;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use codis_double::config::{DashboardConfig, ProxyConfig};
use codis_double::host::{self, Host};
use codis_double::redis::Connection;
use codis_double::rpc::Rpc;
use codis_double::simulated::coordinator::{self, Nodes};
use codis_double::store::Coordinator;
use codis_double::timings::Timings;
use codis_double::{dashboard, fe, proxy};
use serde_json::{Value, json};

use super::support::say;
use machines::{Machine, World, redis};

const DASHBOARD: &str = "10.0.0.1:18080";
const ETCD: &str = "10.0.0.5:2379";
const PROXIES: [&str; 2] = ["10.0.0.2", "10.0.0.3"];
const SERVERS: [&str; 2] = ["10.0.1.1", "10.0.1.2"];
/// The credential of product demo.
const X: &str = "c32db19baf104a834a2d07a99c55a19a";

async fn start_dashboard(machine: &Arc<Machine>, remove_lock: bool) -> dashboard::Handle {
    let config = DashboardConfig {
        coordinator_addr: "/codis".into(),
        admin_addr: DASHBOARD.into(),
        product_name: "demo".into(),
        ..Default::default()
    };
    let options = dashboard::Options {
        config,
        remove_lock,
        ..Default::default()
    };
    machine.run(dashboard::start(options)).await.unwrap()
}

async fn start_proxy(world: &Arc<World>, ip: &'static str) -> Arc<Machine> {
    let machine = Machine::new(world, ip);
    let config = ProxyConfig {
        admin_addr: format!("{ip}:11080"),
        proxy_addr: format!("{ip}:19000"),
        product_name: "demo".into(),
        ..Default::default()
    };
    let options = proxy::Options {
        config,
        dashboard: Some(DASHBOARD.into()),
        ..Default::default()
    };
    let started = machine.run(proxy::start(options)).await.unwrap();
    assert_eq!(
        started.model.sys,
        format!("Linux machine-{ip} made-up x86_64 GNU/Linux")
    );
    machine
}

async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Somebody who asks and tells.
struct Operator(Rpc);

impl Operator {
    async fn put(&self, path: &str) {
        self.0.put(DASHBOARD, &format!("/api/topom/{path}")).await.unwrap();
    }

    async fn topom(&self) -> Result<Value, String> {
        let told = self.0.get::<Value>(DASHBOARD, "/topom").await;
        told.map(|told| told["stats"].clone()).map_err(|error| error.0)
    }

    async fn bootstrap(&self) {
        for (server, gid) in SERVERS.iter().zip(1..) {
            self.put(&format!("group/create/{X}/{gid}")).await;
            self.put(&format!("group/add/{X}/{gid}/{server}:6379")).await;
        }
        let slots: Vec<_> = (0..1024)
            .map(|id| json!({"id": id, "group_id": 1 + id / 512}))
            .collect();
        let path = format!("/api/topom/slots/assign/{X}");
        self.0.put_json(DASHBOARD, &path, &slots).await.unwrap();
    }
}

async fn client(ip: &str) -> Connection {
    let addr = format!("{ip}:19000");
    Connection::open(&addr, "", Duration::from_secs(5)).await.unwrap()
}

/// All of it; the answer is every connection that was tried, and when.
async fn scenario() -> Vec<String> {
    let world = World::new();
    for ip in SERVERS {
        redis(&world, ip).await;
    }
    let machine = Machine::new(&world, "10.0.0.1");
    start_dashboard(&machine, false).await;
    let mut proxies = Vec::new();
    for ip in PROXIES {
        proxies.push(start_proxy(&world, ip).await);
    }
    let operator = Machine::new(&world, "10.0.0.9");
    operator
        .run(async move {
            let operator = Operator(Rpc::new(&Timings::default()));
            sleep(2).await;
            operator.bootstrap().await;
            commands_pass().await;
            a_frozen_proxy_answers_later(&operator, &proxies[0]).await;
            a_killed_dashboard_leaves_its_lock(&operator, machine).await;
        })
        .await;
    world.trace()
}

async fn commands_pass() {
    let (mut one, mut other) = (client(PROXIES[0]).await, client(PROXIES[1]).await);
    for key in ["a", "b", "c", "foo", "bar"] {
        assert_eq!(say(&mut one, &format!("SET {key} {key}!")).await, "OK");
        assert_eq!(say(&mut other, &format!("GET {key}")).await, format!("{key}!"));
    }
}

async fn a_frozen_proxy_answers_later(operator: &Operator, proxy: &Machine) {
    let mut client = client(PROXIES[0]).await;
    proxy.tasks().freeze(true);
    let late = say(&mut client, "GET a").await;
    assert!(late.ends_with("10.0.0.2:19000: i/o timeout"), "{late}");
    let looks = operator.topom().await.unwrap()["proxy"]["stats"].clone();
    let silent = looks
        .as_object()
        .unwrap()
        .values()
        .filter(|look| look["timeout"] == true);
    assert_eq!(silent.count(), 1);
    proxy.tasks().freeze(false);
    assert_eq!(client.reply().await.unwrap().text(), Some("a!".into()));
}

async fn a_killed_dashboard_leaves_its_lock(operator: &Operator, machine: Arc<Machine>) {
    machine.tasks().kill();
    let gone = operator.topom().await.unwrap_err();
    assert_eq!(gone, format!("dial tcp {DASHBOARD}: connect: connection refused"));
    let machine = machine.again();
    start_dashboard(&machine, false).await;
    sleep(5).await;
    assert_eq!(operator.topom().await, Err("[Remote Error] topom is not online".into()));
    machine.tasks().kill();
    sleep(1).await;
    start_dashboard(&machine.again(), true).await;
    sleep(2).await;
    let stats = operator.topom().await.unwrap();
    let slots = stats["slots"].as_array().unwrap();
    assert_eq!(slots.iter().filter(|slot| slot["group_id"] == 2).count(), 512);
    let looks = stats["proxy"]["stats"].as_object().unwrap();
    assert!(looks.len() == 2 && looks.values().all(|look| look["stats"]["online"] == true));
}

#[tokio::test(start_paused = true)]
async fn a_product_lives_on_made_up_machines() {
    scenario().await;
}

#[test]
fn the_same_happens_twice() {
    let run = || {
        // Without a driver for sockets, and with another seed each time.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(scenario())
    };
    let trace = run();
    assert!(trace.len() > 50, "{trace:#?}");
    assert_eq!(trace, run());
}

#[tokio::test(start_paused = true)]
async fn a_made_up_host_knows_its_own_names_and_opens_no_real_socket() {
    let asked = async {
        let unknown = Connection::open("nowhere:1", "", Duration::from_secs(1)).await.err();
        let etcd = Coordinator::open("etcd", ETCD, "").unwrap();
        (
            unknown.map(|error| error.0),
            etcd.products().await.map_err(|error| error.kind()),
        )
    };
    let (unknown, etcd) = Machine::new(&World::new(), "10.0.0.9").run(asked).await;
    assert_eq!(unknown, Some("dial tcp: lookup nowhere: no such host".into()));
    assert_eq!(etcd, Err(ErrorKind::ConnectionRefused));
}

/// A coordinator outside of all dashboards.
fn start_coordinator(world: &Arc<World>, nodes: &Nodes) -> Arc<Machine> {
    let (machine, nodes) = (Machine::new(world, "10.0.0.5"), nodes.clone());
    host::within(machine.clone(), async move { coordinator::serve(nodes, ETCD).await });
    machine
}

async fn start_dashboard_outside(machine: &Arc<Machine>, addr: &str, remove_lock: bool) -> dashboard::Handle {
    let config = DashboardConfig {
        coordinator_name: "etcd".into(),
        coordinator_addr: ETCD.into(),
        admin_addr: addr.into(),
        product_name: "demo".into(),
        ..Default::default()
    };
    let options = dashboard::Options {
        config,
        remove_lock,
        ..Default::default()
    };
    machine.run(dashboard::start(options)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_lock_outside_keeps_a_dashboard_on_another_machine_out_until_it_is_broken() {
    let (world, nodes) = (World::new(), Nodes::default());
    start_coordinator(&world, &nodes);
    let (one, other) = (Machine::new(&world, "10.0.0.1"), Machine::new(&world, "10.0.0.2"));
    let holder = start_dashboard_outside(&one, DASHBOARD, false).await;
    sleep(1).await;
    assert!(holder.view.is_online());
    let waiting = start_dashboard_outside(&other, "10.0.0.2:18080", false).await;
    assert!(waiting.wait().await.is_err(), "the lock is taken");
    let second = start_dashboard_outside(&other.again(), "10.0.0.2:18081", true).await;
    sleep(1).await;
    assert!(
        holder.view.is_online() && second.view.is_online(),
        "nobody is safe from --remove-lock"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_coordinator_outside_has_outlives_its_process() {
    let (world, nodes) = (World::new(), Nodes::default());
    let process = start_coordinator(&world, &nodes);
    let dashboard = start_dashboard_outside(&Machine::new(&world, "10.0.0.1"), DASHBOARD, false).await;
    let operator = Machine::new(&world, "10.0.0.9");
    let create = |gid: i64| {
        let path = format!("/api/topom/group/create/{X}/{gid}");
        operator.run(async move { Rpc::new(&Timings::default()).put(DASHBOARD, &path).await })
    };
    sleep(1).await;
    create(1).await.unwrap();
    process.tasks().kill();
    sleep(1).await;
    assert_eq!(
        create(2).await.unwrap_err().0,
        "[Remote Error] store: create group-[2] failed"
    );
    start_coordinator(&world, &nodes);
    sleep(1).await;
    create(3).await.unwrap();
    assert_eq!(nodes.names("/codis3/demo/group"), ["group-0001", "group-0003"]);
    nodes.wipe();
    create(4).await.unwrap();
    assert_eq!(
        nodes.names("/codis3/demo"),
        ["group"],
        "the lock is gone, and nobody noticed"
    );
    assert!(dashboard.view.is_online());
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_of_a_slow_coordinator_is_done_although_nobody_waits_for_it() {
    let (world, nodes) = (World::new(), Nodes::default());
    start_coordinator(&world, &nodes);
    nodes.set_slow(Some(Duration::from_secs(6)));
    let lend = async {
        let coordinator = Coordinator::open("etcd", ETCD, "").unwrap();
        let lent = coordinator
            .lend("/jodis/demo/one", b"here", Duration::from_secs(20))
            .await;
        lent.map_err(|error| error.kind())
    };
    let lent = Machine::new(&world, "10.0.0.9").run(lend).await;
    assert_eq!(lent, Err(ErrorKind::TimedOut));
    assert_eq!(nodes.read("/jodis/demo/one"), None);
    sleep(2).await;
    assert_eq!(nodes.read("/jodis/demo/one"), Some("here".into()));
    sleep(20).await;
    assert_eq!(nodes.read("/jodis/demo/one"), None, "nobody renewed it");
}

#[tokio::test(start_paused = true)]
async fn fe_finds_a_dashboard_in_the_files_of_its_host() {
    let world = World::new();
    let machine = Machine::new(&world, "10.0.0.1");
    start_dashboard(&machine, false).await;
    machine.files().write("/assets/index.html", b"hello").unwrap();
    let options = fe::Options {
        listen: "10.0.0.1:80".into(),
        assets: "/assets".into(),
        discovery: fe::Discovery::Store(Coordinator::open("filesystem", "/codis", "").unwrap()),
    };
    machine.run(fe::start(options)).await.unwrap();
    let asked = async {
        assert_eq!(host::current().unwrap().name(), "machine-10.0.0.9");
        let rpc = Rpc::new(&Timings::default());
        let list: Vec<String> = rpc.get("10.0.0.1:80", "/list").await.unwrap();
        let model: Value = rpc.get("10.0.0.1:80", "/topom/model?forward=demo").await.unwrap();
        (list, model["admin_addr"].clone())
    };
    let told = Machine::new(&world, "10.0.0.9").run(asked).await;
    assert_eq!(told, (vec!["demo".to_string()], json!(DASHBOARD)));
}
