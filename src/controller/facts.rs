//! What is so, whatever the spec says: assigned addresses, armed gates, passwords in force, claim templates.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{Node, Pod, Secret},
    },
    jiff::Timestamp,
};
use kube::ResourceExt;

use super::{
    dump, nodes,
    observe::{is_ready, is_unschedulable, of_component},
    passwords,
};
use crate::{
    api::{CodisCluster, GroupStatus, ServerStatus, names::LABEL_GROUP},
    build::{
        self, Component, DATA_CLAIM, Facts, KEY_BOOTSTRAPPED, KEY_FORMER, KEY_LIVE_KEYS, KEY_PRODUCT_CLAIMED,
        KEY_SESSION_ROTATIONS,
    },
    cluster::Live,
    domain::{Dump, GroupId, Part},
    validate::{Auth, ValidCluster, Volume},
};

pub(super) fn facts(
    cluster: &CodisCluster,
    valid: &ValidCluster,
    live: &Live,
    nodes: &BTreeMap<String, Node>,
    wished: &Auth,
    now: Timestamp,
) -> Facts {
    let status = cluster.status.clone().unwrap_or_default();
    let dump = dump::read(live, &valid.names.uid)
        .and_then(Result::ok)
        .unwrap_or_default();
    // What the dump remembers are hints for Services that don't exist: a volume's server is known by its old address.
    let mut addresses: BTreeMap<String, String> = dump.addresses.clone();
    addresses.extend(status.addresses.clone());
    addresses.extend(live.services.iter().filter_map(|(name, service)| {
        let ip = service.spec.as_ref()?.cluster_ip.clone()?;
        (ip != "None" && !ip.is_empty()).then(|| (name.clone(), ip))
    }));
    let gates = live.secret.as_ref().filter(|secret| has(secret, KEY_BOOTSTRAPPED));
    let bootstrapped = match gates {
        Some(secret) => text(secret, KEY_BOOTSTRAPPED).lines().filter_map(group).collect(),
        // Somebody deleted the Secret, or the key: the status still knows. Of volumes that were taken over, the dump does.
        None => {
            let armed = status.groups.iter().filter(|group| group.bootstrapped);
            armed
                .filter_map(|group| GroupId::try_from(u64::try_from(group.id).ok()?).ok())
                .chain(dump.slots.iter().filter_map(|slot| slot.group))
                .collect()
        }
    };
    let mark = live.secret.as_ref().filter(|secret| has(secret, KEY_PRODUCT_CLAIMED));
    let claimed = mark.map_or(status.product.is_some() || dump.product == valid.product(), |secret| {
        !text(secret, KEY_PRODUCT_CLAIMED).is_empty()
    });
    let (auth, session_rotations) = auth(valid, live, wished, now);
    let whole = whole(cluster, valid);
    Facts {
        former: former(live, &dump, &status.addresses, &addresses),
        addresses,
        bootstrapped,
        strict: strict(cluster, valid, live, nodes),
        dashboard_may_go: dashboard_may_go(valid, live, &whole),
        whole,
        group_sizes: group_sizes(cluster, valid, live),
        auth,
        session_rotations,
        live_keys: live.secret.iter().flat_map(live_keys).collect(),
        proxies: live
            .deployments
            .get(&valid.names.proxy())
            .and_then(|proxies| proxies.spec.as_ref()?.replicas),
        volumes: live
            .stateful_sets
            .iter()
            .map(|(name, set)| (name.clone(), volume_of(set)))
            .collect(),
        claimed,
        kubernetes_uid: String::new(),
        inherited: None,
    }
}

/// The addresses that Services had, each with its Service: those that were noted, and those that changed since. The Secret
/// is written before the status and the dump, so none is forgotten between them. Where somebody deleted it the dump knows.
fn former(
    live: &Live,
    dump: &Dump,
    status: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let noted = live
        .secret
        .as_ref()
        .map(|secret| text(secret, KEY_FORMER))
        .unwrap_or_default();
    let noted = noted.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (old, _, name) = (words.next()?, words.next()?, words.next()?);
        Some((old.to_owned(), name.to_owned()))
    });
    let earlier = dump.addresses.iter().chain(status);
    let mut former = dump.former.clone();
    former.extend(noted);
    former.extend(earlier.map(|(name, old)| (old.clone(), name.clone())));
    // One of ours may have been given what another one had.
    let present: BTreeSet<&String> = now.values().collect();
    former.retain(|old, _| !present.contains(old));
    former
}

