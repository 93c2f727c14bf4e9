//! Volumes that are wished larger. A StatefulSet's claim template can't be changed: the claims are grown, then the
//! StatefulSet is made anew around its pods, which stay.

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::PersistentVolumeClaim};
use kube::ResourceExt;

use super::{Context, Error, adoption, teardown};
use crate::{
    api::{CodisCluster, Quantity},
    build::{DATA_CLAIM, Facts},
    cluster::{Live, Propagation},
    domain::GroupId,
    validate::{ValidCluster, Volume},
};

const SIZE: &str = "spec.codisServer.requests.storage";
const CLASS: &str = "spec.codisServer.storageClassName";

/// A group whose StatefulSet somebody deleted has its data on the claims that it left, whatever the spec says by now: made
/// anew without them it would look like one that lost its data.
pub(super) async fn remember(
    context: &Context,
    cluster: &CodisCluster,
    valid: &ValidCluster,
    facts: &mut Facts,
) -> Result<(), Error> {
    let is_orphaned =
        |group: &GroupId| facts.bootstrapped.contains(group) && !facts.volumes.contains_key(&valid.names.group(*group));
    let orphaned: Vec<String> = valid
        .group_ids()
        .filter(is_orphaned)
        .map(|group| valid.names.group(group))
        .collect();
    if orphaned.is_empty() {
        return Ok(());
    }
    let claims = context.cluster.claims(cluster).await?;
    for set in orphaned {
        let volume = claims.iter().find(|claim| is_of(claim, &set)).and_then(volume_of);
        if volume.is_some() {
            facts.volumes.insert(set, volume);
        }
    }
    Ok(())
}

fn volume_of(claim: &PersistentVolumeClaim) -> Option<Volume> {
    Some(Volume {
        class: claim.spec.as_ref()?.storage_class_name.clone(),
        size: requested(claim)?.to_owned(),
    })
}

/// Grows what can grow. What can't be met on the volumes that exist is told, with the reason.
pub(super) async fn settle(
    context: &Context,
    cluster: &CodisCluster,
    valid: &ValidCluster,
    live: &Live,
    facts: &Facts,
) -> Result<Vec<String>, Error> {
    let mut notes: Vec<String> = Vec::new();
    let mut growing: Vec<(GroupId, &Volume)> = Vec::new();
    for group in valid.group_ids() {
        let Some(found) = facts.volumes.get(&valid.names.group(group)) else {
            continue;
        };
        match verdict(found.as_ref(), valid.volume.as_ref()) {
            Verdict::Same => {}
            Verdict::Impossible(why) if notes.contains(&why) => {}
            Verdict::Impossible(why) => notes.push(why),
            Verdict::Grow(wished) => growing.push((group, wished)),
        }
    }
    if growing.is_empty() {
        return Ok(notes);
    }
    let claims = context.cluster.claims(cluster).await?;
    for (group, wished) in growing {
        if let Some(why) = grow(context, valid, live, group, wished, &claims).await?
            && !notes.contains(&why)
        {
            notes.push(why);
        }
    }
    Ok(notes)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    Same,
    Grow(&'a Volume),
    Impossible(String),
}

/// What is to become of a group's volumes. Data never moves from one kind of storage to another by itself.
fn verdict<'a>(found: Option<&Volume>, wished: Option<&'a Volume>) -> Verdict<'a> {
    let impossible = |field: &str, why: String| Verdict::Impossible(format!("{field}: {why}"));
    let (found, wished) = match (found, wished) {
        (None, None) => return Verdict::Same,
        (Some(_), None) => {
            return impossible(SIZE, "existing groups keep their volumes: data isn't moved".to_owned());
        }
        (None, Some(_)) => {
            let why = "existing groups keep their data on emptyDir: data isn't moved; make a new cluster with volumes";
            return impossible(SIZE, why.to_owned());
        }
        (Some(found), Some(wished)) => (found, wished),
    };
    if found.class != wished.class {
        let class = found.class.as_deref().unwrap_or("the default class");
        return impossible(
            CLASS,
            format!("existing groups keep {class}: data isn't moved between classes"),
        );
    }
    match (bytes(&found.size), bytes(&wished.size)) {
        (Some(old), Some(new)) if new > old => Verdict::Grow(wished),
        (Some(old), Some(new)) if new < old => impossible(
            SIZE,
            format!("volumes can't shrink: those of existing groups stay at {}", found.size),
        ),
        _ => Verdict::Same,
    }
}

fn bytes(size: &str) -> Option<i128> {
    Quantity(size.to_owned()).units().ok()
}

