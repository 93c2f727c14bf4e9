//! The spec files of a commit.

use std::{collections::BTreeSet, os::unix::fs::symlink, time::Instant};

use codis_git_server::Options;
use codis_operator::gitops::git::{Content, ErrorKind, Fetch, Relation, Remote, Tree};

use crate::support::{KEY, PATIENCE, Place, credentials, noise, texts};

#[tokio::test(flavor = "multi_thread")]
async fn only_spec_files_under_the_path_are_read() {
    let place = Place::empty().await;
    for (name, content) in [
        ("clusters/a.yaml", "a"),
        ("clusters/eu/b.yml", "b"),
        ("clusters/eu/west/c.yaml", "c"),
        ("clusters/README.md", "no"),
        ("clusters/.hidden.yaml", "no"),
        ("clusters/.github/x.yaml", "no"),
        ("clusters/yaml", "no"),
        ("clusters2/d.yaml", "no"),
        ("e.yaml", "e"),
    ] {
        place.work.write(name, content).unwrap();
    }
    let tip = place.work.commit("all").unwrap();
    place.work.push("main").unwrap();
    let read = texts(&place.fetch(&tip, None).await);
    let expected = [
        ("clusters/a.yaml", "a"),
        ("clusters/eu/b.yml", "b"),
        ("clusters/eu/west/c.yaml", "c"),
    ];
    assert_eq!(
        read,
        expected.map(|(path, text)| (path.to_owned(), text.to_owned())).into()
    );
    for (path, paths) in [
        ("", 5),
        (".", 5),
        ("./", 5),
        ("./clusters/eu/", 2),
        ("clusters/eu/west", 1),
    ] {
        let fetched = fetch_path(&place, path, &tip).await;
        let Tree::Files(files) = fetched else {
            panic!("{path:?}: {fetched:?}")
        };
        assert_eq!(files.len(), paths, "{path:?}: {files:?}");
    }
}

