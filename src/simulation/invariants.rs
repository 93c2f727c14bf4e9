//! What must hold at every moment of a world.

use std::collections::{BTreeMap, BTreeSet};

use codis_double::dashboard::View;

use super::{
    faults::Part,
    from_git::Eye,
    lost::Lost,
    pods::Running,
    scenario::Scenario,
    world::{CLUSTER, World},
};

/// Looks at a world again and again.
#[derive(Default)]
pub struct Watch {
    violations: BTreeSet<String>,
    /// The group of each slot, 0 for none, when it was looked at last.
    slots: Option<Vec<i64>>,
    lost: Lost,
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
        if let Some(clash) = world.gates.clash() {
            self.broken(world, clash);
        }
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
        let online = world.pods.all_that_run().into_iter().filter(|running| {
            let view = running.serves.as_dashboard();
            view.is_some_and(|view| view.is_online())
        });
        if online.count() > 1 {
            self.broken(world, "two dashboards hold the lock".to_owned());
        }
    }

    /// A slot that had a group has one, always.
    fn slots_stay_assigned(&mut self, world: &World) {
        let Some((number, view)) = dashboard(world) else { return };
        let Some(owners) = view.slot_owners() else { return };
        if self.lost.is_away() {
            self.slots = None;
            let seen = self.lost.look(number, &owners);
            return seen.unwrap_or_else(|what| self.broken(world, what));
        }
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

    /// The coordinator is going to be emptied.
    pub fn topology_goes(&mut self, world: &World, scenario: &Scenario) {
        let view = dashboard(world).map(|(_, view)| view);
        self.lost.begins(world.pods.started(), view.as_ref(), scenario);
    }

    /// What must hold once all is at rest.
    pub fn end(&mut self, world: &World) {
        if let Some((_, view)) = dashboard(world)
            && let Err(what) = self.lost.end(&view)
        {
            self.broken(world, what);
        }
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

/// The dashboard that clients of its Service would find, and its container's number.
fn dashboard(world: &World) -> Option<(u64, View)> {
    let dashboards = world.pods_like(Part::Dashboard.word()).into_iter();
    let mut views = dashboards.filter_map(|(_, running)| Some((running.number, running.serves.as_dashboard()?)));
    views.next()
}
