//! What must hold at every moment of a world.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    from_git::Eye,
    pods::Running,
    world::{CLUSTER, World},
};

/// Looks at a world again and again.
#[derive(Default)]
pub struct Watch {
    violations: BTreeSet<String>,
    /// The group of each slot, 0 for none, when it was looked at last.
    slots: Option<Vec<i64>>,
    /// What was told last of each pod.
    told: BTreeMap<String, String>,
    /// Of what comes from Git.
    git: Eye,
}

impl Watch {
    /// What was seen that must not be.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.violations.iter().cloned().collect()
    }

    /// One look. `calm`: nothing broke lately that could take servers away, and nobody wants them away.
    pub fn look(&mut self, world: &World, calm: bool) {
        self.tell(world);
        if calm {
            self.groups_are_served(world);
        }
        if let Some(what) = self.git.look(world) {
            self.broken(world, what);
        }
        self.one_dashboard(world);
        self.slots_stay_assigned(world);
    }

    fn broken(&mut self, world: &World, what: String) {
        if self.violations.insert(what.clone()) {
            world.trace.tell(format!("VIOLATION {what}"));
        }
    }

    /// What changed since the last look, for the trace.
    fn tell(&mut self, world: &World) {
        let mut now: BTreeMap<String, String> = BTreeMap::new();
        for (name, running) in world.pods_like("") {
            let line = if running.is_up() {
                running.serves.summary()
            } else {
                "dead".to_owned()
            };
            if line != "busy" {
                now.insert(name, format!("({} {}) {line}", running.ip, running.node));
            } else if let Some(before) = self.told.get(&name) {
                now.insert(name, before.clone());
            }
        }
        now.insert(
            "status".to_owned(),
            world.ready().err().unwrap_or_else(|| "Ready".to_owned()),
        );
        now.extend(world.told_by_the_source().map(|told| ("source".to_owned(), told)));
        for (name, line) in &now {
            if self.told.get(name) != Some(line) {
                world.trace.tell(format!("{name}: {line}"));
            }
        }
        for name in self.told.keys().filter(|name| !now.contains_key(*name)) {
            world.trace.tell(format!("{name}: gone"));
        }
        self.told = now;
    }

    fn one_dashboard(&mut self, world: &World) {
        let up = world.pods_like("-dashboard-").into_iter();
        let online = up.filter(|(_, running)| {
            running.is_up() && running.serves.as_dashboard().is_some_and(|view| view.is_online())
        });
        if online.count() > 1 {
            self.broken(world, "two dashboards hold the lock".to_owned());
        }
    }

    /// A slot that had a group has one, always.
    fn slots_stay_assigned(&mut self, world: &World) {
        let dashboards = world.pods_like("-dashboard-");
        let Some(view) = dashboards.iter().find_map(|(_, running)| running.serves.as_dashboard()) else {
            return;
        };
        let Some(owners) = view.slot_owners() else { return };
        if let Some(before) = &self.slots {
            let orphaned = before
                .iter()
                .zip(&owners)
                .filter(|(before, now)| **before > 0 && **now == 0);
            let count = orphaned.count();
            if count > 0 {
                self.broken(world, format!("{count} slots lost their group"));
            }
        }
        self.slots = Some(owners);
    }

    /// Of a group that has slots a server is always up: they are never restarted together.
    fn groups_are_served(&mut self, world: &World) {
        let owners: BTreeSet<i64> = self.slots.iter().flatten().copied().filter(|id| *id > 0).collect();
        for id in owners {
            let servers = world.pods_like(&format!("{CLUSTER}-g{id}-"));
            let is_up = |running: &Running| running.is_up() && running.serves.as_redis().is_some();
            if !servers.iter().any(|(_, running)| is_up(running)) {
                self.broken(world, format!("no server of group {id} is up, and nothing broke"));
            }
        }
    }

    /// Whether somebody said that a group starts empty, which is the end of its data.
    #[must_use]
    pub fn loss_was_told(&self, world: &World) -> bool {
        let events = world.api.of_kind("Event");
        events
            .iter()
            .any(|event| event["reason"] == "GroupStartsEmpty" || event["reason"] == "StartEmpty")
    }
}
