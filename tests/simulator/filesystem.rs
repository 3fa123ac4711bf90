//! What happens to a filesystem that a host of ours has mounted: the rest of mount(2), freeze and thaw, remounts, an
//! error that stops it, unmount; and the cut, after which nothing of its comes through to the disk any more.
//!
//! The host *uses* the device from the moment its kernel has passed the MMP check until the last block before the
//! clean mark is written, or, where `kmmpd` has ended before, until the device is closed.

use crate::protocol::{Activity, Mode};

use super::kernel::{Step, Stop};
use super::mounted::Act;
use super::plan::{MILLISECOND, SECOND, log_uniform, pick};
use super::world::World;

impl World {
    /// mount(2), or a remount, comes to the MMP block.
    pub(crate) fn mount_calls(&mut self, host: usize, remount: bool) {
        let kernel = &mut self.hosts[host].kernel;
        kernel.remounts = remount;
        kernel.stop = None;
        self.note(host, || if remount { "kernel: remounts rw".into() } else { "kernel: mounts".into() });
        self.kernel_reads(host, Step::Look);
    }

    /// mount(2) has passed the MMP check; `kmmpd` starts.
    pub(crate) fn mount_succeeded(&mut self, host: usize) {
        self.disk.set_needs_recovery(true);
        let most = if self.hosts[host].kernel.remounts {
            20 * MILLISECOND
        } else {
            self.plan.hosts[host].mount.finish_ns
        };
        let span = log_uniform(&mut self.rng, MILLISECOND, most.max(2 * MILLISECOND));
        self.act_after(span, host, Act::Finish);
        self.check_mount_time(host);
    }

    /// The journal is replayed and the root is there; or not.
    pub(crate) fn mount_finishes(&mut self, host: usize) {
        let kernel = &mut self.hosts[host].kernel;
        let remount = std::mem::take(&mut kernel.remounts);
        if !remount && self.rng.f64() < self.plan.mounts.fails {
            self.note(host, || "kernel: the mount fails after the MMP check".into());
            return self.kernel_stops(host, Stop::Undone);
        }
        kernel.shown = Activity::ReadWrite;
        self.hosts[host].mounted.changed_at = self.now;
        self.note(host, || "mounted".into());
        if remount && !self.hosts[host].mounted.awaits_mount {
            self.plan_admin(host);
        }
        self.mount_back(host);
    }

    /// It was refused, or interrupted.
    pub(crate) fn mount_failed(&mut self, host: usize) {
        let kernel = &mut self.hosts[host].kernel;
        if !std::mem::take(&mut kernel.remounts) {
            kernel.shown = Activity::Gone;
        }
        self.mount_back(host);
    }

    /// Whoever waits for mount(2) hears of its end.
    fn mount_back(&mut self, host: usize) {
        if self.hosts[host].mounted.awaits_mount {
            let span = log_uniform(&mut self.rng, MILLISECOND / 10, 50 * MILLISECOND);
            self.act_after(span, host, Act::Back);
        }
    }

    fn is_quietly_writable(&self, host: usize) -> bool {
        let kernel = &self.hosts[host].kernel;
        kernel.shown == Activity::ReadWrite && !kernel.frozen && kernel.stop.is_none() && !kernel.remounts
    }

    pub(crate) fn freeze(&mut self, host: usize) {
        if self.is_quietly_writable(host) {
            let span = log_uniform(&mut self.rng, SECOND, 120 * SECOND);
            self.note(host, || format!("FREEZES for {:.3} s", span as f64 / 1e9));
            self.hosts[host].kernel.frozen = true;
            self.stats.mounts.freezes += 1;
            self.act_after(span, host, Act::Thaw);
        }
        self.plan_admin(host);
    }

    pub(crate) fn thaw(&mut self, host: usize) {
        self.note(host, || "thaws".into());
        let kernel = &mut self.hosts[host].kernel;
        kernel.frozen = false;
        kernel.own_beat_at = self.now;
        if kernel.step == Step::Frozen {
            self.kernel_submits(host, Step::Beat);
        }
        if std::mem::take(&mut self.hosts[host].kernel.unmount_pends) {
            self.act_after(MILLISECOND, host, Act::Flushed);
        }
        let span = self.thaw_check_ns();
        self.hosts[host].kernel.thawed_at = self.now;
        self.act_after(span, host, Act::CheckThaw);
    }

