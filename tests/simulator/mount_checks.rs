//! What is checked of a host that mounts, beside exclusion; and what is broken on purpose in its driver.

use std::rc::Rc;
use std::time::Duration;

use crate::protocol::{Event, Mode, Write, timing};
use mmpguard::clock::Mono;
use mmpguard::format::Image;

use super::breakage::{Breakage, is_broken};
use super::disk::Before;
use super::plan::{HandOver, Kind, Profile, SECOND};
use super::world::World;

impl World {
    /// No fault of this host's own for long enough.
    pub(crate) fn is_faultless(&self, host: usize) -> bool {
        let fault_until = self.hosts[host].fault_until;
        fault_until == 0 || self.now > fault_until + 2 * self.longest_wait_ns()
    }

    /// Another host has its names. While it mounts it may take the other's beats for its own kernel's, and then for lost.
    pub(crate) fn has_a_twin(&self, host: usize) -> bool {
        let hosts = &self.plan.hosts;
        (0..hosts.len()).any(|other| other != host && hosts[other].node == hosts[host].node)
    }

    /// Nobody stops a mount that had no fault of its own.
    pub(crate) fn check_fence(&mut self, host: usize) {
        if self.plan.hosts[host].kind == Kind::Mounted && self.is_faultless(host) {
            self.violate(host, "the lease of a mount without a fault ran out".into());
        }
    }

    /// After the hand-over a live holder is found within the stated time.
    pub(crate) fn check_refused_mount(&mut self, host: usize) {
        if self.plan.profile != Profile::Mounts || self.stats.apart.two_kernels > 0 {
            return;
        }
        let handed_at = self.hosts[host].mounted.handed_at;
        let holder = (0..self.hosts.len()).find(|&other| {
            other != host
                && self.hosts[other].using
                && self.hosts[other].using_since + SECOND / 10 < handed_at
        });
        let Some(holder) = holder.filter(|&holder| self.beats_evenly(holder)) else { return };
        let interval = if self.hosts[holder].kernel.beats() {
            Duration::from_secs(self.kernel_interval_s())
        } else {
            self.plan.hosts[holder].interval
        };
        let took = Duration::from_nanos(self.now - handed_at);
        if took > timing::refusal(interval) {
            self.violate(host, format!("refused only {took:?} after the hand-over"));
        }
    }

    /// It has been beaten in the same way for long enough.
    pub(crate) fn beats_evenly(&self, holder: usize) -> bool {
        self.plan.hosts[holder].kind != Kind::Mounted
            || self.hosts[holder].mounted.changed_at + 2 * self.longest_wait_ns() < self.now
    }

    /// A host that is alone has mounted within the stated time.
    pub(crate) fn check_mount_time(&mut self, host: usize) {
        let alone = self.plan.hosts.len() == 1 && self.stats.kernel_mounts == 1;
        if self.plan.profile != Profile::Mounts || !alone {
            return;
        }
        let plan = &self.plan.hosts[host];
        let superblock = self.plan.filesystem.update_interval_s;
        let own = timing::holder_check_interval_s(plan.interval, plan.interval, plan.check_interval_floor_s);
        let on_disk = if let Before::Dead(left) = self.plan.before { left } else { own };
        let kernel_s = 2 * timing::wait_s(timing::taker_check_interval_s(superblock, on_disk));
        let doubtful = self.plan.filesystem.needs_recovery && self.plan.before == Before::Clean;
        let taker = timing::taker_check_interval_s(superblock, on_disk).max(own);
        let doubt = if doubtful {
            timing::doubtful_clean_watch(taker) + timing::NATIVE_MARGIN
        } else {
            Duration::ZERO
        };
        let on_clean_s = plan.flavour.clean_wait_ns() as f64 / 1e9;
        let stated_s = match (plan.mount.hand_over, self.plan.before) {
            (HandOver::Kernel, _) => kernel_s as f64 + doubt.as_secs_f64(),
            (HandOver::Clean, Before::Dead(left)) => {
                timing::claim(timing::Found::Still, superblock, left, own).as_secs_f64() + on_clean_s
            }
            (HandOver::Clean, Before::Clean) => {
                let claim = timing::claim(timing::Found::Clean, superblock, 5, own);
                (claim + doubt).as_secs_f64() + on_clean_s
            }
        };
        let took_s =
            (self.now - self.hosts[host].claim_since - self.hosts[host].mounted.call_ns) as f64 / 1e9;
        if took_s > stated_s + 0.6 {
            self.violate(host, format!("mounted after {took_s:.2} s, stated are {stated_s} s"));
        }
    }

    /// It must be true, unless a fault of the host's own kept it from looking.
    pub(crate) fn check_bridge_ended(&mut self, host: usize) {
        let (kernel, state) = (&self.hosts[host].kernel, &self.hosts[host].mounted);
        // A beat may be seen late, but not one from before the bridge, unless a look hung.
        let slow_ns = SECOND + self.plan.kernel_write_ns;
        if kernel.frozen && kernel.own_beat_at + slow_ns < state.bridged_at && self.is_faultless(host) {
            self.violate(host, "the kernel is said to beat, and is frozen".into());
        }
    }

