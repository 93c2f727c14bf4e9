//! What a server's INFO changes (`sentinel.c`, `sentinelRefreshInstanceInfo`).

use super::state::{Asked, Instance, Master, Reconfigured, Step, Watcher, Who};
use super::{INFO_PERIOD, PUBLISH_PERIOD};

impl Watcher {
    pub(super) fn informed(&mut self, master: &mut Master, who: &Who, info: &str, now: i64) {
        let Some(one) = master.at(who) else { return };
        let was_master = one.says_master;
        let known = one.informed != 0 || *who == Who::Master;
        let rebooted = one.learn(info, now);
        let says_master = one.says_master;
        if rebooted {
            let text = master.describe(who);
            self.event("+reboot", &text);
        }
        if *who == Who::Master {
            self.discover(master, info, now);
        }
        if was_master != says_master && known {
            let text = master.describe(who);
            let is_expected = says_master == (*who == Who::Master);
            self.event(if is_expected { "+role-change" } else { "-role-change" }, &text);
        }
        let Who::Replica(addr) = who else { return };
        if self.tilt_since != 0 {
            return;
        }
        if says_master {
            self.found_master(master, addr, now);
        } else {
            self.found_replica(master, addr, now);
        }
    }

    /// Replicas that a master tells.
    fn discover(&mut self, master: &mut Master, info: &str, now: i64) {
        let told = info.lines().filter_map(|line| {
            let (key, value) = line.trim().split_once(':')?;
            let number = key.strip_prefix("slave")?;
            (!number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())).then_some(value)
        });
        for replica in told {
            let field = |name: &str| replica.split(',').find_map(|part| part.strip_prefix(name));
            let (Some(ip), Some(Ok(port))) = (field("ip="), field("port=").map(str::parse::<u16>)) else {
                continue;
            };
            let found = Instance::new(ip, port, now);
            let addr = found.addr();
            if port != 0 && !master.replicas.contains_key(&addr) {
                master.replicas.insert(addr.clone(), found);
                self.unsaved = true;
                let text = master.describe(&Who::Replica(addr));
                self.event("+slave", &text);
            }
        }
    }

    /// A replica says that it is a master: the one that was promoted, or a stray one.
    fn found_master(&mut self, master: &mut Master, addr: &str, now: i64) {
        let is_promoted = master.failover.promoted.as_deref() == Some(addr);
        let who = Who::Replica(addr.into());
        if is_promoted && master.failover.step == Step::WaitPromotion {
            master.config_epoch = master.failover.epoch;
            master.failover.step = Step::Reconfigure;
            master.failover.since = now;
            self.unsaved = true;
            let text = master.describe(&who);
            self.event("+promoted-slave", &text);
            let text = master.describe(&Who::Master);
            self.event("+failover-state-reconf-slaves", &text);
            // Everybody is told at once.
            for who in master.everybody() {
                master.at(&who).into_iter().for_each(|one| one.last_published = 0);
            }
            return;
        }
        let pause = PUBLISH_PERIOD * 4;
        let is_sane = master.looks_sane(now);
        let to = (master.own.ip.clone(), master.own.port);
        let Some(stray) = master.replicas.get_mut(addr) else {
            return;
        };
        if !is_promoted
            && is_sane
            && stray.is_up_for(pause, now)
            && now - stray.role_since > pause
            && stray.is_linked(&who)
        {
            stray.command_to_follow(Some((&to.0, to.1)));
            let text = master.describe(&who);
            self.event("+convert-to-slave", &text);
        }
    }

    /// A replica that follows the wrong master is put right; one that is being put right has come further.
    fn found_replica(&mut self, master: &mut Master, addr: &str, now: i64) {
        let who = Who::Replica(addr.into());
        let own = (master.own.ip.clone(), master.own.port);
        let (pause, is_sane) = (master.failover_timeout, master.looks_sane(now));
        let promoted = master
            .failover
            .promoted
            .as_ref()
            .and_then(|addr| master.replicas.get(addr));
        let promoted = promoted.map(|promoted| (promoted.ip.clone(), promoted.port));
        let Some(replica) = master.replicas.get_mut(addr) else {
            return;
        };
        if replica.its_master != own
            && is_sane
            && replica.is_up_for(pause, now)
            && now - replica.conf_since > pause
            && replica.is_linked(&who)
        {
            replica.command_to_follow(Some((&own.0, own.1)));
            let text = master.describe(&who);
            self.event("+fix-slave-config", &text);
            return;
        }
        let before = replica.reconfigured;
        if replica.reconfigured == Reconfigured::Sent && promoted.as_ref() == Some(&replica.its_master) {
            replica.reconfigured = Reconfigured::InProgress;
        }
        if replica.reconfigured == Reconfigured::InProgress && replica.its_link_up {
            replica.reconfigured = Reconfigured::Done;
        }
        if replica.reconfigured != before {
            let is_done = replica.reconfigured == Reconfigured::Done;
            let text = master.describe(&who);
            self.event(
                if is_done {
                    "+slave-reconf-done"
                } else {
                    "+slave-reconf-inprog"
                },
                &text,
            );
        }
    }
}

impl Master {
    /// Whether nothing is known that speaks against the master.
    fn looks_sane(&self, now: i64) -> bool {
        self.own.says_master
            && !self.own.is_down()
            && !self.is_objectively_down()
            && now - self.own.informed < INFO_PERIOD * 2
    }
}

impl Instance {
    /// Takes what an INFO says; true if it is another process than before.
    fn learn(&mut self, info: &str, now: i64) -> bool {
        let was = (self.says_master, self.its_master.clone(), self.runid.clone());
        self.its_link_down_ms = 0;
        for (key, value) in info.lines().filter_map(|line| line.trim().split_once(':')) {
            match key {
                "run_id" => self.runid = value.into(),
                "role" => self.says_master = value == "master",
                "master_host" => self.its_master.0 = value.into(),
                "master_port" => self.its_master.1 = value.parse().unwrap_or(0),
                "master_link_status" => self.its_link_up = value == "up",
                "master_link_down_since_seconds" => {
                    self.its_link_down_ms = value.parse::<i64>().unwrap_or(-1).saturating_mul(1000);
                }
                "slave_priority" => self.priority = value.parse().unwrap_or(100),
                "slave_repl_offset" => self.offset = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        self.informed = now;
        if was.0 != self.says_master {
            self.role_since = now;
        }
        if was.0 != self.says_master || was.1 != self.its_master {
            self.conf_since = now;
        }
        !was.2.is_empty() && was.2 != self.runid
    }

    fn is_up_for(&self, ms: i64, now: i64) -> bool {
        self.down_since == 0 || now - self.down_since > ms
    }

    /// Tells a server whom to follow from now on, for good, and ends its clients' connections.
    pub(super) fn command_to_follow(&mut self, master: Option<(&str, u16)>) -> bool {
        let (host, port) = match master {
            Some((ip, port)) => (ip.to_owned(), port.to_string()),
            None => ("NO".to_owned(), "ONE".to_owned()),
        };
        let steps: [&[&str]; 5] = [
            &["MULTI"],
            &["SLAVEOF", &host, &port],
            &["CONFIG", "REWRITE"],
            &["CLIENT", "KILL", "TYPE", "normal"],
            &["EXEC"],
        ];
        steps.iter().all(|words| self.ask(Asked::Other, words))
    }
}
