//! A driver that is a thread of the daemon, beside those of other guards.
//!
//! Protects: what a process of its own gets by dying. After a loss it says when none of its threads is at the device any more, so that the
//! keeper need not kill the daemon for it; and it leaves no keeper uncollected. Does not protect from a thread that hangs in
//! a device: that one is left behind, and the keeper judges.

use std::sync::Arc;
use std::time::Duration;

use super::{Driver, FINISH_PATIENCE, FromKeeper, Guardian, LOST_PATIENCE, Link, PERIOD, ToKeeper, clock};

/// How often a guard among many looks around.
const RESIDENT_PERIOD: Duration = Duration::from_millis(200);

/// Runs a driver in the calling thread, until its guard has ended.
pub(in crate::cli) fn run(parts: Driver) {
    if parts.adoption.is_none() && !is_ready(&parts.keeper) {
        return; // no fence is possible here, and the keeper has said so
    }
    let mut guardian = Guardian::new(parts);
    guardian.run();
    guardian.collect_keepers();
}

/// Waits for the ladder to be prepared. False if the keeper has ended instead.
fn is_ready(keeper: &Link) -> bool {
    loop {
        match keeper.receive::<FromKeeper>() {
            Ok(Some(FromKeeper::Ready)) => return true,
            Ok(_) => clock::sleep(Duration::from_millis(5)),
            Err(_) => return false,
        }
    }
}

impl Guardian {
    /// How often the guard looks around.
    pub(super) fn period(&self) -> Duration {
        if self.resident { RESIDENT_PERIOD } else { PERIOD }
    }

    /// After a loss: until the keeper has fenced, and told it in the record.
    pub(super) fn wait_for_the_fence(&mut self) {
        self.companions.clear(); // their threads end
        let until = clock::mono() + LOST_PATIENCE;
        let mut told = false;
        while clock::mono() < until {
            // Each guarding thread has a hand on it, and lets go of it last.
            if !told && Arc::strong_count(&self.pipe) == 1 {
                told = true;
                self.tell_keeper(&ToKeeper::Stopped);
            }
            self.wake_keeper();
            let gone = self.keeper.as_ref().is_none_or(|keeper| keeper.receive::<FromKeeper>().is_err());
            if gone && self.slot.read().ok().flatten().is_none_or(|record| record.lost.is_some()) {
                return;
            }
            if gone {
                self.look_after_keeper(); // it died before the fence was done: another one does it
                told = false;
            }
            clock::sleep(PERIOD);
        }
    }

    /// No keeper stays behind as a zombie of the daemon's.
    fn collect_keepers(&mut self) {
        let mut keepers = std::mem::take(&mut self.dead_keepers);
        keepers.extend(self.keeper.take());
        let until = clock::mono() + FINISH_PATIENCE;
        while keepers.iter_mut().any(|keeper| !keeper.reap()) && clock::mono() < until {
            clock::sleep(PERIOD);
        }
    }
}
