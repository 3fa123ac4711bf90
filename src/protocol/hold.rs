//! Hold: beat, notice what is foreign, know when the lease has ended, release. The safety argument stands in the
//! module doc of `protocol`; what a foreign block means is `medium`'s and `foreign`'s business.
//!
//! Protects: once the lease has ended nothing more is written and *lost* is said, whatever an acknowledgement that
//! comes later may claim. Does not stop the user of the device: the keeper does, from the lease cell.

use std::ops::ControlFlow;
use std::time::Duration;

use super::event::{Event, Loss, Peer};
use super::foreign::{Foreign, Ruling};
use super::guard::{Context, Failure, Input, Write};
use super::medium::{Knowledge, Owner, Verdict};
use super::sequence;
use super::timing;
use crate::clock::{Mono, Now};
use crate::format::{Image, MmpBlock};

/// A failed read or write is tried again after this.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// So many looks in a row may find no MMP block before it is believed that there is none any more.
const UNREADABLE_LOOKS: u32 = 5;

/// What a claim hands over.
pub(super) struct Taken {
    pub(super) look_started: Mono,
    pub(super) image: Image,
    pub(super) predecessor: Option<Owner>,
    pub(super) check_interval_s: u16,
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
    predecessor: Option<Owner>,
    /// Until then looks are taken at a watcher's pace, and a losing predecessor's clean mark is expected.
    watchful_until: Mono,
    /// Looks in a row at something that is no MMP block.
    unreadable: u32,
    releasing: bool,
    trouble_told: bool,
}

/// The lease: the earliest end among the last acknowledged write and every later one whose fate is unknown. A later
/// one may have landed with a shorter check interval, and then a taker waits the shorter time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    acknowledged_end: Mono,
    unacknowledged_end: Mono,
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

type Flow = ControlFlow<()>;

impl Lease {
    fn end(self) -> Mono {
        self.acknowledged_end.min(self.unacknowledged_end)
    }

    fn submit(&mut self, end: Mono) {
        self.unacknowledged_end = self.unacknowledged_end.min(end);
    }

    fn acknowledge(&mut self, end: Mono) {
        *self = Lease { acknowledged_end: end, unacknowledged_end: Mono::FAR };
    }
}

impl Hold {
    pub(super) fn begin(now: Now, taken: Taken, context: &mut Context) -> Self {
        let interval = context.options.interval;
        let lease_end = taken.look_started + timing::lease(taken.check_interval_s);
        assert!(
            now.mono < lease_end,
            "a claim ends well within its own lease: the limit is a quarter of a wait"
        );
        let next_beat = taken.look_started + timing::jittered(interval, &mut context.rng);
        let predecessor_s =
            timing::taker_check_interval_s(context.medium.update_interval_s(), taken.check_interval_s);
        let watchful = match taken.predecessor {
            Some(_) => timing::wait(predecessor_s),
            None => Duration::ZERO,
        };
        let mut hold = Hold {
            step: Step::Idle { until: next_beat },
            acknowledged: taken.image,
            unacknowledged: None,
            lease: Lease { acknowledged_end: lease_end, unacknowledged_end: Mono::FAR },
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
            trouble_told: false,
        };
        hold.rest(now, context);
        let as_peer = Peer::from(&MmpBlock::fields(&hold.acknowledged));
        context.event(Event::Held { lease_end, as_peer });
        hold
    }

    pub(super) fn lease_end(&self) -> Mono {
        self.lease.end()
    }

    pub(super) fn deadline(&self) -> Mono {
        match self.step {
            Step::Idle { until } => until.min(self.lease.end()),
            Step::Looking { .. } | Step::Writing { .. } => self.lease.end(),
        }
    }

