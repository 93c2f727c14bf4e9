//! Elections and failovers.

use std::time::Duration;

use tokio::time::Instant;

use super::state::{INFO, Master, PING, State, Task};

/// An election that isn't won by then is given up.
const ELECTION: Duration = Duration::from_secs(10);

/// Where a failover is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Failover {
    /// There is none.
    #[default]
    None,
    /// Votes are asked for.
    Election { epoch: u64, since: Instant },
    /// A replica was told to be a master.
    Promotion { epoch: u64, to: String, since: Instant },
    /// It is one; the others are told to follow.
    Repointing { to: String, since: Instant },
}

impl Failover {
    pub(super) fn is_on(&self) -> bool {
        *self != Self::None
    }

    pub(super) fn promoted(&self) -> Option<&str> {
        match self {
            Self::Repointing { to, .. } => Some(to),
            _ => None,
        }
    }
}

impl State {
    /// The next step of a master's failover, if there is or should be one.
    pub(super) fn fail_over(&mut self, name: &str, tasks: &mut Vec<Task>) {
        self.ask_peers(name, tasks);
        let Some(master) = self.masters.get(name) else { return };
        match master.failover.clone() {
            Failover::None => self.begin(name),
            Failover::Election { epoch, since } => self.count(name, epoch, since, tasks),
            Failover::Promotion { epoch, to, since } => self.promoted(name, epoch, &to, since),
            Failover::Repointing { to, since } => self.repoint(name, &to, since, tasks),
        }
    }

    fn begin(&mut self, name: &str) {
        // Sentinels don't all stand for election at the same moment.
        let desynchronized = Duration::from_millis(self.chance.u64(..1000));
        let my_id = self.my_id.clone();
        let Some(master) = self.masters.get_mut(name) else {
            return;
        };
        if !master.is_objectively_down {
            return;
        }
        let now = Instant::now();
        if master.not_before.is_some_and(|at| at > now) {
            return;
        }
        self.epoch += 1;
        master.not_before = Some(now + 2 * master.failover_timeout + desynchronized);
        master.failover = Failover::Election {
            epoch: self.epoch,
            since: now,
        };
        if master.vote.1 < self.epoch {
            master.vote = (my_id, self.epoch);
        }
        for peer in master.peers.values_mut() {
            peer.next_ask = now;
        }
        let line = format!("master {name} {}", master.address.replace(':', " "));
        self.event("+try-failover", &line);
    }

    /// Other sentinels are asked each second while the master is down for us.
    fn ask_peers(&mut self, name: &str, tasks: &mut Vec<Task>) {
        let (my_id, epoch) = (self.my_id.clone(), self.epoch);
        let Some(master) = self.masters.get_mut(name) else {
            return;
        };
        if !master.instance.is_down {
            for peer in master.peers.values_mut() {
                peer.agrees_at = None;
            }
            return;
        }
        let candidate = match master.failover {
            Failover::Election { .. } => my_id,
            _ => "*".to_owned(),
        };
        let (host, port) = master.address.rsplit_once(':').unwrap_or((&master.address, "6379"));
        let words = [host, port, &epoch.to_string(), &candidate].map(str::to_owned);
        let now = Instant::now();
        for (id, peer) in &mut master.peers {
            if peer.next_ask <= now {
                peer.next_ask = now + PING;
                tasks.push(Task::Ask {
                    master: name.to_owned(),
                    id: id.clone(),
                    address: peer.address.clone(),
                    words: words.to_vec(),
                });
            }
        }
    }

    fn count(&mut self, name: &str, epoch: u64, since: Instant, tasks: &mut Vec<Task>) {
        let my_id = self.my_id.clone();
        let Some(master) = self.masters.get_mut(name) else {
            return;
        };
        let mine = |vote: &(String, u64)| vote.0 == my_id && vote.1 == epoch;
        let votes = usize::from(mine(&master.vote))
            + master
                .peers
                .values()
                .filter(|peer| peer.vote.as_ref().is_some_and(mine))
                .count();
        let needed = master.quorum.max((1 + master.peers.len()) / 2 + 1);
        let limit = ELECTION.min(master.failover_timeout);
        if votes < needed {
            if since.elapsed() > limit {
                master.failover = Failover::None;
            }
            return;
        }
        let Some(to) = select(master) else {
            master.failover = Failover::None;
            return;
        };
        let password = master.password.clone();
        master.failover = Failover::Promotion {
            epoch,
            to: to.clone(),
            since: Instant::now(),
        };
        if let Some(chosen) = master.replicas.get_mut(&to) {
            chosen.next_info = Instant::now();
        }
        tasks.push(Task::Slaveof {
            address: to,
            password,
            to: None,
        });
    }

