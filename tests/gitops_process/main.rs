//! Another process takes over: nothing is written twice, nothing is forgotten. And the folder as a source.
//!
//! Each test has engines of its own, which would serve the other tests' sources too: so one test runs at a time.

// The lint's own exception for tests doesn't reach their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../gitops/world.rs"]
mod world;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use kube::api::DeleteParams;
use serde_json::json;
use support::apiserver::User;
use tokio::sync::Mutex;
use world::{World, engine, eventually, file, proxies, spec_writes};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_in_the_middle_of_a_commit_is_followed_by_one_that_applies_the_rest_once() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(world) = World::unserved().await else { return };
    let names: Vec<String> = (0..20).map(|n| format!("c{n:02}")).collect();
    for name in &names {
        world
            .tree
            .write(&format!("clusters/{name}.yaml"), file(name, 1))
            .unwrap();
    }
    world.tree.commit("twenty").unwrap();
    world.tree.push("main").unwrap();
    world.source().await;

    let mut first = Operator::start(&world, "first");
    eventually("some clusters to be written", async || {
        (world.spec_writes().0.len() >= 3).then_some(()).ok_or_else(String::new)
    })
    .await;
    first.kill();
    let written = world.spec_writes().0.len();
    assert!(written < names.len(), "all {written} were written before the kill");
    println!("killed after {written} of {} clusters", names.len());

    let _second = Operator::start(&world, "second");
    let status = world.reason("fleet", "Applied").await;
    assert_eq!(status.clusters, Some(20));
    // Each was created (201), and none written again (200). One that was under way when its client was killed may have
    // been created without an answer, so it is missing here; that it is there is seen below.
    let served = world.server.served(User::Operator, &world.namespace);
    let (written, _) = spec_writes(&served);
    let once: BTreeSet<&String> = written.iter().collect();
    assert_eq!(once.len(), written.len(), "{written:?}");
    let again: Vec<_> = served
        .iter()
        .filter(|logged| spec_writes(std::slice::from_ref(logged)).0.len() == 1)
        .filter(|logged| logged.code != Some(201))
        .collect();
    assert!(again.is_empty(), "written again: {again:#?}");
    for name in &names {
        let whole = |c: &codis_operator::api::CodisCluster| c.status.as_ref().is_some_and(|s| s.gitops.is_some());
        world.cluster(name, "its origin", whole).await;
    }
}

/// The operator, as a process of its own.
struct Operator(Child);

