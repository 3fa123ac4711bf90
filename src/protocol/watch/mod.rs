//! Watch: the local kernel has the filesystem mounted and beats the block (`kmmpd`); a second writer would be wrong. We
//! look, know until when the kernel's beats protect, beat in its stead while it cannot, and say when it is over.
//!
//! | stage | the block | we |
//! |---|---|---|
//! | expecting (`expect`) | handed over to the kernel, which mounts | look for rivals |
//! | adopting (`adopt`) | mounted without us | look for the kernel's beats |
//! | watching (`beats`) | the kernel beats | look |
//! | bridging (`beats`) | the kernel cannot (a frozen filesystem) | beat in its stead |
//!
//! Protects: a device mounted here, as long as [`Watch::lease_end`] lies ahead. Does not stop the kernel when the
//! lease has ended: the keeper does.
//!
//! Why it holds: `docs/safety.md`, W1 to W7. In short: the kernel's lease is counted from the look before the one that saw its
//! beat, by the smallest check interval that it may write; nothing foreign or clean is judged before the kernel was asked
//! whether its filesystem is still there; and what is written in its stead changes nothing that it goes on with.

mod adopt;
mod beats;
mod expect;
mod times;
mod whose;

use std::ops::ControlFlow;
use std::time::Duration;

use self::adopt::Adopting;
pub use self::adopt::{Adoption, Left};
use self::expect::Expecting;
pub(super) use self::expect::Handed;
use self::times::{interval, kernel_check, kernel_check_interval_s, silence, u_star};
use super::event::{Event, Loss, Peer};
use super::foreign::{Foreign, Predecessor};
use super::guard::{Activity, Context, Failure, Input, Mode};
use super::hold::Hold;
use super::lease::Lease;
use super::medium::Owner;
use super::timing;
use crate::clock::{Mono, Now};
use crate::format::{Image, MmpBlock};

/// A failed read or write is tried again after this.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The kernel's answer is asked for again after this, while an unmount is under way.
const ENDING_PAUSE: Duration = Duration::from_millis(100);

/// A filesystem that the kernel protects, or is about to.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    stage: Stage,
    step: Step,
    /// None as long as nothing is protected.
    lease: Option<Lease>,
    /// The kernel's last own beat; meaningless before its first.
    kernel: Image,
    /// End of the look that first saw it.
    kernel_at: Mono,
    /// End of the last look that showed it, or ours in its stead.
    stood_at: Mono,
    /// The kernel may have begun to count anew: where it stood before, and until when that is remembered.
    restarted_from: Option<(u32, Mono)>,
    last_look_started: Mono,
    last_gap: Option<Mono>,
    foreign: Foreign,
    predecessor: Option<Predecessor>,
    /// He was seen to count on, under our kernel's names.
    predecessor_stirs: bool,
    /// Until then looks are taken at a watcher's pace.
    watchful_until: Mono,
    /// Looks in a row at something that is no MMP block.
    unreadable: u32,
    /// Whatever tried to mount has ended, and the kernel is to be asked what came of it.
    mount_ended: bool,
    /// A first beat was seen, under names that may not be ours alone, and not yet that something is mounted here.
    unconfirmed: bool,
    /// It was killed, and was not refused by the kernel.
    mount_killed: bool,
    /// An unmount was first seen under way then.
    ending_since: Option<Mono>,
    /// What the kernel said about a block that may be about to change is asked for once more, after a fresh look.
    doubted: bool,
    trouble_told: bool,
}

/// How watching ends.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // moved once
pub(super) enum Watched {
    /// We beat from here on.
    WeBeat(Hold),
    Over,
}

type Flow = ControlFlow<Watched>;

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one a device
enum Stage {
    Expecting(Expecting),
    Adopting(Adopting),
    Watching,
    Bridging(Bridge),
}

/// Our beats in the kernel's stead.
#[derive(Clone, Debug)]
struct Bridge {
    acknowledged: Option<Image>,
    /// What we wrote after that, if its fate is not known.
    unacknowledged: Option<Image>,
    seq: u32,
    /// So many since the jump.
    beats: u32,
    next_beat: Mono,
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one a device
enum Step {
    Idle {
        until: Mono,
    },
    Looking {
        started: Mono,
    },
    /// The kernel is asked about what a look showed.
    Asking {
        look: Look,
        image: Image,
    },
    Writing {
        started: Mono,
        end: Mono,
    },
}

/// A look that was answered.
#[derive(Clone, Copy, Debug)]
struct Look {
    started: Mono,
    /// Start of the look before it.
    before: Mono,
}

impl Watch {
    fn begin(now: Now, stage: Stage, predecessor: Option<Predecessor>) -> Self {
        Watch {
            stage,
            step: Step::Idle { until: now.mono },
            lease: None,
            kernel: [0; 1024],
            kernel_at: now.mono,
            stood_at: now.mono,
            restarted_from: None,
            last_look_started: now.mono,
            last_gap: None,
            foreign: Foreign::default(),
            predecessor,
            predecessor_stirs: false,
            watchful_until: now.mono,
            unreadable: 0,
            mount_ended: false,
            unconfirmed: false,
            mount_killed: false,
            ending_since: None,
            doubted: false,
            trouble_told: false,
        }
    }

