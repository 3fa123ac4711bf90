//! The blocking library: claim a device, hold it, hear what happens, release it.
//!
//! ```no_run
//! use std::time::Duration;
//! use mmpguard::{Options, Event};
//!
//! # fn main() -> Result<(), mmpguard::Error> {
//! // Blocks for the safety interval: 11 s on a clean device, 23.5 s after a crash.
//! let mut held = Options::new("/dev/sdb1").node("alpha").acquire()?;
//! while held.is_held() {
//!     // ... use the device; ask again before each thing that must not happen twice ...
//!     if let Some(Event::Lost { loss, .. }) = held.next_event(Duration::from_secs(1)) {
//!         panic!("stop using the device at once: {loss:?}");
//!     }
//!     # break;
//! }
//! held.release()?; // flushes, verifies, writes the clean mark
//! # Ok(()) }
//! ```
//!
//! Protects: [`Held::is_held`] is true only while a lease runs, by the clock, whatever the thread does. Does not
//! stop the use of the device when the lease is lost: the caller does (or `mmp run`, whose keeper is a process of its
//! own). Dropping a [`Held`] is a crash: the beats end, the sequence stands, and others have to wait.

pub mod cell;
pub(crate) mod clear;
mod commands;
mod first_use;
mod history;
pub mod leases;
mod options;
mod place;
pub(crate) mod pulses;
pub(crate) mod set;
pub(crate) mod standby;
mod start;
mod thread;
pub mod trace;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde::Serialize;

use self::cell::CellState;
use self::commands::{
    COMMAND_ABANDON, COMMAND_CRASH, COMMAND_HAND_OVER, COMMAND_HAND_OVER_MOUNTED, COMMAND_MOUNT_ENDED,
    COMMAND_MOUNT_KILLED, COMMAND_RELEASE,
};
pub(crate) use self::history::Beat;
pub(crate) use self::options::watch_place;
pub use self::options::{Options, watch};
pub use self::place::{AreaView, KnownSlot, NativeView, OWN_SLOT, Place, Selector, SlotAddress, SlotView};
pub(crate) use self::place::{Searched, check_given_up, has_no_mmp};
use self::thread::Shared;
use crate::clock::{self, Mono};
use crate::error::Error;
use crate::protocol::{Event, Loss, Mode, Peer};
use crate::sys::{ExclusiveHold, Target, process, unused, users};

/// How often a holder asks [`Place::undermined`].
pub(crate) const UNDERMINED_PERIOD: Duration = Duration::from_secs(10);
/// How often the lease is looked at while the clean mark is on its way.
const RELEASE_PERIOD: Duration = Duration::from_millis(200);

/// Every mode, to find one by its number.
const MODES: [Mode; 6] =
    [Mode::Claiming, Mode::Expecting, Mode::Watching, Mode::Bridging, Mode::Beating, Mode::Over];

/// Tells a keeper to look at the lease cell now. Must not block.
type WakeKeeper = Box<dyn Fn() + Send>;

/// A device held: while this lives, and the lease runs, it is ours.
#[derive(Debug)]
pub struct Held {
    place: Place,
    shared: Arc<Shared>,
    events: Receiver<Event>,
    /// Fetched too early by somebody, and due again.
    put_back: Option<Event>,
    over: bool,
    /// Why protection ended, once that was heard of.
    lost: Option<Loss>,
    another_host: bool,
}

/// What a release has left in the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// A clean mark was written: ours, or the kernel's that had it back before.
    Clean,
    /// Somebody else's live block, over which nothing is written. He claims the device, or uses it: then it was used twice.
    LeftToOthers {
        /// Who is named there.
        by: Peer,
    },
}

/// How a held device fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// A lease runs.
    pub held: bool,
    /// What is left of it.
    pub lease_left: Duration,
    /// Since the last acknowledged beat.
    pub last_beat_age: Duration,
    /// Acknowledged beats.
    pub beats: u64,
    /// The worst that a look was late.
    pub worst_lateness: Duration,
    /// Events that nobody fetched in time.
    pub events_lost: u64,
}

