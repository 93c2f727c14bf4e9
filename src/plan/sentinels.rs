//! Sentinels: known to the dashboard, each watching every group. `resync-all` forgets epochs and replicas, so it runs
//! only while everybody answers; a sentinel that lacks one master is told of that one (design, decision 5).

use std::collections::BTreeSet;

use super::{
    Decision, Step,
    input::{Input, Word},
    reason, restore,
    step::list,
};
use crate::domain::{Address, Group, MemberPod, Replication, SentinelMaster, SentinelView, ServerView};

/// A server whose process is younger than this, in seconds, was restarted just now.
const RESTARTED_WITHIN: u64 = 12;
/// A sentinel that doesn't answer for this many seconds is replaced: a restart in place takes less.
const SILENT: u64 = 15;
/// Sentinels ping every second: one that heard nothing for so many milliseconds has lost its connection.
const SILENT_MS: u64 = 2_000;
/// One that heard nothing of a replica for so many milliseconds is about to give it up.
const DEAF_MS: u64 = 3_500;

/// Sentinels that the dashboard doesn't know yet, once the groups that they are to watch stand. In a topology that was
/// lost nothing is written.
pub(super) fn add(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    if restore::is_lost(decision) || !input.groups_stand() {
        return None;
    }
    for sentinel in &input.desired.addresses.sentinels {
        match input.observed.sentinels.get(sentinel) {
            Some(Ok(_)) if !input.topology.sentinels.servers.contains(sentinel) => {
                return Some(Step::AddSentinel(sentinel.clone()));
            }
            Some(Ok(_)) => {}
            _ => decision.wait(
                reason::SENTINELS_NOT_READY,
                format!("sentinel {sentinel} doesn't answer"),
            ),
        }
    }
    None
}

/// Configures all sentinels anew when the dashboard says that it must be, or they would wait for somebody who is gone:
/// never with anybody missing.
pub(super) fn resync(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    let is_due = input.topology.sentinels.out_of_sync || miss_nobody(input);
    if !is_due || input.topology.sentinels.servers.is_empty() {
        return None;
    }
    let missing = missing(input);
    if missing.is_empty() {
        return Some(Step::ResyncSentinels);
    }
    let what = format!(
        "sentinels are to be configured anew, which must wait for {}",
        missing.join(", ")
    );
    decision.wait(reason::SENTINELS_NOT_READY, what);
    None
}

/// Whether a sentinel misses a replica at an address that is nobody's any more, and not its master's to tell either: they
/// never forget one by themselves.
fn miss_nobody(input: &Input<'_>) -> bool {
    input
        .topology
        .groups
        .values()
        .filter(|group| group.is_settled())
        .any(|group| {
            let master = input.undisputed_master(group).and_then(|master| input.server(master));
            let Some(ServerView::Up { replicas: listed, .. }) = master else {
                return false;
            };
            let is_nobody = |address: &Address| {
                let is_member = group.servers.iter().any(|server| server.address == *address);
                !is_member && !listed.contains(address) && input.desired.pod_at(address).is_none()
            };
            let name = input.master_name(group.id);
            let views = input.observed.sentinels.values().flatten();
            let mut missed = views
                .filter_map(|view| view.masters.get(&name))
                .flat_map(|known| &known.replica_silence);
            missed.any(|(replica, silent_ms)| *silent_ms > DEAF_MS && is_nobody(replica))
        })
}

/// A sentinel that runs and doesn't answer would keep switchovers waiting for ever. One at a time, and only while another
/// one answers: else it may be we who are cut off.
pub(super) fn replace_silent(input: &Input<'_>, _: &mut Decision) -> Option<Step> {
    let answers = |sentinel: &Address| matches!(input.observed.sentinels.get(sentinel), Some(Ok(_)));
    let silent = input
        .observed
        .sentinel_pods
        .iter()
        .filter(|(sentinel, _)| !answers(sentinel));
    let silent: Vec<(&Address, &MemberPod)> = silent.collect();
    let hangs = |(sentinel, pod): &(&Address, &MemberPod)| {
        let down_for = input.observed.down_for.get(*sentinel);
        let runs = pod.running_for.is_some_and(|seconds| seconds >= SILENT);
        !pod.terminating && runs && down_for.is_some_and(|seconds| *seconds >= SILENT)
    };
    let one_answers = input.observed.sentinels.keys().any(answers) || input.observed.sentinels.len() == 1;
    let (_, pod) = silent.first().filter(|_| one_answers && silent.iter().all(hangs))?;
    Some(Step::Restart {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        why: format!("it hasn't answered for {SILENT} s"),
    })
}

