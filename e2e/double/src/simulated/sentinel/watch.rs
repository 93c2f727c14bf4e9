//! Looking after everybody: pings, questions, and what silence means (`sentinel.c`, `sentinelHandleRedisInstance`).

use super::state::{Asked, Instance, Master, Step, Watcher, Who};
use super::{HELLO, INFO_PERIOD, PING_PERIOD, PUBLISH_PERIOD, Running};

/// An open connection is younger than this when it is given up at the earliest.
const MIN_RECONNECT: i64 = 15_000;
/// Time that passes between two ticks without anybody noticing, and for how long a sentinel then only looks on.
const TILT: (i64, i64) = (2_000, 30_000);
/// What another sentinel says counts for so long.
const OPINION: i64 = 5_000;
/// Between two questions whether the master is down.
const ASK_PERIOD: i64 = 1_000;

impl Watcher {
    /// What a sentinel does ten to twenty times a second.
    pub(super) fn tick(&mut self, process: &Running) {
        let now = self.clock.ms();
        let passed = now - self.last_tick;
        if self.last_tick != 0 && !(0..=TILT.0).contains(&passed) {
            self.tilt_since = now;
            self.event("+tilt", "#tilt mode entered");
        }
        self.last_tick = now;
        for name in self.masters.keys().cloned().collect::<Vec<_>>() {
            if let Some(mut master) = self.masters.remove(&name) {
                self.handle(&mut master, now, process);
                self.masters.insert(name, master);
            }
        }
        self.save();
    }

    fn handle(&mut self, master: &mut Master, now: i64, process: &Running) {
        let everybody = master.everybody();
        for who in &everybody {
            self.connect(master, who, now, process);
            self.send_periodically(master, who, now);
        }
        if self.tilt_since != 0 {
            if now - self.tilt_since < TILT.1 {
                return;
            }
            self.tilt_since = 0;
            self.event("-tilt", "#tilt mode exited");
        }
        for who in &everybody {
            self.check_down(master, who, now);
        }
        self.check_objectively_down(master, now);
        if self.begins_failover(master, now) {
            self.ask_others(master, true, now);
        }
        self.step(master, now);
        self.ask_others(master, false, now);
    }

    fn send_periodically(&mut self, master: &mut Master, who: &Who, now: i64) {
        let in_trouble = master.is_objectively_down() || master.is_failing_over();
        let down_after = master.down_after;
        let Some(one) = master.at(who) else { return };
        if !one.is_linked(who) || one.pending.len() >= 100 {
            return;
        }
        let is_server = !matches!(who, Who::Sentinel(_));
        let is_replica = matches!(who, Who::Replica(_));
        let often = is_replica && (in_trouble || one.its_link_down_ms != 0);
        let info_period = if often { 1_000 } else { INFO_PERIOD };
        if is_server && (one.informed == 0 || now - one.informed > info_period) && !one.pending.contains(&Asked::Info) {
            one.ask(Asked::Info, &["INFO"]);
        }
        let period = down_after.min(PING_PERIOD);
        if now - one.last_pong > period && now - one.last_ping > period / 2 {
            one.ping(now);
        }
        if now - one.last_published > PUBLISH_PERIOD {
            let hello = self.hello(master);
            let Some(one) = master.at(who) else { return };
            if one.ask(Asked::Other, &["PUBLISH", HELLO, &hello]) {
                one.last_published = now;
            }
        }
    }

    fn check_down(&mut self, master: &mut Master, who: &Who, now: i64) {
        let down_after = master.down_after;
        let Some(one) = master.at(who) else { return };
        one.give_up_links(down_after, now);
        let silent = match (one.unanswered, one.is_linked(who)) {
            (0, true) => 0,
            (0, false) => now - one.available,
            (since, _) => now - since,
        };
        let turned = *who == Who::Master && !one.says_master && now - one.role_since > down_after + INFO_PERIOD * 2;
        let is_down = silent > down_after || turned;
        if is_down == one.is_down() {
            return;
        }
        one.down_since = if is_down { now } else { 0 };
        let event = if is_down { "+sdown" } else { "-sdown" };
        let text = master.describe(who);
        self.event(event, &text);
    }

    fn check_objectively_down(&mut self, master: &mut Master, now: i64) {
        let agree = master.sentinels.values().filter(|other| other.thinks_down).count();
        let is_down = master.own.is_down() && agree + 1 >= master.quorum;
        if is_down == master.is_objectively_down() {
            return;
        }
        master.objectively_down_since = if is_down { now } else { 0 };
        let text = master.describe(&Who::Master);
        if is_down {
            let quorum = format!("{text} #quorum {}/{}", agree + 1, master.quorum);
            self.event("+odown", &quorum);
        } else {
            self.event("-odown", &text);
        }
    }

    /// Asks the others whether they too take the master for down, and in an election for their votes.
    pub(super) fn ask_others(&mut self, master: &mut Master, forced: bool, now: i64) {
        let (ip, port, epoch) = (
            master.own.ip.clone(),
            master.own.port.to_string(),
            self.epoch.to_string(),
        );
        let candidate = if master.failover.step == Step::None {
            "*"
        } else {
            &self.myid
        };
        let is_down = master.own.is_down();
        for other in master.sentinels.values_mut() {
            if now - other.answered > OPINION {
                other.thinks_down = false;
                other.vote.clear();
            }
            if !is_down || other.commands.is_none() || (!forced && now - other.answered < ASK_PERIOD) {
                continue;
            }
            let words = ["SENTINEL", "is-master-down-by-addr", &ip, &port, &epoch, candidate];
            // The real one asks at each tick until an answer comes; a question under way is enough here.
            if forced || !other.pending.contains(&Asked::IsDown) {
                other.ask(Asked::IsDown, &words);
            }
        }
    }
}

impl Instance {
    /// Gives up links that look open and are dead.
    fn give_up_links(&mut self, down_after: i64, now: i64) {
        let stuck = self.commands.is_some()
            && now - self.connected > MIN_RECONNECT
            && self.unanswered != 0
            && now - self.unanswered > down_after / 2
            && now - self.last_pong > down_after / 2;
        if stuck {
            self.commands = None;
            self.pending.clear();
        }
        let deaf = now - self.hellos_connected > MIN_RECONNECT && now - self.hellos_heard > PUBLISH_PERIOD * 3;
        if deaf {
            self.hellos = None;
        }
    }
}
