//! Which commit a branch is at.

use std::{fmt::Write, fs, time::Instant};

use codis_git_server::{Fault, Options};
use codis_operator::gitops::git::{ErrorKind, Remote, Tip};

use crate::support::{KEY, Place, credentials};

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_tells_the_commit_that_the_branch_is_at() {
    let place = Place::empty().await;
    let first = place.work.publish("a.yaml", "1").unwrap();
    assert_eq!(place.tip().await.unwrap(), Tip::Commit(first));
    let second = place.work.publish("a.yaml", "2").unwrap();
    assert_eq!(place.tip().await.unwrap(), Tip::Commit(second));
    assert_eq!(place.server.requests(), 2, "a poll is one request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_over_http_is_seen_too() {
    let place = Place::new().await;
    place
        .work
        .git(&["remote", "set-url", "origin", &place.remote.url])
        .unwrap();
    let pushed = place.work.publish("clusters/b.yaml", "b: 1\n").unwrap();
    assert_eq!(place.tip().await.unwrap(), Tip::Commit(pushed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_of_a_repository_with_20000_refs_costs_less_than_4_kib() {
    let place = Place::new().await;
    let head = place.work.head().unwrap();
    let mut packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for number in 0..20_000 {
        writeln!(packed, "{head} refs/pull/{number:05}/head").unwrap();
    }
    fs::write(place.bare.join("packed-refs"), packed).unwrap();
    assert_eq!(place.at().await, head);
    assert!(place.server.bytes_sent() < 4096, "{} bytes", place.server.bytes_sent());
    assert_eq!(place.server.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_is_found_among_20000_that_begin_like_it() {
    let place = Place::new().await;
    let head = place.work.head().unwrap();
    let mut packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for number in 0..20_000 {
        writeln!(packed, "{head} refs/heads/main-{number:05}").unwrap();
    }
    fs::write(place.bare.join("packed-refs"), packed).unwrap();
    assert_eq!(place.at().await, head);
    // When it's gone, the others don't pass for it, and the answer isn't guessed from a part of the list.
    place.work.delete_branch("main").unwrap();
    let missing = Tip::Missing {
        repository_is_empty: false,
    };
    assert_eq!(place.tip().await.unwrap(), missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_branch_differs_from_an_empty_repository() {
    let place = Place::empty().await;
    let missing = |repository_is_empty| Tip::Missing { repository_is_empty };
    assert_eq!(place.tip().await.unwrap(), missing(true));
    place.work.write("a.yaml", "1").unwrap();
    place.work.commit("first").unwrap();
    place.work.push("other").unwrap();
    assert_eq!(place.tip().await.unwrap(), missing(false));
    place.work.push("main").unwrap();
    place.at().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_protocol_v2_is_asked_the_old_way() {
    let place = Place::empty().await;
    place.server.set_fault("specs", Fault::Old);
    let missing = |repository_is_empty| Tip::Missing { repository_is_empty };
    assert_eq!(place.tip().await.unwrap(), missing(true));
    let head = place.work.publish("a.yaml", "1").unwrap();
    assert_eq!(place.at().await, head);
    // It's known by now, so a poll is one request again.
    let before = place.server.requests();
    assert_eq!(place.at().await, head);
    assert_eq!(place.server.requests(), before + 1);
    place.work.push("other").unwrap();
    place.work.delete_branch("main").unwrap();
    assert_eq!(place.tip().await.unwrap(), missing(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_with_sha_256_is_not_supported_and_that_is_said() {
    let place = Place::new().await;
    fs::remove_dir_all(&place.bare).unwrap();
    let bare = place.bare.display().to_string();
    let other = place.folder.0.join("sha256").display().to_string();
    let git = |arguments: &[&str]| place.work.git(arguments).unwrap();
    let sha256 = ["init", "--quiet", "-b", "main", "--object-format=sha256"];
    git(&[&sha256[..], &["--bare", &bare]].concat());
    git(&[&sha256[..], &[&other]].concat());
    git(&["-C", &other, "commit", "--quiet", "--allow-empty", "-m", "first"]);
    git(&["-C", &other, "push", "--quiet", &bare, "main"]);
    let error = place.tip().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(error.message.contains("SHA-256"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_cost_one_request_and_say_what_to_do() {
    let place = Place::empty_with(Options {
        basic_auth: Some(("robot".to_owned(), "hush-hush".to_owned())),
        bearer_token: Some("hush-token".to_owned()),
    })
    .await;
    let head = place.work.publish("clusters/a.yaml", "a: 1\n").unwrap();
    let with = |data: &[(&str, &str)]| Remote {
        credentials: credentials(&place.remote.url, data),
        ..place.remote.clone()
    };
    for good in [
        with(&[("username", "robot"), ("password", "hush-hush")]),
        with(&[("bearerToken", "hush-token")]),
    ] {
        assert_eq!(place.git.tip(KEY, &good).await.unwrap(), Tip::Commit(head.clone()));
    }
    let bad = with(&[("username", "robot"), ("password", "wrong-one")]);
    for (remote, part) in [(bad, "renew them"), (place.remote.clone(), "name a Secret")] {
        let before = place.server.requests();
        let error = place.git.tip(KEY, &remote).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Credentials);
        assert!(error.message.contains(part), "{error}");
        assert!(!error.message.contains("wrong-one"), "{error}");
        assert_eq!(place.server.requests(), before + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_told_apart() {
    let place = Place::new().await;
    for (fault, kind) in [
        (Fault::Refuse, ErrorKind::Unreachable),
        (Fault::Status(404), ErrorKind::NotFound),
        (Fault::Status(500), ErrorKind::Unreachable),
        (Fault::Status(503), ErrorKind::Unreachable),
        (Fault::Status(401), ErrorKind::Credentials),
        (Fault::Status(200), ErrorKind::Protocol),
    ] {
        place.server.set_fault("specs", fault.clone());
        let error = place.tip().await.unwrap_err();
        assert_eq!(error.kind, kind, "{fault:?}: {error}");
    }
    place.server.set_fault("specs", Fault::None);
    place.at().await;
    let nobody = Remote {
        url: "http://127.0.0.1:1/a.git".to_owned(),
        ..place.remote.clone()
    };
    assert_eq!(
        place.git.tip(KEY, &nobody).await.unwrap_err().kind,
        ErrorKind::Unreachable
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_or_drips_costs_ten_seconds_and_no_more() {
    let left = async |fault: Fault| {
        let place = Place::new().await;
        place.server.set_fault("specs", fault.clone());
        let start = Instant::now();
        let error = place.tip().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout, "{fault:?}: {error}");
        assert!(start.elapsed().as_secs() < 13, "{:?}", start.elapsed());
    };
    tokio::join!(left(Fault::BlackHole), left(Fault::Drip));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_is_not_followed_and_its_host_is_named() {
    let mut place = Place::new().await;
    let other = Place::new().await;
    // "localhost" is another host than 127.0.0.1.
    let to = format!("http://localhost:{}", other.server.address().port());
    place.server.set_fault("specs", Fault::Redirect(to));
    let data = [("username", "robot"), ("password", "hush-hush")];
    place.remote.credentials = credentials(&place.remote.url, &data);
    let error = place.tip().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
    assert!(error.message.contains("localhost"), "{error}");
    let error = place
        .try_fetch(&place.work.head().unwrap(), None, &place.work.head().unwrap())
        .await;
    assert_eq!(error.unwrap_err().kind, ErrorKind::Protocol);
    assert_eq!(other.server.requests(), 0);
}