/// Whoever isn't there, or isn't in its role, for `resync-all`.
pub(super) fn missing(input: &Input<'_>) -> Vec<String> {
    let mut missing: Vec<String> = Vec::new();
    // Those that the dashboard knows, too: it asks them all.
    let wished = input.desired.addresses.sentinels.iter();
    for sentinel in wished.chain(&input.topology.sentinels.servers).collect::<BTreeSet<_>>() {
        if !matches!(input.observed.sentinels.get(sentinel), Some(Ok(_))) {
            missing.push(format!("sentinel {sentinel}"));
        }
    }
    // One that leaves has no server in the end.
    let has_servers = |group: &&Group| !group.servers.is_empty() || input.desired.cluster.stays(group.id);
    for group in input.topology.groups.values().filter(has_servers) {
        let is_settled = group.is_settled() && !input.has_rival(group);
        if !is_settled || input.serving_master(group).is_none() {
            missing.push(format!("the master of group {}", group.id));
            continue;
        }
        let replicas = group.servers.iter().skip(1).map(|server| &server.address);
        // What provably doesn't run takes no part: it is attached anew when it is back (identity-experiment S2).
        let is_missing = |replica: &&Address| !is_linked(input, replica) && !input.is_provably_gone(replica);
        for replica in replicas.filter(is_missing) {
            missing.push(format!("replica {replica}"));
        }
    }
    let silent = input.topology.proxies.iter().filter(|proxy| proxy.error.is_some());
    missing.extend(silent.map(|proxy| format!("proxy {}", proxy.admin)));
    missing
}

fn is_linked(input: &Input<'_>, server: &Address) -> bool {
    matches!(
        input.server(server),
        Some(ServerView::Up {
            replication: Replication::Replica { link_up: true, .. },
            ..
        })
    )
}

/// A sentinel whose connection broke with a server connects anew at once, and may end in the black hole of a pod that
/// was just deleted (identity-experiment, table f). It would stay there for 15 s: long enough to declare dead a master
/// that is long back, or not to promote a replica that is. Told the group's password again, it connects anew (redis 6.2
/// and later; earlier ones don't mind, and the fence keeps a failover from losing anything).
pub(super) fn relink(input: &Input<'_>, _: &mut Decision) -> Option<Step> {
    if !input.desired.has_password {
        return None;
    }
    for group in input.topology.groups.values().filter(|group| group.is_settled()) {
        let Some(master) = input.undisputed_master(group) else {
            continue;
        };
        let servers = group.servers.iter().map(|server| &server.address);
        for server in servers.filter(|server| was_restarted(input, server)) {
            if let Some(sentinel) = deaf_to(input, group, server) {
                let (sentinel, master) = (sentinel.clone(), master.clone());
                return Some(Step::Relink {
                    sentinel,
                    group: group.id,
                    master,
                });
            }
        }
    }
    None
}

fn was_restarted(input: &Input<'_>, server: &Address) -> bool {
    matches!(input.server(server), Some(ServerView::Up { uptime, .. }) if *uptime <= RESTARTED_WITHIN)
}

/// A sentinel that hasn't heard a server of the group for a while.
fn deaf_to<'a>(input: &Input<'a>, group: &Group, server: &Address) -> Option<&'a Address> {
    let name = input.master_name(group.id);
    let hears_nothing = |view: &SentinelView| {
        let known = view.masters.get(&name);
        known
            .and_then(|known| silence_of(known, server))
            .is_some_and(|silent_ms| silent_ms > SILENT_MS)
    };
    let sentinels = input.observed.sentinels.iter();
    sentinels
        .filter_map(|(sentinel, view)| Some((sentinel, view.as_ref().ok()?)))
        .find(|(_, view)| hears_nothing(view))
        .map(|(sentinel, _)| sentinel)
}

