//! A repository that is empty, gone, slow or rewound: nothing is deleted, nothing is changed, and the status tells.

use std::time::Duration;

use codis_git_server::Fault;
use kube::api::ListParams;
use serde_json::json;
use tokio::time::Instant;

use crate::world::{World, file, proxies, ready};

async fn two(world: &World) {
    world.tree.write("clusters/a.yaml", file("a", 1)).unwrap();
    world.tree.publish("clusters/b.yaml", file("b", 1)).unwrap();
    world.source().await;
    world.reason("fleet", "Applied").await;
}

/// Both clusters are there, and hand edits are still put back.
async fn in_force(world: &World) {
    let names: Vec<_> = world.clusters().list(&ListParams::default()).await.unwrap().items;
    let names: Vec<_> = names.into_iter().filter_map(|c| c.metadata.name).collect();
    assert_eq!(names, ["a", "b"]);
    world
        .edit("b", json!({ "spec": { "codisProxy": { "replicas": 8 } } }))
        .await;
    world.cluster("b", "one proxy again", |c| proxies(c) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_left_is_reported_and_its_cluster_stays() {
    let Some(world) = World::new().await else { return };
    two(&world).await;
    world.tree.remove("clusters/b.yaml").unwrap();
    world.tree.commit("without b").unwrap();
    world.tree.push("main").unwrap();
    world.poke("fleet").await;
    let status = world.status("fleet", "b to be held", |s| !s.held.is_empty()).await;
    assert_eq!(status.held, ["b is no longer in the repository; it isn't deleted"]);
    assert_eq!(ready(&status).0, "True");
    world
        .edit("b", json!({ "spec": { "codisProxy": { "replicas": 3 } } }))
        .await;
    world
        .edit("a", json!({ "spec": { "codisProxy": { "replicas": 3 } } }))
        .await;
    world.cluster("a", "one proxy again", |c| proxies(c) == 1).await;
    assert_eq!(
        proxies(&world.clusters().get("b").await.unwrap()),
        3,
        "it is a person's again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_branch_deletes_nothing() {
    let Some(world) = World::new().await else { return };
    two(&world).await;
    world.tree.push("other").unwrap();
    // A server refuses to delete the branch that HEAD names.
    let branch = json!({ "ref": { "branch": "other" } });
    let api = world.sources();
    let params = kube::api::PatchParams::default();
    api.patch("fleet", &params, &kube::api::Patch::Merge(json!({ "spec": branch })))
        .await
        .unwrap();
    world
        .status("fleet", "the other branch", |s| {
            s.last_applied_revision
                .as_deref()
                .is_some_and(|r| r.starts_with("other@"))
        })
        .await;
    world.tree.delete_branch("other").unwrap();
    world.poke("fleet").await;
    let status = world.reason("fleet", "BranchMissing").await;
    assert!(
        ready(&status).2.contains("no branch other") && ready(&status).2.contains("stays in force"),
        "{}",
        ready(&status).2
    );
    in_force(&world).await;
    world.tree.push("other").unwrap();
    world.poke("fleet").await;
    world.reason("fleet", "Applied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_repository_a_removed_path_and_an_emptied_path_delete_nothing() {
    let Some(world) = World::new().await else { return };
    two(&world).await;
    world.tree.git(&["mv", "clusters", "elsewhere"]).unwrap();
    world.tree.commit("no path").unwrap();
    world.tree.push("main").unwrap();
    world.poke("fleet").await;
    world.reason("fleet", "PathMissing").await;
    in_force(&world).await;

    world.tree.write("clusters/README.md", "nothing here").unwrap();
    world.tree.commit("no specs").unwrap();
    world.tree.push("main").unwrap();
    world.poke("fleet").await;
    world.reason("fleet", "PathEmpty").await;
    in_force(&world).await;

    world.tree.git(&["rm", "-r", "--quiet", "."]).unwrap();
    world.tree.commit("nothing at all").unwrap();
    world.tree.push("main").unwrap();
    world.poke("fleet").await;
    world.reason("fleet", "PathMissing").await;
    in_force(&world).await;

    // The repository is made anew, without a commit.
    let bare = world.root.join(format!("{}.git", world.repository));
    std::fs::remove_dir_all(&bare).unwrap();
    codis_git_server::create_repository(world.root, &world.repository).unwrap();
    world.poke("fleet").await;
    world.reason("fleet", "RepositoryEmpty").await;
    in_force(&world).await;

    world
        .tree
        .git(&["revert", "--no-edit", "HEAD", "HEAD~1", "HEAD~2"])
        .unwrap();
    world.tree.push("main").unwrap();
    world.poke("fleet").await;
    world.reason("fleet", "Applied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewound_branch_holds_until_a_person_accepts_it() {
    let Some(world) = World::new().await else { return };
    two(&world).await;
    let old = world.tree.head().unwrap();
    world.tree.publish("clusters/a.yaml", file("a", 4)).unwrap();
    world.poke("fleet").await;
    world.cluster("a", "four proxies", |c| proxies(c) == 4).await;
    world
        .status("fleet", "it to be applied", |s| {
            s.last_applied_revision == s.last_attempted_revision
        })
        .await;
    world.tree.git(&["reset", "--quiet", "--hard", &old]).unwrap();
    world.tree.force_push("main").unwrap();
    world.poke("fleet").await;
    let status = world.reason("fleet", "Rewound").await;
    assert!(
        ready(&status).2.contains(&format!("codis.k8s.io/accept-rewind={old}")),
        "{}",
        ready(&status).2
    );
    assert_eq!(proxies(&world.clusters().get("a").await.unwrap()), 4);
    world.annotate("fleet", "codis.k8s.io/accept-rewind", &old).await;
    world.cluster("a", "one proxy", |c| proxies(c) == 1).await;
    world.reason("fleet", "Applied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drips_black_holes_or_refuses_harms_nobody_else() {
    let Some(world) = World::new().await else { return };
    let Some(other) = World::new().await else { return };
    two(&world).await;
    two(&other).await;
    for (fault, reason) in [
        (Fault::Drip, "Timeout"),
        (Fault::BlackHole, "Timeout"),
        (Fault::Refuse, "Unreachable"),
        (Fault::Status(404), "RepositoryMissing"),
        (Fault::Status(500), "Unreachable"),
    ] {
        world.git.set_fault(&world.repository, fault.clone());
        world
            .annotate("fleet", "codis.k8s.io/requestedAt", &format!("{fault:?}"))
            .await;
        let began = Instant::now();
        let proxies_now = proxies(&other.clusters().get("a").await.unwrap()) + 1;
        other
            .tree
            .publish("clusters/a.yaml", file("a", proxies_now.unsigned_abs()))
            .unwrap();
        other.poke("fleet").await;
        other
            .cluster("a", "the other source's commit", |c| proxies(c) == proxies_now)
            .await;
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(8),
            "{fault:?}: another source waited for {took:?}"
        );
        let status = world.status("fleet", "the fault", |s| ready(s).0 == "False").await;
        assert_eq!(ready(&status).1, reason, "{fault:?}: {}", ready(&status).2);
        in_force(&world).await;
        world.git.set_fault(&world.repository, Fault::None);
        world.poke("fleet").await;
        world.reason("fleet", "Applied").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_drips_ends_at_the_sources_deadline() {
    let Some(world) = World::new().await else { return };
    world.tree.publish("clusters/a.yaml", file("a", 1)).unwrap();
    world.git.set_fault(&world.repository, Fault::DripPack);
    let began = Instant::now();
    world.source_with("fleet", json!({ "timeout": "2s" })).await;
    world.reason("fleet", "Timeout").await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    world.git.set_fault(&world.repository, Fault::None);
    world.poke("fleet").await;
    world.reason("fleet", "Applied").await;
}
