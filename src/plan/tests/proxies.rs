use super::*;

#[test]
fn a_dead_proxys_record_goes_before_anything_else() {
    let mut world = World::settled();
    world.failed_over();
    world.topology.proxies[0].error = Some("timeout".into());
    world.observed.proxy_pods.remove(0);
    assert!(matches!(world.decide().step, Some(Step::RemoveProxy { token, .. }) if token == "token-1"));
}

#[test]
fn only_dead_proxies_lose_their_record() {
    type Change = fn(&mut ProxyRecord, &mut ProxyPod);
    let table: [(&str, bool, Change); 6] = [
        ("it answers", false, |_, _| ()),
        ("it restarts in place", false, |r, p| {
            r.error = Some("connection refused".into());
            (p.ready, p.running_for) = (false, Some(2));
        }),
        ("its container doesn't run", true, |r, p| {
            r.error = Some("connection refused".into());
            p.running_for = None;
        }),
        ("it hangs", true, |r, p| {
            r.error = Some("timeout".into());
            (p.ready, p.running_for) = (false, Some(90));
        }),
        ("another process has its address", true, |r, _| {
            r.error = Some("[Remote Error] invalid xauth, please check".into());
        }),
        ("only the dashboard can't reach it", false, |r, _| {
            r.error = Some("timeout".into())
        }),
    ];
    for (what, is_removed, change) in table {
        let mut world = World::settled();
        change(&mut world.topology.proxies[0], &mut world.observed.proxy_pods[0]);
        let removes = matches!(world.decide().step, Some(Step::RemoveProxy { .. }));
        assert_eq!(removes, is_removed, "{what}");
    }
}

/// A third proxy that was told to leave and still serves its clients.
fn with_one_that_leaves() -> World {
    let mut world = World::settled();
    let (mut record, mut pod) = (world.topology.proxies[0].clone(), world.observed.proxy_pods[0].clone());
    record.token = "token-0".to_owned();
    record.admin = Address::new("10.244.0.9", 11080);
    pod.name = "token-0".to_owned();
    pod.ip = Some("10.244.0.9".to_owned());
    (pod.ending, pod.ready) = (true, false);
    world.topology.proxies.insert(0, record);
    world.observed.proxy_pods.insert(0, pod);
    world
}

#[test]
fn a_proxy_that_leaves_is_told_of_every_change_while_it_serves_its_clients() {
    let mut world = with_one_that_leaves();
    assert_eq!(world.decide().step, None);
    // Busy for a moment: its clients would be cut.
    world.topology.proxies[0].error = Some("timeout".into());
    assert_eq!(world.decide().step, None);
    let removes =
        |world: &World| matches!(world.decide().step, Some(Step::RemoveProxy { token, .. }) if token == "token-0");
    let admin = world.topology.proxies[0].admin.clone();
    world.observed.down_for.insert(admin, 5);
    assert!(
        removes(&world),
        "it is silent and would keep the others from being told"
    );
    world.observed.down_for.clear();
    world.observed.proxy_pods[0].running_for = None;
    assert!(removes(&world), "its process has ended");
}

#[test]
fn a_proxy_that_leaves_counts_for_nobody_but_its_clients() {
    let mut world = with_one_that_leaves();
    assert_eq!(health(&world.desired(), &world.observed()).proxies_online, 2);
    world.topology.proxies.pop();
    assert_eq!(reasons(&world.decide().waits), [reason::PROXIES_NOT_READY]);
}

#[test]
fn a_pod_that_has_ended_says_nothing_of_the_one_that_has_its_address_now() {
    for at in [0, 2] {
        let mut world = World::settled();
        let mut ended = world.observed.proxy_pods[0].clone();
        (ended.ending, ended.ready, ended.running_for) = (true, false, None);
        world.observed.proxy_pods.insert(at, ended);
        assert_eq!(health(&world.desired(), &world.observed()).proxies_online, 2);
        world.topology.proxies[0].error = Some("timeout".into());
        assert_eq!(world.decide().step, None, "it is asked again");
    }
}

#[test]
fn a_proxy_that_leaves_is_in_nobodys_way() {
    let mut world = with_one_that_leaves();
    world.promotion = Some((gid(1), None));
    // It was deleted right after its start.
    world.observed.proxy_pods[0].running_for = Some(2);
    assert!(matches!(world.decide().step, Some(Step::Switchover { .. })));
    world.promotion = None;
    let admin = world.topology.proxies[1].admin.clone();
    world.topology.proxies[1].error = Some("timeout".into());
    world.observed.down_for.insert(admin, 5);
    assert!(matches!(world.decide().step, Some(Step::Restart { pod, .. }) if pod == "token-1"));
}

