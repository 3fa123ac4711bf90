//! Who drives next: when a driver is gone, or a daemon asks for a guard that belongs into one.
//!
//! Protects: a successor is appointed only under a lease that runs for long enough, and only when the driver before is dead. A daemon that
//! died is waited for as long as a beat may wait, then a process of ours takes its place until one asks again. A daemon
//! that dies again and again is not trusted for a minute. If nobody can be appointed, it fences.

use super::super::handing::{Asking, DAEMON_PATIENCE, Door};
use super::{
    Adoption, CellState, DriverLink, Duration, Keeper, Mono, Purpose, REMEMBERED, REPLACED_AT_MOST,
    SUCCESSION, ToFront, Why, clock, drain,
};
use crate::keeper::mounts::{FromKeeper, Link};
use crate::sys::process::{ProcessRef, leader_lives};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};

/// So many daemons may die within a minute, and the next one still gets the guard.
const DAEMONS_AT_MOST: usize = 5;

impl Keeper<'_> {
    /// A driver that is gone, or does not end, though nobody waits for it any more.
    pub(super) fn look_after_driver(&mut self) -> Option<i32> {
        if self.withdrawn.is_some_and(|until| clock::mono() >= until) && !self.committed {
            self.withdrawn = None;
            if self.drives_for_others() {
                return self.give_up_thread();
            }
            self.kill_driver();
        }
        let armed = matches!(self.memory.cell(0).state(), CellState::Until(_));
        if self.driver.is_none() && (self.mounter.is_none() || armed) {
            if self.is_awaited() {
                return None;
            }
            return self.replace_driver(); // the mount that outlived its driver has ended, or no daemon came
        }
        if self.driver.as_ref().is_none_or(DriverLink::lives) {
            return None;
        }
        // What it said last comes first.
        if let Some(code) = self.hear_driver() {
            return Some(code);
        }
        let was_resident = self.driver.take().is_some_and(|driver| driver.resident);
        self.process_died = !was_resident;
        if was_resident && self.committed {
            remember(&mut self.daemon_deaths);
            // Of a short lease little is waited for: somebody has to beat within it.
            self.awaited = Some(clock::mono() + DAEMON_PATIENCE.min(self.task.wait_after_lease / 8));
            self.stop_mount(); // a remount; whatever it came to is asked of the kernel
            return None;
        }
        self.replace_driver()
    }

    /// The one who asked is gone, and a thread of the daemon's does not end the claim. As long as nothing is mounted or under way to be
    /// nothing is lost by leaving it: it must not arm the lease any more. A mount that hangs in the kernel, or stands, goes on.
    fn give_up_thread(&mut self) -> Option<i32> {
        let nothing_begun = !self.mount_begun || matches!(self.task.purpose, Purpose::Adopt { .. });
        if self.mounter.is_some() || !nothing_begun || self.cell.state() != CellState::Unarmed {
            return None;
        }
        self.cell.lose();
        self.tell_driver(&FromKeeper::GivenUp);
        self.ended_without_driver(self.task.earlier.as_deref())
    }

    /// From here on daemons may ask for a guard that belongs into one.
    pub(super) fn open_door(&mut self) {
        if self.task.resident {
            self.door = Door::open(&self.task.slot()).ok();
        }
    }

    /// A daemon asks for this guard. One that is trusted gets it, unless another one drives it already.
    pub(super) fn hear_daemons(&mut self) {
        if self.task.resident && self.committed && self.door.is_none() {
            self.open_door(); // there was no descriptor left, perhaps
        }
        while let Some(asking) = self.door.as_ref().and_then(Door::knock) {
            let taken = self.driver.as_ref().is_some_and(|driver| driver.resident && driver.lives());
            // Dropping the connection tells him.
            if self.committed && !taken && count(&mut self.daemon_deaths) <= DAEMONS_AT_MOST {
                self.asking = Some(asking);
            }
        }
        if self.asking.as_ref().is_some_and(|asking| !asking.is_there()) {
            self.asking = None;
        }
        let is_process = self.driver.as_ref().is_some_and(|driver| !driver.resident);
        if is_process && self.asking.is_some() && self.may_change_hands() {
            self.kill_driver(); // its end is seen in its pipe, and the one who asks comes next
        }
    }

    /// A driver that does well may be replaced by another one: it has beaten just now, and nothing else is under way.
    fn may_change_hands(&self) -> bool {
        let fresh = clock::mono() + self.task.wait_after_lease * 3 / 4;
        self.mounter.is_none() && matches!(self.memory.cell(0).state(), CellState::Until(end) if end > fresh)
    }

    /// With less of a lease left than this a successor would come too late.
    fn succession(&self) -> Duration {
        SUCCESSION.min(self.task.wait_after_lease / 4)
    }

    /// A daemon died, and there is time left for the next one to come.
    fn is_awaited(&mut self) -> bool {
        let Some(until) = self.awaited else { return false };
        let now = clock::mono();
        let enough = self.cell.earliest().is_none_or(|end| end > now + self.succession() * 2);
        let waits = self.asking.is_none() && now < until && enough;
        if !waits {
            self.awaited = None;
        }
        waits
    }

    /// The driver is dead: another one takes its place, if there is something to guard, and if there is time.
    fn replace_driver(&mut self) -> Option<i32> {
        // What is mounting is lost track of; whether it came to something is asked of the kernel.
        self.stop_mount();
        let cell = self.memory.cell(0);
        if self.mounter.is_some() && cell.state() == CellState::Unarmed {
            return None; // it hangs in the kernel: what comes of it is asked when it has ended
        }
        let asking = self.asking.take().filter(Asking::is_there);
        if asking.is_none() && std::mem::take(&mut self.process_died) {
            remember(&mut self.deaths);
        }
        let now = clock::mono();
        let trace = self.memory.trace(0);
        // What is used with it may be held still, when it was released.
        let state = match cell.state() {
            CellState::Released => self.cell.state(),
            state => state,
        };
        let adoption = match state {
            CellState::Lost => return None, // the loop finds that by itself
            CellState::Released => return self.ended_without_driver(None),
            CellState::Until(end) if end < now + self.succession() => None,
            CellState::Until(end) => Some(trace.left(end)),
            CellState::Unarmed => {
                if !self.mount_begun || !self.is_mounted() {
                    return self.ended_without_driver(self.task.earlier.as_deref());
                }
                Some(Adoption { counted: trace.kernel_counted(), left: None })
            }
        };
        let replaced = match adoption {
            Some(adoption) => self.appoint(asking, adoption),
            None => false,
        };
        if !replaced {
            return Some(self.end_with_fence(Why::DriverGone));
        }
        self.tell_front(&ToFront::DriverReplaced);
        None
    }

    /// The daemon that asks, or else a process of ours.
    fn appoint(&mut self, asking: Option<Asking>, adoption: Adoption) -> bool {
        if let Some(asking) = asking
            && let Ok(process) = ProcessRef::open(Pid::from_raw(asking.pid))
            && let Ok((link, pipe)) = asking.give(&self.task, &self.memory, self.lock.as_fd(), &adoption)
        {
            self.driver = Some(DriverLink::of_daemon(process, link, pipe));
            return true;
        }
        self.deaths.len() <= REPLACED_AT_MOST && self.start_driver(Some(adoption)).is_ok()
    }

    /// The driver is the daemon's, which drives others, too.
    pub(super) fn drives_for_others(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.resident)
    }

    /// After a loss: nothing of the driver is at the device any more.
    pub(super) fn driver_stopped(&mut self) {
        if let Some(driver) = &mut self.driver {
            driver.stopped = true;
        }
    }
}

impl DriverLink {
    fn of_daemon(process: ProcessRef, link: Link, pipe: OwnedFd) -> Self {
        DriverLink { process, link, pipe, resident: true, stopped: false }
    }

    /// Its end of the pipe tells. A thread may hang in a device when it is killed, and keep what it had open: then the state of its
    /// process does. Such a thread ends before it runs another instruction of ours.
    fn lives(&self) -> bool {
        drain(&self.pipe) && leader_lives(self.process.pid().as_raw())
    }
}

/// So many died lately.
fn count(deaths: &mut VecDeque<Mono>) -> usize {
    let now = clock::mono();
    deaths.retain(|&at| now.since(at) < REMEMBERED);
    deaths.len()
}

/// One more did.
fn remember(deaths: &mut VecDeque<Mono>) {
    count(deaths);
    deaths.push_back(clock::mono());
}
