//! The guards that belong into the daemon: found again when it starts, through their keepers.
//!
//! Protects: each is taken from its keeper, which gives it to one driver at a time and judges the lease; a guard that is
//! driven by somebody else is left to him. Looked for again and again, since a keeper may be busy, and may have put a process of
//! its own there while no daemon lived. Does not touch a device: the thread that drives does.

use std::io;
use std::time::Duration;

use crate::cli::{guard, render};
use crate::keeper::mounts::take_over;
use crate::registry::{Phase, Record, Registry, Slot};

/// How often they are looked for.
pub(super) const PERIOD: Duration = Duration::from_secs(2);

/// Takes over what can be taken over; gives how many.
pub(super) fn adopt(registry: &Registry) -> usize {
    let records = registry.list().unwrap_or_default();
    let ours = i32::try_from(std::process::id()).unwrap_or(0);
    let waiting = records.into_iter().filter(|(slot, record)| belongs_here(slot, record, ours));
    waiting.filter(|(slot, record)| take(slot, record)).count()
}

fn belongs_here(slot: &Slot, record: &Record, ours: i32) -> bool {
    let guarded = matches!(record.phase, Phase::Guarding | Phase::Releasing);
    record.resident && record.driver_pid != ours && guarded && record.is_of_this_boot() && slot.is_locked()
}

fn take(slot: &Slot, record: &Record) -> bool {
    let device = render::shown(&record.device);
    match take_over(slot).and_then(|parts| parts.map(guard::drive).transpose()) {
        Ok(Some(())) => {
            tracing::info!(device, "taken over from its keeper");
            true
        }
        Ok(None) => {
            tracing::info!(device, "its keeper does not hand it over");
            false
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false, // it ends just now
        Err(error) => {
            tracing::warn!(device, %error, "cannot be taken over");
            false
        }
    }
}
