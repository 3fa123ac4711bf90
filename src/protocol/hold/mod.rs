//! Hold: beat, notice what is foreign, know when the lease has ended, release. The safety argument: `docs/safety.md`; what
//! a foreign block means is `medium`'s and `foreign`'s business.
//!
//! Protects: once the lease has ended nothing more is written and *lost* is said, whatever an acknowledgement that
//! comes later may claim. Does not stop the user of the device: the keeper does, from the lease cell.

mod ending;
mod judge;

use std::ops::ControlFlow;
use std::time::Duration;

use super::event::{Event, Loss, Peer, Refusal};
use super::foreign::{Foreign, Predecessor};
use super::guard::{Context, Failure, Input, Write};
use super::lease::Lease;
use super::sequence;
use super::timing::{self, CheckInterval};
use super::watch::Watch;
use crate::clock::{Mono, Now};
use crate::format::{Image, MmpBlock};

/// A failed read or write is tried again after this.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What a claim hands over.
pub(super) struct Taken {
    pub(super) look_started: Mono,
    pub(super) image: Image,
    pub(super) predecessor: Option<Predecessor>,
    pub(super) check: CheckInterval,
}

/// A device held.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    step: Step,
    /// What we wrote last and know to have landed.
    acknowledged: Image,
    /// What we wrote after that, if its fate is not known: a failed write may land all the same.
    unacknowledged: Option<Image>,
    lease: Lease,
    /// The sequence of the last beat submitted.
    seq: u32,
    /// Beats submitted, counting one by one, since the last jump.
    beats: u64,
    next_beat: Mono,
    last_look_started: Mono,
    last_good_look: Mono,
    /// The last gap between two looks that was longer than the check interval.
    last_gap: Option<Mono>,
    foreign: Foreign,
    predecessor: Option<Predecessor>,
    /// Until then looks are taken at a watcher's pace, and a losing predecessor's clean mark is expected.
    watchful_until: Mono,
    /// Looks in a row at something that is no MMP block.
    unreadable: u32,
    releasing: bool,
    /// Nothing was ever used: a claim is taken back.
    retracting: bool,
    /// The clean mark is for the kernel, which takes over; true if the device is mounted (read-only) already.
    handing_over: Option<bool>,
    /// Nothing is handed over before,
    hand_over_from: Mono,
    /// nor before a beat has landed over what somebody may have called his kernel upon.
    to_be_seen: bool,
    /// Who goes on if the block changes before our first beat, or the kernel beats again.
    back: Option<Box<Watch>>,
    trouble_told: bool,
}

/// How holding ends.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // moved once
pub(super) enum Ended {
    /// The kernel takes over.
    HandedOver(Watch),
    Over,
}

/// A device that was protected before, by the kernel's beats, or by a claim that is taken back.
pub(super) struct Standing {
    /// What stands in the block.
    pub(super) image: Image,
    pub(super) lease: Lease,
    pub(super) predecessor: Option<Predecessor>,
    /// Who was seen over it before.
    pub(super) foreign: Foreign,
    /// Nothing uses it: release at once.
    pub(super) release: bool,
    /// Who goes on if the block changes before our first beat.
    pub(super) back: Option<Box<Watch>>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Nothing under way; the next look is due then.
    Idle {
        until: Mono,
    },
    Looking {
        started: Mono,
    },
    /// What is on its way stands in `unacknowledged`.
    Writing {
        started: Mono,
        clean: bool,
        end: Mono,
    },
}

/// A look that was answered.
#[derive(Clone, Copy, Debug)]
struct Look {
    started: Mono,
    /// Since the look before it.
    cycle: Duration,
}

type Flow = ControlFlow<Ended>;

impl Hold {
    pub(super) fn begin(now: Now, taken: Taken, context: &mut Context) -> Self {
        let interval = context.options.interval;
        let lease_end = taken.look_started + taken.check.lease();
        assert!(
            now.mono < lease_end,
            "a claim ends well within its own lease: the limit is a quarter of a wait"
        );
        let next_beat = taken.look_started + timing::jittered(interval, &mut context.rng);
        let predecessors = context.medium.own_check().max(taken.check);
        let watchful = match taken.predecessor {
            Some(_) => predecessors.wait(),
            None => Duration::ZERO,
        };
        let mut hold = Hold {
            step: Step::Idle { until: next_beat },
            acknowledged: taken.image,
            unacknowledged: None,
            lease: Lease::until(lease_end),
            seq: MmpBlock::fields(&taken.image).seq,
            beats: 0,
            next_beat,
            last_look_started: taken.look_started,
            last_good_look: now.mono,
            last_gap: None,
            foreign: Foreign::default(),
            predecessor: taken.predecessor,
            watchful_until: now.mono + watchful,
            unreadable: 0,
            releasing: false,
            retracting: false,
            handing_over: None,
            hand_over_from: now.mono,
            to_be_seen: false,
            back: None,
            trouble_told: false,
        };
        hold.rest(now, context);
        let as_peer = Peer::from(&MmpBlock::fields(&hold.acknowledged));
        context.event(Event::Held { lease_end, as_peer });
        hold
    }

