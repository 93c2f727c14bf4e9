//! How a tip follows the commit in force.

use std::fs;

use codis_operator::gitops::git::{ErrorKind, Relation};

use crate::support::{KEY, Place, noise, texts};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_commit_descends_and_brings_only_what_is_new() {
    let place = Place::new().await;
    let first = place.at().await;
    assert_eq!(place.fetch(&first, None).await.relation, Relation::None);
    let second = place.work.publish("clusters/a.yaml", "a: 2\n").unwrap();
    let fetched = place.fetch(&second, Some(&first)).await;
    assert_eq!(fetched.relation, Relation::Descends);
    assert_eq!(texts(&fetched)["clusters/a.yaml"], "a: 2\n");
    // Everything is there by now: no network at all.
    let before = place.server.requests();
    assert_eq!(place.fetch(&second, Some(&first)).await.relation, Relation::Descends);
    assert_eq!(place.fetch(&second, Some(&second)).await.relation, Relation::Same);
    let old = place.try_fetch(&second, Some(&first), &first).await.unwrap();
    assert_eq!(texts(&old)["clusters/a.yaml"], "a: 1\n");
    assert_eq!(place.server.requests(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_of_a_branch_from_before_the_first_fetch_descends() {
    let place = Place::new().await;
    place.work.git(&["branch", "side"]).unwrap();
    for number in 0..3 {
        place.work.publish("clusters/a.yaml", format!("a: {number}\n")).unwrap();
    }
    let first = place.at().await;
    place.fetch(&first, None).await;
    place.work.git(&["checkout", "--quiet", "side"]).unwrap();
    place.work.write("clusters/b.yaml", "b: 1\n").unwrap();
    place.work.commit("side").unwrap();
    place.work.git(&["merge", "--quiet", "-m", "merge", "main"]).unwrap();
    place.work.push("main").unwrap();
    let fetched = place.fetch(&place.at().await, Some(&first)).await;
    assert_eq!(fetched.relation, Relation::Descends);
    assert_eq!(texts(&fetched)["clusters/b.yaml"], "b: 1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_kept_and_a_commit_in_force_of_long_ago_still_descends() {
    for commits in [3, 80] {
        let place = Place::new().await;
        let first = place.at().await;
        for number in 0..commits {
            place.work.write("clusters/a.yaml", format!("a: {number}\n")).unwrap();
            place.work.commit("more").unwrap();
        }
        place.work.push("main").unwrap();
        let tip = place.at().await;
        let fetched = place.fetch(&tip, Some(&first)).await;
        assert_eq!(fetched.relation, Relation::Descends, "{commits} commits");
        let old = place.try_fetch(&tip, Some(&first), &first).await.unwrap();
        assert_eq!(texts(&old)["clusters/a.yaml"], "a: 1\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_set_back_is_rewound_and_forward_again_descends() {
    let place = Place::new().await;
    let first = place.at().await;
    let second = place.work.publish("clusters/a.yaml", "a: 2\n").unwrap();
    assert_eq!(place.fetch(&second, None).await.relation, Relation::None);
    place.work.git(&["reset", "--quiet", "--hard", &first]).unwrap();
    place.work.force_push("main").unwrap();
    assert_eq!(place.at().await, first);
    let fetched = place.fetch(&first, Some(&second)).await;
    assert_eq!(fetched.relation, Relation::Rewound);
    assert_eq!(texts(&fetched)["clusters/a.yaml"], "a: 1\n");
    // The commit in force can still be read, again without the network.
    let before = place.server.requests();
    let held = place.try_fetch(&first, Some(&second), &second).await.unwrap();
    assert_eq!(
        (held.relation, texts(&held)["clusters/a.yaml"].as_str()),
        (Relation::Rewound, "a: 2\n")
    );
    assert_eq!(place.server.requests(), before);
    // What is kept knows the second commit only without its parents; it must not call this a rewind.
    place.work.git(&["reset", "--quiet", "--hard", &second]).unwrap();
    place.work.force_push("main").unwrap();
    assert_eq!(place.fetch(&second, Some(&first)).await.relation, Relation::Descends);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amended_commit_and_an_unrelated_history_are_rewound() {
    let place = Place::new().await;
    for number in 0..100 {
        place.work.write("clusters/a.yaml", format!("a: {number}\n")).unwrap();
        place.work.commit("more").unwrap();
    }
    place.work.push("main").unwrap();
    let good = place.at().await;
    place.fetch(&good, None).await;
    place.work.write("clusters/a.yaml", "a: amended\n").unwrap();
    place.work.git(&["add", "--all"]).unwrap();
    place
        .work
        .git(&["commit", "--quiet", "--amend", "-m", "amended"])
        .unwrap();
    place.work.force_push("main").unwrap();
    let amended = place.at().await;
    let fetched = place.fetch(&amended, Some(&good)).await;
    assert_eq!(fetched.relation, Relation::Rewound);
    assert_eq!(texts(&fetched)["clusters/a.yaml"], "a: amended\n");
    place.work.git(&["checkout", "--quiet", "--orphan", "other"]).unwrap();
    place.work.write("clusters/z.yaml", "z: 1\n").unwrap();
    let unrelated = place.work.commit("unrelated").unwrap();
    place.work.force_push("main").unwrap();
    let fetched = place.fetch(&unrelated, Some(&good)).await;
    assert_eq!(fetched.relation, Relation::Rewound);
    assert_eq!(texts(&fetched)["clusters/z.yaml"], "z: 1\n");
    let held = place.try_fetch(&unrelated, Some(&good), &good).await.unwrap();
    assert_eq!(texts(&held)["clusters/a.yaml"], "a: 99\n");
    // And on from there, with the old commit still in force.
    place.work.write("clusters/z.yaml", "z: 2\n").unwrap();
    let next = place.work.commit("next").unwrap();
    place.work.push("main").unwrap();
    assert_eq!(place.fetch(&next, Some(&good)).await.relation, Relation::Rewound);
    assert_eq!(place.fetch(&next, Some(&unrelated)).await.relation, Relation::Descends);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_force_that_nobody_has_any_more_is_gone_to_read_but_the_tip_is_not() {
    let place = Place::new().await;
    let tip = place.at().await;
    let lost = "0123456789012345678901234567890123456789";
    let fetched = place.fetch(&tip, Some(lost)).await;
    assert_eq!(fetched.relation, Relation::Rewound);
    let error = place.try_fetch(&tip, Some(lost), lost).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gone, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tip_that_moved_meanwhile_is_gone_until_it_is_polled_again() {
    let place = Place::new().await;
    let seen = place.at().await;
    let moved = place.work.publish("clusters/a.yaml", "a: 2\n").unwrap();
    let error = place.try_fetch(&seen, None, &seen).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gone, "{error}");
    place.fetch(&moved, None).await;
    // A branch that is gone isn't the commit that it was at.
    let next = place.work.publish("clusters/a.yaml", "a: 3\n").unwrap();
    place
        .work
        .git(&["push", "--quiet", "origin", "HEAD:refs/heads/other"])
        .unwrap();
    place.work.delete_branch("main").unwrap();
    let error = place.try_fetch(&next, Some(&moved), &next).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gone, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_url_or_branch_does_not_find_what_was_kept() {
    let mut place = Place::new().await;
    let first = place.at().await;
    place.fetch(&first, None).await;
    place.work.push("other").unwrap();
    place.remote.branch = "other".to_owned();
    let before = place.server.requests();
    place.fetch(&first, None).await;
    assert!(place.server.requests() > before);
    assert!(fs::metadata(place.kept()).unwrap().is_dir(), "only one is kept");
    place.git.forget(KEY);
    assert_eq!(fs::read_dir(place.folder.0.join("kept")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_too_large_to_look_through_is_rewound_and_its_tip_can_be_read() {
    let place = Place::new().await;
    let good = place.at().await;
    place.fetch(&good, None).await;
    place.work.git(&["checkout", "--quiet", "--orphan", "other"]).unwrap();
    place.work.write("video.bin", noise(66 << 20)).unwrap();
    place.work.commit("large").unwrap();
    place.work.remove("video.bin").unwrap();
    place.work.write("clusters/a.yaml", "a: 2\n").unwrap();
    let tip = place.work.commit("small").unwrap();
    place.work.force_push("main").unwrap();
    let fetched = place.fetch(&tip, Some(&good)).await;
    assert_eq!(fetched.relation, Relation::Rewound);
    assert_eq!(texts(&fetched)["clusters/a.yaml"], "a: 2\n");
    let held = place.try_fetch(&tip, Some(&good), &good).await.unwrap();
    assert_eq!(texts(&held)["clusters/a.yaml"], "a: 1\n");
    // The same with nothing kept, where only the commit in force is lost.
    place.git.forget(KEY);
    let fetched = place.fetch(&tip, Some(&good)).await;
    assert_eq!(fetched.relation, Relation::Rewound);
    assert_eq!(texts(&fetched)["clusters/a.yaml"], "a: 2\n");
    let error = place.try_fetch(&tip, Some(&good), &good).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gone, "{error}");
}
