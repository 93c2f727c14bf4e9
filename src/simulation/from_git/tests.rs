//! Worlds whose cluster comes from a Git repository.

use std::time::Duration;

use tokio::time::Instant;

use super::{super::*, *};
use crate::simulation::{
    scenario::Event,
    tests::{end_well, until_one_fails},
    threads::in_virtual_time,
};

/// A world whose cluster is Ready.
async fn world() -> World {
    let plan = Plan {
        seed: 1,
        on_volumes: true,
        groups: 1,
        replicas: 2,
        rivals: false,
        skew: 0,
        outside: false,
        from_git: true,
        bug: None,
    };
    let mut world = World::new(plan).await.unwrap();
    until(&mut world, 300, World::ready).await;
    world
}

async fn until(world: &mut World, seconds: u64, is_so: impl Fn(&World) -> Result<(), String>) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while let Err(said) = is_so(world) {
        assert!(Instant::now() < end, "not within {seconds} s: {said}");
        world.run_until(Instant::now() + Duration::from_millis(100)).await;
    }
}

fn in_a_world(story: impl AsyncFnOnce(World) + Send) {
    let play = || {
        in_virtual_time(async {
            story(world().await).await;
            Ok(())
        })
    };
    on_a_deep_stack(play).unwrap();
}

#[test]
fn a_hand_edit_is_put_back_within_seconds_and_a_push_is_taken_within_one_interval() {
    in_a_world(async |mut world| {
        for deed in [Deed::Edit(Wish::Proxies(3)), Deed::Unmark] {
            world.git(deed).await.unwrap();
            assert!(world.as_in_git().is_err(), "{deed:?} does nothing");
            until(&mut world, 2, World::as_in_git).await;
        }
        world.git(Deed::Push(Wish::Proxies(1))).await.unwrap();
        until(&mut world, 6, World::as_in_git).await;
        let replicas = |world: &World| world.cluster().unwrap()["spec"]["codisProxy"]["replicas"].clone();
        assert_eq!(replicas(&world), 1);
        world.git(Deed::Revert).await.unwrap();
        until(&mut world, 6, World::as_in_git).await;
        assert_eq!(replicas(&world), 2);
    });
}

#[test]
fn whatever_becomes_of_the_repository_the_cluster_stays_and_the_source_says_why() {
    in_a_world(async |mut world| {
        let (mut eye, time) = (Eye::default(), Duration::ZERO);
        for (deed, says) in [
            (Deed::Down(time), "Unreachable"),
            (Deed::Slow(Duration::from_secs(11), time), "Timeout"),
            (Deed::NoBranch(time), "BranchMissing"),
            (Deed::Wiped(time), "RepositoryEmpty"),
            (Deed::Rewound(time), "Rewound"),
            (Deed::Emptied(time), "PathEmpty"),
            (Deed::NoFolder(time), "PathMissing"),
            (Deed::PushBroken(0), "did you mean `groupReplicas`"),
            (Deed::PushBroken(1), "more.yaml"),
            (Deed::PushBroken(2), "is written twice"),
            (Deed::PushBroken(3), "is kube-system"),
        ] {
            let undo = world.git(deed).await.unwrap();
            let is_told = |world: &World| {
                let told = world.told_by_the_source().unwrap_or_default();
                told.contains(says).then_some(()).ok_or(told)
            };
            until(&mut world, 30, is_told).await;
            assert_eq!(eye.look(&world), None, "{deed:?}");
            if let Some(undo) = undo {
                undo.run(&mut world);
                until(&mut world, 30, World::as_in_git).await;
            }
        }
    });
}

#[test]
fn a_few_seeds_with_a_repository_end_well() {
    let swept = sweep(
        &(1..=6),
        2,
        |seed| run(&Scenario::of(seed, "git"), None),
        until_one_fails,
    )
    .unwrap();
    end_well(&swept);
}

#[test]
fn the_same_repository_twice_is_the_same_trace() {
    let mut scenario = Scenario::of(3, "git");
    let deeds = [
        Deed::Push(Wish::Tune(1)),
        Deed::Edit(Wish::Proxies(3)),
        Deed::Slow(Duration::from_secs(11), Duration::from_secs(20)),
    ];
    scenario
        .events
        .extend(deeds.into_iter().zip(1..).map(|(deed, second)| Event {
            at: Duration::from_secs(second),
            act: scenario::Act::Git(deed),
        }));
    let play = || {
        let outcomes = [(); 2].map(|()| run(&scenario, None).unwrap());
        let [one, other] = outcomes.map(|outcome| outcome.trace);
        assert_eq!(one, other);
        Ok(())
    };
    on_a_deep_stack(play).unwrap();
}

#[test]
fn a_commit_ends_the_same_wherever_the_operator_dies() {
    for operation in [Operation::Sync, Operation::Prune] {
        let crashed = crash_everywhere(operation, false, 2).unwrap();
        assert!(crashed.failed.is_empty(), "{operation}: {:?}", crashed.failed);
        assert!(crashed.happened > 0, "{operation}: {crashed:?}");
    }
}