/// Groups whose servers must be on different nodes: those that were made so, and new ones where there is room for it.
/// With a node to spare, so that the group is whole again while one is drained. A group of one may grow. The status
/// remembers those whose StatefulSet somebody deleted.
fn strict(
    cluster: &CodisCluster,
    valid: &ValidCluster,
    live: &Live,
    nodes: &BTreeMap<String, Node>,
) -> BTreeSet<GroupId> {
    let has_room = nodes::room_for(&valid.server.placement, nodes) > usize::from(valid.group_size.max(2));
    let groups = known_groups(cluster);
    let remembered = |group: &GroupId| {
        let known = groups.iter().find(|known| known.id == i32::from(group.get()))?;
        known.anti_affinity.as_ref().map(|word| word == "required")
    };
    let is_strict = |group: &GroupId| match live.stateful_sets.get(&valid.names.group(*group)) {
        Some(set) => set.spec.as_ref().is_some_and(|spec| build::is_strict(&spec.template)),
        None => remembered(group).unwrap_or(has_room),
    };
    valid.group_ids().filter(is_strict).collect()
}

/// Whether the dashboard may be evicted: without it no master is handed over and no new replica attached, so it leaves a
/// node as the last. Servers that nowhere else takes, because their volumes stay, aren't waited for.
fn dashboard_may_go(valid: &ValidCluster, live: &Live, whole: &BTreeSet<GroupId>) -> bool {
    let node_of = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let dashboard = of_component(live, Component::Dashboard.name()).next();
    let Some(node) = dashboard.and_then(node_of) else {
        return true;
    };
    let is_settled = |group: GroupId| {
        let of_group = |pod: &&Pod| {
            pod.labels()
                .get(LABEL_GROUP)
                .is_some_and(|label| *label == group.to_string())
        };
        let pods: Vec<&Pod> = of_component(live, Component::Server(group).name())
            .filter(of_group)
            .collect();
        let (stranded, placed): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| is_unschedulable(pod));
        let all_ready = placed.iter().all(|pod| is_ready(pod));
        let is_complete =
            pods.len() >= usize::from(valid.group_size) && (whole.contains(&group) || !stranded.is_empty());
        all_ready && is_complete && !placed.iter().any(|pod| node_of(pod).as_ref() == Some(&node))
    };
    valid.group_size < 2 || valid.group_ids().all(is_settled)
}

/// Groups that had all their servers, in step, when they were last looked at.
fn whole(cluster: &CodisCluster, valid: &ValidCluster) -> BTreeSet<GroupId> {
    let groups = known_groups(cluster);
    let is_well = |server: &ServerStatus| server.role == "master" || server.link_up == Some(true);
    let is_whole = |group: &&GroupStatus| {
        group.servers.len() >= usize::from(valid.group_size) && group.servers.iter().all(is_well)
    };
    let ids = groups
        .iter()
        .filter(is_whole)
        .filter_map(|group| u64::try_from(group.id).ok());
    ids.filter_map(|id| GroupId::try_from(id).ok()).collect()
}

/// Groups that still have more servers than is wished: by the topology that the last pass saw, else by their pods.
fn group_sizes(cluster: &CodisCluster, valid: &ValidCluster, live: &Live) -> BTreeMap<GroupId, u16> {
    let groups = known_groups(cluster);
    let size = |group: GroupId| {
        let set = valid.names.group(group);
        let ordinal = |pod: &str| pod.strip_prefix(&format!("{set}-"))?.parse::<u16>().ok();
        match groups.iter().find(|known| known.id == i32::from(group.get())) {
            Some(known) if !known.servers.is_empty() => known
                .servers
                .iter()
                .filter_map(|server| ordinal(&server.name))
                .max()
                .map(|highest| highest + 1),
            _ => {
                let replicas = live.stateful_sets.get(&set)?.spec.as_ref()?.replicas?;
                u16::try_from(replicas).ok()
            }
        }
    };
    let larger = valid.group_ids().filter_map(|group| Some((group, size(group)?)));
    larger.filter(|(_, size)| *size > valid.group_size).collect()
}

