//! Real sentinels fail over a real master; proxies and the dashboard follow on their own.

use serde_json::json;

use crate::support::{World, X, redis_is_here, say, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_master_is_replaced_by_sentinels_and_everyone_follows() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::watched().await;
    let mut client = world.client(0).await;
    // `foo` is in slot 289, so in group 1.
    assert_eq!(say(&mut client, "SET foo kept").await, "OK");
    until("the replica has it", || async {
        world.servers[1].info("db0").await.starts_with("keys=1")
    })
    .await;
    world.servers[0].kill();
    until("the dashboard has put the new master first", || async {
        let group = world.groups().await[0].clone();
        group["servers"][0]["server"] == world.server(1) && group["out_of_sync"] == true
    })
    .await;
    for index in 0..2 {
        until("the proxy has switched", || async {
            world.proxy_stats(index).await["sentinels"]["switched"] == true
        })
        .await;
        let mut client = world.client(index).await;
        assert_eq!(say(&mut client, "GET foo").await, "kept");
        assert_eq!(say(&mut client, "SET foo kept").await, "OK");
    }
    assert_eq!(world.stats().await["sentinels"]["masters"]["1"], world.server(1));

    world.ok(&format!("group/resync/{X}/1")).await;
    assert_eq!(world.groups().await[0]["out_of_sync"], false);
    assert_eq!(world.proxy_stats(0).await["sentinels"].get("switched"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_slot_stays_locked_through_a_switch_until_an_unlocked_fill() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::watched().await;
    // `foo` is in slot 289.
    let mut locked = world.proxy_slots(0).await[289].clone();
    locked["locked"] = json!(true);
    let told = world.put_proxy(0, "fillslots", &json!([locked]).to_string()).await;
    assert_eq!(told, (200, json!("OK")));
    assert_eq!(world.proxy_slots(0).await[289], locked);
    let mut waiting = world.client(0).await;
    let write = tokio::spawn(async move { say(&mut waiting, "SET foo late").await });
    world.servers[0].kill();
    locked["backend_addr"] = json!(world.server(1));
    until("the locked slot has the new master", || async {
        world.proxy_slots(0).await[289] == locked
    })
    .await;
    assert!(!write.is_finished());
    locked["locked"] = json!(false);
    let told = world.put_proxy(0, "fillslots", &json!([locked]).to_string()).await;
    assert_eq!(told, (200, json!("OK")));
    assert_eq!(write.await.unwrap(), "OK");
    assert_eq!(world.proxy_slots(0).await[289].get("locked"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resync_all_forgets_a_replica_that_is_down() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::watched().await;
    world.servers[1].kill();
    world.ok(&format!("sentinels/resync-all/{X}")).await;
    let monitored = format!("/api/topom/sentinels/info/{}/monitored", world.sentinels[0].addr);
    until("the sentinel has looked at the new master", || async {
        world.get(&monitored).await.1["demo-2"]["slaves"].is_array()
    })
    .await;
    let known = world.get(&monitored).await.1;
    assert_eq!(known["demo-1"].get("slaves"), None, "{}", known["demo-1"]);
    assert_eq!(world.stats().await["sentinels"]["model"]["out_of_sync"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resync_all_fails_with_a_dead_sentinel_until_it_is_deleted_by_force() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::watched().await;
    world.sentinels[0].kill();
    let dead = world.sentinels[0].addr.clone();
    let cause = world.refused(&format!("sentinels/resync-all/{X}")).await;
    assert_eq!(cause, format!("dial tcp {dead}: connect: connection refused"));
    assert_eq!(world.stats().await["sentinels"]["model"]["out_of_sync"], true);
    assert_eq!(
        world.refused(&format!("sentinels/del/{X}/{dead}/0")).await,
        format!("remove sentinel {dead} failed")
    );
    world.ok(&format!("sentinels/del/{X}/{dead}/1")).await;
    world.ok(&format!("sentinels/resync-all/{X}")).await;
    let model = world.stats().await["sentinels"]["model"].clone();
    assert_eq!(
        model,
        json!({"servers": [world.sentinels[1].addr, world.sentinels[2].addr], "out_of_sync": false})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promotion_makes_sentinels_forget_the_group() {
    if !redis_is_here() {
        return;
    }
    let world = World::watched().await;
    world.ok(&format!("group/promote/{X}/1/{}", world.server(1))).await;
    let monitored = format!("/api/topom/sentinels/info/{}/monitored", world.sentinels[1].addr);
    let known = world.get(&monitored).await.1;
    assert_eq!(known.as_object().unwrap().keys().collect::<Vec<_>>(), ["demo-2"]);
    assert_eq!(world.stats().await["sentinels"]["model"]["out_of_sync"], true);
}
