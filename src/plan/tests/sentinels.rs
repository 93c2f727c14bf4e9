use super::*;
use crate::{api::CodisCluster, validate::validate};

#[test]
fn sentinels_are_configured_anew_only_while_everybody_answers() {
    let mut world = World::settled();
    world.topology.sentinels.out_of_sync = true;
    assert_eq!(world.decide().step, Some(Step::ResyncSentinels));
    type Change = fn(&mut World);
    let table: [(&str, Change); 4] = [
        ("a sentinel", |w| {
            drop(w.observed.sentinels.insert(sentinel(1), Err("timeout".into())))
        }),
        ("a replica", |w| drop(w.observed.servers.insert(server(2, 1), down()))),
        ("a master", |w| drop(w.observed.servers.insert(server(2, 0), down()))),
        ("a proxy", |w| w.topology.proxies[0].error = Some("timeout".into())),
    ];
    for (who, change) in table {
        let mut world = World::settled();
        world.topology.sentinels.out_of_sync = true;
        change(&mut world);
        let decision = world.decide();
        assert_eq!(
            (decision.step.clone(), decision.is_settled()),
            (None, false),
            "without {who}: {decision:?}"
        );
    }
}

#[test]
fn a_sentinel_that_came_back_is_told_what_it_lacks() {
    let mut world = World::settled();
    world.sentinel(2).masters.remove("c-2");
    let (sentinel, group, master) = (sentinel(2), gid(2), server(2, 0));
    assert_eq!(
        world.decide().step,
        Some(Step::Monitor {
            sentinel,
            group,
            master
        })
    );
    world.observed.servers.insert(server(2, 0), down());
    assert_eq!(world.decide().step, None, "not of a master that doesn't answer");
}

#[test]
fn sentinels_that_watch_an_address_which_the_master_had_are_told_of_the_present_one() {
    let mut world = World::settled();
    let taken = Address::new("10.96.77.7", 6379);
    world.former.insert(taken.host().to_owned(), "c-g1-0".to_owned());
    for ordinal in [0, 2] {
        world.sentinel(ordinal).masters.extend([watched(1, &taken)]);
    }
    let redirect = Step::Redirect {
        sentinels: vec![sentinel(0), sentinel(2)],
        group: gid(1),
        master: server(1, 0),
    };
    assert_eq!(world.decide().step, Some(redirect));
    world.former.clear();
    assert_eq!(world.decide().step, None, "it may be another master");
}

#[test]
fn a_sentinel_that_lost_a_restarted_master_connects_anew() {
    let mut world = restarted(3, [500, 3_000, 500]);
    let ServerView::Up { fenced, .. } = world.observed.servers.get_mut(&server(1, 0)).unwrap() else {
        unreachable!()
    };
    *fenced = false;
    let (sentinel, group, master) = (sentinel(1), gid(1), server(1, 0));
    assert_eq!(
        world.decide().step,
        Some(Step::Relink {
            sentinel,
            group,
            master
        })
    );
    assert_ne!(
        restarted(90, [500, 3_000, 500]).decide().step.map(|s| s.name()),
        Some("RelinkSentinel")
    );
}

#[test]
fn a_sentinel_that_lost_a_restarted_replica_connects_anew_and_until_then_it_is_not_settled() {
    let mut world = World::settled();
    let replication = Replication::Replica {
        master: server(1, 0),
        link_up: true,
    };
    let view = ServerView::Up {
        replication,
        offset: 9,
        keys: 5,
        uptime: 4,
        link_down_for: None,
        replicas: BTreeSet::new(),
        memory: Memory::default(),
        fenced: false,
    };
    world.observed.servers.insert(server(1, 1), view);
    let deaf = world.sentinel(2);
    deaf.masters
        .get_mut("c-1")
        .unwrap()
        .replica_silence
        .insert(server(1, 1), 4_000);
    let (sentinel, group, master) = (sentinel(2), gid(1), server(1, 0));
    assert_eq!(
        world.decide().step,
        Some(Step::Relink {
            sentinel,
            group,
            master
        })
    );
    if let Some(ServerView::Up { uptime, .. }) = world.observed.servers.get_mut(&server(1, 1)) {
        *uptime = 60;
    }
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.waits)),
        (None, vec![reason::SENTINELS_NOT_READY])
    );
}

