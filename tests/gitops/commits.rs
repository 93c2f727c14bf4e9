//! What becomes of a commit.

use std::path::Path;

use codis_git_server::{Fault, WorkTree, create_repository};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::world::{World, eventually, file, proxies, ready};

#[tokio::test(flavor = "multi_thread")]
async fn the_example_repository_is_applied_as_it_stands() {
    let Some(world) = World::new().await else { return };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("gitops-example");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(example.join("."))
        .arg(world.tree.path())
        .status();
    assert!(copied.unwrap().success());
    let commit = world.tree.commit("our fleet").unwrap();
    world.tree.push("main").unwrap();
    world.source().await;
    let revision = format!("main@sha1:{commit}");
    let status = world.reason("fleet", "Applied").await;
    assert_eq!(status.last_applied_revision.as_deref(), Some(revision.as_str()));
    assert_eq!(status.last_attempted_revision.as_deref(), Some(revision.as_str()));
    assert_eq!(
        (status.clusters, status.problems.len(), status.held.len()),
        (Some(1), 0, 0)
    );
    let cluster = world.cluster("sessions", "the cluster", |c| c.status.is_some()).await;
    let told = cluster.status.clone().unwrap().gitops.unwrap();
    assert_eq!(
        (told.source.as_str(), told.path.as_str(), told.revision.as_str()),
        ("fleet", "clusters/sessions.yaml", revision.as_str())
    );
    assert_eq!(cluster.labels()["codis.k8s.io/source"], "fleet");
    let managers: Vec<_> = cluster
        .managed_fields()
        .iter()
        .map(|entry| (entry.manager.as_deref().unwrap(), entry.subresource.as_deref()))
        .collect();
    assert!(managers.contains(&("codis-gitops/fleet", None)), "{managers:?}");
    assert!(managers.contains(&("codis-gitops", Some("status"))), "{managers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_costs_what_it_changes() {
    let Some(world) = World::new().await else { return };
    for name in ["a", "b", "c", "d"] {
        world
            .tree
            .write(&format!("clusters/{name}.yaml"), file(name, 1))
            .unwrap();
    }
    world.tree.commit("four").unwrap();
    world.tree.push("main").unwrap();
    world.source().await;
    world.reason("fleet", "Applied").await;
    let (mut written, mut asked) = world.spec_writes();
    written.sort();
    asked.sort();
    assert_eq!(
        (written, asked),
        (
            vec!["a", "b", "c", "d"].into_iter().map(str::to_owned).collect(),
            vec!["a", "b", "c", "d"]
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        )
    );

    let before = world
        .server
        .requests(crate::support::apiserver::User::Operator, &world.namespace)
        .len();
    world.tree.publish("clusters/b.yaml", file("b", 3)).unwrap();
    world.poke("fleet").await;
    world.cluster("b", "three proxies", |c| proxies(c) == 3).await;
    world
        .status("fleet", "it to be applied", |s| {
            s.last_applied_revision == s.last_attempted_revision
        })
        .await;
    let after = world
        .server
        .requests(crate::support::apiserver::User::Operator, &world.namespace);
    let about: std::collections::BTreeSet<&str> = after[before..]
        .iter()
        .filter(|logged| logged.resource.starts_with("codisclusters"))
        .map(|logged| logged.name.as_str())
        .collect();
    assert_eq!(about, ["b"].into(), "{:#?}", &after[before..]);
    assert_eq!(world.spec_writes().0.len(), 5);

    // A file that only moves costs no write of its spec.
    world.tree.git(&["mv", "clusters/a.yaml", "clusters/z.yaml"]).unwrap();
    world.tree.commit("move").unwrap();
    world.tree.push("main").unwrap();
    world.poke("fleet").await;
    let told = |c: &codis_operator::api::CodisCluster| c.status.as_ref().and_then(|s| s.gitops.clone()).map(|g| g.path);
    world
        .cluster("a", "the new path", |c| told(c).as_deref() == Some("clusters/z.yaml"))
        .await;
    assert_eq!(world.spec_writes().0.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_commit_changes_nothing_and_names_its_line_and_a_revert_works() {
    let Some(world) = World::new().await else { return };
    world.tree.write("clusters/a.yaml", file("a", 1)).unwrap();
    let good = world.tree.publish("clusters/b.yaml", file("b", 1)).unwrap();
    world.source().await;
    world.reason("fleet", "Applied").await;

    world.tree.write("clusters/a.yaml", file("a", 2)).unwrap();
    let broken = file("b", 1).replace("    groupReplicas: 2\n", "    groupReplicas: 2\n    replicsa: 6\n");
    let bad = world.tree.publish("clusters/b.yaml", broken).unwrap();
    world.poke("fleet").await;
    let status = world.reason("fleet", "CommitRejected").await;
    assert_eq!(status.last_attempted_revision, Some(format!("main@sha1:{bad}")));
    assert_eq!(status.last_applied_revision, Some(format!("main@sha1:{good}")));
    let problem = &status.problems[0];
    assert_eq!(
        (
            problem.file.as_str(),
            problem.line,
            problem.column,
            problem.field.as_deref()
        ),
        ("clusters/b.yaml", Some(14), Some(5), Some("spec.codisServer.replicsa"))
    );
    assert!(
        ready(&status).2.contains("clusters/b.yaml:14:5"),
        "{}",
        ready(&status).2
    );
    assert_eq!(proxies(&world.clusters().get("a").await.unwrap()), 1, "all or nothing");
    assert!(world.event("CommitRejected").await.contains("clusters/b.yaml:14:5"));

    // The last good commit goes on being enforced.
    world
        .edit("a", json!({ "spec": { "codisProxy": { "replicas": 9 } } }))
        .await;
    world.cluster("a", "the edit to be put back", |c| proxies(c) == 1).await;

    world.tree.git(&["revert", "--no-edit", "HEAD"]).unwrap();
    world.tree.push("main").unwrap();
    world.poke("fleet").await;
    let status = world.reason("fleet", "Applied").await;
    assert_eq!(
        status.last_applied_revision,
        Some(format!("main@sha1:{}", world.tree.head().unwrap()))
    );
    assert_eq!(world.spec_writes().0.len(), 3, "two creations and one repair");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_api_server_can_refuse_rejects_the_commit_at_its_field() {
    let Some(world) = World::new().await else { return };
    world.tree.write("clusters/a.yaml", file("a", 1)).unwrap();
    let sentinels = |count: u8| file("b", 1) + &format!("  sentinel:\n    replicas: {count}\n    image: codis\n");
    world.tree.publish("clusters/b.yaml", sentinels(3)).unwrap();
    world.source().await;
    world.reason("fleet", "Applied").await;
    world.tree.write("clusters/a.yaml", file("a", 2)).unwrap();
    world.tree.publish("clusters/b.yaml", sentinels(1)).unwrap();
    world.poke("fleet").await;
    let status = world.reason("fleet", "CommitRejected").await;
    let problem = &status.problems[0];
    assert_eq!(
        (problem.file.as_str(), problem.line),
        ("clusters/b.yaml", Some(5)),
        "{problem:?}"
    );
    assert!(problem.message.contains("can't be lowered"), "{problem:?}");
    assert_eq!(proxies(&world.clusters().get("a").await.unwrap()), 1, "all or nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_source_does_nothing_until_it_is_resumed() {
    let Some(world) = World::new().await else { return };
    world.tree.publish("clusters/a.yaml", file("a", 1)).unwrap();
    world.source().await;
    world.reason("fleet", "Applied").await;
    let suspend = |is: bool| json!({ "spec": { "suspend": is } });
    let patch = |value| async {
        let params = kube::api::PatchParams::default();
        world
            .sources()
            .patch("fleet", &params, &kube::api::Patch::Merge(value))
            .await
            .unwrap()
    };
    let generation = patch(suspend(true)).await.metadata.generation;
    world
        .status("fleet", "the change to be seen", |s| {
            s.observed_generation == generation
        })
        .await;
    let requests = world.git.requests();
    world.tree.publish("clusters/a.yaml", file("a", 5)).unwrap();
    let pushed = world.git.requests();
    assert!(pushed > requests);
    world
        .edit("a", json!({ "spec": { "codisProxy": { "replicas": 3 } } }))
        .await;
    // Another source of the namespace is served meanwhile: time enough to see that this one isn't.
    world.source_with("other", json!({ "path": "nothing" })).await;
    world.reason("other", "PathMissing").await;
    assert_eq!(proxies(&world.clusters().get("a").await.unwrap()), 3);
    patch(suspend(false)).await;
    world.cluster("a", "the pushed number", |c| proxies(c) == 5).await;
    let (written, _) = world.spec_writes();
    assert_eq!(
        written.len(),
        2,
        "the edit was never put back to what was pushed before: {written:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_stay_in_the_sources_namespace() {
    let Some(world) = World::new().await else { return };
    world
        .tree
        .publish(
            "clusters/a.yaml",
            file("a", 1).replace("  name: a\n", "  name: a\n  namespace: kube-system\n"),
        )
        .unwrap();
    world.source().await;
    let status = world.reason("fleet", "CommitRejected").await;
    let problem = &status.problems[0];
    assert_eq!(
        (problem.line, problem.field.as_deref()),
        (Some(5), Some("metadata.namespace"))
    );
    assert!(
        problem.message.contains("kube-system") && problem.message.contains(&world.namespace),
        "{problem:?}"
    );
    let own = file("a", 1).replace("  name: a\n", &format!("  name: a\n  namespace: {}\n", world.namespace));
    world.tree.publish("clusters/a.yaml", own).unwrap();
    world.poke("fleet").await;
    world.reason("fleet", "Applied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_begun_is_finished_although_a_later_one_is_broken() {
    let Some(world) = World::new().await else { return };
    // Each of the two fits alone, so both are admitted; together they don't.
    let quota = |hard: &str| json!({ "status": { "hard": { "count/codisclusters.codis.k8s.io": hard } } });
    let api = Api::<ResourceQuota>::namespaced(world.admin.clone(), &world.namespace);
    let object: ResourceQuota = serde_json::from_value(json!({
        "metadata": { "name": "one" }, "spec": { "hard": { "count/codisclusters.codis.k8s.io": "1" } },
    }))
    .unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    // Nobody counts here, so the test does: what is used, and later what is allowed.
    let params = PatchParams::default();
    let used = json!({ "status": { "used": { "count/codisclusters.codis.k8s.io": "0" } } });
    api.patch_status("one", &params, &Patch::Merge(quota("1")))
        .await
        .unwrap();
    api.patch_status("one", &params, &Patch::Merge(used)).await.unwrap();
    world.tree.write("clusters/a.yaml", file("a", 1)).unwrap();
    let begun = world.tree.publish("clusters/b.yaml", file("b", 1)).unwrap();
    world.source().await;
    let status = world.reason("fleet", "ApplyFailed").await;
    assert_eq!(status.applying_revision, Some(format!("main@sha1:{begun}")));
    assert!(ready(&status).2.contains("quota"), "{}", ready(&status).2);

    world.tree.publish("clusters/c.yaml", "kind: Nonsense\n").unwrap();
    world.poke("fleet").await;
    let status = world.reason("fleet", "CommitRejected").await;
    assert_eq!(status.applying_revision, Some(format!("main@sha1:{begun}")));
    assert!(
        ready(&status).2.contains(&format!("{begun} was begun")),
        "{}",
        ready(&status).2
    );
    api.patch_status("one", &params, &Patch::Merge(quota("9")))
        .await
        .unwrap();
    for name in ["a", "b"] {
        world.cluster(name, "to be there", |_| true).await;
    }
    let status = world
        .status("fleet", "it to be whole", |s| {
            s.last_applied_revision == Some(format!("main@sha1:{begun}"))
        })
        .await;
    assert_eq!(
        (ready(&status).1.as_str(), status.applying_revision),
        ("CommitRejected", None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_is_dropped_when_the_source_is_changed() {
    let Some(world) = World::new().await else { return };
    world.tree.publish("clusters/a.yaml", file("a", 1)).unwrap();
    world.source().await;
    world.reason("fleet", "Applied").await;
    // Another source has b, so this commit waits for it.
    world.tree.write("second/b.yaml", file("b", 1)).unwrap();
    world.tree.commit("b elsewhere").unwrap();
    world.tree.push("main").unwrap();
    world.source_with("second", json!({ "path": "second" })).await;
    world.reason("second", "Applied").await;
    world.tree.publish("clusters/b.yaml", file("b", 7)).unwrap();
    world.poke("fleet").await;
    world.reason("fleet", "CommitRejected").await;
    let suspend = |is: bool| Patch::Merge(json!({ "spec": { "suspend": is } }));
    world
        .sources()
        .patch("fleet", &PatchParams::default(), &suspend(true))
        .await
        .unwrap();
    let status = world.reason("fleet", "Suspended").await;
    assert_eq!(ready(&status).0, "Unknown");
    // It is taken back while nobody looks, and what it waited for comes true.
    world.tree.git(&["revert", "--no-edit", "HEAD"]).unwrap();
    world.tree.push("main").unwrap();
    world
        .edit(
            "b",
            json!({ "metadata": { "labels": { "codis.k8s.io/source": "fleet" } } }),
        )
        .await;
    world
        .sources()
        .patch("fleet", &PatchParams::default(), &suspend(false))
        .await
        .unwrap();
    world.reason("fleet", "Applied").await;
    assert_eq!(
        proxies(&world.clusters().get("b").await.unwrap()),
        1,
        "the commit that was taken back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_during_a_look_is_not_lost() {
    let Some(world) = World::new().await else { return };
    world.tree.publish("clusters/a.yaml", file("a", 1)).unwrap();
    world.source().await;
    world.reason("fleet", "Applied").await;
    world.git.set_fault(&world.repository, Fault::BlackHole);
    let requests = world.git.requests();
    world.annotate("fleet", "codis.k8s.io/requestedAt", "early").await;
    eventually("the look", async || {
        (world.git.requests() > requests).then_some(()).ok_or_else(String::new)
    })
    .await;
    world.git.set_fault(&world.repository, Fault::None);
    world.tree.publish("clusters/a.yaml", file("a", 2)).unwrap();
    world.poke("fleet").await;
    world.cluster("a", "the commit", |c| proxies(c) == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_made_suspended_says_so() {
    let Some(world) = World::new().await else { return };
    world.source_with("fleet", json!({ "suspend": true })).await;
    let status = world.reason("fleet", "Suspended").await;
    assert_eq!(status.observed_generation, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_repositorys_commits_need_not_build_on_the_old_ones() {
    let Some(world) = World::new().await else { return };
    world.tree.publish("clusters/a.yaml", file("a", 1)).unwrap();
    world.source().await;
    world.reason("fleet", "Applied").await;
    let other = format!("{}-other", world.repository);
    create_repository(world.root, &other).unwrap();
    let tree = WorkTree::clone(&world.git.url(&other), &world.root.join(format!("tree-{other}"))).unwrap();
    tree.publish("clusters/a.yaml", "kind: Nonsense\n").unwrap();
    let moved = Patch::Merge(json!({ "spec": { "url": world.git.url(&other) } }));
    world
        .sources()
        .patch("fleet", &PatchParams::default(), &moved)
        .await
        .unwrap();
    world.reason("fleet", "CommitRejected").await;
    // What was applied from the old one goes on being in force.
    world
        .edit("a", json!({ "spec": { "codisProxy": { "replicas": 4 } } }))
        .await;
    world.cluster("a", "one proxy again", |c| proxies(c) == 1).await;
    tree.publish("clusters/a.yaml", file("a", 3)).unwrap();
    world.poke("fleet").await;
    world
        .cluster("a", "the other repository's number", |c| proxies(c) == 3)
        .await;
    let status = world.reason("fleet", "Applied").await;
    assert!(status.origin.is_some_and(|origin| origin.contains(&other)));
}
