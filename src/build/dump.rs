//! The ConfigMap with the dump of the topology. It has no owner: it outlives the cluster with its volumes (design,
//! decision 8). People may read it, and correct it where it must be: so ranges instead of 1024 lines.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

use super::meta;
use crate::{
    domain::{Dump, GroupId, SLOT_COUNT, SlotId, SlotMapping, SlotMove},
    validate::Names,
};

/// The key of the dump.
const FILE: &str = "topology.json";
/// The form of the file.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    version: u32,
    cluster_uid: String,
    product: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    restoring: bool,
    groups: BTreeMap<u64, Vec<u16>>,
    slots: Vec<Range>,
    #[serde(default)]
    sentinels: Vec<u16>,
    #[serde(default)]
    addresses: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    former_addresses: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Range {
    /// Like `0-511`, or `7`.
    slots: String,
    group: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moving_to: Option<u64>,
}

/// The ConfigMap with a dump.
#[must_use]
pub fn dump_config_map(names: &Names, dump: &Dump) -> ConfigMap {
    let file = File {
        version: VERSION,
        cluster_uid: dump.cluster_uid.clone(),
        product: dump.product.clone(),
        restoring: dump.restoring,
        groups: dump
            .groups
            .iter()
            .map(|(id, servers)| (id.get().into(), servers.clone()))
            .collect(),
        slots: ranges(&dump.slots),
        sentinels: dump.sentinels.clone(),
        addresses: dump.addresses.clone(),
        former_addresses: dump.former.clone(),
    };
    let mut metadata = meta::shared_object(names, names.topology());
    metadata.owner_references = None;
    ConfigMap {
        metadata,
        // It has no map with keys that aren't text.
        data: Some([(FILE.to_owned(), serde_json::to_string_pretty(&file).unwrap_or_default())].into()),
        ..ConfigMap::default()
    }
}

fn ranges(slots: &[SlotMapping]) -> Vec<Range> {
    let same = |one: &SlotMapping, other: &SlotMapping| {
        let place = |slot: &SlotMapping| (slot.group, slot.moving.map(|moving| moving.to));
        place(one) == place(other)
    };
    let range = |run: &[SlotMapping]| {
        let (first, last) = (run.first()?, run.last()?);
        Some(Range {
            slots: if first.id == last.id {
                first.id.to_string()
            } else {
                format!("{}-{}", first.id, last.id)
            },
            group: first.group?.get().into(),
            moving_to: first.moving.map(|moving| moving.to.get().into()),
        })
    };
    slots.chunk_by(same).filter_map(range).collect()
}

/// The dump in a ConfigMap.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse_dump(map: &ConfigMap) -> Result<Dump, String> {
    let text = map.data.as_ref().and_then(|data| data.get(FILE));
    let text = text.ok_or_else(|| format!("it has no key {FILE}"))?;
    let file: File = serde_json::from_str(text).map_err(|e| format!("{FILE}: {e}"))?;
    if file.version != VERSION {
        return Err(format!(
            "{FILE}: version {} isn't known here, only {VERSION}",
            file.version
        ));
    }
    let groups: Result<BTreeMap<GroupId, Vec<u16>>, String> = file
        .groups
        .into_iter()
        .map(|(id, servers)| Ok((group(id)?, servers)))
        .collect();
    let groups = groups?;
    let slots = slots(&file.slots)?;
    let nobodys = slots.iter().flat_map(|slot| slot.group.into_iter().chain(slot.owner()));
    if let Some(unknown) = nobodys.into_iter().find(|id| !groups.contains_key(id)) {
        return Err(format!("{FILE}: slots: group {unknown} isn't among the groups"));
    }
    Ok(Dump {
        cluster_uid: file.cluster_uid,
        product: file.product,
        groups,
        slots,
        sentinels: file.sentinels,
        addresses: file.addresses,
        former: file.former_addresses,
        restoring: file.restoring,
    })
}

fn group(id: u64) -> Result<GroupId, String> {
    GroupId::try_from(id).map_err(|e| format!("{FILE}: group {e}"))
}

