//! The same product on a folder, on etcd and on zookeeper.

use std::time::{Duration, Instant};

use codis_double::{dashboard, proxy};
use serde_json::{Value, json};
use zookeeper_client::Client;

use crate::coordinator::{Coordinator, Kind};
use crate::programs::{get, program, run, terminate};
use crate::support::{Folder, Process, World, X, free_port, proxy_options, redis_is_here, until, until_within};

/// Moves and thousand-fold writes on a busy machine.
const LONG: Duration = Duration::from_secs(120);

impl World {
    /// What is known of the product, but for what changes by itself.
    async fn topology(&self) -> Value {
        let stats = self.stats().await;
        json!([
            stats["slots"],
            stats["group"]["models"],
            stats["proxy"]["models"],
            stats["sentinels"]["model"]
        ])
    }

    /// The second dashboard of a product.
    async fn rival(&self) -> dashboard::Handle {
        dashboard::start(self.options.clone()).await.unwrap()
    }
}

impl Coordinator {
    async fn holds(&self, path: &str, value: &Value) {
        let text = self.text(path).await.unwrap_or_default();
        let indented = codis_double::http::pretty(value).unwrap();
        let (text, indented): (Value, Value) = (
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{:?} {path}: {text:?}", self.kind)),
            serde_json::from_slice(&indented).unwrap(),
        );
        assert_eq!(text, indented, "{:?} {path}", self.kind);
    }

