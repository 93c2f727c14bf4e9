//! Whose a cluster is, and which credentials a source has.

use codis_operator::api::{CodisCluster, CodisClusterSpec};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::world::{World, file, proxies};

async fn by_hand(world: &World, name: &str, metadata: Value) {
    let whole: Value = serde_yaml::from_str(&file(name, 2)).unwrap();
    let spec: CodisClusterSpec = serde_json::from_value(whole["spec"].clone()).unwrap();
    let mut cluster = CodisCluster::new(name, spec);
    let more: ObjectMeta = serde_json::from_value(metadata).unwrap();
    (cluster.metadata.labels, cluster.metadata.annotations) = (more.labels, more.annotations);
    world.clusters().create(&PostParams::default(), &cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_made_by_hand_is_left_alone_until_a_person_hands_it_over() {
    let Some(world) = World::new().await else { return };
    by_hand(&world, "a", json!({})).await;
    world.tree.write("clusters/a.yaml", file("a", 1)).unwrap();
    world.tree.publish("clusters/b.yaml", file("b", 1)).unwrap();
    world.source().await;
    let status = world.reason("fleet", "CommitRejected").await;
    let problem = &status.problems[0];
    assert_eq!((problem.file.as_str(), problem.line), ("clusters/a.yaml", Some(4)));
    let command = format!(
        "kubectl label -n {} codiscluster a codis.k8s.io/source=fleet --overwrite",
        world.namespace
    );
    assert!(problem.message.contains(&command), "{problem:?}");
    assert_eq!(proxies(&world.clusters().get("a").await.unwrap()), 2);
    assert!(world.clusters().get_opt("b").await.unwrap().is_none(), "all or nothing");

    // The person does what the message says: the commit is tried again by itself.
    world
        .edit(
            "a",
            json!({ "metadata": { "labels": { "codis.k8s.io/source": "fleet" } } }),
        )
        .await;
    world.cluster("a", "what Git says", |c| proxies(c) == 1).await;
    world.reason("fleet", "Applied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_source_or_another_tool_keeps_is_refused() {
    let Some(world) = World::new().await else { return };
    by_hand(
        &world,
        "flux",
        json!({ "labels": { "kustomize.toolkit.fluxcd.io/name": "apps" } }),
    )
    .await;
    by_hand(
        &world,
        "argo",
        json!({ "annotations": { "argocd.argoproj.io/tracking-id": "x" } }),
    )
    .await;
    world.tree.write("first/a.yaml", file("a", 1)).unwrap();
    world.tree.write("clusters/a.yaml", file("a", 3)).unwrap();
    world.tree.write("clusters/argo.yaml", file("argo", 1)).unwrap();
    world.tree.publish("clusters/flux.yaml", file("flux", 1)).unwrap();
    world.source_with("first", json!({ "path": "first" })).await;
    world.reason("first", "Applied").await;
    world.source().await;
    let status = world.reason("fleet", "CommitRejected").await;
    let all: Vec<_> = status.problems.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[0].contains("belongs to the source first"), "{all:?}");
    assert!(all[1].contains("Argo CD") && all[2].contains("Flux"), "{all:?}");
    assert_eq!(proxies(&world.clusters().get("a").await.unwrap()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_needed_where_one_is_named_and_its_change_is_noticed() {
    let Some(world) = World::new().await else { return };
    world.tree.publish("clusters/a.yaml", file("a", 1)).unwrap();
    let auth = codis_git_server::Options {
        basic_auth: Some(("robot".into(), "right".into())),
        ..codis_git_server::Options::default()
    };
    let private = codis_git_server::GitServer::start("127.0.0.1:0", world.root, auth)
        .await
        .unwrap();
    let url = private.url(&world.repository);
    world
        .source_with("fleet", json!({ "url": url, "secretRef": { "name": "git" } }))
        .await;
    world.reason("fleet", "SecretMissing").await;

    let api = Api::<Secret>::namespaced(world.admin.clone(), &world.namespace);
    let data = |password: &str| {
        Some(
            [
                ("username".to_owned(), ByteString(b"robot".to_vec())),
                ("password".to_owned(), ByteString(password.into())),
            ]
            .into(),
        )
    };
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some("git".into()),
            ..ObjectMeta::default()
        },
        data: data("wrong"),
        ..Secret::default()
    };
    api.create(&PostParams::default(), &secret).await.unwrap();
    world.poke("fleet").await;
    let status = world.reason("fleet", "CredentialsRefused").await;
    assert!(!format!("{status:?}").contains("wrong"), "{status:?}");
    let right = Secret {
        data: data("right"),
        ..Secret::default()
    };
    api.patch("git", &PatchParams::default(), &Patch::Merge(right))
        .await
        .unwrap();
    world.poke("fleet").await;
    world.reason("fleet", "Applied").await;
}
