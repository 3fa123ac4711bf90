//! The guards that belong into the daemon: found again when it starts, through their keepers.
//!
//! Protects: each is taken from its keeper, which gives it to one driver at a time and judges the lease; a guard that is
//! driven by somebody else is left to him. Looked for again and again, since a keeper may be busy, and may have put a process of
//! its own there while no daemon lived. Does not touch a device: the thread that drives does.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use crate::cli::{guard, render};
use crate::clock::{self, Mono};
use crate::keeper::mounts::take_over;
use crate::registry::{Phase, Record, Registry, Slot};

/// How often they are looked for.
pub(super) const PERIOD: Duration = Duration::from_secs(2);
/// How long one is left alone that could not be taken over: its keeper has put a process there by then.
const PAUSE: Duration = Duration::from_secs(60);
/// So many are taken over at once.
const AT_ONCE: usize = 64;
/// The stack of a thread that takes one over.
const STACK_BYTES: usize = 256 << 10;

/// Those that could not be taken over, and when they are asked for again.
#[derive(Debug, Default)]
pub(super) struct Residents(BTreeMap<Slot, Mono>);

impl Residents {
    /// Takes over what can be taken over, the shortest lease first.
    pub(super) fn adopt(&mut self, registry: &Registry) {
        let records = registry.list().unwrap_or_default();
        let ours = i32::try_from(std::process::id()).unwrap_or(0);
        let now = clock::mono();
        self.0.retain(|_, again| *again > now);
        let waiting = records
            .into_iter()
            .filter(|(slot, record)| belongs_here(slot, record, ours) && !self.0.contains_key(slot));
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|(_, record)| record.lease_end_ns);
        for some in waiting.chunks(AT_ONCE) {
            std::thread::scope(|scope| {
                // One whose keeper does not answer holds up nobody else's.
                let asked: Vec<_> = some
                    .iter()
                    .map(|(slot, record)| {
                        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
                        thread.spawn_scoped(scope, || take(slot, record))
                    })
                    .collect();
                for ((slot, _), asked) in some.iter().zip(asked) {
                    match asked.map(|asked| asked.join().unwrap_or(Taken::Failed)) {
                        Ok(Taken::Failed) => drop(self.0.insert(slot.clone(), now + PAUSE)),
                        Ok(Taken::Over | Taken::NotNow) => {}
                        // It is asked for again soon. A panic would end the daemon, and everything it guards would need a process.
                        Err(error) => {
                            tracing::warn!(%error, "no thread to take a guard over from its keeper")
                        }
                    }
                }
            });
        }
    }
}

fn belongs_here(slot: &Slot, record: &Record, ours: i32) -> bool {
    let guarded = matches!(record.phase, Phase::Guarding | Phase::Releasing);
    record.resident && record.driver_pid != ours && guarded && record.is_of_this_boot() && slot.is_locked()
}

#[derive(PartialEq, Eq)]
enum Taken {
    Over,
    /// Its keeper has a driver that lives, or it ends just now.
    NotNow,
    Failed,
}

fn take(slot: &Slot, record: &Record) -> Taken {
    let device = render::shown(&record.device);
    match take_over(slot).and_then(|parts| parts.map(guard::drive).transpose()) {
        Ok(Some(())) => {
            tracing::info!(device, "taken over from its keeper");
            Taken::Over
        }
        Ok(None) => {
            tracing::info!(device, "its keeper does not hand it over");
            Taken::NotNow
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            tracing::debug!(device, "its keeper is of another version, or ends just now");
            Taken::Failed
        }
        Err(error) => {
            tracing::warn!(device, %error, "cannot be taken over; its keeper goes on with a process of its own");
            Taken::Failed
        }
    }
}