    pub(super) fn lease_end(&self) -> Option<Mono> {
        self.lease.map(Lease::end)
    }

    /// The kernel's count when it was last seen, and when that was; none before its first beat.
    pub(super) fn counted(&self) -> Option<(Mono, u32)> {
        match self.stage {
            Stage::Expecting(_) | Stage::Adopting(_) => None,
            Stage::Watching | Stage::Bridging(_) => {
                Some((self.kernel_at, MmpBlock::fields(&self.kernel).seq))
            }
        }
    }

    pub(super) fn mode(&self) -> Mode {
        match self.stage {
            Stage::Expecting(_) | Stage::Adopting(_) => Mode::Expecting,
            Stage::Watching => Mode::Watching,
            Stage::Bridging(_) => Mode::Bridging,
        }
    }

    pub(super) fn deadline(&self) -> Mono {
        let end = self.lease_end().unwrap_or(Mono::FAR);
        match self.step {
            Step::Idle { until } => until.min(end),
            Step::Looking { .. } => self.unprotected_until().map_or(end, |due| due.min(end)),
            Step::Asking { .. } | Step::Writing { .. } => end,
        }
    }

    pub(super) fn handle(&mut self, now: Now, input: Input<'_>, context: &mut Context) -> Flow {
        // First of all, and whatever it is that comes. One who wakes after his lease does not bridge.
        if self.lease_end().is_some_and(|end| now.mono >= end) {
            return lose(now, Loss::LeaseExpired, context);
        }
        // What is mounted is used without a lease until its first beat is seen, also while a look hangs.
        let looking = matches!(self.step, Step::Looking { .. });
        if looking
            && matches!(input, Input::Tick)
            && self.unprotected_until().is_some_and(|due| now.mono >= due)
        {
            return lose(now, Loss::NoKernelBeat, context);
        }
        match input {
            Input::Tick => {
                if matches!(self.step, Step::Idle { until } if now.mono >= until) {
                    self.look(now, context);
                }
            }
            Input::MountEnded { killed } => {
                // Its first beat may have been seen already; it was another's, under the same names, if nothing is mounted.
                self.mount_ended = matches!(self.stage, Stage::Expecting(_) | Stage::Watching);
                self.mount_killed = killed;
                if self.mount_ended && matches!(self.step, Step::Idle { .. }) {
                    self.look(now, context);
                }
            }
            Input::Read(answer) => return self.read(now, answer, context),
            Input::Activity(activity) => return self.answered(now, activity, context),
            Input::Written(answer) => return self.wrote(now, answer, context),
            Input::NotWritten => return lose(now, Loss::LeaseExpired, context),
            Input::CellLost => return lose(now, Loss::CellLost, context),
            Input::Release => self.is_to_release(),
            Input::Withdraw | Input::HandOver { .. } => {}
            Input::Superblock(_) | Input::Entry(_) | Input::EntryWritten(_) => {
                unreachable!("a watcher asks for the block alone")
            }
        }
        Flow::Continue(())
    }

    fn look(&mut self, now: Now, context: &mut Context) {
        let check_interval = Duration::from_secs(kernel_check_interval_s(context).into());
        if now.mono.since(self.last_look_started) > check_interval {
            self.last_gap = Some(now.mono);
        }
        self.step = Step::Looking { started: now.mono };
        context.read();
    }

    fn read(&mut self, now: Now, answer: Result<&Image, Failure<'_>>, context: &mut Context) -> Flow {
        let Step::Looking { started } = self.step else { unreachable!("no read was asked for") };
        let look = Look { started, before: self.last_look_started };
        let image = match answer {
            Ok(image) => image,
            Err(failure) => return self.trouble(now, failure, context),
        };
        // Only now: a beat that a failed look could not show has landed after the last good one.
        self.last_look_started = started;
        match &self.stage {
            Stage::Expecting(_) => self.expected(now, look, image, context),
            Stage::Adopting(_) => self.adopted(now, look, image, context),
            Stage::Watching => self.watched(now, look, image, context),
            Stage::Bridging(_) => self.bridged(now, look, image, context),
        }
    }

