use std::collections::BTreeSet;

use super::*;
use crate::{build::Addresses, domain::Address, validate::validate};

fn cluster() -> CodisCluster {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster",
        "metadata": {"name": "c", "namespace": "ns", "uid": "u", "generation": 3},
        "spec": {
            "coordinatorName": "filesystem", "coordinatorAddr": "builtin",
            "codisProxy": {"image": "i", "replicas": 1,
                "hpaSpec": {"minReplicas": 1, "maxReplicas": 2, "cpuUsedThreshold": 50}},
            "codisDashboard": {"image": "i"}, "codisServer": {"image": "i", "replicas": 1, "groupReplicas": 1}
        }
    }))
    .unwrap()
}

fn status(cluster: &CodisCluster, health: &Health, decision: &Decision) -> CodisClusterStatus {
    let valid = validate(cluster).unwrap();
    let addresses = Addresses {
        dashboard: Address::new("d", 1),
        servers: Default::default(),
        leaving: Default::default(),
        sentinels: Vec::new(),
        inherited: Default::default(),
    };
    let desired = Desired {
        cluster: &valid,
        addresses: &addresses,
        former: std::collections::BTreeMap::new(),
        known_hosts: BTreeSet::new(),
        persistent: BTreeSet::new(),
        has_password: true,
        now: "2026-11-23T12:00:00Z".parse().unwrap(),
        stopped: None,
        promotion: None,
        allow_stand_in: false,
    };
    let observed = Observed {
        dashboard: DashboardView::Online {
            version: String::new(),
            topology: Box::default(),
        },
        ..Observed::default()
    };
    let view = View {
        cluster,
        desired: &desired,
        observed: &observed,
        facts: &Facts::default(),
        carried: &Carried::default(),
        without_effect: &valid.without_effect,
    };
    of(&view, health, &mut decision.clone(), view.desired.now)
}

fn whole() -> Health {
    Health {
        slots_served: 1024,
        proxies_online: 1,
        servers_in_role: 1,
        sentinels_watching: 0,
    }
}

fn is(status: &CodisClusterStatus, type_: &str) -> String {
    status
        .conditions
        .iter()
        .find(|c| c.type_ == type_)
        .unwrap()
        .status
        .clone()
}

#[test]
fn a_whole_and_settled_cluster_is_ready() {
    let status = status(&cluster(), &whole(), &Decision::default());
    assert_eq!(status.phase.as_deref(), Some("Ready"));
    assert_eq!(
        (is(&status, "Ready"), is(&status, "Serving"), is(&status, "Stalled")),
        ("True".into(), "True".into(), "False".into())
    );
    assert_eq!((status.message.clone(), status.observed_generation), (None, Some(3)));
    assert!(
        status.without_effect[0].starts_with("spec.codisProxy.hpaSpec"),
        "{:?}",
        status.without_effect
    );
}

#[test]
fn what_is_blocked_is_not_ready_and_a_persons_turn() {
    let mut decision = Decision::default();
    decision.block(reason::TOPOLOGY_LOST, "keys".into());
    let status = status(&cluster(), &whole(), &decision);
    assert_eq!(
        (is(&status, "Ready"), is(&status, "Blocked"), is(&status, "Stalled")),
        ("False".into(), "True".into(), "True".into())
    );
    assert_eq!(
        (status.phase.as_deref(), status.message.as_deref()),
        (Some("Blocked"), Some("keys"))
    );
}

#[test]
fn a_cluster_that_serves_with_a_member_missing_is_degraded() {
    let mut decision = Decision::default();
    decision.waits.push(Note {
        reason: reason::SERVERS_NOT_READY,
        message: "replica".into(),
    });
    let status = status(
        &cluster(),
        &Health {
            servers_in_role: 0,
            ..whole()
        },
        &decision,
    );
    assert_eq!(status.phase.as_deref(), Some("Degraded"));
    assert_eq!(
        (
            is(&status, "Serving"),
            is(&status, "Degraded"),
            is(&status, "Progressing")
        ),
        ("True".into(), "True".into(), "True".into())
    );
}

#[test]
fn an_unchanged_cluster_gives_an_equal_status() {
    let mut cluster = cluster();
    let first = status(&cluster, &whole(), &Decision::default());
    cluster.status = Some(first.clone());
    assert_eq!(status(&cluster, &whole(), &Decision::default()), first);
}

#[test]
fn only_what_is_newly_in_the_way_is_news() {
    let mut cluster = cluster();
    let mut decision = Decision::default();
    decision.block(reason::GROUP_LOST, "gone".into());
    assert_eq!(news(&cluster, &decision).len(), 1);
    cluster.status = Some(status(&cluster, &whole(), &decision));
    assert_eq!(news(&cluster, &decision).len(), 0);
}