/// Groups whose servers keep their data on volumes.
pub(super) fn persistent(valid: &ValidCluster, facts: &Facts) -> BTreeSet<GroupId> {
    let has_volume = |group: &GroupId| match facts.volumes.get(&valid.names.group(*group)) {
        Some(volume) => volume.is_some(),
        None => valid.volume.is_some(),
    };
    valid.group_ids().filter(has_volume).collect()
}

/// The passwords that are to be in force, and how often that of the clients changed. New proxies take a new one from
/// their Secret, so it is in force as soon as it is there. That of the servers stays as it is.
fn auth(valid: &ValidCluster, live: &Live, wished: &Auth, now: Timestamp) -> (Auth, u32) {
    let Some(secret) = live.secret.as_ref().filter(|secret| passwords::has_passwords(secret)) else {
        return (wished.clone(), 0);
    };
    let (in_force, rotations) = (passwords::in_force(secret), rotations(secret));
    let is_held = valid.brakes.observe || valid.brakes.stops("proxy", now).is_some();
    if is_held || in_force.session == wished.session {
        return (in_force, rotations);
    }
    let session = wished.session.clone();
    (Auth { session, ..in_force }, rotations + 1)
}

fn rotations(secret: &Secret) -> u32 {
    text(secret, KEY_SESSION_ROTATIONS).trim().parse().unwrap_or(0)
}

fn live_keys(secret: &Secret) -> Vec<String> {
    text(secret, KEY_LIVE_KEYS).lines().map(str::to_owned).collect()
}

/// How many proxies are wished while an autoscaler decides: what their Deployment asks for. None isn't its choice.
pub(super) fn scaled(valid: &mut ValidCluster, live: &Live) {
    let Some(scaling) = valid.proxy_scaling else {
        return;
    };
    let proxies = live.deployments.get(&valid.names.proxy());
    // What scaled the predecessor's had its reasons.
    let proxies = proxies.or_else(|| live.predecessor.deployments.get(&Part::Proxies));
    let inherited = live.predecessor.replica_sets.iter();
    let inherited = inherited.filter_map(|set| set.spec.as_ref()?.replicas).max();
    let asked = proxies
        .and_then(|proxies| proxies.spec.as_ref()?.replicas)
        .or(inherited)
        .filter(|asked| *asked > 0);
    let wished = asked.unwrap_or_else(|| i32::from(valid.proxy.replicas).clamp(scaling.min, scaling.max));
    valid.proxy.replicas = u16::try_from(wished).unwrap_or(u16::MAX);
}

/// Groups that aren't wished any more and still exist: in the topology as it was last seen, or as a StatefulSet. They are
/// kept well until they are empty.
pub(super) fn leaving(valid: &mut ValidCluster, cluster: &CodisCluster, live: &Live) {
    if crate::seeded::has(crate::seeded::Bug::GroupGoesFirst) {
        return;
    }
    let prefix = format!("{}-g", valid.names.cluster);
    let exists = |set: &&StatefulSet| set.metadata.deletion_timestamp.is_none();
    let sets = live.stateful_sets.values().filter(exists).map(ResourceExt::name_any);
    let of_sets = sets.filter_map(|name| name.strip_prefix(&prefix).and_then(group));
    let known = known_groups(cluster)
        .iter()
        .filter_map(|known| u64::try_from(known.id).ok());
    let known = known.filter_map(|id| GroupId::try_from(id).ok());
    let all: BTreeSet<GroupId> = of_sets.chain(known).collect();
    valid.leaving_groups = all.into_iter().filter(|group| !valid.stays(*group)).collect();
}

/// Wishes that can't be met on what exists, for the status.
pub(super) fn without_effect(valid: &ValidCluster, wished: &Auth, facts: &Facts) -> Vec<String> {
    let mut notes = valid.without_effect.clone();
    if facts.auth.product != wished.product {
        notes.push(
            "spec.codisDashboard.productAuth: servers, proxies and dashboard would have to change it at one moment, which is not in this version: the old one is in force".into(),
        );
    }
    notes
}

fn group(line: &str) -> Option<GroupId> {
    GroupId::try_from(line.trim().parse::<u64>().ok()?).ok()
}

fn has(secret: &Secret, key: &str) -> bool {
    secret.data.as_ref().is_some_and(|data| data.contains_key(key))
}

