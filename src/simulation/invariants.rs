//! What must hold at every moment of a world.

use std::collections::BTreeSet;

use super::world::World;

/// Looks at a world again and again.
#[derive(Default)]
pub struct Watch {
    violations: BTreeSet<String>,
    /// The group of each slot, 0 for none, when it was looked at last.
    slots: Option<Vec<i64>>,
}

impl Watch {
    /// What was seen that must not be.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.violations.iter().cloned().collect()
    }

    /// One look.
    pub fn look(&mut self, world: &World) {
        self.one_dashboard(world);
        self.slots_stay_assigned(world);
    }

    fn broken(&mut self, world: &World, what: String) {
        if self.violations.insert(what.clone()) {
            world.trace.tell(format!("VIOLATION {what}"));
        }
    }

    fn one_dashboard(&mut self, world: &World) {
        let up = world.pods_like("-dashboard-").into_iter();
        let online = up.filter(|(_, running)| running.is_up() && running.serves.as_dashboard().is_some_and(|view| view.is_online()));
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
            let orphaned = before.iter().zip(&owners).filter(|(before, now)| **before > 0 && **now == 0);
            let count = orphaned.count();
            if count > 0 {
                self.broken(world, format!("{count} slots lost their group"));
            }
        }
        self.slots = Some(owners);
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
