//! What of the configuration only a restart can change, as an annotation of the pod template: a change of it rolls the
//! pods. Without overrides there is none, so that the operator's own upgrades restart nothing.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::{
    Facts,
    files::{jodis_settings, sentinel_process_settings, server_start_settings},
    meta::Component,
};
use crate::validate::{SentinelTuning, ValidCluster};

/// Annotation of pods: which configuration they were started with.
pub(super) const ANNOTATION_CONFIG: &str = "codis.k8s.io/config";

/// A short word for what the pods of a component read at their start only; none where it is all the operator's choice.
/// Never a hash of a password, which could be guessed from it: rotations are counted instead.
pub(super) fn revision(cluster: &ValidCluster, facts: &Facts, component: Component) -> Option<String> {
    let mut lines: Vec<(String, String)> = match component {
        Component::Dashboard => {
            let tuning = cluster.sentinel.iter().flat_map(|sentinel| &sentinel.config);
            // The dashboard tells the sentinels of new masters, with these.
            let tuning = tuning.filter(|(key, _)| SentinelTuning::KEYS.contains(&key.as_str()));
            owned(cluster.dashboard.config.iter().chain(tuning))
        }
        Component::Proxy => {
            let mut lines = owned(cluster.proxy.config.iter());
            lines.extend(jodis_settings(cluster));
            lines
        }
        Component::Fe => Vec::new(),
        Component::Sentinel => owned(sentinel_process_settings(cluster)),
        Component::Server(_) => owned(server_start_settings(cluster)),
    };
    if component == Component::Proxy && facts.session_rotations > 0 {
        lines.push(("session-auth rotations".to_owned(), facts.session_rotations.to_string()));
    }
    (!lines.is_empty()).then(|| hash(&lines))
}

fn owned<'a>(settings: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<(String, String)> {
    settings.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn hash(lines: &[(String, String)]) -> String {
    let text = lines.iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key} {value}");
        text
    });
    let digest = Sha256::digest(text);
    digest.iter().take(8).fold(String::new(), |mut word, byte| {
        let _ = write!(word, "{byte:02x}");
        word
    })
}
