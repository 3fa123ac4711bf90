//! Who drives next: when a driver is gone, or a daemon asks for a guard that belongs into one.
//!
//! Protects: a successor is appointed only under a lease that runs for long enough, and only when the driver before is dead. A daemon that
//! died is waited for as long as a beat may wait, then a process of ours takes its place until one asks again. A daemon
//! that dies again and again is not trusted for a minute. If nobody can be appointed, it fences.

use super::super::handing::{Asking, DAEMON_PATIENCE, Door};
use super::{
    Adoption, CellState, DriverLink, Keeper, Mono, REMEMBERED, REPLACED_AT_MOST, SUCCESSION, ToFront, Why,
    clock, drain,
};
use crate::keeper::mounts::Link;
use crate::sys::process::{ProcessRef, Stat};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};

impl Keeper<'_> {
    /// A driver that is gone, or does not end, though nobody waits for it any more.
    pub(super) fn look_after_driver(&mut self) -> Option<i32> {
        if self.withdrawn.is_some_and(|until| clock::mono() >= until) && !self.committed {
            self.withdrawn = None;
            if self.drives_for_others() {
                // Its thread hangs, and must not arm the lease any more; the daemon itself has done nothing wrong.
                self.cell.lose();
                return Some(self.end_with_fence(Why::DriverGone));
            }
            self.kill_driver();
        }
        if self.driver.is_none() && self.mounter.is_none() {
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
        if was_resident && self.committed {
            remember(&mut self.daemon_deaths);
            self.awaited = Some(clock::mono() + DAEMON_PATIENCE);
            self.stop_mount(); // a remount; whatever it came to is asked of the kernel
            return None;
        }
        self.replace_driver()
    }

    /// From here on daemons may ask for a guard that belongs into one.
    pub(super) fn open_door(&mut self) {
        if self.task.resident {
            self.door = Door::open(&self.task.slot()).ok();
        }
    }

    /// A daemon asks for this guard. One that is trusted gets it, unless another one drives it already.
    pub(super) fn hear_daemons(&mut self) {
        while let Some(asking) = self.door.as_ref().and_then(Door::knock) {
            let taken = self.driver.as_ref().is_some_and(|driver| driver.resident && driver.lives());
            // Dropping the connection tells him.
            if self.committed && !taken && count(&mut self.daemon_deaths) <= REPLACED_AT_MOST {
                self.asking = Some(asking);
            }
        }
        let is_process = self.driver.as_ref().is_some_and(|driver| !driver.resident);
        if is_process && self.asking.as_ref().is_some_and(Asking::is_there) {
            self.kill_driver(); // its end is seen in its pipe, and the one who asks comes next
        }
    }

    /// A daemon died, and there is time left for the next one to come.
    fn is_awaited(&mut self) -> bool {
        let Some(until) = self.awaited else { return false };
        let now = clock::mono();
        let enough = self.cell.earliest().is_none_or(|end| end > now + SUCCESSION);
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
        if asking.is_none() {
            remember(&mut self.deaths);
        }
        let now = clock::mono();
        let trace = self.memory.trace(0);
        let adoption = match cell.state() {
            CellState::Lost => return None, // the loop finds that by itself
            CellState::Released => return self.ended_without_driver(None),
            CellState::Until(end) if end < now + SUCCESSION => None,
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
        if let Some(asking) = asking {
            let process = ProcessRef::open(Pid::from_raw(asking.pid));
            let given = asking.give(&self.task, &self.memory, self.lock.as_fd(), &adoption);
            if let (Ok(process), Ok((link, pipe))) = (process, given) {
                self.driver = Some(DriverLink::of_daemon(process, link, pipe));
                return true;
            }
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

    /// Its end of the pipe tells. Of a daemon one thread may hang in another device when it is killed, and keep what it had open:
    /// then the state of its process does.
    fn lives(&self) -> bool {
        let is_dead = || {
            let stat = Stat::of(self.process.pid().as_raw());
            stat.is_none_or(|stat| matches!(stat.state, 'Z' | 'X'))
        };
        drain(&self.pipe) && !(self.resident && is_dead())
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
