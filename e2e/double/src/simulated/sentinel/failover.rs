//! Elections and failovers (`sentinel.c`, `sentinelFailoverStateMachine`).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::state::{Failover, Instance, Master, Reconfigured, Step, Watcher, Who};
use super::{INFO_PERIOD, PING_PERIOD};

/// By how much sentinels start their elections apart at most.
const DESYNC: u64 = 1_000;
/// How long an election may take at most.
const ELECTION: i64 = 10_000;
/// How long a replica may take to say that it follows the new master.
const RECONFIGURE: i64 = 10_000;

impl Watcher {
    /// Begins a failover of a master that is down, if it is time for one.
    pub(super) fn begins_failover(&mut self, master: &mut Master, now: i64) -> bool {
        let is_early = now - master.failover.started < master.failover_timeout * 2;
        if !master.is_objectively_down() || master.is_failing_over() || is_early {
            return false;
        }
        self.start_failover(master, false, now);
        true
    }

    pub(super) fn start_failover(&mut self, master: &mut Master, is_forced: bool, now: i64) {
        self.epoch += 1;
        self.unsaved = true;
        master.failover = Failover {
            step: Step::WaitStart,
            since: now,
            started: now + self.desync(),
            epoch: self.epoch,
            is_forced,
            promoted: None,
        };
        self.event("+new-epoch", &self.epoch.to_string());
        let text = master.describe(&Who::Master);
        self.event("+try-failover", &text);
    }

    fn desync(&mut self) -> i64 {
        i64::try_from(self.chance.next() % DESYNC).unwrap_or(0)
    }

    fn abort(&mut self, master: &mut Master, event: &str) {
        let text = master.describe(&Who::Master);
        self.event(event, &text);
        master.failover = Failover {
            started: master.failover.started,
            ..Failover::default()
        };
        for replica in master.replicas.values_mut() {
            replica.reconfigured = Reconfigured::No;
        }
    }

    fn proceed(&mut self, master: &mut Master, step: Step, event: &str, who: &Who, now: i64) {
        master.failover.step = step;
        master.failover.since = now;
        let text = master.describe(who);
        self.event(event, &text);
    }