/// Claims first: if this ends in between, the template still says that there is something to do.
async fn grow(
    context: &Context,
    valid: &ValidCluster,
    live: &Live,
    group: GroupId,
    wished: &Volume,
    claims: &[PersistentVolumeClaim],
) -> Result<Option<String>, Error> {
    let name = valid.names.group(group);
    let claims: Vec<&PersistentVolumeClaim> = claims.iter().filter(|claim| is_of(claim, &name)).collect();
    for claim in &claims {
        if !is_bound(claim) {
            let claim = claim.name_any();
            return Ok(Some(format!(
                "{SIZE}: the claim {claim} has no volume yet: it grows once it has one"
            )));
        }
        let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
        let class = class.unwrap_or_default();
        match context.cluster.can_grow(class).await? {
            Some(true) => {}
            Some(false) => {
                return Ok(Some(format!(
                    "{SIZE}: the StorageClass {class} doesn't let volumes grow (allowVolumeExpansion): existing groups keep their size"
                )));
            }
            None => {
                return Ok(Some(format!(
                    "{SIZE}: there is no StorageClass {class:?} that could let volumes grow: existing groups keep their size"
                )));
            }
        }
    }
    for claim in claims {
        if requested(claim).and_then(bytes) < bytes(&wished.size) {
            context.cluster.grow(claim, &wished.size).await?;
        }
    }
    if let Some(set) = live.stateful_sets.get(&name)
        && let Some(uid) = set.uid().filter(|_| set.metadata.deletion_timestamp.is_none())
    {
        let namespace = &valid.names.namespace;
        tracing::info!(
            set = name,
            size = wished.size,
            "made anew for larger volumes; its pods stay"
        );
        context
            .cluster
            .delete::<StatefulSet>(namespace, &name, &uid, Propagation::Orphan)
            .await?;
    }
    Ok(None)
}

/// The API server refuses to grow any other.
fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Bound")
}

fn requested(claim: &PersistentVolumeClaim) -> Option<&str> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|size| size.0.as_str())
}

/// A StatefulSet names its claims `<template>-<set>-<ordinal>`.
fn is_of(claim: &PersistentVolumeClaim, set: &str) -> bool {
    let name = claim.name_any();
    let ordinal = name
        .strip_prefix(DATA_CLAIM)
        .and_then(|rest| rest.strip_prefix('-')?.strip_prefix(set)?.strip_prefix('-'));
    ordinal.is_some_and(|ordinal| ordinal.parse::<u16>().is_ok())
}

/// Deletes the claims of a cluster whose pods have ended: those of its servers, and the topology, which names servers
/// that are then no more. Those of an earlier cluster that it hasn't taken over were to be kept.
pub(super) async fn delete(context: &Context, cluster: &CodisCluster) -> Result<(), Error> {
    let claims = context.cluster.claims(cluster).await?;
    let is_data = |claim: &&PersistentVolumeClaim| teardown::is_of(*claim, &["server", "dashboard"]);
    let uid = cluster.uid().unwrap_or_default();
    let is_its_own = |claim: &&PersistentVolumeClaim| adoption::is_its_own(claim, &uid);
    for claim in claims.iter().filter(is_data).filter(is_its_own) {
        tracing::info!(
            cluster = cluster.name_any(),
            claim = claim.name_any(),
            "delete the volume"
        );
        context.cluster.remove(claim).await?;
    }
    Ok(())
}

/// Whether data of a cluster stays when it is gone.
pub(super) async fn outlives(context: &Context, cluster: &CodisCluster) -> Result<bool, Error> {
    let claims = context.cluster.claims(cluster).await?;
    let stays = |claim: &PersistentVolumeClaim| {
        teardown::is_of(claim, &["server"]) && claim.metadata.deletion_timestamp.is_none()
    };
    Ok(claims.iter().any(stays))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(class: Option<&str>, size: &str) -> Volume {
        Volume {
            class: class.map(str::to_owned),
            size: size.to_owned(),
        }
    }

    #[test]
    fn a_volume_grows_and_never_shrinks_or_changes_its_class() {
        let old = volume(Some("fast"), "1Gi");
        assert_eq!(
            verdict(Some(&old), Some(&volume(Some("fast"), "1024Mi"))),
            Verdict::Same
        );
        let larger = volume(Some("fast"), "2Gi");
        assert_eq!(verdict(Some(&old), Some(&larger)), Verdict::Grow(&larger));
        for (wished, field) in [
            (Some(volume(Some("fast"), "1Mi")), SIZE),
            (Some(volume(Some("slow"), "2Gi")), CLASS),
            (Some(volume(None, "2Gi")), CLASS),
            (None, SIZE),
        ] {
            let Verdict::Impossible(why) = verdict(Some(&old), wished.as_ref()) else {
                panic!("{wished:?}");
            };
            assert!(why.starts_with(field), "{why}");
        }
    }

    #[test]
    fn the_claims_of_group_1_are_not_those_of_group_11() {
        let claim = |name: &str| PersistentVolumeClaim {
            metadata: kube::core::ObjectMeta {
                name: Some(name.to_owned()),
                ..Default::default()
            },
            ..Default::default()
        };
        assert!(is_of(&claim("data-c-g1-0"), "c-g1"));
        for other in ["data-c-g11-0", "data-c-g1-x-0", "other-c-g1-0", "data-c-g1"] {
            assert!(!is_of(&claim(other), "c-g1"), "{other}");
        }
    }
}