impl Held {
    /// Where the block is and who we are in it.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The number of this acquisition: greater than that of every earlier holder, so it can be sent along with what is written
    /// elsewhere, to be told from a former holder's late writes. None where an ext4's own MMP block protects.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        Some(self.shared.generation.load(SeqCst)).filter(|&generation| generation != 0)
    }

    /// True while a lease runs, judged by the clock at this moment.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.status().held
    }

    /// How it fares.
    #[must_use]
    pub fn status(&self) -> Status {
        let now = clock::mono();
        let lease_left = match self.shared.cell.state() {
            CellState::Until(end) => end.since(now),
            CellState::Unarmed | CellState::Released | CellState::Lost => Duration::ZERO,
        };
        Status {
            held: lease_left > Duration::ZERO,
            lease_left,
            last_beat_age: now.since(Mono(self.shared.last_beat.load(SeqCst))),
            beats: self.shared.beats.load(SeqCst),
            worst_lateness: Duration::from_nanos(self.shared.worst_lateness_ns.load(SeqCst)),
            events_lost: self.shared.events_lost.load(SeqCst),
        }
    }

    /// Those of its last looks and beats that began after `after`, the oldest first.
    pub(crate) fn history(&self, after: Mono) -> Vec<Beat> {
        self.shared.history.since(after)
    }

    /// Who beats the block.
    #[must_use]
    pub fn mode(&self) -> Mode {
        MODES.into_iter().find(|&mode| mode as u64 == self.shared.mode.load(SeqCst)).unwrap_or(Mode::Over)
    }

    /// Marks the block clean for the kernel to mount the device, or to make a read-only mount of it writable.
    /// [`Event::HandedOver`] follows.
    pub(crate) fn hand_over(&self, mounted: bool) {
        self.command(if mounted { COMMAND_HAND_OVER_MOUNTED } else { COMMAND_HAND_OVER });
    }

    /// Whatever tried to mount has ended: by itself, or because it was killed.
    pub(crate) fn mount_ended(&self, killed: bool) {
        self.command(if killed { COMMAND_MOUNT_KILLED } else { COMMAND_MOUNT_ENDED });
    }

    /// Gives back what was never used: a claim, or a device handed over to a kernel that has not begun to mount.
    pub(crate) fn take_back(&mut self) -> Result<(), Error> {
        if self.mode() != Mode::Expecting {
            return self.write_clean_mark().map(drop);
        }
        self.mount_ended(true);
        while !self.over {
            match self.next_event(RELEASE_PERIOD) {
                Some(Event::Lost { loss, .. }) => return Err(self.loss(loss)),
                Some(Event::NotMounted { .. } | Event::Released | Event::Refused { .. }) => self.over = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends the guarding thread, and leaves the lease to whoever goes on with it.
    pub(crate) fn abandon(mut self) {
        self.command(COMMAND_ABANDON);
        self.over = true;
    }

    /// Ends the guarding thread and waits until it has left the device: then it writes nothing any more, and the block stands as it was
    /// beaten last. False if it did not end in time: it hangs in the device.
    pub(crate) fn stop(&mut self, patience: Duration) -> bool {
        self.command(COMMAND_ABANDON);
        let until = clock::mono() + patience;
        while !self.over && clock::mono() < until {
            let _ = self.next_event(RELEASE_PERIOD);
        }
        self.over
    }

    /// Makes `event`, just fetched, the next one again.
    pub(crate) fn put_back(&mut self, event: Event) {
        self.put_back = Some(event);
    }

    /// The next event, waited for at most `patience`. After the last one there is never another.
    pub fn next_event(&mut self, patience: Duration) -> Option<Event> {
        if let Some(event) = self.put_back.take() {
            return Some(event);
        }
        match self.events.recv_timeout(patience) {
            Ok(event) => {
                tracing::debug!(device = %self.place.asked().display(), ?event);
                if let Event::Lost { loss, .. } = &event {
                    self.lost = Some(loss.clone());
                }
                Some(event)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.over = true;
                None
            }
        }
    }

    /// True after the last event.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over && self.put_back.is_none()
    }

    /// Flushes the node, verifies the block, writes the clean mark, unless somebody else's block stands there. This process
    /// must have closed its own descriptors of the device before. Those that its ancestors only read from do not count: they wait for it (flock(1)).
    ///
    /// # Errors
    /// [`Error::UsedHere`] if another process, a mount or a loop device still uses it: it stays held, ask again.
    /// [`Error::Io`] if the flush or the search for users failed: it stays held, ask again. [`Error::Lost`] if protection
    /// has ended; that is also what every later call says.
    pub fn release(&mut self) -> Result<Released, Error> {
        if let Some(loss) = self.lost.clone() {
            return Err(self.loss(loss));
        }
        if self.over {
            return Err(Error::Interrupted);
        }
        // What is used under a slot alone is not known: the one who releases it answers for that.
        let Some(target) = self.place.target().filter(|_| !self.another_host) else {
            self.flush()?;
            return self.write_clean_mark();
        };
        // Cheap first: while somebody uses it nothing is flushed, which could disturb him and hang with him.
        let mut found = users::survey(target, &[])?.users;
        let waiting = waiting_ancestors(&found);
        found.retain(|user| !user.process().is_some_and(|(pid, _)| waiting.contains(&pid)));
        self.refuse_users(&found)?;
        // The long flush without the hold, so that no user who comes meanwhile goes unseen. Our own descriptor suppresses
        // the kernel's flush at last close: unflushed, these pages would be written half a minute later, onto the next
        // holder.
        self.flush()?;
        let exclusive = self.claim_unused(target, &waiting)?;
        // What was written between that flush and the hold; and whoever came past the hold with a plain open.
        self.flush()?;
        self.refuse_users(&users::users_beside(target, &exclusive, &waiting)?)?;
        let released = self.write_clean_mark();
        drop(exclusive);
        released
    }

    fn flush(&self) -> Result<(), Error> {
        // Without a lease nothing may be written any more: another host may use the device by now.
        match self.place.guarded() {
            Some(device) if self.is_held() => device.flush(),
            _ => Ok(()),
        }
    }

    fn claim_unused(&self, target: &Target, waiting: &[i32]) -> Result<ExclusiveHold, Error> {
        let exclusive = unused::claim(self.place.asked(), target, waiting)?;
        if !exclusive.complete() {
            tracing::debug!("not every process of this host could be looked into");
        }
        Ok(exclusive)
    }

    fn refuse_users(&self, used: &[users::User]) -> Result<(), Error> {
        unused::refuse(self.place.asked(), used)
    }

    /// Without a flush and without a search: those come before, unless it was held and never used.
    fn write_clean_mark(&mut self) -> Result<Released, Error> {
        self.command(COMMAND_RELEASE);
        let mut left = Released::Clean;
        loop {
            match self.next_event(RELEASE_PERIOD) {
                // The kernel had it back before our mark, and has let go of it itself.
                Some(Event::Released | Event::Unmounted | Event::NotMounted { .. }) => {
                    self.over = true;
                    return Ok(left);
                }
                Some(Event::LeftToOthers { by }) => left = Released::LeftToOthers { by },
                Some(Event::Lost { loss, .. }) => {
                    self.over = true;
                    return Err(self.loss(loss));
                }
                Some(_) => {}
                None if self.over => return Err(Error::Interrupted),
                // A device that hangs: the guarding thread will say the same if it ever comes back.
                None if self.shared.cell.expire(clock::mono()) => {
                    self.lost = Some(Loss::LeaseExpired);
                    return Err(self.loss(Loss::LeaseExpired));
                }
                None => {}
            }
        }
    }

    fn loss(&self, loss: Loss) -> Error {
        Error::Lost { path: self.place.asked().to_owned(), loss }
    }

    fn command(&self, command: u64) {
        self.shared.commands.fetch_or(command, SeqCst);
        // Cannot fail but by overflow, and then it is readable already.
        let _ = self.shared.wake.write(1);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.over {
            self.command(COMMAND_CRASH);
        }
    }
}

/// Those ancestors of this process that do not have the device open for writing: they wait for us (flock(1), a shell),
/// and what they only read they do not endanger.
fn waiting_ancestors(found: &[users::User]) -> Vec<i32> {
    let writes = |pid: i32| found.iter().any(|user| user.process() == Some((pid, true)));
    process::ancestors().into_iter().filter(|&pid| !writes(pid)).collect()
}