impl Operator {
    fn start(world: &World, identity: &str) -> Self {
        let log = fs::File::create(root(world).with_extension(format!("{identity}.log"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_codis-operator"))
            .args(["run", "--listen", "127.0.0.1:0", "--identity", identity])
            .args(["--namespace", &world.namespace])
            .env("KUBECONFIG", world.server.kubeconfig(User::Operator))
            .env("TMPDIR", world.root)
            .stdout(log.try_clone().map(Stdio::from).unwrap())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_begins_anew_writes_nothing_and_sees_what_was_changed_meanwhile() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(world) = World::unserved().await else { return };
    for name in ["a", "b", "c"] {
        world
            .tree
            .write(&format!("clusters/{name}.yaml"), file(name, 1))
            .unwrap();
    }
    world.tree.commit("three").unwrap();
    world.tree.push("main").unwrap();
    world.source().await;
    let first = tokio::spawn(engine(world.server, root(&world), None));
    world.reason("fleet", "Applied").await;
    for name in ["a", "b", "c"] {
        let whole = |c: &codis_operator::api::CodisCluster| c.status.as_ref().is_some_and(|s| s.gitops.is_some());
        world.cluster(name, "its origin", whole).await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());

    // Nobody sees these: they are found by the next one.
    world
        .edit("b", json!({ "spec": { "codisProxy": { "replicas": 4 } } }))
        .await;
    world.clusters().delete("c", &DeleteParams::default()).await.unwrap();
    let writes = || world.server.writes(User::Operator, &world.namespace);
    let before = writes().len();
    let second = tokio::spawn(engine(world.server, root(&world), None));
    world.cluster("b", "one proxy again", |c| proxies(c) == 1).await;
    world.cluster("c", "to be there again", |_| true).await;
    assert!(world.event("HandEditReverted").await.contains("kubectl-edit"));
    world.poke("fleet").await;
    second.abort();
    let about_a: Vec<_> = writes()
        .into_iter()
        .skip(before)
        .filter(|write| write.name == "a")
        .collect();
    assert!(about_a.is_empty(), "{about_a:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_begins_with_an_edit_that_cant_be_put_back_goes_on_with_the_others() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(world) = World::unserved().await else { return };
    world.tree.write("clusters/a.yaml", file("a", 1)).unwrap();
    world.tree.publish("clusters/b.yaml", file("b", 1)).unwrap();
    world.source().await;
    let first = tokio::spawn(engine(world.server, root(&world), None));
    world.reason("fleet", "Applied").await;
    // Sentinels that were added: the API server lets none be taken away.
    world
        .edit(
            "a",
            json!({ "spec": { "sentinel": { "replicas": 3, "image": "codis" } } }),
        )
        .await;
    world.status("fleet", "something held", |s| !s.held.is_empty()).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());

    let second = tokio::spawn(engine(world.server, root(&world).join("second"), None));
    world.poke("fleet").await;
    world
        .edit("b", json!({ "spec": { "codisProxy": { "replicas": 4 } } }))
        .await;
    world.cluster("b", "one proxy again", |c| proxies(c) == 1).await;
    let status = world.reason("fleet", "Applied").await;
    assert!(
        status.held.iter().any(|held| held.starts_with("a: spec.sentinel")),
        "{status:#?}"
    );
    // Nor does it stand in the way of a commit that isn't about it.
    world.tree.publish("clusters/b.yaml", file("b", 2)).unwrap();
    world.poke("fleet").await;
    world.cluster("b", "two proxies", |c| proxies(c) == 2).await;
    world.reason("fleet", "Applied").await;
    second.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_begins_at_a_rejected_commit_enforces_the_one_before() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(world) = World::unserved().await else { return };
    let with_sentinels =
        |proxies, count: u8| file("a", proxies) + &format!("  sentinel:\n    replicas: {count}\n    image: codis\n");
    world.tree.publish("clusters/a.yaml", with_sentinels(1, 3)).unwrap();
    world.source().await;
    let first = tokio::spawn(engine(world.server, root(&world), None));
    world.reason("fleet", "Applied").await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    for (what, broken) in [
        ("by the API server", with_sentinels(2, 1)),
        ("by its reader", file("a", 2).replace("replicas", "replicsa")),
    ] {
        world.tree.publish("clusters/a.yaml", broken).unwrap();
        // Nothing is kept of the repository: the commit in force has to be fetched too.
        let next = tokio::spawn(engine(world.server, root(&world).join(what), None));
        world
            .status("fleet", what, |s| {
                let head = world.tree.head().unwrap();
                s.last_attempted_revision.as_ref().is_some_and(|r| r.ends_with(&head)) && !s.problems.is_empty()
            })
            .await;
        world
            .edit("a", json!({ "spec": { "codisProxy": { "replicas": 4 } } }))
            .await;
        world.cluster("a", "one proxy again", |c| proxies(c) == 1).await;
        next.abort();
        assert!(next.await.unwrap_err().is_cancelled());
    }
}

fn root(world: &World) -> PathBuf {
    world.root.join(format!("second-{}", world.namespace))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_folder_is_a_source() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(world) = World::unserved().await else { return };
    let mount = root(&world).join("mount");
    // As the kubelet mounts a ConfigMap: files are links into a folder that is swapped.
    let swap = |version: &str, content: &str| {
        let data = mount.join(format!("..{version}"));
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("a.yaml"), content).unwrap();
        std::os::unix::fs::symlink(format!("..{version}"), mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    swap("1", &file("a", 1));
    std::os::unix::fs::symlink("..data/a.yaml", mount.join("a.yaml")).unwrap();
    let watched = Some((mount.clone(), world.namespace.clone()));
    let folder = tokio::spawn(engine(world.server, root(&world).join("work"), watched));
    let whole = |c: &codis_operator::api::CodisCluster| c.status.as_ref().is_some_and(|s| s.gitops.is_some());
    let cluster = world.cluster("a", "the cluster", whole).await;
    let told = cluster.status.unwrap().gitops.unwrap();
    assert_eq!((told.source.as_str(), told.path.as_str()), ("watch_dir", "a.yaml"));
    assert!(told.revision.starts_with("dir@sha256:"), "{told:?}");
    swap("2", &file("a", 2));
    world.cluster("a", "the new content", |c| proxies(c) == 2).await;
    world
        .edit("a", json!({ "spec": { "codisProxy": { "replicas": 4 } } }))
        .await;
    world.cluster("a", "two proxies again", |c| proxies(c) == 2).await;
    swap("3", "kind: Nonsense\n");
    fs::remove_file(mount.join("a.yaml")).unwrap();
    // Neither nonsense nor emptiness changes anything: an edit is still put back to what was good.
    world
        .edit("a", json!({ "spec": { "codisProxy": { "replicas": 5 } } }))
        .await;
    world.cluster("a", "two proxies again", |c| proxies(c) == 2).await;
    folder.abort();
}
