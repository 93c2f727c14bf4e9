//! Trouble between the operators and the API server: who has which kind of it at present. What becomes of a single request is
//! drawn from the world's seed.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::api::{ApiServer, Asked, Fault};

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Every third request is refused: 409, 429, 500, 503 or 504.
    Refusals,
    /// Every third request is done, and its answer never arrives.
    LostReplies,
    /// Every other request takes up to four seconds.
    Slow,
    /// Nobody reaches the server.
    Away,
}

/// What an overloaded server, one that starts, or one with a quicker writer refuses with.
const REFUSALS: [u16; 5] = [409, 429, 500, 503, 504];
/// Longer than a renewal of the Lease may take, shorter than what any call waits.
const SLOWEST: u64 = 4_000;

/// The trouble of the moment. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub struct Weather(Arc<Mutex<State>>);

struct State {
    chance: fastrand::Rng,
    /// Each with whose requests it is about; everybody's where nobody is named.
    present: Vec<(Trouble, Option<&'static str>)>,
}

impl Weather {
    /// None yet, for the requests of those whose names begin with `operator`: persons try again anyway.
    pub fn over(api: &ApiServer, seed: u64) -> Self {
        let weather = Self(Arc::new(Mutex::new(State {
            chance: fastrand::Rng::with_seed(seed ^ 0xc10d),
            present: Vec::new(),
        })));
        let asked = weather.clone();
        api.set_faults(move |request| asked.fate(request));
        weather
    }

    /// Trouble begins.
    pub fn begin(&self, trouble: Trouble, whose: Option<&'static str>) {
        self.state().present.push((trouble, whose));
    }

    /// It is over.
    pub fn end(&self, trouble: Trouble, whose: Option<&'static str>) {
        let mut state = self.state();
        if let Some(index) = state.present.iter().position(|one| *one == (trouble, whose)) {
            state.present.remove(index);
        }
    }

    fn fate(&self, request: &Asked) -> Option<Fault> {
        if !request.who.starts_with("operator") {
            return None;
        }
        let state = &mut *self.state();
        let chance = &mut state.chance;
        let of_it = |(_, whose): &&(Trouble, Option<&'static str>)| whose.is_none_or(|whose| whose == request.who);
        state
            .present
            .iter()
            .filter(of_it)
            .find_map(|(trouble, _)| match trouble {
                Trouble::Refusals => {
                    (chance.u8(..3) == 0).then(|| Fault::Refuse(REFUSALS[chance.usize(..REFUSALS.len())]))
                }
                Trouble::LostReplies => (chance.u8(..3) == 0).then_some(Fault::LoseReply),
                Trouble::Slow => chance
                    .bool()
                    .then(|| Fault::Delay(Duration::from_millis(chance.u64(100..SLOWEST)))),
                Trouble::Away => Some(Fault::Break),
            })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
