//! Slots with keys move between real redis servers while clients work.

use std::time::{Duration, Instant};

use codis_double::dashboard;
use codis_double::resp::slot_of;
use serde_json::{Value, json};

use crate::load::{Load, all_hold, keys_are_where_they_belong, keys_at, seed, seeds_are_whole};
use crate::support::{AUTH, Server, World, X, redis_is_here, say, until, until_within};

/// Moves of hundreds of slots on a busy machine.
const LONG: Duration = Duration::from_secs(240);

impl World {
    /// Two proxies and groups of one server each; all slots are in group 1.
    async fn in_one_group(groups: usize) -> Self {
        let mut world = Self::fresh().await;
        for _ in 0..groups {
            world.add_group().await;
        }
        let slots: Vec<_> = (0..1024).map(|id| json!({"id": id, "group_id": 1})).collect();
        let body = json!(slots).to_string();
        assert_eq!(world.put_body(&format!("slots/assign/{X}"), &body).await.0, 200);
        world.ok(&format!("group/resync/{X}/1")).await;
        world
    }

    async fn add_group(&mut self) {
        self.servers.push(Server::redis(AUTH).await);
        let gid = self.servers.len();
        self.ok(&format!("group/create/{X}/{gid}")).await;
        self.ok(&format!("group/add/{X}/{gid}/{}", self.server(gid - 1))).await;
    }

    async fn slots(&self) -> Vec<Value> {
        self.stats().await["slots"].as_array().unwrap().clone()
    }

    async fn slots_in(&self, gid: i64) -> usize {
        let slots = self.slots().await;
        slots.iter().filter(|slot| slot["group_id"] == gid).count()
    }

    async fn moves_are_done(&self) -> bool {
        self.slots().await.iter().all(|slot| slot["action"] == json!({}))
    }

    async fn all_moves_end(&self, what: &str, slots: usize) {
        let begun = Instant::now();
        until_within(LONG, what, || self.moves_are_done()).await;
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("{what}: {slots} slots, {:.0} slots/s", slots as f64 / seconds);
    }

    async fn rebalance(&self) -> usize {
        let (status, plan) = self.put(&format!("slots/rebalance/{X}/1")).await;
        assert_eq!(status, 200, "{plan}");
        plan.as_object().unwrap().len()
    }

    async fn state_of(&self, sid: usize) -> String {
        self.slots().await[sid]["action"]["state"]
            .as_str()
            .unwrap_or_default()
            .into()
    }

    async fn disable_moves(&self, value: i64) {
        self.ok(&format!("slots/action/disabled/{X}/{value}")).await;
    }

    async fn mover(&self) -> Value {
        self.stats().await["slot_action"].clone()
    }

    pub async fn restart_dashboard(&mut self, kill: bool) {
        let first = self.dashboard.take().unwrap();
        let mut options = self.options.clone();
        if kill {
            first.kill();
            // Two dashboards at once would fail each other's work on the folder.
            first.wait().await.unwrap_err();
            options.remove_lock = true;
        } else {
            first.shutdown();
            first.wait().await.unwrap();
        }
        let end = Instant::now() + LONG;
        // What the first one was about to write when it was killed may hold up the second's work on the folder once more,
        // and then it gives up.
        while !self.second_dashboard(options.clone()).await {
            assert!(Instant::now() < end, "the second dashboard isn't online");
        }
    }

    /// Starts a dashboard; false when it gave up.
    async fn second_dashboard(&mut self, options: dashboard::Options) -> bool {
        let second = dashboard::start(options).await.unwrap();
        self.addr = second.addr.to_string();
        self.dashboard = Some(second);
        let overview = format!("http://{}/topom", self.addr);
        loop {
            match self.http.get(&overview).send().await {
                Ok(answer) if answer.status() == 200 => return true,
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(_) => return false,
            }
        }
    }
}