    pub(super) fn handle(&mut self, now: Now, input: Input<'_>, context: &mut Context) -> Flow {
        // First of all, and whatever it is that comes: an acknowledgement after the end is worth nothing.
        if now.mono >= self.lease.end() {
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
                if matches!(self.step, Step::Idle { .. }) {
                    self.look(now, context);
                }
            }
            Input::Read(answer) => return self.read(now, answer, context),
            Input::Written(answer) => return self.wrote(now, answer, context),
            Input::NotWritten => return lose(now, Loss::LeaseExpired, context),
            Input::CellLost => return lose(now, Loss::CellLost, context),
            Input::Withdraw => {}
            Input::Superblock(_) => unreachable!("a holder asks for no superblock"),
        }
        Flow::Continue(())
    }

    fn look(&mut self, now: Now, context: &mut Context) {
        if now.mono.since(self.last_look_started) > Duration::from_secs(self.check_interval_s().into()) {
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
        if unacknowledged || *image == self.acknowledged {
            self.last_good_look = now.mono;
            self.foreign.gone();
            self.unreadable = 0;
            if unacknowledged && self.clean_submitted() {
                // Its acknowledgement was lost, but it landed: a second one might hit a successor.
                return released(context);
            }
            if self.releasing || now.mono >= self.next_beat {
                self.write(now, look, image, context);
            } else {
                self.rest(now, context);
            }
            return Flow::Continue(());
        }
        self.judge(now, look, image, context)
    }

    fn judge(&mut self, now: Now, look: Look, image: &Image, context: &mut Context) -> Flow {
        let check_interval = Duration::from_secs(self.check_interval_s().into());
        let known = Knowledge {
            our_seq: self.seq,
            our_beats: self.beats,
            predecessor: self.predecessor.filter(|_| now.mono < self.watchful_until),
            seen_lately: now.mono.since(self.last_good_look) <= check_interval,
        };
        match context.medium.judge(image, now, known) {
            // Our mark landed and somebody came, or he came over our last beat and will get in: either is a release.
            Verdict::Unclear(_) | Verdict::Fsck(_) | Verdict::ClearedOurs(_) | Verdict::ForeignClean(_)
                if self.clean_submitted() =>
            {
                return released(context);
            }
            Verdict::OursOlder => {
                self.last_good_look = now.mono;
                self.write(now, look, image, context);
            }
            Verdict::Fsck(block) => return lose(now, Loss::Fsck { by: Peer::from(&block) }, context),
            Verdict::ForeignClean(block) => {
                return lose(now, Loss::ForeignClean { by: Peer::from(&block) }, context);
            }
            Verdict::Unreadable if self.unreadable >= UNREADABLE_LOOKS => {
                return lose(now, Loss::Unreadable, context);
            }
            Verdict::Unreadable => {
                self.unreadable += 1;
                self.step = Step::Idle { until: now.mono + timing::look_period(context.options.interval) };
                return Flow::Continue(());
            }
            Verdict::ClearedOurs(block) => {
                context.event(Event::Cleared { by: Peer::from(&block) });
                self.write(now, look, image, context);
            }
            Verdict::Unclear(_) | Verdict::Torn => {
                return self.look_longer(now, look, image, context);
            }
        }
        Flow::Continue(())
    }

    /// Somebody's live block: is he a claimer, or does he count?
    fn look_longer(&mut self, now: Now, look: Look, image: &Image, context: &mut Context) -> Flow {
        let reserve = timing::write_reserve(self.check_interval_s());
        let slept =
            self.last_gap.is_some_and(|at| now.mono.since(at) <= timing::wait(timing::MAX_CHECK_INTERVAL_S));
        match self.foreign.rule(now, look.started, image, self.lease.end() - reserve, slept, context) {
            Ruling::LookOn => {
                self.step = Step::Idle { until: now.mono + timing::look_period(context.options.interval) };
            }
            Ruling::BeatOver(by) => {
                let c = timing::taker_check_interval_s(context.medium.update_interval_s(), 0);
                self.watchful_until = self.watchful_until.max(now.mono + timing::wait(c) * 2);
                context.event(match by {
                    Some(by) => Event::Intruder { by },
                    None => Event::Repaired,
                });
                self.write(now, look, image, context);
            }
            Ruling::WeLose(loss) => return lose(now, loss, context),
        }
        Flow::Continue(())
    }

    fn write(&mut self, now: Now, look: Look, base: &Image, context: &mut Context) {
        let Look { started, cycle } = look;
        let interval = context.options.interval;
        let last = MmpBlock::fields(self.unacknowledged.as_ref().unwrap_or(&self.acknowledged));
        let clean = self.releasing;
        let (seq, check_interval_s) = if clean {
            (sequence::SEQ_CLEAN, last.check_interval_s)
        } else {
            let cycle = cycle.max(now.mono.since(started));
            let floor = context.options.check_interval_floor_s;
            (sequence::next(self.seq), timing::holder_check_interval_s(interval, cycle, floor))
        };
        let image = context.medium.compose(base, seq, now.wall, check_interval_s);
        let end = started + timing::lease(check_interval_s);
        self.lease.submit(end);
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
            return self.trouble(now, failure, context);
        }
        if clean {
            return released(context);
        }
        self.acknowledged = self.unacknowledged.take().expect("set when the write was submitted");
        // It was in time: while it was under way, the lease ended with it at the latest.
        debug_assert!(now.mono < end, "an acknowledgement after the end is worth nothing");
        self.lease.acknowledge(end);
        self.trouble_told = false;
        self.next_beat = started + timing::jittered(context.options.interval, &mut context.rng);
        self.rest(now, context);
        Flow::Continue(())
    }

    /// C of the write that the lease comes from, in seconds.
    fn check_interval_s(&self) -> u16 {
        MmpBlock::fields(&self.acknowledged).check_interval_s
    }

    /// The clean mark is on its way and its fate is not known.
    fn clean_submitted(&self) -> bool {
        self.unacknowledged.as_ref().is_some_and(|image| MmpBlock::fields(image).seq == sequence::SEQ_CLEAN)
    }

    /// Sleeps until the next beat, or only until the next look while something is to be expected.
    fn rest(&mut self, now: Now, context: &Context) {
        let until = if self.releasing {
            now.mono
        } else if now.mono < self.watchful_until {
            self.next_beat.min(now.mono + timing::look_period(context.options.interval))
        } else {
            self.next_beat.min(now.mono + timing::MAX_HOLD_LOOK)
        };
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

fn released(context: &mut Context) -> Flow {
    context.event(Event::Released);
    Flow::Break(())
}

fn lose(now: Now, loss: Loss, context: &mut Context) -> Flow {
    context.event(Event::Lost { loss, at: now.mono });
    Flow::Break(())
}
