use serde_json::{Value, json};

use super::*;

/// The body of a recorded answer, with the runs of slots that a trimmed one has spelled out.
fn recorded(name: &str) -> Value {
    let path = format!("{}/src/codis/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let exchange: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut body = exchange["body"].clone();
    if let Some(slots) = body["stats"]["slots"].as_array() {
        body["stats"]["slots"] = slots.iter().flat_map(spelled_out).collect();
    }
    body
}

fn spelled_out(slot: &Value) -> Vec<Value> {
    let first = slot["id"].as_u64().unwrap();
    let last = slot["through"].as_u64().unwrap_or(first);
    let with_id = |id| {
        let mut slot = slot.clone();
        slot["id"] = json!(id);
        slot
    };
    (first..=last).map(with_id).collect()
}

fn view(body: &Value) -> Result<Topology, String> {
    match parse(body.to_string().as_bytes(), "demo")? {
        DashboardView::Online { topology, .. } => Ok(*topology),
        DashboardView::Unavailable(why) => Err(why),
    }
}

fn topology(name: &str) -> Topology {
    view(&recorded(name)).unwrap()
}

fn id(number: u64) -> GroupId {
    GroupId::try_from(number).unwrap()
}

fn at(text: &str) -> Address {
    text.parse().unwrap()
}

#[test]
fn a_bootstrapped_product_is_read_whole() {
    let topology = topology("topom-bootstrapped");
    let masters = [(id(1), at("10.96.23.157:6379")), (id(2), at("10.96.225.85:6379"))];
    assert_eq!(topology.sentinels.masters, BTreeMap::from(masters.clone()));
    for (group, master) in &masters {
        assert_eq!(topology.groups[group].master(), Some(master));
        assert_eq!(topology.groups[group].servers.len(), 2);
        assert_eq!(topology.slots_of(*group), 512);
        assert!(!topology.groups[group].out_of_sync);
    }
    assert_eq!(topology.sentinels.servers.len(), 3);
    assert!(!topology.sentinels.out_of_sync);
    let proxies: Vec<_> = topology
        .proxies
        .iter()
        .map(|p| (p.online, p.switched, &p.error))
        .collect();
    assert_eq!(proxies, [(true, false, &None), (true, false, &None)]);
    assert!(topology.slots.iter().all(|slot| slot.moving.is_none()));
    assert!(topology.slots.iter().map(|slot| slot.id).eq(SlotId::all()));
}

#[test]
fn the_version_is_what_the_dashboard_says_it_is() {
    let body = recorded("topom-fresh");
    let Ok(DashboardView::Online { version, .. }) = parse(body.to_string().as_bytes(), "demo") else {
        panic!("it is online");
    };
    assert!(version.contains("@de1ad026"), "{version}");
}

#[test]
fn a_fresh_product_has_an_empty_topology() {
    let topology = topology("topom-fresh");
    assert!(topology.is_empty());
    assert_eq!(topology.slots.len(), 1024);
}

#[test]
fn after_a_failover_the_group_is_out_of_sync_and_the_proxies_have_switched() {
    let topology = topology("topom-after-sentinel-failover");
    assert!(topology.groups[&id(1)].out_of_sync);
    assert!(!topology.groups[&id(2)].out_of_sync);
    assert!(topology.proxies.iter().all(|proxy| proxy.switched));
}

#[test]
fn a_dead_proxy_is_in_error_and_not_online() {
    let topology = topology("topom-dead-proxy");
    let dead: Vec<_> = topology.proxies.iter().filter(|proxy| !proxy.online).collect();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].error.as_deref(), Some("timeout"));
    assert!(topology.sentinels.out_of_sync);
}

#[test]
fn a_stuck_promotion_and_a_stuck_migration_are_seen() {
    let topology = topology("topom-promoting-stuck-preparing");
    assert_eq!(topology.groups[&id(1)].promoting, None);
    assert_eq!(topology.groups[&id(2)].promoting, Some(1));
    let migrating: Vec<_> = topology.slots.iter().filter(|slot| slot.moving.is_some()).collect();
    assert_eq!(migrating.len(), 1);
    assert_eq!(migrating[0].id.get(), 0);
    assert_eq!((migrating[0].group, migrating[0].owner()), (Some(id(1)), Some(id(2))));
}

#[test]
fn migrations_are_paused_or_running_when_the_dashboard_says_so() {
    for (told, disabled, running) in [
        (json!({"interval": 0, "disabled": false, "executor": 0}), false, false),
        (json!({"disabled": true, "executor": 1}), true, true),
        (json!({"disabled": null}), false, false),
        (json!(null), false, false),
    ] {
        let mut body = recorded("topom-bootstrapped");
        body["stats"]["slot_action"] = told.clone();
        let topology = view(&body).unwrap();
        let seen = (topology.migrations_disabled, topology.migration_running);
        assert_eq!(seen, (disabled, running), "{told}");
    }
}

