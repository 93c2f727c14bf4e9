//! Parameters of running servers and sentinels, set where they differ from the spec. What was once found right isn't
//! read again until the spec, the process or the operator is another.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    build::{self, Facts},
    codis::{ANNOUNCED, Codis, Error, SentinelSettings},
    domain::{Address, DashboardView, Observed, ServerView},
    plan::{Decision, Desired, Note, reason},
    validate::ValidCluster,
};

/// What was found right: the settings, and for how long the process had run.
#[derive(Default)]
pub(super) struct Verified(Mutex<HashMap<(String, Address), (String, u64)>>);

impl Verified {
    fn knows(&self, cluster: &str, address: &Address, settings: &str, uptime: u64) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&(cluster.to_owned(), address.clone()));
        known.is_some_and(|(known, at)| known == settings && uptime >= *at)
    }

    fn note(&self, cluster: &str, address: &Address, settings: String, uptime: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((cluster.to_owned(), address.clone()), (settings, uptime));
    }

    /// Forgets a cluster that is gone.
    pub(super) fn forget(&self, cluster: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_sentinels = format!("{cluster}#");
        all.retain(|(known, _), _| known != cluster && !known.starts_with(&of_sentinels));
    }
}

/// Sets what differs, once nothing more urgent is left to do. A refusal is told in the decision, and tried again.
pub(super) async fn tune(
    verified: &Verified,
    codis: &Codis,
    desired: &Desired<'_>,
    observed: &Observed,
    facts: &Facts,
    decision: &mut Decision,
) {
    let brakes = &desired.cluster.brakes;
    if decision.step.is_some() || observed.intent.is_some() || brakes.observe {
        return;
    }
    let mut failures = Vec::new();
    if brakes.stops("server", desired.now).is_none() {
        failures.extend(servers(verified, codis, desired.cluster, observed, facts).await);
    }
    if brakes.stops("sentinel", desired.now).is_none() {
        failures.extend(sentinels(verified, codis, desired.cluster, observed).await);
    }
    for (address, error) in failures {
        tracing::warn!(cluster = desired.cluster.names.cluster, %address, %error, "a parameter wasn't set");
        decision.waits.push(Note {
            reason: reason::STEP_FAILED,
            message: format!("set the parameters of {address}: {error}"),
        });
    }
}

type Failure = (Address, Error);

pub(super) fn key(cluster: &ValidCluster) -> String {
    format!("{}/{}", cluster.names.namespace, cluster.names.cluster)
}

async fn servers(
    verified: &Verified,
    codis: &Codis,
    cluster: &ValidCluster,
    observed: &Observed,
    facts: &Facts,
) -> Option<Failure> {
    let wished = build::live_settings(cluster, facts);
    let (key, word) = (key(cluster), format!("{wished:?}"));
    for (address, view) in &observed.servers {
        let ServerView::Up { uptime, .. } = view else { continue };
        // One that is to be made anew has another memory limit: what fits the new one may not fit it.
        let is_outdated = observed.server_pods.get(address).is_none_or(|pod| pod.outdated);
        let is_inherited = facts
            .inherited
            .as_ref()
            .is_some_and(|old| old.hosts.contains(address.host()));
        if is_outdated || is_inherited || verified.knows(&key, address, &word, *uptime) {
            continue;
        }
        // Its Service may have got another one since it was started.
        let mut wished = wished.clone();
        wished.insert(ANNOUNCED.to_owned(), address.host().to_owned());
        match server(codis, address, &wished).await {
            Ok(()) => verified.note(&key, address, word.clone(), *uptime),
            Err(error) => return Some((address.clone(), error)),
        }
    }
    None
}

async fn server(codis: &Codis, address: &Address, wished: &BTreeMap<String, String>) -> Result<(), Error> {
    let keys: Vec<&str> = wished.keys().map(String::as_str).collect();
    let found = codis.config_of(address, &keys).await?;
    // A parameter that this version of redis doesn't know is left out: it wouldn't start with it in its file either.
    let differs = |(key, value): &(&String, &String)| {
        let found = found.get(*key);
        found.is_some_and(|found| !build::has_setting(key, value, found))
    };
    let pairs: Vec<(String, String)> = wished
        .iter()
        .filter(differs)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !pairs.is_empty() {
        let names: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        tracing::info!(%address, parameters = names.join(", "), "set parameters live");
    }
    codis.set_config(address, &pairs).await
}

async fn sentinels(verified: &Verified, codis: &Codis, cluster: &ValidCluster, observed: &Observed) -> Option<Failure> {
    let DashboardView::Online { topology, .. } = &observed.dashboard else {
        return None;
    };
    // They are about to be configured anew. A quorum is changed once all the sentinels that count are there.
    if topology.sentinels.out_of_sync {
        return None;
    }
    let wished = settings(cluster);
    let key = key(cluster);
    for (address, view) in &observed.sentinels {
        let Ok(view) = view else { continue };
        for group in topology.groups.values() {
            let name = format!("{}-{}", cluster.product(), group.id);
            let Some(known) = view.masters.get(&name) else { continue };
            let word = format!("{wished:?}");
            // By group: a sentinel watches many.
            let place = format!("{key}#{}", group.id);
            if group.master() != Some(&known.address) || verified.knows(&place, address, &word, 0) {
                continue;
            }
            let done = match codis.sentinel_settings(address, group.id).await {
                Ok(found) if found == wished => Ok(()),
                Ok(_) => codis.monitor(address, group.id, &known.address, &wished).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => verified.note(&place, address, word, 0),
                Err(error) => return Some((address.clone(), error)),
            }
        }
    }
    None
}

/// What sentinels are told of each master.
pub(super) fn settings(cluster: &ValidCluster) -> SentinelSettings {
    let tuning = cluster.sentinel_tuning;
    SentinelSettings {
        quorum: cluster.quorum().into(),
        parallel_syncs: tuning.parallel_syncs,
        down_after: Duration::from_millis(tuning.down_after_ms.into()),
        failover_timeout: Duration::from_millis(tuning.failover_timeout_ms.into()),
    }
}
