//! Every guarding thread of this process, for whoever watches over all of them.
//!
//! Protects: a thread that is due and does not run is told from one that waits for its device. Nothing of this is on the path of a beat:
//! a thread is entered when it is started, and is not asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::history::Pulse;
use super::thread::Shared;
use crate::clock::{self, Mono};

static ALL: Mutex<Vec<(PathBuf, Weak<Shared>)>> = Mutex::new(Vec::new());

/// Enters one that is about to be started.
pub(super) fn enter(path: &Path, shared: &Arc<Shared>) {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(_, shared)| shared.strong_count() > 0);
    all.push((path.to_owned(), Arc::downgrade(shared)));
}

/// Those that should have run longer than `patience` ago, with how late they are.
pub(crate) fn late(patience: Duration) -> Vec<(PathBuf, Duration)> {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let now = clock::mono();
    let alive = all.iter().filter_map(|(path, shared)| Some((path, shared.upgrade()?)));
    let late = alive.filter_map(|(path, shared)| Some((path.clone(), lateness(shared.pulse.read(), now)?)));
    late.filter(|(_, late)| *late > patience).collect()
}

/// How late it is, unless it waits for its device.
fn lateness(pulse: Pulse, now: Mono) -> Option<Duration> {
    (pulse.io_since.is_none() && pulse.deadline != Mono::FAR && pulse.deadline != Mono(0))
        .then(|| now.since(pulse.deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_waits_for_its_device_is_not_late() {
        let pulse = |io_since, deadline| Pulse { io_since, deadline };
        let now = Mono(5_000_000_000);
        assert_eq!(lateness(pulse(None, Mono(2_000_000_000)), now), Some(Duration::from_secs(3)));
        assert_eq!(lateness(pulse(None, Mono(6_000_000_000)), now), Some(Duration::ZERO));
        assert_eq!(lateness(pulse(Some(Mono(1)), Mono(2_000_000_000)), now), None);
        assert_eq!(lateness(pulse(None, Mono::FAR), now), None, "it waits for nothing");
        assert_eq!(lateness(pulse(None, Mono(0)), now), None, "it has not begun");
    }
}
