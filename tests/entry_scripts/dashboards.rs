//! The dashboard's script: whose lock it breaks, and whose product it begins on.

use crate::Pod;

const DASHBOARD: &str = include_str!("../../src/build/scripts/dashboard.sh");

#[test]
fn a_dashboard_breaks_only_a_lock_that_is_its_own() {
    let pod = Pod::new("dashboard");
    pod.file("secret/lock-address", "c-dashboard-0a1b2c3d.ns.svc:18080");
    pod.program("codis-dashboard", "echo \"codis-dashboard $*\"");
    let start = |coordinator: &str, holders: &str| {
        pod.program("codis-admin", &format!("printf '%s' '{holders}'"));
        let environment = [
            ("COORDINATOR", coordinator),
            ("COORDINATOR_ADDR", "e:2379"),
            ("PRODUCT_NAME", "c"),
            ("NCPU", "2"),
        ];
        pod.run(DASHBOARD, &environment)
    };
    let own =
        "[\n    {\n        \"name\": \"c\",\n        \"dashboard\": \"c-dashboard-0a1b2c3d.ns.svc:18080\"\n    }\n]";
    let (output, ok) = start("filesystem", "");
    assert!(
        ok && output.contains("--host-admin=c-dashboard-0a1b2c3d.ns.svc:18080 --remove-lock"),
        "{output}"
    );
    let (output, ok) = start("etcd", own);
    assert!(ok && output.contains("--remove-lock"), "{output}");
    let turned =
        r#"[{"dashboard": "e:1", "name": "cc"}, {"dashboard": "c-dashboard-0a1b2c3d.ns.svc:18080", "name": "c"}]"#;
    let (output, ok) = start("etcd", turned);
    assert!(ok && output.contains("--remove-lock"), "{output}");
    let (output, ok) = start("etcd", "[]");
    assert!(ok && !output.contains("--remove-lock"), "{output}");
    let (output, ok) = start("etcd", &own.replace("0a1b2c3d", "ffffffff"));
    assert!(!ok && !output.contains("--host-admin"), "{output}");
}

/// What a dashboard's script does on etcd when codis-admin says this, in a pod that began with `data`: whether it starts
/// the dashboard, and its last word.
fn starts(test: &str, admin: &str, mark: &str, data: &[&str]) -> (bool, String) {
    let pod = Pod::new(&format!("product-{test}"));
    pod.file("secret/lock-address", "c-dashboard-0a1b2c3d.ns.svc:18080")
        .file("secret/product-claimed", mark)
        .program("codis-dashboard", "echo \"codis-dashboard $*\"")
        .program("codis-admin", admin);
    for file in data {
        pod.file(&format!("data/{file}"), "");
    }
    let environment = [
        ("COORDINATOR", "etcd"),
        ("COORDINATOR_ADDR", "e:2379"),
        ("PRODUCT_NAME", "c"),
        ("NCPU", "2"),
    ];
    let (output, ok) = pod.run(DASHBOARD, &environment);
    assert_eq!(ok, output.starts_with("codis-dashboard"), "{output}");
    assert_eq!(
        ok || !data.is_empty(),
        pod.0.join("data/product-ours").exists(),
        "{output}"
    );
    (ok, pod.read("termination-log"))
}

/// A codis-admin that lists these dashboards and dumps this content.
fn admin(dashboards: &str, content: &str) -> String {
    format!(
        "case $* in *--dashboard-list*) echo '{dashboards}' ;; *--config-dump*--product=c*) echo '{content}' ;; *) exit 1 ;; esac"
    )
}

const OWN_LOCK: &str = r#"[{"name": "c", "dashboard": "c-dashboard-0a1b2c3d.ns.svc:18080"}]"#;
const GROUPS: &str = r#"{"group": [{"id": 1, "servers": [{"server": "10.0.0.1:6379"}]}]}"#;

#[test]
fn a_dashboard_starts_on_a_product_that_is_empty_or_marked() {
    let empty = r#"{"slots": [{"id": 0, "group_id": 0, "action": {}}], "group": [], "proxy": null}"#;
    for (test, content, mark) in [("none", "{}", ""), ("empty", empty, ""), ("marked", GROUPS, "c\n")] {
        let (ok, word) = starts(test, &admin("null", content), mark, &[]);
        assert!(ok, "{test}: {word}");
    }
}