#[test]
fn the_last_proxy_that_clients_find_is_left_to_them_while_another_one_leaves() {
    let mut world = with_one_that_leaves();
    for number in [1, 2] {
        let admin = world.topology.proxies[number].admin.clone();
        world.topology.proxies[number].error = Some("timeout".into());
        world.observed.down_for.insert(admin, 5);
    }
    assert_eq!(world.decide().step, None, "the dashboard may be cut off");
}

/// It listens to the sentinels by itself: a topology that lost them, or is older than a promotion, would lead it astray.
#[test]
fn a_proxy_that_serves_is_not_taken_online_before_the_topology_is_as_new_as_what_it_serves() {
    let mut world = World::settled();
    world.topology.proxies.pop();
    let one = world.observed.sentinels.get_mut(&sentinel(0)).unwrap();
    one.as_mut().unwrap().masters.extend([watched(1, &server(1, 1))]);
    assert_eq!(world.decide().step, None, "a sentinel promoted another one");
    let mut world = World::settled();
    world.topology.proxies.pop();
    world.topology.sentinels.servers.clear();
    world
        .observed
        .sentinels
        .values_mut()
        .for_each(|view| *view = Err("silent".into()));
    assert_eq!(world.decide().step, None, "it would be deaf");
    world.observed.proxy_pods[1].ready = false;
    assert_eq!(
        world.decide().step.unwrap().name(),
        "OnlineProxy",
        "it serves nobody yet"
    );
}

#[test]
fn a_proxy_that_did_not_register_is_taken_online() {
    let mut world = World::settled();
    world.topology.proxies.remove(1);
    assert_eq!(
        world.decide().step,
        Some(Step::OnlineProxy(Address::new("10.244.0.2", 11080)))
    );
    world.observed.proxy_pods[1].running_for = Some(5);
    world.observed.proxy_pods[1].ready = false;
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.waits)),
        (None, vec![reason::PROXIES_NOT_READY])
    );
}

#[test]
fn a_proxy_with_an_order_of_its_own_is_told_the_official_one_once_nobody_disputes_it() {
    let mut world = World::settled();
    world.topology.proxies[1].switched = true;
    assert_eq!(world.decide().step, Some(Step::ResyncGroups));
    // A failover: it may be the proxy that is right.
    for view in world.observed.sentinels.values_mut().flatten() {
        view.masters.extend([watched(1, &server(1, 1))]);
    }
    assert_ne!(world.decide().step, Some(Step::ResyncGroups));
}

#[test]
fn a_proxy_that_listens_to_other_sentinels_than_the_dashboard_knows_is_told_them() {
    let mut world = World::settled();
    world.topology.proxies[1].sentinels.clear();
    let sentinels = world.topology.sentinels.servers.clone();
    let listen = Step::Listen {
        proxies: vec![(world.topology.proxies[1].admin.clone(), "token-2".to_owned())],
        sentinels,
    };
    assert_eq!(world.decide().step, Some(listen));
    // The dashboard will tell all of them.
    world.topology.sentinels.out_of_sync = true;
    assert_eq!(world.decide().step, Some(Step::ResyncSentinels));
}

#[test]
fn proxies_listen_to_the_sentinels_that_answer_while_a_master_is_gone_and_to_all_of_them_again() {
    let mut world = World::settled();
    let sentinels = world.topology.sentinels.servers.clone();
    let away = sentinels[0].clone();
    let view = world
        .observed
        .sentinels
        .insert(away.clone(), Err("no answer".to_owned()));
    let listens = |world: &World| match world.decide().step {
        Some(Step::Listen { proxies, sentinels }) => Some((proxies.len(), sentinels)),
        _ => None,
    };
    assert_eq!(listens(&world), None, "every master answers");
    let silent = ServerView::Unreachable("no answer".to_owned());
    let master = world.observed.servers.insert(server(1, 0), silent);
    assert_eq!(listens(&world), Some((2, sentinels[1..].to_vec())));
    for proxy in &mut world.topology.proxies {
        proxy.sentinels = sentinels[1..].iter().map(Address::to_string).collect();
    }
    assert_eq!(listens(&world), None, "they do");
    world.observed.servers.insert(server(1, 0), master.unwrap());
    assert_eq!(listens(&world), None, "the sentinel is still away");
    world.observed.sentinels.insert(away, view.unwrap());
    assert_eq!(listens(&world), Some((2, sentinels)));
}

#[test]
fn proxies_never_listen_to_a_minority() {
    let mut world = World::settled();
    let sentinels = world.topology.sentinels.servers.clone();
    for sentinel in &sentinels[1..] {
        world
            .observed
            .sentinels
            .insert(sentinel.clone(), Err("no answer".to_owned()));
    }
    let silent = ServerView::Unreachable("no answer".to_owned());
    world.observed.servers.insert(server(1, 0), silent);
    assert!(!matches!(world.decide().step, Some(Step::Listen { .. })));
}
