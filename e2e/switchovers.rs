//! Switchovers by request, as `kubectl codis promote` asks for them, under clients; some with a replica that hangs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{
    deeds::{ask_to_promote, dealt_with, pod, spread},
    support::{
        cluster::Cluster,
        health::Snapshot,
        load::Load,
        processes::signal,
        runner::{Story, Told, times},
        spec::{SMALL, Shape},
        wait::secs,
    },
};

/// Three in a group: one can hang that isn't the one to be promoted.
const SHAPE: Shape = Shape {
    group_replicas: 3,
    ..SMALL
};
/// A replica hangs for this long; shorter than the sentinels wait.
const STALL: Duration = secs(3);
/// No client may wait longer than the lock holds.
const LONGEST_PAUSE: Duration = secs(6);

/// Who hangs during a switchover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stalled {
    Nobody,
    Target,
    Other,
}

pub async fn story(story: &mut Story<'_>) -> Told {
    let cluster = story.cluster("two groups of three", SHAPE).await?;
    let count = times(30);
    story
        .check(
            &format!("{count} switchovers by request lose nothing, a third of them with a stalled replica"),
            many(&cluster, count),
        )
        .await?;
    story
        .check(
            "a request for a pod that isn't there is refused, with the reason",
            refused(&cluster),
        )
        .await
}

async fn many(cluster: &Cluster, count: usize) -> Result<()> {
    let load = Load::start(cluster, "switchovers").await?;
    let (mut plain, mut stalled, mut refused) = (Vec::new(), Vec::new(), 0);
    let all = async {
        for number in 0..count {
            let who = match number % 6 {
                2 => Stalled::Target,
                5 => Stalled::Other,
                _ => Stalled::Nobody,
            };
            load.next_pause();
            let done = one(cluster, &load, number, who).await;
            let done = done.with_context(|| format!("switchover {number}, stalled: {who:?}"))?;
            let pauses = if who == Stalled::Nobody {
                &mut plain
            } else {
                &mut stalled
            };
            pauses.push(load.next_pause());
            refused += usize::from(!done);
        }
        Ok(())
    };
    let all: Result<()> = all.await;
    let verdict = load.check().await?;
    println!("        write pause of a switchover: {}", spread(&plain));
    println!(
        "        with a stalled replica: {}; {refused} refused",
        spread(&stalled)
    );
    all?;
    verdict.nothing_lost()?;
    let longest = plain.iter().max().copied().unwrap_or_default();
    ensure!(longest <= LONGEST_PAUSE, "clients waited {longest:?}");
    Ok(())
}

/// One switchover; whether it was done. Only where somebody hangs it may be refused.
async fn one(cluster: &Cluster, load: &Load, number: usize, who: Stalled) -> Result<bool> {
    let before = cluster.healthy(secs(90)).await?;
    let groups: Vec<i64> = before.topology.groups.keys().copied().collect();
    let group = groups[number % groups.len()];
    let replicas = before.topology.groups[&group].servers.iter().skip(1);
    let replicas: Vec<String> = replicas
        .map(|server| before.pod_at(&server.address))
        .collect::<Result<_>>()?;
    let (target, other) = (&replicas[0], &replicas[1]);
    let hanging = match who {
        Stalled::Nobody => None,
        Stalled::Target => Some(pod(&before, target)?),
        Stalled::Other => Some(pod(&before, other)?),
    };
    signal(hanging, "SIGSTOP").await?;
    let asked = ask_to_promote(cluster, group, Some(target), &format!("e2e-{number}")).await;
    if let (Some(_), Ok(request)) = (hanging, &asked) {
        let _: Result<_> = dealt_with(cluster, request, STALL).await;
    }
    signal(hanging, "SIGCONT").await?;
    let promotion = dealt_with(cluster, &asked?, secs(60)).await?;
    load.goes_on(secs(10)).await?;
    let after = Snapshot::take(cluster).await?.master_of(group)?;
    if promotion.outcome == "Done" {
        ensure!(
            after == *target,
            "{after} is master, not {target}: {}",
            promotion.message
        );
        return Ok(true);
    }
    ensure!(who != Stalled::Nobody, "refused: {}", promotion.message);
    ensure!(after == before.master_of(group)?, "refused, but {after} is master now");
    Ok(false)
}

async fn refused(cluster: &Cluster) -> Result<()> {
    let request = ask_to_promote(cluster, 1, Some("nobody"), "e2e").await?;
    let promotion = dealt_with(cluster, &request, secs(30)).await?;
    println!("        {}: {}", promotion.outcome, promotion.message);
    ensure!(promotion.outcome == "Refused", "{promotion:?}");
    Ok(())
}
