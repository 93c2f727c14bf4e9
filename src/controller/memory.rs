//! What is kept between two passes. All of it may be forgotten: it then takes longer until somebody acts.

use std::{collections::HashMap, sync::Mutex, time::Instant};

use crate::domain::Address;

/// Since when servers have been silent.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<(String, String), HashMap<Address, Instant>>>);

impl Memory {
    /// Notes who is silent now, and returns for how many seconds in a row each has been.
    pub(super) fn silent(&self, namespace: &str, name: &str, now: Instant, silent: &[Address]) -> Vec<(Address, u64)> {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let since = all.entry((namespace.to_owned(), name.to_owned())).or_default();
        since.retain(|address, _| silent.contains(address));
        let seconds = |address: &Address, since: &mut HashMap<Address, Instant>| {
            now.duration_since(*since.entry(address.clone()).or_insert(now))
                .as_secs()
        };
        silent
            .iter()
            .map(|address| (address.clone(), seconds(address, since)))
            .collect()
    }

    pub(super) fn forget(&self, namespace: &str, name: &str) {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.remove(&(namespace.to_owned(), name.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn silence_is_counted_from_its_beginning_and_anew_after_an_answer() {
        let (memory, start) = (Memory::default(), Instant::now());
        let server = Address::new("10.0.0.1", 6379);
        let at = |seconds: u64, silent: &[Address]| {
            memory
                .silent("ns", "c", start + Duration::from_secs(seconds), silent)
                .first()
                .map(|(_, for_)| *for_)
        };
        assert_eq!(at(0, std::slice::from_ref(&server)), Some(0));
        assert_eq!(at(7, std::slice::from_ref(&server)), Some(7));
        assert_eq!(at(8, &[]), None);
        assert_eq!(at(9, &[server]), Some(0));
    }
}
