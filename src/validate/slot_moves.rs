//! How slots move between groups.

use super::{Errors, Invalid};
use crate::api::CodisClusterSpec;

/// What groups are to have alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BalanceBy {
    /// As many slots.
    #[default]
    Slots,
    /// As many keys.
    Keys,
    /// As much memory.
    Memory,
}

/// How slots move between groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotMoves {
    /// Whether none moves.
    pub paused: bool,
    /// Microseconds between two steps of a slot's move.
    pub interval: u32,
    /// How many move side by side; none: Codis's own choice.
    pub parallel: Option<u32>,
    /// What groups are to have alike.
    pub balance_by: BalanceBy,
}

impl SlotMoves {
    pub(super) fn of(spec: &CodisClusterSpec, errors: &mut Errors) -> Self {
        let wish = spec.slot_moves.clone().unwrap_or_default();
        Self {
            paused: wish.paused.unwrap_or(false),
            interval: errors
                .take(within("intervalMicroseconds", wish.interval_microseconds, 0, 1_000_000))
                .unwrap_or(0),
            parallel: errors.take(within("parallelSlots", wish.parallel_slots, 1, 1024)),
            balance_by: errors.take(balance_by(wish.balance_by.as_deref())),
        }
    }
}

fn within(field: &str, value: Option<i32>, least: i32, most: i32) -> Result<Option<u32>, Invalid> {
    match value {
        None => Ok(None),
        Some(value) if (least..=most).contains(&value) => Ok(u32::try_from(value).ok()),
        Some(value) => Err(Invalid::new(
            format!("spec.slotMoves.{field}"),
            format!("is {value}, and must be {least} to {most}"),
        )),
    }
}

fn balance_by(word: Option<&str>) -> Result<BalanceBy, Invalid> {
    match word {
        None | Some("Slots") => Ok(BalanceBy::Slots),
        Some("Keys") => Ok(BalanceBy::Keys),
        Some("Memory") => Ok(BalanceBy::Memory),
        Some(_) => Err(Invalid::new(
            "spec.slotMoves.balanceBy",
            "must be Slots, Keys or Memory",
        )),
    }
}