#[test]
fn a_dashboard_does_not_start_on_content_without_a_mark() {
    let proxies = r#"{"proxy": [{"token": "t"}], "group": []}"#;
    let slots = r#"{"slots": [{"id": 7, "group_id": 12, "action": {}}]}"#;
    for (test, content, found) in [
        (
            "groups",
            GROUPS,
            "has groups, like the server 10.0.0.1:6379, and isn't marked",
        ),
        ("proxies", proxies, "has proxies, and isn't marked"),
        ("slots", slots, "has assigned slots, and isn't marked"),
    ] {
        // Neither an own lock nor what a pod remembers is enough alone.
        for (number, (list, data)) in [("[]", &[][..]), (OWN_LOCK, &[]), ("[]", &["product-ours"])]
            .into_iter()
            .enumerate()
        {
            let (ok, word) = starts(&format!("{test}-{number}"), &admin(list, content), "", data);
            assert!(
                !ok && word.starts_with("ProductOwnedElsewhere: the product c on the etcd e:2379"),
                "{word}"
            );
            assert!(word.contains(found) && word.contains("spec.productName"), "{word}");
        }
    }
}

#[test]
fn a_dashboard_that_starts_again_in_its_pod_needs_no_mark_that_it_can_not_see_yet() {
    let (ok, word) = starts("again", &admin(OWN_LOCK, GROUPS), "", &["product-ours"]);
    assert!(ok, "{word}");
}

#[test]
fn a_dashboard_does_not_start_while_nobody_knows_whose_the_product_is() {
    let broken = [
        (
            "away",
            "exit 1".to_owned(),
            "can't be read (codis-admin --dashboard-list)",
        ),
        ("strange", "echo hello".to_owned(), "isn't understood"),
        ("mute", ":".to_owned(), "isn't understood"),
        (
            "half",
            "case $* in *list*) echo '[]' ;; *) exit 1 ;; esac".to_owned(),
            "can't be read (codis-admin --config-dump)",
        ),
    ];
    for (test, admin, why) in broken {
        // A mark says whose the product was, not who holds it now.
        let mark = if test == "half" { "" } else { "c\n" };
        let (ok, word) = starts(test, &admin, mark, &[]);
        assert!(!ok && word.contains(why), "{test}: {word}");
        assert!(!word.starts_with("ProductOwnedElsewhere"), "{test}: {word}");
    }
}

mod on_etcd {
    use crate::dashboard::{DashboardPod, Etcd};

    /// The stand-in resolves what it advertises, as Codis does.
    const OURS: &str = "127.0.0.1:18080";
    const THEIRS: &str = "127.0.0.2:18080";

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lock_of_another_is_left_alone_and_an_own_one_is_broken() {
        let Some(etcd) = Etcd::start().await else { return };
        let (ours, theirs) = (
            DashboardPod::with_address(&etcd, "c", OURS),
            DashboardPod::with_address(&etcd, "c", THEIRS),
        );
        let (dashboard, before) = (theirs.start().await, etcd.dump().await);
        let word = ours.refused();
        let held = "held by the dashboard 127.0.0.2:18080";
        assert!(
            word.starts_with("ProductOwnedElsewhere: ") && word.contains(held),
            "{word}"
        );
        assert_eq!(etcd.dump().await, before);
        // Nobody but its owner breaks the lock that a killed one leaves.
        dashboard.kill();
        assert!(ours.refused().contains(held));
        assert_eq!(etcd.dump().await, before);
        let again = theirs.start().await;
        assert_eq!(etcd.holder("c").await.as_deref(), Some(THEIRS));
        again.stop();
        assert_eq!(etcd.holder("c").await, None);
        ours.start().await.stop();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn content_of_another_is_left_alone_and_marked_content_is_ours() {
        let Some(etcd) = Etcd::start().await else { return };
        let theirs = DashboardPod::with_address(&etcd, "c", THEIRS).start().await;
        theirs.create_group("c", 1).await;
        theirs.stop();
        let before = etcd.dump().await;
        let ours = DashboardPod::with_address(&etcd, "c", OURS);
        let word = ours.refused();
        assert!(
            word.starts_with("ProductOwnedElsewhere: ") && word.contains("has groups"),
            "{word}"
        );
        assert_eq!(etcd.dump().await, before);
        ours.file("product-claimed", "c\n");
        ours.start().await.stop();
        DashboardPod::with_address(&etcd, "another", OURS).start().await.stop();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_killed_dashboard_goes_on_in_its_pod_before_the_mark_has_arrived_there() {
        let Some(etcd) = Etcd::start().await else { return };
        let pod = DashboardPod::with_address(&etcd, "c", OURS);
        let dashboard = pod.start().await;
        dashboard.create_group("c", 1).await;
        dashboard.kill();
        assert_eq!(etcd.holder("c").await.as_deref(), Some(OURS));
        let before = etcd.dump().await;
        DashboardPod::with_address(&etcd, "c", OURS).refused();
        assert_eq!(etcd.dump().await, before, "a pod that is new reads the Secret as it is");
        pod.start().await.kill();
    }
}