fn text(secret: &Secret, key: &str) -> String {
    passwords::text(secret, key).unwrap_or_default()
}

/// The groups as the last pass told them.
fn known_groups(cluster: &CodisCluster) -> &[GroupStatus] {
    cluster.status.as_ref().map_or(&[], |status| &status.groups)
}

fn volume_of(set: &StatefulSet) -> Option<Volume> {
    let templates = set.spec.as_ref()?.volume_claim_templates.as_ref()?;
    let template = templates
        .iter()
        .find(|claim| claim.metadata.name.as_deref() == Some(DATA_CLAIM))?;
    let spec = template.spec.as_ref()?;
    let size = spec.resources.as_ref()?.requests.as_ref()?.get("storage")?;
    Some(Volume {
        class: spec.storage_class_name.clone(),
        size: size.0.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;
    use crate::validate::validate;

    /// Whether the product counts as marked, by the Secret's key and the status.
    fn is_claimed(key: Option<&str>, status: Option<&str>) -> bool {
        let cluster: CodisCluster = serde_json::from_value(json!({
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisCluster",
            "metadata": { "name": "c", "namespace": "ns", "uid": "u" },
            "spec": {
                "coordinatorName": "etcd", "coordinatorAddr": "etcd:2379",
                "codisProxy": { "image": "codis", "replicas": 1 },
                "codisServer": { "image": "codis", "replicas": 2, "groupReplicas": 2 },
                "codisDashboard": { "image": "codis" },
            },
            "status": { "product": status },
        }))
        .unwrap();
        let data = |text: &str| BTreeMap::from([(KEY_PRODUCT_CLAIMED.to_owned(), ByteString(text.into()))]);
        let secret = Secret {
            data: Some(key.map(data).unwrap_or_default()),
            ..Secret::default()
        };
        let live = Live {
            secret: Some(secret),
            ..Live::default()
        };
        let valid = validate(&cluster).unwrap();
        facts(
            &cluster,
            &valid,
            &live,
            &BTreeMap::new(),
            &Auth::default(),
            Timestamp::UNIX_EPOCH,
        )
        .claimed
    }

    #[test]
    fn the_mark_is_in_the_secret_and_where_somebody_took_it_out_the_status_knows() {
        assert!(is_claimed(Some("c\n"), None));
        assert!(is_claimed(None, Some("c")));
        assert!(!is_claimed(Some(""), Some("c")), "the Secret's word goes first");
        assert!(!is_claimed(None, None));
    }

    #[test]
    fn an_address_that_changed_is_remembered_with_its_service_until_one_has_it_again() {
        let table = "10.0.0.1 10.0.0.3 c-g1-0\n10.0.0.9 10.0.0.3\n";
        let secret = Secret {
            data: Some([(KEY_FORMER.to_owned(), ByteString(table.into()))].into()),
            ..Secret::default()
        };
        let live = Live {
            secret: Some(secret),
            ..Live::default()
        };
        let names = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
            all.iter()
                .map(|(one, other)| ((*one).to_owned(), (*other).to_owned()))
                .collect()
        };
        let dump = Dump {
            addresses: names(&[("c-g1-0", "10.0.0.2"), ("c-g1-1", "10.0.0.5")]),
            former: names(&[("10.0.0.7", "c-g1-1")]),
            ..Dump::default()
        };
        let status = names(&[("c-g1-0", "10.0.0.3"), ("c-g1-1", "10.0.0.5")]);
        let now = names(&[("c-g1-0", "10.0.0.4"), ("c-g1-1", "10.0.0.5")]);
        assert_eq!(
            former(&live, &dump, &status, &now),
            names(&[
                ("10.0.0.1", "c-g1-0"),
                ("10.0.0.2", "c-g1-0"),
                ("10.0.0.3", "c-g1-0"),
                ("10.0.0.7", "c-g1-1")
            ])
        );
        let now = names(&[("c-g1-0", "10.0.0.2"), ("c-g1-1", "10.0.0.1")]);
        assert_eq!(
            former(&live, &dump, &status, &now),
            names(&[("10.0.0.3", "c-g1-0"), ("10.0.0.5", "c-g1-1"), ("10.0.0.7", "c-g1-1")])
        );
    }
}
