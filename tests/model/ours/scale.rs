//! The scale of the model: its unit of time, and how far back it looks.
//!
//! One unit is the limit at C = 5 s, 2.75 s: a wait and a lease are four of them, a silence two. What becomes due between two
//! steps of time is handled with the later one.

use std::time::Duration;

pub(crate) const UNIT_NS: u64 = 2_750_000_000;
pub(crate) const UNIT_S: f64 = 2.75;
/// A stamp older than this prints as old. Longer than any watch, lease or look of a model.
pub(crate) const OLD_NS: u64 = 100 * UNIT_NS;
/// The wait of the smallest check interval: how long a write may be on its way, and how long a fence may take.
pub(crate) const WAIT_NS: u64 = 4 * UNIT_NS;
/// How many units a write may be on its way.
pub(crate) const LANDING_UNITS: u8 = 4;

/// What is due within this is due now: the pauses of `timing::TORN_PAUSE`, which are no time to anybody else.
pub(crate) const PAUSE_NS: u64 = 10_000_000;

/// Units until `ns` from now, counted up; none if that is past.
pub(crate) fn units_until(ns: i64) -> u8 {
    let units = u64::try_from(ns).unwrap_or(0).div_ceil(UNIT_NS);
    u8::try_from(units).unwrap_or(u8::MAX)
}

/// Units until `ns` from now, counted down.
pub(crate) fn whole_units(span: Duration) -> u8 {
    u8::try_from(span.as_nanos() / u128::from(UNIT_NS)).unwrap_or(u8::MAX - 1)
}
