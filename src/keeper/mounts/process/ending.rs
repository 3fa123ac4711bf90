//! The keeper's end: the ladder, and what is told of it.

use std::time::Duration;

use super::super::events::tell_events;
use super::super::{FromKeeper, ToFront, tell_fencing, tell_loss};
use super::{EXIT_FENCED, EXIT_NOT_FENCED, Keeper, LAST_WORD, REPLACED_AT_MOST, Why};
use crate::clock::{self, Mono};
use crate::sys::fence::ClimbReport;
use crate::sys::process::{Stat, ThreadState, thread_state};

impl Keeper<'_> {
    pub(super) fn end_with_fence(&mut self, why: Why) -> i32 {
        let found = clock::mono();
        self.cell.lose(); // a driver that comes back to itself must not extend it any more
        self.stop_mount();
        // A mount that hangs in the kernel goes on when its I/O does, whatever it is killed by.
        let may_be_mounted = self.mount_begun && (self.mounter.is_some() || self.is_mounted());
        if may_be_mounted {
            tell_fencing(&self.task.slot());
        }
        let report = may_be_mounted.then(|| {
            let from = if self.last_end == Mono(0) { clock::mono() } else { self.last_end };
            let limit = from + self.task.wait_after_lease.saturating_sub(self.task.reboot_reserve());
            let climbed = self.fences.iter_mut().map(|fence| fence.climb(limit, &mut |_| {}));
            climbed.reduce(ClimbReport::and).expect("something is mounted")
        });
        let reason = self.reason(why);
        if self.drives_for_others() {
            self.end_threads(report.as_ref());
        } else {
            self.kill_driver();
            self.wait_for_driver(); // the record is ours then
        }
        tell_loss(&self.task.slot(), &reason, report.as_ref());
        self.tell_driver(&FromKeeper::Fenced);
        let code = match &report {
            Some(report) if !report.done => EXIT_NOT_FENCED,
            _ => EXIT_FENCED,
        };
        self.tell_front(&ToFront::Fenced { reason: reason.clone(), report: report.clone() });
        tell_events(&self.task, &self.protection, found, &reason, report.as_ref());
        code
    }

    /// What the driver said, or what is seen from here.
    fn reason(&mut self, why: Why) -> String {
        let until = clock::mono() + LAST_WORD;
        while why == Why::CellLost && self.lost_reason.is_none() && clock::mono() < until {
            let _ = self.hear_driver();
            clock::sleep(Duration::from_millis(10));
        }
        let seen = match why {
            Why::LeaseExpired => "the lease ran out (the device hung, or this host did)",
            Why::CellLost => "the device was lost",
            Why::DriverGone if self.deaths.len() > REPLACED_AT_MOST => {
                "the guarding process died again and again"
            }
            Why::DriverGone => "the guarding process died or hung, and could not be replaced in time",
        };
        self.lost_reason.take().unwrap_or_else(|| seen.to_owned())
    }

    /// A thread of the daemon's must never write again either. It says when it has left the device. One that cannot say so hangs in a
    /// system call, most likely in that device: it looks at the clock when it comes back, and begins no write any more; what it
    /// hangs in, no signal would end. One that was stopped in between, after its last look at the clock and before the
    /// write, would write: then the daemon dies for it, unless what it protects is cut off. Its other guards are handed on.
    fn end_threads(&mut self, report: Option<&ClimbReport>) {
        let until = clock::mono() + LAST_WORD;
        while !self.is_harmless() && clock::mono() < until {
            let _ = self.hear_driver();
            clock::sleep(Duration::from_millis(10));
        }
        let all_are_devices =
            self.task.guarded_by.is_none() && self.task.other_targets().count() == self.task.with.len();
        let takes_nothing = report.is_none_or(|report| report.cut && all_are_devices);
        if !self.is_harmless() && !takes_nothing {
            self.kill_driver();
            self.wait_for_driver();
        }
    }

    /// No thread that drives this guard can begin a write.
    fn is_harmless(&self) -> bool {
        let Some(driver) = &self.driver else { return true };
        let pid = driver.process.pid().as_raw();
        let threads = (0..self.task.members()).filter_map(|member| self.memory.trace(member).thread());
        driver.stopped
            || threads.map(|thread| thread_state(pid, thread)).all(|state| state != ThreadState::Runs)
    }

    /// Until the driver's main thread writes nothing any more; one of its threads may hang in the device.
    fn wait_for_driver(&self) {
        let until = clock::mono() + LAST_WORD;
        let Some(driver) = &self.driver else { return };
        let pid = driver.process.pid().as_raw();
        let runs = || Stat::of(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X' | 'D'));
        while runs() && clock::mono() < until {
            clock::sleep(Duration::from_millis(2));
        }
    }
}