#[test]
fn sync_actions_are_running_failed_or_over() {
    for (action, expected) in [
        (json!({}), ActionState::Idle),
        (json!(null), ActionState::Idle),
        (json!({"state": "synced"}), ActionState::Idle),
        (json!({"index": 3, "state": "pending"}), ActionState::Running),
        (json!({"state": "syncing"}), ActionState::Idle),
        (json!({"state": "synced_failed"}), ActionState::Failed),
    ] {
        let mut body = recorded("topom-bootstrapped");
        body["stats"]["group"]["models"][0]["servers"][0]["action"] = action.clone();
        let topology = view(&body).unwrap();
        assert_eq!(topology.groups[&id(1)].servers[0].action, expected, "{action}");
    }
}

#[test]
fn servers_are_read_from_when_their_replica_group_says_so() {
    let mut body = recorded("topom-bootstrapped");
    body["stats"]["group"]["models"][0]["servers"][1]["replica_group"] = json!(true);
    let servers = view(&body).unwrap().groups[&id(1)].servers.clone();
    assert_eq!([servers[0].is_read, servers[1].is_read], [false, true]);
}

#[test]
fn a_promotion_after_the_reorder_has_no_index_and_means_the_first_server() {
    let mut body = recorded("topom-bootstrapped");
    body["stats"]["group"]["models"][0]["promoting"] = json!({"state": "finished"});
    assert_eq!(view(&body).unwrap().groups[&id(1)].promoting, Some(0));
}

#[test]
fn a_proxys_error_is_told_without_its_xauth() {
    let mut body = recorded("topom-bootstrapped");
    let token = body["stats"]["proxy"]["models"][0]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let cause = "Get http://10.244.3.7:11080/api/proxy/stats/2c0387db92c0a87441d84a17106631f9: connection refused";
    body["stats"]["proxy"]["stats"][&token] = json!({"error": {"Cause": cause, "Stack": null}, "unixtime": 1});
    let error = view(&body).unwrap().proxies[0].error.clone().unwrap();
    assert_eq!(
        error,
        "Get http://10.244.3.7:11080/api/proxy/stats/***: connection refused"
    );
}

#[test]
fn a_proxy_that_nobody_asked_yet_is_neither_online_nor_in_error() {
    let mut body = recorded("topom-bootstrapped");
    body["stats"]["proxy"]["stats"] = json!({});
    let topology = view(&body).unwrap();
    assert!(
        topology
            .proxies
            .iter()
            .all(|proxy| !proxy.online && proxy.error.is_none())
    );
}

#[test]
fn a_closed_proxy_is_not_online() {
    let mut body = recorded("topom-bootstrapped");
    let token = body["stats"]["proxy"]["models"][0]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    body["stats"]["proxy"]["stats"][&token]["stats"]["closed"] = json!(true);
    assert!(!view(&body).unwrap().proxies[0].online);
}

#[test]
fn what_may_be_absent_or_null_may_be() {
    for pointer in [
        "/version",
        "/model",
        "/stats/proxy",
        "/stats/proxy/models",
        "/stats/proxy/stats",
        "/stats/group/models",
        "/stats/group/models/0/servers",
        "/stats/group/models/0/promoting",
        "/stats/group/models/0/servers/0/action",
        "/stats/slots/7/action",
        "/stats/slot_action",
        "/stats/sentinels",
        "/stats/sentinels/model/servers",
        "/stats/sentinels/masters",
    ] {
        let mut body = recorded("topom-bootstrapped");
        *body.pointer_mut(pointer).unwrap() = Value::Null;
        assert!(view(&body).is_ok(), "null {pointer}");
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field);
        assert!(view(&body).is_ok(), "no {pointer}");
    }
}

#[test]
fn what_makes_no_topology_is_told_in_words() {
    for (pointer, value, expected) in [
        ("/stats/group/models/0/id", json!(0), "group id 0 is out of range"),
        (
            "/stats/group/models/0/id",
            json!(10000),
            "group id 10000 is out of range",
        ),
        (
            "/stats/group/models/0/id",
            json!(-1),
            "its answer is no overview: invalid value",
        ),
        (
            "/stats/group/models/0/servers/0/server",
            json!("nowhere"),
            r#"address "nowhere" is not host:port"#,
        ),
        (
            "/stats/proxy/models/0/admin_addr",
            json!(""),
            r#"address "" is not host:port"#,
        ),
        ("/stats/slots/0/id", json!(1024), "slot id 1024 is out of range"),
        ("/stats/slots/0/id", json!(1), "it lists 1023 slots, not 1024"),
        (
            "/stats/slots/0/group_id",
            json!(70000),
            "group id 70000 is out of range",
        ),
        ("/stats/slots", json!([]), "it lists 0 slots, not 1024"),
        (
            "/stats/sentinels/masters",
            json!({"one": "10.0.0.1:1"}),
            r#"group id "one" is no number"#,
        ),
        (
            "/stats/sentinels/model/servers/1",
            json!("10.0.0.1"),
            r#"address "10.0.0.1" is not host:port"#,
        ),
        (
            "/model/product_name",
            json!("other"),
            r#"it is the dashboard of another product, "other""#,
        ),
        ("/stats", json!("?"), "its answer is no overview: invalid type"),
    ] {
        let mut body = recorded("topom-bootstrapped");
        *body.pointer_mut(pointer).unwrap() = value.clone();
        let why = view(&body).unwrap_err();
        assert!(why.starts_with(expected), "{pointer} = {value}: {why}");
    }
}