/// A key of a slot.
fn key_in(sid: usize) -> String {
    (0..)
        .map(|number| format!("key:{number}"))
        .find(|key| slot_of(key.as_bytes()) == sid)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_filled_and_drained_under_load_and_no_key_is_lost() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::in_one_group(2).await;
    seed(&world, 3000).await;
    let load = Load::begin(&world).await;

    let slots = world.rebalance().await;
    assert_eq!(slots, 512);
    world.all_moves_end("from one group to two", slots).await;
    world.add_group().await;
    let slots = world.rebalance().await;
    world.all_moves_end("from two groups to three", slots).await;
    assert!(world.slots_in(3).await >= 341);
    let slots = world.slots_in(2).await;
    world.ok(&format!("slots/action/create-some/{X}/2/3/{slots}")).await;
    world.all_moves_end("from three groups to two", slots).await;

    let expected = load.end().await;
    all_hold(&world, &expected).await;
    seeds_are_whole(&world, 3000).await;
    let counts = keys_are_where_they_belong(&world).await;
    assert_eq!(world.slots_in(2).await, 0);
    assert_eq!(counts[1], 0, "a drained group is empty");
    assert_eq!(counts.iter().sum::<usize>(), 3000 + expected.len());
    assert_eq!(world.mover().await["executor"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_go_on_when_the_dashboard_is_restarted_or_killed_in_the_middle() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::in_one_group(2).await;
    seed(&world, 3000).await;
    let load = Load::begin(&world).await;
    world.ok(&format!("slots/action/create-range/{X}/0/99/2")).await;
    for (kill, moved) in [(false, 5), (true, 30)] {
        until_within(LONG, "some slots have moved", || async {
            world.slots_in(2).await >= moved
        })
        .await;
        world.restart_dashboard(kill).await;
        assert!(world.slots_in(2).await < 100, "it was in the middle");
    }
    world.all_moves_end("after two restarts", 100).await;
    assert_eq!(world.slots_in(2).await, 100);
    all_hold(&world, &load.end().await).await;
    seeds_are_whole(&world, 3000).await;
    keys_are_where_they_belong(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabled_moves_pause_where_they_are_and_pending_ones_can_be_cancelled() {
    if !redis_is_here() {
        return;
    }
    let world = World::in_one_group(2).await;
    let mut client = world.client(0).await;
    for number in 0..500 {
        assert_eq!(say(&mut client, &format!("SET {{a}}{number} v")).await, "OK");
    }
    // A second between two batches: of five batches of slot 579 most are still there when it is disabled.
    world.ok(&format!("slots/action/interval/{X}/1000000")).await;
    world.ok(&format!("slots/action/create/{X}/579/2")).await;
    world.ok(&format!("slots/action/create/{X}/580/2")).await;
    until("the first keys have moved", || async {
        !keys_at(world.server(1)).await.is_empty()
    })
    .await;
    let status = world.mover().await["progress"]["status"].as_str().unwrap().to_string();
    assert!(status.starts_with("[OK] Slot[0579]@DB[0]="), "{status}");
    world.disable_moves(1).await;
    until("no step runs", || async { world.mover().await["executor"] == 0 }).await;
    assert_eq!(world.state_of(579).await, "migrating");
    assert!(!keys_at(world.server(0)).await.is_empty());

    assert_eq!(say(&mut client, "GET {a}499").await, "v", "it is served all the same");
    assert_eq!(
        world.refused(&format!("slots/action/remove/{X}/579")).await,
        "slot-[579] action isn't pending"
    );
    assert_eq!(world.state_of(580).await, "pending");
    world.ok(&format!("slots/action/remove/{X}/580")).await;
    world.ok(&format!("slots/action/interval/{X}/0")).await;
    world.disable_moves(0).await;
    until("the slot has arrived", || world.moves_are_done()).await;
    assert_eq!(world.slots_in(2).await, 1);
    assert_eq!(keys_at(world.server(0)).await.len(), 0);
    assert_eq!(keys_at(world.server(1)).await.len(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_brings_its_keys_along_in_its_own_database() {
    if !redis_is_here() {
        return;
    }
    let world = World::in_one_group(2).await;
    let mut client = world.client(0).await;
    for database in [3, 0] {
        assert_eq!(say(&mut client, &format!("SELECT {database}")).await, "OK");
        assert_eq!(say(&mut client, "MSET {a}1 1 {a}2 2 {a}3 3").await, "OK");
        assert_eq!(say(&mut client, "SADD {a}s x y").await, "2");
        assert_eq!(say(&mut client, "SADD {a}t y z").await, "2");
    }
    // Told to a proxy only: no dashboard moves anything.
    let slot = json!({"id": 579, "backend_addr": world.server(1), "backend_addr_group_id": 2,
        "migrate_from": world.server(0), "migrate_from_group_id": 1, "forward_method": 1});
    let told = world.put_proxy(0, "fillslots", &json!([slot]).to_string()).await;
    assert_eq!(told, (200, json!("OK")));
    let at = |database: u32, keys: &[&str]| keys.iter().map(|key| (database, format!("{{a}}{key}"))).collect();

    assert_eq!(say(&mut client, "INCR {a}1").await, "2");
    assert_eq!(keys_at(world.server(1)).await, at(0, &["1"]));
    assert_eq!(
        say(&mut client, "EVAL return(redis.call('GET',KEYS[2])) 2 {a}1 {a}2").await,
        "2"
    );
    assert_eq!(keys_at(world.server(1)).await, at(0, &["1", "2"]));
    assert_eq!(say(&mut client, "SUNIONSTORE {a}u {a}s {a}t").await, "3");
    assert_eq!(keys_at(world.server(1)).await, at(0, &["1", "2", "s", "t", "u"]));
    assert_eq!(say(&mut client, "DEL {a}3 {a}u {a}s").await, "3");
    assert_eq!(say(&mut client, "SELECT 3").await, "OK");
    assert_eq!(say(&mut client, "GET {a}1").await, "1", "another database");
    assert_eq!(
        say(&mut client, "SET {a}3 new").await,
        "OK",
        "an old value does not come after it"
    );
    assert_eq!(say(&mut client, "GET {a}3").await, "new");
    assert_eq!(keys_at(world.server(0)).await, at(3, &["2", "s", "t"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_target_holds_up_its_own_slots_and_no_others() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::in_one_group(4).await;
    // Group 3 gets slots of its own, to have something that moves to group 4.
    world.ok(&format!("slots/action/create-range/{X}/500/519/3")).await;
    until("group 3 has slots", || world.moves_are_done()).await;
    let mut client = world.client(0).await;
    let (stuck, fine) = (key_in(100), key_in(500));
    for key in [&stuck, &fine] {
        assert_eq!(say(&mut client, &format!("SET {key} v")).await, "OK");
    }
    world.servers[1].kill();
    world.ok(&format!("slots/action/create-range/{X}/100/101/2")).await;
    world.ok(&format!("slots/action/create-range/{X}/500/519/4")).await;
    until("the moves to the living group are done", || async {
        world.slots_in(4).await == 20
    })
    .await;
    until("the failure is told", || async {
        let status = world.mover().await["progress"]["status"].clone();
        status.as_str().unwrap().starts_with("[ERROR] Slot[0100]: dial tcp")
    })
    .await;
    assert_eq!(
        (world.state_of(100).await, world.state_of(101).await),
        ("migrating".into(), "pending".into())
    );
    assert_eq!(say(&mut client, &format!("GET {fine}")).await, "v");
    let refused = say(&mut client, &format!("SET {stuck} new")).await;
    assert!(
        refused.starts_with("ERR handle request, move of keys from"),
        "{refused}"
    );
    assert_eq!(keys_at(world.server(0)).await.len(), 1, "it was not sent");

    world.servers[1].restart().await;
    until("the rest moves", || world.moves_are_done()).await;
    assert_eq!(say(&mut client, &format!("GET {stuck}")).await, "v");
    assert_eq!(keys_are_where_they_belong(&world).await, [0, 1, 0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promote_is_refused_while_keys_move_and_keys_wait_while_a_group_is_promoting() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::bootstrapped().await;
    let mut client = world.client(0).await;
    let (held, later) = (key_in(0), key_in(1));
    for key in [&held, &later] {
        assert_eq!(say(&mut client, &format!("SET {key} v")).await, "OK");
    }
    world.servers[2].freeze();
    world.ok(&format!("slots/action/create/{X}/0/2")).await;
    until("a step runs", || async { world.mover().await["executor"] == 1 }).await;
    assert_eq!(
        world.refused(&format!("group/promote/{X}/1/{}", world.server(1))).await,
        "slots-migration is running = 1"
    );
    world.servers[2].thaw();
    until("the slot has arrived", || world.moves_are_done()).await;
    assert_eq!(say(&mut client, &format!("GET {held}")).await, "v");

    // A dead proxy holds the promotion; the slot is migrating by then.
    world.disable_moves(1).await;
    world.lose_proxy(1).await;
    assert_eq!(
        world.put(&format!("group/promote/{X}/2/{}", world.server(3))).await.0,
        800
    );
    world
        .ok(&format!("proxy/remove/{X}/{}/1", world.proxies[1].model.token))
        .await;
    world.disable_moves(0).await;
    world.ok(&format!("slots/action/create/{X}/1/2")).await;
    until("the slot is migrating", || async {
        world.state_of(1).await == "migrating"
    })
    .await;
    assert_eq!(
        world.groups().await[1]["promoting"],
        json!({"index": 1, "state": "preparing"})
    );
    // A later move of other groups arrives, so the loop has come by.
    world.add_group().await;
    let offline = json!([{"id": 9}]).to_string();
    assert_eq!(
        world.put_body(&format!("slots/assign/{X}/offline"), &offline).await.0,
        200
    );
    world.ok(&format!("slots/action/create/{X}/9/5")).await;
    until("another slot has moved", || async { world.slots_in(5).await == 1 }).await;
    assert_eq!(world.state_of(1).await, "migrating");
    assert!(keys_at(world.server(0)).await.contains(&(0, later.clone())));
    world.ok(&format!("group/promote/{X}/2/{}", world.server(3))).await;
    until("the slot has arrived at the new master", || world.moves_are_done()).await;
    assert!(keys_at(world.server(3)).await.contains(&(0, later.clone())));
    assert_eq!(say(&mut client, &format!("GET {later}")).await, "v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_goes_on_from_the_new_master_when_sentinels_replace_its_source() {
    if !redis_is_here() {
        return;
    }
    let mut world = World::watched().await;
    // `foo` is in slot 289, so in group 1.
    let mut client = world.client(0).await;
    for number in 0..300 {
        assert_eq!(say(&mut client, &format!("SET {{foo}}{number} v")).await, "OK");
    }
    world.ok(&format!("slots/action/interval/{X}/1000000")).await;
    world.ok(&format!("slots/action/create/{X}/289/2")).await;
    until("the first keys have moved", || async {
        !keys_at(world.server(2)).await.is_empty()
    })
    .await;
    world.disable_moves(1).await;
    until("no step runs", || async { world.mover().await["executor"] == 0 }).await;
    until("the replica knows which keys have left", || async {
        keys_at(world.server(1)).await == keys_at(world.server(0)).await
    })
    .await;
    let stay = keys_at(world.server(1)).await;
    world.servers[0].kill();
    until("the new master is known", || async {
        world.groups().await[0]["servers"][0]["server"] == world.server(1)
    })
    .await;
    for index in 0..2 {
        until("the proxy takes keys from the new master", || async {
            world.proxy_slots(index).await[289]["migrate_from"] == world.server(1)
        })
        .await;
    }
    let (_, waiting) = stay.first().unwrap();
    assert_eq!(say(&mut world.client(1).await, &format!("GET {waiting}")).await, "v");
    world.ok(&format!("slots/action/interval/{X}/0")).await;
    world.disable_moves(0).await;
    until("the slot has arrived", || world.moves_are_done()).await;
    assert_eq!(keys_at(world.server(1)).await.len(), 0);
    assert_eq!(keys_at(world.server(2)).await.len(), 300);
}