async fn fetch_path(place: &Place, path: &str, tip: &str) -> Tree {
    let remote = Remote {
        path: path.to_owned(),
        ..place.remote.clone()
    };
    let known = BTreeSet::new();
    let fetch = Fetch {
        tip,
        since: None,
        read: tip,
        known: &known,
    };
    place.git.fetch(KEY, &remote, &fetch, PATIENCE).await.unwrap().tree
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_path_differs_from_one_without_spec_files() {
    let place = Place::new().await;
    place.work.write("empty/README.md", "nothing").unwrap();
    let tip = place.work.commit("empty").unwrap();
    place.work.push("main").unwrap();
    assert_eq!(fetch_path(&place, "absent", &tip).await, Tree::NoPath);
    assert_eq!(fetch_path(&place, "clusters/a.yaml", &tip).await, Tree::NoPath);
    assert_eq!(fetch_path(&place, "empty", &tip).await, Tree::Files(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn known_content_is_not_sent_again() {
    let place = Place::new().await;
    let first = place.at().await;
    let Tree::Files(files) = place.fetch(&first, None).await.tree else {
        panic!()
    };
    let known: BTreeSet<String> = files.iter().map(|file| file.id.clone()).collect();
    let tip = place.work.publish("clusters/b.yaml", "b: 1\n").unwrap();
    let fetch = Fetch {
        tip: &tip,
        since: Some(&first),
        read: &tip,
        known: &known,
    };
    let fetched = place.git.fetch(KEY, &place.remote, &fetch, PATIENCE).await.unwrap();
    let expected = [("clusters/a.yaml", "KNOWN"), ("clusters/b.yaml", "b: 1\n")];
    assert_eq!(
        texts(&fetched),
        expected.map(|(path, text)| (path.to_owned(), text.to_owned())).into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plain_text_file_is_refused_with_the_reason() {
    let place = Place::new().await;
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    place.work.write("clusters/lfs.yaml", pointer).unwrap();
    place
        .work
        .write("clusters/big.yaml", vec![b'#'; (256 << 10) + 1])
        .unwrap();
    place.work.write("clusters/full.yaml", vec![b'#'; 256 << 10]).unwrap();
    place.work.write("clusters/latin.yaml", b"name: M\xfcller").unwrap();
    place.work.write("clusters/nul.yaml", b"a\0b").unwrap();
    symlink("/etc/passwd", place.work.path().join("clusters/link.yaml")).unwrap();
    let head = place.work.head().unwrap();
    let info = format!("160000,{head},clusters/module.yaml");
    place.work.git(&["add", "--all"]).unwrap();
    place
        .work
        .git(&["update-index", "--add", "--cacheinfo", &info])
        .unwrap();
    place.work.git(&["commit", "--quiet", "-m", "odd"]).unwrap();
    place.work.push("main").unwrap();
    let tip = place.at().await;
    let read = texts(&place.fetch(&tip, None).await);
    for (name, part) in [
        ("lfs", "Git LFS"),
        ("big", "256 KiB"),
        ("latin", "UTF-8"),
        ("nul", "control characters"),
        ("link", "symbolic link"),
        ("module", "submodule"),
    ] {
        let text = &read[&format!("clusters/{name}.yaml")];
        assert!(text.starts_with("REFUSED ") && text.contains(part), "{name}: {text}");
    }
    assert_eq!(read["clusters/a.yaml"], "a: 1\n");
    assert_eq!(read["clusters/full.yaml"].len(), 256 << 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_are_named() {
    let place = Place::new().await;
    for number in 0..2_000 {
        place.work.write(&format!("clusters/n{number}.yaml"), "").unwrap();
    }
    let tip = place.work.commit("many").unwrap();
    place.work.push("main").unwrap();
    let error = place.try_fetch(&tip, None, &tip).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge);
    assert!(error.message.contains("2,000"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_larger_than_64_mib_is_not_received() {
    let place = Place::new().await;
    place.work.write("video.bin", noise(66 << 20)).unwrap();
    let tip = place.work.commit("large").unwrap();
    place.work.push("main").unwrap();
    let error = place.try_fetch(&tip, None, &tip).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge, "{error}");
    assert!(error.message.contains("64 MiB"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_unpacks_to_more_than_the_worker_s_memory_is_refused_like_any_large_one() {
    let place = Place::new().await;
    place.work.write("clusters/bomb.yaml", vec![b'#'; 300 << 20]).unwrap();
    let tip = place.work.commit("bomb").unwrap();
    place.work.push("main").unwrap();
    let read = texts(&place.fetch(&tip, None).await);
    assert_eq!(read["clusters/a.yaml"], "a: 1\n");
    assert!(
        read["clusters/bomb.yaml"].contains("256 KiB"),
        "{}",
        read["clusters/bomb.yaml"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_shows_its_credentials_and_ends_when_they_are_refused() {
    let place = Place::empty_with(Options {
        basic_auth: Some(("robot".to_owned(), "hush-hush".to_owned())),
        bearer_token: Some("hush-token".to_owned()),
    })
    .await;
    let tip = place.work.publish("clusters/a.yaml", "a: 1\n").unwrap();
    let known = BTreeSet::new();
    let fetch = Fetch {
        tip: &tip,
        since: None,
        read: &tip,
        known: &known,
    };
    let with = |data: &[(&str, &str)]| Remote {
        credentials: credentials(&place.remote.url, data),
        ..place.remote.clone()
    };
    for good in [
        with(&[("username", "robot"), ("password", "hush-hush")]),
        with(&[("bearerToken", "hush-token")]),
    ] {
        place.git.forget(KEY);
        let fetched = place.git.fetch(KEY, &good, &fetch, PATIENCE).await.unwrap();
        assert_eq!(texts(&fetched)["clusters/a.yaml"], "a: 1\n");
    }
    for (bad, part) in [
        (with(&[("username", "robot"), ("password", "wrong-one")]), "renew them"),
        (with(&[("bearerToken", "wrong-one")]), "renew them"),
        (place.remote.clone(), "name a Secret"),
    ] {
        place.git.forget(KEY);
        let before = place.server.requests();
        let error = place.git.fetch(KEY, &bad, &fetch, PATIENCE).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
        assert!(
            error.message.contains(part) && !error.message.contains("wrong-one"),
            "{error}"
        );
        let requests = place.server.requests() - before;
        assert!(requests <= 2, "{requests} requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_file_among_a_thousand_is_there_at_once() {
    let place = Place::empty().await;
    for number in 0..1_000 {
        let text = format!("kind: CodisCluster\nmetadata:\n  name: c{number}\nspec:\n  groups: {number}\n").repeat(8);
        place.work.write(&format!("clusters/c{number:04}.yaml"), text).unwrap();
    }
    let mut since = place.work.commit("thousand").unwrap();
    place.work.push("main").unwrap();
    let Tree::Files(files) = place.fetch(&since, None).await.tree else {
        panic!()
    };
    let mut known: BTreeSet<String> = files.iter().map(|file| file.id.clone()).collect();
    let mut took = Vec::new();
    for round in 0..5 {
        let tip = place
            .work
            .publish("clusters/c0500.yaml", format!("round: {round}\n"))
            .unwrap();
        let fetch = Fetch {
            tip: &tip,
            since: Some(&since),
            read: &tip,
            known: &known,
        };
        let start = Instant::now();
        let fetched = place.git.fetch(KEY, &place.remote, &fetch, PATIENCE).await.unwrap();
        took.push(start.elapsed());
        assert_eq!(fetched.relation, Relation::Descends);
        let Tree::Files(files) = fetched.tree else { panic!() };
        assert_eq!(files.len(), 1_000);
        let new: Vec<_> = files.iter().filter(|file| file.content != Content::Known).collect();
        assert_eq!(new.len(), 1);
        known.insert(new[0].id.clone());
        since = tip;
    }
    took.sort();
    println!("one changed file among 1,000: {took:?}");
    // Generous: other tests run at the same time.
    assert!(took[0].as_millis() < 500, "{took:?}");
}
