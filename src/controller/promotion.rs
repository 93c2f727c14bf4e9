//! A person's request for a switchover: the annotation `codis.k8s.io/promote`, dealt with once.

use k8s_openapi::jiff::Timestamp;

use super::Turn;
use crate::{
    api::{PromotionStatus, to_the_second},
    domain::DashboardView,
    plan::{Desired, verdict},
};

const STARTED: &str = "Started";
const DONE: &str = "Done";
const REFUSED: &str = "Refused";

/// Holds an open request against what is: it becomes a wish for `plan`, or is met, or refused.
pub(super) fn weigh(desired: &mut Desired<'_>, turn: &mut Turn<'_>, now: Timestamp) {
    let Some(request) = &desired.cluster.promotion else {
        return;
    };
    let known = turn
        .carried
        .promotion
        .clone()
        .filter(|known| known.request == request.text);
    if known.as_ref().is_some_and(|known| known.outcome != STARTED) {
        return;
    }
    let DashboardView::Online { topology, .. } = &turn.observed.dashboard else {
        return;
    };
    let target = known.and_then(|known| known.target);
    match verdict(desired, topology, request, target.as_deref()) {
        Ok(Some(wish)) => desired.promotion = Some(wish),
        // While an intent stands, it isn't over.
        Ok(None) if turn.carried.switchover.is_none() => {
            let (_, pod) = request.wish.clone().unwrap_or_default();
            let pod = target.or(pod).unwrap_or_default();
            turn.carried.promotion = Some(told(&request.text, DONE, None, format!("{pod} is master"), now));
        }
        Ok(None) => {}
        Err(why) => turn.carried.promotion = Some(told(&request.text, REFUSED, None, why, now)),
    }
}

/// The request is being met: `target` is settled on, so that it is known as met after a crash.
pub(super) fn begun(request: &str, target: &str, now: Timestamp) -> PromotionStatus {
    let what = format!("{target} is being made master");
    told(request, STARTED, Some(target.to_owned()), what, now)
}

/// After a switchover of this pass.
pub(super) fn conclude(turn: &mut Turn<'_>, done: bool, now: Timestamp) {
    if let Some(known) = turn
        .carried
        .promotion
        .as_ref()
        .filter(|known| done && known.outcome == STARTED)
    {
        let target = known.target.clone().unwrap_or_default();
        turn.carried.promotion = Some(told(&known.request, DONE, None, format!("{target} is master"), now));
    }
}

fn told(request: &str, outcome: &str, target: Option<String>, message: String, now: Timestamp) -> PromotionStatus {
    PromotionStatus {
        request: request.to_owned(),
        outcome: outcome.to_owned(),
        target,
        message,
        at: to_the_second(now).to_string(),
    }
}