    /// Somebody asks for a vote; whoever asks first in an epoch gets it. Tells whom this one votes for, and when.
    pub(super) fn vote(&mut self, master: &mut Master, epoch: u64, candidate: &str, now: i64) -> (String, u64) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.unsaved = true;
            self.event("+new-epoch", &epoch.to_string());
        }
        if master.leader_epoch < epoch && self.epoch <= epoch {
            master.leader = candidate.into();
            master.leader_epoch = self.epoch;
            self.unsaved = true;
            let text = format!("{candidate} {}", self.epoch);
            self.event("+vote-for-leader", &text);
            // Whoever votes for another one leaves it its time.
            if candidate != self.myid {
                master.failover.started = now + self.desync();
            }
        }
        (master.leader.clone(), master.leader_epoch)
    }

    /// Who is elected: more than half of all known sentinels, and the quorum at least.
    fn leader(&mut self, master: &mut Master, now: i64) -> Option<String> {
        let epoch = master.failover.epoch;
        let mut votes: BTreeMap<String, usize> = BTreeMap::new();
        for other in master.sentinels.values() {
            if !other.vote.is_empty() && other.vote_epoch == self.epoch {
                *votes.entry(other.vote.clone()).or_default() += 1;
            }
        }
        let favourite = votes.iter().max_by_key(|(_, votes)| **votes).map(|(id, _)| id.clone());
        let candidate = favourite.unwrap_or_else(|| self.myid.clone());
        let (own, own_epoch) = self.vote(master, epoch, &candidate, now);
        if !own.is_empty() && own_epoch == epoch {
            *votes.entry(own).or_default() += 1;
        }
        let needed = (master.sentinels.len() + 1).div_euclid(2) + 1;
        let (id, votes) = votes.into_iter().max_by_key(|(_, votes)| *votes)?;
        (votes >= needed.max(master.quorum)).then_some(id)
    }

    pub(super) fn step(&mut self, master: &mut Master, now: i64) {
        match master.failover.step {
            Step::None => {}
            Step::WaitStart => self.wait_start(master, now),
            Step::SelectReplica => self.select(master, now),
            Step::SendNoOne => self.send_no_one(master, now),
            Step::WaitPromotion => {
                if now - master.failover.since > master.failover_timeout {
                    self.abort(master, "-failover-abort-slave-timeout");
                }
            }
            Step::Reconfigure => self.reconfigure(master, now),
            Step::UpdateConfig => {}
        }
        if master.failover.step == Step::UpdateConfig {
            let (ip, port) = master.current();
            self.switch(master, &ip, port, now);
        }
    }

    fn wait_start(&mut self, master: &mut Master, now: i64) {
        let is_leader = self.leader(master, now).is_some_and(|leader| leader == self.myid);
        if !is_leader && !master.failover.is_forced {
            if now - master.failover.started > ELECTION.min(master.failover_timeout) {
                self.abort(master, "-failover-abort-not-elected");
            }
            return;
        }
        let text = master.describe(&Who::Master);
        self.event("+elected-leader", &text);
        self.proceed(
            master,
            Step::SelectReplica,
            "+failover-state-select-slave",
            &Who::Master,
            now,
        );
    }

    fn select(&mut self, master: &mut Master, now: i64) {
        let Some(best) = master.best_replica(now) else {
            self.abort(master, "-failover-abort-no-good-slave");
            return;
        };
        let who = Who::Replica(best.clone());
        let text = master.describe(&who);
        self.event("+selected-slave", &text);
        master.failover.promoted = Some(best);
        self.proceed(master, Step::SendNoOne, "+failover-state-send-slaveof-noone", &who, now);
    }

    fn send_no_one(&mut self, master: &mut Master, now: i64) {
        let Some(addr) = master.failover.promoted.clone() else {
            return;
        };
        let who = Who::Replica(addr);
        let sent = match master.at(&who) {
            Some(replica) if replica.is_linked(&who) => replica.command_to_follow(None),
            _ => false,
        };
        if sent {
            self.proceed(master, Step::WaitPromotion, "+failover-state-wait-promotion", &who, now);
        } else if now - master.failover.since > master.failover_timeout {
            self.abort(master, "-failover-abort-slave-timeout");
        }
    }

    /// Has the other replicas follow the new master, some at a time.
    fn reconfigure(&mut self, master: &mut Master, now: i64) {
        let (ip, port) = master.current();
        let (promoted, parallel) = (master.failover.promoted.clone(), master.parallel);
        let is_busy =
            |replica: &&Instance| matches!(replica.reconfigured, Reconfigured::Sent | Reconfigured::InProgress);
        let mut busy = master.replicas.values().filter(is_busy).count();
        let others = master.replicas.keys().filter(|addr| Some(*addr) != promoted.as_ref());
        for addr in others.cloned().collect::<Vec<_>>() {
            if busy >= parallel {
                break;
            }
            let who = Who::Replica(addr);
            let Some(replica) = master.at(&who) else { continue };
            if replica.reconfigured == Reconfigured::Sent && now - replica.reconfigured_at > RECONFIGURE {
                replica.reconfigured = Reconfigured::Done;
                let text = master.describe(&who);
                self.event("-slave-reconf-sent-timeout", &text);
                continue;
            }
            if replica.reconfigured != Reconfigured::No || !replica.is_linked(&who) {
                continue;
            }
            if replica.command_to_follow(Some((&ip, port))) {
                replica.reconfigured = Reconfigured::Sent;
                replica.reconfigured_at = now;
                busy += 1;
                let text = master.describe(&who);
                self.event("+slave-reconf-sent", &text);
            }
        }
        self.detect_end(master, &ip, port, now);
    }

    fn detect_end(&mut self, master: &mut Master, ip: &str, port: u16, now: i64) {
        let Some(addr) = master.failover.promoted.clone() else {
            return;
        };
        if master.replicas.get(&addr).is_none_or(Instance::is_down) {
            return;
        }
        let others = master.replicas.iter().filter(|(other, _)| **other != addr);
        let open = others.filter(|(_, other)| other.reconfigured != Reconfigured::Done && !other.is_down());
        let is_over = open.count() == 0;
        let is_late = now - master.failover.since > master.failover_timeout;
        if !is_over && !is_late {
            return;
        }
        if !is_over {
            let text = master.describe(&Who::Master);
            self.event("+failover-end-for-timeout", &text);
            for (other, replica) in &mut master.replicas {
                if *other != addr && replica.reconfigured == Reconfigured::No {
                    replica.command_to_follow(Some((ip, port)));
                }
            }
        }
        self.proceed(master, Step::UpdateConfig, "+failover-end", &Who::Master, now);
    }
}

impl Master {
    /// The replica to promote (`sentinelSelectSlave`): one that is heard of, by priority, offset and run id.
    pub(super) fn best_replica(&self, now: i64) -> Option<String> {
        let mut longest = self.down_after * 10;
        let mut validity = INFO_PERIOD * 3;
        if self.own.is_down() {
            longest += now - self.own.down_since;
            validity = PING_PERIOD * 5;
        }
        let good = self.replicas.iter().filter(|(addr, replica)| {
            !replica.is_down()
                && replica.is_linked(&Who::Replica((*addr).clone()))
                && now - replica.available <= PING_PERIOD * 5
                && replica.priority != 0
                && now - replica.informed <= validity
                && replica.its_link_down_ms <= longest
        });
        let best = good.min_by_key(|(_, replica)| {
            let is_unknown = replica.runid.is_empty();
            (
                replica.priority,
                Reverse(replica.offset),
                is_unknown,
                replica.runid.clone(),
            )
        });
        best.map(|(addr, _)| addr.clone())
    }
}
