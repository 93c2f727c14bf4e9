//! The dump of the topology: kept whenever it changes, read when the topology was lost, and what it is checked against.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::{Context, Error, Turn};
use crate::{
    build,
    cluster::Live,
    codis::Codis,
    domain::{
        Address, DashboardView, Dump, Evidence, GroupId, ProxyPod, Replication, Route, ServerView, SlotId, SlotMapping,
        ports,
    },
    plan::{self, Decision, Desired, reason},
    validate::ValidCluster,
};

/// The dump that is kept of this cluster; why it can't be read. That of an earlier cluster of this name says nothing.
pub(super) fn read(live: &Live, uid: &str) -> Option<Result<Dump, String>> {
    let dump = live.topology.as_ref().map(build::parse_dump)?;
    let is_its_own = dump.as_ref().is_ok_and(|dump| dump.cluster_uid == uid);
    (is_its_own || dump.is_err()).then_some(dump)
}

/// Takes an earlier cluster's dump over, together with its volumes.
pub(super) async fn adopt(context: &Context, valid: &ValidCluster, live: &Live) -> Result<(), Error> {
    let Some(Ok(mut dump)) = live.topology.as_ref().map(build::parse_dump) else {
        return Ok(());
    };
    dump.cluster_uid.clone_from(&valid.names.uid);
    let map = build::dump_config_map(&valid.names, &dump);
    context.cluster.apply(live.topology.as_ref(), &map).await?;
    Ok(())
}

/// Keeps the topology as it is now, if it is whole. That it can't be kept is told, and stops nothing.
pub(super) async fn keep(
    context: &Context,
    desired: &Desired<'_>,
    turn: &Turn<'_>,
    decision: &mut Decision,
) -> Result<(), Error> {
    // What a foreign topology says is nobody's to keep.
    let Some(dump) = plan::dump(desired, turn.observed) else {
        return Ok(());
    };
    match write(context, desired, turn, &dump).await {
        Err(error) if error.is_refusal() || error.name_taken().is_some() => {
            let what = format!("the dump of the topology can't be kept: {error}");
            decision.alarm(reason::DUMP_NOT_KEPT, what);
            Ok(())
        }
        done => done,
    }
}

/// Keeps these moves too, before they are queued: the operator may not see how far they come.
pub(super) async fn foresee(
    context: &Context,
    desired: &Desired<'_>,
    turn: &Turn<'_>,
    moves: &[(SlotId, GroupId)],
) -> Result<(), Error> {
    match plan::dump_with(desired, turn.observed, moves) {
        Some(dump) => write(context, desired, turn, &dump).await,
        None => Ok(()),
    }
}

/// Notes that these slots are being put back as they are here: those that were on their way are to go on.
pub(super) async fn restoring(
    context: &Context,
    desired: &Desired<'_>,
    turn: &Turn<'_>,
    slots: &[SlotMapping],
) -> Result<(), Error> {
    let Some(Ok(mut dump)) = turn.observed.dump.clone() else {
        return Ok(());
    };
    for slot in slots {
        dump.slots[usize::from(slot.id.get())] = *slot;
    }
    dump.restoring = true;
    write(context, desired, turn, &dump).await
}

async fn write(context: &Context, desired: &Desired<'_>, turn: &Turn<'_>, dump: &Dump) -> Result<(), Error> {
    let map = build::dump_config_map(&desired.cluster.names, dump);
    context.cluster.apply(turn.live.topology.as_ref(), &map).await?;
    Ok(())
}

/// What running proxies serve and what masters hold, while slots have no group and there is a dump to be checked.
pub(super) async fn evidence(
    codis: &Codis,
    dump: Option<&Result<Dump, String>>,
    dashboard: &DashboardView,
    servers: &BTreeMap<Address, ServerView>,
    proxies: &[ProxyPod],
) -> Evidence {
    let is_lost = match dashboard {
        DashboardView::Online { topology, .. } => topology.slots.iter().any(|slot| slot.group.is_none()),
        DashboardView::Unavailable(_) => false,
    };
    if !is_lost || !matches!(dump, Some(Ok(_))) {
        return Evidence::default();
    }
    let is_master = |view: &ServerView| {
        matches!(
            view,
            ServerView::Up {
                replication: Replication::Master,
                keys: 1..,
                ..
            }
        )
    };
    let masters = servers
        .iter()
        .filter(|(_, view)| is_master(view))
        .map(|(address, _)| address.clone());
    let (keys, tables) = tokio::join!(codis.slots_with_keys_of(masters), tables(codis, proxies));
    Evidence {
        tables: tables.into_iter().collect(),
        keys: keys.into_iter().collect(),
    }
}

/// One that isn't ready has no client to serve.
async fn tables(codis: &Codis, proxies: &[ProxyPod]) -> Vec<(Address, Result<Vec<Route>, String>)> {
    let ready = proxies.iter().filter(|pod| pod.ready && !pod.ending);
    let admins: Vec<Address> = ready
        .filter_map(|pod| Some(Address::new(pod.ip.as_deref()?, ports::PROXY_ADMIN)))
        .collect();
    let tokens = codis.tokens(admins.iter().cloned()).await;
    let ask = async |admin: Address| {
        let token = tokens.iter().find(|(of, _)| *of == admin).map(|(_, token)| token);
        let table = match token {
            Some(token) => codis.routes(&admin, token).await.map_err(|error| error.to_string()),
            None => Err("it doesn't answer".to_owned()),
        };
        (admin, table)
    };
    join_all(admins.into_iter().map(ask)).await
}
