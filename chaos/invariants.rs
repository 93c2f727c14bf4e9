//! What must hold after a fault. That the cluster is healthy again in every respect (`support::health`) and that
//! writes are acknowledged in every group is asked of each row before these.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{outcome::Outcome, support::writer::Acknowledged};

/// An invariant.
pub type Invariant = fn(&Outcome) -> Result<()>;

/// Acknowledged writes that may be lost with a master whose memory was the only other copy: replication is
/// asynchronous, and what was in the socket when it died is gone.
const REPLICATION_LAG: usize = 20;
/// With `appendfsync everysec` redis keeps what it wrote to itself while the disk still syncs the second before, for this
/// long at most: a server that is killed in that moment hasn't written it. Other copies have it, unless they die, too, or
/// the server returns as their master.
const POSTPONED: Duration = Duration::from_secs(2);
/// A reply that was sent is read by the client within this, also on a busy machine.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// A server that is away for less than this is no reason for a failover (the sentinels wait five seconds).
const SHORT: f64 = 4.0;

/// Every acknowledged write can be read.
pub fn nothing_is_lost(outcome: &Outcome) -> Result<()> {
    ensure!(
        outcome.lost.is_empty(),
        "{} acknowledged writes are lost: {:?}…",
        outcome.lost.len(),
        sample(outcome)
    );
    Ok(())
}

/// The data comes from disks: no more is lost than what wasn't written to them when the processes died.
pub fn only_unwritten_tails_are_lost(outcome: &Outcome) -> Result<()> {
    let times = || outcome.lost.iter().map(|write| write.at);
    let (Some(oldest), Some(newest)) = (times().min(), times().max()) else {
        return Ok(());
    };
    ensure!(
        newest <= outcome.dead + UNDER_WAY,
        "a write is lost that was acknowledged after the kill: {:?}…",
        sample(outcome)
    );
    let age = outcome.at.saturating_duration_since(oldest);
    println!(
        "        {} writes are lost, the oldest was acknowledged {} ms before the kill",
        outcome.lost.len(),
        age.as_millis()
    );
    ensure!(
        age <= POSTPONED,
        "a write is lost that was acknowledged {:.1} s before the kill: {:?}…",
        age.as_secs_f64(),
        sample(outcome)
    );
    Ok(())
}

/// A master's process died and came back over its data. Where it is master still, it has what it had handed to its disk,
/// and its replicas copied it anew; where it was replaced, its replica has what it had been sent.
pub fn only_the_tail_of_the_dead_master_is_lost(outcome: &Outcome) -> Result<()> {
    let mut replaced = false;
    for (group, master) in outcome.masters_killed() {
        replaced |= outcome.after.master_of(group)? != master;
    }
    if replaced {
        only_the_replication_lag_is_lost(outcome)
    } else {
        only_unwritten_tails_are_lost(outcome)
    }
}

/// No more is lost than what the dead master hadn't sent to its replica.
pub fn only_the_replication_lag_is_lost(outcome: &Outcome) -> Result<()> {
    let lost = outcome.lost.len();
    ensure!(
        lost <= REPLICATION_LAG,
        "{lost} acknowledged writes are lost: {:?}…",
        sample(outcome)
    );
    Ok(())
}

/// A master that was away shortly is master again; the machine must have been quick enough for "shortly".
pub fn a_short_absence_changes_no_master(outcome: &Outcome) -> Result<()> {
    let away = outcome.away.as_secs_f64();
    if away >= SHORT {
        println!("        the machine needed {away:.1} s to bring the pod back: no short kill, a promotion is allowed");
        return Ok(());
    }
    for (group, master) in outcome.masters_killed() {
        let now = outcome.after.master_of(group)?;
        ensure!(
            now == master,
            "group {group}: {master} was away for {away:.1} s, and {now} is master"
        );
    }
    Ok(())
}

/// Every killed master was replaced by a replica; a sentinel did it, and the order is official.
pub fn a_sentinel_promoted_a_replica(outcome: &Outcome) -> Result<()> {
    let killed = outcome.masters_killed();
    ensure!(!killed.is_empty(), "no master was killed");
    for (group, master) in killed {
        ensure!(
            outcome.switched(group),
            "no sentinel tells of +switch-master for group {group}: {:?}",
            outcome.switches
        );
        let now = outcome.after.master_of(group)?;
        ensure!(now != master, "group {group}: {master} is master still");
    }
    Ok(())
}

/// The killed masters are replicas now. (That their links are up is part of being healthy.)
pub fn the_old_master_returned_as_a_replica(outcome: &Outcome) -> Result<()> {
    for (group, master) in outcome.masters_killed() {
        let servers = &outcome.after.topology.groups[&group].servers;
        let of_old = servers
            .iter()
            .find(|server| outcome.after.pod_at(&server.address).is_ok_and(|pod| pod == master));
        ensure!(
            of_old.is_some_and(|server| server.role == "slave"),
            "{master} is {of_old:?}"
        );
    }
    Ok(())
}

/// No master changed.
pub fn no_master_changed(outcome: &Outcome) -> Result<()> {
    for group in outcome.before.topology.groups.keys() {
        let (before, after) = (outcome.before.master_of(*group)?, outcome.after.master_of(*group)?);
        ensure!(before == after, "group {group}: the master was {before}, is {after}");
    }
    Ok(())
}

/// Every server and sentinel has the address it had, and every slot its group.
pub fn addresses_and_slots_stayed(outcome: &Outcome) -> Result<()> {
    let (before, after) = (&outcome.before.topology, &outcome.after.topology);
    ensure!(before.slots == after.slots, "slots have other groups");
    let addresses = |topology: &crate::support::topology::Topology| {
        let servers = topology
            .groups
            .values()
            .flat_map(|group| &group.servers)
            .map(|server| server.address.clone());
        let mut all: Vec<String> = servers.chain(topology.sentinels.keys().cloned()).collect();
        all.sort();
        all
    };
    ensure!(
        addresses(before) == addresses(after),
        "addresses: {:?}, were {:?}",
        addresses(after),
        addresses(before)
    );
    Ok(())
}

/// A loss that nothing could prevent was at least told. (One event may stand for several groups: equal ones within
/// minutes become a series.)
pub fn the_loss_was_told(outcome: &Outcome) -> Result<()> {
    let told = outcome.events.iter().any(|event| event.starts_with("GroupStartsEmpty"));
    ensure!(told, "no event GroupStartsEmpty: {:?}", outcome.events);
    Ok(())
}

/// No client noticed more than this.
pub fn writes_went_on(outcome: &Outcome) -> Result<()> {
    let gap = outcome.written.longest_gap.as_secs_f64();
    ensure!(gap < 5.0, "a group was without an acknowledged write for {gap:.1} s");
    Ok(())
}

fn sample(outcome: &Outcome) -> Vec<&Acknowledged> {
    outcome.lost.iter().take(3).collect()
}
