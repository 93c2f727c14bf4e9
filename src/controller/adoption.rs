//! Data volumes that an earlier cluster of this name left: nothing mounts them before a person says so. Each carries the uid
//! of the cluster that it is of, and its group as a label.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::{Context, Error, dump};
use crate::{
    api::{CodisCluster, names::ANNOTATION_CLUSTER_UID},
    cluster::Live,
    plan::{Decision, reason},
    validate::{Coordinator, ValidCluster},
};

/// So many volumes are named.
const NAMED: usize = 5;

/// Whether a volume was made for this very cluster, or taken over by it.
pub(super) fn is_its_own(claim: &PersistentVolumeClaim, uid: &str) -> bool {
    claim.annotations().get(ANNOTATION_CLUSTER_UID).map(String::as_str) == Some(uid)
}

/// Looks for old volumes before anything of a cluster runs: takes them over, or says why nothing is done.
pub(super) async fn volumes(
    context: &Context,
    cluster: &CodisCluster,
    valid: &ValidCluster,
    live: &Live,
    decision: &mut Decision,
) -> Result<(), Error> {
    if valid.volume.is_none() && valid.coordinator != Coordinator::Filesystem {
        return Ok(());
    }
    let claims = context.cluster.claims(cluster).await?;
    let old: Vec<&PersistentVolumeClaim> = claims
        .iter()
        .filter(|claim| !is_its_own(claim, &valid.names.uid))
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    if !valid.adopts_volumes {
        decision.block(reason::OLD_VOLUMES, refused(&old));
        return Ok(());
    }
    // The topology first: once every volume is marked, this isn't looked at again.
    dump::adopt(context, valid, live).await?;
    for claim in old {
        tracing::info!(
            cluster = valid.names.cluster,
            claim = claim.name_any(),
            "take over the volume"
        );
        context
            .cluster
            .mark(claim, ANNOTATION_CLUSTER_UID, &valid.names.uid)
            .await?;
    }
    Ok(())
}

fn refused(old: &[&PersistentVolumeClaim]) -> String {
    let names: Vec<String> = old.iter().take(NAMED).map(|claim| claim.name_any()).collect();
    let more = match old.len() {
        ..=NAMED => String::new(),
        all => format!(" and {} more", all - NAMED),
    };
    format!(
        "spec.codisServer.volumePolicy: volumes of an earlier cluster of this name exist ({}{more}): set it to Adopt to go on with their data, delete these claims to start anew, or give the cluster another name",
        names.join(", ")
    )
}