fn silence_of(known: &SentinelMaster, server: &Address) -> Option<u64> {
    if known.address == *server {
        Some(known.silent_ms)
    } else {
        known.replica_silence.get(server).copied()
    }
}

/// Sentinels that watch an address which the master had take it for dead, and would replace it by a server that lacks what
/// was written since. All are told at once: by what one still says the others would be led back.
pub(super) fn redirect(input: &Input<'_>, _: &mut Decision) -> Option<Step> {
    for group in input.topology.groups.values() {
        let Some(master) = input.undisputed_master(group) else {
            continue;
        };
        let name = input.master_name(group.id);
        // Nobody disputes it: any other address that they know is one that it had.
        let is_led_astray = |view: &SentinelView| view.masters.get(&name).is_some_and(|known| known.address != *master);
        let views = input.observed.sentinels.iter();
        let views = views.filter_map(|(sentinel, view)| Some((sentinel, view.as_ref().ok()?)));
        let astray = views.filter(|(_, view)| is_led_astray(view));
        let sentinels: Vec<Address> = astray.map(|(sentinel, _)| sentinel.clone()).collect();
        if !sentinels.is_empty() && input.desired.pod_at(master).is_some() {
            return Some(Step::Redirect {
                sentinels,
                group: group.id,
                master: master.clone(),
            });
        }
    }
    None
}

/// A sentinel that came back knows no master: it is told, without touching the others.
pub(super) fn monitor(input: &Input<'_>, decision: &mut Decision) -> Option<Step> {
    for (sentinel, view) in &input.observed.sentinels {
        let Some(view) = view
            .as_ref()
            .ok()
            .filter(|_| input.topology.sentinels.servers.contains(sentinel))
        else {
            continue;
        };
        for group in input.topology.groups.values().filter(|group| !group.servers.is_empty()) {
            let name = input.master_name(group.id);
            if view.masters.contains_key(&name) {
                continue;
            }
            // Beside a rival it isn't for us to say who is master: the others must know.
            let is_clear = !input.has_rival(group) || input.word_on(group) == Word::For;
            let Some(master) = input.undisputed_master(group).filter(|_| is_clear) else {
                let what = format!(
                    "sentinel {sentinel} doesn't watch group {}, whose master isn't settled",
                    group.id
                );
                decision.wait(reason::SENTINELS_NOT_READY, what);
                continue;
            };
            let (sentinel, master) = (sentinel.clone(), master.clone());
            return Some(Step::Monitor {
                sentinel,
                group: group.id,
                master,
            });
        }
        note_what_it_misses(input, decision, sentinel, view);
    }
    None
}

/// Sentinels find each other and the replicas by themselves, within some seconds. Until each hears all of them, a
/// failover may not come about.
fn note_what_it_misses(input: &Input<'_>, decision: &mut Decision, sentinel: &Address, view: &SentinelView) {
    if view.in_tilt {
        let what = format!("sentinel {sentinel} stood still (tilt) and takes no part in a failover for 30 s");
        decision.wait(reason::SENTINELS_NOT_READY, what);
        return;
    }
    let others = u32::from(input.desired.cluster.sentinel_count().saturating_sub(1));
    let replicas = u32::from(input.desired.cluster.group_size.saturating_sub(1));
    let is_deaf = |master: &SentinelMaster| master.replica_silence.values().any(|silent_ms| *silent_ms > DEAF_MS);
    let is_complete = |master: &SentinelMaster| {
        master.other_sentinels == others && master.replicas >= replicas && master.flags == "master" && !is_deaf(master)
    };
    let incomplete: Vec<&String> = view
        .masters
        .iter()
        .filter(|(_, master)| !is_complete(master))
        .map(|(name, _)| name)
        .collect();
    if !incomplete.is_empty() {
        let what = format!(
            "sentinel {sentinel} doesn't see {others} other sentinels and a healthy master with {replicas} healthy replicas for {}",
            list(&incomplete)
        );
        decision.wait(reason::SENTINELS_NOT_READY, what);
    }
}