fn slots(ranges: &[Range]) -> Result<Vec<SlotMapping>, String> {
    let mut slots: Vec<SlotMapping> = SlotId::all()
        .map(|id| SlotMapping {
            id,
            group: None,
            moving: None,
        })
        .collect();
    for range in ranges {
        let moving = range.moving_to.map(group).transpose()?;
        let moving = moving.map(|to| SlotMove { to, pending: false });
        for id in bounds(&range.slots)? {
            let slot = &mut slots[usize::from(id)];
            if slot.group.is_some() {
                return Err(format!("{FILE}: slots: {id} is there twice"));
            }
            (slot.group, slot.moving) = (Some(group(range.group)?), moving);
        }
    }
    match slots.iter().find(|slot| slot.group.is_none()) {
        Some(slot) => Err(format!("{FILE}: slots: {} is missing", slot.id)),
        None => Ok(slots),
    }
}

fn bounds(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|id| *id < SLOT_COUNT);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("{FILE}: slots: {text:?} is no range of slots like 0-511")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gid(id: u64) -> GroupId {
        GroupId::try_from(id).unwrap()
    }

    fn dump(owners: impl Fn(u16) -> (u64, Option<u64>)) -> Dump {
        Dump {
            cluster_uid: "uid".into(),
            product: "demo".into(),
            groups: (1..=4).map(|id| (gid(id), vec![1, 0])).collect(),
            slots: SlotId::all()
                .map(|id| {
                    let (group, to) = owners(id.get());
                    SlotMapping {
                        id,
                        group: Some(gid(group)),
                        moving: to.map(|to| SlotMove {
                            to: gid(to),
                            pending: false,
                        }),
                    }
                })
                .collect(),
            sentinels: vec![0, 1, 2],
            addresses: [("c-g1-0".into(), "10.96.0.1".into())].into(),
            former: [("10.96.0.9".into(), "c-g1-0".into())].into(),
            restoring: false,
        }
    }

    fn written(dump: &Dump) -> ConfigMap {
        let names = Names {
            cluster: "c".into(),
            namespace: "ns".into(),
            uid: "uid".into(),
        };
        dump_config_map(&names, dump)
    }

    fn broken(change: impl Fn(String) -> String) -> String {
        let mut map = written(&dump(|id| (u64::from(id / 512) + 1, None)));
        let data = map.data.as_mut().unwrap();
        let text = data.remove(FILE).unwrap();
        data.insert(FILE.into(), change(text));
        parse_dump(&map).unwrap_err()
    }

    #[test]
    fn it_outlives_its_cluster_and_people_can_read_it() {
        let map = written(&dump(|id| {
            if id == 9 {
                (1, Some(2))
            } else {
                (u64::from(id / 512) + 1, None)
            }
        }));
        assert_eq!(map.metadata.owner_references, None);
        let text = &map.data.unwrap()[FILE];
        for part in ["\"0-8\"", "\"9\"", "\"movingTo\": 2", "\"10-511\"", "\"512-1023\""] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.len() < 2000, "{}", text.len());
    }

    #[test]
    fn what_a_person_wrote_wrongly_is_named() {
        assert!(broken(|text| text.replace("512-1023", "512-1022")).contains("1023 is missing"));
        assert!(broken(|text| text.replace("512-1023", "511-1023")).contains("511 is there twice"));
        assert!(broken(|text| text.replace("512-1023", "512-1024")).contains("no range"));
        assert!(broken(|text| text.replace("\"group\": 2", "\"group\": 5")).contains("group 5 isn't among the groups"));
        assert!(broken(|text| text.replace("\"version\": 1", "\"version\": 2")).contains("version 2"));
        assert!(broken(|_| "{".into()).contains("topology.json"));
    }

    proptest! {
        #[test]
        fn every_dump_is_read_as_it_was_written(owners in prop::collection::vec((1..5u64, prop::option::weighted(0.1, 1..5u64)), 1024)) {
            let dump = dump(|id| owners[usize::from(id)]);
            prop_assert_eq!(parse_dump(&written(&dump)).unwrap(), dump);
        }
    }
}
