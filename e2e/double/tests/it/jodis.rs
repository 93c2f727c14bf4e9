//! The node that tells clients of a proxy: on etcd and zookeeper, in step with the proxy's life.

use std::process::Stdio;
use std::time::Duration;

use codis_double::proxy;
use codis_double::scalar::Span;
use serde_json::{Value, json};

use crate::coordinator::{Coordinator, Kind};
use crate::programs::{get, program, terminate};
use crate::support::{Folder, Process, World, X, free_port, proxy_options, until};

fn options(coordinator: &Coordinator) -> proxy::Options {
    let mut options = proxy_options();
    options.config.jodis_name = coordinator.kind.name().into();
    options.config.jodis_addr.clone_from(&coordinator.addr);
    options.config.jodis_timeout = Span(Duration::from_secs(2));
    options.timings.jodis_pause = Duration::from_millis(100);
    options
}

impl Coordinator {
    async fn has(&self, path: &str) -> bool {
        self.text(path).await.is_some()
    }

    async fn gets(&self, path: &str) {
        until("the node is there", || self.has(path)).await;
    }

    async fn loses(&self, path: &str) {
        until("the node is gone", || async { !self.has(path).await }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_has_a_node_while_it_is_online() {
    for kind in Kind::servers() {
        let (coordinator, world) = (Coordinator::start(kind).await, World::empty().await);
        let proxy = proxy::start(options(&coordinator)).await.unwrap();
        let path = format!("/jodis/demo/proxy-{}", proxy.model.token);
        assert_eq!(proxy.model.jodis_path, path);
        assert!(!coordinator.has(&path).await, "{kind:?}: not while it waits");

        world.ok(&format!("proxy/online/{X}/{}", proxy.admin_addr)).await;
        coordinator.gets(&path).await;
        let told: Value = serde_json::from_str(&coordinator.text(&path).await.unwrap()).unwrap();
        let expected = json!({
            "addr": proxy.model.proxy_addr,
            "admin": proxy.model.admin_addr,
            "start": proxy.model.start_time,
            "state": "online",
            "token": proxy.model.token,
        });
        assert_eq!(told, expected, "{kind:?}");
        let models = world.stats().await["proxy"]["models"].clone();
        assert_eq!(models[0]["jodis_path"], json!(path), "{kind:?}: the dashboard knows it");

        proxy.shutdown();
        proxy.wait().await.unwrap();
        assert!(!coordinator.has(&path).await, "{kind:?}: a clean end deletes it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_compatible_path_is_that_of_codis_2() {
    for kind in Kind::servers() {
        let mut coordinator = Coordinator::start(kind).await;
        let mut options = options(&coordinator);
        options.config.jodis_compatible = true;
        options.slots = Some(Vec::new());
        coordinator.kill();
        let proxy = proxy::start(options).await.unwrap();
        let path = format!("/zk/codis/db_demo/proxy/{}", proxy.model.token);
        coordinator.restart().await;
        coordinator.gets(&path).await;
        proxy.shutdown();
        proxy.wait().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_outlives_its_lifetime_and_a_restart_of_the_coordinator() {
    for kind in Kind::servers() {
        let mut coordinator = Coordinator::start(kind).await;
        let mut options = options(&coordinator);
        options.slots = Some(Vec::new());
        let proxy = proxy::start(options).await.unwrap();
        let path = proxy.model.jodis_path.clone();
        coordinator.gets(&path).await;
        let (lifetime, begun) = (Duration::from_secs(5), std::time::Instant::now());
        until("two lifetimes have passed", || async {
            assert!(coordinator.has(&path).await, "{kind:?}: it is renewed");
            begun.elapsed() > lifetime
        })
        .await;

        coordinator.kill();
        coordinator.restart().await;
        coordinator.gets(&path).await;
        proxy.shutdown();
        proxy.wait().await.unwrap();
        coordinator.loses(&path).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_proxys_node_stays_until_it_expires() {
    for kind in Kind::servers() {
        let (coordinator, folder) = (Coordinator::start(kind).await, Folder::new());
        let (admin, clients) = (free_port(), free_port());
        let toml = format!(
            "product_name = \"demo\"\nadmin_addr = \"127.0.0.1:{admin}\"\nproxy_addr = \"127.0.0.1:{clients}\"\n\
             jodis_name = \"{}\"\njodis_addr = \"{}\"\njodis_timeout = \"3s\"\n",
            kind.name(),
            coordinator.addr
        );
        let (toml, slots) = (folder.file("proxy.toml", &toml), folder.file("slots.json", "[]"));
        let start = || {
            let mut command = program(&folder, "codis-proxy");
            Process::spawn(command.args(["-c", &toml, "--fillslots", &slots]).stderr(Stdio::null()))
        };
        let mut first = start();
        until("the proxy answers", || async {
            get(admin, "/proxy/model").await.is_some()
        })
        .await;
        let model: Value = serde_json::from_str(&get(admin, "/proxy/model").await.unwrap().1).unwrap();
        let path = model["jodis_path"].as_str().unwrap();
        coordinator.gets(path).await;
        let text = coordinator.text(path).await;

        first.kill();
        assert!(coordinator.has(path).await, "{kind:?}: right after the kill");
        let mut second = start();
        until("the restarted proxy has its own node", || async {
            let now = coordinator.text(path).await;
            now.is_some() && now != text
        })
        .await;
        second.kill();
        coordinator.loses(path).await;

        let mut third = start();
        coordinator.gets(path).await;
        assert_eq!(terminate(&mut third), Some(0), "{kind:?}");
        assert!(!coordinator.has(path).await, "{kind:?}: SIGTERM deletes it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_serves_without_a_node_that_cannot_be_made() {
    let folder = Coordinator::start(Kind::Filesystem).await;
    let mut options = options(&folder);
    options.slots = Some(Vec::new());
    let proxy = proxy::start(options.clone()).await.unwrap();
    let port = proxy.admin_addr.port();
    until("the proxy is online", || async {
        get(port, "/proxy/stats")
            .await
            .is_some_and(|(_, text)| text.contains("\"online\": true"))
    })
    .await;
    proxy.shutdown();
    proxy.wait().await.unwrap();

    options.config.jodis_name = "paper".into();
    let refused = proxy::start(options).await.unwrap_err();
    assert_eq!(refused.to_string(), "invalid coordinator name = paper");
}
