//! A driver that is a thread of the daemon, beside those of other guards.
//!
//! Protects: what a process of its own gets by dying. After a loss it says when none of its threads is at the device any more, so that the
//! keeper need not kill the daemon for it; and it leaves no keeper uncollected. Does not protect from a thread that hangs in
//! a device: that one is left behind, and the keeper judges.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    CellState, Driver, FromKeeper, Guardian, LOST_PATIENCE, Link, PERIOD, Phase, ToDriver, ToKeeper, clock,
    render,
};

/// How often a guard among many looks around.
const RESIDENT_PERIOD: Duration = Duration::from_millis(200);

/// How long a keeper that prepares its ladder is waited for when nobody waits for the mount any more.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked whether somebody does, in milliseconds.
const READY_LOOK: u16 = 100;

/// Runs a driver in the calling thread, until its guard has ended.
pub(in crate::cli) fn run(mut parts: Driver) {
    let mut withdrawn = false;
    if parts.adoption.is_none() && !is_ready(&parts, &mut withdrawn) {
        // No fence is possible here, and the keeper has said so; or it hangs.
        parts.keeper.give_up();
        return collect(vec![parts.keeper]);
    }
    let mut guardian = Guardian::new(parts);
    guardian.withdrawn = withdrawn;
    guardian.run();
    let mut keepers = std::mem::take(&mut guardian.dead_keepers);
    keepers.extend(guardian.keeper.take());
    drop(guardian);
    collect(keepers);
}

/// Waits for the ladder to be prepared. False if the keeper has ended instead, or nobody waits for it any more and it hangs.
fn is_ready(parts: &Driver, withdrawn: &mut bool) -> bool {
    let mut until = None;
    loop {
        match parts.keeper.receive::<FromKeeper>() {
            Ok(Some(FromKeeper::Ready)) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return false,
            _ => {}
        }
        let gave_up = |front: &Link| !matches!(front.receive::<ToDriver>(), Ok(None));
        if until.is_none() && parts.front.as_ref().is_some_and(gave_up) {
            until = Some(clock::mono() + READY_PATIENCE);
            *withdrawn = true;
        }
        if until.is_some_and(|until| clock::mono() >= until) {
            return false;
        }
        let mut fds = [PollFd::new(parts.keeper.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(READY_LOOK));
    }
}

/// No keeper stays behind as a zombie of the daemon's.
fn collect(mut keepers: Vec<Link>) {
    while keepers.iter_mut().any(|keeper| !keeper.reap()) {
        clock::sleep(RESIDENT_PERIOD);
    }
}

impl Guardian {
    /// How often the guard looks around.
    pub(super) fn period(&self) -> Duration {
        if self.resident { RESIDENT_PERIOD } else { PERIOD }
    }

    /// A keeper that fences has taken the lease, and told so nobody whose thread hangs.
    pub(super) fn is_lost(&self) -> bool {
        self.resident && self.memory.leases().state() == CellState::Lost
    }

    /// What is mounted was released before the driver died; what was used with it is still held.
    pub(super) fn finish_for_another(&mut self) -> i32 {
        self.phase = Phase::Releasing;
        if let Err(error) = self.adopt_companions() {
            self.note(&render::error(&error));
            return self.lost_because("what was used with it could not be held any longer");
        }
        self.finish()
    }

    /// After a loss: until the keeper has fenced, and told it in the record. One that dies before is replaced.
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
            let is_there = self.hear_keeper();
            if self.fenced {
                return;
            }
            if !is_there && clock::mono() >= self.next_keeper {
                self.start_keeper();
                told = false;
            }
            clock::sleep(PERIOD);
        }
    }
}
