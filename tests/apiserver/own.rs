//! What the door writes about a CodisCluster itself.

use std::collections::BTreeMap;

use codis_operator::{
    api::{CodisCluster, CodisClusterStatus, names},
    cluster::{Category, EventKind, Propagation},
};
use k8s_openapi::api::{events::v1::Event, storage::v1::StorageClass};
use kube::{
    Api, ResourceExt,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_status_is_written_only_when_it_differs_and_touches_nothing_else() {
    let Some(world) = World::new().await else { return };
    let cluster = world.cluster("one").await;
    let mut status = CodisClusterStatus {
        observed_generation: cluster.metadata.generation,
        phase: Some("Progressing".into()),
        addresses: BTreeMap::from([
            ("one-g1-0".into(), "10.96.0.9".into()),
            ("one-g1-1".into(), "10.96.0.10".into()),
        ]),
        ..CodisClusterStatus::default()
    };
    assert_eq!(world.door.patch_status(&cluster, &status).await, Ok(true));
    let read = world.door.get(&world.namespace, "one").await.unwrap().unwrap();
    assert_eq!(
        (&read.spec, read.metadata.generation),
        (&cluster.spec, cluster.metadata.generation)
    );
    assert_eq!(world.door.patch_status(&read, &status).await, Ok(false));
    assert_eq!(world.writes().len(), 1, "{:?}", world.writes());

    status.phase = None;
    status.addresses.remove("one-g1-1");
    assert_eq!(world.door.patch_status(&read, &status).await, Ok(true));
    let read = world.door.get(&world.namespace, "one").await.unwrap().unwrap();
    assert_eq!(read.status, Some(status), "what is dropped disappears");
    assert!(
        world
            .writes()
            .iter()
            .all(|write| write.resource == "codisclusters/status")
    );
}

#[tokio::test]
async fn a_status_never_reaches_a_cluster_of_the_same_name_made_since() {
    let Some(world) = World::new().await else { return };
    let old = world.cluster("again").await;
    let status = CodisClusterStatus {
        phase: Some("Ready".into()),
        ..CodisClusterStatus::default()
    };
    let uid = old.uid().unwrap();
    assert_eq!(
        world
            .door
            .delete::<CodisCluster>(&world.namespace, "again", &uid, Propagation::Background)
            .await,
        Ok(true)
    );
    let gone = world.door.patch_status(&old, &status).await.unwrap_err();
    assert_eq!(gone.category(), Category::Gone, "{gone}");
    world.cluster("again").await;
    let conflict = world.door.patch_status(&old, &status).await.unwrap_err();
    assert_eq!(conflict.category(), Category::Conflict, "{conflict}");
    assert_eq!(
        world.door.get(&world.namespace, "again").await.unwrap().unwrap().status,
        None
    );
}

#[tokio::test]
async fn a_status_is_written_although_the_spec_changed_meanwhile() {
    let Some(world) = World::new().await else { return };
    let stale = world.cluster("edited").await;
    let edit = json!({ "spec": { "codisProxy": { "replicas": 5 } } });
    world
        .api::<CodisCluster>()
        .patch("edited", &PatchParams::default(), &Patch::Merge(edit))
        .await
        .unwrap();
    let status = CodisClusterStatus {
        observed_generation: stale.metadata.generation,
        ..CodisClusterStatus::default()
    };
    assert_eq!(world.door.patch_status(&stale, &status).await, Ok(true));
    let read = world.door.get(&world.namespace, "edited").await.unwrap().unwrap();
    assert_eq!((read.spec.codis_proxy.replicas, read.status), (5, Some(status)));
}

#[tokio::test]
async fn the_finalizer_comes_and_goes_and_leaves_those_of_others() {
    let Some(world) = World::new().await else { return };
    let cluster = world.cluster("held").await;
    assert_eq!(world.door.add_finalizer(&cluster).await, Ok(true));
    let held = world.door.get(&world.namespace, "held").await.unwrap().unwrap();
    assert_eq!(held.finalizers(), [names::FINALIZER]);
    assert_eq!(world.door.add_finalizer(&held).await, Ok(false));

    let others = json!({ "metadata": { "finalizers": [names::FINALIZER, "example.com/other"] } });
    let api = world.api::<CodisCluster>();
    api.patch("held", &PatchParams::default(), &Patch::Merge(others))
        .await
        .unwrap();
    let stale = world.door.remove_finalizer(&held).await.unwrap_err();
    assert_eq!(
        stale.category(),
        Category::Conflict,
        "a stale list would drop the other's finalizer: {stale}"
    );
    let fresh = world.door.get(&world.namespace, "held").await.unwrap().unwrap();
    assert_eq!(world.door.remove_finalizer(&fresh).await, Ok(true));
    let left = world.door.get(&world.namespace, "held").await.unwrap().unwrap();
    assert_eq!(left.finalizers(), ["example.com/other"]);
    assert_eq!(world.door.remove_finalizer(&left).await, Ok(false));
}

#[tokio::test]
async fn a_cluster_with_the_finalizer_stays_until_it_is_let_go() {
    let Some(world) = World::new().await else { return };
    let cluster = world.cluster("leaving").await;
    world.door.add_finalizer(&cluster).await.unwrap();
    let uid = cluster.uid().unwrap();
    world
        .door
        .delete::<CodisCluster>(&world.namespace, "leaving", &uid, Propagation::Background)
        .await
        .unwrap();
    let leaving = world.door.get(&world.namespace, "leaving").await.unwrap().unwrap();
    assert!(leaving.metadata.deletion_timestamp.is_some());
    assert_eq!(world.door.remove_finalizer(&leaving).await, Ok(true));
    assert_eq!(world.door.get(&world.namespace, "leaving").await, Ok(None));
    assert_eq!(world.door.remove_finalizer(&leaving).await, Ok(false), "gone is fine");
}

#[tokio::test]
async fn equal_events_become_a_series_and_long_notes_are_cut() {
    let Some(world) = World::new().await else { return };
    let cluster = world.cluster("told").await;
    let note = "ä".repeat(1000);
    for _ in 0..2 {
        world
            .door
            .event(&cluster, EventKind::Warning, "GroupDown", "Heal", &note)
            .await
            .unwrap();
    }
    let events = world.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        (event.type_.as_deref(), event.reason.as_deref()),
        (Some("Warning"), Some("GroupDown"))
    );
    assert_eq!(event.note.as_ref().map(String::len), Some(1024));
    assert_eq!(event.series.as_ref().map(|series| series.count), Some(2));
    assert_eq!(
        event.regarding.as_ref().and_then(|about| about.uid.clone()),
        cluster.uid()
    );
}

#[tokio::test]
async fn storage_classes_are_found_by_name_and_by_default() {
    let Some(world) = World::new().await else { return };
    assert_eq!(world.door.storage_class("missing").await, Ok(false));
    assert_eq!(world.door.default_storage_class().await, Ok(None));
    let api = Api::<StorageClass>::all(world.admin.clone());
    for (name, default) in [("plain", "false"), ("fast", "true")] {
        let class = StorageClass {
            metadata: ObjectMeta {
                name: Some(name.into()),
                annotations: Some([("storageclass.kubernetes.io/is-default-class".into(), default.into())].into()),
                ..ObjectMeta::default()
            },
            provisioner: "example.com/none".into(),
            ..StorageClass::default()
        };
        api.create(&PostParams::default(), &class).await.unwrap();
    }
    assert_eq!(world.door.storage_class("plain").await, Ok(true));
    assert_eq!(world.door.default_storage_class().await, Ok(Some("fast".into())));
}