    /// Mounted while its guard could not look: no cell is armed, and nobody fences it.
    fn is_unseen(&self, host: usize) -> bool {
        let state = &self.hosts[host];
        self.plan.hosts[host].kind == Kind::Mounted
            && state.cell.is_none()
            && state.fault_until >= state.mounted.handed_at
    }

    /// Two users of whom one is a host that mounts, and that cannot be promised: see the opening of `main`.
    pub(crate) fn is_excused(&mut self, one: usize, other: usize) -> bool {
        if !self.plan.profile.mounts() && self.plan.profile != Profile::Standby {
            return false;
        }
        let [by_one, by_other] = [one, other].map(|host| self.hosts[host].kernel.found_clean);
        let killed = [one, other].iter().any(|&host| self.hosts[host].kernel.killed);
        if by_one.is_some() && by_one == by_other && killed && self.mounts(one) && self.mounts(other) {
            self.stats.apart.killed_mount += 1;
            return true;
        }
        for (comer, there) in [(one, other), (other, one)] {
            let [came, was] = [comer, there].map(|host| self.plan.hosts[host].kind);
            if was == Kind::Mounted && self.kernel_found_mark_of(comer, there) {
                let old_stamp = self.came_on_old_stamp(comer);
                let apart = &mut self.stats.apart;
                let counted = match came {
                    Kind::Kernel => Some(&mut apart.clean_window),
                    _ if killed => Some(&mut apart.killed_mount),
                    _ if old_stamp => Some(&mut apart.old_stamp),
                    _ => None,
                };
                if let Some(counted) = counted {
                    *counted += 1;
                    return true;
                }
            }
            if was == Kind::Mounted && self.came_on_mark_before_fault(comer, there) {
                self.stats.apart.fault_on_clean += 1;
                return true;
            }
            if self.is_unseen(there) {
                self.stats.apart.unseen_mount += 1;
                return true;
            }
        }
        false
    }

    /// A guard that ends leaves nothing in use, but what the kernel has stopped and marked clean before.
    pub(crate) fn check_end(&mut self, host: usize, event: &Event) {
        if self.hosts[host].using && !self.hosts[host].mounted.failed && self.is_faultless(host) {
            self.violate(host, format!("{event:?} while the device is in use"));
        }
    }

    /// After the unmount nothing is written over a successor.
    pub(crate) fn check_write(&mut self, host: usize, write: &Write) {
        let state = &self.hosts[host];
        // Where two have met (Pauses) one of them may leave over the other.
        if self.plan.hosts[host].kind != Kind::Mounted
            || self.plan.profile.pauses()
            || state.using
            || self.mode(host) == Some(Mode::Claiming)
        {
            return;
        }
        // What it holds is not handed over yet: exclusion is checked when it is used.
        if state.mounted.handed_at < state.claim_since {
            return;
        }
        let successor = self.other_user(host);
        let successor = successor.filter(|&successor| !self.is_unseen(successor));
        if let (Some(successor), true) = (successor, self.is_faultless(host)) {
            let seq = mmpguard::format::MmpBlock::fields(&write.image).seq;
            self.violate(host, format!("writes {seq:#x} over host {successor}, and has nothing mounted"));
        }
    }

    /// What a read gives the guard.
    pub(crate) fn shown_to_guard(&mut self, host: usize, sample: Rc<Image>) -> Rc<Image> {
        let mode = self.mode(host);
        let state = &mut self.hosts[host];
        let blind = is_broken(Breakage::NoLookBeside)
            && mode == Some(Mode::Expecting)
            && state.mounted.awaits_mount
            && !state.using;
        match &state.mounted.shown {
            Some(shown) if blind || *shown == sample => Rc::clone(shown),
            _ => {
                state.mounted.shown = Some(Rc::clone(&sample));
                state.mounted.sighted = state.look_began;
                sample
            }
        }
    }

    /// The end of a lease that runs from the look that saw the kernel's beat, by the C in it.
    pub(crate) fn lease_from_sight(&self, host: usize) -> Option<Mono> {
        let state = &self.hosts[host].mounted;
        let shown = state.shown.as_ref().filter(|_| is_broken(Breakage::LeaseFromSight))?;
        let watches = self.mode(host) == Some(Mode::Watching) || self.hosts[host].cell.is_some();
        watches.then(|| state.sighted + timing::lease(self.disk_c(shown)))
    }

    /// What a broken driver does not carry out.
    pub(crate) fn drops(&self, host: usize) -> bool {
        let mode = self.mode(host);
        let clean = self.disk.block().seq == crate::protocol::sequence::SEQ_CLEAN;
        self.plan.hosts[host].kind == Kind::Mounted
            && ((is_broken(Breakage::NoBridge) && mode == Some(Mode::Bridging))
                || (is_broken(Breakage::NoSequence)
                    && mode == Some(Mode::Claiming)
                    && self.plan.hosts[host].mount.hand_over == HandOver::Kernel
                    && clean))
    }
}