    fn promoted(&mut self, name: &str, epoch: u64, to: &str, since: Instant) {
        let Some(master) = self.masters.get_mut(name) else {
            return;
        };
        let is_master = master
            .replicas
            .get(to)
            .is_some_and(|chosen| chosen.reports_master && chosen.info_at.is_some_and(|at| at > since));
        if is_master {
            master.config_epoch = epoch;
            master.failover = Failover::Repointing {
                to: to.to_owned(),
                since: Instant::now(),
            };
        } else if since.elapsed() > master.failover_timeout {
            master.failover = Failover::None;
        }
    }

    fn repoint(&mut self, name: &str, to: &str, since: Instant, tasks: &mut Vec<Task>) {
        let Some(master) = self.masters.get_mut(name) else {
            return;
        };
        let password = master.password.clone();
        let follows =
            |instance: &super::state::Instance| !instance.reports_master && instance.follows == to && instance.link_up;
        let under_way = master
            .replicas
            .values()
            .filter(|replica| replica.is_told && !follows(replica))
            .count();
        let mut free = master.parallel_syncs.saturating_sub(under_way);
        let is_late = since.elapsed() > master.failover_timeout;
        let mut left = 0;
        for (address, replica) in &mut master.replicas {
            if address == to || replica.is_down || follows(replica) {
                continue;
            }
            left += 1;
            if !replica.is_told && (free > 0 || is_late) {
                free = free.saturating_sub(1);
                replica.is_told = true;
                tasks.push(Task::Slaveof {
                    address: address.clone(),
                    password: password.clone(),
                    to: Some(to.to_owned()),
                });
            }
        }
        if left == 0 || is_late {
            self.switch(name, to);
        }
    }

    /// The master is another one.
    pub(super) fn switch(&mut self, name: &str, to: &str) {
        let Some(master) = self.masters.get_mut(name) else {
            return;
        };
        let line = format!("{name} {} {}", master.address.replace(':', " "), to.replace(':', " "));
        master.turn_to(to);
        self.event("+switch-master", &line);
    }

    /// Another sentinel's hello: `ip,port,id,epoch,name,master ip,master port,config epoch`.
    pub(super) fn hello(&mut self, text: &str) {
        let parts: Vec<&str> = text.split(',').collect();
        let [ip, port, id, epoch, name, host, master_port, config_epoch] = parts.as_slice() else {
            return;
        };
        if *id == self.my_id {
            return;
        }
        let (Ok(epoch), Ok(config_epoch)) = (epoch.parse::<u64>(), config_epoch.parse::<u64>()) else {
            return;
        };
        self.epoch = self.epoch.max(epoch);
        let (from, told) = (format!("{ip}:{port}"), format!("{host}:{master_port}"));
        let Some(master) = self.masters.get_mut(*name) else {
            return;
        };
        master.meet(id, from);
        if config_epoch > master.config_epoch {
            master.config_epoch = config_epoch;
            if master.address != told {
                self.switch(name, &told);
            }
        }
    }
}

/// The best replica: it answers, hasn't been without its master for long, and has the most of its data.
fn select(master: &Master) -> Option<String> {
    let down_for = master.instance.last_ok.elapsed();
    let longest = master.down_after * 10 + down_for;
    let good = master.replicas.iter().filter(|(_, replica)| {
        !replica.is_down
            && !replica.reports_master
            && replica.last_ok.elapsed() <= 5 * PING
            && replica
                .info_at
                .is_some_and(|at| at.elapsed() <= 5 * PING.max(INFO / 10))
            && replica.priority > 0
            && replica.link_down <= longest
    });
    let best = good.min_by_key(|(_, replica)| (replica.priority, -replica.offset, replica.run_id.clone()));
    best.map(|(address, _)| address.clone())
}
