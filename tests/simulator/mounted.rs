//! A host of ours that mounts through its own kernel: the library's `Guard` beside the kernel, what the driver does
//! between them, and what an administrator does to the mount.
//!
//! The driver: mounts at the hand-over, kills the mount when it was overtaken, says when mount(2) has ended, answers
//! what the kernel does with the device, disarms the lease cell while nothing is protected, releases what it beats
//! itself as soon as nothing is mounted, and adopts a mount whose guard died.

use crate::protocol::{Activity, Guard, Input, Mode};
use std::rc::Rc;

use mmpguard::clock::Mono;
use mmpguard::format::Image;

use super::breakage::{Breakage, is_broken};
use super::host::Feed;
use super::plan::{MILLISECOND, SECOND, log_uniform};
use super::world::{What, World};

/// Something that is to happen to a mount, unless that is over by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// mount(2) comes to the MMP block.
    Call,
    /// It has done the rest.
    Finish,
    /// The signal arrives.
    Kill,
    /// The driver hears that mount(2) has ended.
    Back,
    /// The driver hands over what it holds.
    HandOver {
        mounted: bool,
    },
    /// The kernel is looked at, for the question of that number.
    Ask(u64),
    Answered(u64),
    /// The driver looks whether what it beats is still mounted.
    Poll,
    Freeze,
    Thaw,
    CheckThaw,
    RemountRo,
    RemountRw,
    /// `mmp remount`.
    WantRemount,
    Fail,
    Unmount,
    Flushed,
    Closed,
}

/// What is left when a guard dies: see `mmpguard::driver::trace`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) counted: Option<(Mono, u32)>,
    pub(crate) submitted_seq: Option<u32>,
    pub(crate) beating: bool,
    pub(crate) generation: Option<u64>,
}

/// What a host of this kind remembers.
#[derive(Default)]
pub(crate) struct State {
    /// Which guard of its this is: what was planned for another one is void.
    pub(crate) driver: u64,
    /// mount(2) was called for the guard, and has not ended as far as the driver knows.
    pub(crate) awaits_mount: bool,
    pub(crate) handed_at: u64,
    /// From the hand-over to the MMP block.
    pub(crate) call_ns: u64,
    pub(crate) asked: u64,
    /// The guard waits for the answer.
    pub(crate) awaited: bool,
    answer: Option<Activity>,
    pub(crate) polls: bool,
    /// The filesystem was stopped by an error.
    pub(crate) failed: bool,
    pub(crate) unmounts: bool,
    /// In place of a cut.
    pub(crate) shut_down: bool,
    /// The guard is one that adopts: the cell is its predecessor's until it arms it.
    pub(crate) adopting: bool,
    pub(crate) counted: Option<(Mono, u32)>,
    /// What a guard leaves for its successor.
    pub(crate) trace: Trace,
    /// Somebody was seen beating by the last claim.
    pub(crate) seen_live: bool,
    /// Nobody was in the way of the last mount: at once again.
    pub(crate) at_once: bool,
    pub(crate) bridged_at: u64,
    /// What beats the block, or how, changed last.
    pub(crate) changed_at: u64,
    pub(crate) guard_stalled_until: u64,
    /// What the guard was shown last, for drivers that are broken on purpose.
    pub(crate) shown: Option<Rc<Image>>,
    /// When the look began that first showed it, by the host's clock.
    pub(crate) sighted: Mono,
    pub(crate) outage_until: u64,
}

impl State {
    /// What is left of it after a cut.
    pub(crate) fn anew(&self) -> Self {
        State { driver: self.driver + 1, asked: self.asked + 1, ..State::default() }
    }
}

impl Act {
    /// The guard's process has to run for it.
    pub(crate) fn is_the_drivers(self) -> bool {
        matches!(
            self,
            Act::Kill
                | Act::Back
                | Act::HandOver { .. }
                | Act::Ask(_)
                | Act::Answered(_)
                | Act::Poll
                | Act::WantRemount
        )
    }
}

impl World {
    pub(crate) fn act_after(&mut self, span: u64, host: usize, act: Act) {
        let number = self.act_number(host, act);
        self.after(span, host, What::Act(act, number));
    }

