//! The sentinels' greetings: how they find each other, and how the newest configuration wins.

use super::state::{Instance, Master, Watcher, Who};

impl Watcher {
    /// What it says of itself and of a master.
    pub(super) fn hello(&self, master: &Master) -> String {
        let (ip, port) = master.current();
        let own = if self.ip.is_empty() { &self.local_ip } else { &self.ip };
        format!(
            "{own},{},{},{},{},{ip},{port},{}",
            self.announced_port, self.myid, self.epoch, master.name, master.config_epoch
        )
    }

    /// Somebody greeted (`sentinelProcessHelloMessage`).
    pub(super) fn greeted(&mut self, hello: &str) {
        let words: Vec<&str> = hello.split(',').collect();
        let [ip, port, id, epoch, name, master_ip, master_port, config_epoch] = words[..] else {
            return;
        };
        let numbers = (
            port.parse(),
            epoch.parse::<u64>(),
            master_port.parse(),
            config_epoch.parse(),
        );
        let (Ok(port), Ok(epoch), Ok(master_port), Ok(config_epoch)) = numbers else {
            return;
        };
        if id == self.myid {
            return;
        }
        let now = self.clock.ms();
        let Some(mut master) = self.masters.remove(name) else {
            return;
        };
        self.meet(&mut master, id, ip, port, now);
        if epoch > self.epoch {
            self.epoch = epoch;
            self.unsaved = true;
            self.event("+new-epoch", &epoch.to_string());
        }
        if master.config_epoch < config_epoch {
            master.config_epoch = config_epoch;
            self.unsaved = true;
            if (master.own.ip.as_str(), master.own.port) != (master_ip, master_port) {
                self.obey(&mut master, id, master_ip, master_port, now);
            }
        }
        if let Some(other) = master.sentinels.get_mut(id) {
            other.greeted = now;
        }
        self.masters.insert(name.into(), master);
        self.save();
    }

    /// Another sentinel: a new one, or a known one at a new address.
    fn meet(&mut self, master: &mut Master, id: &str, ip: &str, port: u16, now: i64) {
        let known = master.sentinels.get(id);
        if known.is_some_and(|known| known.ip == ip && known.port == port) {
            return;
        }
        let moved = known.is_some();
        // Somebody else at that address is somebody who was there before.
        master.sentinels.retain(|_, other| other.ip != ip || other.port != port);
        let other = Instance {
            runid: id.into(),
            ..Instance::new(ip, port, now)
        };
        master.sentinels.insert(id.into(), other);
        self.unsaved = true;
        let text = master.describe(&Who::Sentinel(id.into()));
        self.event(if moved { "+sentinel-address-switch" } else { "+sentinel" }, &text);
    }

    /// Another sentinel knows a newer master.
    fn obey(&mut self, master: &mut Master, id: &str, ip: &str, port: u16, now: i64) {
        let text = master.describe(&Who::Sentinel(id.into()));
        self.event("+config-update-from", &text);
        self.switch(master, ip, port, now);
    }

    /// Looks at another master from now on; the old one is a replica of it.
    pub(super) fn switch(&mut self, master: &mut Master, ip: &str, port: u16, now: i64) {
        let (old_ip, old_port) = (master.own.ip.clone(), master.own.port);
        let text = format!("{} {old_ip} {old_port} {ip} {port}", master.name);
        self.event("+switch-master", &text);
        let replicas = master
            .replicas
            .values()
            .map(|replica| (replica.ip.clone(), replica.port));
        let mut replicas: Vec<_> = replicas
            .filter(|(other, at)| (other.as_str(), *at) != (ip, port))
            .collect();
        if (old_ip.as_str(), old_port) != (ip, port) {
            replicas.push((old_ip, old_port));
        }
        master.restart_at(ip, port, replicas, now);
        self.unsaved = true;
        for who in master.everybody() {
            if matches!(who, Who::Replica(_)) {
                let text = master.describe(&who);
                self.event("+slave", &text);
            }
        }
    }
}
