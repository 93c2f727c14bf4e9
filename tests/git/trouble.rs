//! Servers that misbehave, and what is kept when it's damaged.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use codis_git_server::Fault;
use codis_operator::gitops::git::{ErrorKind, Fetch, Git, Relation};

use crate::support::{KEY, Place, children_with, eventually, program, texts};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_or_drips_is_left_at_the_deadline_and_no_process_stays() {
    let place = Place::new().await;
    let tip = place.at().await;
    let known = BTreeSet::new();
    let fetch = Fetch {
        tip: &tip,
        since: None,
        read: &tip,
        known: &known,
    };
    // Its own link to the program tells this test's workers from others'.
    let link = place.folder.0.join("the-worker-of-this-test");
    std::os::unix::fs::symlink(program(), &link).unwrap();
    let git = Git::new(link.clone(), place.folder.0.join("kept"));
    for fault in [Fault::BlackHole, Fault::Drip, Fault::DripPack] {
        place.server.set_fault("specs", fault.clone());
        let start = Instant::now();
        let error = git
            .fetch(KEY, &place.remote, &fetch, Duration::from_secs(2))
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout, "{fault:?}: {error}");
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{fault:?}: {:?}",
            start.elapsed()
        );
        assert_eq!(
            children_with("the-worker-of-this-test"),
            Vec::<String>::new(),
            "{fault:?}"
        );
    }
    // What the killed workers left behind isn't in the way.
    place.server.set_fault("specs", Fault::None);
    git.fetch(KEY, &place.remote, &fetch, Duration::from_secs(30))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_takes_its_worker_with_it() {
    let place = Place::new().await;
    let tip = place.at().await;
    let link = place.folder.0.join("a-worker-to-be-dropped");
    std::os::unix::fs::symlink(program(), &link).unwrap();
    let git = Git::new(link, place.folder.0.join("kept"));
    place.server.set_fault("specs", Fault::BlackHole);
    let known = BTreeSet::new();
    let fetch = Fetch {
        tip: &tip,
        since: None,
        read: &tip,
        known: &known,
    };
    tokio::select! {
        outcome = git.fetch(KEY, &place.remote, &fetch, Duration::from_secs(60)) => panic!("{outcome:?}"),
        () = eventually("it runs", || !children_with("a-worker-to-be-dropped").is_empty()) => {}
    }
    eventually("it's gone", || children_with("a-worker-to-be-dropped").is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_refs_that_was_cut_off_is_no_commit() {
    let place = Place::new().await;
    let tip = place.at().await;
    place.server.set_fault("specs", Fault::Truncated);
    let error = place.try_fetch(&tip, None, &tip).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gone, "{error}");
    // The same with something kept, where libgit2 would leave the ref as it was.
    place.server.set_fault("specs", Fault::None);
    place.fetch(&tip, None).await;
    let next = place.work.publish("clusters/a.yaml", "a: 2\n").unwrap();
    place.server.set_fault("specs", Fault::Truncated);
    let error = place.try_fetch(&next, Some(&tip), &next).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gone, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_told_apart_by_a_fetch_too() {
    let place = Place::new().await;
    let tip = place.at().await;
    for (fault, kind) in [
        (Fault::Refuse, ErrorKind::Unreachable),
        (Fault::Status(404), ErrorKind::NotFound),
        (Fault::Status(503), ErrorKind::Unreachable),
        (Fault::Status(403), ErrorKind::Credentials),
    ] {
        place.server.set_fault("specs", fault.clone());
        let error = place.try_fetch(&tip, None, &tip).await.unwrap_err();
        assert_eq!(error.kind, kind, "{fault:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_heals_when_it_is_damaged() {
    let place = Place::new().await;
    let first = place.at().await;
    let mut since = first.clone();
    place.fetch(&first, None).await;
    let cut = |path: &Path| {
        let length = fs::metadata(path).unwrap().len();
        let mut permissions = fs::metadata(path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        fs::set_permissions(path, permissions).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(length / 2)
            .unwrap();
    };
    let lock = |path: &Path| fs::write(path, "").unwrap();
    type Damage<'a> = &'a dyn Fn(&Path);
    let damages: [(&str, Damage<'_>); 6] = [
        ("a pack is cut", &|kept| cut(&packs(kept, "pack")[0])),
        ("an index is cut", &|kept| cut(&packs(kept, "idx")[0])),
        ("HEAD is empty", &|kept| fs::write(kept.join("HEAD"), "").unwrap()),
        ("the ref is cut", &|kept| cut(&kept.join("refs/codis/tip"))),
        ("locks are left", &|kept| {
            lock(&kept.join("shallow.lock"));
            lock(&kept.join("refs/codis/tip.lock"));
        }),
        ("the configuration is noise", &|kept| {
            fs::write(kept.join("config"), "[[[").unwrap()
        }),
    ];
    for (number, (what, damage)) in damages.iter().enumerate() {
        damage(&place.kept());
        let text = format!("round: {number}\n");
        let tip = place.work.publish("clusters/a.yaml", &text).unwrap();
        let fetched = place.fetch(&tip, Some(&since)).await;
        assert_eq!(fetched.relation, Relation::Descends, "{what}");
        assert_eq!(texts(&fetched)["clusters/a.yaml"], text, "{what}");
        // The same commit again, from what is damaged.
        damage(&place.kept());
        assert_eq!(
            texts(&place.fetch(&tip, Some(&since)).await)["clusters/a.yaml"],
            text,
            "{what}"
        );
        since = tip;
    }
}

/// The packs or their indices.
fn packs(kept: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(kept.join("objects/pack")).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_pushes_leave_neither_packs_nor_descriptors_behind() {
    let place = Place::new().await;
    let mut since = place.at().await;
    place.fetch(&since, None).await;
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let mut most = 0;
    for number in 0..60 {
        let tip = place.work.publish("clusters/a.yaml", format!("a: {number}\n")).unwrap();
        let fetched = place.fetch(&tip, Some(&since)).await;
        assert_eq!(fetched.relation, Relation::Descends, "push {number}");
        most = most.max(packs(&place.kept(), "pack").len());
        since = tip;
    }
    assert!((2..=51).contains(&most), "{most} packs");
    assert!(
        packs(&place.kept(), "pack").len() < 20,
        "what is kept was never dropped"
    );
    // Other tests of this process open some too; a leak would be one or more for each of the sixty.
    let more = descriptors().saturating_sub(before);
    assert!(more < 40, "{more} more descriptors");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_no_worker_is_an_error_for_the_administrator() {
    let place = Place::new().await;
    let tip = place.at().await;
    let known = BTreeSet::new();
    let fetch = Fetch {
        tip: &tip,
        since: None,
        read: &tip,
        known: &known,
    };
    for program in ["/bin/true", "/bin/false", "/nonexistent"] {
        let git = Git::new(PathBuf::from(program), place.folder.0.join("kept"));
        let error = git
            .fetch(KEY, &place.remote, &fetch, Duration::from_secs(10))
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Worker, "{program}: {error}");
    }
}
