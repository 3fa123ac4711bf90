//! How a front ends when things go wrong: what it tells of a fence, and what it does when the keeper is gone.
//!
//! Protects: the tree of the command does not outlive its keeper. Does not wait for what hangs in I/O.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::{Front, Phase};
use crate::cli::{exit, output};
use crate::clock;
use crate::driver::cell::CellState;
use crate::format::name::escape;
use crate::keeper::Why;
use crate::sys::cgroup::Cgroup;
use crate::sys::kernel_users;
use crate::sys::process::{self, Left};

/// How long what was killed by our own hand is waited for.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// The same after a loss: then the driver often hangs, and nobody should wait for the exit code.
const HANGING_PATIENCE: Duration = Duration::from_millis(200);

/// Why the keeper fenced.
pub(super) fn reason(why: Why) -> &'static str {
    match why {
        Why::LeaseExpired => "the lease ran out (the device hung, or this host did)",
        Why::DriverGone => "the guarding process is gone",
        Why::FrontGone => "this process was taken for dead",
        Why::CellLost => "the device was lost",
    }
}

impl Front<'_> {
    pub(super) fn fenced(&self, reason: &str, killed: usize, still_there: &[Left], still_there_count: usize) {
        let device = super::super::named(&self.arguments.devices);
        let done = match killed {
            0 => "nothing of the command was left to be killed".to_owned(),
            1 => "the command was killed".to_owned(),
            _ => format!("the command was killed ({killed} processes)"),
        };
        output::complain(&format!("{device}: protection lost: {reason}; {done}"));
        self.tell_kernel_users();
        if still_there_count > 0 {
            let names: Vec<_> = still_there
                .iter()
                .map(|left| format!("{} ({}, state {})", left.pid, escape(left.comm.as_bytes()), left.state))
                .collect();
            output::complain(&format!(
                "{still_there_count} killed processes still hang in I/O and end with it; \
                 do not use the device elsewhere on this host's word alone: {}",
                names.join(", ")
            ));
        }
    }

    /// A command may have left what no kill ends: a mount, swap, a loop device. The device itself is not touched.
    fn tell_kernel_users(&self) {
        let users: Vec<_> = self.watched.targets.iter().flat_map(kernel_users).collect();
        if !users.is_empty() {
            let users: Vec<_> = users.iter().map(ToString::to_string).collect();
            output::complain(&format!(
                "this host still uses the device, and may still write to it: {}; \
                 reboot it without a sync before anybody else uses the device",
                users.join(", ")
            ));
        }
    }

    /// A keeper that was stopped fences only when it is continued: nobody has a reason to stop it alone.
    pub(super) fn continue_keeper(&self) {
        let stopped = waitpid(self.keeper.pid(), Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED));
        if let Ok(WaitStatus::Stopped(keeper, _)) = stopped {
            let _ = nix::sys::signal::kill(keeper, Signal::SIGCONT);
        }
    }

    /// The keeper's work, done by hand: its orphans fell to us, and so did its cgroup. Killed first, told afterwards.
    pub(super) fn do_keepers_work(&mut self, reason: &str) -> u8 {
        let cgroup = Cgroup::left_by(self.keeper.pid());
        if let Some(cgroup) = &cgroup {
            let _ = cgroup.kill(); // the walk follows in any case
        }
        // A keeper that does not report is no guard any more; it is not one of the command's processes either.
        super::kill(self.keeper.pid());
        let report = process::kill_tree(&[self.driver_pid], KILL_PATIENCE, &mut |_, _| {});
        let count = report.still_there.len();
        if let Some(cgroup) = &cgroup {
            let _ = cgroup.remove();
        }
        self.give_terminal_back();
        self.progress.clear();
        if let Phase::Claiming { .. } = self.phase {
            output::complain(&format!("{reason}; nothing was started"));
            return exit::RUN_OTHER;
        }
        self.fenced(reason, report.killed, &report.still_there, count);
        let held = matches!(self.watched.cell.state(), CellState::Until(end) if end > clock::mono());
        if count > 0 && held {
            self.leave_driver = true;
            output::complain("the device stays held for them, as long as that can be done");
        }
        exit::RUN_LOST
    }

    /// Nothing of the command is left, but others may use the device, and the lease has ended.
    pub(super) fn lost_without_keeper(&mut self) -> u8 {
        self.progress.clear();
        self.fenced("the lease ended, and so did the guarding processes", 0, &[], 0);
        exit::RUN_LOST
    }

    /// Collects whoever ended. Whoever hangs is left to init.
    pub(super) fn reap(&self, lost: bool) {
        let until = clock::mono() + if lost { HANGING_PATIENCE } else { KILL_PATIENCE };
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::StillAlive) if clock::mono() >= until => return,
                Ok(WaitStatus::StillAlive) => clock::sleep(Duration::from_millis(5)),
                _ => {}
            }
        }
    }
}