    fn answered(&mut self, now: Now, activity: Activity, context: &mut Context) -> Flow {
        let Step::Asking { look, image } = self.step else { unreachable!("the kernel was not asked") };
        if activity != Activity::Ending {
            self.ending_since = None;
        }
        match &self.stage {
            Stage::Expecting(_) => self.mount_answered(now, look, &image, activity, context),
            Stage::Adopting(_) => unreachable!("nothing is asked while adopting"),
            Stage::Watching | Stage::Bridging(_) => self.judge(now, look, &image, activity, context),
        }
    }

    fn ask(&mut self, look: Look, image: &Image, context: &mut Context) -> Flow {
        self.step = Step::Asking { look, image: *image };
        context.activity();
        Flow::Continue(())
    }

    /// The kernel's own beat: the lease runs from the look before the one that saw it.
    fn kernel_beat(&mut self, now: Now, look: Look, image: &Image, context: &Context) {
        self.kernel = *image;
        self.kernel_at = now.mono;
        self.lease = Some(Lease::until(look.before + timing::lease(kernel_check_interval_s(context))));
        self.stood(now.mono);
        self.doubted = false;
        self.trouble_told = false;
    }

    /// The block is as the kernel, or we in its stead, left it.
    fn stood(&mut self, now: Mono) {
        self.stood_at = now;
        self.foreign.gone();
        self.unreadable = 0;
    }

    /// The kernel has not beaten for longer than it takes; or than the lease leaves, which may be what a dead guard has left of it.
    fn is_silent(&self, at: Mono, context: &Context) -> bool {
        let reserve = timing::write_reserve(kernel_check_interval_s(context));
        let ends = self.lease_end().is_some_and(|end| end <= at + reserve);
        ends || at.since(self.kernel_at) > silence(context)
    }

    /// The first own beat: from here on the device is protected.
    fn first_beat(&mut self, now: Now, look: Look, image: &Image, context: &mut Context) -> Flow {
        let block = MmpBlock::fields(image);
        // The kernel writes the first namespace's node name, and goes on with that.
        context.medium.rename(Owner::of(&block));
        self.kernel_beat(now, look, image, context);
        self.unconfirmed = matches!(&self.stage, Stage::Expecting(expecting) if !expecting.is_mounted())
            && !broken!(BridgesBeforeTheBeat);
        self.stage = Stage::Watching;
        if self.predecessor.is_some() {
            let c = timing::taker_check_interval_s(context.medium.update_interval_s(), 0);
            self.watchful_until = now.mono + timing::wait(c);
        }
        if let Some(lease_end) = self.lease_end().filter(|&end| now.mono < end) {
            context.event(Event::KernelBeats { lease_end, as_peer: Peer::from(&block) });
            return self.rest(now, context);
        }
        // Looks that hung: it may be over already.
        lose(now, Loss::LeaseExpired, context)
    }

    /// Watches again: what was to be beaten over, or was beaten, has changed.
    pub(super) fn back(mut self, now: Now) -> Self {
        self.step = Step::Idle { until: now.mono };
        self.doubted = false;
        self
    }

    /// Watches again, after we have beaten: until then we looked, and had a lease.
    pub(super) fn back_from(self, now: Now, looked: Mono, lease: Lease) -> Self {
        Watch { last_look_started: looked, lease: Some(lease), ..self.back(now) }
    }

    /// Until the next look: twice an interval, at no fixed phase to the kernel's beats, so that a foreign block that the
    /// kernel soon overwrites is seen before long.
    fn rest(&mut self, now: Now, context: &mut Context) -> Flow {
        let interval = interval(context);
        let pause = if now.mono < self.watchful_until {
            timing::look_period(interval)
        } else {
            timing::jittered(interval, &mut context.rng) / 2
        };
        self.look_at(now.mono + pause)
    }

    fn look_soon(&mut self, now: Now, context: &Context) -> Flow {
        self.look_at(now.mono + timing::look_period(interval(context)))
    }

    fn look_at(&mut self, until: Mono) -> Flow {
        self.step = Step::Idle { until };
        Flow::Continue(())
    }

    fn trouble(&mut self, now: Now, failure: Failure<'_>, context: &mut Context) -> Flow {
        if !self.trouble_told {
            self.trouble_told = true;
            let lease_end = self.lease_end().unwrap_or(now.mono);
            context.event(Event::IoTrouble { what: failure.what.to_owned(), lease_end });
        }
        self.look_at(now.mono + RETRY_PAUSE)
    }
}

fn lose(now: Now, loss: Loss, context: &mut Context) -> Flow {
    context.event(Event::Lost { loss, at: now.mono });
    Flow::Break(Watched::Over)
}
