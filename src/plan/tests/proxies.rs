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

#[test]
fn a_proxy_that_did_not_register_is_taken_online() {
    let mut world = World::settled();
    world.topology.proxies.remove(1);
    assert_eq!(
        world.decide().step,
        Some(Step::OnlineProxy(Address::new("10.244.0.2", 11080)))
    );
    world.observed.proxy_pods[1].running_for = Some(5);
    let decision = world.decide();
    assert_eq!(
        (decision.step.clone(), reasons(&decision.waits)),
        (None, vec![reason::PROXIES_NOT_READY])
    );
}