    /// Goes on with a device that is protected already: looks at once, and beats over what stands there if it still does.
    pub(super) fn go_on(now: Now, standing: Standing, context: &mut Context) -> Self {
        let seq = sequence::jump(&mut context.rng, MmpBlock::fields(&standing.image).seq);
        Hold {
            step: Step::Idle { until: now.mono },
            acknowledged: standing.image,
            unacknowledged: None,
            lease: standing.lease,
            seq,
            beats: 0,
            next_beat: now.mono,
            last_look_started: now.mono,
            last_good_look: now.mono,
            last_gap: None,
            foreign: standing.foreign,
            predecessor: standing.predecessor,
            watchful_until: now.mono,
            unreadable: 0,
            releasing: standing.release,
            retracting: standing.release,
            handing_over: None,
            hand_over_from: now.mono,
            to_be_seen: true,
            back: standing.back,
            trouble_told: false,
        }
    }

    /// Whatever stands there is ours to judge: there is no watch to go back to.
    pub(super) fn keep(&mut self) {
        self.back = None;
    }

    /// None for a claim that is taken back: nothing is protected by it.
    pub(super) fn lease_end(&self) -> Option<Mono> {
        (!self.retracting).then_some(self.lease.end())
    }

    pub(super) fn deadline(&self) -> Mono {
        match self.step {
            Step::Idle { until } => until.min(self.lease.end()),
            Step::Looking { .. } | Step::Writing { .. } => self.lease.end(),
        }
    }

    pub(super) fn handle(&mut self, now: Now, input: Input<'_>, context: &mut Context) -> Flow {
        // First of all, and whatever it is that comes: an acknowledgement after the end is worth nothing.
        if now.mono >= self.lease.end() && self.retracting {
            context.event(Event::Refused { refusal: Refusal::Withdrawn { claim_left_standing: true } });
            return Flow::Break(Ended::Over);
        }
        if now.mono >= self.lease.end() && !(broken!(LateAnswerCounts) && matches!(input, Input::Written(_)))
        {
            return lose(now, Loss::LeaseExpired, context);
        }
        match input {
            Input::Tick => {
                if matches!(self.step, Step::Idle { until } if now.mono >= until) {
                    self.look(now, context);
                }
            }
            Input::Release => {
                self.releasing = true;
                if !self.clean_submitted() {
                    // Unmounted before it could be handed over.
                    self.handing_over = None;
                }
                if matches!(self.step, Step::Idle { .. }) {
                    self.look(now, context);
                }
            }
            Input::HandOver { .. } if context.medium.interval().is_some() => {}
            Input::HandOver { mounted } => {
                (self.releasing, self.handing_over) = (true, Some(mounted));
                if matches!(self.step, Step::Idle { .. }) {
                    self.look(now, context);
                }
            }
            Input::Read(answer) => return self.read(now, answer, context),
            Input::Written(answer) => return self.wrote(now, answer, context),
            Input::NotWritten => return lose(now, Loss::LeaseExpired, context),
            Input::CellLost => return lose(now, Loss::CellLost, context),
            // Whoever asked for the hand-over has given up.
            Input::MountEnded { .. } if self.handing_over.is_some() && !self.clean_submitted() => {
                (self.releasing, self.handing_over) = (false, None);
            }
            Input::Withdraw | Input::MountEnded { .. } => {}
            Input::Superblock(_) | Input::Entry(_) | Input::EntryWritten(_) | Input::Activity(_) => {
                unreachable!("a holder does not ask for that")
            }
        }
        Flow::Continue(())
    }

    fn look(&mut self, now: Now, context: &mut Context) {
        if now.mono.since(self.last_look_started) > self.check(context).span() {
            self.last_gap = Some(now.mono);
        }
        self.step = Step::Looking { started: now.mono };
        context.read();
    }

    fn read(&mut self, now: Now, answer: Result<&Image, Failure<'_>>, context: &mut Context) -> Flow {
        let Step::Looking { started } = self.step else { unreachable!("no read was asked for") };
        let look = Look { started, cycle: started.since(self.last_look_started) };
        self.last_look_started = started;
        let image = match answer {
            Ok(image) => image,
            Err(failure) => return self.trouble(now, failure, context),
        };
        let unacknowledged = self.unacknowledged.as_ref() == Some(image);
        let blind = if broken!(ReleasesBlindly) { self.releasing } else { broken!(BeatsBlindly) };
        if unacknowledged || *image == self.acknowledged || blind {
            self.last_good_look = now.mono;
            self.foreign.gone();
            self.unreadable = 0;
            if unacknowledged && self.clean_submitted() {
                // Its acknowledgement was lost, but it landed: a second one might hit a successor.
                return self.released(now, context);
            }
            if self.ends(now) || now.mono >= self.next_beat {
                self.write(now, look, image, context);
            } else {
                self.rest(now, context);
            }
            return Flow::Continue(());
        }
        if self.retracting {
            // Somebody claims over it: there is nothing left to take back.
            return self.released(now, context);
        }
        if let Some(watch) = self.back.take_if(|_| self.beats == 0) {
            return Flow::Break(Ended::HandedOver(watch.back(now)));
        }
        if self.kernel_is_back(now, image, context)
            && let Some(watch) = self.back.take()
        {
            return Flow::Break(Ended::HandedOver(watch.back_from(now, started - look.cycle, self.lease)));
        }
        self.judge(now, look, image, context)
    }

