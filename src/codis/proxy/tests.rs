use serde_json::json;

use super::*;

/// A table of offline slots but for those given.
fn table(entries: &[Value]) -> Vec<Entry> {
    let mut all: Vec<Value> = (0..SLOT_COUNT)
        .map(|id| json!({"id": id, "forward_method": 1}))
        .collect();
    for entry in entries {
        all[usize::try_from(entry["id"].as_u64().unwrap()).unwrap()] = entry.clone();
    }
    parse(json!(all).to_string().as_bytes()).unwrap()
}

fn group(number: u64) -> GroupId {
    GroupId::try_from(number).unwrap()
}

#[test]
fn only_a_groups_entries_are_locked_and_all_else_in_them_stays() {
    // As a proxy tells them, with replicas, migrating in and out, and with a field that nobody knows.
    let mine = json!({"id": 1, "backend_addr": "10.0.0.1:6379", "backend_addr_group_id": 1, "forward_method": 1,
        "replica_groups": [["10.0.0.2:6379"], ["10.0.0.1:6379"]]});
    let comes = json!({"id": 2, "backend_addr": "10.0.0.1:6379", "backend_addr_group_id": 1,
        "migrate_from": "10.0.0.3:6379", "migrate_from_group_id": 2, "later": {"a": [null, 1.5]}});
    let leaves = json!({"id": 3, "backend_addr": "10.0.0.3:6379", "backend_addr_group_id": 2,
        "migrate_from": "10.0.0.1:6379", "migrate_from_group_id": 1});
    let foreign = json!({"id": 4, "backend_addr": "10.0.0.3:6379", "backend_addr_group_id": 2});
    let done = json!({"id": 5, "locked": true, "backend_addr": "10.0.0.1:6379", "backend_addr_group_id": 1});
    let entries = table(&[mine.clone(), comes.clone(), leaves.clone(), foreign, done.clone()]);

    let expected: Vec<Value> = [mine, comes, leaves]
        .into_iter()
        .map(|mut entry| {
            entry["locked"] = json!(true);
            entry
        })
        .collect();
    assert_eq!(json!(with_locked(entries.clone(), group(1), true)), json!(expected));

    let unlocked = json!([{"id": 5, "locked": false, "backend_addr": "10.0.0.1:6379", "backend_addr_group_id": 1}]);
    assert_eq!(json!(with_locked(entries, group(1), false)), unlocked);
}

#[test]
fn a_slots_group_is_none_when_it_is_offline() {
    for (entry, expected) in [
        (json!({"id": 7}), Ok((7, None))),
        (json!({"id": 7, "backend_addr_group_id": 0}), Ok((7, None))),
        (json!({"id": 1023, "backend_addr_group_id": 3}), Ok((1023, Some(3)))),
        (json!({"id": 1024}), Err("slot id 1024 is out of range")),
        (
            json!({"id": 1, "backend_addr_group_id": 70000}),
            Err("group id 70000 is out of range"),
        ),
    ] {
        let mut entry = entry;
        entry["locked"] = json!(true);
        let text = entry.to_string();
        let named = locked(vec![serde_json::from_str(&text).unwrap()]);
        let named = named.map(|all| (all[0].0.get(), all[0].1.map(GroupId::get)));
        match expected {
            Ok(expected) => assert_eq!(named, Ok(expected)),
            Err(why) => assert!(named.unwrap_err().starts_with(why)),
        }
    }
}

#[test]
fn what_is_no_table_of_slots_is_told_in_words() {
    for (body, expected) in [
        ("[]", "it lists 0 slots, not 1024"),
        (r#"[{"id":0}]"#, "it lists 1 slots, not 1024"),
        ("{}", "its answer is no slots: invalid type"),
        ("[1]", "its answer is no slots: invalid type"),
    ] {
        let why = parse::<Entry>(body.as_bytes()).unwrap_err();
        assert!(why.starts_with(expected), "{body}: {why}");
    }
}
