//! (observed, desired) → the next step and its reason. Pure: bootstrap and heal.
//!
//! May enter: domain, validate, build's addresses. Stays out: clients, clocks (time comes in as durations).
//!
//! The rules of [`HEALING`] and then of [`VOLUNTARY`] are asked in order; the first that knows a step wins. A rule that must not act yet says what
//! it waits for, one that must never act by itself says why it is blocked; the status shows both.

mod bootstrap;
mod claim;
mod drain;
mod gate;
mod heal;
mod health;
mod input;
mod layout;
mod loss;
mod moves;
mod proxies;
mod readdress;
mod reads;
mod restore;
mod roll;
mod sentinels;
mod shrink;
mod slots;
mod spread;
mod step;
mod takeover;

pub use health::{Health, health};
pub use input::Desired;
pub use loss::GONE_AFTER;
pub use moves::verdict;
pub use restore::{dump, dump_with};
pub use slots::{balanced, slots_to_move};
pub use step::{Decision, Note, Step, reason};
pub use takeover::takeover_objection;

use crate::domain::{DashboardView, Observed};
use claim::Verdict;
use input::Input;

/// How the stand-in for Codis begins to say what it is.
pub const STAND_IN: &str = "codis-double";

type Rule = fn(&Input<'_>, &mut Decision) -> Option<Step>;

/// What lets a restarted master serve again needs no dashboard and comes first. One dead proxy blocks every other write
/// to the dashboard, so its record goes before those. What replaces a member's data
/// comes before what copies it, and healing before building; sentinels come before slots, so that nothing is served
/// unwatched.
const HEALING: [Rule; 30] = [
    slots::halt,
    moves::undo,
    gate::unfence,
    sentinels::relink,
    proxies::remove_dead,
    proxies::replace_silent,
    proxies::spare,
    loss::remove_dead,
    gate::start_empty,
    bootstrap::arm,
    restore::restore,
    readdress::readdress,
    sentinels::redirect,
    bootstrap::finish_assignment,
    heal::promote,
    heal::make_official,
    heal::attach,
    bootstrap::groups_and_servers,
    takeover::forget_sentinels,
    sentinels::add,
    sentinels::resync,
    sentinels::monitor,
    bootstrap::slots,
    proxies::online,
    proxies::align,
    loss::replace_stateless,
    loss::forget_volumes,
    sentinels::replace_silent,
    roll::replace_broken,
    moves::requested,
];

/// What can wait: changes that nobody's data or service depends on now.
const VOLUNTARY: [Rule; 9] = [
    drain::evacuate,
    reads::align,
    shrink::leave,
    takeover::replace,
    slots::spread,
    slots::leave,
    roll::sentinels,
    roll::servers,
    spread::balance,
];

/// Whether the dashboard answers and its product is known to be this cluster's: only then anything is written there.
#[must_use]
pub fn owns_product(desired: &Desired<'_>, observed: &Observed) -> bool {
    let DashboardView::Online { topology, .. } = &observed.dashboard else {
        return false;
    };
    let input = Input {
        desired,
        observed,
        topology,
    };
    matches!(claim::verdict(&input), Verdict::Ours)
}

/// The next step towards what is desired.
#[must_use]
pub fn decide(desired: &Desired<'_>, observed: &Observed) -> Decision {
    let mut decision = Decision::default();
    for part in &observed.unready {
        decision.wait(reason::PODS_NOT_READY, format!("pods are not ready: {part}"));
    }
    let (version, topology) = match &observed.dashboard {
        DashboardView::Online { version, topology } => (version, topology.as_ref()),
        DashboardView::Unavailable(why) => {
            // Not even what a switchover left is cleared away: that goes through the dashboard, too.
            if let Some(why) = &observed.owned_elsewhere {
                decision.block(reason::PRODUCT_OWNED_ELSEWHERE, why.clone());
                return decision;
            }
            decision.wait(
                reason::DASHBOARD_NOT_READY,
                format!("the dashboard is not ready: {why}"),
            );
            // A fence of a switchover must stay until the dashboard says how far it came; the locks needn't.
            let undo = observed.intent.clone().map(Step::Undo);
            decision.nodes = drain::told(desired, observed, None);
            // What may bring the dashboard back comes first: without it an intent can't come to its end.
            decision.step = loss::remove(observed)
                .or_else(|| loss::replace(desired, observed))
                .or_else(|| loss::forget_dashboard(desired, observed, &mut decision))
                .or(undo)
                .or_else(|| gate::unfence_by_sentinels(desired, observed));
            return decision;
        }
    };
    if version.starts_with(STAND_IN) && !desired.allow_stand_in {
        let what = "the images hold the stand-in for Codis, which is for tests only: use images of Codis, or start the operator with --allow-stand-in";
        decision.block(reason::STAND_IN_REFUSED, what.to_owned());
        return decision;
    }
    let input = Input {
        desired,
        observed,
        topology,
    };
    match claim::verdict(&input) {
        Verdict::Ours => {}
        Verdict::Unmarked => {
            decision.step = Some(Step::ClaimProduct);
            return decision;
        }
        Verdict::Unclear(what) => {
            decision.wait(reason::PROXIES_NOT_READY, what);
            return decision;
        }
        Verdict::Foreign(why) => {
            decision.block(reason::PRODUCT_OWNED_ELSEWHERE, why);
            return decision;
        }
    }
    decision.nodes = drain::told(desired, observed, Some(topology));
    decision.step = HEALING.iter().find_map(|rule| rule(&input, &mut decision));
    for what in &observed.rolling {
        decision.wait(reason::ROLLING, format!("{what} is being rolled"));
    }
    if decision.step.is_none() && observed.intent.is_none() && !restore::is_lost(&decision) {
        decision.step = VOLUNTARY.iter().find_map(|rule| rule(&input, &mut decision));
        decision.is_voluntary = decision.step.is_some();
    }
    if let (true, Some(why), Some(step)) = (decision.is_voluntary, &desired.stopped, &decision.step) {
        decision.wait(reason::HELD, format!("{step}: {why}"));
        decision.step = None;
        decision.is_voluntary = false;
    }
    decision
}

#[cfg(test)]
mod tests;