#[test]
fn a_sentinel_that_stood_still_is_waited_for() {
    let mut world = World::settled();
    world.sentinel(0).in_tilt = true;
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.waits)),
        (None, vec![reason::SENTINELS_NOT_READY])
    );
}

fn hung(ordinals: &[u64], running_for: u64) -> World {
    let mut world = World::settled();
    for ordinal in 0..3 {
        let pod = MemberPod {
            name: format!("c-sentinel-{ordinal}"),
            running_for: Some(running_for),
            ..MemberPod::default()
        };
        world.observed.sentinel_pods.insert(sentinel(ordinal), pod);
    }
    for ordinal in ordinals {
        let silent = Err("silent".to_owned());
        world.observed.sentinels.insert(sentinel(*ordinal), silent);
        world.observed.down_for.insert(sentinel(*ordinal), 20);
    }
    world
}

#[test]
fn a_sentinel_that_hangs_is_made_anew_one_at_a_time() {
    let restarted = |world: &World| match world.decide().step {
        Some(Step::Restart { pod, .. }) => Some(pod),
        _ => None,
    };
    assert_eq!(restarted(&hung(&[1], 100)).as_deref(), Some("c-sentinel-1"));
    assert_eq!(restarted(&hung(&[1], 5)), None, "it is starting");
    assert_eq!(restarted(&hung(&[0, 1], 100)).as_deref(), Some("c-sentinel-0"));
    assert_eq!(restarted(&hung(&[0, 1, 2], 100)), None, "we may be cut off");
    let mut one_restarts = hung(&[0, 1], 100);
    one_restarts.observed.down_for.insert(sentinel(0), 2);
    assert_eq!(restarted(&one_restarts), None);
}

#[test]
fn sentinels_watch_groups_under_the_name_of_the_product() {
    let mut world = World::settled();
    let spec: CodisCluster = serde_json::from_value(serde_json::json!({
        "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster",
        "metadata": {"name": "c", "namespace": "ns", "uid": "u"},
        "spec": {
            "coordinatorName": "filesystem", "coordinatorAddr": "builtin", "productName": "cache",
            "codisProxy": {"image": "i", "replicas": 2}, "codisDashboard": {"image": "i"},
            "codisServer": {"image": "i", "replicas": 4, "groupReplicas": 2},
            "sentinel": {"image": "i", "replicas": 3}
        }
    }))
    .unwrap();
    world.cluster = validate(&spec).unwrap();
    assert_eq!(health(&world.desired(), &world.observed()).sentinels_watching, 0);
    for view in world.observed.sentinels.values_mut().flatten() {
        let renamed = view
            .masters
            .iter()
            .map(|(name, master)| (name.replace("c-", "cache-"), master.clone()));
        view.masters = renamed.collect();
    }
    assert_eq!(health(&world.desired(), &world.observed()).sentinels_watching, 3);
    assert_eq!(world.decide(), Decision::default());
}

#[test]
fn sentinels_that_miss_a_replica_at_an_address_that_is_nobodys_are_configured_anew() {
    let nobody = Address::new("10.96.77.9", 6379);
    let missing = |address: &Address, silent_ms| {
        let mut world = World::settled();
        let view = world.sentinel(1);
        let known = view.masters.get_mut("c-1").unwrap();
        known.replica_silence.insert(address.clone(), silent_ms);
        world
    };
    let mut world = missing(&nobody, 9_000);
    assert_eq!(world.decide().step, Some(Step::ResyncSentinels));
    if let Some(ServerView::Up { replicas, .. }) = world.observed.servers.get_mut(&server(1, 0)) {
        replicas.insert(nobody.clone());
    }
    assert_ne!(
        world.decide().step,
        Some(Step::ResyncSentinels),
        "the master would tell them again"
    );
    for (what, world) in [
        ("it is heard", missing(&nobody, 500)),
        ("a member", missing(&server(1, 1), 9_000)),
    ] {
        assert_ne!(world.decide().step, Some(Step::ResyncSentinels), "{what}");
    }
}