    fn write(&mut self, now: Now, look: Look, base: &Image, context: &mut Context) {
        let Look { started, cycle } = look;
        let interval = context.options.interval;
        let last = self.unacknowledged.as_ref().unwrap_or(&self.acknowledged);
        let clean = self.ends(now);
        let (seq, check) = if clean {
            (sequence::SEQ_CLEAN, context.medium.check_of(last))
        } else {
            let cycle = cycle.max(now.mono.since(started));
            // What the kernel has mounted it beats again one day, as seldom as it does.
            let kernels = self
                .back
                .as_ref()
                .map_or(0, |_| timing::kernel_check_interval_s(context.medium.update_interval_s()));
            let floor = context.options.check_interval_floor_s.max(kernels);
            (sequence::next(self.seq), context.medium.holder_check(interval, cycle, floor))
        };
        let image = context.medium.compose(base, seq, now.wall, check, true);
        let end = self.lease.submit(started, check);
        if !clean {
            self.seq = seq;
            self.beats += 1;
        }
        self.unacknowledged = Some(image);
        self.step = Step::Writing { started, clean, end };
        context.write(Write { image, durable: clean, not_after: self.lease.end() });
    }

    fn wrote(&mut self, now: Now, answer: Result<(), Failure<'_>>, context: &mut Context) -> Flow {
        let Step::Writing { started, clean, end } = self.step else { unreachable!("no write was asked for") };
        if let Err(failure) = answer {
            let sent = self.unacknowledged.as_ref().unwrap_or(&self.acknowledged);
            let lands_until = self.lease.stray(now.mono, context.medium.check_of(sent));
            // Over the kernel's beats nobody counts with it.
            self.hand_over_from = self.hand_over_from.max(lands_until);
            return self.trouble(now, failure, context);
        }
        if clean {
            // What is mounted and handed over goes on under the lease of this write: the last beat may be long ago.
            self.lease.acknowledge(end);
            return self.released(now, context);
        }
        self.acknowledged = self.unacknowledged.take().expect("set when the write was submitted");
        // It was in time: while it was under way, the lease ended with it at the latest.
        debug_assert!(now.mono < end || broken!(ForgetsUnacknowledged, LateAnswerCounts));
        let end = if broken!(LeaseFromAnswer) { end + now.mono.since(started) } else { end };
        self.lease.acknowledge(end);
        self.trouble_told = false;
        if std::mem::take(&mut self.to_be_seen) {
            self.hand_over_from = self.hand_over_from.max(now.mono + timing::HAND_BACK_AFTER);
        }
        self.next_beat = started + timing::jittered(context.options.interval, &mut context.rng);
        self.rest(now, context);
        Flow::Continue(())
    }

    /// C of the write that the lease comes from.
    fn check(&self, context: &Context) -> CheckInterval {
        context.medium.check_of(&self.acknowledged)
    }

    /// Sleeps until the next beat, or only until the next look while something is to be expected.
    fn rest(&mut self, now: Now, context: &Context) {
        let pace = if now.mono < self.watchful_until {
            timing::look_period(context.options.interval)
        } else if broken!(LooksSeldom) {
            timing::MAX_INTERVAL
        } else {
            timing::MAX_HOLD_LOOK
        };
        let mut until = self.next_beat.min(now.mono + pace);
        if self.ends(now) {
            until = now.mono;
        } else if self.releasing && !self.to_be_seen {
            until = until.min(self.hand_over_from);
        }
        self.step = Step::Idle { until };
    }

    fn trouble(&mut self, now: Now, failure: Failure<'_>, context: &mut Context) -> Flow {
        if !self.trouble_told {
            self.trouble_told = true;
            context.event(Event::IoTrouble { what: failure.what.to_owned(), lease_end: self.lease.end() });
        }
        self.step = Step::Idle { until: now.mono + RETRY_PAUSE };
        Flow::Continue(())
    }
}

fn lose(now: Now, loss: Loss, context: &mut Context) -> Flow {
    context.event(Event::Lost { loss, at: now.mono });
    Flow::Break(Ended::Over)
}
