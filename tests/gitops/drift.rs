//! Hand edits of what a repository specifies.

use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::world::{World, file, proxies};

async fn applied(world: &World) {
    world.tree.publish("clusters/a.yaml", file("a", 1)).unwrap();
    world.source().await;
    world.reason("fleet", "Applied").await;
    world
        .cluster("a", "its origin", |c| {
            c.status.as_ref().is_some_and(|s| s.gitops.is_some())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_edit_is_put_back_and_the_event_says_whose_it_was() {
    let Some(world) = World::new().await else { return };
    applied(&world).await;
    world
        .edit("a", json!({ "spec": { "codisProxy": { "replicas": 7 } } }))
        .await;
    world.cluster("a", "one proxy again", |c| proxies(c) == 1).await;
    let note = world.event("HandEditReverted").await;
    assert!(
        note.contains("spec.codisProxy.replicas was changed by kubectl-edit at "),
        "{note}"
    );
    assert!(note.contains("clusters/a.yaml of main@sha1:"), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hand_adds_or_removes_is_put_back_too() {
    let Some(world) = World::new().await else { return };
    applied(&world).await;
    for (what, patch) in [
        (
            "added",
            json!({ "spec": { "codisFe": { "image": "fe", "replicas": 1 }, "schedulerName": "mine" } }),
        ),
        (
            "added deeper",
            json!({ "spec": { "codisProxy": { "maxSurge": 3, "nodeSelector": { "a": "b" } } } }),
        ),
        ("removed", json!({ "spec": { "codisDashboard": { "replicas": null } } })),
        (
            "unmarked",
            json!({ "metadata": { "labels": { "codis.k8s.io/source": null } } }),
        ),
    ] {
        world.edit("a", patch).await;
        let edited = world.clusters().get("a").await.unwrap().metadata.generation;
        world
            .cluster("a", what, |c| {
                let spec = &c.spec;
                spec.codis_fe.is_none()
                    && spec.scheduler_name.is_none()
                    && spec.codis_proxy.max_surge.is_none()
                    && spec.codis_proxy.node_selector.is_none()
                    && spec.codis_dashboard.replicas == Some(1)
                    && c.labels().get("codis.k8s.io/source").is_some_and(|l| l == "fleet")
                    && c.metadata.generation >= edited
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_annotations_that_git_does_not_name_are_anybodys() {
    let Some(world) = World::new().await else { return };
    applied(&world).await;
    let patch = json!({ "metadata": { "labels": { "team": "red" }, "annotations": { "note": "mine" } } });
    world.edit("a", patch).await;
    // An edit after it that must be put back shows that the engine has looked.
    world
        .edit("a", json!({ "spec": { "codisProxy": { "replicas": 2 } } }))
        .await;
    let cluster = world.cluster("a", "one proxy again", |c| proxies(c) == 1).await;
    assert_eq!(
        (
            cluster.labels()["team"].as_str(),
            cluster.annotations()["note"].as_str()
        ),
        ("red", "mine")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_deleted_by_hand_is_made_again() {
    let Some(world) = World::new().await else { return };
    applied(&world).await;
    let uid = world.clusters().get("a").await.unwrap().uid();
    world.clusters().delete("a", &DeleteParams::default()).await.unwrap();
    world.cluster("a", "another one", |c| c.uid() != uid).await;
    assert!(world.event("ClusterRecreated").await.contains("clusters/a.yaml"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_the_api_server_does_not_let_back_is_reported_as_held() {
    let Some(world) = World::new().await else { return };
    applied(&world).await;
    world
        .edit(
            "a",
            json!({ "spec": { "sentinel": { "replicas": 3, "image": "codis" } } }),
        )
        .await;
    let status = world.status("fleet", "something held", |s| !s.held.is_empty()).await;
    assert!(
        status.held[0].contains("spec.sentinel") && status.held[0].contains("by kubectl-edit"),
        "{:?}",
        status.held
    );
    assert!(status.held[0].contains("can't be lowered"), "{:?}", status.held);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_where_a_spec_comes_from_again_after_it_was_wiped() {
    let Some(world) = World::new().await else { return };
    applied(&world).await;
    let wiped = json!({ "status": { "gitops": null } });
    let api = world.clusters();
    api.patch_status("a", &PatchParams::default(), &Patch::Merge(wiped))
        .await
        .unwrap();
    world
        .cluster("a", "its origin", |c| {
            c.status.as_ref().is_some_and(|s| s.gitops.is_some())
        })
        .await;
}