    pub(crate) fn remount_read_only(&mut self, host: usize) {
        if self.is_quietly_writable(host) && self.mode(host) != Some(Mode::Expecting) {
            self.note(host, || "REMOUNTS ro".into());
            self.stats.mounts.remounts += 1;
            self.hosts[host].kernel.shown = Activity::ReadOnly;
            self.hosts[host].mounted.changed_at = self.now;
            self.kernel_stops(host, Stop::ReadOnly);
            match self.rng.u32(0..3) {
                0 => {
                    let span = log_uniform(&mut self.rng, MILLISECOND / 10, 300 * MILLISECOND);
                    self.act_after(span, host, Act::RemountRw);
                }
                _ => self.plan_remount(host),
            }
        }
        self.plan_admin(host);
    }

    pub(crate) fn plan_remount(&mut self, host: usize) {
        let span = log_uniform(&mut self.rng, SECOND / 10, 60 * SECOND);
        let act = if self.rng.f64() < 0.2 { Act::RemountRw } else { Act::WantRemount };
        self.act_after(span, host, act);
    }

    /// `mount -o remount,rw`, the administrator's own or the one that `mmp remount` runs.
    pub(crate) fn remount_writable(&mut self, host: usize) {
        let kernel = &self.hosts[host].kernel;
        if kernel.shown != Activity::ReadOnly || kernel.remounts || self.hosts[host].mounted.failed {
            return self.mount_back(host);
        }
        if self.hosts[host].mounted.awaits_mount && kernel.killed {
            // Overtaken before it was begun.
            return self.mount_back(host);
        }
        if kernel.step != Step::Off {
            return self.act_after(MILLISECOND, host, Act::RemountRw);
        }
        self.hosts[host].kernel.killed = false;
        self.mount_calls(host, true);
    }

    /// An error with errors=remount-ro, or the shutdown ioctl. `kmmpd` finds it at its next beat and writes clean; dirty
    /// blocks follow until it is unmounted.
    pub(crate) fn fail(&mut self, host: usize) {
        if self.is_quietly_writable(host) && self.mode(host) != Some(Mode::Expecting) {
            let shown = pick(&mut self.rng, &[Activity::Stopped, Activity::ReadWrite, Activity::ReadOnly]);
            self.note(host, || format!("FAILS, and shows {shown:?}"));
            self.stats.mounts.failures += 1;
            let state = &mut self.hosts[host];
            (state.kernel.shown, state.mounted.failed) = (shown, true);
            state.mounted.changed_at = self.now;
            self.kernel_stops(host, Stop::Failure);
            let span = log_uniform(&mut self.rng, SECOND / 10, 90 * SECOND);
            self.act_after(span, host, Act::Unmount);
        } else {
            self.plan_admin(host);
        }
    }

    pub(crate) fn unmount(&mut self, host: usize) {
        let super::mounted::State { unmounts, failed, .. } = self.hosts[host].mounted;
        let read_only = self.hosts[host].kernel.shown == Activity::ReadOnly;
        let kernel = &mut self.hosts[host].kernel;
        let busy = matches!(
            kernel.step,
            Step::Look | Step::Wait | Step::LookAgain | Step::Claim | Step::WaitAgain | Step::LookLast
        );
        match kernel.shown {
            Activity::Gone => {}
            Activity::Ending if unmounts => {}
            // mount(2) or a remount is still at it.
            Activity::Ending => self.act_after(SECOND, host, Act::Unmount),
            _ if busy || kernel.remounts => self.act_after(SECOND, host, Act::Unmount),
            _ => {
                kernel.shown = Activity::Ending;
                self.note(host, || "UNMOUNTS".into());
                self.hosts[host].mounted.unmounts = true;
                if read_only && !failed {
                    self.stop_using(host, "is unmounted");
                }
                if self.hosts[host].kernel.frozen {
                    self.hosts[host].kernel.unmount_pends = true;
                } else {
                    // Nothing is dirty in what was remounted read-only.
                    let dirty = failed || !read_only;
                    let most = if dirty { self.plan.mounts.flush_ns } else { 10 * MILLISECOND };
                    let span = log_uniform(&mut self.rng, MILLISECOND, most);
                    self.act_after(span, host, Act::Flushed);
                }
            }
        }
    }

