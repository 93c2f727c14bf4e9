//! Slots and groups: 1024 slots over groups 1 to 9999 (contract §1).

use std::fmt;

/// How many slots a product has.
pub const SLOT_COUNT: u16 = 1024;

/// A slot, 0 to 1023.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(u16);

/// A replication group, 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(u16);

/// A number that is no slot or no group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is out of range")]
pub struct OutOfRange(u64);

impl SlotId {
    /// Every slot, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOT_COUNT).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for SlotId {
    type Error = OutOfRange;
    fn try_from(value: u64) -> Result<Self, OutOfRange> {
        u16::try_from(value)
            .ok()
            .filter(|id| *id < SLOT_COUNT)
            .map(Self)
            .ok_or(OutOfRange(value))
    }
}

impl GroupId {
    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for GroupId {
    type Error = OutOfRange;
    fn try_from(value: u64) -> Result<Self, OutOfRange> {
        u16::try_from(value)
            .ok()
            .filter(|id| (1..=9999).contains(id))
            .map(Self)
            .ok_or(OutOfRange(value))
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The layout of a new product: contiguous ranges of equal size (±1), lower groups first.
/// The same as the dashboard's own rebalance of offline slots gives (contract §6.6). Empty without groups.
#[must_use]
pub fn even_layout(groups: &[GroupId]) -> Vec<(SlotId, GroupId)> {
    let count = groups.len();
    if count == 0 {
        return Vec::new();
    }
    let (size, extra) = (usize::from(SLOT_COUNT) / count, usize::from(SLOT_COUNT) % count);
    let owners = groups
        .iter()
        .enumerate()
        .flat_map(|(i, group)| std::iter::repeat_n(*group, size + usize::from(i < extra)));
    SlotId::all().zip(owners).collect()
}

/// The slot of a key: CRC-32 (IEEE) of its tag, or of the whole key, modulo 1024 (contract §1).
#[must_use]
pub fn slot_of_key(key: &[u8]) -> SlotId {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|b| *b == b'}').map(|close| &rest[..close])
    });
    SlotId((crc32_ieee(tag.unwrap_or(key)) & u32::from(SLOT_COUNT - 1)) as u16)
}

fn crc32_ieee(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_map_to_the_slots_that_codis_gives_them() {
        for (key, slot) in [("a", 579), ("foo", 289), ("{}x", 0), ("{a}b", 579), ("a{", 173)] {
            assert_eq!(slot_of_key(key.as_bytes()).get(), slot, "{key}");
        }
    }

    #[test]
    fn three_groups_get_the_ranges_that_the_dashboard_would_give_them() {
        let groups: Vec<_> = (1..=3).map(|id| GroupId::try_from(id).unwrap()).collect();
        let layout = even_layout(&groups);
        let last_of = |group: u64| {
            layout
                .iter()
                .rfind(|(_, g)| u64::from(g.get()) == group)
                .unwrap()
                .0
                .get()
        };
        assert_eq!((last_of(1), last_of(2), last_of(3)), (341, 682, 1023));
    }

    proptest! {
        #[test]
        fn every_slot_has_one_owner_and_shares_differ_by_at_most_one(count in 1u64..=1024) {
            let groups: Vec<_> = (1..=count).map(|id| GroupId::try_from(id).unwrap()).collect();
            let layout = even_layout(&groups);
            prop_assert_eq!(layout.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), SlotId::all().collect::<Vec<_>>());
            let shares: Vec<usize> = groups.iter().map(|g| layout.iter().filter(|(_, o)| o == g).count()).collect();
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