    fn act_number(&self, host: usize, act: Act) -> u64 {
        let state = &self.hosts[host];
        if act.is_the_drivers() { state.mounted.driver } else { state.kernel.mount }
    }

    pub(crate) fn mounted(&mut self, host: usize, what: What) {
        match what {
            What::KernelSample(_) | What::KernelAnswer(_) | What::KernelWake(_) => self.kernel(host, what),
            What::UserDone => self.unmount(host),
            What::Act(act, number) if number == self.act_number(host, act) => self.act(host, act),
            What::Act(..) => {}
            What::GuardStall => self.guard_stalls(host),
            What::GuardCrash => self.guard_crashes(host),
            What::GuardBack => self.guard_adopts(host),
            What::Outage => self.outage(host),
            other => self.ours(host, other),
        }
    }

    fn act(&mut self, host: usize, act: Act) {
        match act {
            Act::Call => self.mount_calls(host, false),
            Act::Finish => self.mount_finishes(host),
            Act::Kill => self.kernel_killed(host),
            Act::Back => {
                let killed = self.hosts[host].kernel.killed;
                self.tell(host, act, Input::MountEnded { killed });
            }
            Act::HandOver { mounted } => {
                if self.mode(host) == Some(Mode::Beating) {
                    self.tell(host, act, Input::HandOver { mounted });
                }
            }
            Act::Ask(number) => {
                let state = &mut self.hosts[host];
                if state.mounted.asked == number {
                    state.mounted.answer = Some(state.kernel.shown);
                }
            }
            Act::Answered(number) => self.activity_answered(host, number),
            Act::Poll => self.poll_mount(host),
            Act::Freeze => self.freeze(host),
            Act::Thaw => self.thaw(host),
            Act::CheckThaw => self.check_thaw(host),
            Act::RemountRo => self.remount_read_only(host),
            Act::RemountRw => self.remount_writable(host),
            Act::WantRemount => self.want_remount(host),
            Act::Fail => self.fail(host),
            Act::Unmount => self.unmount(host),
            Act::Flushed => self.flushed(host),
            Act::Closed => self.closed(host),
        }
    }

    pub(crate) fn mode(&self, host: usize) -> Option<Mode> {
        self.hosts[host].guard.as_ref().map(Guard::mode)
    }

    /// Hands the guard an input of the driver's own, as soon as no I/O keeps the driver from it.
    fn tell(&mut self, host: usize, act: Act, input: Input<'static>) {
        let state = &mut self.hosts[host];
        if state.guard.is_none() {
            return;
        }
        if state.mounted.awaited || (state.io.is_some() && !self.plan.hosts[host].ticks_during_io) {
            return self.act_after(MILLISECOND, host, act);
        }
        if act == Act::Back {
            state.mounted.awaits_mount = false;
        }
        self.note(host, || format!("driver: {input:?}"));
        self.feed(host, Feed::Plain(input));
    }

    /// The guard asks what the kernel does with the device.
    pub(crate) fn ask(&mut self, host: usize) {
        let state = &mut self.hosts[host].mounted;
        state.asked += 1;
        (state.answer, state.awaited) = (None, true);
        let number = state.asked;
        let late = self.strikes(host, self.plan.rates.late_handling);
        let most = if late { 5 * SECOND } else { 20 * MILLISECOND };
        let latency = log_uniform(&mut self.rng, 50_000, most);
        if late {
            self.fault_until(host, self.now + latency);
        }
        let sample = self.rng.u64(0..=latency);
        self.act_after(sample, host, Act::Ask(number));
        self.act_after(latency + 1, host, Act::Answered(number));
    }

    fn activity_answered(&mut self, host: usize, number: u64) {
        let state = &mut self.hosts[host].mounted;
        if state.asked != number || !state.awaited {
            return;
        }
        state.awaited = false;
        let shown = state.answer.take().unwrap_or(self.hosts[host].kernel.shown);
        let activity = if is_broken(Breakage::NeverAsks) { Activity::ReadWrite } else { shown };
        self.note(host, || format!("driver: {activity:?}"));
        self.feed(host, Feed::Plain(Input::Activity(activity)));
    }
}