    async fn is_locked(&self) -> bool {
        self.text("/codis3/demo/topom").await.is_some()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrapped_product_is_stored_as_codis_stores_it_and_found_again() {
    if !redis_is_here() {
        return;
    }
    for kind in Kind::all() {
        let coordinator = Coordinator::start(kind).await;
        let mut world = coordinator.world().await;
        world.bootstrap().await;
        world.ok(&format!("sentinels/resync-all/{X}")).await;

        let known = world.topology().await;
        coordinator
            .holds("/codis3/demo/topom", &world.get("/topom/model").await.1)
            .await;
        coordinator.holds("/codis3/demo/group/group-0001", &known[1][0]).await;
        coordinator.holds("/codis3/demo/group/group-0002", &known[1][1]).await;
        for proxy in known[2].as_array().unwrap() {
            let path = format!("/codis3/demo/proxy/proxy-{}", proxy["token"].as_str().unwrap());
            coordinator.holds(&path, proxy).await;
        }
        for sid in [0, 511, 512, 1023] {
            let path = format!("/codis3/demo/slots/slot-{sid:04}");
            coordinator.holds(&path, &known[0][sid]).await;
        }
        assert_eq!(
            coordinator.text("/codis3/demo/slots/slot-1023").await.unwrap(),
            "{\n    \"id\": 1023,\n    \"group_id\": 2,\n    \"action\": {}\n}",
            "{kind:?}: indented by four, in the order of Codis"
        );
        assert_eq!(
            coordinator.text("/codis3/demo/sentinel").await.unwrap(),
            "{\n    \"out_of_sync\": false\n}",
            "{kind:?}"
        );

        for kill in [false, true] {
            world.restart_dashboard(kill).await;
            assert_eq!(world.topology().await, known, "{kind:?}, killed = {kill}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_and_groups_go_on_every_store() {
    if !redis_is_here() {
        return;
    }
    for kind in Kind::all() {
        let coordinator = Coordinator::start(kind).await;
        let mut world = coordinator.world().await;
        world.bootstrap().await;
        world.ok(&format!("slots/action/create-range/{X}/0/30/2")).await;
        until_within(LONG, "the slots have moved", || async {
            let slots = world.stats().await["slots"].clone();
            (0..31).all(|sid| slots[sid] == json!({"id": sid, "group_id": 2, "action": {}}))
        })
        .await;
        world.ok(&format!("group/del/{X}/1/{}", world.server(1))).await;
        world.ok(&format!("group/create/{X}/7")).await;
        world.ok(&format!("group/remove/{X}/7")).await;
        assert_eq!(
            coordinator.text("/codis3/demo/group/group-0007").await,
            None,
            "{kind:?}"
        );
        let known = world.topology().await;
        world.restart_dashboard(false).await;
        assert_eq!(world.topology().await, known, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dashboard_holds_the_lock_until_it_ends_cleanly() {
    for kind in Kind::all() {
        let coordinator = Coordinator::start(kind).await;
        let mut world = coordinator.world().await;
        let rival = world.rival().await;
        let waiting = world
            .send("GET", &rival.addr.to_string(), "/topom", String::new())
            .await;
        assert_eq!(
            (waiting.0, &waiting.1["Cause"]),
            (800, &json!("topom is not online")),
            "{kind:?}"
        );
        let gave_up = rival.wait().await.unwrap_err();
        assert_eq!(
            gave_up.to_string(),
            "dashboard online failed, give up & abort",
            "{kind:?}"
        );

        let first = world.dashboard.take().unwrap();
        first.kill();
        first.wait().await.unwrap_err();
        assert!(
            coordinator.is_locked().await,
            "{kind:?}: a killed dashboard's lock stays"
        );
        world.rival().await.wait().await.unwrap_err();
        let mut options = world.options.clone();
        options.remove_lock = true;
        let second = dashboard::start(options).await.unwrap();
        let addr = second.addr.to_string();
        until("the one that removes the lock is online", || async {
            world.send("GET", &addr, "/topom", String::new()).await.0 == 200
        })
        .await;
        second.shutdown();
        second.wait().await.unwrap();
        assert!(
            !coordinator.is_locked().await,
            "{kind:?}: a clean end releases the lock"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dashboard_outlives_its_coordinator_and_nothing_is_lost() {
    for kind in Kind::servers() {
        let mut coordinator = Coordinator::start(kind).await;
        let mut world = coordinator.world().await;
        world.ok(&format!("group/create/{X}/1")).await;
        coordinator.kill();
        assert_eq!(
            world.refused(&format!("group/create/{X}/2")).await,
            "store: create group-[2] failed",
            "{kind:?}"
        );
        assert_eq!(
            world.groups().await.as_array().unwrap().len(),
            1,
            "{kind:?}: reads go on"
        );

        coordinator.restart().await;
        until("writes are done again", || async {
            world.put(&format!("group/create/{X}/2")).await.0 == 200
        })
        .await;
        assert!(coordinator.is_locked().await, "{kind:?}: the lock was not lost");
        let known = world.topology().await;
        assert_eq!(known[1].as_array().unwrap().len(), 2, "{kind:?}");
        world.restart_dashboard(false).await;
        assert_eq!(world.topology().await, known, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_hangs_fails_writes_in_time_and_reads_go_on() {
    for kind in Kind::servers() {
        let coordinator = Coordinator::start(kind).await;
        let mut world = coordinator.world().await;
        coordinator.freeze();
        let begun = Instant::now();
        assert_eq!(
            world.refused(&format!("group/create/{X}/1")).await,
            "store: create group-[1] failed",
            "{kind:?}"
        );
        assert_eq!(world.get("/topom").await.0, 200, "{kind:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(25),
            "{kind:?}: {:?}",
            begun.elapsed()
        );

        coordinator.thaw();
        // The failed write may have been done after all; the dashboard has to find out.
        until("the group is known, whoever made it", || async {
            world.put(&format!("group/create/{X}/1")).await;
            world.groups().await[0]["id"] == 1
        })
        .await;
        world.ok(&format!("group/create/{X}/2")).await;
        let known = world.topology().await;
        world.restart_dashboard(false).await;
        assert_eq!(world.topology().await, known, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dashboard_ends_cleanly_without_its_coordinator() {
    for kind in Kind::servers() {
        let mut coordinator = Coordinator::start(kind).await;
        let mut world = coordinator.world().await;
        coordinator.kill();
        let dashboard = world.dashboard.take().unwrap();
        dashboard.shutdown();
        dashboard.wait().await.unwrap();
        coordinator.restart().await;
        assert!(
            coordinator.is_locked().await,
            "{kind:?}: the lock could not be released"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_finds_its_dashboard_by_the_lock() {
    for kind in Kind::all() {
        let coordinator = Coordinator::start(kind).await;
        let store = codis_double::store::Coordinator::open(kind.name(), &coordinator.addr, "").unwrap();
        let mut options = proxy_options();
        options.timings.register_tries = 1000;
        options.store = Some(store.product("demo"));
        let proxy = proxy::start(options.clone()).await.unwrap();
        let world = coordinator.world().await;
        until("the proxy has registered itself", || async {
            let models = world.stats().await["proxy"]["models"].clone();
            models[0]["token"] == json!(proxy.model.token)
        })
        .await;

        options.timings.register_tries = 2;
        options.store = Some(store.product("other"));
        let lost = proxy::start(options).await.unwrap();
        assert_eq!(
            lost.wait().await.unwrap_err().to_string(),
            "online proxy failed",
            "{kind:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dashboard_waits_for_an_unreachable_coordinator_and_gives_up() {
    for kind in Kind::servers() {
        let mut coordinator = Coordinator::start(kind).await;
        coordinator.kill();
        let lonely = dashboard::start(coordinator.options()).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let told = http.get(format!("http://{}/topom", lonely.addr)).send().await.unwrap();
        assert_eq!(told.status().as_u16(), 800, "{kind:?}: the port is open");
        assert!(told.text().await.unwrap().contains("topom is not online"), "{kind:?}");
        let gave_up = lonely.wait().await.unwrap_err();
        assert_eq!(
            gave_up.to_string(),
            "dashboard online failed, give up & abort",
            "{kind:?}"
        );

        let mut patient = coordinator.options();
        patient.timings.lock_tries = 1000;
        let patient = dashboard::start(patient).await.unwrap();
        coordinator.restart().await;
        until("the patient one takes the lock", || coordinator.is_locked()).await;
        patient.shutdown();
        patient.wait().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_servers_may_hold_some_that_are_down() {
    for kind in Kind::servers() {
        let coordinator = Coordinator::start(kind).await;
        let mut options = coordinator.options();
        options.config.coordinator_addr = format!("127.0.0.1:{},{}", free_port(), coordinator.addr);
        let world = World::with(options, Folder::new()).await;
        world.ok(&format!("group/create/{X}/1")).await;
        assert!(
            coordinator.text("/codis3/demo/group/group-0001").await.is_some(),
            "{kind:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_zookeeper_are_for_those_who_know_the_password() {
    if !Kind::Zookeeper.is_here() {
        return;
    }
    let coordinator = Coordinator::start(Kind::Zookeeper).await;
    let mut options = coordinator.options();
    options.config.coordinator_auth = "codis:secret".into();
    let mut world = World::with(options, Folder::new()).await;
    world.ok(&format!("group/create/{X}/1")).await;

    let path = "/codis3/demo/group/group-0001";
    assert_eq!(coordinator.text(path).await, None, "not for a stranger");
    let friend = Client::connector().with_auth("digest", b"codis:secret");
    let friend = friend.connect(&coordinator.addr).await.unwrap();
    assert!(friend.get_data(path).await.is_ok());
    let (acl, _) = friend.get_acl(path).await.unwrap();
    assert_eq!(acl.len(), 1);
    assert!(format!("{acl:?}").contains("digest"), "{acl:?}");

    let folder = Folder::new();
    for (auth, there) in [("codis:secret", true), ("codis:wrong", false)] {
        let auth = format!("--zookeeper-auth={auth}");
        let listed = run(
            &folder,
            "codis-admin",
            &["--dashboard-list", &coordinator.flag(), &auth],
        );
        assert_eq!(listed.status.success(), there, "{listed:?}");
    }

    let known = world.topology().await;
    world.restart_dashboard(false).await;
    assert_eq!(world.topology().await, known);
    world.options.config.coordinator_auth = "codis:wrong".into();
    world.rival().await.wait().await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_told_user_and_password() {
    if !Kind::Etcd.is_here() {
        return;
    }
    let coordinator = Coordinator::start(Kind::Etcd).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let put = |path: &str, body: Value| {
        http.put(format!("http://{}/v2/auth/{path}", coordinator.addr))
            .json(&body)
    };
    let root = json!({"user": "root", "password": "secret"});
    assert!(put("users/root", root).send().await.unwrap().status().is_success());
    assert!(put("enable", json!({})).send().await.unwrap().status().is_success());
    let guest = json!({"role": "guest", "revoke": {"kv": {"read": ["/*"], "write": ["/*"]}}});
    let revoked = put("roles/guest", guest)
        .basic_auth("root", Some("secret"))
        .send()
        .await;
    assert!(revoked.unwrap().status().is_success());

    let mut options = coordinator.options();
    options.config.coordinator_auth = "root:secret".into();
    let world = World::with(options.clone(), Folder::new()).await;
    world.ok(&format!("group/create/{X}/1")).await;
    for wrong in ["", "root:wrong"] {
        options.config.coordinator_auth = wrong.into();
        let stranger = dashboard::start(options.clone()).await.unwrap();
        stranger.wait().await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_programs_find_a_product_on_every_store() {
    for kind in Kind::all() {
        let coordinator = Coordinator::start(kind).await;
        let (folder, flag) = (Folder::new(), coordinator.flag());
        let (port, fe) = (free_port(), free_port());
        let toml = folder.file("dashboard.toml", &format!("admin_addr = \"127.0.0.1:{port}\"\n"));
        let dashboard = || {
            Process::spawn(
                program(&folder, "codis-dashboard")
                    .args(["-c", &toml, &flag, "--product_name=demo", "--remove-lock"])
                    .stderr(std::process::Stdio::null()),
            )
        };
        let is_online = || async { get(port, "/topom").await.is_some_and(|(status, _)| status == 200) };
        let mut first = dashboard();
        until("the dashboard is online", is_online).await;

        folder.file("index.html", "<p>fe");
        let (assets, listen) = (folder.0.display().to_string(), format!("127.0.0.1:{fe}"));
        let _fe = Process::spawn(
            program(&folder, "codis-fe")
                .args([&flag, "--assets", &assets, "--listen", &listen])
                .stderr(std::process::Stdio::null()),
        );
        until("the fe lists the product", || async {
            get(fe, "/list")
                .await
                .is_some_and(|(_, text)| text == "[\n    \"demo\"\n]")
        })
        .await;
        let forwarded = get(fe, "/topom/model?forward=demo").await.unwrap();
        assert!(
            forwarded.0 == 200 && forwarded.1.contains("demo"),
            "{kind:?}: {forwarded:?}"
        );

        let admin = |args: &[&str]| {
            let output = run(&folder, "codis-admin", args);
            assert!(output.status.success(), "{kind:?} {args:?}: {output:?}");
            serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
        };
        let at = format!("--dashboard=127.0.0.1:{port}");
        admin(&[&at, "--create-group", "--gid=3"]);
        first.kill();
        let listed = admin(&["--dashboard-list", &flag]);
        assert_eq!(listed[0]["name"], "demo", "{kind:?}: the lock outlives a kill");
        for _ in 0..2 {
            admin(&["--remove-lock", "--product=demo", &flag]);
        }
        assert!(!coordinator.is_locked().await, "{kind:?}");
        let listed = String::from_utf8(run(&folder, "codis-admin", &["--dashboard-list", &flag]).stdout).unwrap();
        let unheld = "[\n    {\n        \"name\": \"demo\",\n        \"dashboard\": \"\"\n    }\n]";
        assert_eq!(listed.trim(), unheld, "{kind:?}: a product without a lock stays listed");
        let unknown = run(&folder, "codis-admin", &["--config-dump", "--product=nobody", &flag]);
        assert_eq!(unknown.status.code(), Some(1), "{kind:?}");
        assert!(
            String::from_utf8_lossy(&unknown.stderr).contains("cann't find product = nobody [v3]"),
            "{kind:?}: {unknown:?}"
        );

        let dumped = run(&folder, "codis-admin", &["--config-dump", "--product=demo", &flag]);
        let dump = folder.file("dump.json", &String::from_utf8(dumped.stdout).unwrap());
        let restore = format!("--config-restore={dump}");
        let refused = run(
            &folder,
            "codis-admin",
            &[&restore, "--product=demo", &flag, "--confirm"],
        );
        assert_eq!(refused.status.code(), Some(1), "{kind:?}: the product isn't empty");
        admin(&[&restore, "--product=copy", &flag, "--confirm"]);
        assert_eq!(
            coordinator.text("/codis3/copy/group/group-0003").await,
            coordinator.text("/codis3/demo/group/group-0003").await,
            "{kind:?}"
        );

        let mut second = dashboard();
        until("the dashboard is online again", is_online).await;
        assert_eq!(terminate(&mut second), Some(0), "{kind:?}");
        assert!(!coordinator.is_locked().await, "{kind:?}: SIGTERM releases the lock");
    }
}
