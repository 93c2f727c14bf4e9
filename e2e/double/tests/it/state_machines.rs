//! Promotion, sync actions, moves, the lock, and the dead proxy that blocks them all.

use std::time::Duration;

use codis_double::dashboard;
use serde_json::json;

use crate::support::{AUTH, Server, World, X, dashboard_options, proxy_options, redis_is_here, say, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_proxy_blocks_every_push_until_its_record_is_removed_by_force() {
    if !redis_is_here() {
        return;
    }
    let world = World::bootstrapped().await;
    world.lose_proxy(1).await;
    let token = &world.proxies[1].model.token;
    let blocked = format!("proxy-[{token}] resync slots failed");
    assert_eq!(world.refused(&format!("group/resync/{X}/1")).await, blocked);
    assert_eq!(
        world.refused(&format!("sentinels/resync-all/{X}")).await,
        format!("proxy-[{token}] sentinel failed")
    );
    assert_eq!(
        world.refused(&format!("proxy/reinit/{X}/{token}")).await,
        format!("proxy-[{token}] fillslots failed")
    );

    let assigned = world
        .put_body(&format!("slots/assign/{X}"), r#"[{"id": 0, "group_id": 2}]"#)
        .await;
    assert_eq!(
        (assigned.0, assigned.1["Cause"].as_str()),
        (800, Some(blocked.as_str()))
    );
    assert_eq!(
        world.stats().await["slots"][0]["group_id"],
        2,
        "the store has changed all the same"
    );

    world.ok(&format!("proxy/remove/{X}/{token}/1")).await;
    world.ok(&format!("group/resync-all/{X}")).await;
    assert!(
        world
            .groups()
            .await
            .as_array()
            .unwrap()
            .iter()
            .all(|group| group["out_of_sync"] == false)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_is_stuck_while_a_proxy_is_dead_and_goes_on_when_repeated() {
    if !redis_is_here() {
        return;
    }
    let world = World::bootstrapped().await;
    world.lose_proxy(1).await;
    let token = world.proxies[1].model.token.clone();
    let promote = format!("group/promote/{X}/2/{}", world.server(3));
    for _ in 0..2 {
        assert_eq!(
            world.refused(&promote).await,
            format!("proxy-[{token}] resync slots failed")
        );
        assert_eq!(
            world.groups().await[1]["promoting"],
            json!({"index": 1, "state": "preparing"})
        );
    }
    let other = world.refused(&format!("group/promote/{X}/2/{}", world.server(2))).await;
    assert_eq!(other, "group-[2] is promoting index = 1");
    let sync = world
        .refused(&format!("group/action/create/{X}/{}", world.server(3)))
        .await;
    assert_eq!(sync, "group-[2] is promoting");
    // The living proxy's clients are not kept waiting.
    assert_eq!(say(&mut world.client(0).await, "SET c 1").await, "OK");

    world.ok(&format!("proxy/remove/{X}/{token}/1")).await;
    world.ok(&promote).await;
    let group = world.groups().await[1].clone();
    assert_eq!(group["servers"][0]["server"], world.server(3));
    assert_eq!(group["servers"][1]["server"], world.server(2));
    assert_eq!(
        (&group["promoting"], &group["servers"][0]["action"]),
        (&json!({}), &json!({}))
    );
    assert_eq!(world.servers[3].info("role").await, "master");
    assert_eq!(
        world.servers[2].info("role").await,
        "master",
        "Codis leaves the old master as it is"
    );

    world.ok(&format!("group/action/create/{X}/{}", world.server(2))).await;
    until("the old master follows", || async { world.linked(2).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promotion_compares_no_offsets_and_takes_a_server_that_holds_nothing() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::bootstrapped().await;
    let mut client = world.client(0).await;
    // `a` is in slot 579, so in group 2.
    assert_eq!(say(&mut client, "SET a precious").await, "OK");
    world.servers.push(Server::redis(AUTH).await);
    world.ok(&format!("group/add/{X}/2/{}", world.server(4))).await;
    world.ok(&format!("group/promote/{X}/2/{}", world.server(4))).await;
    assert_eq!(
        say(&mut client, "GET a").await,
        "(nil)",
        "as with Codis, the write is lost"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_action_repoints_a_server_and_fails_when_it_is_dead() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::bootstrapped().await;
    assert_eq!(
        world.servers[1].info("master_port").await,
        world.server(0).rsplit(':').next().unwrap()
    );
    world.servers[3].kill();
    world.ok(&format!("group/action/create/{X}/{}", world.server(3))).await;
    until("the action has failed", || async {
        world.groups().await[1]["servers"][1]["action"] == json!({"state": "synced_failed"})
    })
    .await;
    world.ok(&format!("group/action/remove/{X}/{}", world.server(3))).await;
    assert_eq!(world.groups().await[1]["servers"][1]["action"], json!({}));
    until("the look says so", || async {
        let look = world.stats().await["group"]["stats"][world.server(3)].clone();
        look["error"]["Cause"] == format!("dial tcp {}: connect: connection refused", world.server(3))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_added_only_with_the_right_password() {
    if !redis_is_here() {
        return;
    }
    let world = World::empty().await;
    world.ok(&format!("group/create/{X}/1")).await;
    for (auth, cause) in [
        ("other", "ERR invalid password"),
        ("", "ERR Client sent AUTH, but no password is set"),
    ] {
        let server = Server::redis(auth).await;
        assert_eq!(world.refused(&format!("group/add/{X}/1/{}", server.addr)).await, cause);
    }
    let cause = world.refused(&format!("group/add/{X}/1/127.0.0.1")).await;
    assert_eq!(cause, "dial tcp: address 127.0.0.1: missing port in address");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebalance_moves_offline_slots_and_a_dead_proxy_holds_one_in_preparing() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::fresh().await;
    for gid in 1..=2 {
        world.servers.push(Server::redis(AUTH).await);
        world.ok(&format!("group/create/{X}/{gid}")).await;
        world
            .ok(&format!("group/add/{X}/{gid}/{}", world.server(gid - 1)))
            .await;
    }
    world.lose_proxy(1).await;
    world.ok(&format!("slots/action/create/{X}/5/1")).await;
    until("the slot is stuck", || async {
        world.stats().await["slots"][5]["action"] == json!({"index": 1, "state": "preparing", "target_id": 1})
    })
    .await;
    world
        .ok(&format!("proxy/remove/{X}/{}/1", world.proxies[1].model.token))
        .await;
    let (status, plan) = world.put(&format!("slots/rebalance/{X}/1")).await;
    assert_eq!(status, 200);
    assert!(plan["1023"] == 2 && plan["0"] == 1);
    until("every slot has arrived", || async {
        let slots = world.stats().await["slots"].clone();
        slots
            .as_array()
            .unwrap()
            .iter()
            .all(|slot| slot["group_id"] != 0 && slot["action"] == json!({}))
    })
    .await;
    let mut client = world.client(0).await;
    assert_eq!(say(&mut client, "SET a 1").await, "OK");
    assert_eq!(say(&mut client, "GET a").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_moves_are_told_and_a_range_is_queued_whole_or_not_at_all() {
    if !redis_is_here() {
        return;
    }
    let world = World::bootstrapped().await;
    world.ok(&format!("slots/action/disabled/{X}/1")).await;
    world.ok(&format!("slots/action/create-range/{X}/0/9/2")).await;
    world.ok(&format!("slots/assign/{X}/offline")).await;
    let slots = world.stats().await["slots"].clone();
    assert_eq!(
        slots[9],
        json!({"id": 9, "group_id": 1, "action": {"index": 10, "state": "pending", "target_id": 2}})
    );
    let cause = world.refused(&format!("slots/action/create-range/{X}/9/10/2")).await;
    assert_eq!(cause, "slot-[9] action already exists");
    assert_eq!(world.stats().await["slots"][10]["action"], json!({}), "all or nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_dashboard_leaves_its_lock_and_the_next_one_gives_up() {
    let mut world = World::empty().await;
    let first = world.dashboard.take().unwrap();
    first.kill();
    assert!(first.wait().await.is_err());
    let second = dashboard::start(dashboard_options(&world.store.0)).await.unwrap();
    let told = second.wait().await.unwrap_err().to_string();
    assert_eq!(told, "dashboard online failed, give up & abort");

    let options = dashboard::Options {
        remove_lock: true,
        ..dashboard_options(&world.store.0)
    };
    let third = dashboard::start(options).await.unwrap();
    world.addr = third.addr.to_string();
    until("the third is online", || async { world.get("/topom").await.0 == 200 }).await;
    world.ok(&format!("shutdown/{X}")).await;
    third.wait().await.unwrap();
    assert!(
        !world.store.0.join("data/codis3/demo/topom").exists(),
        "a clean end releases the lock"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dashboard_remembers_its_product_but_not_disabled() {
    let mut world = World::empty().await;
    world.ok(&format!("group/create/{X}/7")).await;
    world.ok(&format!("slots/action/disabled/{X}/1")).await;
    world.ok(&format!("slots/action/interval/{X}/2000000")).await;
    assert_eq!(world.stats().await["slot_action"]["interval"], 1_000_000);
    let first = world.dashboard.take().unwrap();
    first.shutdown();
    first.wait().await.unwrap();
    let second = dashboard::start(dashboard_options(&world.store.0)).await.unwrap();
    world.addr = second.addr.to_string();
    until("the second is online", || async { world.get("/topom").await.0 == 200 }).await;
    let stats = world.stats().await;
    assert_eq!(stats["group"]["models"][0]["id"], 7);
    assert_eq!(stats["slot_action"]["disabled"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_proxy_that_waits_is_brought_online_again() {
    let mut world = World::empty().await;
    let index = world.add_proxy().await;
    let model = world.proxies[index].model.clone();
    world.lose_proxy(index).await;
    let mut options = proxy_options();
    options.config.admin_addr = model.admin_addr.clone();
    options.config.proxy_addr = model.proxy_addr.clone();
    world.proxies[index] = codis_double::proxy::start(options).await.unwrap();
    until("it is online", || async {
        world.proxy_stats(index).await["online"] == true
    })
    .await;
    let models = world.stats().await["proxy"]["models"].clone();
    assert_eq!(
        (models[0]["id"].as_i64(), models.as_array().map(Vec::len)),
        (Some(1), Some(1))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_registers_itself_or_gives_up() {
    let world = World::empty().await;
    let mut options = proxy_options();
    options.dashboard = Some(world.addr.clone());
    let proxy = codis_double::proxy::start(options.clone()).await.unwrap();
    until("the dashboard has its record", || async {
        world.stats().await["proxy"]["models"][0]["token"] == proxy.model.token.as_str()
    })
    .await;
    proxy.shutdown();
    proxy.wait().await.unwrap();

    options.dashboard = Some(format!("127.0.0.1:{}", crate::support::free_port()));
    let lost = codis_double::proxy::start(options.clone()).await.unwrap();
    assert_eq!(lost.wait().await.unwrap_err().to_string(), "online proxy failed");
    options.dashboard = Some(world.addr.clone());
    options.config.product_name = "another".into();
    let stranger = codis_double::proxy::start(options).await.unwrap();
    assert!(
        stranger
            .wait()
            .await
            .unwrap_err()
            .to_string()
            .starts_with("unexcepted product name")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_conventions_of_http_hold() {
    let world = World::empty().await;
    for (method, path) in [
        ("POST", "/topom"),
        ("GET", "/nope"),
        ("PUT", "/topom"),
        ("GET", "/api/topom//stats"),
    ] {
        let (status, body) = world.send(method, &world.addr, path, String::new()).await;
        assert_eq!((status, body), (404, json!("404 page not found")), "{method} {path}");
    }
    assert_eq!(world.get("/topom/model/").await.0, 200);
    assert_eq!(world.get("/topom/model?forward=demo").await.0, 200);
    assert_eq!(
        world.send("HEAD", &world.addr, "/topom", String::new()).await,
        (200, json!(""))
    );
    let wrong = "00000000000000000000000000000000";
    let cause = world.refused(&format!("group/create/{wrong}/x")).await;
    assert_eq!(
        cause, "invalid xauth, please check product name & auth",
        "xauth before parameters"
    );
    assert_eq!(world.refused(&format!("group/create/{X}/x")).await, "invalid gid");
    assert_eq!(
        world.refused(&format!("group/create/{X}/0")).await,
        "invalid group id = 0, out of range"
    );
    assert_eq!(world.refused(&format!("loglevel/{X}/loud")).await, "invalid loglevel");
    assert_eq!(world.get("/topom").await.1["version"], "codis-double 3.2.2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_fails_writes_and_not_reads() {
    let world = World::empty().await;
    let lock = std::fs::File::options()
        .write(true)
        .open(world.store.0.join("data.lck"))
        .unwrap();
    until("the other process has the file lock", || async {
        lock.try_lock().is_ok()
    })
    .await;
    assert_eq!(
        world.refused(&format!("group/create/{X}/1")).await,
        "store: create group-[1] failed"
    );
    assert_eq!(world.get("/topom").await.0, 200);
    drop(lock);
    tokio::time::timeout(Duration::from_secs(5), world.ok(&format!("group/create/{X}/1")))
        .await
        .unwrap();
}