    /// What was dirty is on the disk: `ext4_stop_mmpd`.
    pub(crate) fn flushed(&mut self, host: usize) {
        match self.hosts[host].kernel.step {
            Step::Clean => self.act_after(10 * MILLISECOND, host, Act::Flushed),
            Step::Off => {
                self.stop_using(host, "is unmounted");
                self.act_after(MILLISECOND, host, Act::Closed);
            }
            _ => self.kernel_stops(host, Stop::Unmount),
        }
    }

    pub(crate) fn before_clean(&mut self, host: usize) {
        match self.hosts[host].kernel.stop {
            Some(Stop::Unmount) => {
                self.disk.set_needs_recovery(false);
                self.stop_using(host, "is unmounted, but for the clean mark");
            }
            Some(Stop::Undone) => self.stop_using(host, "is not mounted, but for the clean mark"),
            Some(Stop::ReadOnly) => self.disk.set_needs_recovery(false),
            Some(Stop::Failure) | None => {}
        }
    }

    /// `kmmpd` has written its clean mark.
    pub(crate) fn kmmpd_ended(&mut self, host: usize) {
        match self.hosts[host].kernel.stop {
            Some(Stop::Unmount | Stop::Undone) => {
                let span = log_uniform(&mut self.rng, MILLISECOND / 10, SECOND);
                self.act_after(span, host, Act::Closed);
            }
            _ => self.note(host, || "kmmpd has ended".into()),
        }
    }

    /// The device is closed.
    pub(crate) fn closed(&mut self, host: usize) {
        self.note(host, || "the device is closed".into());
        let undone = self.hosts[host].kernel.stop == Some(Stop::Undone);
        self.hosts[host].kernel.shown = Activity::Gone;
        // Also of a remount that has not begun.
        self.mount_back(host);
        if !undone {
            self.hosts[host].kernel.mount += 1;
            self.stats.mounts.unmounts += 1;
        }
        (self.hosts[host].mounted.failed, self.hosts[host].mounted.unmounts) = (false, false);
    }

    /// The shutdown ioctl in place of a cut: `kmmpd` marks the block clean, and what the block device's cache holds follows
    /// for 45 s. False if that is over, or if there is nothing to shut down.
    pub(crate) fn shut_down(&mut self, host: usize) -> bool {
        let state = &mut self.hosts[host];
        if !state.using || std::mem::replace(&mut state.mounted.shut_down, true) {
            return false;
        }
        self.note(host, || "is shut down".into());
        self.kernel_stops(host, Stop::Failure);
        let until = self.now + 45 * SECOND;
        self.hosts[host].using_until = Some(until);
        self.at(until, host, super::world::What::UserStopped);
        true
    }

    /// The fence is done: nothing more comes through. Then somebody cleans up, and it begins anew.
    pub(crate) fn cut(&mut self, host: usize) {
        self.note(host, || "is cut off".into());
        let state = &mut self.hosts[host];
        (state.kernel, state.mounted) = (state.kernel.anew(), state.mounted.anew());
        (state.guard, state.io, state.cell, state.using_until) = (None, None, None, None);
        let pause = log_uniform(&mut self.rng, SECOND, 60 * SECOND);
        self.after(pause, host, super::world::What::Start);
    }

    fn thaw_check_ns(&self) -> u64 {
        (2 * self.kernel_interval_s() + 3) * SECOND + self.plan.kernel_write_ns
    }

    /// A while after the thaw the kernel's own beats go on, and the guard knows it.
    pub(crate) fn check_thaw(&mut self, host: usize) {
        let state = &self.hosts[host];
        let undisturbed = self.plan.kernel_write_ns < SECOND
            && state.kernel.thawed_at + self.thaw_check_ns() <= self.now
            && self.is_quietly_writable(host)
            && self.is_faultless(host)
            && self.mode(host) != Some(Mode::Expecting)
            && state.using_until.is_none();
        if !undisturbed {
            return;
        }
        let mode = state.guard.as_ref().map(crate::protocol::Guard::mode);
        if mode != Some(Mode::Watching) {
            self.violate(host, format!("thawed long ago, and the guard is {mode:?}"));
        }
    }
}
