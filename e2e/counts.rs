//! That the suite's own count is right: what is lost, older or done twice behind its back is noticed, and nothing else is.

use anyhow::{Context, Result, ensure};

use crate::support::{
    cluster::Cluster,
    load::{Ended, Load},
    resp::Reply,
    runner::{Story, Told},
    spec::SMALL,
};

pub async fn story(story: &mut Story<'_>) -> Told {
    let cluster = story.cluster("a small cluster", SMALL).await?;
    let ended = story
        .check("nothing is lost where nothing happens", undisturbed(&cluster))
        .await?;
    story
        .check(
            "one lost, one older, one counted twice: each is noticed",
            disturbed(&cluster, &ended),
        )
        .await
}

async fn undisturbed(cluster: &Cluster) -> Result<Ended> {
    let ended = Load::start(cluster, "counts").await?.stop().await?;
    let verdict = ended.check().await?;
    verdict.nothing_lost()?;
    ensure!(verdict.client_errors() == 0, "errors: {:?}", verdict.errors);
    ensure!(verdict.reads > 0, "nothing was read");
    Ok(ended)
}

async fn disturbed(cluster: &Cluster, ended: &Ended) -> Result<()> {
    let keys = ended.keys();
    let of = |kind: &str| keys.iter().find(|key| key.starts_with(kind)).context("no such key");
    let (unique, counter, tally) = (of("u:")?, of("c:")?, of("n:")?);
    let mut client = cluster.client().await?;
    client.call(&[b"DEL", unique.as_bytes()]).await?;
    // Its first state: any later acknowledged one makes this an older one.
    client
        .call(&[b"SET", counter.as_bytes(), format!("{counter}=1").as_bytes()])
        .await?;
    let Reply::Status(count) = client.call(&[b"INCR", tally.as_bytes()]).await? else {
        anyhow::bail!("INCR is refused");
    };
    ensure!(count.parse::<u64>()? > 1, "nothing was counted");
    let verdict = ended.check().await?;
    ensure!(verdict.lost == [unique.clone()], "lost: {:?}", verdict.lost);
    ensure!(verdict.resurrected.len() == 1, "resurrected: {:?}", verdict.resurrected);
    ensure!(verdict.duplicated.len() == 1, "duplicated: {:?}", verdict.duplicated);
    ensure!(verdict.nothing_lost().is_err(), "and it is called good");
    Ok(())
}
